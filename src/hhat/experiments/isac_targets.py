"""isac/targets: sets of 1 to 5 targets found with and without calibration, by GOSPA."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment, Measurement, Point, Profile, grid
from hhat.bench.summary import SQUARED
from hhat.experiments import isac
from hhat.scenarios.echoes import EchoScene
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.detector import detect, position_m
from hhat.sensing.scores import gospa
from hhat.types import Slot

TRAIN, TEST = 8192, 256
MOST_FOUND = 6
FALSE_ALARM = 1e-2
CUTOFF_M = 5.0
TARGETS, SNR_DB = (1, 2, 3, 4, 5), (15.0, 25.0)
QUICK = (1, 3, 5)
SOURCE = "isac calibration, 10.1"


@dataclass(frozen=True)
class Crowd:
    """Echoes of one array, each of as many targets; its gains by a seed that the generator gives."""

    targets: int = 3
    snr_db: float = 15.0

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        seed = int(torch.randint(1 << 31, (), generator=gen))
        scene = EchoScene(
            snr_db=self.snr_db, presence=1.0, min_targets=self.targets, max_targets=self.targets, kappa_seed=seed
        )
        return scene.draw(n, gen)


def scenario(point: Point) -> Crowd:
    return Crowd(int(point["targets"]), float(point["snr_db"]))


def sets(gains: isac.Gains) -> Callable[[Crowd], Measurement]:
    """Calibrated on the first TRAIN snapshots, of as many targets as the others, on which it is scored."""

    def method(scene: Crowd) -> Measurement:
        def measure(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
            kappa, status = gains(isac.part(slot, slice(None, TRAIN)))
            return scored(isac.part(slot, slice(TRAIN, None)), kappa), {status.name: 1}

        return Measurement(measure)

    return method


def scored(slot: Slot, kappa: Tensor | None) -> dict[str, Tensor]:
    """e0, mean GOSPA^2 and mean number of targets found, one number each."""
    truth = slot.truth
    k = torch.ones_like(truth.kappa) if kappa is None else kappa
    found = detect(slot.obs, kappa, FALSE_ALARM, max_targets=MOST_FOUND)
    apart = gospa(found.position_m, found.detected, position_m(truth.u, truth.range_m), truth.present, CUTOFF_M)
    values = {
        "e0": gain_errors(k, truth.kappa).e0,
        "gospa_m" + SQUARED: apart.double().mean(),
        "targets_found": found.detected.sum(-1).double().mean(),
    }
    return {name: value.reshape(1) for name, value in values.items()}


EXPERIMENT = Experiment(
    name="isac/targets",
    title="GOSPA of 1 to 5 targets with and without calibration, 64 antennas",
    scenario=scenario,
    methods={"known": sets(isac.known), "ones": sets(isac.ones), "default": sets(isac.calibrated(None))},
    profiles={
        "quick": Profile(grid({"snr_db": SNR_DB, "targets": QUICK}), blocks=3, block_size=TRAIN + TEST),
        "full": Profile(grid({"snr_db": SNR_DB, "targets": TARGETS}), blocks=50, block_size=TRAIN + TEST),
    },
    metrics=("gospa_m", "targets_found", "e0"),
    example=False,
    claims=(
        Ordering(
            "without calibration sets of targets are worse", SOURCE, methods=("default", "ones"), metric="gospa_m"
        ),
    ),
    note="n counts arrays, 8,192 snapshots to calibrate and 256 others to search, all of as many targets as the "
    "point says. GOSPA: order 2, alpha 2, cut-off 5 m, exact over assignments; root of the mean over snapshots "
    "and arrays. Targets are searched one after the other, 6 at most, at a false-alarm probability of 0.01, "
    "closed form. default is what hhat.calibrate takes from these echoes. SNR: of one target, fully integrated "
    "over antennas and subcarriers.",
)
