"""Sounding reference signals on resource grids: what ports send, and what a receiver gets back of their channels."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hhat.nr.config import SUBCARRIERS, SYMBOLS, SoundingConfig
from hhat.nr.sequences import NUM_GROUPS, TWO_IN_A_GROUP, base_sequence, gold, shifted

EARLY = 0.125
"""Share of a port's delay window that lies before delay zero: late clocks and the band's edges smear paths to both
sides, and all but short windows have room."""


class SoundingPilots(NamedTuple):
    """Pilots of one occasion, the sequences taken off: y = h + noise per port and antenna.

    y           (*batch, port, rx_ant, symbol, tone)
    tones       (port, symbol, tone) subcarriers, 0 the carrier's lowest
    noise_gain  (port, tone): noise variance of y over that of the grid. One port on its comb: num_ports (each sends
                one part in num_ports of the power), and white. Several: less, and correlated over tones, because it
                went through the port's delay window
    """

    y: Complex[Tensor, "*batch port rx_ant symbol tone"]
    tones: Int[Tensor, "port symbol tone"]
    noise_gain: Float[Tensor, "port tone"]


def sequences(config: SoundingConfig, occasion: int) -> Complex[Tensor, "port symbol tone"]:
    """r^(p)(k', l'): what each port sends on its tones, unit modulus, complex128.

    Group u = (f_gh + n_id) mod 30 and number v; with groupHopping f_gh = sum_m 2^m c(8 s + m) mod 30, with
    sequenceHopping v = c(s) from length 72 on, s = 14 n_sf + l_0 + l', c initialised with n_id in each frame.
    Source: 3GPP TS 38.211, 6.4.1.4.2.
    """
    rows = []
    start = SYMBOLS * (config.slot(occasion) % config.slots_per_frame) + config.first_symbol
    for place in range(start, start + config.num_symbols):
        group, number = 0, 0
        if config.group_or_sequence_hopping == "groupHopping":
            bits = gold(config.n_id, 8 * SYMBOLS * config.slots_per_frame)[8 * place : 8 * place + 8]
            group = sum(bit << m for m, bit in enumerate(bits)) % NUM_GROUPS
        elif config.group_or_sequence_hopping == "sequenceHopping" and config.length >= TWO_IN_A_GROUP:
            number = gold(config.n_id, SYMBOLS * config.slots_per_frame)[place]
        rows.append(base_sequence(config.length, (group + config.n_id) % NUM_GROUPS, number))
    base = torch.stack(rows)
    return torch.stack([shifted(base, config.shift_of(p), config.cyclic_shifts) for p in range(config.num_ports)])


def transmitted(
    config: SoundingConfig, occasion: int, fft_size: int | None = None, dtype: torch.dtype = torch.complex64
) -> Complex[Tensor, "port symbol subcarrier"]:
    """The grid of one slot that each port sends, 14 symbols; zero where it does not sound.

    Amplitude 1 / sqrt(num_ports) per tone, the standard's with beta_SRS = 1: all ports together send one unit per tone.
    fft_size: width of the grid, the carrier centred in it (subcarrier 6 num_rb at fft_size // 2); None: 12 num_rb.
    Raises ValueError where the carrier does not fit.
    Source: 3GPP TS 38.211, 6.4.1.4.3.
    """
    shift, width = _placed(config, fft_size)
    grid = torch.zeros(config.num_ports, SYMBOLS, width, dtype=torch.complex128)
    rows = grid[:, config.first_symbol : config.first_symbol + config.num_symbols]
    rows.scatter_(-1, _tones(config, occasion) + shift, sequences(config, occasion) / math.sqrt(config.num_ports))
    return grid.to(dtype)


def received(
    grid: Complex[Tensor, "*batch rx_ant symbol subcarrier"],
    config: SoundingConfig,
    occasion: int,
    window_s: tuple[float, float] | None = None,
    noise_to_signal: float = 1e-3,
) -> SoundingPilots:
    """Channels on the sounded tones from a slot's received grid of 14 symbols, the carrier centred in it.

    One port on a comb: y conj(r), exact, noise as white as it was. Ports that share a comb differ by cyclic shifts,
    that is by delay: port i, brought to delay zero, fills its own window of delays while the others fill theirs. They
    are told apart by the linear minimum mean square error filter for channels with evenly spread power on `window_s`,

      h_i = R D_i^H (sum_j D_j R D_j^H + noise_to_signal I)^-1 z,   z = y conj(base sequence), D_i = diag exp(j a_i n)
      R[n, m] = mean over the window of exp(-j 2 pi (n - m) spacing delay)

    This is the matched filter with a delay window where the windows tile all delays, and tends to least squares where
    they leave gaps, which is what makes it sharp: give the window of your channels.

    window_s: first and last delay of a port's channel, seconds; at most 1 / (tone spacing, ports on a comb) long.
              None: all of that, an eighth of it before zero
    noise_to_signal: noise variance of the grid over E|h|^2 of one port
    A cyclic shift counts delays modulo 1 / tone spacing: a longer channel folds over.
    Sionna: y (batch, num_rx, num_rx_ant, num_ofdm_symbols, fft_size) goes in as it is, where its slot has 14 symbols.
    Raises ValueError for another number of symbols, a grid narrower than the carrier, and a window that is too long.
    """
    if grid.shape[-2] != SYMBOLS:
        raise ValueError(
            f"received: expected the {SYMBOLS} symbols of a slot in (*batch, rx_ant, symbol, subcarrier), got "
            f"{tuple(grid.shape)}"
        )
    shift, _ = _placed(config, grid.shape[-1])
    tones = _tones(config, occasion)
    rows = grid[..., config.first_symbol : config.first_symbol + config.num_symbols, :]
    sent = sequences(config, occasion).to(grid.device)
    scale = math.sqrt(config.num_ports)
    found, gains = [], []
    for port in range(config.num_ports):
        mates = [p for p in range(config.num_ports) if config.comb_of(p) == config.comb_of(port)]
        index = (tones[port] + shift).to(grid.device)
        z = rows.gather(-1, index.expand(*rows.shape[:-2], *index.shape)).to(sent.dtype) * sent[port].conj() * scale
        gain = torch.full((config.length,), float(config.num_ports), dtype=torch.float64)
        if len(mates) > 1:
            others = sorted((config.shift_of(p) - config.shift_of(port)) % config.cyclic_shifts for p in mates)
            window = _window(config, len(mates), window_s)
            ridge = noise_to_signal * config.num_ports
            matrix = _filter(config.length, tuple(others), config.cyclic_shifts, *window, ridge).to(z.device)
            z = z @ matrix.mT
            gain = gain * matrix.abs().square().sum(-1).cpu()
        found.append(z)
        gains.append(gain)
    y = torch.stack(found, -4).to(grid.dtype)
    return SoundingPilots(y, tones, torch.stack(gains))


@lru_cache(maxsize=8)
def _filter(
    length: int, shifts: tuple[int, ...], circle: int, first: float, last: float, ridge: float
) -> Complex[Tensor, "tone tone"]:
    """What takes z, the port's own sequence off, to its channel; other ports at these cyclic shifts from it.

    first, last: the delay window in cycles per tone. One port's power is 1.
    """
    n = torch.arange(length, dtype=torch.float64)
    lag = n[:, None] - n
    turn = -2 * math.pi * lag * (first + last) / 2
    law = torch.polar(torch.sinc(lag * (last - first)), torch.zeros_like(lag)) * torch.polar(torch.ones_like(lag), turn)
    total = ridge * torch.eye(length, dtype=law.dtype)
    for shift in shifts:
        total = total + law * torch.polar(torch.ones_like(lag), 2 * math.pi * shift / circle * lag)
    return torch.linalg.solve(total, law.mH).mH


def _window(config: SoundingConfig, ports: int, window_s: tuple[float, float] | None) -> tuple[float, float]:
    """The delay window in cycles per tone."""
    if window_s is None:
        return -EARLY / ports, (1 - EARLY) / ports
    first, last = (delay * config.tone_spacing_hz for delay in window_s)
    # ports at the circle's parts: a window longer than its part would be another port's too
    if not 0 < last - first <= 1 / ports * (1 + 1e-9):
        most = 1 / (ports * config.tone_spacing_hz)
        raise ValueError(
            f"received: window_s: expected (first, last) of a length above 0, at most {most:.3g} s for {ports} ports "
            f"on a comb of {config.tone_spacing_hz:g} Hz, got {window_s}"
        )
    return first, last


def _tones(config: SoundingConfig, occasion: int) -> Int[Tensor, "port symbol tone"]:
    first = config.first_hop(occasion)
    hops = [first + symbol // config.repetition for symbol in range(config.num_symbols)]
    return torch.stack([torch.stack([config.tones(hop, p) for hop in hops]) for p in range(config.num_ports)])


def _placed(config: SoundingConfig, fft_size: int | None) -> tuple[int, int]:
    """The carrier's lowest subcarrier in the grid, and the grid's width."""
    width = SUBCARRIERS * config.num_rb
    size = width if fft_size is None else fft_size
    if size < width:
        raise ValueError(f"sounding: the carrier has {width} subcarriers, the grid {size}")
    return size // 2 - width // 2, size
