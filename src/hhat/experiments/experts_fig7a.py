"""experts/fig7a: loss of the package's experts as their training recorded it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.bench.claims import Trend, Words
from hhat.bench.experiment import Bound, Experiment, Point, Profile, score_nothing
from hhat.experiments import experts
from hhat.ops import Identity
from hhat.priors.weights import shipped
from hhat.types import Observation, Slot

SOURCE = f"{experts.PAPER}, Fig. 7(a)"
LEARNED_FROM = 10000
"""Channels of an epoch"""


class Losses(NamedTuple):
    """Loss per complex entry at one check: of the steps since the check before, and of held-out channels."""

    training: float
    held_out: float


@dataclass(frozen=True)
class Curve:
    """What the card of a profile's expert recorded at an epoch."""

    profile: str
    epoch: float

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        """Nothing is drawn: the numbers stand in the card, once."""
        return Slot(
            recorded(self.profile)[self.epoch],
            Observation(torch.zeros(n, 1, dtype=torch.complex64), Identity((1,)), 1.0),
        )


class Loss(Bound):
    """`ratio` is kept as what it is here."""

    def arrays(self, slot: Slot) -> dict[str, Tensor]:
        return {"loss": super().arrays(slot)["ratio"]}


def recorded(profile: str) -> dict[float, Losses]:
    """By epoch."""
    card = shipped(f"diffusion-cdl-{profile.lower()}").card
    batch = card["recipe"]["batch"]
    return {
        round(place["step"] * batch / LEARNED_FROM, 2): Losses(
            *(10 ** (place[f"{n}_db"] / 10) for n in ("train", "valid"))
        )
        for place in card["curve"]
    }


def curve(point: Point) -> Curve:
    return Curve(str(point["profile"]), float(point["epoch"]))


def training(scene: Curve) -> Bound:
    return Loss(lambda slot: torch.tensor([slot.truth.training]))


def held_out(scene: Curve) -> Bound:
    return Loss(lambda slot: torch.tensor([slot.truth.held_out]))


POINTS = tuple({"profile": profile, "epoch": epoch} for profile in experts.PROFILES for epoch in recorded(profile))

EXPERIMENT = Experiment(
    name="experts/fig7a",
    title="Loss of the experts of CDL-A to CDL-D against epoch",
    scenario=curve,
    methods={"diffusion": training, "diffusion-held-out": held_out},
    profiles={name: Profile(POINTS, blocks=1) for name in ("quick", "full")},
    metrics=("loss",),
    score=score_nothing,
    example=False,
    claims=(
        Trend("the loss falls", SOURCE, method="diffusion", over="epoch", metric="loss"),
        Words("it falls fast at first and then stays stable", SOURCE, "neither is reported as a number"),
    ),
    note="Nothing is trained here: these are the curves in the cards of the package's weights, each of one training, "
    "so that no interval stands behind a number and the verdict on a trend is open. E|eps - eps_hat|^2 per complex "
    "entry; 1 is a network that answers zero. diffusion: mean over the training steps since the point before; "
    "held-out: 512 channels that training does not see. An epoch is 10,000 channels. These networks start at the exact "
    "denoiser of independent angular bins, not at 1, and see 10 epochs, not 400: the paper's fast fall is what that "
    "start saves.",
)
