"""isac/fig2: one angle-delay map with and without calibration. Claims only."""

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment
from hhat.experiments import isac

SOURCE = f"{isac.PAPER}, Fig. 2"

EXPERIMENT = Experiment(
    name="isac/fig2",
    title="Angle-delay map of one echo with known gains and phases, and with none assumed",
    metrics=("peak_db", "peak_offset_m"),
    claims=(
        Ordering(
            "without calibration the largest value of the map drops",
            SOURCE,
            methods=("known", "ones"),
            metric="peak_db",
            higher_is_better=True,
        ),
        Ordering(
            "without calibration the largest value moves away from the target",
            SOURCE,
            methods=("known", "ones"),
            metric="peak_offset_m",
        ),
    ),
    note="The paper shows one snapshot of one array.",
    waits_for=isac.WAITS_FOR,
)
