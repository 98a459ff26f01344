"""isac/drift: gains whose phases walk, followed block by block, against gains that were calibrated once."""

import math
from collections.abc import Iterator
from dataclasses import replace

import hhat
from hhat.bench.claims import Level, Ordering
from hhat.bench.experiment import Experiment, Point, Profile, grid
from hhat.experiments.isac_course import METRICS, Contender, Stream, followed, following
from hhat.sensing.blocks import joined
from hhat.sensing.calibration import Calibration
from hhat.sensing.calibrator import calibrate
from hhat.types import Slot, Status

SOURCE = "isac calibration, B8"
BLOCK = 1024
"""Snapshots between two steps of the walk, and of the calibrator"""
FROZEN_AFTER = 16384
AFTER = (4096, 8192, 16384, 24576, 32768, 40960, 49152)
LATER = (65536, 98304, 131072)
DRIFT_DEG, SNR_DB = 1.0, 15.0
MEMORIES = (1000.0, 2000.0, 8000.0, 16000.0)
HERE = {"drift_deg": DRIFT_DEG, "snr_db": SNR_DB}
POINTS = grid({"drift_deg": (DRIFT_DEG,), "snr_db": (SNR_DB,), "after": AFTER})
MORE = (
    *grid({"drift_deg": (DRIFT_DEG,), "snr_db": (SNR_DB,), "after": (*AFTER, *LATER)}),
    *grid({"drift_deg": (0.3, 3.0), "snr_db": (SNR_DB,), "after": AFTER}),
    *grid({"drift_deg": (DRIFT_DEG,), "snr_db": (10.0, 20.0), "after": AFTER}),
)


def scenario(point: Point) -> Stream:
    return Stream(int(point["after"]), BLOCK, float(point["drift_deg"]), float(point["snr_db"]), "isac/drift")


def streaming(memory: float = 4000.0, shift_memory: float = 32000.0) -> Contender:
    return following(hhat.calibrator("streaming", memory=memory, shift_memory=shift_memory))


def frozen(blocks: Iterator[Slot]) -> Iterator[Calibration]:
    """`hhat.calibrate` on the first FROZEN_AFTER snapshots, never again; not a number before."""
    first = [next(blocks).obs for _ in range(FROZEN_AFTER // BLOCK)]
    found = calibrate(joined(first))
    yield from [replace(found, kappa=found.kappa * math.nan, status=Status.WARMING_UP)] * (len(first) - 1)
    yield found
    for _ in blocks:
        yield found


EXPERIMENT = Experiment(
    name="isac/drift",
    title="Error of gains that walk by 1 degree rms in 1,000 snapshots, over time",
    scenario=scenario,
    methods={
        "streaming": followed(following(hhat.calibrator("streaming"))),
        "frozen": followed(frozen),
        **{f"streaming-{memory:g}": followed(streaming(memory=memory)) for memory in MEMORIES},
        "streaming-one-memory": followed(streaming(shift_memory=4000.0)),
    },
    profiles={
        "quick": Profile(POINTS, blocks=8, methods=("streaming", "frozen")),
        "full": Profile(MORE, blocks=50),
    },
    metrics=METRICS,
    example=False,
    claims=(
        Ordering(
            "a stream that forgets is ahead of gains that were calibrated once, twice as many snapshots later",
            SOURCE,
            methods=("streaming", "frozen"),
            metric="e0",
            at={**HERE, "after": 2 * FROZEN_AFTER},
        ),
        Level(
            "gains that were calibrated once lose q^2 = 3.0e-4 per 1,000 snapshots: 0.0115 after another 32,768",
            SOURCE,
            method="frozen",
            low=0.008,
            high=0.015,
            metric="e0",
            at={**HERE, "after": AFTER[-1]},
        ),
    ),
    note="n counts arrays, each with a stream of its own in blocks of 1,024 snapshots; the phases step between "
    "blocks; e0 is against the gains of the last block. frozen: hhat.calibrate on the first 16,384 snapshots. "
    "expected_e0 is what the calibrator states, which knows of noise and of no drift. streaming-N: memory N "
    "snapshots; streaming-one-memory: the shift forgotten as fast as the scatter. A point goes on where the one "
    "before it ended: its seconds are those of what was new, cpu_s those since the first block, without the "
    "draws. SNR: of one target, fully integrated over antennas and subcarriers.",
)
