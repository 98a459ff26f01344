"""impairments/fig11: channel error against SNR after the drift. Claims only."""

from hhat.bench.claims import Ordering, Trend
from hhat.bench.experiment import Experiment
from hhat.experiments import impairments

SOURCE = f"{impairments.PAPER}, Fig. 11"
BEST, *OTHERS = (*impairments.FAMILY, *impairments.COMPENSATORS)

EXPERIMENT = Experiment(
    name="impairments/fig11",
    title="Channel NMSE against SNR over the last 100 of 600 slots of drift",
    claims=(
        *(
            Ordering("tracking with two time scales has the lowest error", SOURCE, methods=(BEST, other))
            for other in OTHERS
        ),
        *(Trend("its lead grows with SNR", SOURCE, method=BEST, against=other, rises=True) for other in OTHERS),
    ),
    waits_for=impairments.WAITS_FOR,
)
