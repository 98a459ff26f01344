"""impairments/fig6: channel error against SNR, impairments as in training. Claims only."""

from hhat.bench.claims import Ordering, Trend, Words
from hhat.bench.experiment import Experiment
from hhat.experiments import impairments

SOURCE = f"{impairments.PAPER}, Fig. 6"
FROZEN = impairments.FAMILY[-1]

EXPERIMENT = Experiment(
    name="impairments/fig6",
    title="Channel NMSE against SNR with impairments as in training, 64 antennas, 4 pilots",
    metrics=(impairments.CHANNEL, "gap_to_bound_db", "gain_over_gmp_db", "gain_over_gru_db"),
    claims=(
        *(
            Ordering(
                "inference with a frozen forward model is ahead of compensating first", SOURCE, methods=(FROZEN, other)
            )
            for other in impairments.COMPENSATORS
        ),
        *(
            Trend("its lead over the compensators grows with SNR", SOURCE, method=FROZEN, against=other, rises=True)
            for other in impairments.COMPENSATORS
        ),
        Words(
            "it nearly reaches the error without impairments at every SNR; compensators leave a large gap",
            SOURCE,
            "'nearly' and 'large' are not numbers; gap_to_bound_db says how much",
        ),
    ),
    waits_for=impairments.WAITS_FOR,
)
