"""experts/fig7a: training loss of the experts. Claims only."""

from hhat.bench.claims import Trend, Words
from hhat.bench.experiment import Experiment
from hhat.experiments import experts

SOURCE = f"{experts.PAPER}, Fig. 7(a)"

EXPERIMENT = Experiment(
    name="experts/fig7a",
    title="Training loss against epoch, first 100 epochs, one expert each for CDL-A to CDL-D",
    metrics=("loss",),
    claims=(
        Trend("the loss falls", SOURCE, method="diffusion", over="epoch", metric="loss"),
        Words("it falls fast at first and then stays stable", SOURCE, "neither is reported as a number"),
    ),
    waits_for="the training of the diffusion prior",
)
