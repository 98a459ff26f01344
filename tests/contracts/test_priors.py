"""What every registered prior owes, against Monte Carlo, quadrature and limits."""

import pytest
import torch

from hhat import registry
from hhat.priors import Gauss, bernoulli_gauss
from hhat.random import complex_normal, generator
from hhat.types import Gaussian

CASES = {
    "gauss": {"var": 1.7},
    "gauss example": {},
    "gauss with mean": {"var": 0.7, "mean": 0.5 + 1j},
    "covariance": {"matrix": torch.eye(6, dtype=torch.complex64) * 2.0},
    "experts": {"experts": (Gauss(0.3), Gauss(2.0, mean=1.0), bernoulli_gauss(0.4, learnable=False))},
    "experts example": {},
    "bernoulli-gauss": {"active": 0.2},
    "gauss-mixture": {"variances": (0.01, 0.5, 6.0)},
    "markov": {"appear": 0.1, "vanish": 0.3},
    "markov short": {"appear": 0.3, "vanish": 0.3, "var": 2.0},
    "ising": {},
    "pattern-coupled": {},
    "cnn": {},
    "markov-gamma": {},
    "markov-gamma-printed": {},
    "markov-random-field": {},
    "sparse-bayes": {},
    "diffusion example": {},
    "dncnn example": {},
}


def build(case):
    if case.endswith("example"):
        return registry.load("priors", case.split()[0]).example(generator("example"))
    return registry.build("priors", case.split(" ")[0], CASES[case])


def test_every_registered_prior_has_a_case():
    assert {case.split(" ")[0] for case in CASES} == set(registry.PRIORS)


@pytest.fixture(params=CASES, scope="module")
def prior(request):
    return build(request.param)


LAST: dict = {}
NUM_EM = 10000


def sampled(prior):
    """50,000 x 6 draws of the prior, made once for all tests of it: some sample by hundreds of network passes."""
    if LAST.get("prior") is not prior:
        LAST.update(prior=prior, x=prior.sample((50000, 6), generator("prior"), torch.complex64))
    return LAST["x"]


def observed(prior, v):
    x = sampled(prior)
    r = x + complex_normal(tuple(x.shape), generator("prior noise", v), var=v)
    return x, Gaussian(r, torch.tensor(v))


@pytest.mark.parametrize("v", [0.05, 1.0, 10.0])
def test_reported_variance_is_the_error(prior, v):
    x, r = observed(prior, v)
    found = prior.denoise(r)
    error = (found.mean - x).abs().square().mean()
    assert abs(error / found.var.expand(x.shape).mean() - 1) < 0.02


@pytest.mark.parametrize("v", [0.05, 1.0])
def test_error_is_orthogonal_to_every_function_of_r(prior, v):
    x, r = observed(prior, v)
    error = prior.denoise(r).mean - x
    for probe in (r.mean, r.mean * r.mean.abs(), r.mean / (1 + r.mean.abs().square())):
        correlation = (error * probe.conj()).mean().abs()
        scale = (error.abs().square() * probe.abs().square()).mean().sqrt()
        assert correlation < 5 * scale / x.numel() ** 0.5


def test_denoiser_beats_every_scaled_one(prior):
    x, r = observed(prior, 0.5)
    best = (prior.denoise(r).mean - x).abs().square().mean()
    for factor in (0.9, 1.1):
        assert ((prior.denoise(r).mean * factor - x).abs().square().mean()) > best


def test_limits(prior):
    r = complex_normal((50, 6), generator("limit"))
    sharp = prior.denoise(Gaussian(r, torch.tensor(1e-12)))
    torch.testing.assert_close(sharp.mean, r, rtol=1e-3, atol=1e-3)
    flat = prior.denoise(Gaussian(r, torch.tensor(torch.inf)))
    now = prior.moments()
    torch.testing.assert_close(flat.mean, now.mean.expand(r.shape), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(flat.var.expand(r.shape), now.var.expand(r.shape), rtol=1e-4, atol=1e-4)


def test_moments_are_those_of_the_samples(prior):
    x = sampled(prior)
    now = prior.moments()
    assert (x.mean() - now.mean).abs().max() < 0.02
    spread = (x - now.mean).abs().square().mean()
    assert abs(spread / now.var.mean() - 1) < 0.03


def test_scaling(prior):
    c = torch.tensor(3.0)
    r = complex_normal((20, 6), generator("scale"))
    plain = prior.denoise(Gaussian(r, torch.tensor(0.4)))
    scaled = prior.scaled(c).denoise(Gaussian(c * r, c**2 * torch.tensor(0.4)))
    torch.testing.assert_close(scaled.mean, c * plain.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled.var, c**2 * plain.var, rtol=1e-4, atol=1e-5)


def test_evidence_is_a_density(prior):
    """Integral of p(r) over the plane, by quadrature, is 1."""
    one = prior.expand((), (1,), torch.zeros(1, dtype=torch.complex128))
    side = torch.linspace(-25, 25, 801, dtype=torch.float64)  # steps far below the narrowest deviation, 0.7
    re, im = torch.meshgrid(side, side, indexing="ij")
    r = Gaussian(torch.complex(re, im).reshape(-1, 1), torch.tensor(0.5, dtype=torch.float64))
    total = one.log_evidence(r).exp().sum() * (side[1] - side[0]) ** 2
    assert abs(float(total) - 1) < 1e-3


def test_em_never_lowers_the_evidence_and_finds_the_truth(prior):
    if not prior.exact_em:
        pytest.skip("its learning is no exact EM; tests/units hold what it is")
    gen = generator("em")
    x = prior.sample((1, NUM_EM), gen, torch.complex64)
    r = Gaussian(x + complex_normal(x.shape, gen, var=0.1), torch.tensor(0.1))
    own = prior.expand((1,), (NUM_EM,), x)
    guess = own.with_params({k: v * (0.25 if k.startswith("var") else 1) for k, v in own.params().items()})
    last = guess.log_evidence(r)
    for _ in range(200):
        guess = guess.learn(r)
        now = guess.log_evidence(r)
        assert (now >= last - 1e-3 - 1e-6 * last.abs()).all()
        last = now
    assert abs(float(last - own.log_evidence(r)) / NUM_EM) < 2e-3
    assert abs(float(guess.moments().var.mean() / own.moments().var.mean()) - 1) < 0.1


def test_batch_equals_loop(prior):
    r = complex_normal((4, 6), generator("batch"))
    v = torch.rand(4, 1, generator=generator("bv")) + 0.1
    own = prior.expand((4,), (6,), r)
    together = own.learn(Gaussian(r, v)).denoise(Gaussian(r, v))
    for i in range(4):
        one = prior.expand((1,), (6,), r)
        item = Gaussian(r[i : i + 1], v[i : i + 1])
        alone = one.learn(item).denoise(item)
        torch.testing.assert_close(together.mean[i : i + 1], alone.mean)
        torch.testing.assert_close(together.var[i : i + 1], alone.var)


def test_tied_axes_share_and_others_do_not():
    r = complex_normal((3, 4, 5), generator("tied")) * torch.tensor([0.1, 1, 2, 5, 10])
    for name, settings in (("gauss", {"learnable": True}), ("bernoulli-gauss", {}), ("gauss-mixture", {})):
        prior = registry.build("priors", name, {**settings, "tied_axes": (-2,)}).expand((3,), (4, 5), r)
        learned = prior.learn(Gaussian(r, torch.tensor(0.1)))
        shapes = {k: tuple(v.shape[:3]) for k, v in learned.params().items() if k != "mean"}
        assert set(shapes.values()) == {(3, 1, 5)}, (name, shapes)


@pytest.mark.parametrize(
    ("name", "settings", "word"),
    [
        ("gauss", {"var": -1.0}, "var"),
        ("bernoulli-gauss", {"active": 0.0}, "active"),
        ("gauss-mixture", {"weights": [0.5, 0.1, 0.1, 0.1]}, "weights"),
        ("covariance", {}, "exactly one"),
        ("covariance", {"matrix": torch.zeros(2, 3)}, "square"),
        ("covariance", {"matrix": torch.full((2, 2), torch.nan)}, "finite"),
        ("covariance", {"matrix": torch.eye(2), "shrinkage": 2.0}, "shrinkage"),
        ("gauss", {"variance": 1.0}, "unknown setting 'variance'"),
    ],
)
def test_wrong_settings_are_named(name, settings, word):
    with pytest.raises(ValueError, match=word):
        registry.build("priors", name, settings)


def test_covariance_reaches_its_matrix():
    gen = generator("cov")
    left, right = (complex_normal((n, n + 2), gen, torch.complex128) for n in (2, 3))
    left, right = left @ left.mH, right @ right.mH
    full = registry.build("priors", "covariance", {"matrix": torch.kron(left, right), "shape": (2, 3)})
    factored = registry.build("priors", "covariance", {"factors": (left, right)})
    for prior in (full, factored):
        root = prior.basis.dense(torch.complex128)
        torch.testing.assert_close(root @ root.mH, torch.kron(left, right))
    h = factored.basis.apply(complex_normal((200000, 2, 3), gen, torch.complex128)).reshape(-1, 6)
    sampled = registry.build("priors", "covariance", {"samples": h.reshape(-1, 2, 3), "shrinkage": 1e-4})
    root = sampled.basis.dense(torch.complex128)
    want = torch.kron(left, right)
    assert (root @ root.mH - want).abs().max() / want.abs().max() < 0.03
