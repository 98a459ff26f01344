"""Methods against closed forms: LMMSE's own error, the Gaussian limits of the message-passing solvers, ridge."""

import math

import pytest
import torch

import hhat
from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.priors import Gauss, covariance
from hhat.random import complex_normal, generator
from hhat.types import Observation


def pilots(num=200, rx=4, tx=12, pilot=8, dtype=torch.complex128):
    gen = generator("limits")
    x = complex_normal((tx, pilot), gen, dtype)
    return gen, Kron(Identity((rx,)), Dense(x.mT))


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 30.0])
def test_lmmse_reaches_its_closed_form_error(snr_db):
    """CDL-C at 64x16, 38 pilots, exact covariance: pooled error within 0.1 dB of tr(Sigma)/tr(C)."""
    scenario = hhat.scenario("cdl", profile="C", snr_db=snr_db)
    slot = scenario.draw(300, generator("closed form", snr_db))
    c = scenario.covariance()
    est = hhat.solve(hhat.method("lmmse", prior=covariance(c, shape=(16, 64))), slot.obs)
    x = scenario.pilot_matrix().to(torch.complex128)
    a = torch.kron(torch.eye(16, dtype=torch.complex128), x.mT.contiguous())
    c = c.to(torch.complex128)
    noise = float(torch.as_tensor(slot.obs.noise_var).max())
    system = a @ c @ a.mH + noise * torch.eye(a.shape[0], dtype=a.dtype)
    gain = torch.linalg.solve(system, a @ c)
    want = (c.diagonal().real.sum() - (c @ a.mH @ gain).diagonal().real.sum()) / c.diagonal().real.sum()
    got = (est.belief.mean - slot.truth.h).abs().square().sum() / (300 * c.diagonal().real.sum())
    assert abs(10 * math.log10(float(got) / float(want))) < 0.1
    reported = est.belief.var.expand(est.belief.mean.shape).double().mean() / c.diagonal().real.mean()
    assert abs(float(reported) / float(want) - 1) < 1e-2


def check_gaussian_limit(name: str, max_steps: int = 3000):
    """oamp and gamp with a Gaussian prior equal LMMSE, also with a mean and per-entry variances."""
    gen, op = pilots()
    var = torch.rand(4, 12, generator=gen, dtype=torch.float64) + 0.2
    for prior in (Gauss(1.5), Gauss(var, mean=0.3 + 0.1j), Gauss(1.0, basis=Kron(Fourier(4), Fourier(12)))):
        h = prior.sample((20, 4, 12), gen, torch.complex128)
        h = h if prior.basis is None else prior.basis.apply(h)
        y = op.apply(h) + complex_normal((20, 4, 8), gen, torch.complex128, 0.3)
        obs = Observation(y, op, 0.3)
        want = hhat.solve(hhat.method("lmmse", prior=prior), obs).belief
        settings = {"average_axes": ()} if name == "oamp" else {}
        got = hhat.solve(hhat.method(name, prior=prior, **settings), obs, max_steps=max_steps, tol=1e-22).belief
        scale = want.mean.abs().square().mean().sqrt()
        assert float((got.mean - want.mean).abs().max() / scale) < 1e-4
        if name == "oamp":  # gamp's variances are those of an i.i.d. matrix, exact only in the limit
            each = ((got.var - want.var).abs() / want.var).max()
            total = (got.var.mean() / want.var.expand(got.var.shape).mean() - 1).abs()
            assert float(total) < 1e-4
            # in a unitary basis the errors of the coefficients are taken as independent: right in sum only
            assert prior.basis is not None or float(each) < 1e-4


@pytest.mark.parametrize("name", ["oamp", "gamp"])
def test_gaussian_prior_is_lmmse(name):
    check_gaussian_limit(name)


def test_scalar_oamp_with_a_white_prior_is_lmmse():
    gen, op = pilots()
    prior = Gauss(0.8)
    y = op.apply(prior.sample((20, 4, 12), gen, torch.complex128))
    y = y + complex_normal(y.shape, gen, torch.complex128, 0.1)
    obs = Observation(y, op, 0.1)
    want = hhat.solve(hhat.method("lmmse", prior=prior), obs).belief
    got = hhat.solve(hhat.method("oamp", prior=prior), obs, max_steps=1000, tol=1e-20).belief
    assert float((got.mean - want.mean).abs().max()) < 1e-4


def test_rls_is_ridge_regression():
    gen, op = pilots()
    y = complex_normal((50, 4, 8), gen, torch.complex128)
    est = hhat.solve(hhat.method("rls"), Observation(y, op, 0.2))
    x = op.right.matrix.mT
    for i in (0, 7):
        gain = (x.abs().square().sum(0)).mean()
        power = torch.maximum((y[i].abs().square() - 0.2).mean(), 0.01 * y[i].abs().square().mean()) / gain
        ridge = y[i] @ torch.linalg.solve(x.mH @ x + 0.2 / power * torch.eye(8), x.mH)
        torch.testing.assert_close(est.belief.mean[i], ridge)


def test_ls_is_the_pseudo_inverse():
    gen, op = pilots()
    y = complex_normal((5, 4, 8), gen, torch.complex128)
    est = hhat.solve(hhat.method("ls"), Observation(y, op, 0.2))
    torch.testing.assert_close(est.belief.mean, y @ torch.linalg.pinv(op.right.matrix.mT))


def test_lasso_meets_its_optimality_conditions():
    """|A^H (y - A x)| = lambda on the support, in the direction of x, and <= lambda off it."""
    gen, op = pilots()
    y = complex_normal((10, 4, 8), gen, torch.complex128)
    obs = Observation(y, op, 0.5)
    est = hhat.solve(hhat.method("lasso", strength=0.7), obs, max_steps=20000, tol=1e-26)
    x = est.info["coefficients"]
    dual = op.adjoint(y - op.apply(x))
    columns = op.dense(torch.complex128).abs().square().sum(0).mean()
    penalty = 0.7 * (0.5 * columns) ** 0.5
    on = x.abs() > 1e-9
    torch.testing.assert_close(dual[on], (penalty * x / x.abs())[on], rtol=1e-5, atol=1e-6)
    assert float(dual.abs()[~on].max()) <= float(penalty) * (1 + 1e-6)


def test_omp_equals_a_plain_loop():
    gen = generator("omp")
    a = complex_normal((20, 30), gen, torch.complex128)
    x = torch.zeros(8, 30, dtype=torch.complex128)
    for i in range(8):
        x[i, torch.randperm(30, generator=gen)[:3]] = complex_normal((3,), gen, torch.complex128) + 1
    y = x @ a.mT + complex_normal((8, 20), gen, torch.complex128, 0.01)
    est = hhat.solve(hhat.method("omp", max_atoms=8), Observation(y, Dense(a), 0.01))
    for i in range(8):
        support: list[int] = []
        residual = y[i]
        while residual.abs().square().sum() > 20 * 0.01 * (1 + 20**-0.5) and len(support) < 8:
            score = (a.mH @ residual).abs().square() / a.abs().square().sum(0)
            score[support] = -1
            support.append(int(score.argmax()))
            fit = torch.linalg.lstsq(a[:, support], y[i][:, None]).solution[:, 0]
            residual = y[i] - a[:, support] @ fit
        want = torch.zeros(30, dtype=torch.complex128)
        want[support] = fit
        torch.testing.assert_close(est.belief.mean[i], want, rtol=1e-6, atol=1e-8)


def test_sbl_never_lowers_its_evidence():
    gen, op = pilots()
    y = complex_normal((10, 4, 8), gen, torch.complex128)
    obs = Observation(y, op, 0.2, ("rx_ant", "tx_ant"))
    for tied in ((), ("rx_ant",)):
        method = hhat.method("sbl", tied_axes=tied, m_step=hhat.m_step("em"))
        state = method.init(obs, gen)
        last = method.read(state, obs).info["log_evidence"]
        for _ in range(40):
            state = method.step(state, obs)
            now = method.read(state, obs).info["log_evidence"]
            assert (now >= last - 1e-8 * last.abs()).all()
            last = now
