"""xl-mimo/scaling: units of 32 antennas and 16 beams each, from 4 of them to 32."""

import math

import torch
from torch import Tensor

from hhat.bench.experiment import Experiment, Point, Profile, score_channel
from hhat.experiments import xl_mimo as xl
from hhat.scenarios.near_field import NearField
from hhat.types import Estimate, Slot

NUM_UNIT_ANT, NUM_SLOTS = 32, 16
SIZES = (128, 256, 512, 1024)
FLOAT_BITS = 64
"""Of one complex pilot sample that is sent to the centre as it is"""
POINTS = tuple({"num_rx_ant": size, "snr_db": 10.0} for size in SIZES)


def scenario(point: Point) -> NearField:
    size = int(point["num_rx_ant"])
    return NearField(num_rx_ant=size, num_unit=size // NUM_UNIT_ANT, num_slots=NUM_SLOTS, snr_db=float(point["snr_db"]))


def score(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    """And fronthaul_kbit: of one channel, all units, all rounds, both directions; pilots as floats where these are what
    the centre works on."""
    kept, per_sample = score_channel(estimate, slot), estimate.info.get("fronthaul_bits_per_sample", FLOAT_BITS)
    bits = torch.as_tensor(per_sample, dtype=torch.float64) * math.prod(slot.obs.op.out_shape) / 1e3
    return {**kept, "fronthaul_kbit": bits.expand(kept["ratio"].shape).clone()}


METHODS = {
    "cnn-sbl-refined": xl.refined(xl.cnn_sbl),
    "decentralised": xl.as_it_comes,
    "oamp-decentralised": xl.oamp_decentralised,
    "cnn-sbl-central": xl.central(xl.cnn_sbl),
    "hybrid": xl.hybrid,
    "sbl-pattern-coupled-central": xl.central(xl.sbl_pattern_coupled),
}

EXPERIMENT = Experiment(
    name="xl-mimo/scaling",
    title="NMSE, time and fronthaul against the length of the array, 32 antennas and 16 beams a unit, 10 dB",
    scenario=scenario,
    methods=METHODS,
    profiles={
        "quick": Profile(POINTS[:3], blocks=2, block_size=2),
        "full": Profile(POINTS, blocks=10, block_size=2),
    },
    metrics=("nmse_db", "channels_per_s", "fronthaul_kbit", "variance_ratio"),
    score=score,
    example=False,
    note="Paths stay at 10 to 50 m: a longer array is further in the near field. Units run one after the other on one "
    "thread: divided by their number, the time is a unit's, but for the centre's share. benchmarks/xl_scaling.py "
    "measures processor time and memory. 1024 antennas are left to full: one centralised pattern-coupled estimate "
    "takes about a minute there.",
)
