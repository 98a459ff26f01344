"""extrapolation/fig14: tracking error over time against SNR."""

from hhat.bench.claims import Trend
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import extrapolation
from hhat.experiments import extrapolation_course as course

SOURCE = f"{extrapolation.PAPER}, Fig. 14"
METHODS = (extrapolation.PROPOSED, extrapolation.NO_M_STEP, extrapolation.HOLD)
TRACKING = "tracking_nmse_db"
POINTS = grid({"hops": (2, 4), "snr_db": (5.0, 15.0, 25.0)})
MORE = grid({"hops": (2, 4), "snr_db": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)})

EXPERIMENT = Experiment(
    name="extrapolation/fig14",
    title="NMSE averaged over time against SNR, 2 and 4 hops",
    scenario=course.scenario,
    methods=course.METHODS,
    profiles={
        "quick": Profile(POINTS, blocks=1, block_size=4, methods=("sliding-joint-ml", "path-ekf", "ls-hold")),
        "full": Profile(MORE, blocks=10, block_size=4),
    },
    metrics=course.STAGES,
    example=False,
    claims=(
        *(Trend("the error falls with SNR", SOURCE, method=label, metric=TRACKING) for label in METHODS),
        *(
            Trend("2 hops are better than 4", SOURCE, method=label, over="hops", rises=True, metric=TRACKING)
            for label in METHODS
        ),
    ),
    note=course.NOTE,
)
