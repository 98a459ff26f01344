"""xl-mimo/fig9b: overall estimates against the number of pilot slots."""

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import xl_mimo as xl

POINTS = grid({"snr_db": (5.0,), "num_slots": xl.SLOTS})

EXPERIMENT = Experiment(
    name="xl-mimo/fig9b",
    title="Overall NMSE against pilot slots, 4 units, 5 dB",
    scenario=xl.near_field,
    methods=xl.OVERALL,
    profiles={
        "quick": Profile(POINTS, blocks=2, block_size=xl.BLOCK, methods=xl.QUICK),
        "full": Profile(POINTS, blocks=xl.PAPER_BLOCKS, block_size=xl.BLOCK, until=xl.UNTIL),
    },
    claims=tuple(
        Ordering(
            "with more than 25 pilot slots SBL-GNN with refinement is ahead of centralised UAMP-SBL",
            f"{xl.PAPER}, Fig. 9(b)",
            methods=("sbl-gnn-refined", "uamp-sbl-central"),
            at={"num_slots": slots},
        )
        for slots in xl.SLOTS
        if slots > 25
    ),
    note=xl.OVERALL_NOTE,
)
