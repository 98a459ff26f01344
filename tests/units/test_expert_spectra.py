"""Scales, unmodelled paths and the alternative of `covariance-mixture`: dense algebra, limits, and what
`auto` takes for channels that fit a profile or none."""

import dataclasses
import math

import pytest
import torch

import hhat
from hhat.methods import expert_spectra
from hhat.methods.auto import Auto
from hhat.methods.covariance_mixture import PENALTY, CovarianceMixture
from hhat.methods.defaults import choice_for
from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.priors import Experts, Gauss, covariance
from hhat.priors.cdl_experts import cdl_experts
from hhat.priors.hierarchical import pattern_coupled
from hhat.random import complex_normal, generator
from hhat.scenarios.cdl import Cdl
from hhat.types import Observation

SHAPE, PILOTS = (3, 8), 6
DOUBLE = torch.complex128
ANGLES = Kron(Fourier(SHAPE[0]), Fourier(SHAPE[1]))


def experts(count=2):
    gen, size = generator("spectra", "experts"), math.prod(SHAPE)
    roots = [complex_normal((size, 5 + 9 * k), gen, DOUBLE) for k in range(count)]
    return Experts(
        [covariance(r @ r.mH / r.shape[1], shape=SHAPE) for r in roots], (0.7, 0.3)[:count] if count > 1 else None
    )


def observe(h, noise_var, *label):
    gen = generator("spectra", *label)
    op = Kron(Identity((SHAPE[0],)), Dense(complex_normal((PILOTS, SHAPE[1]), gen, DOUBLE)))
    y = op.apply(h)
    return Observation(y + complex_normal(tuple(y.shape), gen, DOUBLE, noise_var), op, noise_var)


def draw(prior, num, *label):
    return prior.sample((num, *SHAPE), generator("spectra", "draw", *label), DOUBLE)


def test_the_strongest_path_is_that_of_dense_algebra():
    prior = experts(1)
    obs = observe(draw(prior, 3), 0.1)
    a, root = obs.op.dense(DOUBLE), prior.experts[0].basis.dense(DOUBLE)
    s = a @ root @ root.mH @ a.mH + 0.1 * torch.eye(len(a), dtype=DOUBLE)
    best = torch.zeros(3, dtype=torch.float64)
    for i in range(2 * SHAPE[0]):
        for j in range(2 * SHAPE[1]):
            u, v = 2 * math.pi * i / (2 * SHAPE[0]), 2 * math.pi * j / (2 * SHAPE[1])
            wave = torch.polar(
                torch.ones(SHAPE).double(),
                u * torch.arange(SHAPE[0]).double()[:, None] + v * torch.arange(SHAPE[1]).double(),
            )
            b = a @ wave.flatten()
            solved = torch.linalg.solve(s, b)
            best = torch.maximum(best, (obs.y.flatten(1) @ solved.conj()).abs().square() / (b.conj() @ solved).real)
    found = hhat.solve(CovarianceMixture(prior), obs).info["p_path"]
    torch.testing.assert_close(found, (4 * math.prod(SHAPE) * (-best / expert_spectra.SLACK).exp()).clamp_max(1))


def test_false_alarms_of_gaussian_channels_are_at_most_what_was_asked(monkeypatch):
    prior = experts()
    obs = observe(draw(prior, 20000), 0.05)
    found = hhat.solve(CovarianceMixture(prior, false_alarm=0.02), obs).info
    assert 0.004 < float((found["expert"] < 0).double().mean()) < 0.02 + 4 * math.sqrt(0.02 / 20000)
    monkeypatch.setattr(expert_spectra, "SLACK", 1.0)
    exact = hhat.solve(CovarianceMixture(prior, false_alarm=0.02), obs).info
    for level in (0.01, 0.1):  # a union bound: below the level, and not without use
        assert level / 20 < float((exact["p_path"] < level).double().mean()) <= level + 4 * math.sqrt(level / 20000)


def test_one_path_of_the_right_energy_is_seen_by_the_path_alone():
    h = torch.ones(5, 8, 16, dtype=DOUBLE) * torch.polar(torch.ones(5), torch.arange(5.0))[:, None, None]
    obs = Observation(h + complex_normal((5, 8, 16), generator("one path"), DOUBLE, 0.01), Identity((8, 16)), 0.01)
    found = hhat.solve(CovarianceMixture(Gauss(1.0, ndim=2)), obs).info
    assert bool((found["p_value"] > 0.01).all()) and bool((found["p_path"] < 1e-12).all())
    assert bool((found["expert"] == -1).all())


def test_learned_scales_are_where_the_evidence_is_largest_and_the_estimate_is_the_scaled_experts():
    prior = experts(1)
    obs = observe(draw(prior, 8) * 7, 0.3)
    est = hhat.solve(CovarianceMixture(prior, learn_scale=True), obs, tol=1e-12)
    scale = est.info["scale"]
    assert float(scale.log().mean()) == pytest.approx(math.log(49), abs=0.5)
    for k in range(8):
        one = Observation(obs.y[k : k + 1], obs.op, 0.3)
        given = [
            hhat.solve(CovarianceMixture(prior.experts[0].scaled(float(scale[k] * off) ** 0.5)), one)
            for off in (1, 0.97, 1.03)
        ]
        logs = [float(g.info["log_evidence"]) for g in given]
        assert logs[0] > max(logs[1:])
        torch.testing.assert_close(est.belief.mean[k], given[0].belief.mean[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(est.belief.var[k], given[0].belief.var.expand(1, *SHAPE)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("known", [True, False])
def test_a_file_in_other_units_is_the_same_file(known):
    prior = experts()
    obs = observe(draw(prior, 30), 0.2)
    method = CovarianceMixture(
        prior, learn_scale=True, otherwise=hhat.method("oamp", prior=pattern_coupled(basis=ANGLES))
    )
    c = 137.0
    one = hhat.solve(method, obs if known else Observation(obs.y, obs.op, None))
    two = hhat.solve(method, Observation(c * obs.y, obs.op, c**2 * 0.2 if known else None))
    torch.testing.assert_close(two.belief.mean, c * one.belief.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(two.info["scale"], c**2 * one.info["scale"], rtol=1e-3, atol=0)
    torch.testing.assert_close(two.info["probability"], one.info["probability"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(two.info["otherwise"], one.info["otherwise"], rtol=1e-2, atol=1e-3)


def test_noise_and_scale_together_are_near_the_truth():
    prior = experts()
    obs = observe(draw(prior, 200) * 3, 0.5)
    found = hhat.solve(CovarianceMixture(prior, learn_scale=True), Observation(obs.y, obs.op, None)).info
    assert float(found["noise_var"].median()) == pytest.approx(0.5, rel=0.5)
    assert float(found["scale"].median()) == pytest.approx(9, rel=0.5)


def test_the_alternative_pays_for_what_it_learned_and_takes_its_share():
    """Evidence and share against dense algebra under the variances learned."""
    prior = experts()
    other = hhat.method("oamp", prior=pattern_coupled(basis=ANGLES))
    obs = observe(draw(prior, 40), 3.0)
    alone, mixture = hhat.solve(other, obs), hhat.solve(CovarianceMixture(prior), obs)
    est = hhat.solve(CovarianceMixture(prior, otherwise=other), obs)
    a = obs.op.dense(DOUBLE) @ ANGLES.dense(DOUBLE)
    var = alone.info["prior"].moments().var.flatten(1).to(DOUBLE)
    s = torch.einsum("mi,ni,ki->nmk", a, var, a.conj()) + 3.0 * torch.eye(len(a), dtype=DOUBLE)
    y = obs.y.flatten(1)[..., None]
    log = -torch.logdet(s).real - (y.mH @ torch.linalg.solve(s, y)).real.flatten() - len(a) * math.log(math.pi)
    determined = torch.einsum("mi,nmk,ki,ni->n", a.conj(), torch.linalg.inv(s), a, var).real
    odds = log - PENALTY * determined - math.log(2) - mixture.info["log_evidence"]
    chance = est.info["otherwise"]
    torch.testing.assert_close(chance, odds.sigmoid(), rtol=1e-4, atol=1e-6)
    assert 0.05 < float(chance.max()) and float(chance.min()) < 0.5
    share = chance[:, None, None]
    torch.testing.assert_close(est.belief.mean, (1 - share) * mixture.belief.mean + share * alone.belief.mean)
    gap = (mixture.belief.mean - alone.belief.mean).abs().square()
    var = (1 - share) * mixture.belief.var + share * alone.belief.var + share * (1 - share) * gap
    torch.testing.assert_close(est.belief.var, var)
    assert torch.equal(est.info["expert"] == -1, chance > 0.5)


def test_one_item_without_a_batch_axis_is_that_item_of_the_batch():
    prior = experts()
    obs = observe(5 * draw(prior, 3), 0.2)
    method = CovarianceMixture(
        prior, learn_scale=True, otherwise=hhat.method("oamp", prior=pattern_coupled(basis=ANGLES))
    )
    whole, one = hhat.solve(method, obs), hhat.solve(method, Observation(obs.y[1], obs.op, 0.2))
    torch.testing.assert_close(one.belief.mean, whole.belief.mean[1])
    for name in ("p_value", "p_path", "scale", "otherwise", "log_evidence"):
        torch.testing.assert_close(one.info[name], whole.info[name][1])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_without_noise_the_channel_of_a_thin_expert_is_found_exactly(dtype):
    # 3 directions each, 8 samples: five of the received variances are 0
    roots = [complex_normal((12, 3), generator("thin", k), torch.complex128) for k in range(2)]
    prior = Experts([Gauss(basis=Dense(root)) for root in roots])
    op = Dense(complex_normal((8, 12), generator("thin", "op"), dtype))
    h = (5 * complex_normal((4, 3), generator("thin", "h"), torch.complex128) @ roots[1].mT).to(dtype)
    obs = Observation(op.apply(h), op, torch.zeros((), dtype=h.real.dtype))
    found = hhat.solve(CovarianceMixture(prior, learn_scale=True), obs)
    assert found.status_counts() == {"OK": 4} and found.info["probability"][:, 1].min() > 0.999
    assert torch.linalg.norm(found.belief.mean - h) < 1e-2 * torch.linalg.norm(h)


def test_learned_scales_need_one_operator_and_white_noise():
    prior = experts()
    obs = observe(draw(prior, 2), 0.1)
    uneven = Observation(obs.y, obs.op, 0.1 + torch.rand(obs.y.shape[-2:], generator=generator("uneven")).double())
    with pytest.raises(ValueError, match="learn_scale: expected experts without means"):
        hhat.solve(CovarianceMixture(prior, learn_scale=True), uneven)
    assert bool((hhat.solve(CovarianceMixture(prior), uneven).info["p_path"] == 1).all())


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_the_packages_experts_are_the_exact_covariances(axis):
    for profile, expert in zip("ABCD", cdl_experts(4, 12, axis).experts, strict=True):
        root = expert.basis.dense()
        want = Cdl(profile=profile, num_rx_ant=4, num_tx_ant=12, axis=axis).covariance()
        torch.testing.assert_close(root @ root.mH, want, rtol=0, atol=3e-6)


def test_auto_takes_profiles_and_leaves_what_fits_none():
    """Fixed C: the mixture, 3 dB ahead; rotated C: the sparse estimate, 5 dB ahead; one file in units of its own."""
    scenes = [Cdl(pilot_ratio=0.3, snr_db=20.0, geometry=name) for name in ("fixed", "rotated")]
    slots = [scene.draw(3, generator("auto", "profiles")) for scene in scenes]
    h, y = (torch.cat(parts) for parts in zip(*((s.truth.h, s.obs.y) for s in slots), strict=True))
    obs = Observation(100 * y, slots[0].obs.op, 1e4 * scenes[0].noise_var(), slots[0].obs.axes)
    est, sparse = hhat.solve(hhat.method("auto"), obs), hhat.solve(Auto(profiles=False), obs)
    assert est.info["method"] == "covariance-mixture" and sparse.info["method"] == "oamp"
    assert (est.info["expert"] == torch.tensor([2] * 3 + [-1] * 3)).all()
    mixture = hhat.solve(CovarianceMixture(cdl_experts(), learn_scale=True), obs)
    fits = slice(0, 3), slice(3, 6)
    found, known, coupled = ([hhat.nmse_db(e.belief.mean[i], 100 * h[i]) for i in fits] for e in (est, mixture, sparse))
    assert found[0] == pytest.approx(known[0], abs=0.05) and found[0] < coupled[0] - 3
    assert found[1] == pytest.approx(coupled[1], abs=0.05) and found[1] < known[1] - 4


@pytest.mark.parametrize("what", ["half a wavelength", "a wavelength", "nothing told", "bent"])
def test_a_file_takes_profiles_unless_its_geometry_says_no(what):
    slot = Cdl(pilot_ratio=0.1).draw(1, generator("geometry"))
    geometry = {name: torch.tensor(points) for name, points in slot.about.geometry.items()}
    if what == "a wavelength":
        geometry["tx_ant"] = 2 * geometry["tx_ant"]
    if what == "bent":
        geometry["rx_ant"][8:, 0] += 0.3
    told = {} if what == "nothing told" else {name: points.tolist() for name, points in geometry.items()}
    choice = choice_for("auto", slot.obs, dataclasses.replace(slot.about, geometry=told))
    name = choice.method.choose(slot.obs).name
    assert name == ("covariance-mixture" if what in ("half a wavelength", "nothing told") else "oamp")
