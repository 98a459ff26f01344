"""isac/fig3: sensing against the probability of a false alarm. Claims only."""

from hhat.bench.claims import Ordering, Words
from hhat.bench.experiment import Experiment
from hhat.experiments import isac

SOURCE = f"{isac.PAPER}, Fig. 3"
LEARNED = ("loss-14", "loss-15")

EXPERIMENT = Experiment(
    name="isac/fig3",
    title="Detection and position error against false alarms, 64 antennas, 256 subcarriers, 15 dB",
    metrics=("e0", "detection_probability", "position_rmse_m", "position_rmse_in_cell_m"),
    claims=(
        *(
            Ordering(
                "without calibration fewer targets are detected",
                SOURCE,
                methods=(label, "ones"),
                metric="detection_probability",
                higher_is_better=True,
            )
            for label in ("known", *LEARNED)
        ),
        *(
            Ordering(
                "without calibration positions are worse", SOURCE, methods=(label, "ones"), metric="position_rmse_m"
            )
            for label in ("known", *LEARNED)
        ),
        Words(
            "calibration by either loss, of its eqs. (14) and (15), gives nearly the same, close to known gains and "
            "phases",
            SOURCE,
            "'nearly' and 'close' are not numbers",
        ),
    ),
    waits_for=isac.WAITS_FOR,
)
