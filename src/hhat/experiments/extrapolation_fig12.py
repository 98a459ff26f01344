"""extrapolation/fig12: the first band part, symbol by symbol."""

from hhat.bench.claims import Ordering, Words
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import extrapolation
from hhat.experiments import extrapolation_course as course

SOURCE = f"{extrapolation.PAPER}, Fig. 12"
POINTS = grid({"hops": (2, 4), "snr_db": (15.0,)})
FIRST = "first_part_nmse_db"

EXPERIMENT = Experiment(
    name="extrapolation/fig12",
    title="NMSE of the first band part against symbols, in tracking",
    scenario=course.scenario,
    methods=course.METHODS,
    profiles={
        "quick": Profile(POINTS, blocks=2, block_size=4, methods=("sliding-joint-ml", "path-ekf", "ls-hold")),
        "full": Profile(POINTS, blocks=10, block_size=4),
    },
    metrics=(FIRST,),
    example=False,
    claims=(
        *(
            Ordering(
                "the proposed tracker has the lowest error",
                SOURCE,
                methods=(extrapolation.PROPOSED, other),
                metric=FIRST,
            )
            for other in (extrapolation.NO_M_STEP, extrapolation.HOLD)
        ),
        Words(
            "the error swings with the period of the hops, most without the M-step",
            SOURCE,
            "the size of the swing is not reported as a number",
        ),
    ),
    note=course.NOTE + " Here of the first band part alone, whichever part is sounded.",
)
