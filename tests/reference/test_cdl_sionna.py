"""The fast CDL form against Sionna's general model: tables, power, covariance with its orientation, spectrum."""

import functools
import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import hhat
from hhat.scenarios.cdl import Cdl
from hhat.scenarios.cdl_sionna import CdlSionna
from hhat.scenarios.cdl_tables import PROFILES

SETS = 40
"""Independent sets of the fast form, whose spread is the sampling error"""
BOUND = 5.0
"""Standard deviations of the sampling error within which Sionna has to lie"""
SMALL = {"num_rx_ant": 4, "num_tx_ant": 16}


def covariance_error(h, exact):
    """||C^ - C||^2 over its expectation for independent draws, (E|h|^4 - |C|^2) / n."""
    flat = h.flatten(1)
    sample = flat.mT @ flat.conj() / len(h)
    fourth = flat.abs().square().sum(1).square().mean()
    return float((sample - exact).abs().square().sum() / ((fourth - exact.abs().square().sum()) / len(h)))


def statistics(h, exact):
    """Mean power, effective rank, ranks at 90 and 99 %, log distance from C, share of each of the first eigenvalues."""
    flat = h.flatten(1)
    values = torch.linalg.svdvals(flat).square() / len(h)  # the eigenvalues of the sample covariance
    share = values / values.sum()
    reached = share.cumsum(0)
    return torch.tensor(
        [
            float(values.sum()) / flat.shape[1],
            float(1 / share.square().sum()),
            *(float((reached < part).sum()) + 1 for part in (0.9, 0.99)),
            math.log(covariance_error(h, exact)),  # of the ratio itself the upper tail is long
            *share[:12].tolist(),
        ]
    )


@functools.cache
def small(**settings):
    return compare(settings | SMALL, 400)


def compare(settings, n, count=SETS):
    """Score of every statistic in standard deviations, Sionna's statistics, the fast form's mean, Sionna's draws, C."""
    fast, slow = Cdl(**settings), CdlSionna(**settings)
    exact = fast.covariance()
    gen = hhat.generator("fast sets", *map(str, settings.values()))
    sets = torch.stack([statistics(fast.channels(n, gen), exact) for _ in range(count)])
    h = slow.channels(n, hhat.generator("sionna set", *map(str, settings.values())))
    found = statistics(h, exact)
    # a rank is an integer: its rounding is part of the error
    rounding = torch.zeros(len(found))
    rounding[2:4] = math.sqrt(1 / 6)
    error = (sets.var(0) * (1 + 1 / count) + rounding.square()).sqrt()
    return (found - sets.mean(0)) / error, found, sets.mean(0), h, exact


@pytest.mark.parametrize("profile", "ABCDE")
def test_tables_equal_sionnas(profile):
    home = find_spec("sionna").submodule_search_locations[0]
    files = sorted(Path(home).rglob(f"CDL-{profile}.json"))
    assert files
    ours = PROFILES[profile]
    rows = ([ours.los] if ours.los else []) + list(ours.clusters)
    for file in files:
        theirs = json.loads(file.read_text())
        columns = [theirs[k] for k in ("delays", "powers", "aod", "aoa", "zod", "zoa")]
        assert [tuple(row) for row in rows] == list(zip(*columns, strict=True))
        assert tuple(ours.spreads) == tuple(theirs[k] for k in ("cASD", "cASA", "cZSD", "cZSA"))
        assert ours.xpr_db == theirs["xpr"]


@pytest.mark.parametrize(
    "settings",
    [
        {"profile": "A"},
        {"profile": "C"},
        {"profile": "B", "axis": "vertical"},
        {"profile": "D", "axis": "vertical"},
        {"profile": "E"},
        {"profile": "C", "geometry": "rotated"},
    ],
    ids=str,
)
def test_power_covariance_and_spectrum(settings):
    score, found, mean, _, _ = small(**settings)
    assert float(score.abs().max()) < BOUND, (score, found, mean)


@pytest.mark.parametrize("settings", [{"profile": "A"}, {"profile": "B", "axis": "vertical"}], ids=str)
def test_a_mirrored_array_is_seen(settings):
    score, _, _, h, exact = small(**settings)
    assert abs(float(score[4])) < BOUND
    for mirrored in (h.flip(1), h.flip(2), h.flip(1, 2), h.conj()):
        assert covariance_error(mirrored, exact) > 10


@pytest.mark.parametrize("geometry", ["fixed", "rotated"])
def test_constant_line_of_sight_has_phase_zero_at_antennas_0(geometry):
    settings = {"profile": "D", "geometry": geometry, "los_phase": "constant"} | SMALL
    for kind in (Cdl, CdlSionna):
        h = kind(**settings).channels(400, hhat.generator("phase"))
        assert abs(complex(h[:, 0, 0].mean()) - math.sqrt(0.888)) < 5 * math.sqrt((1 - 0.888) / 400)
    if geometry == "fixed":  # at the far ends too: the array's middle is no longer the reference
        settings |= {"axis": "vertical"}
        mean = [kind(**settings).channels(400, hhat.generator("phase")).mean(0) for kind in (Cdl, CdlSionna)]
        assert float((mean[0] - mean[1]).abs().square().mean()) < 25 * 2 * (1 - 0.888) / 400


def test_sionnas_generator_is_used_from_ours_alone_and_left_as_it_was():
    scenario = CdlSionna(profile="C", num_rx_ant=2, num_tx_ant=3)
    outside = torch.get_rng_state()
    first, again, other = (scenario.draw(3, hhat.generator("own", k)) for k in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), outside)
    assert torch.equal(first.truth.h, again.truth.h) and torch.equal(first.obs.y, again.obs.y)
    assert not torch.equal(first.truth.h, other.truth.h)
    from sionna.phy import config

    before = config.torch_rng("cpu").get_state()
    scenario.draw(3, hhat.generator("own", 3))
    assert torch.equal(config.torch_rng("cpu").get_state(), before)


def test_both_share_settings_pilots_and_noise():
    fast = Cdl(profile="D", **SMALL).draw(2, hhat.generator("share"))
    slow = CdlSionna(profile="D", **SMALL).draw(2, hhat.generator("share"))
    assert torch.equal(fast.obs.op.dense(), slow.obs.op.dense())
    assert torch.equal(fast.obs.noise_var, slow.obs.noise_var)
    own = CdlSionna(profile="D", **SMALL).channels(2, hhat.generator("share"))
    assert torch.equal(slow.truth.h, own) and not torch.allclose(slow.truth.h, fast.truth.h)
    assert fast.about.snr_definition == slow.about.snr_definition and "Sionna" in slow.about.source


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "effective", "rank"), [("A", 75.0, 148), ("C", 77.3, 123)])
def test_64_by_16_with_1000_samples(profile, effective, rank):
    """diffusion_experts section 2.1 gives Sionna's effective rank and its rank at 90 % for 1,000 samples."""
    score, found, mean, h, exact = compare({"profile": profile}, 1000, count=16)
    assert float(score.abs().max()) < BOUND, (score, found, mean)
    assert float(found[1]) == pytest.approx(effective, rel=0.05)
    assert float(found[2]) == pytest.approx(rank, rel=0.04)
    assert covariance_error(h.flip(2), exact) > 3
