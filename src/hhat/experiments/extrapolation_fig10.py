"""extrapolation/fig10: error of the first stage against steps of R-TST-MUSIC."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import hhat
from hhat.bench.claims import Level
from hhat.bench.experiment import Experiment, Point, Profile, grid, score_channel
from hhat.experiments import extrapolation
from hhat.extrapolation.normal import Free, Linear
from hhat.types import Estimate, Slot

SOURCE = f"{extrapolation.PAPER}, Fig. 10"
SETTLED = 1e-4
"""Relative change of |y - h|^2 from one step to the next, below which the refinement has converged"""
MOST = 10
STEPS = (1, 2, 3, 5, MOST)
SNR_DB = {"srs-paths": 10.0, "srs-uma": 15.0}
COUNT = "iterations_to_converge"
CONVERGED = "converged_share"
FREE, PRINTED, LINEAR = "r-tst-music", "r-tst-music-printed", "r-tst-music-linear"


@dataclass(frozen=True)
class Refined:
    """A scenario of hopping pilots, and the steps that the refinement is given."""

    scene: Any
    steps: int

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        return self.scene.draw(n, gen)


def scene(point: Point) -> Refined:
    """Points hold channel (a scenario's name), hops and steps."""
    channel = str(point["channel"])
    return Refined(hhat.scenario(channel, hops=point["hops"], snr_db=SNR_DB[channel]), int(point["steps"]))


def refinement(printed: bool = False, linear: bool = False) -> Callable[[Refined], Any]:
    """As many steps as the point says, whether or not it converges before."""
    law = Linear() if linear else Free()

    def method(place: Refined) -> Any:
        how = {"successive": printed, "band_phases": printed, "starts": 1 if printed else None}
        return hhat.method("r-tst-music", model=place.scene.model, doppler=law, max_steps=place.steps, tol=-1.0, **how)

    return method


def score(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    """`score_channel`, and how many steps it takes until one changes |y - h|^2 by SETTLED at most; one more than there
    are where none does."""
    trace = estimate.info["objective"].flatten(0, -2)
    settled = trace.diff(dim=-1).abs() <= SETTLED * trace[:, :-1]
    never = torch.ones_like(settled[:, :1])
    first = torch.cat([settled, never], -1).to(torch.int8).argmax(-1)
    return {**score_channel(estimate, slot), COUNT: (first + 1).double(), CONVERGED: settled.any(-1).double()}


EXPERIMENT = Experiment(
    name="extrapolation/fig10",
    title="NMSE of the first stage against steps of R-TST-MUSIC",
    scenario=scene,
    methods={FREE: refinement(), PRINTED: refinement(printed=True), LINEAR: refinement(linear=True)},
    profiles={
        "quick": Profile(grid({"channel": ("srs-paths",), "hops": (2, 4), "steps": STEPS}), blocks=2, block_size=10),
        "full": Profile(grid({"channel": tuple(SNR_DB), "hops": (2, 4), "steps": STEPS}), blocks=10, block_size=10),
    },
    metrics=("nmse_db", "nmse_median_db", COUNT, CONVERGED),
    score=score,
    claims=tuple(
        Level(f"{words} converges within 10 steps", SOURCE, label, low=0.9, at={"steps": MOST}, metric=CONVERGED)
        for label, words in ((FREE, "R-TST-MUSIC"), (PRINTED, "R-TST-MUSIC, as printed,"))
    ),
    note="NMSE over the whole band and all symbols of a channel, mean and median over channels; 2 hops of 250 tones or "
    "4 of 125, every one twice; 10 dB on channels of 5 paths (srs-paths), 15 dB on urban macro cells (srs-uma). As "
    "printed: from the first symbol, only the stronger paths taken off, free phases at the middle of the whole band; "
    f"linear: one Doppler shift per path. Converged: a step changes |y - h|^2 by {SETTLED:g} of it at most.",
    example=False,
)
