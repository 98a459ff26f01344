"""extrapolation/fig13: every band part at the symbols that sound the first. Claims only."""

from hhat.bench.claims import Trend
from hhat.bench.experiment import Experiment
from hhat.experiments import extrapolation

EXPERIMENT = Experiment(
    name="extrapolation/fig13",
    title="NMSE of each band part against SNR at the symbols that sound the first, 4 hops",
    claims=(
        Trend(
            "the error grows from the band part sounded to the one farthest away",
            f"{extrapolation.PAPER}, Fig. 13",
            method=extrapolation.PROPOSED,
            over="band_part",
            rises=True,
        ),
    ),
    waits_for=extrapolation.WAITS_FOR,
)
