"""xl-mimo/fig5: what it costs to split the array over more units."""

from hhat.bench.claims import Trend
from hhat.bench.experiment import Experiment, Point, Profile
from hhat.experiments import xl_mimo as xl
from hhat.scenarios.near_field import NearField


def scenario(point: Point) -> NearField:
    """Half as many pilot slots as a unit has antennas: 64 beams in all, however many units share them."""
    num_unit = int(point["num_unit"])
    return NearField(num_unit=num_unit, num_slots=NearField.num_rx_ant // num_unit // 2, snr_db=float(point["snr_db"]))


POINTS = tuple({"num_unit": count, "snr_db": 10.0} for count in (1, 2, 4, 8))

EXPERIMENT = Experiment(
    name="xl-mimo/fig5",
    title="Overall NMSE against the number of units, 64 beams of 128 antennas in all, 10 dB",
    scenario=scenario,
    methods={
        "sbl-pattern-coupled": xl.fused(xl.sbl_pattern_coupled),
        "sbl-mrf": xl.fused(xl.sbl_mrf),
        "uamp-sbl": xl.fused(xl.uamp_sbl),
        "sbl-gnn": xl.fused(xl.sbl_gnn),
        "cnn-sbl": xl.fused(xl.cnn_sbl),
        "sbl-pattern-coupled-central": xl.central(xl.sbl_pattern_coupled),
        "uamp-sbl-central": xl.central(xl.uamp_sbl),
    },
    profiles={
        "quick": Profile(POINTS, blocks=5, block_size=xl.BLOCK),
        "full": Profile(POINTS, blocks=xl.PAPER_BLOCKS, block_size=xl.BLOCK, until=xl.UNTIL),
    },
    claims=(
        Trend(
            "the gap between SBL-GNN at the units and the centralised estimator grows with the number of units",
            f"{xl.PAPER}, Fig. 5",
            method="uamp-sbl-central",
            against="sbl-gnn",
            over="num_unit",
            rises=True,
        ),
    ),
    note="The paper's SNR is not known to us. With one unit local and central are the same problem; -central sees the "
    "pilots of all units. The networks were trained on units of 32 antennas with 16 beams.",
)
