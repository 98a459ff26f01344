"""`covariance-mixture`: the exact posterior where the channel is Gaussian with one of several covariances."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hhat.methods.base import (
    Method,
    Problem,
    learned_noise,
    noise_info,
    noise_of,
    problem,
    relative_change,
    start_noise,
)
from hhat.methods.linear import remembered, rls
from hhat.methods.rows import Rows
from hhat.methods.solve import solve
from hhat.ops.base import LinearOp, cached
from hhat.ops.conditional import Conditional
from hhat.ops.linalg import per_axis
from hhat.ops.posterior import condition
from hhat.priors.base import Prior
from hhat.priors.experts import Experts, Group, combined
from hhat.priors.gauss import Gauss
from hhat.types import Estimate, Gaussian, Observation, State

SLICE_ENTRIES = 1 << 23
"""Entries of the experts' estimates formed at a time (64 MB)."""
NONE_OF_THESE = "none of these"


class Judged(NamedTuple):
    """What the experts make of y, item by item."""

    share: Tensor
    """q_k = P(expert k | y), (*batch, K)"""
    log_evidence: Tensor
    """log p(y) under the mixture, (*batch)"""
    p_value: Tensor
    """P(a y of the most probable expert is as far out as this one), (*batch), float64"""


@dataclass(frozen=True, eq=False)
class CovarianceMixture(Method):
    """h ~ sum_k w_k CN(m_k, C_k), y = A h + CN(0, S): Bayes-optimal, closed form, nothing iterates.

      q_k  ~ w_k CN(y; A m_k, S_k),  S_k = A C_k A^H + S          (exact evidence)
      mean = sum_k q_k mean_k,       mean_k: `lmmse` under expert k
      var  = sum_k q_k (var_k + |mean_k - mean|^2)                  (law of total variance)

    None of these: d = (y - A m)^H S_k^-1 (y - A m) under the most probable expert is Gamma(M, 1), M samples, if y came
    from it; p_value = 2 min(P(d' <= d), P(d' >= d)). Below `false_alarm` the item is "none of these". Exact for
    Gaussian channels, for the experts' own parameters and when one expert is clearly ahead; conservative where
    they are estimated from few channels.

    prior:       `experts` of known Gaussian priors in any bases (a single Gaussian prior is one expert). None: `rls`.
    false_alarm: share of channels of the experts' own that may be called "none of these"
    otherwise:   a method for the items that are; None: they keep the mixture's estimate
    Noise that is not given is found by EM on the mixture's evidence; then the p-value says less, as the noise takes up
    part of the misfit.
    info: names, probability (*batch, names), expert (*batch; index into names, -1: none of these), p_value,
    log_evidence, noise_var. One factorisation per basis, operator and noise, remembered.
    Raises ValueError for experts that are not Gaussian or are learnable.
    Source: Bayes' rule; as the rival of Jiang et al. 2026: diffusion_experts sections 4.8 and 10.3.
    """

    uses_prior: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    false_alarm: float = 1e-3
    otherwise: Method | None = None
    max_steps: int = 100
    tol: float | None = 1e-4

    def __post_init__(self):
        if isinstance(self.prior, Experts) and not self.prior.gaussian:
            kinds = sorted({type(expert).__name__ for expert in self.prior.experts} - {"Gauss"}) or ["a learnable one"]
            raise ValueError(f"covariance-mixture: expected known Gaussian experts, got {' '.join(kinds)}")
        if self.prior is not None and not isinstance(self.prior, Experts | Gauss):
            raise ValueError(f"covariance-mixture: expected the prior experts, got {type(self.prior).__name__}")
        if not 0 <= self.false_alarm < 1:
            raise ValueError(f"covariance-mixture: false_alarm: expected 0 <= false_alarm < 1, got {self.false_alarm}")

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        if self.prior is None or (isinstance(self.prior, Gauss) and self.prior.learnable):
            return rls().resolve(obs)[0], {"method": "rls", "why": "no experts were given"}
        return self, {}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        return {"change": obs.y.real.new_zeros(obs.batch_shape), **start_noise(obs)}

    def step(self, state: State, obs: Observation) -> State:
        if obs.noise_var is not None:
            return state
        noise, terms, joint = state["noise_var"], [], []
        for group in self._groups(obs):
            task, lifted = self._task(group, obs), _lifted(noise, group, obs)
            given = condition(task.op, group.var, lifted, like=obs.y)
            shift, evidence = given(task.y - task.op.apply(_full(group.mean, task.op)))
            x = Gaussian(group.mean + shift, given.var)
            terms.append(stacked(learned_noise(task, x, group.var, lifted), group, len(obs.op.out_shape)))
            joint.append(stacked(evidence, group, 0))
        share = self._share(joint, obs)
        fresh = (share[(..., *(None,) * len(obs.op.out_shape))] * torch.cat(terms, share.ndim - 1)).sum(share.ndim - 1)
        return {**state, "noise_var": fresh, "change": relative_change(fresh, noise, len(obs.op.out_shape))}

    def read(self, state: State, obs: Observation) -> Estimate:
        belief, judged = self._mixed(state, obs)
        prior = self._prior(obs)
        probability = prior.by_name(judged.share)
        unknown = judged.p_value < self.false_alarm
        info = {
            "names": prior.labels,
            "probability": probability,
            "expert": probability.argmax(-1).masked_fill(unknown, -1),
            "p_value": judged.p_value,
            "log_evidence": judged.log_evidence,
            **noise_info(state, obs),
        }
        count = int(unknown.sum())
        if count:
            info["why"] = (
                f"{NONE_OF_THESE}: {count} of {unknown.numel()} items fit no expert (p < {self.false_alarm:g})"
            )
        if count and self.otherwise is not None:
            belief = self._replaced(belief, unknown, state, obs)
        return Estimate(belief, info)

    def judged(self, state: State, obs: Observation) -> Judged:
        """The experts' probabilities, the evidence and the p-value."""
        return self._mixed(state, obs)[1]

    def parts(self, noise: Tensor, obs: Observation) -> "list[Part]":
        """The experts, factored, basis by basis."""
        found = []
        for group in self._groups(obs):
            task = self._task(group, obs)
            given = self._given(group, task, noise, obs)
            found.append(Part(group, task, given, len(obs.op.in_shape), len(obs.op.out_shape)))
        return found

    def _replaced(self, belief: Gaussian, unknown: Tensor, state: State, obs: Observation) -> Gaussian:
        assert self.otherwise is not None
        rows = Rows.all(obs.op, obs.batch_shape).of(unknown)  # type: ignore[arg-type]
        shape = tuple(obs.op.out_shape)
        noise = per_axis(noise_of(state, obs), len(shape), shape)
        noise = rows.take(noise.expand(*obs.batch_shape, *noise.shape[noise.ndim - len(shape) :]))
        there = Observation(rows.take(obs.y.expand(*obs.batch_shape, *shape)), obs.op, noise, obs.axes)
        found = solve(self.otherwise, there).belief
        where = unknown[(..., *(None,) * len(obs.op.in_shape))]
        var = belief.var.expand(belief.mean.shape)
        return Gaussian(
            torch.where(where, rows.put(belief.mean, found.mean), belief.mean),
            torch.where(where, rows.put(var, found.var.expand(found.mean.shape)), var),
        )

    def _prior(self, obs: Observation) -> Experts:
        return self._made(obs)[0]

    def _groups(self, obs: Observation) -> list[Group]:
        real, device = obs.y.real.dtype, obs.y.device
        return [g._replace(var=g.var.to(device, real), mean=g.mean.to(obs.y)) for g in self._made(obs)[1]]

    def _made(self, obs: Observation) -> tuple[Experts, tuple[Group, ...]]:
        """The experts for this many channel axes, and their groups; made once per operator."""
        prior, count = self.prior, len(obs.op.in_shape)

        def make() -> tuple:
            whole = prior if isinstance(prior, Experts) else Experts((prior,))  # type: ignore[arg-type]
            whole = Experts(whole.experts, whole.weights, whole.names, whole.learnable, count)
            return prior, whole, whole.groups()

        return cached(obs.op, ("experts", id(prior)), make)[1:]  # type: ignore[arg-type]

    def _task(self, group: Group, obs: Observation) -> Problem:
        """y in the coefficients of a group; with several experts, y has their axis in front of its event axes."""
        task = problem(obs, Gauss(basis=group.basis))
        if len(group.index) == 1:
            return task
        y = obs.y.unsqueeze(obs.y.ndim - len(obs.op.out_shape))
        return replace(task, op=task.op.lift(1), y=y)

    def _given(self, group: Group, task: Problem, noise: Tensor, obs: Observation) -> Conditional:
        basis = task.basis
        if basis is not None and len(group.index) > 1:
            basis = basis.lift(1)

        def make() -> Conditional:
            return condition(task.op, group.var, _lifted(noise, group, obs), basis, like=obs.y)

        if obs.noise_var is None:
            return make()
        return remembered(task.op, self.prior, noise, obs.y, make)

    def _share(self, joint: list[Tensor], obs: Observation) -> Tensor:
        """P(expert | y), in the order of the groups."""
        order = [k for group in self._groups(obs) for k in group.index]
        weights = self._prior(obs).log_weights().to(joint[0])[..., order]
        return (torch.cat(joint, -1) + weights).softmax(-1)

    def _mixed(self, state: State, obs: Observation) -> tuple[Gaussian, Judged]:
        groups, noise = self._groups(obs), noise_of(state, obs)
        parts = self.parts(noise, obs)
        weights = self._prior(obs).log_weights().to(obs.y.real)
        weights = weights[..., [k for group in groups for k in group.index]]
        batch, out = obs.batch_shape, tuple(obs.op.out_shape)
        y = obs.y.expand(*batch, *out)
        items = SLICE_ENTRIES // (len(self._prior(obs).experts) * math.prod((*obs.op.in_shape, *batch[1:])))
        shared = noise.numel() == 1 and weights.ndim == 1 and not obs.op.batch_shape  # type: ignore[attr-defined]
        pieces = y.split(max(1, items)) if batch and shared else (y,)
        found = [_slice(parts, piece, weights, math.prod(out)) for piece in pieces]
        belief, judged = (list(column) for column in zip(*found, strict=True))
        if len(found) == 1:
            mean, var, told = belief[0].mean, belief[0].var, judged[0]
        else:
            mean, var = torch.cat([b.mean for b in belief]), torch.cat([b.var for b in belief])
            told = Judged(*(torch.cat(column) for column in zip(*judged, strict=True)))
        order = torch.tensor([k for group in groups for k in group.index], device=y.device).argsort()
        told = told._replace(share=told.share[..., order])
        return Gaussian(mean.expand(*batch, *obs.op.in_shape), var.expand(*batch, *obs.op.in_shape)), told

    @classmethod
    def example(cls, gen: torch.Generator) -> "CovarianceMixture":
        return cls(Experts.example(gen))


@dataclass(frozen=True, eq=False)
class Part:
    """The experts of one basis, factored; what it answers has their axis K."""

    group: Group
    task: Problem
    given: Conditional
    num_event: int
    num_out: int

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Estimates (*batch, K, *event), log evidence and distances (*batch, K)."""
        group, op = self.group, self.task.op
        y = y if len(group.index) == 1 else y.unsqueeze(y.ndim - self.num_out)
        mean = _full(group.mean, op)
        moved = bool((group.mean != 0).any())
        shift, evidence = self.given(y - op.apply(mean) if moved else y)
        nearest = self.given(y.new_zeros(self.task.op.out_shape))[1]  # at distance 0
        evidence = stacked(evidence, group, 0)
        shift = stacked(shift, group, self.num_event)
        if moved:
            shift = shift + stacked(self.task.channel(mean), group, self.num_event)
        return shift, evidence, stacked(nearest, group, 0) - evidence

    @property
    def var(self) -> Tensor:
        return stacked(self.given.var, self.group, self.num_event)


def _slice(parts: list[Part], y: Tensor, weights: Tensor, samples: int) -> tuple[Gaussian, Judged]:
    each = [part(y) for part in parts]
    num_event = parts[0].num_event
    shifts, evidences, distances = zip(*each, strict=True)
    mean, evidence, distance = torch.cat(shifts, -1 - num_event), torch.cat(evidences, -1), torch.cat(distances, -1)
    vars_ = [part.var.expand(*part.var.shape[:-num_event], *mean.shape[-num_event:]) for part in parts]
    var = torch.cat(vars_, -1 - num_event)
    joint = evidence + weights
    share = joint.softmax(-1)
    belief = combined(share[(..., *(None,) * num_event)], mean, var, -1 - num_event)
    best = distance.gather(-1, share.argmax(-1, keepdim=True))[..., 0].double().clamp_min(0)
    count = torch.full_like(best, samples)
    below, above = torch.special.gammainc(count, best), torch.special.gammaincc(count, best)
    p_value = (2 * torch.minimum(below, above)).clamp_max(1)
    return belief, Judged(share, joint.logsumexp(-1), p_value)


def stacked(x: Tensor, group: Group, num_event: int) -> Tensor:
    """With an axis for the experts of the group in front of the event axes, where a single one has none."""
    return x if len(group.index) > 1 else x.unsqueeze(x.ndim - num_event)


def _lifted(noise: Tensor, group: Group, obs: Observation) -> Tensor:
    """Noise with an axis of size 1 for several experts behind its batch axes."""
    shape = tuple(obs.op.out_shape)
    noise = per_axis(noise, len(shape), shape)
    return noise if len(group.index) == 1 else noise.unsqueeze(noise.ndim - len(shape))


def _full(mean: Tensor, op: LinearOp) -> Tensor:
    count = len(op.in_shape)
    return mean.expand(*mean.shape[: max(0, mean.ndim - count)], *op.in_shape)
