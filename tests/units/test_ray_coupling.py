"""`ray-coupling` against dense algebra, the profile's covariance, the genie, and the sum over all couplings."""

import itertools
import math

import pytest
import torch

import hhat
from hhat.methods.ray_coupling import RayCoupling
from hhat.ops import Dense, Identity, Kron
from hhat.priors import covariance
from hhat.priors.cluster_rays import ClusterRays, correlated, gathered, spread
from hhat.random import complex_normal, generator
from hhat.scenarios.cdl import Cdl
from hhat.scenarios.cdl_bounds import coupling_nmse
from hhat.scenarios.cdl_rays import cluster_rays
from hhat.types import Observation

SMALL = {"num_rx_ant": 4, "num_tx_ant": 8}


def toy(clusters=1, rays=3, seed=0):
    """Rays without zeniths: candidates are the rays themselves."""
    gen = generator("coupling", seed)
    left, right = 2 * torch.rand(2, clusters, rays, generator=gen, dtype=torch.float64) - 1
    lags = [
        torch.polar(torch.ones((), dtype=torch.float64), math.pi * u[..., None] * torch.arange(n))
        for u, n in ((left, 4), (right, 8))
    ]
    return ClusterRays(torch.full((clusters,), 1 / clusters, dtype=torch.float64), lags[0], lags[1], rays)


def observed(h, noise_var, pilots=6):
    gen = generator("coupling", "pilots")
    op = Kron(Identity((4,)), Dense(complex_normal((pilots, 8), gen, torch.complex128)))
    y = op.apply(h)
    return Observation(y + complex_normal(tuple(y.shape), gen, y.dtype, noise_var), op, noise_var, ("rx_ant", "tx_ant"))


def draw(rays, num, gen):
    """Channels with a random permutation per cluster, and the permutations."""
    order = torch.rand(num, len(rays.power), rays.rays, generator=gen).argsort(-1)
    x = (
        complex_normal((num, len(rays.power), rays.rays), gen, torch.complex128)
        * (rays.power / rays.rays).sqrt()[:, None]
    )
    right = rays.right[torch.arange(len(rays.power))[:, None], order]
    return torch.einsum("blm,lmr,blmt->brt", x, rays.left, right), order


def test_spread_is_a_covariance_and_gathered_its_adjoint():
    rays, gen = toy(2), generator("adjoint")
    pi = rays.balanced(torch.rand(3, 2, 3, 3, generator=gen, dtype=torch.float64) + 0.1)
    by_hand = torch.zeros(3, 32, 32, dtype=torch.complex128)
    for cluster, i, j in itertools.product(range(2), range(3), range(3)):
        wave = torch.kron(rays.left[cluster, i], rays.right[cluster, j])
        by_hand += (pi[:, cluster, i, j] * rays.power[cluster] / 3)[:, None, None] * torch.outer(wave, wave.conj())
    matrix = spread(rays.lags(pi)).reshape(3, 32, 32)
    torch.testing.assert_close(matrix, by_hand)
    # match(gathered(conj G)) = tr(G dC/dweight)
    g = complex_normal((32, 32), gen, torch.complex128)
    g = g @ g.mH
    found = rays.match(gathered(g.reshape(4, 8, 4, 8)).conj())
    for cluster, i, j in itertools.product(range(2), range(3), range(3)):
        wave = torch.kron(rays.left[cluster, i], rays.right[cluster, j])
        assert float(found[cluster, i, j]) == pytest.approx(float((wave.conj() @ g @ wave).real))


def test_the_lags_of_a_vector_are_those_of_its_outer_product():
    z = complex_normal((3, 4, 8), generator("lags"), torch.complex128)
    outer = z[..., None, None] * z[..., None, None, :, :].conj()
    torch.testing.assert_close(correlated(z), gathered(outer))


def test_balanced_weights_have_their_marginals_and_permutations_stay():
    gen = generator("sinkhorn")
    scene = Cdl(profile="A", **SMALL)
    rays = cluster_rays(scene, (2, 4))
    pi = rays.balanced(torch.rand(2, 23, 40, 80, generator=gen, dtype=torch.float64) + 0.2, rounds=50)
    whole = pi.unflatten(-1, (20, 4)).unflatten(-3, (20, 2))
    torch.testing.assert_close(whole.sum((-4, -3, -1)), torch.ones(2, 23, 20, dtype=torch.float64))
    torch.testing.assert_close(whole.sum((-3, -2, -1)), torch.ones(2, 23, 20, dtype=torch.float64))
    torch.testing.assert_close(whole.sum((-4, -2, -1)), torch.full((2, 23, 2), 10.0, dtype=torch.float64))
    torch.testing.assert_close(whole.sum((-4, -3, -2)), torch.full((2, 23, 4), 5.0, dtype=torch.float64))
    small = toy()
    permutation = torch.eye(3, dtype=torch.float64)[None, [2, 0, 1]]
    torch.testing.assert_close(small.balanced(permutation), permutation)


@pytest.mark.parametrize("profile", ["A", "D"])
@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_an_unknown_coupling_is_the_profiles_covariance_and_the_start_is_lmmse(profile, axis):
    scene = Cdl(profile=profile, axis=axis, snr_db=20.0, **SMALL)
    rays = cluster_rays(scene)
    exact = scene.covariance(torch.complex128)
    torch.testing.assert_close(spread(rays.lags(rays.uniform())).reshape(32, 32), exact)
    slot = scene.draw(5, generator("start"))
    method = RayCoupling(rays)
    start = method.read(method.init(slot.obs, generator("none")), slot.obs)
    lmmse = hhat.solve(hhat.method("lmmse", prior=covariance(exact.to(torch.complex64), shape=(4, 8))), slot.obs)
    torch.testing.assert_close(start.belief.mean, lmmse.belief.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(start.belief.var, lmmse.belief.var.expand(5, 4, 8), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(start.info["log_evidence"], lmmse.info["log_evidence"], rtol=1e-3, atol=1e-2)


def test_the_slope_of_the_evidence_is_that_of_autograd(monkeypatch):
    """b - a is the derivative of log p(y) by a weight: the step climbs what it says it climbs."""
    rays, gen = toy(2), generator("slope")
    h, _ = draw(rays, 3, gen)
    obs = observed(h, 0.1)
    pi = rays.uniform().expand(3, 2, 3, 3).clone().requires_grad_()
    a = obs.op.dense(torch.complex128)
    s = a @ spread(rays.lags(pi)).reshape(3, 32, 32) @ a.mH + 0.1 * torch.eye(24, dtype=torch.complex128)
    y = obs.y.flatten(1)[..., None]
    log = -torch.logdet(s).real - (y.mH @ torch.linalg.solve(s, y)).real[:, 0, 0]
    (slope,) = torch.autograd.grad(log.sum(), pi)
    found = []
    monkeypatch.setattr(RayCoupling, "_moved", lambda self, rays, pi, *terms: found.append(terms) or pi)
    method = RayCoupling(rays)
    method.step(method.init(obs, gen), obs)
    trace, power = found[0]
    torch.testing.assert_close((power - trace) * (rays.power / 3)[:, None, None], slope, rtol=1e-6, atol=1e-8)


def test_it_comes_close_to_the_mixture_over_all_couplings():
    """Three rays: six couplings, so that the exact posterior is a sum over them."""
    rays, gen = toy(), generator("enumerate")
    h, _ = draw(rays, 200, gen)
    obs = observed(h, 0.05)
    a = obs.op.dense(torch.complex128)
    logs, means = [], []
    for permutation in itertools.permutations(range(3)):
        waves = torch.stack([torch.kron(rays.left[0, m], rays.right[0, permutation[m]]) for m in range(3)], 1) / 3**0.5
        c = waves @ waves.mH
        s = a @ c @ a.mH + 0.05 * torch.eye(24, dtype=torch.complex128)
        w = torch.linalg.solve(s, obs.y.flatten(1).mT)
        logs.append(-torch.logdet(s).real - (obs.y.flatten(1).mT.conj() * w).sum(0).real)
        means.append((c @ a.mH @ w).mT)
    share = torch.stack(logs, -1).softmax(-1)
    exact = sum(share[:, k : k + 1] * means[k] for k in range(6)).reshape(h.shape)
    found = hhat.solve(RayCoupling(rays), obs).belief.mean
    start = hhat.solve(RayCoupling(rays), obs, max_steps=1).belief.mean
    average = spread(rays.lags(rays.uniform())).reshape(32, 32)
    linear = hhat.solve(hhat.method("lmmse", prior=covariance(average, shape=(4, 8))), obs).belief.mean
    best, ours, first, lmmse = (hhat.nmse_db(x, h) for x in (exact, found, start, linear))
    assert best < ours < first < lmmse
    assert lmmse - ours > 0.25 * (lmmse - best)  # four dB of head-room, of which the relaxation takes a third


def test_variance_is_the_error_on_its_own_draws():
    rays, gen = toy(4, 5), generator("calibrated")
    h, _ = draw(rays, 400, gen)
    est = hhat.solve(RayCoupling(rays), observed(h, 0.2))
    ratio = (est.belief.mean - h).abs().square().mean() / est.belief.var.mean()
    assert float(ratio) == pytest.approx(1, abs=0.1)


def test_it_lies_between_lmmse_and_the_genie_on_a_profile():
    scene = Cdl(profile="A", snr_db=30.0, num_rx_ant=8, num_tx_ant=16)
    slot = scene.draw(30, generator("between"))
    genie = 10 * float(coupling_nmse(scene, slot).mean().log10())
    lmmse = hhat.solve(hhat.method("lmmse", prior=covariance(scene.covariance(), shape=(8, 16))), slot.obs)
    ours = hhat.nmse_db(hhat.solve(RayCoupling(cluster_rays(scene)), slot.obs), slot.truth)
    assert genie < ours < hhat.nmse_db(lmmse, slot.truth)


def test_noise_and_operators_of_ones_own():
    rays, gen = toy(2), generator("own")
    h, _ = draw(rays, 4, gen)
    matrices = complex_normal((4, 24, 32), gen, torch.complex128)
    batched = Dense(matrices, (4, 8), (24,))
    y = batched.apply(h) + complex_normal((4, 24), gen, torch.complex128, 0.1)
    together = hhat.solve(RayCoupling(rays), Observation(y, batched, 0.1))
    for i in range(4):
        alone = hhat.solve(RayCoupling(rays), Observation(y[i], Dense(matrices[i], (4, 8), (24,)), 0.1))
        torch.testing.assert_close(together.belief.mean[i], alone.belief.mean)
    obs = observed(draw(rays, 40, gen)[0], 0.2, pilots=12)
    est = hhat.solve(RayCoupling(rays, max_steps=30), Observation(obs.y, obs.op, None, obs.axes))
    assert float(est.info["noise_var"].mean()) == pytest.approx(0.2, rel=0.2)


def test_wrong_profiles_are_named():
    with pytest.raises(ValueError, match="rotated"):
        cluster_rays(Cdl(geometry="rotated", **SMALL))
    with pytest.raises(ValueError, match="divisors of 20"):
        cluster_rays(Cdl(**SMALL), (3, 1))
    with pytest.raises(ValueError, match="left"):
        ClusterRays(torch.ones(1), torch.ones(1, 4, 2), torch.ones(1, 3, 2) + 0j, 3)
    with pytest.raises(ValueError, match="channels"):
        hhat.solve(RayCoupling(toy()), Observation(torch.ones(3, 3) + 0j, Identity((3, 3)), 0.1))
