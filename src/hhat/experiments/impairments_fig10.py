"""impairments/fig10: fit of the forward model while the impairments drift. Claims only."""

from hhat.bench.claims import Trend
from hhat.bench.experiment import Experiment
from hhat.experiments import impairments
from hhat.experiments.impairments_drift import order_within

SOURCE = f"{impairments.PAPER}, Fig. 10"

EXPERIMENT = Experiment(
    name="impairments/fig10",
    title="Fit of the forward model against slots of drift, 20 dB",
    metrics=(impairments.FIT,),
    claims=(
        *order_within(impairments.FIT, SOURCE),
        Trend(
            "with two time scales the fit gets better as the drift goes on",
            SOURCE,
            method=impairments.FAMILY[0],
            over="slot",
            metric=impairments.FIT,
        ),
    ),
    note="Compensators have no forward model, and so no such error.",
    waits_for=impairments.WAITS_FOR,
)
