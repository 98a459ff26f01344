"""sbl: evidence, equivariance, structure, early stopping."""

import pytest
import torch

import hhat
from hhat.methods.sbl import STEPS_TIED, Sbl
from hhat.ops import Dense, Fourier, Kron, posterior
from hhat.priors import Gauss
from hhat.priors.gamma_field import mrf
from hhat.priors.m_step import Em, MacKay, PatternCoupling
from hhat.random import complex_normal, generator
from hhat.types import Gaussian, Observation

DOUBLE = torch.complex128
RULES = {"em": Em(), "mackay": MacKay(), "pattern": PatternCoupling(), "mrf": mrf()}


def grid(dtype=DOUBLE, angles=12, delays=8, beams=6):
    """Combined pilots of angle x delay coefficients: the delays are seen through a unitary transform."""
    gen = generator("sbl grid")
    op = Kron(Dense(complex_normal((beams, angles), gen, dtype) / beams**0.5), Fourier(delays))
    x = torch.zeros(3, angles, delays, dtype=dtype)
    x[:, 3:6, 2:4] = complex_normal((3, 3, 2), gen, dtype)
    y = op.apply(x) + complex_normal((3, beams, delays), gen, dtype, 0.01)
    return x, Observation(y, op, 0.01)


@pytest.mark.parametrize("tied", [(), (-1,), (-2, -1)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_evidence_never_decreases_under_exact_em(tied, dtype):
    _, obs = grid(dtype)
    method = Sbl(tied_axes=tied, m_step=Em(), max_steps=60)
    state, last = method.init(obs, generator("em")), None
    for _ in range(60):
        state = method.step(state, obs)
        now = method.read(state, obs).info["log_evidence"]
        slack = 1e-9 if dtype == DOUBLE else 2e-3
        assert last is None or bool((now >= last - slack).all())
        last = now


def test_em_step_is_that_of_dense_algebra():
    """One E- and M-step against the inverse of the whole information matrix."""
    _, obs = grid()
    method = Sbl(m_step=Em(), max_steps=1)
    before = method.init(obs, generator("one"))
    after = method.step(before, obs)
    phi = obs.op.dense(DOUBLE)
    v = before["v"].flatten(1)
    for i in range(3):
        sigma = torch.linalg.inv(phi.mH @ phi / 0.01 + torch.diag(1 / v[i]).to(DOUBLE))
        mu = sigma @ phi.mH @ obs.y[i].flatten() / 0.01
        torch.testing.assert_close(after["v"][i].flatten(), mu.abs().square() + sigma.diagonal().real)


@pytest.mark.parametrize("name", RULES)
def test_a_cyclic_shift_of_the_delays_commutes(name):
    """A phase ramp over subcarriers moves every delay: nothing else may change."""
    x, obs = grid()
    moved = obs.op.apply(x.roll(3, -1)) + (obs.y - obs.op.apply(x)) * torch.exp(
        -6j * torch.pi * torch.arange(8, dtype=torch.float64) / 8
    )
    plain = hhat.solve(Sbl(m_step=RULES[name]), obs).belief
    other = hhat.solve(Sbl(m_step=RULES[name]), Observation(moved, obs.op, 0.01)).belief
    torch.testing.assert_close(other.mean, plain.mean.roll(3, -1), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_a_permutation_of_the_delays_commutes_where_nothing_is_coupled(name):
    x, obs = grid()
    order = torch.tensor([0, 4, 2, 7, 1, 5, 3, 6])
    noise = Fourier(8).adjoint(obs.y - obs.op.apply(x))
    y = obs.op.apply(x[..., order]) + Fourier(8).apply(noise[..., order])
    plain = hhat.solve(Sbl(m_step=RULES[name]), obs).belief.mean[..., order]
    other = hhat.solve(Sbl(m_step=RULES[name]), Observation(y, obs.op, 0.01)).belief.mean
    deviation = float((other - plain).abs().max() / plain.abs().max())
    assert deviation < 1e-8 if name in ("em", "mackay") else deviation > 1e-3


def test_coupling_helps_clusters():
    x, obs = grid()
    error = {name: hhat.nmse_db(hhat.solve(Sbl(m_step=rule), obs).belief.mean, x) for name, rule in RULES.items()}
    assert error["pattern"] < error["em"] - 1


def test_early_stopping_is_the_m_steps_own():
    _, obs = grid()
    for rule in RULES.values():
        assert int(hhat.solve(Sbl(m_step=rule), obs).info["steps"][0]) == rule.num_steps
    assert int(hhat.solve(Sbl(tied_axes=(-1,)), obs).info["steps"][0]) == STEPS_TIED


def test_read_is_the_exact_posterior_under_the_learned_variances():
    _, obs = grid()
    est = hhat.solve(Sbl(), obs)
    found = posterior(
        Dense(obs.op.dense(DOUBLE)),
        obs.y.flatten(1),
        Gaussian(torch.zeros((), dtype=DOUBLE), est.info["prior_var"].flatten(1)),
        0.01,
    )
    torch.testing.assert_close(est.belief.mean.flatten(1), found.belief.mean, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(est.belief.var.flatten(1), found.belief.var, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(est.info["log_evidence"], found.log_evidence)


def test_genie_variances_beat_every_m_step():
    x, obs = grid()
    v = x.abs().square()
    best = hhat.nmse_db(posterior(obs.op, obs.y, Gaussian(torch.zeros((), dtype=DOUBLE), v), 0.01).belief.mean, x)
    for rule in RULES.values():
        assert hhat.nmse_db(hhat.solve(Sbl(Gauss(), m_step=rule), obs).belief.mean, x) > best
