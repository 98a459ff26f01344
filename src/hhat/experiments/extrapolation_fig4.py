"""extrapolation/fig4: why paths are cancelled one by one. Claims only."""

from hhat.bench.claims import Words
from hhat.bench.experiment import Experiment
from hhat.experiments import extrapolation

SOURCE = f"{extrapolation.PAPER}, Fig. 4"

EXPERIMENT = Experiment(
    name="extrapolation/fig4",
    title="Pseudospectrum over delay of two paths, one of them weak",
    claims=(
        Words(
            "a strong path leaves a peak of interference in the pseudospectrum of a weak one, which moves when phase, "
            "timing or Doppler are estimated wrongly",
            SOURCE,
            "one picture, which motivates the cancellation; no number goes with it",
        ),
    ),
    waits_for=extrapolation.WAITS_FOR,
)
