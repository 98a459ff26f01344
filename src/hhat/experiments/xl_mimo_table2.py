"""xl-mimo/table2: operations of every method, by formula. Claims only."""

from hhat.bench.claims import Words
from hhat.bench.experiment import Experiment
from hhat.experiments import xl_mimo as xl

EXPERIMENT = Experiment(
    name="xl-mimo/table2",
    title="Operation counts beside measured time",
    metrics=("operations", "channels_per_s"),
    claims=(
        Words(
            "lists how the operations of each method grow with antennas, tones, pilots and iterations",
            f"{xl.PAPER}, Table II",
            "formulas, not measurements; xl-mimo/fig6 measures times",
        ),
    ),
    note="As printed, the count of SBL-GNN leaves out that its graph has an edge for every pair of coefficients.",
    waits_for="operation counts declared by the methods",
)
