"""Reported variance against true squared error: within 10 % for every Bayesian method on its own model."""

import pytest
import torch

import hhat
from hhat.ops import Dense, Diagonal, Fourier, Identity, Kron
from hhat.priors import Gauss, bernoulli_gauss, gauss_mixture
from hhat.random import complex_normal, generator, qpsk
from hhat.types import Observation


def draw(prior, num=60, rx=16, tx=64, pilots=38, noise_var=0.1, label="calibration"):
    gen = generator(label)
    op = Kron(Identity((rx,)), Dense(qpsk((tx, pilots), gen).mT / pilots**0.5))
    x = prior.sample((num, rx, tx), gen)
    h = x if prior.basis is None else prior.basis.apply(x)
    y = op.apply(h) + complex_normal((num, rx, pilots), gen, var=noise_var)
    return h, Observation(y, op, noise_var, ("rx_ant", "tx_ant"))


def ratio(est, h) -> float:
    error = (est.belief.mean - h).abs().square()
    return float(error.sum() / est.belief.var.expand(h.shape).sum())


ANGLES = Kron(Fourier(16), Fourier(64))
SPARSE = bernoulli_gauss(0.1, basis=ANGLES, learnable=False)
CASES = {
    "lmmse": (Gauss(1.0), {"prior": Gauss(1.0)}),
    "rls": (Gauss(1.0), {}),
    "gamp known": (SPARSE, {"prior": SPARSE}),
    "oamp known": (SPARSE, {"prior": SPARSE}),
    "oamp em": (SPARSE, {"prior": bernoulli_gauss(0.3, basis=ANGLES)}),
}


def check_calibration(case: str):
    truth, settings = CASES[case]
    h, obs = draw(truth, noise_var=0.1)
    est = hhat.solve(hhat.method(case.split()[0], **settings), obs)
    assert abs(ratio(est, h) - 1) < 0.1


@pytest.mark.parametrize("case", CASES)
def test_variance_is_the_error(case):
    check_calibration(case)


def test_variance_is_the_error_sbl():
    """Its own model: one unknown variance per coefficient, shared by 16 antennas."""
    gen = generator("sbl calibration")
    var = torch.rand(64, generator=gen) ** 6 * 7
    h, obs = draw(Gauss(var), label="sbl")
    est = hhat.solve(hhat.method("sbl", tied_axes=("rx_ant",)), obs)
    assert abs(ratio(est, h) - 1) < 0.1


@pytest.mark.parametrize("name", ["oamp", "gamp"])
def test_overcomplete_delay_dictionary(name):
    """Off the unitary case the read-out is the exact posterior with the denoiser's factor: still calibrated."""
    scenario = hhat.scenario("ofdm", snr_db=10.0)
    slot = scenario.draw(100, generator("delay", name))
    from hhat.methods.auto import basis_for

    basis, _, _ = basis_for(tuple(slot.obs.op.in_shape), slot.obs.axes, slot.about.subcarriers)
    est = hhat.solve(hhat.method(name, prior=gauss_mixture(basis=basis)), slot.obs)
    assert 0.7 < ratio(est, slot.truth.h) < 1.4


def test_ls_variance_where_everything_is_seen():
    gen = generator("ls")
    pilots = qpsk((52,), gen)
    op = Kron(Identity((8,)), Diagonal(pilots * (1 + torch.rand(52, generator=gen))))
    h = complex_normal((200, 8, 52), gen)
    y = op.apply(h) + complex_normal(h.shape, gen, var=0.3)
    est = hhat.solve(hhat.method("ls"), Observation(y, op, 0.3))
    assert abs(ratio(est, h) - 1) < 0.02
