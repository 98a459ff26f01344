"""isac/samples: what n snapshots are worth to a calibrator."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import hhat
from hhat.bench.claims import Trend
from hhat.bench.experiment import Experiment, Measurement, Point, Profile, grid
from hhat.experiments import isac
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.gradient import Gradient
from hhat.types import Slot

TEST = 4096
SNAPSHOTS = (512, 1024, 2048, 4096, 8192, 16384)
QUICK = (1024, 4096, 16384)
STEPS = 200


@dataclass(frozen=True)
class Sets(isac.Trial):
    """Gains are calibrated from the first `snapshots` of a block: smaller sets are part of larger ones."""

    snapshots: int = SNAPSHOTS[-1]


def scenario(point: Point) -> Sets:
    return Sets(snr_db=float(point["snr_db"]), snapshots=int(point["snapshots"]))


def measured(gains: isac.Gains, train: int = SNAPSHOTS[-1]) -> Callable[[Sets], Measurement]:
    """What `isac.scored` says over the block's snapshots behind the first `train`, and e1."""

    def method(scene: Sets) -> Measurement:
        def measure(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
            kappa, status = gains(isac.part(slot, slice(None, scene.snapshots)))
            found = isac.scored(isac.part(slot, slice(train, None)), kappa, scene.false_alarm)
            e1 = torch.zeros(()) if kappa is None else gain_errors(kappa, slot.truth.kappa).e1
            return {**found, "e1": e1.reshape(1)}, {status.name: 1}

        return Measurement(measure)

    return method


EXPERIMENT = Experiment(
    name="isac/samples",
    title="Error of the gains against the snapshots that they are calibrated from, 64 antennas, 15 dB",
    scenario=scenario,
    methods={
        "eigenvector": measured(isac.calibrated(hhat.calibrator("eigenvector"))),
        "soft-em": measured(isac.calibrated(hhat.calibrator("soft-em"))),
        "loss-14-projected": measured(isac.calibrated(Gradient(max_steps=STEPS))),
        "genie": measured(isac.genie),
        "known": measured(isac.known),
    },
    profiles={
        "quick": Profile(
            grid({"snr_db": (15.0,), "snapshots": QUICK}),
            blocks=4,
            block_size=SNAPSHOTS[-1] + TEST,
            methods=("eigenvector", "soft-em", "loss-14-projected", "genie"),
        ),
        "full": Profile(grid({"snr_db": (15.0,), "snapshots": SNAPSHOTS}), blocks=50, block_size=SNAPSHOTS[-1] + TEST),
    },
    metrics=("e0", "e1", "detection_probability", "position_rmse_in_cell_m"),
    example=False,
    claims=(
        Trend(
            "the error falls with the number of snapshots",
            "isac calibration, 9.1",
            method="eigenvector",
            over="snapshots",
            metric="e1",
        ),
    ),
    note="n counts arrays. loss-14-projected: 200 steps of 512 snapshots drawn from the set, from gains of 1. genie: "
    "the dominant eigenvector with the true angle and range of each target. Detection at a false-alarm "
    "probability of 0.01 and positions over 4,096 other snapshots. SNR: of one target, fully integrated over "
    "antennas and subcarriers.",
)
