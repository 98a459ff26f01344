"""isac/learning: error of the gains against snapshots seen, of the paper's gradients and of the eigenvector."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import islice

import hhat
from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment, Measurement, Point, Profile, grid
from hhat.experiments.isac_course import Contender, Errors, Stream, followed, following, tracked
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.blocks import joined
from hhat.sensing.calibrator import calibrate
from hhat.sensing.gradient import Gradient
from hhat.sensing.losses import Loss, PeakLoss, ResidualLoss, published_noise_var

BATCH = 512
MOST = 16384
"""Snapshots that a calibrator of whole sets is given at most"""
SEEN = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
LATER = (102400, 204800, 409600, 768000)
SNR_DB = 15.0


def scenario(point: Point) -> Stream:
    return Stream(int(point["after"]), BATCH, snr_db=float(point["snr_db"]))


def descended(loss: Loss, project: bool) -> Contender:
    """One step per block of fresh snapshots."""
    return following(Gradient(loss=loss, project=project, batch=None))


def at_once(name: str) -> Callable[[Stream], Measurement]:
    """A calibrator of whole sets, on the snapshots seen so far, MOST at most."""
    return tracked(lambda stream, seed: from_set(name, replace(stream, after=0), seed, min(stream.after, MOST)))


@lru_cache(maxsize=4096)
def from_set(name: str, stream: Stream, seed: int, count: int) -> Errors:
    slots = list(islice(stream.blocks(seed), count // stream.block))
    whole, began = joined([slot.obs for slot in slots]), time.process_time()
    found = calibrate(whole, hhat.calibrator(name))
    spent, off = time.process_time() - began, gain_errors(found.kappa, slots[-1].truth.kappa)
    return Errors(float(off.e0), float(off.e1), found.expected_e0, spent, found.status)


IN_WATTS = PeakLoss(64 * 256 * published_noise_var(256, 240e3))
EXPERIMENT = Experiment(
    name="isac/learning",
    title="Error of the gains against snapshots seen, 64 antennas, 15 dB",
    scenario=scenario,
    methods={
        "loss-14": followed(descended(PeakLoss(), project=False)),
        "loss-15": followed(descended(ResidualLoss(), project=False)),
        "loss-14-projected": followed(descended(PeakLoss(), project=True)),
        "loss-15-projected": followed(descended(ResidualLoss(), project=True)),
        "loss-14-watts": followed(descended(IN_WATTS, project=False)),
        "streaming": followed(following(hhat.calibrator("streaming", memory=None, shift_memory=None))),
        "eigenvector": at_once("eigenvector"),
        "soft-em": at_once("soft-em"),
    },
    profiles={
        "quick": Profile(
            grid({"snr_db": (SNR_DB,), "after": SEEN}),
            blocks=3,
            methods=("loss-14", "loss-15", "loss-14-projected", "eigenvector"),
        ),
        "full": Profile(grid({"snr_db": (SNR_DB,), "after": (*SEEN, *LATER)}), blocks=20),
    },
    metrics=("e0", "e1", "cpu_s"),
    over="cpu_s",
    example=False,
    claims=(
        Ordering(
            "the tangent projection is ahead of the plain gradient of loss (14)",
            "isac calibration, 3.3",
            methods=("loss-14-projected", "loss-14"),
            metric="e1",
            at={"after": SEEN[-1]},
        ),
        Ordering(
            "the eigenvector of 16,384 snapshots is ahead of 128 projected steps",
            "isac calibration, 3.5",
            methods=("eigenvector", "loss-14-projected"),
            metric="e0",
            at={"after": SEEN[-1]},
        ),
    ),
    note="n counts arrays. loss-14, loss-15: Algorithm 1 of the paper from gains of 1, Adam at a rate of 0.01, one "
    "step per 512 fresh snapshots, searched on every fourth angle and third range of the grid; not projected "
    "unless said, in units of the noise, loss-14-watts on the paper's scale. eigenvector and soft-em are given "
    "the same snapshots as one set, 16,384 at most: beyond, the line is theirs. cpu_s: of the calibrator up to "
    "there, draws not counted. SNR: of one target, fully integrated over antennas and subcarriers.",
)
