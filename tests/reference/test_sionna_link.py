"""An uncoded Sionna OFDM uplink with hhat's estimators where Sionna's stand: same bits, channels and noise for all.

One transmitter, four receive antennas, 14 x 76 grid, two pilot symbols, TDL-C with correlated antennas, 16-QAM, LMMSE
equaliser. Sionna's LMMSE and hhat's joint LMMSE get the same true covariances; hhat's default gets none.
"""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from hhat.sionna import ChannelEstimator

phy = pytest.importorskip("sionna.phy", reason="sionna-no-rt is not installed")
pytest.importorskip("sionna.phy.ofdm")

GRIDS, ANTENNAS, SYMBOLS, TONES, BITS = 48, 4, 14, 76, 4
SPACING_HZ, CARRIER_HZ, SPEED, DELAY_SPREAD_S = 30e3, 3.5e9, 15.0, 200e-9
SEED = 7


class Outcome(NamedTuple):
    """Per grid: squared error over energy, bit error rate; and reported over true error, over all grids."""

    nmse: Tensor
    ber: Tensor
    calibration: float


def run_link(ebno_db: float) -> dict[str, Outcome]:
    from sionna.phy.channel import OFDMChannel
    from sionna.phy.channel.tr38901 import TDL
    from sionna.phy.mapping import BinarySource, Demapper, Mapper
    from sionna.phy.mimo import StreamManagement
    from sionna.phy.ofdm import (
        LMMSEChannelEstimator,
        LMMSEEqualizer,
        LSChannelEstimator,
        ResourceGrid,
        ResourceGridMapper,
        tdl_freq_cov_mat,
        tdl_time_cov_mat,
    )

    phy.config.seed = SEED  # Sionna draws from a generator of its own; nothing else here does
    grid = ResourceGrid(
        SYMBOLS, TONES, SPACING_HZ, cyclic_prefix_length=6,
        pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11],
    )  # fmt: skip
    lag = torch.arange(ANTENNAS)[:, None] - torch.arange(ANTENNAS)
    space = torch.polar(0.8 ** lag.abs(), 0.9 * lag)
    time = tdl_time_cov_mat("C", SPEED, CARRIER_HZ, grid.ofdm_symbol_duration, SYMBOLS)
    freq = tdl_freq_cov_mat("C", SPACING_HZ, TONES, DELAY_SPREAD_S)
    tdl = TDL("C", DELAY_SPREAD_S, CARRIER_HZ, min_speed=SPEED, max_speed=SPEED, num_rx_ant=ANTENNAS, rx_corr_mat=space)
    channel = OFDMChannel(tdl, grid, return_channel=True)
    mapper, demapper = Mapper("qam", BITS), Demapper("app", "qam", BITS, hard_out=True)
    equalizer = LMMSEEqualizer(grid, StreamManagement(np.array([[1]]), 1))

    no = torch.tensor(10 ** (-ebno_db / 10) / BITS)
    bits = BinarySource()([GRIDS, 1, 1, grid.num_data_symbols * BITS])
    y, h = channel(ResourceGridMapper(grid)(mapper(bits)), no)
    h = h.reshape(GRIDS, ANTENNAS, SYMBOLS, TONES)
    estimators = {
        "sionna ls": LSChannelEstimator(grid),
        "sionna ls linear": LSChannelEstimator(grid, interpolation_type="lin"),
        "sionna lmmse t-f-s": LMMSEChannelEstimator(grid, time, freq, space, order="t-f-s"),
        "sionna lmmse f-t-s": LMMSEChannelEstimator(grid, time, freq, space, order="f-t-s"),
        "hhat joint lmmse": ChannelEstimator(grid, cov_mat_time=time, cov_mat_freq=freq, cov_mat_space=space),
        "hhat default": ChannelEstimator(grid),
    }
    found = {}
    for name, estimator in estimators.items():
        h_hat, err_var = estimator(y, no)
        symbols, no_eff = equalizer(y, h_hat, err_var, no)
        wrong = (demapper(symbols, no_eff) != bits).float().flatten(1).mean(1)
        error = (h_hat.reshape(h.shape) - h).abs().square()
        nmse = error.sum((1, 2, 3)) / h.abs().square().sum((1, 2, 3))
        found[name] = Outcome(nmse.double(), wrong.double(), float(err_var.mean() / error.mean()))
    return found


@pytest.mark.parametrize("ebno_db", [0.0, 10.0])
def test_uplink_with_hhat_in_the_place_of_sionnas_estimator(ebno_db: float) -> None:
    found = run_link(ebno_db)
    for name, outcome in found.items():
        nmse_db, ber = 10 * math.log10(outcome.nmse.mean()), float(outcome.ber.mean())
        print(f"{ebno_db:5.1f} dB  {name:20s} NMSE {nmse_db:7.2f} dB  BER {ber:.5f}  var/err {outcome.calibration:.2f}")
    joint, default = found["hhat joint lmmse"], found["hhat default"]
    for order in ("t-f-s", "f-t-s"):
        theirs = found[f"sionna lmmse {order}"]
        assert joint.nmse.mean() <= theirs.nmse.mean()
        assert not_worse(joint.ber, theirs.ber)
    for plain in ("sionna ls", "sionna ls linear"):
        assert default.nmse.mean() < 0.25 * found[plain].nmse.mean()
        assert default.ber.mean() < found[plain].ber.mean()
    assert joint.calibration == pytest.approx(1, abs=0.1)


def not_worse(mine: Tensor, theirs: Tensor) -> bool:
    """Paired over grids, within two standard errors."""
    difference = mine - theirs
    return float(difference.mean()) <= 2 * float(difference.std()) / math.sqrt(difference.numel())
