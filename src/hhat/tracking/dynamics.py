"""`MarkovGauss`: coefficients that appear, vanish and fade from slot to slot, each on its own."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.linalg import squared
from hhat.priors.mixture import Mixture, merged
from hhat.types import Gaussian, Shape

TRUST = 5.0
"""Slots that the given transition probabilities and forgetting count for when they are learned."""
LEARNED = (1e-6, 1 - 1e-6)
"""Range in which learned probabilities and forgetting are kept."""


@dataclass(frozen=True, eq=False)
class Belief:
    """What is known of x = s theta after a slot, entry by entry: P(s = 1) = activity, theta given s ~ CN(mean, var).

    activity and power (V, the variance of theta in the long run): (*batch, *event);
    mean and var: (*batch, *event, 2), given s = 0 and given s = 1.
    """

    activity: Float[Tensor, "..."]
    mean: Complex[Tensor, "... 2"]
    var: Float[Tensor, "... 2"]
    power: Float[Tensor, "..."]


@dataclass(frozen=True, eq=False)
class Prediction:
    """A belief carried to the next slot: P(s_{t-1}, s_t) as 00, 01, 10, 11 in the last axis of `pairs`, and theta_t
    given s_{t-1} = 0 and given s_{t-1} = 1 in the last axes of `mean` and `var`."""

    pairs: Float[Tensor, "... 4"]
    mean: Complex[Tensor, "... 2"]
    var: Float[Tensor, "... 2"]
    power: Float[Tensor, "..."]

    def mixture(self, basis: LinearOp | None = None) -> Mixture:
        """The prior of x: zero; appearing; staying. h = basis(x)."""
        p00, p01, p10, p11 = self.pairs.unbind(-1)
        none = torch.zeros_like(self.mean[..., :1])
        return Mixture(
            torch.stack([p00 + p10, p01, p11], -1),
            torch.cat([none.real, self.var], -1),
            basis,
            learnable=False,
            means=torch.cat([none, self.mean], -1),
        )


class Seen(NamedTuple):
    """A slot under its prediction: P(s_{t-1}, s_t | y_1..t) as `Prediction.pairs`, and theta_t given y, s_t = 1 and
    s_{t-1} = 0 or 1 (last axis)."""

    pairs: Tensor
    mean: Tensor
    var: Tensor


class Counts(NamedTuple):
    """Decayed sums over slots of means over coefficients: of P(s_{t-1}, s_t | y_1..t), and over the pairs 11 of
    E|theta_t - theta_{t-1}|^2 and E(|theta_t|^2 + |theta_{t-1}|^2), both in units of 2 V."""

    stays_off: Tensor
    appears: Tensor
    vanishes: Tensor
    stays_on: Tensor
    moved: Tensor
    size: Tensor


@dataclass(frozen=True, eq=False)
class MarkovGauss:
    """x_t = s_t theta_t, s_t in {0, 1} a Markov chain, theta_t a Gauss-Markov process that runs on while s_t = 0:

      P(s_t = 1 | s_{t-1} = 0) = appear,    P(s_t = 0 | s_{t-1} = 1) = vanish
      theta_t = (1 - forgetting) theta_{t-1} + CN(0, forgetting (2 - forgetting) V)

    appear, vanish, forgetting: numbers, or tensors with a value per batch item, (*batch, 1, ..).
    inflation:     share of |m|^2 that is added to the predicted variance; 0 is the model above.
    apart:         the exact belief after a slot is a Gaussian mixture over the paths of s. True: it is kept as one
                   Gaussian given s = 1 and one given s = 0 (GPB2, for a switching Kalman filter); False: as one for
                   both, the usual form, which makes the learned forgetting too small near the noise.
    variance_rate: share by which a slot renews the variance V of each coefficient from what it shows; 0: V stays.
    idle:          share of V that a coefficient shows while inactive. 1: V is learned while it is active alone. Below
                   1 the V of inactive coefficients decays: good for weak leakage around strong paths, but a
                   coefficient that appears after a long absence is then not seen.
    memory:        slots over which appear, vanish and forgetting are learned by EM; None: they stay as given.
    least:         activity is kept within least .. 1 - least, so that it can change again.
    Raises ValueError for values outside 0..1, for appear = 0, memory < 1 and least >= 0.5.

    Source: Ziniel & Schniter, IEEE TSP 61(21), 2013, for the model. Departures: the innovation is stated through V,
    the source's forgetting^2 kappa being forgetting (2 - forgetting) V; a filter without smoothing; online EM.
    """

    appear: Tensor | float | int = 0.005
    vanish: Tensor | float | int = 0.05
    forgetting: Tensor | float | int = 0.05
    inflation: float | int = 0.0
    apart: bool = True
    variance_rate: float | int = 0.2
    idle: float | int = 1.0
    memory: float | int | None = 100
    least: float | int = 1e-4

    def __post_init__(self):
        for name in ("appear", "vanish", "forgetting", "variance_rate", "idle"):
            value = torch.as_tensor(getattr(self, name))
            if bool(((value < 0) | (value > 1)).any()):
                raise ValueError(f"markov-gauss: {name}: expected 0..1, got {value.flatten()[:4].tolist()}")
        if bool((torch.as_tensor(self.appear) == 0).any()):
            raise ValueError("markov-gauss: appear: expected more than 0, or nothing is ever active")
        if not 0 <= self.least < 0.5:
            raise ValueError(f"markov-gauss: least: expected 0 <= least < 0.5, got {self.least}")
        if not 0 <= self.inflation < math.inf:
            raise ValueError(f"markov-gauss: inflation: expected a finite number >= 0, got {self.inflation}")
        if self.memory is not None and not self.memory >= 1:
            raise ValueError(f"markov-gauss: memory: expected at least 1 slot or None, got {self.memory}")

    def start(self, second: Tensor, shape: Shape) -> Belief:
        """The stationary belief of coefficients of this shape with E|x|^2 = second."""
        on = self.appear / (self.appear + self.vanish)
        activity = torch.as_tensor(on, dtype=second.dtype, device=second.device)
        power = (second / activity).expand(shape)
        var = power[..., None].expand(*shape, 2)
        return Belief(activity.expand(shape), torch.zeros_like(var, dtype=var.dtype.to_complex()), var, power)

    def predict(self, belief: Belief) -> Prediction:
        """The next slot before it is seen."""
        keep, on = 1 - self.forgetting, belief.activity
        mean = _per_state(keep) * belief.mean
        fresh = self.forgetting * (2 - self.forgetting) * belief.power
        var = _per_state(keep) ** 2 * belief.var + fresh[..., None]
        if self.inflation:
            var = var + self.inflation * squared(mean)
        off = 1 - on
        pairs = off * (1 - self.appear), off * self.appear, on * self.vanish, on * (1 - self.vanish)
        return Prediction(torch.stack(pairs, -1), mean, var, belief.power)

    def see(self, predicted: Prediction, r: Gaussian) -> Seen:
        """What r.mean = x + CN(0, r.var) says under the prediction."""
        share, each = predicted.mixture().by_component(r)
        p00, _, p10, _ = predicted.pairs.unbind(-1)
        vanished = p10 / (p00 + p10).clamp_min(torch.finfo(p00.dtype).tiny)
        off, appears, stays_on = share.unbind(-1)
        pairs = torch.stack([off * (1 - vanished), appears, off * vanished, stays_on], -1)
        return Seen(pairs, each.mean[..., 1:], each.var[..., 1:])

    def update(self, predicted: Prediction, seen: Seen, least_power: Tensor | float = 0.0) -> Belief:
        """The belief after a slot; theta keeps its prediction where s = 0.

        least_power: V is kept above this when it is learned.
        """
        means, variances = torch.cat([predicted.mean, seen.mean], -1), torch.cat([predicted.var, seen.var], -1)
        p00, p01, p10, p11 = seen.pairs.unbind(-1)
        on, none = p01 + p11, torch.zeros_like(p00)
        if self.apart:
            given = (_normal(p00, p10, none, none), _normal(none, none, p01, p11))
        else:
            given = (_normal(p00, p10, p01, p11),) * 2
        found = [merged(share, means, variances) for share in given]
        mean, var = torch.stack([g.mean for g in found], -1), torch.stack([g.var for g in found], -1)
        power = predicted.power
        if self.variance_rate > 0:
            shown = (seen.pairs[..., 1::2] * (squared(seen.mean) + seen.var)).sum(-1) + self.idle * (1 - on) * power
            power = (power + self.variance_rate * (shown - power)).clamp_min(least_power)
            var = torch.minimum(var, power[..., None])
        return Belief(on.clamp(self.least, 1 - self.least), mean, var, power)

    def start_counts(self, like: Tensor) -> Counts:
        """TRUST slots' worth of what the parameters promise, in the shape of `like`."""
        on = self.appear / (self.appear + self.vanish)
        stays_on = on * (1 - self.vanish)
        pairs = (1 - on) * (1 - self.appear), (1 - on) * self.appear, on * self.vanish, stays_on
        expected = *pairs, stays_on * self.forgetting, stays_on
        return Counts(*(TRUST * count * torch.ones_like(like) for count in expected))

    def learn(
        self, before: Belief, predicted: Prediction, seen: Seen, counts: Counts, axes: tuple[int, ...]
    ) -> tuple["MarkovGauss", Counts]:
        """One step of online EM on appear, vanish and forgetting, pooled over `axes`; counts decay by 1/memory.

        before, predicted, seen: the belief after the last slot, its prediction, and this slot.
        E: P(s_{t-1}, s_t | y_1..t), and theta_{t-1}, theta_t given both active: exact for the belief before.
        M: appear = n01 / (n00 + n01), vanish = n10 / (n10 + n11), and over pairs 11
           forgetting = sum E|theta_t - theta_{t-1}|^2 / sum E(|theta_t|^2 + |theta_{t-1}|^2),
        which maximises the likelihood of stationary pairs with V unknown (Burg's form).
        The posteriors are the filter's. Their means over time are right at the true parameters, which are therefore
        a fixed point, though not the maximum-likelihood one of a smoother (Cappe, JCGS 20(3), 2011, has that).
        """
        if self.memory is None:
            return self, counts
        tiny = torch.finfo(seen.var.dtype).tiny
        moved, size = self._pair(before, predicted, seen)
        p00, p01, p10, p11 = seen.pairs.unbind(-1)
        unit = (2 * predicted.power.mean(axes, keepdim=True)).clamp_min(tiny)
        fade = 1 - 1 / self.memory
        now = (p00, p01, p10, p11, p11 * moved / unit, p11 * size / unit)
        new = Counts(*(fade * old + fresh.mean(axes, keepdim=True) for old, fresh in zip(counts, now, strict=True)))
        learned = replace(
            self,
            appear=(new.appears / (new.appears + new.stays_off).clamp_min(tiny)).clamp(*LEARNED),
            vanish=(new.vanishes / (new.vanishes + new.stays_on).clamp_min(tiny)).clamp(*LEARNED),
            forgetting=(new.moved / new.size.clamp_min(tiny)).clamp(*LEARNED),
        )
        return learned, new

    def _pair(self, before: Belief, predicted: Prediction, seen: Seen) -> tuple[Tensor, Tensor]:
        """E|theta_t - theta_{t-1}|^2 and E(|theta_t|^2 + |theta_{t-1}|^2), both active: one smoothing step."""
        mean, var, ahead = before.mean[..., 1], before.var[..., 1], predicted.var[..., 1]
        now, now_var = seen.mean[..., 1], seen.var[..., 1]
        back = (1 - self.forgetting) * var / ahead.clamp_min(torch.finfo(var.dtype).tiny)
        past = mean + back * (now - predicted.mean[..., 1])
        past_var = (var - back**2 * (ahead - now_var)).clamp_min(0)
        moved = squared(now - past) + (now_var + past_var - 2 * back * now_var).clamp_min(0)
        return moved, squared(now) + now_var + squared(past) + past_var


def _per_state(value: Tensor | float | int) -> Tensor | float | int:
    return value[..., None] if isinstance(value, Tensor) and value.ndim else value


def _normal(*shares: Tensor) -> Tensor:
    """Shares that sum to one over a new last axis; equal ones where all are zero."""
    stacked = torch.stack(shares, -1)
    total = stacked.sum(-1, keepdim=True)
    return torch.where(total > 0, stacked / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / len(shares))
