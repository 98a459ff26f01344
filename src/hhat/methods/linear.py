"""`ls`, `rls`, `lmmse`: one linear map of y."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hhat.methods.base import (
    Method,
    learned_noise,
    noise_info,
    noise_of,
    pack,
    problem,
    relative_change,
    start_noise,
    start_prior,
    unpack,
)
from hhat.ops.base import LinearOp, cached
from hhat.ops.conditional import Conditional
from hhat.ops.linalg import squared
from hhat.ops.pinv import pinv
from hhat.ops.posterior import condition
from hhat.priors.base import Prior
from hhat.priors.gauss import Gauss
from hhat.types import Estimate, Gaussian, Observation, State

SPARE = 0.5
"""Samples beyond the unknowns that it takes to estimate the noise (a count, so that round-off cannot matter)."""
SEEN = 0.999
"""An unknown of which y sees less than this share is not determined by least squares: its variance is infinite."""


@dataclass(frozen=True, eq=False)
class LeastSquares(Method):
    """h = A^+ y: minimum-norm least squares; variance s2 diag(A^+ A^+H), infinite where y does not determine h.

    Noise that is not given is estimated from the residual where there are more samples than unknowns; else the
    variance is infinite. Source: Kay 1993, theorem 4.1.
    """

    variance: ClassVar[str] = "plug-in"
    max_steps: int = 1
    tol: float | None = None

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        state: State = {"h": obs.y.new_zeros(*obs.batch_shape, *obs.op.in_shape)}
        return {**state, "change": obs.y.real.new_ones(obs.batch_shape), **start_noise(obs)}

    def step(self, state: State, obs: Observation) -> State:
        op: LinearOp = obs.op.like(obs.y)  # type: ignore[attr-defined]
        inverse, seen = pinv(op, obs.y)
        h = inverse.apply(obs.y).expand(state["h"].shape)
        new: State = {"h": h, "change": torch.zeros_like(state["change"])}
        if obs.noise_var is None:
            axes = tuple(range(-len(op.out_shape), 0))
            samples = math.prod(op.out_shape)
            count = len(op.in_shape)
            spare = (samples - seen.flatten(seen.ndim - count).sum(-1))[(..., *(None,) * len(axes))]
            rest = squared(obs.y - op.apply(h)).sum(axes, keepdim=True)
            # without spare samples the noise cannot be told: the largest number stands for it in the state
            largest = torch.full_like(rest, torch.finfo(rest.dtype).max)
            found = torch.where(spare > SPARE, rest / spare.clamp_min(SPARE), largest)
            new["noise_var"] = found.expand(state["noise_var"].shape)
        return new

    def read(self, state: State, obs: Observation) -> Estimate:
        inverse, seen = pinv(obs.op.like(obs.y), obs.y)  # type: ignore[attr-defined]
        noise = noise_of(state, obs)
        lead = noise.shape[: max(0, noise.ndim - len(obs.op.out_shape))]
        largest = torch.finfo(noise.dtype).max
        var = inverse.squares.apply(noise.clamp_max(largest / 1e6).expand(*lead, *obs.op.out_shape))
        unknown = noise.expand(*lead, *obs.op.out_shape)[(..., *(0,) * len(obs.op.out_shape))] >= largest
        hidden = (seen < SEEN) | unknown[(..., *(None,) * len(obs.op.in_shape))]
        info = noise_info(state, obs)
        if bool(unknown.any()):
            told = torch.where(noise >= largest, torch.inf, noise)
            info = {"noise_var": told, "noise_var_source": "estimated; infinite where y does not tell"}
        return Estimate(Gaussian(state["h"], torch.where(hidden, torch.inf, var)), info)


@dataclass(frozen=True, eq=False)
class Lmmse(Method):
    """Posterior mean under a Gaussian prior, h = m + C A^H (A C A^H + S)^-1 (y - A m), and its exact variance.

    prior: moments of the coefficients and their basis; any prior's first two moments are taken. A learnable prior
    is scaled to the received power. Noise that is not given is found by EM on the evidence.
    info: log_evidence per item, noise_var. Source: Kay 1993, theorem 11.1.
    """

    uses_prior: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    max_steps: int = 100
    tol: float | None = 1e-4

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        state: State = {"change": obs.y.real.new_zeros(obs.batch_shape), **start_noise(obs)}
        if self.prior is None or self.prior.learnable:
            state |= pack(start_prior(self.prior, obs, task))
        return state

    def step(self, state: State, obs: Observation) -> State:
        if obs.noise_var is not None:
            return state
        task, now = problem(obs, self.prior), self._moments(state, obs)
        noise = state["noise_var"]
        given = condition(task.op, now.var, noise, like=obs.y)
        shift, _ = given(obs.y - task.op.apply(_full(now.mean, task.op)))
        fresh = learned_noise(task, Gaussian(now.mean + shift, given.var), now.var, noise)
        change = relative_change(fresh, noise, len(task.op.out_shape))
        return {**state, "noise_var": fresh, "change": change}

    def read(self, state: State, obs: Observation) -> Estimate:
        task, now = problem(obs, self.prior), self._moments(state, obs)
        given = self._given(state, obs, now)
        mean = _full(now.mean, task.op)
        shift, evidence = given(obs.y - task.op.apply(mean) if bool((mean != 0).any()) else obs.y)
        h = task.channel(mean) + shift
        info = {"log_evidence": evidence.expand(obs.batch_shape), **noise_info(state, obs)}
        return Estimate(Gaussian(h.expand(*obs.batch_shape, *obs.op.in_shape), given.var), info)

    def _moments(self, state: State, obs: Observation) -> Gaussian:
        if self.prior is None or self.prior.learnable:
            return unpack(self.prior, state, problem(obs, self.prior)).moments()
        now = self.prior.moments()
        return Gaussian(now.mean.to(obs.y), now.var.to(obs.y.device, obs.y.real.dtype))

    def _given(self, state: State, obs: Observation, now: Gaussian) -> Conditional:
        """The factorisation; remembered by the operator where prior and noise are the same as last time."""
        task, noise = problem(obs, self.prior), noise_of(state, obs)
        view = task.basis

        def make() -> Conditional:
            return condition(task.op, now.var, noise, view, like=obs.y)

        if self.prior is None or self.prior.learnable or obs.noise_var is None:
            return make()
        return remembered(task.op, self.prior, noise, obs.y, make)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Lmmse":
        return cls(Gauss(1.0))


def rls(max_steps: int = 100, tol: float | None = 1e-4) -> Lmmse:
    """Regularised least squares h = A^H (A A^H + lambda I)^-1 y with the LMMSE choice lambda = noise_var / power:
    `lmmse` for a white channel whose power is taken from y."""
    return Lmmse(Gauss(1.0, learnable=True), max_steps, tol)


def remembered(
    op: LinearOp, owner: object, noise: Tensor, like: Tensor, make: Callable[[], Conditional]
) -> Conditional:
    """`make()`, remembered by the operator while the owner of the prior and the noise are the same as last time."""
    value = float(noise) if noise.numel() == 1 else (id(noise), noise._version)
    key = ("lmmse", id(owner), value, tuple(noise.shape), like.dtype, str(like.device))
    return cached(op, key, lambda: (owner, noise, make()))[2]


def _full(mean: Tensor, op: LinearOp) -> Tensor:
    count = len(op.in_shape)
    return mean.expand(*mean.shape[: max(0, mean.ndim - count)], *op.in_shape)
