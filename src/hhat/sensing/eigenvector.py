"""`eigenvector`, the default calibrator: search, dominant eigenvector, common shift; on few snapshots first."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops.linalg import squared
from hhat.sensing import scatter
from hhat.sensing.calibration import Calibration
from hhat.sensing.calibrator import Calibrator, moved
from hhat.sensing.echoes import Echoes
from hhat.sensing.shift import Angles, log_likelihood, most_likely, shifts, stray_share
from hhat.sensing.start import sector_start
from hhat.sensing.threshold import false_alarm, resolution, snr_of
from hhat.sensing.views import COARSE, SIZE, Views, cell_of, line_of, peaks, recentred, turned
from hhat.types import State, Status

NEAR = 0.25
"""How far the continuous maximum may lie from the grid's, in cells (1 / aperture in u)."""
TOO_MANY, PER_ANTENNA = 3.0, 2.0
"""Peaks above SURE that may all be noise: this multiple of what noise has there, and as many per antenna, for gains
that were fitted to it find more."""
NOISELESS = 16.0
"""Gate above which noise peaks do not count: fewer than 2e-4 per sector"""
SURE = 12.0
"""Least gate of the peaks that the shift is found from."""
MEMORY = 0.5
"""Least `pull`: below it k is held more by where it was than by targets, and an error stays or grows."""
ENOUGH = 256
"""Peaks above the gate below which a step takes more snapshots: gains fitted to few peaks are lost."""


@dataclass(frozen=True, eq=False)
class Eigenvector(Calibrator):
    """k maximises sum_i |k^H z_i|^2 over snapshots whose map peaks above a gate, z_i turned onto the peak under the k
    before; then the common shift of angles by maximum likelihood. One step:

      1. `peaks`: largest value of each map in the sector and a margin; those above the gate
      2. `passes` times: each angle to its continuous maximum under k; k <- dominant eigenvector of R (`scatter`)
      3. the shift d from where angles stop at the sectors' edges (`shift`); k_n <- k_n exp(-j 2 pi p_n d)

    The first two steps take `first` snapshots spread over all, the following ones `growth` times more each; any takes
    more where fewer than 256 peaks are above the gate.
    gate:       of the map's largest value, in units of its noise. None: all, the paper's objective
    margin_u:   by how much angles may lie outside their sector, in u; it bounds the shift that can be seen
    find_shift: step 3; without it the shift stays where the start leaves it
    unbend:     the factor G of `scatter`; without it outer antennas come out too strong, by 1.5 / SNR at the ends
    start:      gains from the echoes, `start.sector_start` or `start.ones`
    factors:    (receiving, transmitting) antennas of a virtual array (`mimo.virtual_array`)
    size, coarse: the searched grid and the coarse search's steps
    info: expected_e0, expected_e1; echoes_used of snapshots; snr and presence, from the maps' largest values;
    peaks and noise_peaks, those above 12 and how many of them noise has; pull, see there; eigenvalue_ratio, l_1 / l_2
    of R. The variance is the sandwich of `scatter` over pull^2.
    Status WARMING_UP where peaks are fewer than twice the antennas and three times those of noise, or pull below 1/2.
    Source: isac calibration, sections 3.5 and 3.6, corrected; the start, `unbend` and growth: hhat.
    """

    gate: float | int | None = 12.0
    margin_u: float = 0.012
    passes: int = 3
    find_shift: bool = True
    unbend: bool = True
    first: int = 2048
    growth: int = 8
    start: Callable[[Echoes], Tensor] = sector_start
    factors: tuple[int, int] | None = None
    size: tuple[int, int] = SIZE
    coarse: tuple[int, int] = COARSE
    max_steps: int = 20
    tol: float | None = 2e-5

    def init(self, echoes: Echoes, gen: torch.Generator) -> State:
        if self.factors is not None and math.prod(self.factors) != echoes.num_rx_ant:
            raise ValueError(f"factors: expected a product of {echoes.num_rx_ant} antennas, got {self.factors}")
        return blank(self.start(echoes))

    def step(self, state: State, echoes: Echoes) -> State:
        flat = echoes.flat()
        total = len(flat.y)
        size = self.first * self.growth ** max(0, state["count"] - 1)
        while True:
            part = flat if size >= total else flat.rows(torch.arange(size, device=flat.y.device) * total // size)
            seen = peaks(part, state["kappa"], self.gate or 0.0, self.margin_u, self.size, self.coarse)
            if len(seen.u) >= ENOUGH or size >= total:
                break
            size *= self.growth
        new = self.refined(seen, state["kappa"], echoes)
        change = moved(new.kappa, state["kappa"])
        return {
            "kappa": new.kappa,
            "change": change if size >= total else change.clamp_min(1.0),
            "count": state["count"] + 1,
            **packed(new, part, self.gate or 0.0),
        }

    def refined(self, seen: Views, k: Complex[Tensor, " rx"], echoes: Echoes) -> "Refined":
        """Steps 2 and 3 on views that were found under gains k."""
        at = line_of(echoes)
        if not len(seen.u):
            return Refined(k, scatter.scatter(seen.z, seen.weight, k), seen, math.inf)
        near = NEAR * cell_of(at)
        var = None
        for _ in range(max(1, self.passes)):
            if self.passes:
                seen = recentred(seen, k, at, near, self.margin_u)
                var = resolution(echoes, seen.statistic - 1)[0] if self.unbend else None
            k = scatter.dominant(scatter.second_moment(seen.z, seen.weight, var, at), self.factors)
        shift_var = math.inf
        if self.find_shift:
            seen = recentred(seen, k, at, near, self.margin_u)
            d = shifts(like=at)
            found = most_likely(shift_evidence(seen, echoes, self.gate or 0.0, self.margin_u, d), d)
            k = scatter.shifted(k, at, found.u)
            seen, shift_var = turned(seen, torch.full_like(seen.u, found.u), k, at), found.var
        return Refined(k, scatter.scatter(seen.z, seen.weight, k, var, at), seen, shift_var)

    def read(self, state: State, echoes: Echoes) -> Calibration:
        return read(state, echoes, self.factors)


class Refined(NamedTuple):
    """What a step leaves."""

    kappa: Complex[Tensor, " rx"]
    sums: scatter.Scatter
    views: Views
    shift_var: float


def blank(k: Complex[Tensor, " rx"]) -> State:
    """State before the first step, from gains to start with."""
    nothing = torch.zeros(len(k), len(k), dtype=k.dtype, device=k.device)
    sums = scatter.Scatter(nothing, nothing, torch.zeros((), dtype=k.real.dtype, device=k.device))
    return {
        "kappa": k,
        "change": torch.ones((), dtype=torch.float64),
        "count": 0,
        **sums._asdict(),
        **{
            "shift_var": math.inf,
            "used": 0,
            "strength": torch.zeros(4, dtype=torch.float64, device=k.device),
            "peaks": 0.0,
            "noise_peaks": 0.0,
            "snapshots": 0,
            "snr": math.nan,
            "presence": math.nan,
        },
    }


def packed(new: Refined, echoes: Echoes, gate: float | int = 0.0, targets: Tensor | None = None) -> State:
    """What a step leaves, for the state; echoes: those of the step, or more of their kind; gate: of the views;
    targets: the chance that each of them is a target, where it is known."""
    seen = new.views
    noise = false_alarm(echoes, SURE).mean() * seen.snapshots
    snr = snr_of(seen.statistic, NOISELESS)[0]
    if targets is None:
        sure = max(gate, SURE)
        strays = noise if gate <= SURE else false_alarm(echoes, gate).mean() * seen.snapshots
        held = strength(seen, seen.statistic > sure, float(strays) * (sure + 1))
    else:
        held = strength(seen, targets, 0.0)
    share = float((seen.statistic > NOISELESS).sum()) / max(1, seen.snapshots)
    return {
        **new.sums._asdict(),
        "shift_var": new.shift_var,
        "used": len(seen.u),
        "strength": held,
        "peaks": float((seen.statistic > SURE).sum()),
        "noise_peaks": float(noise),
        "snapshots": seen.snapshots,
        "snr": snr,
        "presence": min(1.0, share * math.exp((NOISELESS - 1) / (1 + max(snr, 0.0)))),
    }


def strength(seen: Views, targets: Tensor, strays: float) -> Float[Tensor, " sum"]:
    """The sums over views that `pull` is made of: L_i of targets, less that of strays; L_i - 1 of all; L_i - NOISELESS
    above it; how many these are. They add up, and decay, over blocks. targets: which views are some, or how likely."""
    level, weight = seen.statistic.double(), seen.weight.double()
    beyond = level > NOISELESS
    own = (weight * targets * level).sum() - strays
    return torch.stack([own, (weight * (level - 1)).sum(), (level[beyond] - NOISELESS).sum(), beyond.double().sum()])


def pull(sums: Float[Tensor, " sum"]) -> float:
    """By how much of its error a step takes k towards what the targets say; the rest of the error stays.

        [ sum over peaks above the gate of L_i - strays (gate + 1) ] SNR / (1 + SNR) / sum over all views of (L_i - 1)

    with the strays that noise has above the gate; where each view has a chance of being a target that is its share.
    Peaks of noise are found where k has them and so vote for the k that was. Of a target seen at strength |s|^2 = L
    only SNR / (1 + SNR) is its own, the rest is noise that the search and the gate chose for lying along k. What a step
    adds by chance is, in the end, pull times what k is off by: the sandwich alone is too sure. SNR by `snr_of`, near 0
    where there is only noise.
    """
    targets, whole, excess, count = sums.tolist()
    snr = excess / count - 1 if count else 0.0
    return min(1.0, max(0.0, targets * snr / (1 + snr) / whole)) if whole > 0 and snr > 0 else 0.0


def shift_evidence(
    seen: Views, echoes: Echoes, gate: float | int, margin_u: float, d: Float[Tensor, " shift"]
) -> Float[Tensor, " shift"]:
    """log p(angles | d) of views whose statistic is above the gate, and above SURE, up to a constant."""
    gate = max(gate, SURE)
    strong = seen.at(seen.statistic > gate)
    var, stray = resolution(echoes, strong.statistic - 1)[0], stray_share(strong.statistic, gate)
    return log_likelihood(Angles(strong.u, var, stray, strong.low, strong.high), d, margin_u)


def read(state: State, echoes: Echoes, factors: tuple[int, int] | None = None) -> Calibration:
    """The calibration that a state of `packed` holds."""
    k, at = state["kappa"], line_of(echoes)
    sums = scatter.Scatter(*(state[name] for name in scatter.Scatter._fields))
    c, ratio = scatter.covariance(sums, factors)
    share = pull(state["strength"])
    enough = state["peaks"] >= PER_ANTENNA * len(k) + TOO_MANY * state["noise_peaks"] and share >= MEMORY
    var = c.diagonal().real / squared(k) / max(share, MEMORY) ** 2
    var = var if enough else torch.full_like(var, math.inf)
    found = Calibration(
        k, var, state["shift_var"], at, status=Status.OK if enough else Status.WARMING_UP, factors=factors
    )
    info = {
        "expected_e0": found.expected_e0,
        "expected_e1": found.expected_e1,
        "snr": state["snr"],
        "presence": state["presence"],
        "echoes_used": state["used"],
        "snapshots": state["snapshots"],
        "peaks": state["peaks"],
        "noise_peaks": state["noise_peaks"],
        "pull": share,
        "eigenvalue_ratio": float(ratio),
    }
    return replace(found, info=info)
