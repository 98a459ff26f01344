"""What the figures on gain-phase calibration share: new gains in every block, and what sensing makes of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import hhat
from hhat.bench.experiment import Measurement, Point
from hhat.bench.summary import SQUARED
from hhat.scenarios.echoes import EchoScene
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.angle_delay import search
from hhat.sensing.calibrator import Calibrator, calibrate
from hhat.sensing.detector import position_m
from hhat.sensing.echoes import Echoes, EchoTruth
from hhat.sensing.gradient import Gradient
from hhat.sensing.losses import PeakLoss, ResidualLoss
from hhat.sensing.scatter import dominant, second_moment
from hhat.sensing.scores import IN_CELL_M, IN_CELL_U
from hhat.sensing.threshold import closed_form_threshold, empirical_threshold
from hhat.sensing.views import aligned_views
from hhat.types import Slot, Status

PAPER = "Mateos-Ramos et al. 2025"
TRAIN, TEST = 16384, 12288
"""Snapshots of a block that calibrate, and those behind them that are searched for targets"""
REFINE_STEPS = 3
METRICS = (
    "e0",
    "detection_probability",
    "position_rmse_m",
    "position_rmse_in_cell_m",
    "angle_rmse_in_cell_deg",
    "range_rmse_in_cell_m",
    "closed_form_false_alarm",
)
Gains = Callable[[Slot], tuple[Tensor | None, Status]]
"""From the calibrating snapshots, truth included, to the gains (None: ones) and how that ended"""


@dataclass(frozen=True)
class Trial:
    """One array per draw: gains by a seed that the generator gives, then n snapshots of echoes through them.

    false_alarm: of the detector, for the methods; the draw does not depend on it
    """

    snr_db: float = 15.0
    false_alarm: float = 1e-2

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        seed = int(torch.randint(1 << 31, (), generator=gen))
        return EchoScene(snr_db=self.snr_db, kappa_seed=seed).draw(n, gen)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Trial":
        return cls()


def scenario(point: Point) -> Trial:
    return Trial(float(point["snr_db"]), float(point["false_alarm"]))


def known(slot: Slot) -> tuple[Tensor, Status]:
    return slot.truth.kappa, Status.OK


def ones(slot: Slot) -> tuple[None, Status]:
    return None, Status.OK


def genie(slot: Slot) -> tuple[Tensor, Status]:
    """The dominant eigenvector with angle and range of each target known: what no calibrator of the kind can beat."""
    here = slot.truth.present[:, 0]
    z = aligned_views(slot.obs.rows(here), slot.truth.u[here, 0], slot.truth.range_m[here, 0]).z
    return dominant(second_moment(z, torch.ones(len(z)))), Status.OK


def calibrated(calibrator: Calibrator | None) -> Gains:
    """None: what `hhat.calibrate` takes by itself."""

    def gains(slot: Slot) -> tuple[Tensor, Status]:
        found = calibrate(slot.obs, calibrator)
        return found.kappa, found.status

    return gains


def paper(loss: PeakLoss | ResidualLoss, project: bool) -> Calibrator:
    return Gradient(loss=loss, project=project)


def sensed(gains: Gains, train: int = TRAIN) -> Callable[[Trial], Measurement]:
    """Calibrated on the first `train` snapshots, scored on the others, which no calibration has seen."""

    def method(scene: Trial) -> Measurement:
        def measure(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
            kappa, status = gains(part(slot, slice(None, train)))
            return scored(part(slot, slice(train, None)), kappa, scene.false_alarm), {status.name: 1}

        return Measurement(measure)

    return method


def part(slot: Slot, rows: slice) -> Slot:
    """Some of the snapshots, with their truth."""
    cut = {name: getattr(slot.truth, name)[rows] for name in ("present", "u", "range_m", "gain")}
    return replace(slot, truth=slot.truth._replace(**cut), obs=slot.obs.rows(rows))


def scored(slot: Slot, kappa: Tensor | None, false_alarm: float) -> dict[str, Tensor]:
    """What METRICS are made of, one number each, of one array's gains over its snapshots.

    The threshold is that of these gains' own statistics in the empty snapshots; errors are those of detected targets,
    as mean squares: over arrays these are averaged, then the root is taken.
    """
    echoes: Echoes = slot.obs
    truth: EchoTruth = slot.truth
    k = torch.ones_like(truth.kappa) if kappa is None else kappa
    found = search(echoes, kappa, refine_steps=REFINE_STEPS)
    present = truth.present[:, 0]
    empty = found.statistic[~present]
    seen = present & (found.statistic > empirical_threshold(empty, false_alarm))
    u, range_m = found.u - truth.u[:, 0], found.range_m - truth.range_m[:, 0]
    away = (position_m(found.u, found.range_m) - position_m(truth.u[:, 0], truth.range_m[:, 0])).norm(dim=-1)
    degrees = (found.u.asin() - truth.u[:, 0].asin()).rad2deg()
    cell = seen & (range_m.abs() < IN_CELL_M) & (u.abs() < IN_CELL_U)
    let_through = found.statistic > closed_form_threshold(echoes, false_alarm)
    values = {
        "e0": gain_errors(k, truth.kappa).e0,
        "detection_probability": seen.sum() / present.sum().clamp_min(1),
        "position_rmse_m" + SQUARED: mean_square(away[seen]),
        "position_rmse_in_cell_m" + SQUARED: mean_square(away[cell]),
        "angle_rmse_in_cell_deg" + SQUARED: mean_square(degrees[cell]),
        "range_rmse_in_cell_m" + SQUARED: mean_square(range_m[cell]),
        "closed_form_false_alarm": let_through[~present].double().mean(),
    }
    return {name: value.reshape(1) for name, value in values.items()}


def mean_square(errors: Tensor) -> Tensor:
    """Not a number without errors."""
    return errors.double().square().mean()


METHODS = {
    "known": sensed(known),
    "ones": sensed(ones),
    "default": sensed(calibrated(None)),
    "loss-14": sensed(calibrated(paper(PeakLoss(), project=False))),
    "loss-15": sensed(calibrated(paper(ResidualLoss(), project=False))),
    "loss-14-projected": sensed(calibrated(paper(PeakLoss(), project=True))),
    "loss-15-projected": sensed(calibrated(paper(ResidualLoss(), project=True))),
    "soft-em": sensed(calibrated(hhat.calibrator("soft-em"))),
}
