"""Sounding through Sionna: its resource grid, OFDM modulator and demodulator, and a delayed waveform in between."""

import math

import pytest
import torch

from hhat.nr import SoundingConfig, received, transmitted

ofdm = pytest.importorskip("sionna.phy.ofdm", reason="sionna-no-rt is not installed")

FFT, PREFIX, SAMPLES = 1024, 80, 7
"""Width of the grid, cyclic prefix, and the delay of the waveform in samples."""


@pytest.mark.parametrize("ports", [1, 2])
def test_a_delayed_waveform_is_the_delay_that_comes_back(ports):
    config = SoundingConfig(num_rb=52, c_srs=12, b_srs=1, comb=2, num_ports=ports, num_symbols=2, l_offset=3)
    grid = ofdm.ResourceGrid(14, FFT, config.subcarrier_spacing_hz, cyclic_prefix_length=PREFIX)
    assert grid.dc_ind == FFT // 2
    sent = transmitted(config, 2, grid.fft_size)
    # (batch, tx, stream, symbol, subcarrier) -> samples; port p arrives SAMPLES (p + 1) late at rx antenna 0, and with
    # the opposite sign at antenna 1
    waveform = ofdm.OFDMModulator(PREFIX)(sent[None, None])
    arrived = sum(waveform[:, :, p].roll(SAMPLES * (p + 1), -1) for p in range(ports))
    heard = torch.stack([arrived, -arrived], 2)  # (batch, num_rx, num_rx_ant, samples)
    y = ofdm.OFDMDemodulator(FFT, 0, PREFIX)(heard)
    assert y.shape == (1, 1, 2, 14, FFT)
    rate = FFT * config.subcarrier_spacing_hz
    out = received(y, config, 2, (0.0, 1e-6), 1e-6)
    assert out.y.shape == (1, 1, ports, 2, 2, config.sequence_length)
    for port in range(ports):
        tones = out.tones[port].double() - 6 * config.num_rb
        delay = SAMPLES * (port + 1) / rate
        want = torch.exp(-2j * math.pi * tones * config.subcarrier_spacing_hz * delay)
        both = torch.stack([want, -want])
        torch.testing.assert_close(out.y[0, 0, port].to(both.dtype), both, rtol=0, atol=1e-4 if ports == 1 else 3e-3)
