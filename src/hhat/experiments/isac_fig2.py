"""isac/fig2: the peak of the angle-delay map with and without calibration."""

from collections.abc import Callable

from torch import Tensor

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment, Measurement, Profile
from hhat.experiments import isac
from hhat.sensing.angle_delay import search
from hhat.sensing.detector import position_m
from hhat.types import Slot

SOURCE = f"{isac.PAPER}, Fig. 2"
POINTS = ({"snr_db": 15.0, "false_alarm": 0.01}, {"snr_db": 30.0, "false_alarm": 0.01})
BLOCK = 256


def peaked(gains: isac.Gains) -> Callable[[isac.Trial], Measurement]:
    """The map's largest value and where it lies, for the snapshots with a target; one number each per array."""

    def measure(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
        kappa, status = gains(slot)
        found = search(slot.obs, kappa, refine_steps=isac.REFINE_STEPS)
        here, truth = slot.truth.present[:, 0], slot.truth
        away = position_m(found.u, found.range_m) - position_m(truth.u[:, 0], truth.range_m[:, 0])
        values = {"peak_db": 10 * found.statistic.log10(), "peak_offset_m": away.norm(dim=-1)}
        return {name: value[here].median().reshape(1) for name, value in values.items()}, {status.name: 1}

    return lambda scene: Measurement(measure)


EXPERIMENT = Experiment(
    name="isac/fig2",
    title="Angle-delay map of one echo with known gains and phases, and with none assumed",
    scenario=isac.scenario,
    methods={"known": peaked(isac.known), "ones": peaked(isac.ones)},
    profiles={
        "quick": Profile(POINTS, blocks=20, block_size=BLOCK),
        "full": Profile(POINTS, blocks=100, block_size=BLOCK),
    },
    metrics=("peak_db", "peak_offset_m"),
    example=False,
    claims=(
        Ordering(
            "without calibration the largest value of the map drops",
            SOURCE,
            methods=("known", "ones"),
            metric="peak_db",
            higher_is_better=True,
        ),
        Ordering(
            "without calibration the largest value moves away from the target",
            SOURCE,
            methods=("known", "ones"),
            metric="peak_offset_m",
        ),
    ),
    note="The paper shows one snapshot of one array; here the median over the targets of a block, one array each: the "
    "map's largest value in dB over the mean of noise, and its distance from the target. `hhat.bench.report.echo_map` "
    "draws the map of one snapshot.",
)
