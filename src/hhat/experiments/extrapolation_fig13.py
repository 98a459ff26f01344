"""extrapolation/fig13: every band part at the symbols that sound the first."""

from hhat.bench.claims import Trend
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import extrapolation
from hhat.experiments import extrapolation_course as course

POINTS = grid({"hops": (4,), "snr_db": (5.0, 15.0, 25.0)})
MORE = grid({"hops": (4,), "snr_db": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)})
PART = "part_nmse_db"

EXPERIMENT = Experiment(
    name="extrapolation/fig13",
    title="NMSE of each band part against SNR at the symbols that sound the first, 4 hops",
    scenario=course.scenario,
    methods=course.METHODS,
    profiles={
        "quick": Profile(POINTS, blocks=2, block_size=4, methods=("sliding-joint-ml", "path-ekf", "ls-hold")),
        "full": Profile(MORE, blocks=10, block_size=4),
    },
    metrics=(PART,),
    example=False,
    claims=(
        *(
            Trend(
                "the error grows from the band part sounded to the one farthest away",
                f"{extrapolation.PAPER}, Fig. 13",
                method=label,
                over="band_part",
                rises=True,
                metric=PART,
            )
            for label in (extrapolation.PROPOSED, "sliding-joint-ml")
        ),
    ),
    note=course.NOTE + " Here of each band part, 0 being the one sounded at the symbols that count.",
)
