"""impairments/fig7: how many rounds between channel and impairments are needed. Claims only."""

from hhat.bench.claims import Ordering, Trend, Words
from hhat.bench.experiment import Experiment
from hhat.experiments import impairments

SOURCE = f"{impairments.PAPER}, Fig. 7"
FROZEN = impairments.FAMILY[-1]

EXPERIMENT = Experiment(
    name="impairments/fig7",
    title="NMSE of the signal without distortion against rounds, 20 dB",
    metrics=(impairments.SIGNAL,),
    claims=(
        Trend("the error falls from round to round", SOURCE, method=FROZEN, over="round", metric=impairments.SIGNAL),
        Words("it has settled after three rounds", SOURCE, "how well settled is not reported as a number"),
        *(
            Ordering(
                "it lies below that of both compensators", SOURCE, methods=(FROZEN, other), metric=impairments.SIGNAL
            )
            for other in impairments.COMPENSATORS
        ),
    ),
    waits_for=impairments.WAITS_FOR,
)
