"""`path-ekf`: its update against autograd, its moves of the covariance against Jacobians, and on its own law."""

import pytest
import torch
from torch.autograd.functional import jacobian

from hhat.extrapolation.ekf import PathEkf, _absorbed, updated
from hhat.extrapolation.model import Offsets, Paths, Sounded
from hhat.extrapolation.task import Task
from hhat.random import complex_normal, generator
from tests.units.sounding_fakes import SCENE, db, draw, errors

GEN = generator("test", "ekf")
MODEL = SCENE.model


def some_paths(count=2):
    real = lambda *shape: torch.rand(*shape, generator=GEN).double()  # noqa: E731
    gain = complex_normal((1, count), GEN, torch.complex128)
    there = torch.ones(1, count, dtype=torch.bool)
    return Paths(gain, 1e-6 * real(1, count), real(1, count, 2) - 0.5, 10 * real(1, count), there)


def some_covariance(count=2):
    scale = torch.tensor([0.05, 0.05, 1e-9, 5e-3, 5e-3, 1.0]).double().repeat_interleave(count)
    root = torch.randn(6 * count, 6 * count, generator=GEN).double() / (6 * count) ** 0.5
    return (scale[:, None] * (root @ root.mT + torch.eye(6 * count).double()) * scale)[None]


def vector(paths):
    u, v = paths.cosine[0].unbind(-1)
    return torch.cat([paths.gain.imag[0], paths.gain.real[0], paths.delay_s[0], u, v, paths.doppler_hz[0]])


def from_vector(theta):
    im, re, delay, u, v, doppler = theta.unflatten(0, (6, -1))
    mask = torch.ones_like(im, dtype=torch.bool)[None]
    return Paths(torch.complex(re, im)[None], delay[None], torch.stack([u, v], -1)[None], doppler[None], mask)


def pilots(paths, phase=0.3, timing=5e-9, noise_var=0.01):
    index = torch.arange(20)[None]
    offsets = Offsets(torch.tensor([[phase]]).double(), torch.tensor([[timing]]).double())
    h = MODEL.channel(paths, offsets, torch.zeros(1).double())[..., index[0]]
    y = h + complex_normal(tuple(h.shape), GEN, torch.complex128, noise_var)
    return Sounded(y, index, torch.full((1, 1, 1, 1), noise_var).double()), offsets


def test_the_update_is_the_mode_and_the_curvature_of_the_posterior():
    paths, covariance = some_paths(), some_covariance()
    given, offsets = pilots(paths)
    task = Task.make(MODEL, given, torch.zeros(1).double(), anchor=None)
    point, after = updated(task, task.point(paths, offsets), covariance, 8)

    def cost(theta):
        h = MODEL.channel(
            from_vector(theta[:-2]), Offsets(theta[None, -2:-1], theta[None, -1:]), torch.zeros(1).double()
        )
        rest = (given.y - h[..., given.index[0]]).abs().square().sum() / 0.01
        off = theta[:-2] - vector(paths)
        return rest + off @ torch.linalg.solve(covariance[0], off) / 2 + theta[-1] ** 2 / MODEL.timing_var / 2

    mode = torch.cat([vector(from_vector(point.vector()[0, :-2])), point.vector()[0, -2:]])
    scale = after[0].diagonal().sqrt()
    mode.requires_grad_(True)
    slope = torch.autograd.grad(cost(mode), mode)[0]
    assert (slope * scale).abs().max() < 0.02  # flat, in units of a standard deviation

    def seen(t):
        offsets = Offsets(t[None, -2:-1], t[None, -1:])
        h = MODEL.channel(from_vector(t[:-2]), offsets, torch.zeros(1).double())[..., given.index[0]]
        return torch.view_as_real(h).flatten()

    rows = jacobian(seen, mode.detach())  # the expected curvature, as Gauss-Newton has it
    information = 2 * rows.mT @ rows / 0.01
    information[:-2, :-2] += torch.linalg.inv(covariance[0])
    information[-1, -1] += 1 / MODEL.timing_var
    wanted = torch.linalg.inv(scale[:, None] * information * scale)
    assert (wanted - after[0] / scale[:, None] / scale).abs().max() < 1e-6


def test_covariances_move_as_the_paths_do():
    paths, covariance = some_paths(), some_covariance()
    method = PathEkf(MODEL, forgetting=0.0, doppler_std_hz=0.0, delay_std_s=0.0, cosine_std=0.0)
    _, found = method._ahead(paths, covariance, 5e-3)

    def later(theta):
        return vector(method._ahead(from_vector(theta), covariance, 5e-3)[0])

    slopes = jacobian(later, vector(paths))
    scale = covariance[0].diagonal().sqrt()
    wanted = slopes @ covariance[0] @ slopes.mT
    assert ((found[0] - wanted) / scale[:, None] / scale).abs().max() < 1e-9
    given, offsets = pilots(paths)
    task = Task.make(MODEL, given, torch.zeros(1).double(), anchor=None)
    point = task.point(paths, offsets)
    whole = torch.nn.functional.pad(covariance, (0, 2, 0, 2))
    whole[0, -2, -2], whole[0, -1, -1] = 0.1, 1e-18

    def taken(theta):
        own = from_vector(theta[:-2])
        moved = point._replace(gain=own.gain, delay=own.delay_s, phase=theta[None, -2:-1], timing=theta[None, -1:])
        return vector(_absorbed(moved, whole)[0])

    start = torch.cat([vector(paths), point.phase[0], point.timing[0]])
    slopes = jacobian(taken, start)[: 3 * 2]
    wanted = slopes @ whole[0] @ slopes.mT
    found = _absorbed(point, whole)[1][0, :6, :6]
    assert ((found - wanted) / scale[:6, None] / scale[:6]).abs().max() < 1e-9


def test_it_follows_its_own_law_and_knows_how_well():
    slots, told, _ = draw(6, 10)
    found, estimates, _ = errors(PathEkf(MODEL, told, num_paths=4, forgetting=1e-3), slots)
    assert db(found[5:]) < -24 and db(found[7:]) < db(found[3]) - 4
    promised = torch.stack([est.belief.var.mean((-2, -1)) for est in estimates[5:]])
    size = torch.stack([slot.truth.h.abs().square().mean((-2, -1)) for slot in slots[5:]])
    assert abs(db(promised) - db(found[5:] * size)) < 3


@pytest.mark.parametrize("setting", [{"updates": 0}, {"forgetting": -1.0}, {"doppler_std_hz": float("nan")}])
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match="PathEkf"):
        PathEkf(MODEL, **setting)
