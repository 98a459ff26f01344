"""impairments/fig6: channel error against SNR, impairments as in training."""

from hhat.bench.claims import Ordering, Trend, Words
from hhat.bench.experiment import Experiment, Point, Profile, grid, score_nothing
from hhat.experiments import impairments
from hhat.experiments.impairments import Course, measured
from hhat.scenarios.impaired_uplink import ImpairedUplink

SOURCE = f"{impairments.PAPER}, Fig. 6"
FROZEN = impairments.FAMILY[-1]
BESIDE = ("bound", *impairments.COMPENSATORS)


def scenario(point: Point) -> Course:
    return Course(ImpairedUplink(snr_db=float(point["snr_db"])), impairments.NUM_SLOTS)


EXPERIMENT = Experiment(
    name="impairments/fig6",
    title="Channel NMSE against SNR with impairments as in training, 64 antennas, 4 pilots",
    scenario=scenario,
    methods={
        FROZEN: measured(FROZEN, BESIDE),
        **{label: measured(label) for label in (*impairments.COMPENSATORS, "none", "bound")},
    },
    profiles={
        "quick": Profile(grid({"snr_db": (10.0, 20.0, 30.0)}), blocks=1, block_size=6),
        "full": Profile(grid({"snr_db": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)}), 10, 6),
    },
    metrics=(
        impairments.CHANNEL,
        "gap_to_bound_db",
        "gain_over_gmp_db",
        "gain_over_gru_db",
        impairments.SIGNAL,
        "seconds_per_slot",
    ),
    score=score_nothing,
    example=False,
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
    note=impairments.NOTE,
)
