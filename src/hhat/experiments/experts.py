"""What the figures on the mixture of diffusion experts share: its channels, and the estimators without training."""

from hhat.bench.experiment import Point
from hhat.scenarios.cdl import Cdl

PAPER = "Jiang et al. 2026"
WAITS_FOR = "the diffusion prior, its experts and the learned baselines"
SCARCE = "experts-vb-paper-scarce"
"""Label of the paper's algorithm with an expert that has seen a tenth of the channels"""
PROPOSED, SINGLE = "experts-vb-paper", "diffusion-posterior"
"""Labels of the paper's algorithm as printed, and of one diffusion model trained on the channels of all profiles"""
PROFILES = ("A", "B", "C", "D")
BLOCK = 20


def scenario(point: Point) -> Cdl:
    """Fixed horizontal arrays and a random phase of the specular path: the paper says neither."""
    return Cdl(
        profile=str(point["profile"]),
        num_rx_ant=16,
        num_tx_ant=64,
        pilot_ratio=float(point["alpha"]),
        snr_db=float(point["snr_db"]),
    )
