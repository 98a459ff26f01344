"""The mixture of experts in the figures: as it is by default, and after the paper."""

from typing import Any

import hhat
from hhat.methods.expert_choice import Judgement
from hhat.methods.experts_vb import package_experts
from hhat.scenarios.cdl import Cdl


def experts_vb(scene: Cdl) -> Any:
    """Knows the four covariances, as `covariance-mixture` does; the evidence decides."""
    return hhat.method("experts-vb")


def experts_vb_paper(scene: Cdl) -> Any:
    """The package's networks, equal shares at first, weights as printed, the paper's sampler with "h0" residual."""
    return hhat.method(
        "experts-vb",
        prior=package_experts(False, True),
        start="uniform",
        likelihood="dmps",
        judgement=Judgement(weights="printed"),
    )


METHODS = {"experts-vb": experts_vb, "experts-vb-paper": experts_vb_paper}
