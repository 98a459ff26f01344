"""extrapolation/fig4: what a strong path does to the pseudospectrum of a weak one, and what cancelling it does."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.bench.claims import Level
from hhat.bench.experiment import Experiment, Measurement, Point, Profile, grid
from hhat.experiments import extrapolation
from hhat.extrapolation.model import Offsets, Paths, sounded
from hhat.extrapolation.normal import Task
from hhat.extrapolation.path_spectrum import path_spectrum
from hhat.scenarios.srs_paths import SrsPaths
from hhat.types import Slot

SOURCE = f"{extrapolation.PAPER}, Fig. 4"
STRONG, WEAK = 0, 1
WRONG_S = 5e-9
"""By which the timing of every other symbol is mistaken"""
DELAYS_S = torch.arange(0.0, 2.3e-6, 2e-9, dtype=torch.float64)
NEAR_S = 5e-8
"""Within which the largest value counts as the peak of a path"""
CELL_S = 1 / 60e6
LEVEL, FOUND, SHIFT = "interference_db", "own_peak_is_highest", "interference_shift_ns"


@dataclass(frozen=True)
class TwoPaths(SrsPaths):
    """`srs-paths` with two paths, the second weak_db weaker than the first."""

    weak_db: float | int = 20.0
    num_paths: int = 2
    separation_s: float | int = 0.3e-6

    def drops(self, n: int, gen: torch.Generator, num_symbols: int | None = None) -> Paths:
        found = super().drops(n, gen, num_symbols)
        size = torch.tensor([1.0, 10 ** (-self.weak_db / 20)], dtype=torch.float64)
        return found._replace(gain=torch.polar(size.expand(n, 2), found.gain.angle()))


def scene(point: Point) -> TwoPaths:
    return TwoPaths(weak_db=float(point["weak_db"]), snr_db=15.0)


def spectrum(wrong: bool, cancelled: bool) -> Callable[[TwoPaths], Measurement]:
    """Of the weak path, over delays, with phases, timing and Doppler shifts known, or with timing and Doppler wrong."""

    def measure(place: TwoPaths, slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
        paths, offsets, model = slot.truth.paths, slot.truth.offsets, place.model
        times = model.period_s * torch.arange(offsets.phase_rad.shape[-1]).double()
        if wrong:
            late = WRONG_S * (torch.arange(len(times)) % 2)
            offsets = Offsets(offsets.phase_rad, offsets.timing_s + late)
            paths = paths._replace(doppler_hz=torch.zeros_like(paths.doppler_hz))
        task = Task.make(model, sounded(model, slot.obs), times)
        level = 10 * path_spectrum(task, task.point(paths, offsets), WEAK, DELAYS_S, (STRONG,) * cancelled).log10()
        return peaks(level, slot.truth.delay_s), {"OK": len(level)}

    return lambda place: Measurement(lambda slot: measure(place, slot))


def peaks(level_db: Tensor, delay_s: Tensor) -> dict[str, Tensor]:
    """Interference over the weak path's own peak; is that the highest; how far the interference is from its path."""
    away = (DELAYS_S - delay_s[..., None]).abs() < NEAR_S
    inside = torch.where(away, level_db[:, None], -torch.inf)
    height, place = inside.max(-1)
    own = (DELAYS_S[level_db.argmax(-1)] - delay_s[:, WEAK]).abs() < CELL_S
    shift = (DELAYS_S[place[:, STRONG]] - delay_s[:, STRONG]).abs()
    return {LEVEL: height[:, STRONG] - height[:, WEAK], FOUND: own.double(), SHIFT: 1e9 * shift}


KNOWN, MISTAKEN = "known", "timing and Doppler wrong"
EXPERIMENT = Experiment(
    name="extrapolation/fig4",
    title="Pseudospectrum over delay of a weak path beside a strong one",
    scenario=scene,
    methods={
        KNOWN: spectrum(False, False),
        f"{KNOWN}, strong path cancelled": spectrum(False, True),
        MISTAKEN: spectrum(True, False),
        f"{MISTAKEN}, strong path cancelled": spectrum(True, True),
    },
    profiles={
        "quick": Profile(grid({"weak_db": (10.0, 20.0)}), blocks=2, block_size=20),
        "full": Profile(grid({"weak_db": (10.0, 20.0, 30.0)}), blocks=10, block_size=20),
    },
    metrics=(LEVEL, FOUND, SHIFT),
    claims=(
        Level(
            "a strong path leaves a peak of interference above that of one 20 dB weaker",
            SOURCE,
            KNOWN,
            0.0,
            at={"weak_db": 20.0},
            metric=LEVEL,
        ),
        Level(
            "the peak of interference moves when phase, timing or Doppler are estimated wrongly: by 2 ns and more",
            SOURCE,
            MISTAKEN,
            2.0,
            metric=SHIFT,
        ),
    ),
    note="Two paths of SrsPaths at least 0.3 us apart, 15 dB, 2 hops, 4 symbols; P_k(tau) = 1 / (1 - share of "
    "d_k(tau) in the signal subspace), the weak path's turns in d_k, tau on a grid of 2 ns; interference_db: largest "
    "value within 50 ns of the strong path's delay over that within 50 ns of the weak path's; own_peak_is_highest: the "
    "highest of all lies within 1 / 60 MHz of the weak path's delay; interference_shift_ns: where the interference is, "
    "from the strong path's delay. Wrong: Doppler shifts 0, every other symbol 5 ns late. Cancelled: projected out, as "
    "it is believed to be.",
    example=False,
)
