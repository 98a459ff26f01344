"""What the near-field XL figures share: the array as separate units or as one, and the estimators of either."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

import hhat
from hhat.bench.claims import Level
from hhat.bench.experiment import Bound, Point, score_channel
from hhat.bench.stopping import Stopping
from hhat.decentralized import (
    Concatenate,
    CovarianceFeedback,
    ExtrinsicUpload,
    Literal,
    MidTread,
    PosteriorUpload,
    ReportedNoise,
)
from hhat.ops import LinearOp
from hhat.scenarios.near_field import NearField
from hhat.scenarios.near_field_bounds import bound_nmse, genie_nmse, genie_variances, path_model
from hhat.types import Estimate, Slot

PAPER = "Tang et al. 2025"
SNRS = (0.0, 5.0, 10.0, 15.0)
SLOTS = (12, 16, 20, 24, 28, 32)
BLOCK = 10
PAPER_BLOCKS = 1000
"""10,000 channels a point, as in the paper; fewer where the interval is narrow enough before"""
UNTIL = Stopping(half_width=0.1)
Build = Callable[[LinearOp], Any]
REPORTED = ReportedNoise()
"""Algorithm 2 with the noise level that the units report; as printed it is learned (`Literal`)"""


class UnitChannels(NamedTuple):
    """h (n, unit, N, subcarrier); whole: the draw that they are parts of, for bounds."""

    h: Tensor
    whole: Slot


@dataclass(frozen=True)
class LocalUnits:
    """The draws of a near-field scenario as the separate problems of its units: a batch of (channel, unit)."""

    scene: NearField

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        whole = self.scene.draw(n, gen)
        mine = self.scene.local(whole)
        return replace(mine, truth=UnitChannels(mine.truth.h, whole))  # type: ignore[union-attr]

    def local_basis(self) -> LinearOp:
        return self.scene.local_basis()


def near_field(point: Point) -> NearField:
    """Points hold snr_db, and num_unit or num_slots (pilot slots, P) where they are swept."""
    settings: dict[str, Any] = dict(point)
    return NearField(**settings)


def units(point: Point) -> LocalUnits:
    return LocalUnits(near_field(point))


def score_units(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    """ratio (n,): its mean over the units of a channel. Units share its paths: they are no realisations apart."""
    kept = score_channel(estimate, slot)
    return {"ratio": kept["ratio"].unflatten(0, (-1, slot.obs.batch_shape[-1])).mean(-1)}


def local(build: Build) -> Callable[[Any], Any]:
    """On the units' own angles and delays, for `LocalUnits`."""
    return lambda scene: build(scene.local_basis())


def refined(build: Build, centre: Any = REPORTED) -> Callable[[NearField], Any]:
    """The units' posterior means, refined by the centre along the angles of the whole array (algorithm 2)."""

    def make(scene: NearField) -> Any:
        unit = build(scene.local_basis())
        return hhat.method("decentralised", unit=unit, upload=PosteriorUpload(), centre=centre, num_unit=scene.num_unit)

    return make


def fused(build: Build) -> Callable[[NearField], Any]:
    """The units' own estimates, antennas side by side for the whole array."""
    return refined(build, Concatenate())


def central(build: Build) -> Callable[[NearField], Any]:
    """On the angles and delays of the whole array, from the pilots of all units."""
    return lambda scene: build(scene.basis())


def _sbl(basis: LinearOp, m_step: str, steps: int | None = None) -> Any:
    return hhat.method("sbl", prior=hhat.prior("gauss", basis=basis), m_step=hhat.m_step(m_step), max_steps=steps)


def sbl_em(basis: LinearOp) -> Any:
    """Standard SBL, stopped early."""
    return _sbl(basis, "em")


def sbl_em_converged(basis: LinearOp) -> Any:
    return _sbl(basis, "em", 200)


def sbl_mackay(basis: LinearOp) -> Any:
    return _sbl(basis, "mackay")


def sbl_mrf(basis: LinearOp) -> Any:
    """Gamma precisions on an Ising field, as VSP."""
    return _sbl(basis, "ising")


def sbl_pattern_coupled(basis: LinearOp) -> Any:
    return _sbl(basis, "pattern-coupled")


def uamp_sbl(basis: LinearOp) -> Any:
    return hhat.method("uamp", prior=hhat.prior("sparse-bayes", basis=basis))


def uamp_mrf(basis: LinearOp) -> Any:
    return hhat.method("uamp", prior=hhat.prior("markov-random-field", basis=basis))


def gamp_pattern_coupled(basis: LinearOp) -> Any:
    return hhat.method("gamp", prior=hhat.prior("pattern-coupled", basis=basis))


def oamp_pattern_coupled(basis: LinearOp) -> Any:
    return hhat.method("oamp", prior=hhat.prior("pattern-coupled", basis=basis))


def oamp_mixture(basis: LinearOp) -> Any:
    return hhat.method("oamp", prior=hhat.prior("gauss-mixture", basis=basis))


def oamp_ising(basis: LinearOp) -> Any:
    return hhat.method("oamp", prior=hhat.prior("ising", basis=basis))


def sbl_gnn(basis: LinearOp) -> Any:
    """The paper's network with posterior attributes, trained as far as its card says."""
    return hhat.method("sbl-gnn", prior=hhat.prior("gauss", basis=basis))


def cnn_sbl(basis: LinearOp) -> Any:
    return hhat.method("sbl-cnn", prior=hhat.prior("gauss", basis=basis))


def as_it_comes(scene: NearField) -> Any:
    """`decentralised` with its defaults: extrinsic uploads, a pattern-coupled centre."""
    return hhat.method("decentralised", num_unit=scene.num_unit)


def with_feedback(scene: NearField) -> Any:
    """One round of feedback, coefficients with 8 bits per real number, variances with 4."""
    return hhat.method(
        "decentralised",
        upload=ExtrinsicUpload(MidTread(8)),
        feedback=CovarianceFeedback(),
        num_unit=scene.num_unit,
    )


def oamp_decentralised(scene: NearField) -> Any:
    """30 rounds between the units and the centre, not quantised."""
    prior = hhat.prior("pattern-coupled", basis=scene.basis())
    return hhat.method("oamp-decentralised", prior=prior, num_unit=scene.num_unit, max_steps=30)


def nomp_unit(scene: LocalUnits) -> Any:
    """A unit is nearly in the far field: one unknown less."""
    return hhat.method("nomp", model=path_model(scene.scene, local=True, curved=False))


def nomp(scene: NearField) -> Any:
    return hhat.method("nomp", model=path_model(scene))


def hybrid(scene: NearField) -> Any:
    return hhat.method("hybrid", paths=nomp(scene))


def known(ratio: Callable[[NearField, Slot, bool], Tensor]) -> Callable[[Any], Bound]:
    """What a genie reaches from the pilots of the whole array, or, for `LocalUnits`, of each unit alone."""

    def make(scene: Any) -> Bound:
        if isinstance(scene, LocalUnits):
            return Bound(lambda slot: ratio(scene.scene, slot.truth.whole, True))  # type: ignore[union-attr]
        return Bound(lambda slot: ratio(scene, slot, False))

    return make


def levels(prototype: Mapping[str, float], slack_db: float) -> tuple[Level, ...]:
    """Not above the prototype's numbers at 10 dB by more than its own uncertainty."""
    return tuple(
        Level(f"{label}: {number:g} dB", "prototype", label, high=number + slack_db, at={"snr_db": 10.0})
        for label, number in prototype.items()
    )


BOUNDS = {
    "genie-variances": known(genie_variances),
    "genie-geometry": known(genie_nmse),
    "cramer-rao": known(bound_nmse),
}
"""|x|^2 of every coefficient known; all paths known but for their gains; five real unknowns per path, unbiased"""
BASELINES = {
    "sbl-em": sbl_em,
    "sbl-pattern-coupled": sbl_pattern_coupled,
    "uamp-mrf": uamp_mrf,
    "sbl-mrf": sbl_mrf,
}
"""The paper's, which run at a unit; in its words StdSBL, PC-SBL, UAMP-MRF and VSP"""
FIGURE = {**BASELINES, "sbl-gnn": sbl_gnn, "cnn-sbl": cnn_sbl}
LOCAL = {**{label: local(build) for label, build in FIGURE.items()}, "nomp": nomp_unit}
OVERALL = {
    **{f"{label}-refined": refined(build) for label, build in FIGURE.items()},
    "decentralised": as_it_comes,
    "decentralised-feedback": with_feedback,
    "oamp-decentralised": oamp_decentralised,
    "uamp-sbl-central": central(uamp_sbl),
    "sbl-pattern-coupled-central": central(sbl_pattern_coupled),
    "cnn-sbl-central": central(cnn_sbl),
    "nomp-central": nomp,
    "hybrid": hybrid,
}
BEFORE = {
    **{label: fused(build) for label, build in FIGURE.items()},
    **{f"{label}-literal": refined(build, Literal()) for label, build in FIGURE.items()},
    **{f"{label}-refined": refined(build) for label, build in FIGURE.items()},
}
"""The units' estimates put together, and what refinement makes of them"""
QUICK = (
    "sbl-pattern-coupled-refined",
    "sbl-gnn-refined",
    "cnn-sbl-refined",
    "decentralised",
    "decentralised-feedback",
    "oamp-decentralised",
    "uamp-sbl-central",
    "sbl-pattern-coupled-central",
    "cnn-sbl-central",
    "hybrid",
)
OVERALL_NOTE = (
    "-refined: the units' posterior means, put together and refined along the angles of the whole array with the noise "
    "that the units report; -central: the pilots of all units in one place, and so hybrid and nomp. All know the noise "
    "level. decentralised-feedback: the centre returns variances once (4 bits), coefficients have 8 bits per real "
    "number. The paper takes uamp-sbl-central for its lower bound; it is one estimator among others. sbl-gnn is "
    "trained on 48,000 problems of the paper's million, sbl-cnn on 90,000 (their cards)."
)
