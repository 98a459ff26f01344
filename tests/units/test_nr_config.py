"""What a sounding configuration sounds and when, against Table 6.4.1.4.3-1 and the formulas that TS 38.211 prints."""

import math

import pytest
import torch

from hhat.nr import PATTERNS, SoundingConfig, TonePattern, hop_index
from hhat.nr.tables import BANDWIDTH

ROWS = {  # C_SRS: m_SRS,b and N_b, as printed
    0: ((4, 4, 4, 4), (1, 1, 1, 1)),
    9: ((32, 16, 8, 4), (1, 2, 2, 2)),
    13: ((48, 24, 12, 4), (1, 2, 2, 3)),
    25: ((104, 52, 4, 4), (1, 2, 13, 1)),
    31: ((128, 64, 16, 4), (1, 2, 4, 4)),
    36: ((144, 48, 24, 12), (1, 3, 2, 2)),
    49: ((192, 24, 8, 4), (1, 8, 3, 2)),
    55: ((240, 48, 16, 8), (1, 5, 3, 2)),
    57: ((256, 128, 64, 4), (1, 2, 2, 16)),
    60: ((264, 132, 44, 4), (1, 2, 3, 11)),
    61: ((272, 136, 68, 4), (1, 2, 2, 17)),
    62: ((272, 68, 4, 4), (1, 4, 17, 1)),
    63: ((272, 16, 8, 4), (1, 17, 2, 2)),
}


def printed_first_block(config: SoundingConfig, n_srs: int) -> int:
    """sum_b m_SRS,b n_b with F_b by the products that the standard prints."""
    m, n = config.row
    total = config.n_shift
    for b in range(config.b_srs + 1):
        n_b = 4 * config.n_rrc // m[b]
        if config.b_hop < config.b_srs and b > config.b_hop:
            inner = [1, *n[config.b_hop + 1 : b]]  # N_b' of b' = b_hop (as 1) to b - 1
            below, upto = math.prod(inner), math.prod(inner) * n[b]
            if n[b] % 2 == 0:
                n_b += n[b] // 2 * math.floor(n_srs % upto / below) + math.floor(n_srs % upto / (2 * below))
            else:
                n_b += n[b] // 2 * math.floor(n_srs / below)
        total += m[b] * (n_b % n[b])
    return total


def first_blocks(config: SoundingConfig, hops: int) -> list[int]:
    return [int(config.tones(hop)[0]) // 12 for hop in range(hops)]


def test_rows_of_the_bandwidth_table():
    assert len(BANDWIDTH) == 64
    for c_srs, (m, n) in ROWS.items():
        assert BANDWIDTH[c_srs] == (m, n), c_srs
    widths = [row.m_srs[0] for row in BANDWIDTH]
    assert widths == sorted(widths)
    for row in BANDWIDTH:
        assert all(m % 4 == 0 for m in row.m_srs)
        assert all(a == b * k for a, b, k in zip(row.m_srs, row.m_srs[1:], row.n[1:], strict=False))


def test_the_standard_visits_four_parts_as_0_2_1_3():
    two_levels, one_level = SoundingConfig(c_srs=61, b_srs=2), SoundingConfig(c_srs=62, b_srs=1)
    for config in (two_levels, one_level):
        assert first_blocks(config, 5) == [0, 136, 68, 204, 0]
        assert torch.equal(config.hop_index(9, 2), hop_index(816, 4, 11, "nr")[2:])
    # 17 parts, odd: 8 n modulo 17
    assert first_blocks(SoundingConfig(c_srs=63, b_srs=1), 17) == [16 * (8 * n % 17) for n in range(17)]
    # 2 x 3 parts: the halves alternate, thirds move on every second hop
    assert first_blocks(PATTERNS["nr-15khz-264rb-6"], 6) == [0, 132, 44, 176, 88, 220]


def test_hops_by_the_printed_formula_and_all_tones_once_a_cycle():
    for c_srs in range(64):
        for b_srs, b_hop, n_rrc in ((2 if c_srs % 4 else 3, 0, 0), (2, 1, 9), (3, 3, 30)):
            config = SoundingConfig(c_srs=c_srs, b_srs=b_srs, b_hop=b_hop, n_rrc=n_rrc, n_shift=1, comb=2)
            first = torch.tensor([int(config.tones(hop)[0]) for hop in range(config.hops + 1)])
            assert (first // 12).tolist() == [printed_first_block(config, hop) for hop in range(config.hops + 1)]
            # as wide as the level that hopping starts from, every part once, then anew
            width = config.row.m_srs[min(b_hop, b_srs)]
            parts = (first[:-1] - first.min()) // (12 * config.m_srs_rb)
            assert parts.sort()[0].tolist() == list(range(width // config.m_srs_rb)) and first[-1] == first[0]


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_a_cycle_of_a_named_pattern_sounds_every_tone_once(name):
    pattern = PATTERNS[name]
    index = pattern.hop_index(pattern.hops)
    assert torch.equal(index.flatten().sort()[0], torch.arange(pattern.num_tones))
    assert torch.equal(pattern.hop_index(3, pattern.hops), pattern.hop_index(3))
    frequency = pattern.frequency_hz()
    assert frequency.shape == (pattern.num_tones,)
    torch.testing.assert_close(frequency.diff(), torch.full_like(frequency[1:], pattern.tone_spacing_hz))
    assert pattern.period_s == 5e-3


def test_sizes_of_the_named_patterns():
    sizes = {name: (p.num_tones, p.hops, p.tone_spacing_hz) for name, p in PATTERNS.items()}
    assert sizes == {
        "paper-2": (500, 2, 120e3),
        "paper-4": (500, 4, 120e3),
        "nr-30khz-272rb-2": (816, 2, 120e3),
        "nr-30khz-272rb-4": (816, 4, 120e3),
        "nr-15khz-264rb-2": (792, 2, 60e3),
        "nr-15khz-264rb-6": (792, 6, 60e3),
        "nr-15khz-256rb-4": (768, 4, 60e3),
    }
    assert 500 * 120e3 / (12 * 60e3) == pytest.approx(
        83.33, abs=0.01
    )  # blocks of the paper's pattern: no multiple of 4


@pytest.mark.parametrize(
    ("c_srs", "b_srs", "comb", "p_f", "length"),
    # m_SRS x 12 / (K_TC P_F)
    [
        (0, 0, 2, 1, 24),
        (5, 0, 2, 1, 120),
        (0, 0, 4, 1, 12),
        (0, 0, 8, 1, 6),
        (61, 0, 2, 1, 1632),
        (61, 2, 4, 1, 204),
        (61, 2, 2, 4, 102),
    ],
)
def test_lengths(c_srs, b_srs, comb, p_f, length):
    config = SoundingConfig(c_srs=c_srs, b_srs=b_srs, comb=comb, p_f=p_f)
    tones = config.tones(0)
    assert config.sequence_length == length and tones.shape == (length,)
    assert torch.equal(tones, int(tones[0]) + comb * torch.arange(length))


def test_place_in_the_carrier():
    config = SoundingConfig(c_srs=13, b_srs=1, b_hop=1, n_rrc=7, n_shift=5, comb_offset=3)
    # 48 blocks from block 5; 28 blocks on is its second half of 24; fourth subcarrier
    assert int(config.tones(0)[0]) == 12 * (5 + 24) + 3 and config.hops == 1
    assert config.frequency_hz()[0] == (12 * 29 + 3 - 12 * 273 // 2) * 30e3


@pytest.mark.parametrize(
    ("ports", "comb", "shift", "shifts", "combs"),
    [
        (1, 4, 5, [5], [1]),
        (2, 4, 7, [7, 1], [1, 1]),
        (4, 4, 2, [2, 5, 8, 11], [1, 1, 1, 1]),
        (4, 4, 6, [6, 9, 0, 3], [1, 3, 1, 3]),
        (4, 2, 3, [3, 5, 7, 1], [1, 1, 1, 1]),
        (4, 2, 4, [4, 6, 0, 2], [1, 0, 1, 0]),
        (2, 8, 1, [1, 4], [1, 1]),
        (4, 8, 1, [1, 1, 4, 4], [1, 5, 1, 5]),
    ],
)
def test_cyclic_shifts_and_combs_of_ports(ports, comb, shift, shifts, combs):
    config = SoundingConfig(num_ports=ports, comb=comb, cyclic_shift=shift, comb_offset=1)
    assert [config.shift_of(p) for p in range(ports)] == shifts
    assert [config.comb_of(p) for p in range(ports)] == combs
    # no two ports share comb and shift
    assert len(set(zip(shifts, combs, strict=True))) == ports


def test_schedule_counts_hops_over_symbols_slots_and_frames():
    config = SoundingConfig(num_symbols=4, l_offset=5, repetition=2, t_srs=20, t_offset=7)
    seen = config.schedule(0, 60)
    assert seen.slot.tolist() == [7] * 4 + [27] * 4 + [47] * 4
    assert seen.symbol.tolist() == [8, 9, 10, 11] * 3
    assert seen.hop.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    times = config.times_s(seen)
    assert times[0] == pytest.approx((7 + 8 / 14) * 0.5e-3) and (times[4] - times[0]).item() == pytest.approx(10e-3)
    assert config.period_s == pytest.approx(10e-3)
    # 1024 frames of 20 slots, then n_SRS begins anew
    assert config.schedule(1024 * 20, 20).hop.tolist() == [0, 0, 1, 1]
    assert config.schedule(1024 * 20 - 20, 20).hop.tolist() == [2046, 2046, 2047, 2047]
    assert config.schedule(8, 5).slot.shape == (0,)


def test_partial_sounding_fills_the_hops_in_the_standards_order():
    config = SoundingConfig(p_f=4, k_f=1, comb=2, start_rb_hopping=True)
    quarter = 12 * 68 // 4
    parts = [int(config.tones(hop)[0]) % (12 * 68) // quarter for hop in range(17)]
    # k_hop 0, 2, 1, 3, each for a sweep of 4 hops, on top of k_f
    assert parts == [1] * 4 + [3] * 4 + [2] * 4 + [0] * 4 + [1]
    assert config.cycle == 16 and len(config.band()) == 272 * 12 // 2 == config.num_tones
    fixed = SoundingConfig(p_f=4, k_f=1, comb=2)
    assert fixed.cycle == 4 and len(fixed.band()) == 272 * 12 // 2 // 4


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"comb": 3}, "comb: expected one of 2, 4, 8"),
        ({"c_srs": 64}, "c_srs: expected 0..63"),
        ({"comb_offset": 4}, "comb_offset: expected 0..3"),
        ({"cyclic_shift": 6, "comb": 8}, "cyclic_shift: expected 0..5"),
        ({"num_ports": 3}, "num_ports"),
        ({"num_symbols": 3}, "num_symbols"),
        ({"num_symbols": 4, "l_offset": 2}, "l_offset: expected 3..13"),
        ({"num_symbols": 4, "l_offset": 3, "repetition": 3}, "repetition: expected a divisor of num_symbols = 4"),
        ({"t_srs": 7}, "t_srs"),
        ({"t_offset": 10}, "t_offset: expected 0..9"),
        ({"num_rb": 271}, "num_rb = 271"),
        ({"n_shift": 2}, "from block 2 on"),
        ({"p_f": 4, "comb": 8, "b_srs": 3}, "multiple of 6"),
        ({"k_f": 1}, "k_f: expected 0..0"),
        ({"group_or_sequence_hopping": "both"}, "group_or_sequence_hopping"),
        ({"subcarrier_spacing_hz": 45e3}, "subcarrier_spacing_hz"),
    ],
)
def test_wrong_settings_say_what_is_allowed(settings, told):
    with pytest.raises(ValueError, match=told):
        SoundingConfig(**settings)


def test_wrong_tone_patterns_say_what_is_allowed():
    with pytest.raises(ValueError, match="divide"):
        TonePattern(hops=3)
    with pytest.raises(ValueError, match="tone_spacing_hz"):
        TonePattern(tone_spacing_hz=0)
