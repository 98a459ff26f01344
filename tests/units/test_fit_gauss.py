"""Priors fitted to channels and to pilots: their truth found, likelihoods that rise, closed forms."""

import itertools

import pytest
import torch

import hhat
from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.priors import Gauss, covariance
from hhat.priors.fit_gauss import (
    covariance_from_pilots,
    fit_covariance,
    fit_mixture,
    fit_variances,
    pooled,
    rule_of_thumb,
)
from hhat.random import complex_normal, generator
from hhat.types import Observation

SHAPE = (2, 4)


def truth():
    root = complex_normal((8, 3), generator("fit"), torch.complex128)
    return root @ root.mH / 3


def channels(num):
    prior = covariance(truth(), shape=SHAPE)
    return prior.basis.apply(prior.sample((num, *prior.basis.in_shape), generator("fit", num), torch.complex128))


def matrix(prior):
    root = prior.basis.dense(torch.complex128)
    return root @ root.mH


def test_rule_of_thumb_and_the_sample_covariance():
    assert rule_of_thumb(1024, 1024) == pytest.approx(0.02) and rule_of_thumb(10240, 1024) == pytest.approx(1e-4)
    assert rule_of_thumb(1, 1024) == 0.5
    h = channels(500)
    flat = h.flatten(1)
    sample = flat.mT @ flat.conj() / 500
    want = 0.9 * sample + 0.1 * torch.eye(8) * sample.diagonal().real.mean()
    torch.testing.assert_close(matrix(fit_covariance(h, 0.1)), want)


def test_variances_are_the_mean_powers_in_the_basis():
    basis, h = Kron(Fourier(2), Fourier(4)), channels(100)
    prior = fit_variances(h, basis)
    torch.testing.assert_close(prior.var, basis.adjoint(h).abs().square().mean(0))


def test_a_mixture_finds_its_components_and_never_gets_less_likely():
    gen = generator("fit", "mixture")
    one, two = torch.tensor([5.0, 5.0, 0.1, 0.1]), torch.tensor([0.1, 0.1, 1.0, 1.0])
    strong = torch.rand(3000, 1, generator=gen) < 0.3
    h = complex_normal((3000, 4), gen) * torch.where(strong, one, two).sqrt()
    found = fit_mixture(h, 2, gen, floor=1e-6)
    order = found.weights.argsort()
    torch.testing.assert_close(found.weights[order], torch.tensor([0.3, 0.7]), atol=0.03, rtol=0)
    torch.testing.assert_close(found.experts[order[0]].var, one, atol=0.0, rtol=0.15)
    torch.testing.assert_close(found.experts[order[1]].var, two, atol=0.0, rtol=0.15)
    still = hhat.Gaussian(h, torch.tensor(1e-9))
    fits = [fit_mixture(h, 3, generator("again"), steps=n, floor=1e-6) for n in (1, 3, 10, 50)]
    scores = [fit.log_evidence(still).sum() for fit in fits]
    assert all(b >= a - 1e-2 for a, b in itertools.pairwise(scores))


def test_the_covariance_is_found_through_noisy_pilots_that_change():
    gen = generator("fit", "pilots")
    h = channels(3000)
    x = complex_normal((3000, 2, 4), gen, torch.complex128)
    op = Kron(Identity((2,)), Dense(x))
    y = op.apply(h)
    obs = Observation(y + complex_normal(tuple(y.shape), gen, torch.complex128, 0.1), op, 0.1)
    error = (matrix(covariance_from_pilots(obs, steps=60)) - truth()).abs().square().sum()
    assert float(error / truth().abs().square().sum()) < 0.02
    seen = Kron(Identity((2,)), Dense(complex_normal((6, 4), gen, torch.complex128)))
    y = seen.apply(h)
    fixed = Observation(y + complex_normal(tuple(y.shape), gen, torch.complex128, 0.1), seen, 0.1)
    error = (matrix(covariance_from_pilots(fixed, steps=60)) - truth()).abs().square().sum()
    assert float(error / truth().abs().square().sum()) < 0.02


def test_pooled_is_the_mean_of_the_matrices():
    other = torch.eye(8, dtype=torch.complex128) * 2
    both = pooled((covariance(truth(), shape=SHAPE), covariance(other, shape=SHAPE)))
    torch.testing.assert_close(matrix(both), (truth() + other) / 2)
    assert both.basis.out_shape == SHAPE


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="components"):
        fit_mixture(channels(3), 4, generator("x"))
    with pytest.raises(ValueError, match="finite"):
        fit_covariance(torch.full((3, 2), torch.nan) + 0j)
    with pytest.raises(ValueError, match="noise_var"):
        covariance_from_pilots(Observation(torch.ones(3, 2) + 0j, Identity((2,))))
    with pytest.raises(ValueError, match="covariance"):
        pooled((Gauss(),))
