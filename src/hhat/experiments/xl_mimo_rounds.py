"""xl-mimo/rounds: error of `oamp-decentralised` against rounds and bits, for the priors that may sit at the centre."""

from collections.abc import Callable
from typing import Any

import hhat
from hhat.bench.claims import Level
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import xl_mimo as xl
from hhat.experiments.xl_mimo_link import PRICE, Link, link, score_link

ROUNDS = (1, 2, 3, 4, 5, 6, 8, 10, 20, 30)
BITS = (4, 6, 8, 16)
FLOATS = 16
"""Bits that cost less than 0.01 dB"""
POINTS = grid({"bits": BITS, "rounds": ROUNDS})
QUICK = grid({"bits": (4, 6, 8), "rounds": (1, 2, 3, 5, 10)})


def rounds(prior: str) -> Callable[[Link], Any]:
    """As many rounds as the point says, whether or not they converge before."""
    return lambda place: hhat.method(
        "oamp-decentralised",
        prior=hhat.prior(prior, basis=place.scene.basis()),
        num_unit=place.scene.num_unit,
        quantiser=place.quantiser,
        max_steps=place.rounds,
        tol=-1.0,
    )


EXPERIMENT = Experiment(
    name="xl-mimo/rounds",
    title="NMSE against rounds and bits at 10 dB, 4 units, 16 pilot slots",
    scenario=link,
    methods={"pattern-coupled": rounds("pattern-coupled"), "cnn": rounds("cnn")},
    profiles={
        "quick": Profile(QUICK, blocks=2, block_size=xl.BLOCK),
        "full": Profile(POINTS, blocks=20, block_size=xl.BLOCK),
    },
    metrics=("nmse_db", PRICE, "variance_ratio"),
    over=PRICE,
    score=score_link,
    claims=(
        Level(
            "30 rounds with the pattern-coupled prior: -13.4 dB",
            "prototype",
            "pattern-coupled",
            high=-13.2,
            at={"rounds": 30, "bits": FLOATS},
        ),
    ),
    note="Both directions are quantised, bits are per real number; a round goes to all units and back. Where an item's "
    "messages prove too sure a step takes a second round, which the bits count. cnn is trained for 5 steps, one layer "
    "each; from the sixth on its last layer is repeated. Raw pilots at 4 bits cost 8.1 bits per resource element "
    "(xl-mimo/fronthaul): rounds share computation, they do not save fronthaul.",
)
