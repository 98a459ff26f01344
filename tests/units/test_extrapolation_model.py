"""`Sounding`: the law term by term, its gauges, and what is read off observations and files."""

import cmath
import math

import pytest
import torch

from hhat.extrapolation.model import Offsets, Paths, Sounding, sounded
from hhat.ops import Dense, Hops, Identity, Kron, Select
from hhat.random import complex_normal, generator
from hhat.types import About, Observation

GEN = generator("test", "sounding")
MODEL = Sounding(3, 2, tuple(120e3 * n for n in range(8)), period_s=5e-3)


def drawn(num_paths=2, batch=2, symbols=3):
    real = lambda *shape: torch.rand(*shape, generator=GEN, dtype=torch.float64)  # noqa: E731
    gain = complex_normal((batch, num_paths), GEN, torch.complex128)
    paths = Paths(
        gain,
        1e-6 * real(batch, num_paths),
        real(batch, num_paths, 2) - 0.5,
        20 * real(batch, num_paths) - 10,
        gain.real > -9,
    )
    return paths, Offsets(6 * real(batch, symbols), 1e-8 * real(batch, symbols)), 5e-3 * torch.arange(symbols)


def test_a_channel_is_the_sum_of_its_paths_entry_by_entry():
    paths, offsets, times = drawn()
    h = MODEL.channel(paths, offsets, times.double())
    f, place = MODEL.tones_hz().tolist(), MODEL.positions().tolist()
    for i, a, s, n in ((0, 0, 0, 0), (1, 4, 2, 7), (0, 3, 1, 5)):
        want = 0
        for k in range(2):
            u, v = paths.cosine[i, k].tolist()
            late = float(paths.delay_s[i, k] + offsets.timing_s[i, s])
            cycles = float(paths.doppler_hz[i, k] * times[s]) - f[n] * late + place[a][0] * u + place[a][1] * v
            want += complex(paths.gain[i, k]) * cmath.exp(2j * math.pi * cycles + 1j * float(offsets.phase_rad[i, s]))
        assert abs(complex(h[i, a, s, n]) - want) < 1e-12


def test_a_common_doppler_shift_and_delay_hide_in_phase_and_timing():
    paths, offsets, times = drawn()
    h = MODEL.channel(paths, offsets, times.double())
    moved = paths._replace(doppler_hz=paths.doppler_hz + 3.0, delay_s=paths.delay_s + 2e-8)
    hidden = Offsets(offsets.phase_rad - 2 * math.pi * 3.0 * times, offsets.timing_s - 2e-8)
    assert torch.allclose(MODEL.channel(moved, hidden, times.double()), h, atol=1e-12)


@pytest.mark.parametrize("one", [False, True])
def test_pilots_are_read_off_the_observation(one):
    index = torch.tensor([[0, 1], [2, 3], [4, 5]])
    h = complex_normal((2, 6, 8) if one else (2, 6, 3, 8), GEN)
    op = Kron(Identity((6,)), Select(index[1], 8) if one else Hops(index, 8))
    found = sounded(MODEL, Observation(op.apply(h), op, torch.full(op.out_shape, 0.1)))
    assert found.y.shape == ((2, 6, 1, 2) if one else (2, 6, 3, 2))
    assert float(found.noise_var.max()) == pytest.approx(0.1) and found.noise_var.shape[-3:] == (1, 1, 1)
    assert torch.equal(found.y[1, 2, 0], h[1, 2, 2:4] if one else h[1, 2, 0, :2])


def test_other_operators_and_sizes_are_refused_with_their_names():
    y = complex_normal((2, 6, 8), GEN)
    with pytest.raises(ValueError, match=r"expected Kron\(Identity.*got Kron\(Identity, Dense"):
        sounded(MODEL, Observation(y, Kron(Identity((6,)), Dense(complex_normal((8, 8), GEN)))))
    with pytest.raises(ValueError, match="6 antennas and 8 subcarriers"):
        sounded(MODEL, Observation(y[:, :5], Kron(Identity((5,)), Select(torch.arange(8), 8))))


def test_a_file_tells_the_model_or_it_is_not_one():
    place = MODEL.positions()
    geometry = {"rx_ant": [[x, 0.0, z] for x, z in place.tolist()]}
    constants = {"subcarrier_spacing_hz": 120e3, "sounding_period_s": 5e-3}
    about = About(geometry=geometry, constants=constants, subcarriers=tuple(range(8)))
    assert Sounding.of(about, 6) == MODEL
    assert Sounding.of(About(geometry=geometry, constants=constants), 6) is None
    crooked = {"rx_ant": [[x * x, 0.0, z] for x, z in place.tolist()]}
    assert Sounding.of(About(geometry=crooked, constants=constants, subcarriers=tuple(range(8))), 6) is None


def test_settings_are_checked():
    with pytest.raises(ValueError, match="different frequencies"):
        Sounding(1, 1, (0.0, 0.0))
    with pytest.raises(ValueError, match="columns: expected at least 1"):
        Sounding(0, 1, (0.0,))
