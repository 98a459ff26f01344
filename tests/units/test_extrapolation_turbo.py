"""`em-turbo`: its E-step against dense and Kronecker algebra, its M-step against autograd, and what each is worth."""

import math

import pytest
import torch

from hhat.extrapolation.model import delay_steering
from hhat.extrapolation.turbo import EmTurbo, cell_slopes
from hhat.ops import Dense, KhatriRao, Kron
from hhat.ops.posterior import posterior
from hhat.random import complex_normal, generator
from hhat.tracking.dynamics import Belief, MarkovGauss
from hhat.types import Gaussian
from tests.units.sounding_fakes import SCENE, db, draw, errors

GEN = generator("test", "turbo")
DOUBLE = torch.complex128


def turns(*shape):
    return torch.polar(torch.ones(shape, dtype=torch.float64), 6.3 * torch.rand(shape, generator=GEN).double())


def test_cells_with_doppler_phases_have_the_dense_posterior_and_all_cells_the_kronecker_one():
    """Y = D (E . X) B^T + W with a unit-modulus E: E moves into the columns."""
    left, right, e = complex_normal((3, 4), GEN, DOUBLE), complex_normal((5, 6), GEN, DOUBLE), turns(4, 6)
    y, z, v = complex_normal((3, 5), GEN, DOUBLE), complex_normal((4, 6), GEN, DOUBLE), 0.7
    every = torch.cartesian_prod(torch.arange(4), torch.arange(6))
    columns = KhatriRao(left[:, every[:, 0]], right[:, every[:, 1]] * e.flatten())
    prior = Gaussian(z.flatten(), torch.full((24,), v, dtype=torch.float64))
    found = posterior(columns, y, prior, 0.1).belief
    a = torch.kron(left, right) * e.flatten()
    cov = torch.linalg.inv(a.mH @ a / 0.1 + torch.eye(24, dtype=torch.float64) / v)
    mean = z.flatten() + cov @ a.mH @ (y.flatten() - a @ z.flatten()) / 0.1
    assert (found.mean - mean).abs().max() < 1e-10 and (found.var - cov.diagonal().real).abs().max() < 1e-10
    grid = Kron(Dense(left), Dense(right))
    turned = posterior(grid, y, Gaussian(e * z, torch.full((1, 1), v, dtype=torch.float64)), 0.1).belief
    assert (turned.mean / e - mean.view(4, 6)).abs().max() < 1e-10
    assert abs(float(turned.var.mean()) - float(cov.diagonal().real.mean())) < 1e-14


def test_limits_of_the_cells_denoiser():
    law = MarkovGauss(1e-4, 0.02, 0.1, memory=None)
    r, mean = complex_normal((6,), GEN, DOUBLE), complex_normal((6, 1), GEN, DOUBLE).expand(6, 2)

    def full(value, *shape):
        return torch.full((6, *shape), value, dtype=torch.float64)

    def denoised(activity, noise, law=law):
        predicted = law.predict(Belief(full(activity), mean, full(0.3, 2), full(1.0)))
        return predicted, predicted.mixture().denoise(Gaussian(r, full(noise))).mean

    predicted, found = denoised(1.0, 0.2, MarkovGauss(1e-4, 0.0, 0.1, memory=None))
    gain = predicted.var[:, 1] / (predicted.var[:, 1] + 0.2)
    product = predicted.mean[:, 1] + gain * (r - predicted.mean[:, 1])
    assert torch.allclose(found, product)
    assert torch.allclose(denoised(0.9, 1e-9)[1], r, atol=1e-6)
    assert denoised(0.0, 0.2, MarkovGauss(1e-12, 0.02, 0.1, memory=None))[1].abs().max() < 1e-8


def test_the_gradient_of_the_grid_is_that_of_the_likelihood():
    model = SCENE.model
    tones = model.tones_hz()[:20]
    delay = 1e-6 * torch.rand(2, 5, generator=GEN).double()
    cosine = torch.rand(2, 5, 2, generator=GEN).double() - 0.5
    x, y = complex_normal((2, 5), GEN, DOUBLE), complex_normal((2, 8, 20), GEN, DOUBLE)

    def loss(delay, cosine):
        op = KhatriRao(model.array_steering(cosine).mT, delay_steering(tones, delay))
        return -(y - op.apply(x)).abs().square().sum(), op

    delay.requires_grad_(True), cosine.requires_grad_(True)
    value, op = loss(delay, cosine)
    value.backward()
    with torch.no_grad():
        found = cell_slopes(model, op, x, y - op.apply(x), tones)
    assert torch.allclose(found[0], delay.grad, rtol=1e-9) and torch.allclose(found[1], cosine.grad[..., 0])
    assert torch.allclose(found[2], cosine.grad[..., 1])


def test_doppler_steps_find_the_phase_that_the_cells_turned_by():
    model = SCENE.model
    method = EmTurbo(model, doppler_std_hz=50.0)
    tones, elapsed = model.tones_hz()[:32], torch.tensor([5e-3], dtype=torch.float64)
    x, true = complex_normal((1, 3), GEN, DOUBLE), torch.tensor([[4.0, -7.0, 1.0]]).double()
    delay = 1e-6 * torch.rand(1, 3, generator=GEN).double()
    cosine = torch.tensor([[[0.7, 0], [-0.2, 0.1], [0.1, 0]]]).double()
    columns = lambda f: KhatriRao(  # noqa: E731
        model.array_steering(cosine).mT,
        delay_steering(tones, delay) * torch.polar(torch.ones_like(f), 2 * math.pi * f * 5e-3)[:, None],
    )
    y, f = columns(true).apply(x), torch.zeros(1, 3).double()
    for _ in range(60):
        op = columns(f)
        f = method._doppler(f, torch.zeros_like(f), op, x, y - op.apply(x), torch.tensor([1e-3]).double(), elapsed)
    assert (f - true).abs().max() < 0.05


def test_the_m_step_is_what_makes_it_follow():
    slots, told, _ = draw(3, 7)
    small = {"model": SCENE.model, "stage1": told, "delay_lines": 64, "max_cells": 40, "em_steps": 3}
    with_step, estimates, _ = errors(EmTurbo(**small), slots)
    without, _, _ = errors(EmTurbo(**small, em_step=False), slots)
    middle, held = db(with_step[4:].median(1).values), db(without[4:].median(1).values)
    assert middle < -20 and held > middle + 8
    assert all(torch.isfinite(est.belief.var).all() for est in estimates[4:])


def test_cells_take_over_the_paths_of_stage_1():
    slots, told, _ = draw(2, 4)
    found, _, state = errors(EmTurbo(SCENE.model, told, delay_lines=64, max_cells=60), slots)
    assert db(found[3]) < -15  # paths as they were told, up to cells that share a line
    assert (state["activity"] > 0.5).sum(-1).tolist() == [3, 3]


@pytest.mark.parametrize(
    "setting", [{"num_symbols": 1}, {"num_paths": 0}, {"em_steps": 0}, {"delay_lines": 1}, {"delay_std_s": 0}]
)
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match="expected a"):
        EmTurbo(SCENE.model, **setting)
