"""engine/throughput: channels per second of every method, one by one and in batches, on one and two threads."""

from hhat.bench.experiment import Experiment, Point, Profile, grid, score_nothing
from hhat.experiments import engine_sparse_cdl as sparse
from hhat.experiments.start_demo import METHODS
from hhat.scenarios.cdl import Cdl


def scenario(point: Point) -> Cdl:
    return Cdl(profile="C", num_rx_ant=16, num_tx_ant=64, pilot_ratio=0.6, snr_db=10.0)


EVERY = {
    **METHODS,
    "pcsbl-gamp": sparse.pcsbl_gamp,
    "uamp-sbl": sparse.uamp_sbl,
    "turbo-oamp": sparse.turbo_oamp,
    "em-sbl": sparse.sbl_em,
    "mrf-sbl": sparse.sbl_mrf,
}
"""Beside the demo's: what differs in its loop or its prior. sbl is PC-SBL, auto is oamp with pattern-coupled."""

EXPERIMENT = Experiment(
    name="engine/throughput",
    title="Channels per second at 64 x 16 antennas, 38 pilots, 10 dB",
    scenario=scenario,
    methods=EVERY,
    profiles={
        "quick": Profile(grid({"batch": (1, 64), "threads": (1,)}), blocks=3),
        "full": Profile(grid({"batch": (1, 64, 1024), "threads": (1, 2)}), blocks=3),
    },
    metrics=("channels_per_s",),
    score=score_nothing,
    example=False,
)
