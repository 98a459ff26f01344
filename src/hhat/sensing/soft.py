"""`soft-em`: the eigenvector over the posterior of presence, angle and range, instead of the peak alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex
from torch import Tensor

from hhat.sensing import scatter
from hhat.sensing.calibration import Calibration
from hhat.sensing.calibrator import Calibrator, moved
from hhat.sensing.echoes import Echoes
from hhat.sensing.eigenvector import NEAR, Eigenvector, Refined, blank, packed, read, shift_evidence
from hhat.sensing.shift import most_likely, shifts
from hhat.sensing.threshold import resolution, snr_of
from hhat.sensing.views import COARSE, SIZE, Views, cell_of, line_of, peaks, recentred, turned
from hhat.types import State

FLOOR = 6.0
"""Peaks below it are no target with so much certainty that they are left out."""
OFFSETS = tuple(x / 2 for x in range(-6, 7))
"""Places at which the angle's posterior is taken, in standard deviations from the peak."""


@dataclass(frozen=True, eq=False)
class SoftEm(Calibrator):
    """EM with the law of the echoes: target with probability p, gamma Rayleigh, angle and range uniform in the sector.

        p(u, R, present | Y) ~ p / (1 + g) exp(g / (1 + g) L(u, R)) / (sector's area),   p(absent | Y) ~ 1 - p
        k <- dominant eigenvector of sum_i sum_u p(u, present | Y_i) z_i(u) z_i(u)^H

    L(u, R): the map under the last k; g: the assumed SNR. The posterior is taken around the map's largest value: at 13
    angles within the sector, along the range as the Gaussian of the Cramer-Rao bound. Then g and p by the moments of
    what stands out, unless given, and the common shift as in `eigenvector`.
    snr, presence: assumed; None: estimated from the maps' largest values of the step before
    find_shift:    False: the shift comes from the edges of the sectors alone, as EM has it; its rate was not measured
    Source: isac calibration, B7.
    """

    snr: float | int | None = None
    presence: float | None = None
    find_shift: bool = True
    margin_u: float = 0.012
    start: Callable[[Echoes], Tensor] | None = None
    size: tuple[int, int] = SIZE
    coarse: tuple[int, int] = COARSE
    max_steps: int = 8
    tol: float | None = 2e-5

    def init(self, echoes: Echoes, gen: torch.Generator) -> State:
        if self.start is not None:
            state = blank(self.start(echoes))
        else:  # the peaks' eigenvector of a part: EM cannot start where no snapshot shows its target
            plain = Eigenvector(margin_u=self.margin_u, size=self.size, coarse=self.coarse)
            state = plain.init(echoes, gen)
            for _ in range(2):
                state = plain.step(state, echoes)
            state = {**state, "count": 0}
        return state

    def step(self, state: State, echoes: Echoes) -> State:
        at, k = line_of(echoes), state["kappa"]
        margin = self.margin_u if self.find_shift else 0.0
        views = peaks(echoes, k, FLOOR, margin, self.size, self.coarse)
        near = NEAR * cell_of(at)
        views = recentred(views, k, at, near, margin)
        known = state["snr"] if math.isfinite(state["snr"]) else snr_of(views.statistic)[0]
        snr = self.snr or (known if math.isfinite(known) and known > 0 else 1.0)
        share = self.presence if self.presence is not None else state["presence"]
        share = share if math.isfinite(share) and 0 < share < 1 else 0.5
        soft = spread(views, k, echoes, snr, share, margin)
        # snapshots are independent, places in one are not: the spread of the sum is that of the peaks
        certain = soft.weight.reshape(len(OFFSETS), -1).sum(0)
        sums = scatter.scatter(views.z, certain, k)._replace(second=scatter.second_moment(soft.z, soft.weight))
        k = scatter.dominant(sums.second)
        shift_var = math.inf
        if self.find_shift:
            views, d = recentred(views, k, at, near, margin), shifts(like=at)
            found = most_likely(shift_evidence(views, echoes, FLOOR, margin, d), d)
            k, shift_var = scatter.shifted(k, at, found.u), found.var
            views = turned(views, torch.full_like(views.u, found.u), k, at)
            sums = sums.turned(torch.polar(torch.ones_like(at), -2 * math.pi * at * found.u))
        new = packed(Refined(k, sums, replace(views, weight=certain), shift_var), echoes, targets=certain)
        return {**new, "kappa": k, "change": moved(k, state["kappa"]), "count": state["count"] + 1}

    def read(self, state: State, echoes: Echoes) -> Calibration:
        return read(state, echoes)


def spread(
    views: Views, k: Complex[Tensor, " rx"], echoes: Echoes, snr: float, presence: float, margin_u: float
) -> Views:
    """The views at OFFSETS around each peak, weighted by the posterior of presence and angle."""
    at = line_of(echoes)
    u_var, range_var = resolution(echoes, views.statistic.clamp_min(2.0) - 1)
    step = u_var.sqrt()
    limits = echoes.range_limits_m.to(views.u)
    span = (limits[..., 1] - limits[..., 0]).mean()
    area = (views.high - views.low + 2 * margin_u) * span
    cell = (OFFSETS[1] - OFFSETS[0]) * step * (2 * math.pi * range_var).sqrt()
    gain = snr / (1 + snr)
    odds, places = [], []
    for offset in OFFSETS:
        one = turned(views, offset * step, k, at)
        inside = (one.u >= views.low - margin_u) & (one.u <= views.high + margin_u)
        odds.append(torch.where(inside, gain * one.statistic + (cell / area).log(), -torch.inf))
        places.append(one)
    empty = torch.full_like(views.u, math.log((1 - presence) / presence * (1 + snr)))
    weight = torch.stack([*odds, empty]).softmax(0)[:-1]
    names = ("z", "statistic", "u", "low", "high")
    all_of = {name: torch.cat([getattr(one, name) for one in places]) for name in names}
    return replace(views, **all_of, weight=weight.flatten(), energy=None)
