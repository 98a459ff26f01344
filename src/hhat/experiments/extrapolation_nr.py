"""extrapolation/nr: hops that the standard can schedule, 30 kHz with 272 resource blocks and 15 kHz with 264."""

from hhat.bench.experiment import Experiment, Point, Profile, grid
from hhat.experiments import extrapolation_course as course
from hhat.scenarios.srs import PRESETS
from hhat.scenarios.srs_sionna import SrsUma

FEW = grid({"pattern": ("nr-30khz-272rb-2", "nr-30khz-272rb-4"), "snr_db": (15.0,)})
MORE = grid({"pattern": tuple(PRESETS), "snr_db": (15.0,)})
SHORT = ("sliding-joint-ml", "r-tst-music", "tst-music", "ls-hold")
BLOCKS = 3
"""Blocks of twice as many symbols as hops: the first, and two that are tracked"""


def scenario(point: Point) -> SrsUma:
    name = str(point["pattern"])
    return SrsUma(preset=name, snr_db=float(point["snr_db"]), num_symbols=2 * PRESETS[name].cycle * BLOCKS)


EXPERIMENT = Experiment(
    name="extrapolation/nr",
    title="Full-band NMSE of both stages on sounding that TS 38.211 can schedule",
    scenario=scenario,
    methods={name: course.METHODS[name] for name in (*course.QUICK, "genie-hold")},
    profiles={
        "quick": Profile(
            FEW, blocks=1, block_size=4, methods=("sliding-joint-ml", "r-tst-music", "tst-music", "ls-hold")
        ),
        "full": Profile(MORE, blocks=10, block_size=4),
    },
    metrics=(*course.STAGES, "seconds_per_symbol"),
    example=False,
    note="Patterns by name as in hhat.nr.PATTERNS, the number of hops last: comb 4, whole resource blocks, the "
    "standard's order, a hop every 5 ms; tracking is the mean over the two blocks behind the first. Else as "
    "extrapolation/fig11.",
)
