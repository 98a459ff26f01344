"""`oamp`: orthogonal AMP, an LMMSE step and a denoiser that exchange extrinsic messages (Turbo-OAMP, VAMP)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hhat.methods.base import (
    Method,
    Problem,
    annealed_noise,
    axis_numbers,
    learned_noise,
    noise_info,
    noise_of,
    pack,
    problem,
    relative_change,
    settled_change,
    start_noise,
    start_prior,
    unpack,
)
from hhat.methods.readout import channel_belief, denoiser_factor
from hhat.ops.base import LinearOp
from hhat.ops.coupling import coupled_axes
from hhat.ops.linalg import squared
from hhat.ops.posterior import posterior
from hhat.ops.rotation import Rotation, rotation
from hhat.priors.base import Prior
from hhat.types import Estimate, Gaussian, Observation, State

WIDEST = {torch.float32: 1e4, torch.float64: 1e6}
"""An extrinsic variance is at most this many times the variance it came from: 'the other side adds nothing'. The
division amplifies round-off by as much."""
SETTLE_AFTER = 30
"""Steps after which the share of new messages shrinks as 1/step."""
SURPRISE = 2.0
"""A residual whose energy exceeds the promised one by this factor is believed over the promise."""
BLOCK_SURPRISE = 4.0
"""The same for one block of several: variances that hold on average over blocks are no contradiction."""
LEAST_BLOCK = 8
"""Samples from which an independent block is judged by its own residual: of fewer, chance alone surprises too often."""


@dataclass(frozen=True, eq=False)
class Oamp(Method):
    """OAMP with the exact LMMSE step for any operator structure, and any prior.

      (x_po, v_po) = LMMSE of x from y under CN(x_pri, v_pri);  (r, v_r) = posterior / (x_pri, v_pri)
      (x, v)       = prior.denoise(r, v_r);                     (x_pri, v_pri) = posterior / (r, v_r)

    Variances are averaged over `average_axes` of the coefficients. None: over the axes that the operator mixes, one
    variance per independent block, which lets the LMMSE step use singular values; all axes: the usual scalar form;
    (): none, per entry. Noise may differ per entry of y.
    damping: share of the new message to the LMMSE step that is taken. The prior's parameters are learned from r by
    EM where it is learnable; so is noise that is not given.
    info: coefficients, the last pseudo-observation, the prior as learned.
    Source: Ma & Ping, IEEE Access 2017; Rangan, Schniter & Fletcher, IEEE TIT 2019, algorithm 1.
    """

    uses_prior: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    average_axes: tuple[int, ...] | None = None
    damping: float = 0.7
    max_steps: int = 300
    tol: float | None = 1e-6

    def __post_init__(self):
        if not 0 < self.damping <= 1:
            raise ValueError(f"oamp: damping: expected 0 < damping <= 1, got {self.damping}")

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        axis_numbers("average_axes", self.average_axes or (), None, task.num_event)
        prior = start_prior(self.prior, obs, task)
        now, shape = prior.moments(), (*obs.batch_shape, *task.op.in_shape)
        one = obs.y.real.new_ones(obs.batch_shape)
        x_pri = now.mean.expand(shape).clone()
        v_pri = self._average(now.var.expand(shape), task).clone()
        state: State = {"x_pri": x_pri, "v_pri": v_pri, "x": x_pri, "v": now.var.expand(shape).clone(), "r": x_pri}
        state |= {"r_var": torch.full_like(v_pri, 1e30), "change": one, "count": torch.zeros_like(one)}
        return {**state, **pack(prior), **start_noise(obs, always=True)}

    def step(self, state: State, obs: Observation) -> State:
        task = problem(obs, self.prior)
        prior, noise = unpack(self.prior, state, task), annealed_noise(state, obs)
        before, linear, fresh = self._linear(state, obs, task, noise)
        r = extrinsic(Gaussian(linear.mean, self._average(linear.var, task)), before)
        if prior.learnable:
            prior = prior.learn(r)
        x = prior.denoise(r)
        back = extrinsic(Gaussian(x.mean, self._average(x.var, task)), r)
        lift = (..., *(None,) * task.num_event)
        share = torch.where(state["count"] == 0, 1.0, self._share(state["count"]))[lift]
        new: State = {
            "x_pri": share * back.mean + (1 - share) * before.mean,
            "v_pri": share * back.var + (1 - share) * before.var,
            "x": x.mean,
            "v": x.var,
            "r": r.mean,
            "r_var": r.var,
            "change": settled_change(relative_change(x.mean, state["x"], task.num_event, x.var), noise, obs),
            "count": state["count"] + 1,
            **pack(prior),
            **fresh,
        }
        return new

    def _linear(self, state: State, obs: Observation, task: Problem, noise: Tensor) -> tuple[Gaussian, Gaussian, State]:
        """The LMMSE step: what it started from, its posterior, and what it learned: at least the noise, by EM."""
        before = Gaussian(state["x_pri"], state["v_pri"] * _surprise(task, state, noise))
        linear = posterior(task.op, obs.y, before, noise).belief
        return before, linear, {"noise_var": learned_noise(task, linear, before.var, noise)}

    def factor(self, state: State, obs: Observation) -> Gaussian:
        return denoiser_factor(Gaussian(state["r"], state["r_var"]), Gaussian(state["x"], state["v"]))

    def read(self, state: State, obs: Observation) -> Estimate:
        task = problem(obs, self.prior)
        r, x = Gaussian(state["r"], state["r_var"]), Gaussian(state["x"], state["v"])
        info = {"coefficients": x, "pseudo_observation": r, "prior": unpack(self.prior, state, task)}
        return Estimate(channel_belief(task, r, x, noise_of(state, obs)), {**info, **noise_info(state, obs)})

    def _share(self, count: Tensor) -> Tensor:
        """Share of a new message: `damping`, later less, so that cycles of finite systems die out."""
        return self.damping * (SETTLE_AFTER / count.clamp_min(SETTLE_AFTER))

    def _average(self, var: Tensor, task: Problem) -> Tensor:
        axes = coupled_axes(task.op) if self.average_axes is None else self.average_axes
        return var.mean(axes, keepdim=True) if axes else var


def _surprise(task: Problem, state: State, noise_var: Tensor) -> Tensor:
    """Factor by which v_pri is too small: energy of y - A x_pri over what s2 and v_pri promise, 1 unless > SURPRISE.

    Finite sizes let v_pri shrink below the true error of x_pri, and the exchange then diverges; y tells. Where the
    promise holds nothing changes. Ma & Ping use the measured form always. Where the variances are those of independent
    blocks of at least LEAST_BLOCK samples, each block has a factor of its own: the error of x_pri may lie in few of
    them, and shared out among all it would surprise nobody.
    """
    axes, op, y, noise, limit = task.out_event(), task.op, task.y, noise_var, SURPRISE
    blocks = _blocks(task, state["v_pri"], noise_var)
    if blocks is not None:
        (basis, axes), limit = blocks, BLOCK_SURPRISE
        op, y, noise = basis.op, basis.turn.apply(task.y), basis.turned(noise_var, len(task.op.out_shape))
    return _factor(op, y, axes, state, noise, limit)


def _factor(op: LinearOp, y: Tensor, axes: tuple[int, ...], state: State, noise: Tensor, limit: float) -> Tensor:
    residual = squared(y - op.apply(state["x_pri"])).sum(axes, keepdim=True)
    promised = op.squares.apply(state["v_pri"].expand(state["x_pri"].shape)).sum(axes, keepdim=True)
    lead = residual.ndim - len(op.out_shape)
    noise = noise.expand(*residual.shape[:lead], *op.out_shape).sum(axes, keepdim=True)
    count = state["count"][(..., *(None,) * len(op.out_shape))]
    factor = surprise(residual, promised, noise, count, limit)
    shape = factor.shape[lead:] if len(op.out_shape) == len(op.in_shape) else (1,) * len(op.in_shape)
    return factor.reshape(*factor.shape[:lead], *shape)


def _blocks(task: Problem, v_pri: Tensor, noise_var: Tensor) -> tuple[Rotation, tuple[int, ...]] | None:
    """The basis in which y falls apart into blocks with variances of their own, and its axes within a block; None
    where there are none, they are small, or differing noise ties them together."""
    count, coupled = task.num_event, coupled_axes(task.op)
    apart = [axis for axis in range(-count, 0) if axis not in coupled and task.op.in_shape[axis] > 1]
    if not coupled or not apart or any(v_pri.shape[axis] == 1 for axis in apart):
        return None
    basis = rotation(task.op, task.y)
    shape = tuple(basis.op.out_shape)
    if len(shape) != count or not basis.mixes_alike(noise_var, len(task.op.out_shape)):
        return None
    within = tuple(axis for axis in range(-count, 0) if axis not in apart)
    return (basis, within) if math.prod(shape[axis] for axis in within) >= LEAST_BLOCK else None


def surprise(residual: Tensor, promised: Tensor, noise: Tensor, count: Tensor, limit: float = SURPRISE) -> Tensor:
    """The factor from the energies of y - A x_pri: found, promised by v_pri, and of the noise; 1 in the first step."""
    factor = (residual - noise) / promised.clamp_min(torch.finfo(promised.dtype).tiny)
    surprised = (residual > limit * (promised + noise)) & (count > 0)
    return torch.where(surprised, factor, 1.0)


def extrinsic(after: Gaussian, before: Gaussian) -> Gaussian:
    """What the step from `before` to `after` added: after / before, never wider than WIDEST times `after`."""
    tiny = torch.finfo(after.var.dtype).tiny
    after_var = torch.minimum(after.var, before.var).clamp_min(tiny)
    # 1/after - 1/before without the difference of two large numbers
    ratio = ((before.var - after_var) / before.var.clamp_min(tiny)).clamp_min(1 / WIDEST[after.var.dtype])
    mean = (after.mean - (1 - ratio) * before.mean) / ratio
    # where the step widened the belief it added nothing: keep its mean, not a difference divided by almost zero
    mean = torch.where(ratio > 1 / WIDEST[after.var.dtype], mean, after.mean)
    return Gaussian(mean, after_var / ratio)
