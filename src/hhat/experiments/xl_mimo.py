"""What the near-field XL figures share: the array as separate units or as one, and the estimators of either."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import hhat
from hhat.bench.experiment import Point, score_channel
from hhat.bench.stopping import Stopping
from hhat.decentralized import Concatenate, PosteriorUpload
from hhat.ops import LinearOp
from hhat.scenarios.near_field import NearField
from hhat.types import Estimate, Slot

PAPER = "Tang et al. 2025"
SNRS = (0.0, 5.0, 10.0, 15.0)
SLOTS = (12, 16, 20, 24, 28, 32)
BLOCK = 10
PAPER_BLOCKS = 1000
"""10,000 channels a point, as in the paper; fewer where the interval is narrow enough before"""
UNTIL = Stopping(half_width=0.1)
REFINEMENT = "the refinement of the fused estimate along angles (its algorithm 2)"
Build = Callable[[LinearOp], Any]


@dataclass(frozen=True)
class LocalUnits:
    """The draws of a near-field scenario as the separate problems of its units: a batch of (channel, unit)."""

    scene: NearField

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        return self.scene.local(self.scene.draw(n, gen))

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


def fused(build: Build) -> Callable[[NearField], Any]:
    """The same, put together, for the whole array."""

    def make(scene: NearField) -> Any:
        unit = build(scene.local_basis())
        return hhat.method(
            "decentralised", unit=unit, upload=PosteriorUpload(), centre=Concatenate(), num_unit=scene.num_unit
        )

    return make


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


FIGURE = {
    "sbl-em": sbl_em,
    "sbl-pattern-coupled": sbl_pattern_coupled,
    "uamp-mrf": uamp_mrf,
    "sbl-mrf": sbl_mrf,
}
"""The paper's baselines, which run at a unit; in its words StdSBL, PC-SBL, UAMP-MRF and VSP"""
OVERALL = {
    **{label: fused(build) for label, build in FIGURE.items()},
    "oamp-pattern-coupled": fused(oamp_pattern_coupled),
    "uamp-sbl-central": central(uamp_sbl),
    "sbl-pattern-coupled-central": central(sbl_pattern_coupled),
    "oamp-pattern-coupled-central": central(oamp_pattern_coupled),
}
OVERALL_NOTE = (
    "-central sees the pilots of all units, the others are the units' own estimates put together, not yet refined. All "
    "know the noise level. The paper takes uamp-sbl-central for its lower bound; it is one estimator among others."
)
