"""extrapolation/fig11: full-band error symbol by symbol, both stages."""

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import extrapolation
from hhat.experiments import extrapolation_course as course

SOURCE = f"{extrapolation.PAPER}, Fig. 11"
POINTS = grid({"hops": (2, 4), "snr_db": (15.0,)})

EXPERIMENT = Experiment(
    name="extrapolation/fig11",
    title="Full-band NMSE of both stages, 2 and 4 hops",
    scenario=course.scenario,
    methods=course.METHODS,
    profiles={
        "quick": Profile(POINTS, blocks=2, block_size=4, methods=course.QUICK),
        "full": Profile(POINTS, blocks=10, block_size=4),
    },
    metrics=(*course.STAGES, "seconds_per_symbol", "nmse_db", "variance_ratio"),
    example=False,
    claims=(
        Ordering(
            "in the first stage R-TST-MUSIC is well ahead of TST-MUSIC symbol by symbol",
            SOURCE,
            methods=("r-tst-music", "tst-music"),
            metric="stage1_nmse_db",
        ),
        Ordering(
            "in tracking the proposed method is ahead of itself without its M-step",
            SOURCE,
            methods=(extrapolation.PROPOSED, extrapolation.NO_M_STEP),
            metric="tracking_nmse_db",
        ),
        Ordering(
            "even without its M-step it is ahead of band parts tracked one by one",
            SOURCE,
            methods=(extrapolation.NO_M_STEP, extrapolation.HOLD),
            metric="tracking_nmse_db",
        ),
    ),
    note=course.NOTE + " nmse_db and variance_ratio (true over reported error) run along the symbols.",
)
