"""Parameters of paths as an upload: the same channel again, bits by hand, what rounding costs and that it is told."""

import pytest
import torch

import hhat
from hhat.decentralized import Concatenate, ExtrinsicUpload, MidTread, ParametricUpload, PosteriorUpload, TopUpload
from hhat.decentralized.split import split
from hhat.methods.nomp_paths import LinePaths
from hhat.scenarios.near_field import NearField
from hhat.scenarios.near_field_bounds import path_model
from tests.units.decentralised_fakes import BrokenMethod, local

PAPER = NearField()
FINE = ParametricUpload(MidTread(24), psi=24, phi=24, delay=24)


def drawn(n=6, snr_db=10.0):
    return NearField(snr_db=snr_db).draw(n, hhat.generator("parametric upload"))


def nomp(curved=False, **settings):
    return hhat.method("nomp", model=path_model(PAPER, local=True, curved=curved), **settings)


def fused(unit, upload, slot, build=hhat.method, **settings):
    return hhat.solve(build("decentralised", unit=unit, upload=upload, centre=Concatenate(), **settings), slot.obs)


def ratio(found, wanted):
    return float(((found - wanted).abs().square().sum((-2, -1)) / wanted.abs().square().sum((-2, -1))).mean())


@pytest.mark.parametrize("curved", [False, True])
def test_many_bits_give_the_units_own_channel(curved):
    slot = drawn()
    got = fused(nomp(curved), FINE, slot)
    own = [hhat.solve(nomp(curved, remainder=False), part) for part in split(slot.obs, 4)]
    want = torch.cat([est.belief.mean for est in own], -2)
    assert ratio(got.belief.mean, want) < 1e-8
    told = torch.cat([est.belief.var.mean((-2, -1), keepdim=True).expand(est.belief.mean.shape) for est in own], -2)
    torch.testing.assert_close(got.belief.var, told, rtol=1e-4, atol=1e-9)


def test_delays_close_their_circle_and_angles_their_ends():
    """The last half step before the period is delay 0; end-fire, where psi is 1/2, is inside."""
    model = LinePaths(8, tuple(range(4)), 1.0, 20.0, False)
    s = model.responses(torch.tensor([[0.5, 0.0, 1 - 1e-4], [-0.5, 0.0, 0.4]], dtype=torch.float64)).sum(0)
    obs = hhat.Observation(s[None], hhat.ops.Identity((8, 4)), torch.tensor(1e-6), ("rx_ant", "subcarrier"))
    est = fused(
        hhat.method("nomp", model=model), ParametricUpload(MidTread(16), psi=16, delay=10), type("S", (), {"obs": obs})
    )
    assert ratio(est.belief.mean, s[None]) < 1e-5


def test_bits_are_those_counted_by_hand():
    part = split(drawn(1).obs, 4)[0]
    rest = 32 + 32 + 1  # scale of the gains, variance, whether there is anything
    flat, bent = nomp(max_paths=6), nomp(True)
    assert ParametricUpload().count_bits(part, flat) == 6 * (12 + 10 + 2 * 8) + 3 + rest
    assert ParametricUpload(count=4).count_bits(part, flat) == 4 * (12 + 10 + 2 * 8) + 3 + rest
    assert ParametricUpload(MidTread(6), 11, 9, 7).count_bits(part, bent) == 8 * (11 + 9 + 7 + 2 * 6) + 4 + rest
    est = fused(flat, ParametricUpload(), drawn(2))
    assert est.info["fronthaul_bits_up"] == 296 and est.info["fronthaul_bits_per_sample"] == 296 / 256


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_the_default_bits_cost_less_than_the_estimate_errs(snr_db):
    slot = drawn(12, snr_db)
    got, fine = fused(nomp(), ParametricUpload(), slot), fused(nomp(), FINE, slot)
    added = ratio(got.belief.mean, fine.belief.mean)
    assert 1e-6 < added < 0.2 * ratio(fine.belief.mean, slot.truth.h)


@pytest.mark.parametrize(
    "upload",
    [ParametricUpload(psi=8, delay=6), ParametricUpload(MidTread(3)), ParametricUpload(count=2)],
    ids=["coarse geometry", "coarse gains", "fewer paths"],
)
def test_the_variance_covers_rounding_and_what_is_left_out(upload):
    slot = drawn(12)
    got, fine = fused(nomp(), upload, slot), fused(nomp(), FINE, slot)
    added = (got.belief.mean - fine.belief.mean).abs().square().mean()
    assert added > 4 * fine.belief.var.mean()  # rounding is most of the error here
    error = (got.belief.mean - slot.truth.h).abs().square().mean()
    assert 0.8 < float(got.belief.var.mean() / error) < 1.25


def test_no_path_is_no_path():
    slot = drawn(2)
    quiet = hhat.Observation(slot.obs.y * 1e-6, slot.obs.op, slot.obs.noise_var, slot.obs.axes)
    est = hhat.solve(hhat.method("decentralised", unit=nomp(), upload=ParametricUpload(), centre=Concatenate()), quiet)
    assert bool((est.belief.mean == 0).all()) and est.status_counts() == {"OK": 2}


@pytest.mark.parametrize("name", ["geometry", "num_paths", "codes", "scale", "var"])
def test_a_message_out_of_range_is_a_lost_unit(name):
    slot = drawn(2)
    broken = BrokenMethod(unit=nomp(), upload=ParametricUpload(), centre=Concatenate(), how=f"out of range: {name}")
    est = hhat.solve(broken, slot.obs)
    assert est.status_counts() == {"DEGRADED": 2} and f"unit 1: refused: {name}: expected" in est.info["lost_why"]
    assert est.info["lost_units"].tolist() == [[False, True, False, False]] * 2


@pytest.mark.parametrize(
    ("upload", "name"),
    [(TopUpload(MidTread(8)), "index"), (PosteriorUpload(MidTread(8)), "codes"), (ExtrinsicUpload(), "var")],
)
def test_so_are_those_of_other_uploads(upload, name):
    slot = PAPER.draw(2, hhat.generator("parametric upload"))
    broken = BrokenMethod(unit=local(PAPER), upload=upload, how=f"out of range: {name}")
    est = hhat.solve(broken, slot.obs)
    assert est.status_counts() == {"DEGRADED": 2} and f"unit 1: refused: {name}: expected" in est.info["lost_why"]


def test_unknown_noise_is_reported():
    slot = drawn(4)
    blind = hhat.Observation(slot.obs.y, slot.obs.op, None, slot.obs.axes)
    est = hhat.solve(hhat.method("decentralised", unit=nomp(), upload=ParametricUpload(), centre=Concatenate()), blind)
    told = est.info["noise_var"].flatten() / slot.obs.noise_var.flatten()
    assert bool(((told > 0.7) & (told < 1.4)).all())


def test_wrong_settings_and_units_are_refused():
    for settings in ({"psi": 0}, {"phi": 25}, {"delay": 25}, {"count": 0}):
        with pytest.raises(ValueError, match=f"ParametricUpload: {next(iter(settings))}: expected"):
            ParametricUpload(**settings)
    with pytest.raises(ValueError, match="ParametricUpload: expected nomp at the unit, got Sbl"):
        fused(local(PAPER), ParametricUpload(), drawn(1))
