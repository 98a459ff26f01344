"""xl-mimo/fig9a: overall estimates against SNR."""

import math

from hhat.bench.claims import Ordering, Words
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import xl_mimo as xl

SOURCE = f"{xl.PAPER}, Fig. 9(a)"
POINTS = grid({"snr_db": xl.SNRS})

EXPERIMENT = Experiment(
    name="xl-mimo/fig9a",
    title="Overall NMSE against SNR, 4 units, 16 pilot slots",
    scenario=xl.near_field,
    methods=xl.OVERALL,
    profiles={
        "quick": Profile(POINTS, blocks=3, block_size=xl.BLOCK, methods=xl.QUICK),
        "full": Profile(POINTS, blocks=xl.PAPER_BLOCKS, block_size=xl.BLOCK, until=xl.UNTIL),
    },
    claims=(
        Ordering(
            "SBL-GNN with refinement stays within about 1 dB of centralised UAMP-SBL",
            SOURCE,
            methods=("uamp-sbl-central", "sbl-gnn-refined"),
            by=-math.inf,
            at_most=1.0,
        ),
        Words(
            "the best of the other methods with refinement is about 2 dB off centralised UAMP-SBL",
            SOURCE,
            "which one, and at which SNR, is not known to us",
        ),
    ),
    note=xl.OVERALL_NOTE,
)
