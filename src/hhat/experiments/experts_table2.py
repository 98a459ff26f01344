"""experts/table2: size, operations and time. Claims only."""

from hhat.bench.claims import Faster, Words
from hhat.bench.experiment import Experiment
from hhat.experiments import experts

SOURCE = f"{experts.PAPER}, Table II"

EXPERIMENT = Experiment(
    name="experts/table2",
    title="Parameters, operations and time per channel over 100 channels",
    metrics=("channels_per_s", "parameters", "operations"),
    claims=(
        Faster("a pass takes far less time than EM-GM-AMP", SOURCE, method=experts.PROPOSED, than="em-gm-amp"),
        Faster("a pass takes far less time than WGAN", SOURCE, method=experts.PROPOSED, than="wgan"),
        Words("a pass takes about as long as one diffusion model", SOURCE, "'about' is not a number"),
    ),
    note="The paper's times are per outer pass.",
    waits_for=experts.WAITS_FOR,
)
