"""`autoregressive-tracking` against Kalman filters, and against one exact sum over a discrete past."""

import pytest
import torch

import hhat
from hhat.methods.oamp import Oamp
from hhat.ops import Dense, Diagonal, Identity
from hhat.ops.posterior import posterior
from hhat.priors import Gauss, bernoulli_gauss
from hhat.priors.informed import Informed
from hhat.random import complex_normal, generator
from hhat.tracking import AutoregressiveTracking
from hhat.types import Gaussian, Observation

DOUBLE = torch.complex128


def kalman(slots, mean, cov, correlation):
    """Posterior means and covariances, dense, for operators on one axis."""
    m, p = mean, cov
    for t, slot in enumerate(slots):
        if t:
            m = mean + correlation * (m - mean)
            p = correlation**2 * p + (1 - correlation**2) * cov
        a = slot.op.dense(DOUBLE)
        inside = a @ p @ a.mH + torch.diag_embed(slot.noise_var.expand(slot.y.shape).to(DOUBLE))
        gain = torch.linalg.solve(inside, a @ p).mH
        m = m + (gain @ (slot.y - m @ a.mT)[..., None])[..., 0]
        p = p - gain @ a @ p
        yield m, p.diagonal(dim1=-2, dim2=-1).real


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95, 1.0])
def test_a_gaussian_prior_and_a_diagonal_operator_make_a_kalman_filter(correlation):
    """To round-off, slot by slot, with a mean, unequal powers and noise per sample; counting the prior twice is
    seen at once."""
    gen = generator("kalman", correlation)
    p = torch.rand(7, generator=gen, dtype=torch.float64) + 0.1
    mu, gain = complex_normal((7,), gen, DOUBLE), complex_normal((7,), gen, DOUBLE)
    noise = torch.rand(6, 3, 7, generator=gen, dtype=torch.float64) + 0.05
    slots = [Observation(complex_normal((3, 7), gen, DOUBLE, 2.0), Diagonal(gain), n) for n in noise]
    method = AutoregressiveTracking(Gauss(p, mu), correlation, Oamp(average_axes=(), damping=1.0), 3)
    want = kalman(slots, mu, torch.diag(p).to(DOUBLE).expand(3, 7, 7), correlation)
    for slot, (state, est), (m, v) in zip(slots, hhat.track(method, slots), want, strict=True):
        torch.testing.assert_close(est.belief.mean, m, rtol=1e-10, atol=1e-12)
        again = posterior(slot.op, slot.y, method.factor(state, slot), slot.noise_var).belief  # prior and past in one
        torch.testing.assert_close(again.mean, m, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(est.belief.var, v, rtol=1e-10, atol=0)


def test_fewer_pilots_than_coefficients_come_near_the_kalman_filter():
    """New pilots in every slot: the filter knows how errors of coefficients hang together, this does not, and loses
    less than 1 dB of the 4 or more that tracking gains."""
    gen = generator("near kalman")
    p = torch.linspace(0.2, 2, 32, dtype=torch.float64)
    x, slots, truth = complex_normal((40, 32), gen, DOUBLE, p), [], []
    for t in range(8):
        if t:
            x = 0.95 * x + complex_normal((40, 32), gen, DOUBLE, (1 - 0.95**2) * p)
        op = Dense(complex_normal((16, 32), gen, DOUBLE) / 4)
        slots.append(Observation(op.apply(x) + complex_normal((40, 16), gen, DOUBLE, 0.1), op, 0.1))
        truth.append(x)
    method = AutoregressiveTracking(Gauss(p), 0.95, Oamp(average_axes=(), damping=0.5))
    *_, (_, est) = hhat.track(method, slots)
    *_, (best, _) = kalman(slots, torch.zeros(32, dtype=DOUBLE), torch.diag(p).to(DOUBLE).expand(40, 32, 32), 0.95)
    alone = hhat.solve(hhat.method("lmmse", prior=Gauss(p)), slots[-1]).belief.mean
    errors = [hhat.nmse_db(found, truth[-1]) for found in (best, est.belief.mean, alone)]
    assert errors[0] < errors[1] < errors[0] + 1 and errors[1] < errors[2] - 3, errors


def test_a_factor_beside_a_prior_is_bayes_rule():
    """Moments and evidence by sums over a grid of the complex plane, for zero-or-Gauss."""
    prior = bernoulli_gauss(0.4, var=1.5, learnable=False)
    told, r = (
        Gaussian(torch.tensor(0.5 + 0.2j), torch.tensor(0.8)),
        Gaussian(torch.tensor([0.3 - 0.4j]), torch.tensor(0.5)),
    )
    factor = told.message()
    found = Informed(prior, factor.precision, factor.shift)
    line = torch.linspace(-7, 7, 1201, dtype=torch.float64)
    grid = torch.complex(*torch.meshgrid(line, line, indexing="ij"))

    def normal(mean, var):
        return torch.exp(-(grid - mean).abs().square() / var) / (torch.pi * var)

    likely = normal(told.mean, 0.8)
    slab, spike = 0.4 * normal(0, 1.5), torch.zeros_like(line[0]) + 0.6
    cell, middle = float(line[1] - line[0]) ** 2, 600

    def moments(weight):
        """Of prior times `weight`: mass, mean, second moment."""
        mass = (slab * weight).sum() * cell + spike * weight[middle, middle]
        return (
            mass,
            (slab * weight * grid).sum() * cell / mass,
            (slab * weight * grid.abs().square()).sum() * cell / mass,
        )

    before, prior_mean, second = moments(likely)
    after, mean, power = moments(likely * normal(r.mean, 0.5))
    x, now = found.denoise(r), found.moments()
    for got, want in (
        (x.mean, mean),
        (x.var, power - mean.abs() ** 2),
        (now.mean, prior_mean),
        (now.var, second - prior_mean.abs() ** 2),
        (found.log_evidence(r), (after / before).log()),
    ):
        torch.testing.assert_close(got.squeeze().to(want.dtype), want, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="draw from"):
        found.sample((2,), generator("none"))


def test_a_prior_that_is_learned_finds_the_power():
    gen = generator("power")
    x = complex_normal((4, 200), gen, DOUBLE, 3.0)
    slots = []
    for _ in range(12):
        x = 0.9 * x + complex_normal((4, 200), gen, DOUBLE, 0.19 * 3.0)
        slots.append(Observation(x + complex_normal((4, 200), gen, DOUBLE, 1.0), Identity((200,)), 1.0))
    method = AutoregressiveTracking(Gauss(learnable=True), 0.9)
    *_, (_, est) = hhat.track(method, slots)
    torch.testing.assert_close(est.info["prior"].var, torch.full((4, 1), 3.0).double(), rtol=0.25, atol=0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"correlation": 1.1}, "correlation: expected 0..1, got 1.1"),
        ({"inner": hhat.method("ls")}, "takes no prior"),
        ({"inner_steps": 0}, "inner_steps"),
    ],
)
def test_wrong_settings(wrong, words):
    with pytest.raises(ValueError, match=words):
        AutoregressiveTracking(Gauss(1.0), **wrong)
