"""impairments/fig9: error of the signal without distortion while the impairments drift. Claims only."""

from hhat.bench.experiment import Experiment
from hhat.experiments import impairments
from hhat.experiments.impairments_drift import ahead_of_compensators, order_within

SOURCE = f"{impairments.PAPER}, Fig. 9"

EXPERIMENT = Experiment(
    name="impairments/fig9",
    title="NMSE of the signal without distortion against slots of drift, 20 dB",
    metrics=(impairments.SIGNAL,),
    claims=(*order_within(impairments.SIGNAL, SOURCE), *ahead_of_compensators(impairments.SIGNAL, SOURCE)),
    waits_for=impairments.WAITS_FOR,
)
