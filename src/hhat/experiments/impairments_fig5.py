"""impairments/fig5: how the forward model of the impairments is learned. Claims only."""

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment
from hhat.experiments import impairments

EXPERIMENT = Experiment(
    name="impairments/fig5",
    title="Fit of the forward model against epochs, 32 and 64 hidden states",
    metrics=(impairments.FIT,),
    claims=tuple(
        Ordering(
            f"message passing fits faster than Adam and ends lower, {hidden} hidden states",
            f"{impairments.PAPER}, Fig. 5",
            methods=("message-passing", "adam"),
            metric=impairments.FIT,
            at={"hidden": hidden},
        )
        for hidden in (32, 64)
    ),
    note="Faster is taken as: ahead after every epoch.",
    waits_for="the impairments and the training of their forward model",
)
