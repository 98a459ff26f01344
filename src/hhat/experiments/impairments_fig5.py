"""impairments/fig5: how the forward model of the impairments is learned. Training is what is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment, Measurement, Point, Profile, grid, score_nothing
from hhat.experiments import impairments
from hhat.nets import residual_recurrent as unit
from hhat.ops import Identity
from hhat.random import generator
from hhat.train.surrogate import pairs, receiver
from hhat.train.surrogate_loop import SurrogateRecipe, learn
from hhat.train.surrogate_steps import Adam, Diagonal, MatrixNormal, Rule, Sequences
from hhat.types import Observation, Slot

SOURCE = f"{impairments.PAPER}, Fig. 5"
EPOCHS, BATCH, NUM_PILOTS, TEST = 5, 100, 10, 1000
CHAINS = 8
"""Of a block: each its own sequences, network and training"""
FEW, PAPERS = 1000, 5000
"""Sequences to learn from"""


class Sets(NamedTuple):
    """Sequences to learn from and to judge by, of CHAINS chains; seed of the weights and of the order of batches."""

    train: Sequences
    test: Sequences
    seed: int


@dataclass(frozen=True)
class Training:
    """Pairs of inner receive chains. Chains are those of one array, each with neighbours on both sides."""

    hidden: int
    sequences: int

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        seed = int(torch.randint(2**31, (), generator=gen))
        # the draw of the test does not depend on how much is learned from
        test, train = (
            pairs(receiver(num_rx_ant=n + 2), n + 2, count, NUM_PILOTS, generator("impairments", purpose, seed))
            for purpose, count in (("test", TEST), ("train", self.sequences))
        )
        learned, judged = (Sequences(*(part[1:-1] for part in known.sequences())) for known in (train, test))
        obs = Observation(torch.zeros(n, 1, dtype=torch.complex64), Identity((1,)), 1.0)
        return Slot(Sets(learned, judged, seed), obs)


def training(point: Point) -> Training:
    return Training(int(point["hidden"]), int(point["sequences"]))


def by(rule: Rule) -> Callable[[Training], Measurement]:
    """NMSE of the fit on the test sequences after every epoch, chain by chain."""

    def build(scene: Training) -> Measurement:
        def measure(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
            sets: Sets = slot.truth
            num = sets.train.inputs.shape[0]
            recipe = SurrogateRecipe(scene.sequences, EPOCHS, BATCH, TEST, NUM_PILOTS, sets.seed)
            found = learn(rule, unit.present(num, (), (), scene.hidden), sets.train, sets.test, recipe)
            return {"fitting_nmse_ratio@epoch:1:1": found.nmse.mT}, {"OK": num}

        return Measurement(measure)

    return build


EXPERIMENT = Experiment(
    name="impairments/fig5",
    title="Fit of the forward model against epochs, 32 and 64 hidden states",
    scenario=training,
    methods={
        "message-passing": by(MatrixNormal()),
        "adam": by(Adam()),
        "diagonal-message-passing": by(Diagonal()),
    },
    profiles={
        "quick": Profile(grid({"hidden": (32, 64), "sequences": (FEW,)}), blocks=1, block_size=CHAINS),
        "full": Profile(grid({"hidden": (32, 64), "sequences": (FEW, PAPERS)}), blocks=8, block_size=CHAINS),
    },
    metrics=(impairments.FIT,),
    score=score_nothing,
    example=False,
    claims=tuple(
        Ordering(
            f"message passing fits faster than Adam and ends lower, {hidden} hidden states",
            SOURCE,
            methods=("message-passing", "adam"),
            metric=impairments.FIT,
            at={"hidden": hidden},
        )
        for hidden in (32, 64)
    ),
    note="Faster is taken as: ahead after every epoch. Training is what is measured here: a chain is one training of "
    "one network, n counts chains, all inner ones of an array (62 of the paper's 64), with sequences, first "
    "weights and order of batches of their own per block of 8. NMSE: |f(y) - distorted|^2 over |distorted|^2 on "
    "1,000 sequences of 10 CN(0, 1) symbols that training does not see. Batches of 100, 5 epochs. sequences 5000 "
    "is the paper's amount, 250 updates; 1000, 50 updates, is what the quick profile affords. message-passing: "
    "weights matrix-normal per block, step length in closed form (docs/methods/impairment-surrogate.md); "
    "diagonal-message-passing: independent weights, damped by 0.1, what follows from the paper's references; "
    "adam: rate 0.01, constant, the better of the schedules tried.",
)
