"""`gamp`: generalized approximate message passing for y = A x + noise; EM-GM-AMP with the learnable mixture."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hhat.methods.base import (
    NOISELESS,
    Method,
    Problem,
    annealed_noise,
    axis_numbers,
    noise_info,
    pack,
    problem,
    relative_change,
    settled_change,
    start_noise,
    start_prior,
    unpack,
)
from hhat.methods.readout import channel_belief, denoiser_factor
from hhat.methods.working import merge
from hhat.ops.coupling import coupled_axes
from hhat.ops.linalg import squared
from hhat.ops.rotation import pooled
from hhat.priors.base import Prior
from hhat.types import Estimate, Gaussian, Observation, State

SURPRISE = 2.0
"""An item is lost when the energy of y - p is this many times what is promised, and as many times the least it was."""
CUT, LEAST_SHARE = 0.75, 0.05
"""Factor on the share of an item each time it starts again, and where that ends."""
CAUTION = 8
"""How fast an item that starts again stops looking ahead: (share / damping)^CAUTION."""
EXPLAINED, DEVIATIONS = 1.25, 5.0
"""y counts as explained while the energy of y - p is at most this many times what is promised, or within this many
standard deviations of it, whichever allows more. An item that was never lost is allowed SURPRISE."""


class Seen(NamedTuple):
    """What the recursion works on: y = A x + n with x the coefficients, in the basis of y that the method takes.

    num, rest: how many samples y has in all, and the energy, (*batch), of those that this basis does not hold
    kept: what the state holds of this
    """

    obs: Observation
    task: Problem
    num: int
    rest: Tensor | float = 0.0
    kept: State | None = None


@dataclass(frozen=True, eq=False)
class Gamp(Method):
    """Sum-product GAMP, Gaussian noise, any prior, damped, with recovery from divergence.

      p   = A x - v_p s,          v_p = |A|^2 v
      s   = (y - p)/(v_p + s2),   v_s = 1/(v_p + s2)                      damped
      r   = x + v_r A^H s,        v_r = 1/(|A|^2^T v_s)
      (x, v) = prior.denoise(r, v_r);  prior <- prior.learn(r, v_r)       damped, but p sees the newest x and v

    average_axes: axes of the coefficients (negative) over which v, and the precision 1/v_r, are averaged. (): none;
    None: those that the operator mixes; all axes: one variance, the scalar form.
    damping: share of the new s, v_s, x and v that is taken. An item whose |y - p|^2 grows beyond what v_p + s2 promise
    starts again from the prior with a smaller share. One that stands still where y is not explained does not count as
    converged, and if it was lost before is mixed with the prior.
    Noise that is not given follows EM: s2 <- mean (s2/(v_p + s2))^2 |y - p|^2 + s2 v_p/(v_p + s2).
    info: coefficients, the last pseudo-observation (r, v_r), learned parameters; per item how often it started again
    (restarts) and |y - p|^2 over what is promised (excess).
    Source: Rangan, ISIT 2011, algorithm 1; EM-GM-AMP: Vila & Schniter, IEEE TSP 2013; damping: Vila et al., ICASSP
    2015.
    """

    uses_prior: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    average_axes: tuple[int, ...] | None = ()
    damping: float = 0.7
    learn_after: int = 3
    max_steps: int = 500
    tol: float | None = 1e-6

    def __post_init__(self):
        if not 0 < self.damping <= 1:
            raise ValueError(f"{type(self).__name__.lower()}: damping: expected 0 < damping <= 1, got {self.damping}")

    def seen(self, obs: Observation, state: State | None) -> Seen:
        """The problem that is iterated on; None before the first step."""
        return Seen(obs, problem(obs, self.prior), math.prod(obs.op.out_shape))

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        seen = self.seen(obs, None)
        axis_numbers("average_axes", self.average_axes or (), None, seen.task.num_event)
        return self._start(seen)

    def _start(self, seen: Seen) -> State:
        obs, task = seen.obs, seen.task
        prior = start_prior(self.prior, obs, task)
        now, shape = prior.moments(), (*obs.batch_shape, *task.op.in_shape)
        x, v = now.mean.expand(shape).clone(), now.var.expand(shape).clone()
        s = obs.y.new_zeros(*obs.batch_shape, *task.op.out_shape)
        p, v_p = task.op.apply(x).expand(s.shape), self._ahead(task, v).expand(s.shape)
        one, pool = obs.y.real.new_ones(obs.batch_shape), self._average(v, task)
        state: State = {"x": x, "v": v, "s": s, "v_s": torch.zeros_like(s.real), "p": p, "v_p": v_p, "r": x}
        state |= {"r_var": torch.full_like(pool, 1e30), "change": one, "count": 0 * one, "restarts": 0 * one}
        state |= {"share": self.damping * one, "least": squared(obs.y - p).mean(task.out_event()), "excess": one}
        return {**state, **pack(prior), **start_noise(obs, always=True), **(seen.kept or {})}

    def step(self, state: State, obs: Observation) -> State:
        seen = self.seen(obs, state)
        obs, task, prior = seen.obs, seen.task, unpack(self.prior, state, seen.task)
        noise = annealed_noise(state, obs)
        gain = 1 / (state["v_p"] + noise).clamp_min(torch.finfo(noise.dtype).tiny)
        # the very first message is taken whole, unless the item has been seen to overshoot
        first = (state["count"] == 0) & (state["restarts"] == 0)
        share = torch.where(first, 1.0, state["share"])[(..., *(None,) * len(task.op.out_shape))]
        s = share * gain * (obs.y - state["p"]) + (1 - share) * state["s"]
        v_s = share * gain + (1 - share) * state["v_s"]
        r_var = self._behind(task, v_s)
        r = Gaussian(state["x"] + r_var * task.op.adjoint(s), r_var)
        prior = self._learned(prior, r, state["count"])
        found = prior.denoise(r)
        share = state["share"][(..., *(None,) * task.num_event)]
        x, v = share * found.mean + (1 - share) * state["x"], share * found.var + (1 - share) * state["v"]
        # p looks at the newest x: where it looks at the damped one, well-behaved items cycle instead of settling
        ahead = (share / self.damping) ** CAUTION
        v_p = self._ahead(task, ahead * found.var + (1 - ahead) * v)
        p = task.op.apply(ahead * found.mean + (1 - ahead) * x) - v_p * s
        energy, excess = _residual(obs, task, p, v_p + noise)
        change = settled_change(relative_change(found.mean, state["x"], task.num_event, found.var), noise, obs)
        new: State = {
            **state,
            **{"x": x, "v": v, "s": s, "v_s": v_s, "p": p, "v_p": v_p, "r": r.mean, "r_var": r_var},
            "change": torch.where(excess > _allowed(state, task), change.clamp_min(1.0), change),
            # noise comes down, and learning begins, in the item's own time
            "count": state["count"] + state["share"] / self.damping,
            "least": torch.minimum(state["least"], energy),
            "excess": excess,
            **pack(prior),
        }
        new["noise_var"] = self._noise(seen, noise, state, new)
        return self._recovered(new, seen, ~(excess <= SURPRISE) & ~(energy <= SURPRISE * state["least"]))

    def _recovered(self, state: State, seen: Seen, lost: Tensor) -> State:
        """Items that are lost start again from the prior, with a smaller share."""
        if not bool(lost.any()):
            return state
        share = (CUT * state["share"]).clamp_min(min(LEAST_SHARE, self.damping))
        fresh = {**state, **self._start(seen), "share": share, "restarts": state["restarts"] + 1}
        return fresh if bool(lost.all()) else merge(fresh, state, ~lost)

    def _learned(self, prior: Prior, r: Gaussian, count: Tensor) -> Prior:
        ready = count >= self.learn_after
        if not prior.learnable or not bool(ready.any()):
            return prior
        new = prior.learn(r)
        return new if bool(ready.all()) else new.with_params(merge(prior.params(), new.params(), ready))

    def _noise(self, seen: Seen, noise: Tensor, old: State, new: State) -> Tensor:
        """EM of a white noise variance over all samples of y, from z = A x ~ CN(p, v_p) and y = z + n."""
        known = noise / (old["v_p"] + noise).clamp_min(torch.finfo(noise.dtype).tiny)
        return averaged(squared(known * (seen.obs.y - old["p"])) + known * old["v_p"], seen)

    def _axes(self, task: Problem) -> tuple[int, ...]:
        return coupled_axes(task.op) if self.average_axes is None else self.average_axes

    def _average(self, var: Tensor, task: Problem) -> Tensor:
        axes = self._axes(task)
        return var.mean(axes, keepdim=True) if axes else var

    def _ahead(self, task: Problem, var: Tensor) -> Tensor:
        """|A|^2 v."""
        full = var.expand(*var.shape[: var.ndim - task.num_event], *task.op.in_shape)
        return pooled(task.op, self._axes(task), task.y).apply(self._average(full, task))

    def _behind(self, task: Problem, v_s: Tensor) -> Tensor:
        """1/(|A|^2^T v_s), the precision averaged."""
        axes, shape = self._axes(task), task.op.in_shape
        precision = pooled(task.op, axes, task.y).adjoint(v_s) / math.prod(shape[axis] for axis in axes)
        return 1 / precision.clamp_min(1e-30)  # unseen coefficients: wide, but finite

    def factor(self, state: State, obs: Observation) -> Gaussian:
        return denoiser_factor(Gaussian(state["r"], state["r_var"]), Gaussian(state["x"], state["v"]))

    def read(self, state: State, obs: Observation) -> Estimate:
        task = problem(obs, self.prior)
        prior, r = unpack(self.prior, state, task), Gaussian(state["r"], state["r_var"])
        x = self._trusted(state, prior, task)
        own = state["noise_var"]
        lead = own.shape[: len(obs.batch_shape)]
        state = {**state, "noise_var": own.reshape(*lead, *(1,) * len(task.op.out_shape))}
        noise = state["noise_var"] if obs.noise_var is None else obs.noise_var
        info = {"coefficients": x, "pseudo_observation": r, "prior": prior, **noise_info(state, obs)}
        info |= {"restarts": state["restarts"].int(), "excess": state["excess"]}
        return Estimate(channel_belief(task, r, x, noise), info)

    def _trusted(self, state: State, prior: Prior, task: Problem) -> Gaussian:
        """x, or for items that were lost and end further than SURPRISE from explaining y a mixture of x and the prior,
        where x weighs SURPRISE / excess: what was made up does no more harm than an estimate of zero."""
        x = Gaussian(state["x"], state["v"])
        weight = torch.where(state["restarts"] > 0, (SURPRISE / state["excess"]).clamp_max(1.0), 1.0)
        if not bool((weight < 1).any()):
            return x
        weight, now = weight[(..., *(None,) * task.num_event)], prior.moments()
        apart = weight * (1 - weight) * squared(x.mean - now.mean)
        return Gaussian(weight * x.mean + (1 - weight) * now.mean, weight * x.var + (1 - weight) * now.var + apart)


def averaged(inside: Tensor, seen: Seen) -> Tensor:
    """Mean over all samples of y of what is given for those that are iterated on, (*batch, 1, ..)."""
    out = seen.task.out_event()
    rest = seen.rest[(..., *(None,) * len(out))] if isinstance(seen.rest, Tensor) else seen.rest
    return (inside.sum(out, keepdim=True) + rest) / seen.num


def _residual(obs: Observation, task: Problem, p: Tensor, promised: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the samples of |y - p|^2, and of |y - p|^2 over what is promised for it; both (*batch)."""
    out, residual = task.out_event(), squared(obs.y - p)
    least = NOISELESS * squared(obs.y).mean(out, keepdim=True)
    promised = torch.maximum(promised, least).clamp_min(torch.finfo(promised.dtype).tiny)
    return residual.mean(out), (residual / promised).mean(out)


def _allowed(state: State, task: Problem) -> Tensor:
    """Excess up to which an item that stands still has converged, (*batch)."""
    within = 1 + DEVIATIONS / math.prod(task.op.out_shape) ** 0.5
    once_lost = state["restarts"] > 0
    return torch.where(once_lost, max(EXPLAINED, within), max(SURPRISE, within))
