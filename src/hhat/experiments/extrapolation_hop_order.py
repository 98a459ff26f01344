"""extrapolation/hop-order: in which order, and for how many symbols, the band is to be sounded."""

from collections.abc import Callable

from hhat.bench.claims import Ordering, Trend
from hhat.bench.experiment import Bound, Experiment, Point, Profile, grid
from hhat.extrapolation.joint_ml import JointMl
from hhat.methods.base import Method
from hhat.scenarios.srs import Srs
from hhat.scenarios.srs_bounds import sounding_nmse
from hhat.scenarios.srs_paths import SrsPaths

SOURCE = "channel extrapolation, sections 0.1 and 3.3"
HOPS = 4
FEW = grid({"order": ("sequential", "nr"), "symbols": (HOPS, HOPS + 1)})
MORE = grid({"order": ("sequential", "nr"), "symbols": (1, 2, 3, HOPS, HOPS + 1, 6, 2 * HOPS)})


def scenario(point: Point) -> SrsPaths:
    return SrsPaths(
        hops=HOPS, hop_order=str(point["order"]), num_symbols=int(point["symbols"]), snr_db=10.0, num_paths=4
    )


def joint_ml(around: bool) -> Callable[[Srs], Method]:
    return lambda scene: JointMl(scene.model, num_paths=8, around=around)


EXPERIMENT = Experiment(
    name="extrapolation/hop-order",
    title="Full-band NMSE against symbols sounded, 4 hops in order and as TS 38.211 interleaves them",
    scenario=scenario,
    methods={
        "joint-ml": joint_ml(True),
        "joint-ml-paths-alone": joint_ml(False),
        "cramer-rao": lambda scene: Bound(sounding_nmse),
        "cramer-rao-no-priors": lambda scene: Bound(lambda slot: sounding_nmse(slot, priors=False)),
    },
    profiles={
        "quick": Profile(FEW, blocks=2, block_size=20, methods=("joint-ml", "cramer-rao", "cramer-rao-no-priors")),
        "full": Profile(MORE, blocks=10, block_size=20),
    },
    claims=(
        Trend("every symbol more lowers the error", SOURCE, method="joint-ml", over="symbols"),
        Ordering(
            "joint-ml is within 0.7 dB of the bound",
            f"{SOURCE}, oracle 10",
            methods=("cramer-rao", "joint-ml"),
            by=-0.7,
            at_most=0.7,
        ),
    ),
    note="4 paths at least 60 ns apart, 8 x 4 antennas, 500 tones, 10 dB, 3 km/h; n counts channels. cramer-rao: "
    "hybrid, with the priors of Doppler shifts and timing that the estimator has too; an estimator may be below it by "
    "chance. SNR: mean |h|^2 of a channel over band, antennas and symbols, over noise_var.",
)
