"""`experts` and `covariance-mixture` against dense algebra, brute force and limits; what no expert saw is called so."""

import math

import pytest
import torch

import hhat
from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.priors import Experts, Gauss, bernoulli_gauss, covariance
from hhat.random import complex_normal, generator
from hhat.scenarios.cdl import Cdl
from hhat.types import Gaussian, Observation

SHAPE, PILOTS = (3, 5), 4


def matrices(count=3, dtype=torch.complex128):
    gen = generator("experts", "matrices")
    size = math.prod(SHAPE)
    roots = [complex_normal((size, 4 + 3 * k), gen, dtype) for k in range(count)]
    return [root @ root.mH / root.shape[-1] * (0.3 + k) for k, root in enumerate(roots)]


def observe(channels, noise_var=0.05, dtype=torch.complex128):
    gen = generator("experts", "observe")
    op = Kron(Identity((SHAPE[0],)), Dense(complex_normal((PILOTS, SHAPE[1]), gen, dtype)))
    y = op.apply(channels)
    return Observation(y + complex_normal(tuple(y.shape), gen, dtype, noise_var), op, noise_var, ("rx_ant", "tx_ant"))


def by_hand(obs, covariances, means, weights):
    """The posterior from the textbook's formulas with matrices as large as they come."""
    a = obs.op.dense(torch.complex128)
    noise = obs.noise_var.double() * torch.eye(len(a), dtype=torch.complex128)
    logs, estimates, variances = [], [], []
    for c, m in zip(covariances, means, strict=True):
        s = a @ c @ a.mH + noise
        rest = obs.y.flatten(1).mT - (a @ m.flatten().to(a.dtype))[:, None]
        solved = torch.linalg.solve(s, rest)
        logs.append(-len(a) * math.log(math.pi) - torch.logdet(s).real - (rest.conj() * solved).sum(0).real)
        estimates.append((m.flatten()[:, None] + c @ a.mH @ solved).mT)
        variances.append((c - c @ a.mH @ torch.linalg.solve(s, a @ c)).diagonal().real)
    joint = torch.stack(logs, -1) + torch.tensor(weights, dtype=torch.float64).log()
    q = joint.softmax(-1)
    mean = sum(q[:, k : k + 1] * estimates[k] for k in range(len(logs)))
    second = sum(q[:, k : k + 1] * (variances[k] + estimates[k].abs().square()) for k in range(len(logs)))
    shape = (len(obs.y), *SHAPE)
    return q, joint.logsumexp(-1), mean.reshape(shape), (second - mean.abs().square()).reshape(shape)


def mixed(num=40, dtype=torch.complex128):
    prior = Experts([covariance(c, shape=SHAPE) for c in matrices()], (0.5, 0.3, 0.2), ("a", "b", "c"))
    return prior, prior.sample((num, *SHAPE), generator("experts", "draw"), dtype)


def test_full_covariances_give_the_posterior_of_dense_algebra():
    prior, h = mixed()
    obs = observe(h, 30.0)
    est = hhat.solve(hhat.method("covariance-mixture", prior=prior), obs)
    q, evidence, mean, var = by_hand(obs, matrices(), [torch.zeros(SHAPE)] * 3, (0.5, 0.3, 0.2))
    assert 0.01 < q.min(-1).values.max() and q.max() > 0.9  # some are unsure, some are sure
    torch.testing.assert_close(est.info["probability"], q, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(est.info["log_evidence"], evidence)
    torch.testing.assert_close(est.belief.mean, mean)
    torch.testing.assert_close(est.belief.var, var)
    assert est.info["names"] == ("a", "b", "c")


def test_one_basis_two_bases_and_means_are_the_same_algebra():
    """Diagonal experts that share a basis are factored together, beside a full one and one with a mean."""
    gen = generator("experts", "grouped")
    basis = Kron(Fourier(SHAPE[0]), Fourier(SHAPE[1]))
    f = basis.dense(torch.complex128)
    powers = [torch.rand(SHAPE, generator=gen, dtype=torch.float64) * (k + 0.1) for k in range(3)]
    centre = complex_normal(SHAPE, gen, torch.complex128)
    full = matrices(1)[0]
    parts = [Gauss(p, basis=basis) for p in powers[:2]]
    own = [parts[0], covariance(full, shape=SHAPE), parts[1], Gauss(powers[2], centre, basis)]
    prior = Experts(own, (0.1, 0.2, 0.3, 0.4))
    obs = observe(prior.sample((30, *SHAPE), gen, torch.complex128), 1.0)
    est = hhat.solve(hhat.method("covariance-mixture", prior=prior), obs)
    diagonal = [f @ torch.diag(p.flatten().to(f.dtype)) @ f.mH for p in powers]
    zero = torch.zeros(SHAPE, dtype=torch.complex128)
    middle = (f @ centre.flatten()).reshape(SHAPE)
    q, evidence, mean, var = by_hand(
        obs, [diagonal[0], full, diagonal[1], diagonal[2]], [zero, zero, zero, middle], (0.1, 0.2, 0.3, 0.4)
    )
    torch.testing.assert_close(est.info["probability"], q, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(est.info["log_evidence"], evidence)
    torch.testing.assert_close(est.belief.mean, mean)
    torch.testing.assert_close(est.belief.var, var)


def test_the_prior_given_a_pseudo_observation_is_the_method_on_an_identity():
    prior, h = mixed()
    for noise_var in (0.05, 2.0):
        r = h + complex_normal(tuple(h.shape), generator("r"), h.dtype, noise_var)
        est = hhat.solve(hhat.method("covariance-mixture", prior=prior), Observation(r, Identity(SHAPE), noise_var))
        found = prior.denoise(Gaussian(r, torch.tensor(noise_var, dtype=torch.float64)))
        torch.testing.assert_close(est.belief.mean, found.mean)
        torch.testing.assert_close(est.belief.var, found.var)
        evidence = prior.log_evidence(Gaussian(r, torch.tensor(noise_var, dtype=torch.float64)))
        torch.testing.assert_close(est.info["log_evidence"], evidence)


def test_permuted_experts_permute_probabilities_and_nothing_else():
    prior, h = mixed()
    obs, order = observe(h, 0.5), [2, 0, 1]
    turned = Experts([prior.experts[k] for k in order], prior.weights[order], [prior.names[k] for k in order])
    one, two = (hhat.solve(hhat.method("covariance-mixture", prior=p), obs) for p in (prior, turned))
    torch.testing.assert_close(two.info["probability"], one.info["probability"][:, order])
    torch.testing.assert_close(two.belief.mean, one.belief.mean)


def test_equal_experts_are_one_and_one_is_lmmse():
    c = covariance(matrices(1)[0], shape=SHAPE)
    _, h = mixed()
    obs = observe(h)
    lmmse = hhat.solve(hhat.method("lmmse", prior=c), obs)
    for prior in (c, Experts((c,)), Experts((c,) * 5)):
        est = hhat.solve(hhat.method("covariance-mixture", prior=prior), obs)
        torch.testing.assert_close(est.belief.mean, lmmse.belief.mean)
        torch.testing.assert_close(est.belief.var, lmmse.belief.var.expand(h.shape))
        torch.testing.assert_close(est.info["log_evidence"], lmmse.info["log_evidence"])


def test_experts_inside_experts_keep_their_name_and_weight():
    inner = Experts((Gauss(0.2), Gauss(2.0)), (0.25, 0.75))
    whole = Experts((inner, Gauss(5.0)), (0.4, 0.6), ("near", "far"))
    assert whole.labels == ("near", "far") and whole.names == ("near", "near", "far")
    torch.testing.assert_close(whole.weights, torch.tensor([0.1, 0.3, 0.6]))
    torch.testing.assert_close(whole.by_name(whole.weights), torch.tensor([0.4, 0.6]))


def test_variance_is_the_error_and_probabilities_are_frequencies_on_the_models_own_draws():
    prior, h = mixed(20000, torch.complex64)
    obs = observe(h, 1.0, torch.complex64)
    est = hhat.solve(hhat.method("covariance-mixture", prior=prior), obs)
    ratio = (est.belief.mean - h).abs().square().mean() / est.belief.var.mean()
    assert float(ratio) == pytest.approx(1, abs=0.02)
    # the experts' mean probability is their weight, and the p-value uniform
    torch.testing.assert_close(
        est.info["probability"].mean(0).double(), torch.tensor([0.5, 0.3, 0.2]).double(), atol=0.015, rtol=0
    )
    for level in (0.01, 0.1, 0.5):
        share = float((est.info["p_value"] < level).double().mean())
        assert share == pytest.approx(level, abs=4 * math.sqrt(level / 20000) + 0.1 * level)


def test_noise_that_is_not_given_is_where_the_evidence_is_largest():
    prior, h = mixed(30)
    obs, method = observe(h, 0.3), hhat.method("covariance-mixture", prior=prior)
    est = hhat.solve(method, Observation(obs.y, obs.op, None), max_steps=3000, tol=1e-14)
    found = est.info["noise_var"]
    assert float(found.mean()) == pytest.approx(0.3, rel=0.25)
    best, below, above = (
        hhat.solve(method, Observation(obs.y, obs.op, found * factor)).info["log_evidence"]
        for factor in (1, 0.97, 1.03)
    )
    inner = found.flatten() > 1e-3  # an item without spare samples may say: none
    assert bool(inner.any()) and bool(((best >= below) & (best >= above))[inner].all())


def test_a_large_batch_is_taken_in_slices_without_a_trace(monkeypatch):
    prior, h = mixed(30)
    obs = observe(h, 0.5)
    method = hhat.method("covariance-mixture", prior=prior)
    whole = hhat.solve(method, obs)
    monkeypatch.setattr("hhat.methods.covariance_mixture.SLICE_ENTRIES", 7 * 3 * math.prod(SHAPE))
    sliced = hhat.solve(method, obs)
    torch.testing.assert_close(sliced.belief.mean, whole.belief.mean)
    torch.testing.assert_close(sliced.info["p_value"], whole.info["p_value"])


def test_channels_that_no_expert_saw_are_called_so_and_given_to_another_method():
    prior, h = mixed(400)
    stranger = complex_normal((40, *SHAPE), generator("stranger"), h.dtype) * torch.tensor([1.0, 0, 0, 0, 30.0])
    obs = observe(torch.cat([h, stranger]), 0.01)
    plain = hhat.solve(hhat.method("covariance-mixture", prior=prior), obs)
    assert (plain.info["expert"][:400] >= 0).double().mean() > 0.98
    assert (plain.info["expert"][400:] == -1).all() and "none of these" in plain.info["why"]
    rls = hhat.method("rls")
    est = hhat.solve(hhat.method("covariance-mixture", prior=prior, otherwise=rls), obs)
    out = plain.info["expert"] == -1
    torch.testing.assert_close(est.belief.mean[~out], plain.belief.mean[~out])
    torch.testing.assert_close(est.belief.mean[out], hhat.solve(rls, obs).belief.mean[out])


def test_auto_takes_the_mixture_for_gaussian_experts():
    prior, h = mixed(10)
    obs = observe(h, 0.5)
    est = hhat.solve(hhat.method("auto", prior=prior), obs)
    assert est.info["method"] == "covariance-mixture"
    torch.testing.assert_close(
        est.belief.mean, hhat.solve(hhat.method("covariance-mixture", prior=prior), obs).belief.mean
    )


def test_experts_of_any_kind_go_through_message_passing():
    """Twice the same sparse expert is that expert; beside a Gaussian one it is still found."""
    gen = generator("experts", "any kind")
    sparse = bernoulli_gauss(0.2, var=5.0, learnable=False)
    h = sparse.sample((20, 12), gen)
    op = Dense(complex_normal((9, 12), gen))
    obs = Observation(op.apply(h) + complex_normal((20, 9), gen, var=0.05), op, 0.05)
    alone, twice = (hhat.solve(hhat.method("oamp", prior=p), obs).belief for p in (sparse, Experts((sparse, sparse))))
    torch.testing.assert_close(twice.mean, alone.mean, rtol=1e-3, atol=1e-3)
    prior = Experts((Gauss(1.0), sparse))
    mixed, lmmse = (hhat.solve(hhat.method("auto", prior=p), obs).belief for p in (prior, Gauss(1.0)))
    assert hhat.nmse_db(mixed.mean, h) < hhat.nmse_db(lmmse.mean, h) - 2
    assert bool(hhat.solve(hhat.method("gamp", prior=prior), obs, max_steps=5).belief.mean.isfinite().all())


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_evidence_finds_the_profile_of_fixed_arrays_every_time(snr_db):
    scenes = [Cdl(profile=name, num_rx_ant=8, num_tx_ant=32, snr_db=snr_db) for name in "ABCD"]
    prior = Experts([covariance(s.covariance(), shape=(8, 32)) for s in scenes], names=tuple("ABCD"))
    method = hhat.method("covariance-mixture", prior=prior)
    for index, scene in enumerate(scenes):
        slot = scene.draw(50, generator("profile", index))
        est = hhat.solve(method, slot.obs)
        assert (est.info["probability"].argmax(-1) == index).double().mean() >= (0.98 if snr_db == 0 else 1.0)
        genie = hhat.solve(hhat.method("lmmse", prior=prior.experts[index]), slot.obs)
        assert abs(hhat.nmse_db(est, slot.truth) - hhat.nmse_db(genie, slot.truth)) < 0.02


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Experts(()), "at least one"),
        (lambda: Experts((Gauss(), Gauss()), (0.5, 0.6)), "sum to 1"),
        (lambda: Experts((Gauss(),), names=("a", "b")), "names"),
        (lambda: Experts([covariance(torch.eye(4), shape=s) for s in ((4,), (2, 2))]), "one channel"),
        (lambda: hhat.method("covariance-mixture", prior=Experts((bernoulli_gauss(),))), "Gaussian"),
        (lambda: hhat.method("covariance-mixture", prior=bernoulli_gauss()), "experts"),
        (lambda: hhat.method("covariance-mixture", prior=Gauss(), false_alarm=1.0), "false_alarm"),
    ],
)
def test_wrong_settings_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()
