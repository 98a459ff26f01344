"""`streaming`: a calibrator that takes each block of snapshots once, forgets, and so follows gains that drift."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hhat.sensing import scatter
from hhat.sensing.calibration import Calibration
from hhat.sensing.calibrator import Calibrator, moved
from hhat.sensing.echoes import Echoes
from hhat.sensing.eigenvector import NEAR, Refined, blank, packed, read, shift_evidence
from hhat.sensing.shift import most_likely, shifts
from hhat.sensing.start import sector_gains, sector_moments
from hhat.sensing.threshold import resolution
from hhat.sensing.views import COARSE, SIZE, cell_of, line_of, peaks, recentred, turned
from hhat.types import State, Status

RAMP = 3.0
"""Memory at the start, as a multiple of what has been seen: the first blocks saw poorer gains."""


@dataclass(frozen=True, eq=False)
class Streaming(Calibrator):
    """The eigenvector of a scatter that decays by exp(-n / memory) with every n snapshots; the evidence on the common
    shift decays by exp(-n / shift_memory) and is carried along. One step is one block:

      1. the first `warm` snapshots: only the sums of `start.sector_moments`; their gains, status WARMING_UP
      2. then: peaks of the block under k, above the gate, to their continuous maximum
      3. R <- keep R + block, k <- its dominant eigenvector; evidence(d) <- its own keep evidence(d) + block; k by the
         best d

    memory: snapshots after which one counts 1 / e in the scatter; None: none is forgotten. Phases that walk by an rms
            of q radians in 1,000 snapshots leave e1 = a / (2 M) + b M / 2 at memory M, a = (N - 1) / (share with target
            SNR) of noise and b = q^2 / 1000 of what has moved since: least at sqrt(a / b), 3,600 for one degree at
            64 antennas and 15 dB
    shift_memory: of the evidence on the common shift; None: none is forgotten. A random walk of N phases moves the
            shift far less than it moves each phase, and its evidence is scarcer: eight times `memory` is a good choice
    gate, margin_u, size, coarse: as `eigenvector`
    The uncertainty is that of noise: what gains move within the memory is not in it.
    Source: isac calibration, 3.5 (streaming form) and B8.
    """

    memory: float | int | None = 4000.0
    shift_memory: float | int | None = 32000.0
    warm: int = 2048
    gate: float | int = 12.0
    margin_u: float = 0.012
    size: tuple[int, int] = SIZE
    coarse: tuple[int, int] = COARSE
    # `calibrate` shows all snapshots at every step: a second one would count each twice
    max_steps: int = 1
    tol: float | None = None

    def init(self, echoes: Echoes, gen: torch.Generator) -> State:
        k = torch.ones(echoes.num_rx_ant, dtype=echoes.y.dtype, device=echoes.y.device)
        nothing = torch.zeros(len(k), len(k), dtype=k.dtype, device=k.device)
        evidence = torch.zeros_like(shifts(like=k.real))
        return {**blank(k), "seen": 0, "evidence": evidence, "start": nothing, "coherence": nothing}

    def step(self, state: State, echoes: Echoes) -> State:
        flat = echoes.flat()
        count, seen = len(flat.y), state["seen"]
        if seen < self.warm:
            state = self._warmed(state, flat)
            if seen + count < self.warm:
                return state
        at, k = line_of(flat), state["kappa"]
        near = NEAR * cell_of(at)
        views = peaks(flat, k, self.gate, self.margin_u, self.size, self.coarse)
        views = recentred(views, k, at, near, self.margin_u)
        var = resolution(flat, views.statistic - 1)[0]
        known = max(count, RAMP * (seen + count - self.warm))
        keep, keep_shift = (
            math.exp(-count / min(known, math.inf if memory is None else memory))
            for memory in (self.memory, self.shift_memory)
        )
        before = scatter.Scatter(*(state[name] for name in scatter.Scatter._fields))
        sums = before.decayed(keep).plus(scatter.scatter(views.z, views.weight, k, var, at))
        k = scatter.dominant(sums.second)
        d = shifts(like=at)
        views = recentred(views, k, at, near, self.margin_u)
        evidence = keep_shift * state["evidence"] + shift_evidence(views, flat, self.gate, self.margin_u, d)
        found = most_likely(evidence, d)
        k = scatter.shifted(k, at, found.u)
        wave = torch.polar(torch.ones_like(at), -2 * math.pi * at * found.u)
        views = turned(views, torch.full_like(views.u, found.u), k, at)
        new = packed(Refined(k, sums.turned(wave), views, found.var), flat, self.gate)
        counted = {name: keep * state[name] + new[name] for name in ("peaks", "noise_peaks", "strength")}
        return {
            **{**state, **new, **counted, "kappa": k, "change": moved(k, state["kappa"]), "count": state["count"] + 1},
            **{"seen": seen + count, "evidence": carried(evidence, d, found.u)},
        }

    def read(self, state: State, echoes: Echoes) -> Calibration:
        found = read(state, echoes)
        if state["seen"] >= self.warm:
            return found
        return replace(found, status=Status.WARMING_UP)

    def _warmed(self, state: State, flat: Echoes) -> State:
        second, coherence = sector_moments(flat)
        second, coherence = state["start"] + second, state["coherence"] + coherence
        k = sector_gains(second, coherence)
        seen = state["seen"] + len(flat.y)
        moved_by = moved(k, state["kappa"])
        return {**state, "kappa": k, "change": moved_by, "start": second, "coherence": coherence, "seen": seen}


def carried(evidence: Tensor, d: Tensor, found: float) -> Tensor:
    """The evidence on what shift is left after one by `found`, on the same grid; flat beyond what was looked at."""
    place = ((d + found - d[0]) / (d[1] - d[0])).clamp(0, len(d) - 1)
    low = place.floor().long().clamp_max(len(d) - 2)
    share = place - low
    return (1 - share) * evidence[low] + share * evidence[low + 1]
