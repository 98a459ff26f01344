"""Small hopping soundings of drawn paths, for the tests of the extrapolation."""

import math

import torch

from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding
from hhat.random import complex_normal

DOPPLER_HZ = 9.73


def sounding(hops=2, symbols=None, order=None, tones=500, columns=8, rows=4, **laws):
    """Model, index (symbol, tone) and times of sequential hops, or of hops in an order of their own."""
    model = Sounding(columns, rows, tuple(120e3 * n for n in range(tones)), **laws)
    symbols, part = symbols or 2 * hops, tones // hops
    order = order or list(range(hops))
    index = torch.stack([torch.arange(part) + part * order[m % hops] for m in range(symbols)])
    return model, index, model.period_s * torch.arange(symbols).double()


def drawn(batch, paths, symbols, gen, apart_s=60e-9):
    """Delays 0.2 to 2 us at least `apart_s` apart, exponential power of 0.5 us, all angles in front."""

    def real(*shape):
        return torch.rand(*shape, generator=gen, dtype=torch.float64)

    # gaps of at least apart_s: draw in what is left of the range, sorted, and spread
    late = (1.8e-6 - (paths - 1) * apart_s) * real(batch, paths).sort(-1).values
    delay = 0.2e-6 + late + apart_s * torch.arange(paths)
    power = torch.exp(-late / 0.5e-6) * 10 ** (0.3 * torch.randn(batch, paths, generator=gen, dtype=torch.float64))
    power = power / power.sum(-1, keepdim=True)
    azimuth, zenith = (2 * real(batch, paths) - 1) * math.pi / 3, math.pi / 2 + 0.3 * (2 * real(batch, paths) - 1)
    cosine = torch.stack([azimuth.sin() * zenith.sin(), zenith.cos()], -1)
    gain = torch.polar(power.sqrt(), 2 * math.pi * real(batch, paths))
    shift = DOPPLER_HZ * torch.cos(2 * math.pi * real(batch, paths))
    phase, timing = 2 * math.pi * real(batch, symbols), torch.randn(batch, symbols, generator=gen).double() * 1e-8
    phase[:, 0] = timing[:, 0] = 0
    return Paths(gain, delay, cosine, shift, torch.ones(batch, paths, dtype=torch.bool)), Offsets(phase, timing)


def heard(model, index, times, paths, offsets, snr_db, gen):
    """The channel (item, rx_ant, symbol, subcarrier) and its pilots; SNR of each item over the whole band."""
    h = model.channel(paths, offsets, times)
    noise = h.abs().square().mean((-1, -2, -3), keepdim=True) * 10 ** (-snr_db / 10)
    y = picked(h, index)
    return h, Sounded(y + complex_normal(tuple(y.shape), gen, torch.complex128) * noise.sqrt(), index, noise)


def picked(h, index):
    return h.gather(-1, index.expand(*h.shape[:-2], *index.shape))
