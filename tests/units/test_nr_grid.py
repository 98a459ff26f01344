"""Sounding through a channel and back: exact for one port, told apart by delay for several."""

import math
from types import SimpleNamespace

import pytest
import torch

from hhat import generator
from hhat.extrapolation.model import Offsets, Paths, Sounding, sounded
from hhat.nr import SoundingConfig, received, sequences, transmitted
from hhat.nr.sequences import base_sequence, gold
from hhat.ops import Hops, Identity, Kron
from hhat.random import complex_normal
from hhat.types import Observation


def drawn(config: SoundingConfig, longest_s: float, width: int | None = None) -> SimpleNamespace:
    """3 channels (item, port, rx_ant, subcarrier) of 6 paths; what arrives on 2 antennas in every symbol."""
    gen = generator("nr grid", config.num_ports, config.comb)
    size = width or 12 * config.num_rb
    k = torch.arange(size, dtype=torch.float64) - size // 2
    delay = torch.rand(3, config.num_ports, 6, generator=gen, dtype=torch.float64) * longest_s
    gain = complex_normal((3, config.num_ports, 2, 6), gen, torch.complex128, 1 / 6)
    turn = -2 * math.pi * delay[..., None] * k * config.subcarrier_spacing_hz
    h = gain @ torch.polar(torch.ones_like(turn), turn)
    sent = transmitted(config, 1, width, torch.complex128)
    offset = size // 2 - 6 * config.num_rb
    return SimpleNamespace(h=h, grid=torch.einsum("npak,psk->nask", h, sent), gen=gen, offset=offset)


def truth(made: SimpleNamespace, tones: torch.Tensor) -> torch.Tensor:
    """(item, port, rx_ant, symbol, tone) at (port, symbol, tone)."""
    index = (tones + made.offset)[None, :, None].expand(made.h.shape[0], -1, made.h.shape[2], -1, -1)
    return made.h[..., None, :].expand(*index.shape[:-1], -1).gather(-1, index)


@pytest.mark.parametrize("width", [None, 4096, 4095])
def test_one_port_gives_the_channel_back(width):
    config = SoundingConfig(num_symbols=4, l_offset=5, repetition=2, group_or_sequence_hopping="groupHopping", n_id=77)
    made = drawn(config, 2e-6, width)
    out = received(made.grid, config, 1)
    assert out.y.shape == (3, 1, 2, 4, 204)
    torch.testing.assert_close(out.y, truth(made, out.tones))
    assert torch.equal(out.noise_gain, torch.ones(1, 204, dtype=torch.float64))
    # second occasion: hops 2 and 3, twice each
    assert (out.tones[0, :, 0] // 12).tolist() == [68, 68, 204, 204]


def test_what_is_sent():
    config = SoundingConfig(num_ports=2, num_symbols=2, l_offset=3, comb_offset=1)
    grid = transmitted(config, 0)
    assert grid.shape == (2, 14, 12 * 273) and grid.dtype == torch.complex64
    power = grid.abs().square()
    # all ports together send one unit on each sounded tone
    assert power.sum((0, 2)).tolist() == pytest.approx([0] * 10 + [204] * 2 + [0] * 2, rel=1e-5)
    assert (power[0, 10] > 0).nonzero()[:, 0].tolist() == list(range(1, 12 * 68, 4))
    assert torch.equal(transmitted(config, 0, 4096)[..., 2048 - 6 * 273 : 2048 + 6 * 273], grid)


@pytest.mark.parametrize("t_offset", [0, 3])
def test_group_and_sequence_hopping(t_offset):
    plain = SoundingConfig(n_id=505, num_symbols=2, l_offset=1, t_offset=t_offset)
    assert torch.equal(sequences(plain, 0)[0, 1], base_sequence(204, 505 % 30))
    place = 14 * (10 + t_offset) + 12  # occasion 1: 10 slots on, symbol 12
    settings = {"n_id": 505, "num_symbols": 2, "l_offset": 1, "t_offset": t_offset}
    group = SoundingConfig(**settings, group_or_sequence_hopping="groupHopping")
    bits = gold(505, 8 * 14 * 20)
    for symbol in range(2):
        f_gh = sum(bits[8 * (place + symbol) + m] * 2**m for m in range(8)) % 30
        assert torch.equal(sequences(group, 1)[0, symbol], base_sequence(204, (f_gh + 505) % 30))
        # frames of 20 slots: the same again one frame later, occasion 3
        assert torch.equal(sequences(group, 3), sequences(group, 1))
    number = SoundingConfig(**settings, group_or_sequence_hopping="sequenceHopping")
    for symbol in range(2):
        assert torch.equal(sequences(number, 1)[0, symbol], base_sequence(204, 505 % 30, bits[place + symbol]))
    # below 72 tones there is one sequence in a group
    short = SoundingConfig(**settings, group_or_sequence_hopping="sequenceHopping", c_srs=0, b_srs=0)
    assert torch.equal(sequences(short, 1)[0, 0], base_sequence(12, 505 % 30))


@pytest.mark.parametrize(
    ("settings", "floor_db", "edge_db"),
    # measured 99 to 106 and 72 to 104 dB down with the window; where windows tile the delays, 34 to 41 and 22 to 26
    [
        ({"num_ports": 2}, -95, -90),
        ({"num_ports": 4}, -95, -85),
        ({"num_ports": 4, "comb": 2, "b_srs": 3, "c_srs": 59}, None, None),
        ({"num_ports": 4, "comb": 8}, -95, -85),
        ({"num_ports": 4, "cyclic_shift": 7}, -95, -90),
    ],
)
def test_ports_are_told_apart_by_delay(settings, floor_db, edge_db):
    config = SoundingConfig(**settings)
    made = drawn(config, 0.4e-6)
    tiled = received(made.grid, config, 1)
    known = received(made.grid, config, 1, (0.0, 0.4e-6), 1e-8)
    want = truth(made, tiled.tones)
    scale = want.abs().square().mean()

    def error_db(y, cut):
        return 10 * math.log10((y - want).abs().square()[..., cut : want.shape[-1] - cut].mean() / scale)

    if floor_db is None:  # 4 blocks: 24 tones, windows blur, but they do tell ports apart
        assert error_db(known.y, 0) < -30 and error_db(tiled.y, 0) < -8
        return
    assert error_db(known.y, 20) < floor_db and error_db(known.y, 0) < edge_db
    assert error_db(tiled.y, 20) < -30 and error_db(tiled.y, 0) < -20


def test_windows_that_tile_are_a_matched_filter():
    """Closed form: delay windows next to each other add up to all delays, and the filter is one window's cut."""
    config = SoundingConfig(num_ports=4, b_srs=3)
    made = drawn(config, 0.4e-6)
    out = received(made.grid, config, 1, noise_to_signal=1e-12)
    z = made.grid[..., -1, :].gather(-1, (out.tones[1]).expand(3, 2, -1)) * sequences(config, 1)[1].conj() * 2
    n = torch.arange(12, dtype=torch.float64)
    lag = n[:, None] - n
    cut = torch.sinc(lag / 4) / 4 * torch.exp(-2j * math.pi * lag * (1 / 8 - 1 / 32))
    torch.testing.assert_close(out.y[:, 1, :, 0], z @ cut.mT)


@pytest.mark.parametrize("cyclic_shift", [1, 8])
def test_the_filter_is_the_mean_square_optimum_over_all_ports_at_once(cyclic_shift):
    """Dense: every port's channel stacked, its law on the window, what all of them send; E x y^H (E y y^H)^-1 y."""
    config = SoundingConfig(num_ports=4, b_srs=3, cyclic_shift=cyclic_shift)
    made = drawn(config, 0.4e-6)
    window, noise = (-0.1e-6, 0.5e-6), 0.03
    out = received(made.grid, config, 1, window, noise)
    sent = transmitted(config, 1, dtype=torch.complex128)[:, -1]
    used = (sent != 0).any(0).nonzero()[:, 0]
    delays = torch.linspace(*window, 4001, dtype=torch.float64)  # the window's mean by a sum over delays
    angle = -2 * math.pi * used[:, None] * config.subcarrier_spacing_hz * delays
    law = torch.polar(torch.ones_like(angle), angle)
    law = law @ law.mH / 4001
    both = sum(torch.diag(s) @ law @ torch.diag(s).mH for s in sent[:, used])
    both = both + noise * torch.eye(len(used))
    for port in range(4):
        mine = (sent[port, used] != 0).nonzero()[:, 0]
        weight = (law @ torch.diag(sent[port, used]).mH)[mine] @ torch.linalg.inv(both)
        torch.testing.assert_close(out.y[:, port, :, 0], made.grid[..., -1, used] @ weight.mT, rtol=1e-3, atol=1e-3)


def test_noise_gain_is_the_noise_that_comes_out():
    config = SoundingConfig(num_ports=2, b_srs=2, c_srs=13, num_rb=52)
    gen = generator("nr noise", 1)
    noise = torch.zeros(500, 1, 14, 12 * 52, dtype=torch.complex64)
    noise[..., -1, :] = complex_normal((500, 1, 12 * 52), gen)
    out = received(noise, config, 0, (0.0, 1e-6), 1e-2)
    measured = out.y.abs().square().mean((0, 2, 3)).double()
    # 500 draws: 4.5 % a tone; the mean over 36 correlated tones and 2 ports about 1.5 %
    torch.testing.assert_close(measured, out.noise_gain, rtol=0.25, atol=0)
    assert measured.mean().item() == pytest.approx(out.noise_gain.mean().item(), rel=0.06)
    assert out.noise_gain.mean() < 1  # below the grid's noise, though each port has half the power


def test_pilots_enter_the_law_of_hopping_sounding():
    config = SoundingConfig(c_srs=13, b_srs=2, num_rb=52)
    law = Sounding(2, 2, tuple(config.frequency_hz().tolist()), config.period_s)
    gen = generator("nr law", 1)
    paths = Paths(
        complex_normal((5, 3), gen, torch.complex128),
        torch.rand(5, 3, generator=gen, dtype=torch.float64) * 1e-6,
        torch.rand(5, 3, 2, generator=gen, dtype=torch.float64) - 0.5,
        torch.randn(5, 3, generator=gen, dtype=torch.float64) * 5,
        torch.ones(5, 3, dtype=torch.bool),
    )
    times = config.period_s * torch.arange(config.hops)
    zero = torch.zeros(5, config.hops, dtype=torch.float64)
    h = law.channel(paths, Offsets(zero, zero), times.double())
    y = []
    for occasion in range(config.hops):
        grid = torch.zeros(5, 4, 14, 12 * 52, dtype=torch.complex128)
        sent = transmitted(config, occasion, dtype=torch.complex128)[0]
        grid[..., config.band()] = sent[:, config.band()] * h[:, :, None, occasion]
        y.append(received(grid, config, occasion).y[:, 0, :, 0])
    op = Kron(Identity((4,)), Hops(config.hop_index(config.hops), len(config.band())))
    pilots = sounded(law, Observation(torch.stack(y, -2), op, 0.1))
    torch.testing.assert_close(pilots.y, op @ h)
    assert pilots.index.shape == (4, config.sequence_length)


def test_wrong_grids_and_windows_say_what_was_expected():
    config = SoundingConfig(num_ports=2)
    with pytest.raises(ValueError, match="14 symbols"):
        received(torch.zeros(1, 12, 3276, dtype=torch.complex64), config, 0)
    with pytest.raises(ValueError, match="3276 subcarriers"):
        received(torch.zeros(1, 14, 3275, dtype=torch.complex64), config, 0)
    with pytest.raises(ValueError, match="3276 subcarriers"):
        transmitted(config, 0, 2048)
    for window in ((0.0, 5e-6), (1e-6, 0.0)):
        with pytest.raises(ValueError, match=r"at most 4\.17e-06 s for 2 ports"):
            received(torch.zeros(1, 14, 3276, dtype=torch.complex64), config, 0, window)
    with pytest.raises(ValueError, match="noise_to_signal"):
        received(torch.zeros(1, 14, 3276, dtype=torch.complex64), config, 0, None, -1.0)
