"""extrapolation/fig10: how many iterations the refinement takes. Claims only."""

from hhat.bench.claims import Level
from hhat.bench.experiment import Experiment
from hhat.experiments import extrapolation

EXPERIMENT = Experiment(
    name="extrapolation/fig10",
    title="NMSE of the first stage against iterations of R-TST-MUSIC",
    metrics=("stage1_nmse_db", "iterations_to_converge"),
    claims=(
        Level(
            "R-TST-MUSIC converges within 10 iterations",
            f"{extrapolation.PAPER}, Fig. 10",
            method="r-tst-music",
            high=10.0,
            metric="iterations_to_converge",
        ),
    ),
    waits_for=extrapolation.WAITS_FOR,
)
