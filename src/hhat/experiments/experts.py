"""What the figures on the mixture of diffusion experts share: their channels, labels and names of weights."""

from dataclasses import dataclass

import torch

from hhat.bench.experiment import Point
from hhat.priors.diffusion import names
from hhat.scenarios.cdl import Cdl
from hhat.types import Slot

PAPER = "Jiang et al. 2026"
SCARCE = "experts-vb-paper-scarce"
"""Label of the paper's algorithm with an expert that has seen a tenth of the channels"""
PROPOSED, SINGLE = "experts-vb-paper", "diffusion-posterior"
"""Labels of the paper's algorithm as printed, and of one diffusion model trained on the channels of all profiles"""
PROFILES = ("A", "B", "C", "D")
BLOCK = 20


def scenario(point: Point) -> Cdl:
    """Fixed horizontal arrays and a random phase of the specular path, unless the point says otherwise: the paper says
    neither."""
    return Cdl(
        profile=str(point["profile"]),
        num_rx_ant=16,
        num_tx_ant=64,
        pilot_ratio=float(point["alpha"]),
        snr_db=float(point["snr_db"]),
        axis=str(point.get("axis", "horizontal")),
        geometry=str(point.get("geometry", "fixed")),
        los_phase=str(point.get("los_phase", "random")),
    )


def weights(scene: Cdl, profiles: str, scarce: str = "") -> str:
    """Name of the package's network of these profiles ("B", "ABCD"), in the scene's geometry.

    scarce: the profile that it has seen 1,000 channels of, in place of 10,000. Where there is no network for a constant
    phase of the specular path it is that of a random one: every phase is as likely to it, this one too.
    """
    few = f"-scarce{'-' + scarce if len(profiles) > 1 else ''}" if scarce else ""
    turned = "-rotated" if scene.geometry == "rotated" else ""
    turned += "-vertical" if scene.axis == "vertical" else ""
    name = f"cdl-{profiles}{few}{turned}".lower()
    constant = f"{name}-constant"
    return constant if scene.los_phase == "constant" and constant in names() else name


@dataclass(frozen=True)
class Passes:
    """CDL channels, and how many outer passes an estimator takes."""

    scene: Cdl
    passes: int

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        return self.scene.draw(n, gen)


def with_passes(point: Point) -> Passes:
    return Passes(scenario(point), int(point["passes"]))
