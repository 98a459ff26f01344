"""extrapolation/fig14: tracking error over time against SNR. Claims only."""

from hhat.bench.claims import Trend
from hhat.bench.experiment import Experiment
from hhat.experiments import extrapolation

SOURCE = f"{extrapolation.PAPER}, Fig. 14"
METHODS = (extrapolation.PROPOSED, extrapolation.NO_M_STEP, extrapolation.HOLD)
TRACKING = "tracking_nmse_db"

EXPERIMENT = Experiment(
    name="extrapolation/fig14",
    title="NMSE averaged over time against SNR, 2 and 4 hops",
    metrics=(TRACKING,),
    claims=(
        *(Trend("the error falls with SNR", SOURCE, method=label, metric=TRACKING) for label in METHODS),
        *(
            Trend("2 hops are better than 4", SOURCE, method=label, over="hops", rises=True, metric=TRACKING)
            for label in METHODS
        ),
    ),
    waits_for=extrapolation.WAITS_FOR,
)
