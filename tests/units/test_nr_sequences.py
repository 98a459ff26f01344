"""Pseudo-random bits and low-PAPR sequences of TS 38.211 against published values and what they are known to do."""

import cmath
import math

import pytest
import torch

from hhat.nr.sequences import base_sequence, gold, shifted
from hhat.nr.tables import PHASE


def test_gold_sequences_known_elsewhere():
    # first 48 bits from Sionna 2.0, generate_prng_seq
    assert "".join(map(str, gold(1023, 48))) == "001111001001101101101100110100001011111010001110"
    assert "".join(map(str, gold(12345, 48))) == "011001100110001111110100110100000001100011010000"
    assert gold(1023, 20) == gold(1023, 48)[:20]
    with pytest.raises(ValueError, match="c_init"):
        gold(1 << 31, 4)


@pytest.mark.parametrize(
    ("length", "group", "number", "prime", "root"),
    # 36: N / 31 = 1, so the root is u + 1; 204 = 68 blocks of comb 4: s = 6.42 -> 6, 7 and s = 12.84 -> 13, 12
    [
        (36, 0, 0, 31, 1),
        (36, 29, 0, 31, 30),
        (204, 0, 0, 199, 6),
        (204, 0, 1, 199, 7),
        (204, 1, 0, 199, 13),
        (204, 1, 1, 199, 12),
        (72, 4, 0, 71, 11),
        (1632, 0, 0, 1627, 52),
    ],
)
def test_zadoff_chu_roots_by_hand(length, group, number, prime, root):
    made = base_sequence(length, group, number)
    for n in (0, 1, 2, prime - 1, prime, length - 1):
        m = n % prime
        assert cmath.isclose(complex(made[n]), cmath.exp(-1j * math.pi * root * m * (m + 1) / prime), abs_tol=1e-9)


@pytest.mark.parametrize("number", [0, 1])
def test_zadoff_chu_sequences_have_no_side_lobes_and_groups_little_in_common(number):
    """Period 199: periodic autocorrelation 0 at every shift, cross-correlation sqrt(199) for any two groups."""
    all_groups = torch.stack([base_sequence(204, u, number)[:199] for u in range(30)])
    spectra = torch.fft.fft(all_groups)
    correlation = torch.fft.ifft(spectra[:, None] * spectra.conj()).abs()
    own = correlation.diagonal().mT
    torch.testing.assert_close(own[:, 0], torch.full((30,), 199.0, dtype=torch.float64))
    assert own[:, 1:].max() < 1e-9
    other = correlation[~torch.eye(30, dtype=torch.bool)]
    torch.testing.assert_close(other, torch.full_like(other, math.sqrt(199)))


@pytest.mark.parametrize("length", [6, 12, 18, 24, 30, 36, 204, 408, 1632])
def test_modulus_is_one(length):
    for u in (0, 7, 29):
        made = base_sequence(length, u)
        assert made.shape == (length,) and made.dtype == torch.complex128
        torch.testing.assert_close(made.abs(), torch.ones(length, dtype=torch.float64))


def test_length_30_by_its_formula():
    for u in range(30):
        want = [cmath.exp(-1j * math.pi * (u + 1) * (n + 1) * (n + 2) / 31) for n in range(30)]
        torch.testing.assert_close(base_sequence(30, u), torch.tensor(want, dtype=torch.complex128))


def test_short_tables_have_the_shape_and_the_low_peaks_they_were_searched_for():
    """A wrong entry shows: of all single changes of an entry in length 24, most raise the peak above the bound."""

    def peaks_db(phase: torch.Tensor) -> torch.Tensor:
        x = torch.polar(torch.ones_like(phase), phase * math.pi / 4)
        envelope = torch.fft.ifft(x, 16 * x.shape[-1]).abs().square()
        return 10 * (envelope.amax(-1) / envelope.mean(-1)).log10()

    for length, bound in {6: 3.8, 12: 2.8, 18: 2.85, 24: 2.75}.items():
        table = torch.tensor(PHASE[length], dtype=torch.float64)
        assert table.shape == (30, length) and set(table.flatten().tolist()) == {-3, -1, 1, 3}
        assert table.unique(dim=0).shape == (30, length)
        assert peaks_db(table).max() < bound
    changed = torch.tensor(PHASE[24], dtype=torch.float64)[:, None].repeat(1, 24, 1)
    places = torch.arange(24)
    changed[:, places, places] = (changed[:, places, places] + 5) % 8 - 3
    assert (peaks_db(changed) > 2.75).double().mean() > 0.9
    # rows as printed
    assert PHASE[6][0] == (-3, -1, 3, 3, -1, -3) and PHASE[6][15] == (1, 1, 1, -1, 3, -3)
    assert PHASE[12][0] == (-3, 1, -3, -3, -3, 3, -3, -1, 1, 1, 1, -3)
    assert PHASE[18][29] == (-3, 3, 1, -1, -1, -1, -1, 1, -1, 3, 3, -3, -1, 1, 3, -1, 3, -1)
    assert PHASE[24][18][:8] == (-3, 1, -3, 1, -3, -3, 1, -3)


@pytest.mark.parametrize(("length", "shifts"), [(24, 8), (204, 12), (408, 8), (102, 6), (6, 6)])
def test_cyclic_shifts_are_orthogonal(length, shifts):
    base = base_sequence(length, 3)
    rows = torch.stack([shifted(base, i, shifts) for i in range(shifts)])
    torch.testing.assert_close(rows @ rows.mH, length * torch.eye(shifts, dtype=torch.complex128))


def test_a_cyclic_shift_is_a_delay():
    x = base_sequence(204, 5)
    late = torch.fft.ifft(shifted(x, 3, 12))
    torch.testing.assert_close(late, torch.fft.ifft(x).roll(-3 * 204 // 12))


@pytest.mark.parametrize(
    ("call", "told"),
    [((35, 0), "length"), ((48, 30), "group"), ((48, 0, 1), "number"), ((72, 0, 2), "number"), ((9, 0), "length")],
)
def test_wrong_calls_say_what_was_expected(call, told):
    with pytest.raises(ValueError, match=told):
        base_sequence(*call)
