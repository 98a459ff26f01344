"""Scenarios: their law against the tables, closed forms and published numbers; their draws; their refusals."""

import itertools
import math

import pytest
import torch

import hhat
from hhat.ops import Steering
from hhat.scenarios import cdl, cdl_law
from hhat.scenarios.cdl import Cdl
from hhat.scenarios.cdl_tables import PROFILES
from hhat.scenarios.ofdm import Ofdm
from hhat.scenarios.toy import SparseAngular

SMALL = {"num_rx_ant": 4, "num_tx_ant": 12}
SCENARIOS = (Cdl, SparseAngular, Ofdm)


def effective_rank(c):
    return float(c.diagonal().real.sum() ** 2 / c.abs().square().sum())


def rank_at(c, fraction):
    energy = torch.linalg.eigvalsh(c).flip(0).cumsum(0)
    return int((energy < fraction * energy[-1]).sum()) + 1


def sample_covariance(h):
    flat = h.reshape(len(h), -1)
    return flat.mT @ flat.conj() / len(h)


def covariance_score(h, exact, groups=20):
    """(m - 1) / standard error, m the mean over groups of ||C^ - C||^2 over its expectation (E|h|^4 - |C|^2) / n."""
    fourth = h.flatten(1).abs().square().sum(1).square().mean()
    expected = (fourth - exact.abs().square().sum()) / (len(h) // groups)
    ratios = torch.stack([(sample_covariance(g) - exact).abs().square().sum() / expected for g in h.chunk(groups)])
    return float((ratios.mean() - 1) / (ratios.std() / math.sqrt(groups)))


def test_tables_are_normalised_profiles():
    for name, count in zip("ABCDE", (23, 23, 24, 13, 14), strict=True):
        clusters, los = cdl_law.powers(name)
        assert len(clusters) == count and len(los) == (name in "DE")
        power = torch.cat([clusters, los])
        assert float(power.sum()) == pytest.approx(1, abs=1e-12)
        delay = torch.tensor([c.delay for c in PROFILES[name].clusters] + [0.0] * len(los), dtype=torch.float64)
        spread = ((power * delay**2).sum() - (power * delay).sum() ** 2).sqrt()
        assert float(spread) == pytest.approx(1, abs=0.01)  # delays are in units of the rms delay spread


def test_rician_factors_of_d():
    clusters, los = cdl_law.powers("D")
    assert 10 * math.log10(los / clusters[0]) == pytest.approx(13.3, abs=0.01)
    assert 10 * math.log10(los / clusters.sum()) == pytest.approx(9.0, abs=0.05)


@pytest.mark.parametrize("num_ant", [1, 2, 5, 16, 64, 65])
def test_steering_equals_the_operators(num_ant):
    u = torch.linspace(-1, 1, 9)
    built = cdl._steering(u[None], num_ant)[0]
    torch.testing.assert_close(built, Steering.ula(num_ant, u).dense().mT, atol=3e-5, rtol=0)
    torch.testing.assert_close(built, torch.exp(1j * math.pi * u[:, None] * torch.arange(num_ant)), atol=3e-5, rtol=0)


CASES = [
    *itertools.product("ABCDE", ["horizontal", "vertical"], ["fixed"]),
    *itertools.product("AD", ["horizontal"], ["rotated"]),
]


@pytest.mark.parametrize(("profile", "axis", "geometry"), CASES)
def test_draws_follow_the_exact_covariance_and_power(profile, axis, geometry):
    scenario = Cdl(profile=profile, axis=axis, geometry=geometry, **SMALL)
    h = scenario.channels(4000, hhat.generator("law", profile, axis, geometry)).to(torch.complex128)
    exact = scenario.covariance(torch.complex128)
    assert exact.diagonal().real.sub(1).abs().max() < 1e-12
    torch.testing.assert_close(exact, exact.mH)
    assert abs(covariance_score(h, exact)) < 5
    power = h.flatten(1).abs().square().mean(1)
    assert abs(float(power.mean() - 1)) < 5 * float(power.std()) / math.sqrt(len(h))


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_the_covariance_test_sees_a_mirrored_array(axes):
    scenario = Cdl(profile="A", **SMALL)
    h = scenario.channels(4000, hhat.generator("mirror")).to(torch.complex128)
    assert covariance_score(h.flip(axes), scenario.covariance(torch.complex128)) > 20


@pytest.mark.parametrize(
    ("profile", "axis", "effective", "rank"),
    [
        ("A", "horizontal", 78, 159),
        ("B", "horizontal", 347, 420),
        ("C", "horizontal", 81, 130),
        ("A", "vertical", 30, 68),
        ("B", "vertical", 44, 62),
        ("C", "vertical", 35, 51),
    ],
)
def test_degrees_of_freedom_of_2000_samples(profile, axis, effective, rank):
    """diffusion_experts section 2.1, the table; the spread between seeds is 1 to 2 %."""
    c = sample_covariance(Cdl(profile=profile, axis=axis).channels(2000, hhat.generator("rank", profile)))
    assert effective_rank(c) == pytest.approx(effective, rel=0.05)
    assert rank_at(c, 0.9) == pytest.approx(rank, rel=0.04)


def test_constant_line_of_sight_is_a_rank_one_mean():
    scenario = Cdl(profile="D", axis="vertical", los_phase="constant", **SMALL)
    h = scenario.channels(4000, hhat.generator("los"))
    mean, error = h.mean(0), math.sqrt((1 - 0.888) / 4000)
    assert float(mean.abs().square().mean()) == pytest.approx(0.888, abs=5 * error)
    assert abs(complex(mean[0, 0]) - math.sqrt(0.888)) < 5 * error  # phase 0 at antennas 0
    singular = torch.linalg.svdvals(mean)
    assert float(singular[1] / singular[0]) < 5 * error
    random_phase = Cdl(profile="D", axis="vertical", **SMALL).channels(4000, hhat.generator("los"))
    assert float(random_phase.mean(0).abs().square().mean()) < 5 / 4000 * 5


@pytest.mark.parametrize(("profile", "paper"), [("A", -9.87), ("B", -5.11), ("C", -11.76)])
def test_snr_definition_gives_the_published_linear_error(profile, paper):
    """diffusion_experts table 9.1a (alpha 0.6, 10 dB): the exact covariance gains up to 0.4 dB on 4,000 samples."""
    scenario = Cdl(profile=profile)
    c = scenario.covariance()
    a = torch.kron(torch.eye(16), scenario.pilot_matrix().mT.contiguous())
    cross = a @ c
    seen = cross @ a.mH + scenario.noise_var() * torch.eye(len(a))
    explained = (cross.conj() * torch.linalg.solve(seen, cross)).sum().real
    nmse_db = 10 * math.log10(1 - float(explained) / len(c))
    assert paper - 0.6 < nmse_db < paper + 0.1


@pytest.mark.parametrize("scenario", [Cdl(profile="D", snr_db=3.0, pilot_ratio=20, **SMALL), SparseAngular(snr_db=3.0)])
def test_received_block_is_h_x_plus_noise(scenario):
    slot = scenario.draw(500, hhat.generator("block"))
    x = scenario.pilot_matrix()
    noise = slot.obs.y - torch.einsum("brt,tp->brp", slot.truth.h, x)
    assert float(noise.abs().square().mean()) == pytest.approx(scenario.noise_var(), rel=0.02)
    signal = float(torch.einsum("brt,tp->brp", slot.truth.h, x).abs().square().mean())
    assert 10 * math.log10(signal / scenario.noise_var()) == pytest.approx(3.0, abs=0.3)
    assert float(x.abs().square().mean()) == pytest.approx(1, abs=0.1)
    assert slot.obs.axes == ("rx_ant", "tx_ant") and "noise_var" in slot.about.snr_definition


@pytest.mark.parametrize("kind", SCENARIOS)
def test_draws_depend_on_the_given_generator_alone(kind):
    scenario = kind.example(hhat.generator("example"))
    outside = torch.get_rng_state()
    first, again, other = (scenario.draw(3, hhat.generator("draw", k)) for k in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), outside)
    assert torch.equal(first.obs.y, again.obs.y) and torch.equal(first.truth.h, again.truth.h)
    assert not torch.equal(first.truth.h, other.truth.h)
    assert torch.equal(first.obs.op.dense(), other.obs.op.dense())  # the pilots have a seed of their own
    assert first.truth.h.dtype == first.obs.y.dtype == torch.complex64
    assert first.truth.h.shape == (3, *first.obs.op.in_shape)


@pytest.mark.parametrize("kind", SCENARIOS)
def test_slots_are_n_independent_draws(kind):
    slots = list(kind.example(hhat.generator("example")).slots(4, hhat.generator("slots"), links=2))
    assert len(slots) == 4 and all(slot.truth.h.shape[0] == 2 for slot in slots)
    assert not torch.equal(slots[0].truth.h, slots[1].truth.h)


def test_chunks_fill_every_channel(monkeypatch):
    scenario = Cdl(**SMALL)
    monkeypatch.setattr(cdl, "CHUNK_ENTRIES", 3 * 480 * 16)
    h = scenario.channels(7, hhat.generator("chunks"))
    assert bool(torch.isfinite(h.abs()).all()) and bool((h.abs().square().mean((1, 2)) > 0.01).all())
    assert len({complex(v) for v in h[:, 0, 0]}) == 7


def test_pilot_count_is_the_floor():
    assert Cdl(pilot_ratio=1, snr_db=10).num_pilots == 64
    assert Cdl(pilot_ratio=0.6).num_pilots == 38 and Cdl(pilot_ratio=0.3).num_pilots == 19
    assert Cdl(num_tx_ant=100, pilot_ratio=0.29).num_pilots == 29


def test_sparse_angular_is_the_prior_it_claims():
    scenario = SparseAngular(active=0.1)
    slot = scenario.draw(400, hhat.generator("sparse"))
    h, c = slot.truth
    n = torch.arange(16)
    f16 = torch.exp(-2j * math.pi * n[:, None] * n / 16) / 4
    n = torch.arange(64)
    f64 = torch.exp(-2j * math.pi * n[:, None] * n / 64) / 8
    torch.testing.assert_close(h, f16 @ c @ f64.mT, atol=1e-4, rtol=0)
    nonzero = c != 0
    count = c.numel()
    assert abs(float(nonzero.float().mean()) - 0.1) < 5 * math.sqrt(0.09 / count)
    assert float(c[nonzero].abs().square().mean()) == pytest.approx(10, rel=5 / math.sqrt(0.1 * count))
    # circular: E c^2 = 0
    assert float(c[nonzero].square().mean().abs()) < 10 * 5 * math.sqrt(2 / (0.1 * count))


def test_ofdm_is_a_sum_of_delays_on_the_802_11_grid():
    scenario = Ofdm()
    assert scenario.subcarriers == (*range(-26, 0), *range(1, 27))
    assert Ofdm(layout="contiguous", num_subcarriers=5).subcarriers == (-2, -1, 0, 1, 2)
    slot = scenario.draw(300, hhat.generator("ofdm"))
    h, delay_s, gains = slot.truth
    f = torch.tensor(scenario.subcarriers, dtype=torch.float64) * 312.5e3
    explicit = sum(gains[:, :, p, None] * torch.exp(-2j * math.pi * f * delay_s[:, p, None])[:, None] for p in range(6))
    torch.testing.assert_close(h, explicit.to(h.dtype), atol=1e-5, rtol=0)
    count = delay_s.numel()
    assert float(delay_s.mean()) == pytest.approx(50e-9, rel=5 / math.sqrt(count))
    assert float(delay_s.std()) == pytest.approx(50e-9, rel=5 * math.sqrt(2 / count))
    assert slot.about.subcarriers == scenario.subcarriers
    assert slot.about.constants["subcarrier_spacing_hz"] == 312.5e3
    noise = slot.obs.y - h * scenario.pilot_symbols()
    assert float(noise.abs().square().mean()) == pytest.approx(scenario.noise_var(), rel=0.02)


def test_ofdm_draws_follow_the_exact_covariance():
    scenario = Ofdm(num_rx_ant=2, num_subcarriers=12, delay_spread_s=200e-9)
    h = scenario.draw(4000, hhat.generator("ofdm law")).truth.h.to(torch.complex128)
    exact = scenario.covariance(torch.complex128)
    assert abs(covariance_score(h, exact)) < 5
    assert covariance_score(h.conj(), exact) > 20  # a delay of the other sign is seen


def test_comb_takes_every_third_subcarrier():
    scenario = Ofdm(num_subcarriers=10, comb=3, snr_db=200.0)
    slot = scenario.draw(2, hhat.generator("comb"))
    torch.testing.assert_close(slot.obs.y, slot.truth.h[..., [0, 3, 6, 9]] * scenario.pilot_symbols())


def test_names_are_registered():
    assert hhat.scenario("cdl", profile="D") == Cdl(profile="D")
    assert hhat.scenario("sparse-angular", active=0.2) == SparseAngular(active=0.2)
    assert hhat.scenario("ofdm", comb=2) == Ofdm(comb=2)
    with pytest.raises(ValueError, match="unknown setting"):
        hhat.scenario("cdl", yaw=3)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Cdl, {"profile": "F"}, "profile is one of A, B, C, D, E; got 'F'"),
        (Cdl, {"num_rx_ant": 0}, "num_rx_ant is an integer of at least 1, got 0"),
        (Cdl, {"pilot_ratio": -0.1}, "pilot_ratio is a number above 0"),
        (Cdl, {"pilot_ratio": 0.01}, "leaves no pilot"),
        (Cdl, {"snr_db": math.nan}, "snr_db is a number"),
        (Cdl, {"snr_db": 1e6}, "snr_db is a number"),
        (Cdl, {"axis": "diagonal"}, "axis is one of"),
        (Cdl, {"geometry": "free"}, "geometry is one of"),
        (Cdl, {"axis": "vertical", "geometry": "rotated"}, "does not see the yaw"),
        (Cdl, {"los_phase": "zero"}, "los_phase is one of"),
        (Cdl, {"pilots": "dft"}, "pilots is one of"),
        (SparseAngular, {"active": 0.0}, "active is a number above 0"),
        (SparseAngular, {"active": 1.5}, "active is a number above 0 and at most 1"),
        (SparseAngular, {"num_pilots": 0}, "num_pilots"),
        (Ofdm, {"num_subcarriers": 51}, "num_subcarriers is even"),
        (Ofdm, {"layout": "lte"}, "layout is one of"),
        (Ofdm, {"comb": 53}, "comb is a number above 0 and at most 52"),
        (Ofdm, {"delay_spread_s": math.inf}, "delay_spread_s"),
        (Ofdm, {"subcarrier_spacing_hz": 0.0}, "subcarrier_spacing_hz"),
    ],
)
def test_wrong_settings_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.mark.parametrize("kind", SCENARIOS)
def test_a_draw_of_nothing_is_refused(kind):
    scenario = kind.example(hhat.generator("example"))
    with pytest.raises(ValueError, match="n is an integer of at least 1"):
        scenario.draw(0, hhat.generator("none"))
    with pytest.raises(ValueError, match="links is an integer of at least 1"):
        next(scenario.slots(1, hhat.generator("none"), links=0))
