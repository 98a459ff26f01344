"""extrapolation/fig11: full-band error symbol by symbol, both stages. Claims only."""

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment
from hhat.experiments import extrapolation

SOURCE = f"{extrapolation.PAPER}, Fig. 11"

EXPERIMENT = Experiment(
    name="extrapolation/fig11",
    title="Full-band NMSE of both stages, 2 and 4 hops",
    metrics=(
        "stage1_nmse_db",
        "stage1_nmse_median_db",
        "tracking_nmse_db",
        "tracking_nmse_median_db",
        "seconds_per_symbol",
    ),
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
    waits_for=extrapolation.WAITS_FOR,
)
