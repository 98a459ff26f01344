"""impairments/fig7: how many rounds between channel and impairments are needed."""

from hhat.bench.claims import Ordering, Trend, Words
from hhat.bench.experiment import Experiment, Measurement, Profile, grid, score_nothing
from hhat.experiments import impairments
from hhat.experiments.impairments_fig6 import scenario

SOURCE = f"{impairments.PAPER}, Fig. 7"
FROZEN = impairments.FAMILY[-1]

EXPERIMENT = Experiment(
    name="impairments/fig7",
    title="NMSE of the signal without distortion against rounds",
    scenario=scenario,
    methods={
        FROZEN: lambda course: Measurement(impairments.by_round),
        **{label: impairments.by_compensator(label) for label in (*impairments.COMPENSATORS, "none")},
    },
    profiles={
        "quick": Profile(grid({"snr_db": (20.0,)}), blocks=1, block_size=4),
        "full": Profile(grid({"snr_db": (20.0, 30.0)}), blocks=15, block_size=4),
    },
    metrics=(impairments.SIGNAL,),
    score=score_nothing,
    example=False,
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
    note=f"{impairments.NOTE} A round is one inversion of the chains and one update of the channel; 1 to 5 of them "
    "in every slot, each a run of its own. Compensators have no rounds.",
)
