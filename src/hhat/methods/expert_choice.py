"""Which expert holds: where q starts, and how a channel estimate judges the experts (`experts-vb`)."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from hhat.methods.base import NOISELESS
from hhat.ops.linalg import squared
from hhat.priors.base import power
from hhat.priors.experts import Experts
from hhat.priors.schedule import Schedule
from hhat.random import complex_normal, generator
from hhat.types import Gaussian, Observation

NODES = (5, 10, 20, 30, 40, 50, 60, 80)
WEIGHTS = ("bins", "even", "printed")
POOL_ROUNDS = 50
"""Rounds of q and gamma on a closed-form evidence; they settle in a few"""


@runtime_checkable
class Start(Protocol):
    """q before the first pass, (*batch, K), from log p_k(y) and the Dirichlet's gamma_0 (K,); num_passes: how many the
    method takes with it by default."""

    num_passes: ClassVar[int]

    def __call__(self, evidence: Tensor, concentration: Tensor, pool: bool) -> Tensor: ...


@dataclass(frozen=True)
class EvidenceStart:
    """q_k ~ p_k(y) pi_k, log p_k(y) in closed form under expert k's Gaussian moments: exact for Gaussian experts; one
    pass is then all. For a single channel the Dirichlet integrates out to its mean, gamma_0 over its sum; pooled, the
    prevalence of all items is found first: q_k ~ p_k(y) exp(psi(gamma_k)), gamma = gamma_0 + sum of q.
    Source: diffusion_experts sections 10.3 and 10.7."""

    num_passes: ClassVar[int] = 1

    def __call__(self, evidence: Tensor, concentration: Tensor, pool: bool) -> Tensor:
        share = (evidence + concentration.clamp_min(torch.finfo(evidence.dtype).tiny).log()).softmax(-1)
        for _ in range(POOL_ROUNDS * pool):
            share = (evidence + expected_log(counted(share, concentration, True))).softmax(-1)
        return share


@dataclass(frozen=True)
class UniformStart:
    """The paper's: q_k = 1/K, then passes. Source: Jiang et al. 2026, algorithm 1."""

    num_passes: ClassVar[int] = 5

    def __call__(self, evidence: Tensor, concentration: Tensor, pool: bool) -> Tensor:
        return torch.full_like(evidence, 1 / evidence.shape[-1])


@dataclass(frozen=True)
class Judgement:
    """What an estimate h says of expert k, with x_k,t = E_k[h | h + CN(0, v_t)], v_t = (1 - abar_t)/abar_t:

      L_k = - sum_(t in nodes) W_t |x_k,t - h|^2 / v_t        (bound on log p_k(h), from |eps - eps_k|^2)
      C_k = - |y - A x_k,t'|^2 / s2                           (does the denoised estimate still fit y?)

    w_t = (1 - alpha_t)/(alpha_t (1 - abar_(t-1))), the bound's weight for t = 2..T, and W_t is
      bins:    the sum of w over the steps nearest to the node
      even:    T/|S| w_t; right on average only for nodes that are drawn: t = 5 counts 5 times too much
      printed: w_t, as the paper has it. No bound with few nodes, but C_k then weighs more, and it selects no worse at
               any point measured and better at some (docs/methods/experts-vb.md)
    Each step draws its noise once, the same for all experts and items: what differs between experts then does so by
    little noise, and a batch gives what its items give alone.
    The bound's last term, t = 1, is left out as in the paper: with steps below 2 one would judge the last noise only.
    consistency: t'; 0 leaves C_k out.
    nodes: steps of a schedule of 100; others are scaled.
    Source: Jiang et al. 2026, (31)-(38), reconstructed; weights by bins: diffusion_experts section 0.3.
    """

    nodes: tuple[int, ...] = NODES
    weights: str = "printed"
    consistency: int = 10

    def __post_init__(self):
        if self.weights not in WEIGHTS:
            raise ValueError(f"judgement: weights: expected one of {' '.join(WEIGHTS)}, got '{self.weights}'")
        if not self.nodes or min(self.nodes) < 2 or max(self.nodes) > 100:
            raise ValueError(f"judgement: nodes: expected steps in 2..100, got {self.nodes}")
        if not 0 <= self.consistency <= 100:
            raise ValueError(f"judgement: consistency: expected 0..100, got {self.consistency}")

    def __call__(self, h: Tensor, prior: Experts, obs: Observation, noise: Tensor, schedule: Schedule) -> Tensor:
        """L_k + C_k, (*batch, K)."""
        return self.bound(h, prior, schedule) + self.fit(h, prior, obs, noise, schedule)

    def bound(self, h: Tensor, prior: Experts, schedule: Schedule) -> Tensor:
        """L_k, (*batch, K)."""
        total = torch.zeros((), dtype=h.real.dtype, device=h.device)
        for time, weight in self.weighed(schedule):
            level, x = _denoised(h, prior, schedule, time)
            moved = (squared(x.mean - h.unsqueeze(-1)) / level.unsqueeze(-1)).flatten(-1 - prior.ndim, -2).sum(-2)
            total = total - weight * moved
        return total

    def fit(self, h: Tensor, prior: Experts, obs: Observation, noise: Tensor, schedule: Schedule) -> Tensor:
        """C_k, (*batch, K); 0 where it is left out."""
        if not self.consistency:
            return h.real.new_zeros(())
        x = _denoised(h, prior, schedule, _scaled(self.consistency, schedule))[1]
        out = tuple(range(-len(obs.op.out_shape), 0))
        least = NOISELESS * squared(obs.y).mean(out, keepdim=True)
        weight = 1 / torch.maximum(noise, least).clamp_min(torch.finfo(least.dtype).tiny)
        found = [-(weight * squared(obs.y - obs.op.apply(x.mean[..., k]))).sum(out) for k in range(x.mean.shape[-1])]
        return torch.stack(found, -1)

    def weighed(self, schedule: Schedule) -> list[tuple[int, float]]:
        """(t, W_t) of the nodes."""
        steps, nodes = schedule.num_steps, sorted({_scaled(node, schedule) for node in self.nodes})
        kept = schedule.kept
        before = torch.cat([kept.new_ones(1), kept])[:-1]
        alpha = kept / before
        w = (1 - alpha) / (alpha * (1 - before))  # infinite at t = 1
        at = torch.tensor(nodes)
        if self.weights == "bins":
            nearest = (torch.arange(2, steps + 1)[:, None] - at).abs().argmin(1)
            found = torch.zeros(len(nodes), dtype=w.dtype).index_add(0, nearest, w[1:])
        else:
            found = w[at - 1] * (steps / len(nodes) if self.weights == "even" else 1.0)
        return list(zip(nodes, found.tolist(), strict=True))


def _scaled(node: int, schedule: Schedule) -> int:
    return min(max(2, round(node * schedule.num_steps / 100)), schedule.num_steps)


def _denoised(h: Tensor, prior: Experts, schedule: Schedule, time: int) -> tuple[Tensor, Gaussian]:
    """v_t and what each expert makes of h with noise of that variance, relative to the prior's power."""
    relative = schedule.var(torch.tensor([float(time)], dtype=torch.float64)).item()
    unit = power(prior).to(h.real)
    unit = unit.reshape((1,) * max(0, prior.ndim - unit.ndim) + tuple(unit.shape))
    level = relative * unit.clamp_min(torch.finfo(unit.dtype).tiny)
    draw = complex_normal(tuple(h.shape[h.ndim - prior.ndim :]), generator("experts-vb", time), torch.complex128)
    return level, prior.by_expert(Gaussian(h + level.sqrt() * draw.to(h), level))[1]


def expected_log(gamma: Tensor) -> Tensor:
    """E log pi under Dirichlet(gamma)."""
    return gamma.digamma() - gamma.sum(-1, keepdim=True).digamma()


def counted(share: Tensor, concentration: Tensor, pool: bool) -> Tensor:
    """gamma_0 + q, or + the sum of q over the batch: anew from gamma_0 each time, or a channel would count twice."""
    lead = share.shape[:-1].numel()
    seen = share.reshape(lead, -1).sum(0) if pool else share
    return (concentration.to(share) + seen).expand(share.shape)
