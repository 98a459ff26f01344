"""xl-mimo/clusters: paths, coefficients and both together, on channels of points, of clusters, and of CDL profiles."""

from typing import Any

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment, Point, Profile, grid
from hhat.experiments import xl_mimo as xl
from hhat.scenarios.near_field import NearField

CHANNELS: dict[str, dict[str, Any]] = {
    "points": {},
    "0.3 degrees": {"num_rays": 10, "angle_spread_deg": 0.3, "range_spread_m": 0.1},
    "1 degree": {"num_rays": 10, "angle_spread_deg": 1.0, "range_spread_m": 0.3},
    **{f"CDL-{profile}": {"cdl_profile": profile} for profile in "ABCD"},
}
TIE_DB = -0.1
"""Behind the better half by less is no worse: the gate sometimes opens where it need not"""


def scenario(point: Point) -> NearField:
    return NearField(snr_db=float(point["snr_db"]), **CHANNELS[str(point["channel"])])


def points(snrs: tuple[float, ...]) -> tuple:
    return grid({"channel": tuple(CHANNELS), "snr_db": snrs})


EXPERIMENT = Experiment(
    name="xl-mimo/clusters",
    title="Whole array, 16 pilot slots: paths, coefficients and both, by how diffuse the channel is",
    scenario=scenario,
    methods={
        "hybrid": xl.hybrid,
        "nomp-central": xl.nomp,
        "oamp-central": xl.central(xl.oamp_pattern_coupled),
        "sbl-pattern-coupled-central": xl.central(xl.sbl_pattern_coupled),
        "cnn-sbl-central": xl.central(xl.cnn_sbl),
        "oamp-decentralised": xl.oamp_decentralised,
        "decentralised": xl.as_it_comes,
    },
    profiles={
        "quick": Profile(points((10.0,)), blocks=1, block_size=xl.BLOCK),
        "full": Profile(points((0.0, 10.0)), blocks=10, block_size=xl.BLOCK),
    },
    claims=tuple(
        Ordering(
            "paths with a sparse rest are no worse than the better of the two",
            "prototype, 8 channels",
            methods=("hybrid", half),
            by=TIE_DB,
        )
        for half in ("nomp-central", "oamp-central")
    ),
    note="Clusters: each of 4 paths as 10 rays of equal mean power, normal spreads of angle (as named) and of range "
    "(0.1 and 0.3 m). CDL: clusters, powers and angles of the table, 30 ns. hybrid is nomp-central, and oamp-central "
    "on what it leaves. The network has only ever seen points.",
)
