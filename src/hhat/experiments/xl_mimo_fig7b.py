"""xl-mimo/fig7b: the units' own estimates against the number of pilot slots."""

from hhat.bench.claims import Words
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import xl_mimo as xl

POINTS = grid({"snr_db": (5.0,), "num_slots": xl.SLOTS})

EXPERIMENT = Experiment(
    name="xl-mimo/fig7b",
    title="NMSE of the units' own estimates against pilot slots, 5 dB",
    scenario=xl.units,
    methods=xl.LOCAL,
    profiles={
        "quick": Profile(POINTS, blocks=5, block_size=xl.BLOCK),
        "full": Profile(
            POINTS,
            blocks=xl.PAPER_BLOCKS,
            block_size=xl.BLOCK,
            until=xl.UNTIL,
        ),
    },
    metrics=("nmse_db",),
    score=xl.score_units,
    claims=(
        Words(
            "the estimators of Fig. 7(a) for 12 to 32 pilot slots",
            f"{xl.PAPER}, Fig. 7(b)",
            "no claim of this figure's own is known to us; the rows show whether the order of Fig. 7(a) holds here",
        ),
    ),
    note="One realisation is one channel: the mean over its four units. All know the noise level. With 32 slots a unit "
    "sees as many beams as it has antennas.",
)
