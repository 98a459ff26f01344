"""extrapolation/fig12: the first band part, symbol by symbol. Claims only."""

from hhat.bench.claims import Ordering, Words
from hhat.bench.experiment import Experiment
from hhat.experiments import extrapolation

SOURCE = f"{extrapolation.PAPER}, Fig. 12"

EXPERIMENT = Experiment(
    name="extrapolation/fig12",
    title="NMSE of the first band part against symbols, in tracking",
    claims=(
        *(
            Ordering("the proposed tracker has the lowest error", SOURCE, methods=(extrapolation.PROPOSED, other))
            for other in (extrapolation.NO_M_STEP, extrapolation.HOLD)
        ),
        Words(
            "the error swings with the period of the hops, most without the M-step",
            SOURCE,
            "the size of the swing is not reported as a number",
        ),
    ),
    waits_for=extrapolation.WAITS_FOR,
)
