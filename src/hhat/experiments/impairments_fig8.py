"""impairments/fig8: channel error while the impairments drift. Claims only."""

from hhat.bench.experiment import Experiment
from hhat.experiments import impairments
from hhat.experiments.impairments_drift import ahead_of_compensators, order_within

SOURCE = f"{impairments.PAPER}, Fig. 8"

EXPERIMENT = Experiment(
    name="impairments/fig8",
    title="Channel NMSE against slots of drift, 20 dB",
    metrics=(impairments.CHANNEL,),
    claims=(*order_within(impairments.CHANNEL, SOURCE), *ahead_of_compensators(impairments.CHANNEL, SOURCE)),
    waits_for=impairments.WAITS_FOR,
)
