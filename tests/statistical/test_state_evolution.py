"""EM-GM-AMP and OAMP on the i.i.d. sparse case against state evolution, computed here from scratch.

Model: y = A x + n, x Bernoulli-Gauss (10 %), N = 1024, M = 614. i.i.d. A with entries CN(0, 1/M):
  v <- s2 + (N/M) mse(v);    row-orthonormal A, columns of energy M/N:    v <- (N/M) s2 + (N/M - 1) mmse',
with mse the error of the Bayes denoiser on x + CN(0, v), over the coefficients that were drawn (a draw of 12,288 has
9.4 to 10.2 % active, worth 0.3 dB) and fresh noise; it uses none of the library's denoisers.
"""

import functools
import math

import pytest
import torch

import hhat
from hhat.ops import Dense
from hhat.priors import Prior, bernoulli_gauss, gauss_mixture
from hhat.random import complex_normal, generator
from hhat.types import Observation

COLUMNS, ROWS, ACTIVE = 1024, 614, 0.1


def bayes_error(x: torch.Tensor, v: float) -> float:
    """Mean squared error of the textbook posterior mean of a Bernoulli-Gauss entry (power 1) from x + CN(0, v)."""
    x = x.flatten().to(torch.complex128).repeat(32)
    r = x + complex_normal(tuple(x.shape), generator("bayes error"), torch.complex128, v)
    wide, e = 1 / ACTIVE + v, r.abs().square()
    odds = ACTIVE / (1 - ACTIVE) * v / wide * torch.exp((e / v - e / wide).clamp_max(600))
    mean = odds / (1 + odds) * r / (ACTIVE * wide)
    return float((mean - x).abs().square().mean())


def fixed_point(x: torch.Tensor, noise_var: float, orthogonal: bool) -> float:
    """State evolution of these coefficients, MSE in dB."""
    ratio, error, v = COLUMNS / ROWS, float(x.abs().square().mean()), 0.0
    for _ in range(25):
        if orthogonal:
            extrinsic = 1 / max(1 / error - 1 / v, 1e-9) if v else error
            v = (ratio - 1) * extrinsic + ratio * noise_var
        else:
            v = noise_var + ratio * error
        last, error = error, bayes_error(x, v)  # from the same noise: a fixed point is one to the digit
        if abs(error - last) < 1e-4 * last:
            break
    return 10 * math.log10(error)


@functools.cache
def problem(orthogonal: bool, snr_db: float) -> tuple[torch.Tensor, Observation, float]:
    """Coefficients, what is seen of them, and their state evolution: the same for all methods."""
    gen = generator("state evolution", snr_db)
    a = complex_normal((ROWS, COLUMNS), gen) / ROWS**0.5
    if orthogonal:
        a = torch.linalg.qr(a.mH)[0].mH.contiguous()
    x = bernoulli_gauss(ACTIVE, learnable=False).sample((12, COLUMNS), gen)
    noise_var = (1.0 if orthogonal else COLUMNS / ROWS) * 10 ** (-snr_db / 10)
    y = x @ a.mT + complex_normal((12, ROWS), gen, var=noise_var)
    return x, Observation(y, Dense(a), noise_var), fixed_point(x, noise_var, orthogonal)


def drawn(name: str, prior: Prior, orthogonal: bool, snr_db: float) -> tuple[float, float, float]:
    """Measured MSE in dB, state evolution in dB, and squared error over reported variance."""
    x, obs, predicted = problem(orthogonal, snr_db)
    est = hhat.solve(hhat.method(name, prior=prior), obs)
    error = (est.belief.mean - x).abs().square()
    ratio = error.sum() / est.belief.var.expand(x.shape).sum()
    return 10 * math.log10(float(error.mean())), predicted, float(ratio)


@pytest.mark.parametrize("snr_db", [10.0, 20.0, 30.0])
@pytest.mark.parametrize(
    ("name", "prior", "orthogonal"),
    [
        ("gamp", gauss_mixture(), False),
        ("oamp", bernoulli_gauss(0.3), False),
        ("oamp", bernoulli_gauss(0.3), True),
    ],
)
def test_within_a_third_of_a_db_of_state_evolution(name, prior, orthogonal, snr_db):
    measured, predicted, ratio = drawn(name, prior, orthogonal, snr_db)
    assert abs(measured - predicted) < 0.3
    if name == "oamp":  # the learned law is of the family of the true one: its variance is right too
        assert abs(ratio - 1) < 0.1
