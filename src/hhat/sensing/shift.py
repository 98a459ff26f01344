"""The common shift of all angles, by maximum likelihood from where estimated angles stop at the sectors' edges.

(kappa_n exp(-j 2 pi p_n d), u + d) gives the same echoes as (kappa, u): only that targets lie in known sectors tells
them apart. Gains that carry the extra factor exp(+j 2 pi p_n d) show u^_i = u_i - d + CN-noise of variance s_i^2:

    log p(u^_i | d) = log[ (1 - e) ( Phi((hi_i - x_i) / s_i) - Phi((lo_i - x_i) / s_i) ) / w_i + e / W_i ]
                      - log(1 - x_i^2) / 2 - log P(window_i | d),         x_i = u^_i + d
    s_i^2 = `threshold.resolution` at L_i - 1,    L_i the map's largest value

with w_i the sector's width, W_i that of the window in which u^_i was looked for (the sector and a margin), and the
last but one term the density of targets that are uniform in angle. P(window | d) is 1 until the edge of the sector
nears the window's: without it a shift near the margin is underestimated.
Source: isac calibration, section 3.6, with the corrections of its section 0.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

REACH = 0.010
"""Largest shift that is looked for; the window's margin has to be larger by a few s."""
STEP = 5e-5
STRAY = 0.01, 0.25
"""Share of peaks that are no target at its place: far above the gate, and what comes on top at the gate, where it falls
by e per unit of the statistic as noise peaks do."""
CHUNK = 2**20
"""Snapshot-times-shift values held at a time."""


@dataclass(frozen=True, eq=False)
class Angles:
    """Estimated angles of echoes, each (snapshot): u, its variance s^2, the chance that it is none, and the sector."""

    u: Float[Tensor, " snapshot"]
    var: Float[Tensor, " snapshot"]
    stray: Float[Tensor, " snapshot"]
    low: Float[Tensor, " snapshot"]
    high: Float[Tensor, " snapshot"]


class Shift(NamedTuple):
    """The most likely shift, its variance from the curvature there, and whether it lies inside the grid."""

    u: float
    var: float
    inside: bool


def stray_share(statistic: Float[Tensor, "*any"], gate: float) -> Float[Tensor, "*any"]:
    """Chance that a peak above the gate is noise or a sidelobe: STRAY."""
    return STRAY[0] + STRAY[1] * torch.exp(gate - statistic).clamp_max(1.0)


def shifts(reach: float = REACH, step: float = STEP, like: Tensor | None = None) -> Float[Tensor, " shift"]:
    half = round(reach / step)
    grid = torch.arange(-half, half + 1, dtype=torch.float64) * step
    return grid if like is None else grid.to(like.device)


def log_likelihood(seen: Angles, d: Float[Tensor, " shift"], margin: float) -> Float[Tensor, " shift"]:
    """sum_i log p(u^_i | d), up to a constant, in double precision. margin: of the window around the sector, in u."""
    total = torch.zeros_like(d)
    size = max(1, CHUNK // len(d))
    for first in range(0, len(seen.u), size):
        part = slice(first, first + size)
        columns = (seen.u, seen.var.sqrt(), seen.stray, seen.low, seen.high)
        u, s, stray, low, high = (value[part, None].double() for value in columns)
        x, width = u + d, (high - low).clamp_min(torch.finfo(torch.float64).tiny)
        inside = (_phi((high - x) / s) - _phi((low - x) / s)) / width
        density = (1 - stray) * inside / _in_window(d, s, width, margin) + stray / (width + 2 * margin)
        total += (density.log() - 0.5 * (1 - x.square()).clamp_min(1e-3).log()).sum(0)
    return total


def most_likely(total: Float[Tensor, " shift"], d: Float[Tensor, " shift"]) -> Shift:
    """The top of a log-likelihood over equally spaced shifts: parabola through its largest value and its neighbours."""
    if len(d) < 3:
        raise ValueError(f"shifts: expected at least 3, got {len(d)}")
    at = int(total.argmax())
    inside = 0 < at < len(d) - 1
    at = min(max(at, 1), len(d) - 2)
    before, top, after = total[at - 1 : at + 2].tolist()
    step = float(d[1] - d[0])
    bend = before - 2 * top + after
    move = 0.5 * (before - after) / bend if bend < 0 else 0.0
    # the curvature over a wider stretch: single snapshots' edges make the likelihood bend sharply over one step
    return Shift(float(d[at]) + step * max(-1.0, min(1.0, move)), _spread(total, d), inside)


def _spread(total: Tensor, d: Tensor) -> float:
    """Variance of d under a flat prior: the likelihood as a density."""
    weight = (total - total.max()).exp()
    weight = weight / weight.sum()
    mean = (weight * d).sum()
    return float((weight * (d - mean).square()).sum())


def _in_window(d: Tensor, s: Tensor, width: Tensor, margin: float) -> Tensor:
    """P(u^ in the window | d) for a target uniform in the sector: noise and shift may carry it out on either side.

    The mean over t in [0, width] of Phi((width + margin + d - t) / s) - Phi((d - margin - t) / s).
    """
    above = _integral((width + margin + d) / s) - _integral((margin + d) / s)
    below = _integral((d - margin) / s) - _integral((d - margin - width) / s)
    return ((above - below) * s / width).clamp(1e-6, 1.0)


def _phi(x: Tensor) -> Tensor:
    return torch.special.ndtr(x)


def _integral(x: Tensor) -> Tensor:
    """x Phi(x) + phi(x), whose derivative is Phi."""
    return x * _phi(x) + torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
