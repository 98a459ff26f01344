"""engine/sparse-xl: the local estimators of a near-field XL array's units, from the same combined pilots."""

from dataclasses import dataclass
from typing import Any

import torch

import hhat
from hhat.bench.experiment import Experiment, Point, Profile, grid
from hhat.scenarios.near_field import NearField
from hhat.types import Slot


@dataclass(frozen=True)
class LocalUnits:
    """The draws of a near-field scenario as the separate problems of its units: a batch of (channel, unit)."""

    scene: NearField

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        return self.scene.local(self.scene.draw(n, gen))


def scenario(point: Point) -> LocalUnits:
    return LocalUnits(NearField(snr_db=float(point["snr_db"])))


def _sbl(scene: LocalUnits, m_step: str, steps: int | None = None) -> Any:
    prior = hhat.prior("gauss", basis=scene.scene.local_basis())
    return hhat.method("sbl", prior=prior, m_step=hhat.m_step(m_step), max_steps=steps)


def sbl_em(scene: LocalUnits) -> Any:
    return _sbl(scene, "em")


def sbl_em_converged(scene: LocalUnits) -> Any:
    return _sbl(scene, "em", 200)


def sbl_mackay(scene: LocalUnits) -> Any:
    return _sbl(scene, "mackay")


def sbl_mrf(scene: LocalUnits) -> Any:
    return _sbl(scene, "ising")


def sbl_pattern_coupled(scene: LocalUnits) -> Any:
    return _sbl(scene, "pattern-coupled")


def uamp_sbl(scene: LocalUnits) -> Any:
    return hhat.method("uamp", prior=hhat.prior("sparse-bayes", basis=scene.scene.local_basis()))


def uamp_mrf(scene: LocalUnits) -> Any:
    return hhat.method("uamp", prior=hhat.prior("markov-random-field", basis=scene.scene.local_basis()))


def pcsbl_gamp(scene: LocalUnits) -> Any:
    return hhat.method("gamp", prior=hhat.prior("pattern-coupled", basis=scene.scene.local_basis()))


def oamp_pattern_coupled(scene: LocalUnits) -> Any:
    return hhat.method("oamp", prior=hhat.prior("pattern-coupled", basis=scene.scene.local_basis()))


def oamp_mixture(scene: LocalUnits) -> Any:
    return hhat.method("oamp", prior=hhat.prior("gauss-mixture", basis=scene.scene.local_basis()))


def oamp_ising(scene: LocalUnits) -> Any:
    return hhat.method("oamp", prior=hhat.prior("ising", basis=scene.scene.local_basis()))


EXPERIMENT = Experiment(
    name="engine/sparse-xl",
    title="Local units of a near-field XL array: NMSE against SNR, 32 antennas, 16 tones, 16 beams a unit",
    scenario=scenario,
    methods={
        "sbl-em": sbl_em,
        "sbl-em-converged": sbl_em_converged,
        "sbl-mackay": sbl_mackay,
        "sbl-mrf": sbl_mrf,
        "sbl-pattern-coupled": sbl_pattern_coupled,
        "uamp-sbl": uamp_sbl,
        "uamp-mrf": uamp_mrf,
        "pcsbl-gamp": pcsbl_gamp,
        "oamp-pattern-coupled": oamp_pattern_coupled,
        "oamp-gauss-mixture": oamp_mixture,
        "oamp-ising": oamp_ising,
    },
    profiles={
        "quick": Profile(grid({"snr_db": (0.0, 10.0)}), blocks=1, block_size=10),
        "full": Profile(grid({"snr_db": (0.0, 5.0, 10.0, 15.0)}), blocks=20, block_size=10),
    },
    claim="Tang et al. 2025, figure 7(a): from worst to best standard SBL, pattern-coupled SBL, MRF-SBL",
    note="One realisation is one unit of one channel, four units a channel; every block has its own combiners. All "
    "know the noise level. sbl-em stops after 20 steps, sbl-em-converged after 200.",
)
