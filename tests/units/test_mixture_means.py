"""Mixtures whose components have means: against quadrature over the plane, Monte Carlo and the zero-mean form."""

import math

import pytest
import torch

from hhat.priors import Mixture, bernoulli_gauss
from hhat.random import complex_normal, generator
from hhat.types import Gaussian

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
VARIANCES = torch.tensor([0.0, 0.4, 1.5], dtype=torch.float64)
MEANS = torch.tensor([0.3 + 0j, 1 - 1j, -0.5 + 0.2j], dtype=torch.complex128)
MIXED = Mixture(WEIGHTS, VARIANCES, learnable=False, means=MEANS)
SMOOTH = Mixture(WEIGHTS, VARIANCES + 0.2, learnable=False, means=MEANS)


def plane(half=7.0, points=701):
    side = torch.linspace(-half, half, points, dtype=torch.float64)
    re, im = torch.meshgrid(side, side, indexing="ij")
    return torch.complex(re, im).flatten(), float(side[1] - side[0]) ** 2


def density(prior, x):
    """p(x) written out component by component."""
    total = torch.zeros(x.shape, dtype=torch.float64)
    for w, v, m in zip(prior.weights, prior.variances, prior.means, strict=True):
        total += w * (-(x - m).abs().square() / v).exp() / (math.pi * v)
    return total


def test_moments_and_denoiser_are_those_of_the_quadrature():
    x, cell = plane()
    p = density(SMOOTH, x) * cell
    assert abs(float(p.sum()) - 1) < 1e-6
    now = SMOOTH.moments()
    mean = (p * x).sum()
    torch.testing.assert_close(now.mean, mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(now.var, (p * (x - mean).abs().square()).sum(), rtol=1e-6, atol=0)
    for r in (0.4 - 0.9j, -1.2 + 0.1j):
        for noise in (0.1, 2.0):
            joint = p * (-(x - r).abs().square() / noise).exp() / (math.pi * noise)
            evidence = joint.sum()
            mean = (joint * x).sum() / evidence
            var = (joint * (x - mean).abs().square()).sum() / evidence
            seen = Gaussian(torch.tensor([r], dtype=torch.complex128), torch.tensor(noise, dtype=torch.float64))
            found = SMOOTH.denoise(seen)
            torch.testing.assert_close(found.mean[0], mean, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(found.var[0], var, rtol=1e-5, atol=0)
            torch.testing.assert_close(SMOOTH.log_evidence(seen), evidence.log(), rtol=1e-6, atol=1e-8)


def test_components_make_up_the_denoiser():
    gen = generator("parts")
    r = Gaussian(complex_normal((50,), gen, torch.complex128), torch.tensor(0.3, dtype=torch.float64))
    share, each = MIXED.by_component(r)
    whole = MIXED.denoise(r)
    torch.testing.assert_close(share.sum(-1), torch.ones(50, dtype=torch.float64))
    mean = (share * each.mean).sum(-1)
    torch.testing.assert_close(whole.mean, mean)
    second = (share * (each.mean.abs().square() + each.var)).sum(-1) - mean.abs().square()
    torch.testing.assert_close(whole.var, second)
    assert torch.equal(each.mean[:, 0], MEANS[0].expand(50)) and bool((each.var[:, 0] == 0).all())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_means_of_zero_are_no_means(dtype):
    plain = bernoulli_gauss(0.3, 2.0).expand((4,), (20,), torch.zeros(1, dtype=dtype))
    zero = Mixture(plain.weights, plain.variances, means=torch.zeros_like(plain.variances))
    gen = generator("zero")
    r = Gaussian(complex_normal((4, 20), gen, dtype), torch.rand(4, 1, generator=gen).to(dtype.to_real()))
    for ours, theirs in ((zero.denoise(r), plain.denoise(r)), (zero.moments(), plain.moments())):
        torch.testing.assert_close(ours.mean, theirs.mean.expand(ours.mean.shape))
        torch.testing.assert_close(ours.var, theirs.var)
    torch.testing.assert_close(zero.log_evidence(r), plain.log_evidence(r))
    ours, theirs = zero.learn(r), plain.learn(r)
    torch.testing.assert_close(ours.weights, theirs.weights)
    torch.testing.assert_close(ours.variances, theirs.variances)
    for got, want in zip(zero.by_component(r)[1].mean, plain.by_component(r)[1].mean, strict=True):
        torch.testing.assert_close(got, want)


def test_samples_have_the_moments_and_the_shares():
    x = MIXED.sample((200000,), generator("sample"), torch.complex64)
    assert x.dtype == torch.complex64
    now = MIXED.moments()
    assert abs(complex(x.mean()) - complex(now.mean)) < 0.01
    assert abs(float((x - now.mean).abs().square().mean() / now.var) - 1) < 0.02
    assert abs(float((x == MEANS[0].to(x)).float().mean()) - 0.5) < 0.005  # the component without variance


def test_em_about_the_means_raises_the_evidence_and_finds_the_law():
    """Means per entry, weights and variances shared."""
    gen = generator("em means")
    means = torch.stack(
        [torch.zeros(30000, dtype=torch.complex128), complex_normal((30000,), gen, torch.complex128)], -1
    )
    truth = Mixture(torch.tensor([0.7, 0.3]).double(), torch.tensor([0.0, 0.5]).double(), means=means)
    x = truth.sample((30000,), gen, torch.complex128)
    r = Gaussian(x + complex_normal((30000,), gen, torch.complex128, 0.1), torch.tensor(0.1, dtype=torch.float64))
    guess = Mixture(torch.tensor([0.4, 0.6]).double(), torch.tensor([0.0, 2.0]).double(), means=means)
    last = guess.log_evidence(r)
    for _ in range(60):
        guess = guess.learn(r)
        now = guess.log_evidence(r)
        assert now >= last - 1e-9 * last.abs()
        last = now
    assert torch.equal(guess.means, means) and float(guess.variances[0, 0]) == 0
    assert abs(float(guess.weights[0, 1]) - 0.3) < 0.01 and abs(float(guess.variances[0, 1]) / 0.5 - 1) < 0.05


def test_one_em_step_is_the_weighted_second_moment_about_the_means():
    gen = generator("step means")
    r = Gaussian(complex_normal((40,), gen, torch.complex128), torch.tensor(0.3, dtype=torch.float64))
    share, each = SMOOTH.by_component(r)
    want = (share * ((each.mean - MEANS).abs().square() + each.var)).sum(0) / share.sum(0)
    learned = SMOOTH.learn(r)
    torch.testing.assert_close(learned.variances[0], want)
    torch.testing.assert_close(learned.weights[0], share.mean(0))


def test_scaling_turns_and_stretches_the_means():
    c = torch.tensor([2.0 * complex(0.6, 0.8), 0.5], dtype=torch.complex128)
    own = MIXED.expand((2,), (5,), torch.zeros(1, dtype=torch.complex128))
    r = Gaussian(complex_normal((2, 5), generator("scaled"), torch.complex128), torch.tensor(0.4, dtype=torch.float64))
    size = c.abs().square()[:, None]
    there = own.scaled(c[:, None]).denoise(Gaussian(c[:, None] * r.mean, size * r.var))
    here = own.denoise(r)
    torch.testing.assert_close(there.mean, c[:, None] * here.mean)
    torch.testing.assert_close(there.var, size * here.var)


def test_parameters_travel_with_their_means():
    own = MIXED.expand((3,), (4, 5), torch.zeros(1, dtype=torch.complex64))
    assert {k: tuple(v.shape) for k, v in own.params().items()} == dict.fromkeys(
        ("weights", "variances", "means"), (3, 1, 1, 3)
    )
    assert own.means.dtype == torch.complex64
    again = own.with_params(own.params())
    assert torch.equal(again.means, own.means)
    assert "means" not in bernoulli_gauss().params()
    assert Mixture(torch.ones(1), torch.ones(1), means=torch.ones(1)).means.is_complex()


def test_extreme_noise_is_stood():
    for dtype in (torch.complex64, torch.complex128):
        own = MIXED.expand((), (3,), torch.zeros(1, dtype=dtype))
        r = torch.tensor([0.3 + 0j, 1 - 1j, 1e3 + 0j], dtype=dtype)
        for noise in (0.0, 1e-30, 1e30, torch.inf):
            found = own.denoise(Gaussian(r, torch.tensor(noise, dtype=dtype.to_real())))
            assert torch.isfinite(found.mean).all() and torch.isfinite(found.var).all()
        torch.testing.assert_close(found.mean, own.moments().mean.expand(3))


def test_wrong_means_are_named():
    with pytest.raises(ValueError, match="as many means as variances"):
        Mixture(torch.ones(1), torch.ones(1), means=torch.ones(2))
