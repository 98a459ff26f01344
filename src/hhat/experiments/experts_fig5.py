"""experts/fig5: one profile has a tenth of the training channels of the others. Claims only."""

from hhat.bench.claims import Ordering, Words
from hhat.bench.experiment import Experiment
from hhat.experiments import experts

SOURCE = f"{experts.PAPER}, Fig. 5"

EXPERIMENT = Experiment(
    name="experts/fig5",
    title="NMSE against SNR on the profile that is scarce in training: 1,000 channels beside 10,000 of each other",
    claims=(
        Ordering(
            "the mixture of experts is ahead of one diffusion model on the scarce profile, each of A, B, C and D",
            SOURCE,
            methods=(experts.PROPOSED, experts.SINGLE),
        ),
        Words(
            "it is ahead by more than 5 dB on CDL-D and by nearly 4 dB on CDL-B",
            SOURCE,
            "at which SNR is not known to us",
        ),
    ),
    note="Estimators without training do not see the difference: for them these are the rows of experts/fig4.",
    waits_for=experts.WAITS_FOR,
)
