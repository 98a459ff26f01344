"""`hybrid`: better than either half, shut where paths are enough, and what a method owes."""

import math

import pytest
import torch

import hhat
from hhat.methods.defaults import choice_for
from hhat.methods.hybrid import Hybrid
from hhat.methods.nomp import Nomp
from hhat.methods.oamp import Oamp
from hhat.ops import Dense, Identity, Kron
from hhat.random import complex_normal, generator
from hhat.scenarios.near_field import NearField
from hhat.scenarios.near_field_bounds import path_model
from hhat.scenarios.near_field_parts import LIGHT_M_PER_S, Paths
from hhat.types import Observation, Status

SMALL = {"num_rx_ant": 64, "num_unit": 2, "num_subcarriers": 8, "num_slots": 16, "num_paths": 3, "snr_db": 10.0}
RAYS = 10


def gen(*labels):
    return generator("hybrid", *labels)


def nmse_db(est, h):
    error = (est.belief.mean - h).abs().square().sum((-2, -1)) / h.abs().square().sum((-2, -1))
    return 10 * math.log10(float(error.mean()))


def observe(scene, num, degrees=0.0, metres=0.0, noise=True):
    """h and pilots of clusters of rays about the scene's paths; no spread: the paths themselves."""
    slot = scene.draw(num, gen("observe", degrees))
    h = slot.truth.h
    if degrees:
        g, centre = gen("rays", degrees), slot.truth
        shape = (*centre.psi.shape, RAYS)
        turn, away = torch.randn(2, *shape, generator=g, dtype=torch.float64)
        angle = centre.angle_rad[..., None] + math.radians(degrees) * turn
        far = centre.range_m[..., None] + metres * away
        gain = complex_normal(shape, g, var=1 / (shape[1] * RAYS))
        phi = LIGHT_M_PER_S / scene.carrier_hz * angle.sin().square() / (8 * far)
        rays = (angle.cos() / 2, phi, far / LIGHT_M_PER_S, gain, far, angle)
        h = scene.channels(Paths(*(part.flatten(1) for part in rays)))
    clean = slot.obs.op.apply(h)
    noise_var = clean.abs().square().mean((-2, -1), keepdim=True) * 10 ** (-scene.snr_db / 10)
    y = clean + complex_normal(clean.shape, gen("noise"), var=noise_var)
    return h, Observation(y, slot.obs.op, noise_var, slot.obs.axes)


@pytest.mark.parametrize(("degrees", "metres"), [(0.0, 0.0), (0.3, 0.1), (1.0, 0.3)])
def test_never_worse_than_either_half(degrees, metres):
    scene = NearField(**{**SMALL, "num_rx_ant": 128, "num_unit": 4, "num_subcarriers": 16, "num_paths": 4})
    h, obs = observe(scene, 12, degrees, metres)
    paths = Nomp(path_model(scene))
    halves = [hhat.solve(paths, obs), hhat.solve(hhat.method("auto"), obs)]
    both = hhat.solve(Hybrid(paths), obs)
    assert nmse_db(both, h) < min(nmse_db(est, h) for est in halves) + 0.1
    share = float(both.info["gated"].double().mean())
    assert share == 0 if degrees == 0 else share > 0.8
    error = (both.belief.mean - h).abs().square().mean()
    assert 0.5 < float(error / both.belief.var.mean()) < 1.4
    if degrees:
        assert nmse_db(both, h) < min(nmse_db(est, h) for est in halves) - 0.5
    else:
        torch.testing.assert_close(both.belief.mean, hhat.solve(Nomp(paths.model, remainder=False), obs).belief.mean)


def test_the_rest_sees_the_residual_and_the_beliefs_add():
    scene = NearField(**SMALL)
    _, obs = observe(scene, 4, 1.0, 0.3)
    paths, rest = Nomp(path_model(scene), max_paths=2, remainder=False), hhat.method("auto")
    both = hhat.solve(Hybrid(paths, rest), obs)
    assert both.info["gated"].all()
    first = hhat.solve(paths, obs)
    residual = obs.y - obs.op.apply(first.belief.mean)
    second = hhat.solve(rest, Observation(residual, obs.op, obs.noise_var, obs.axes))
    torch.testing.assert_close(both.belief.mean, first.belief.mean + second.belief.mean, rtol=1e-4, atol=1e-5)
    own = first.belief.var - first.info["remainder_var"][:, None, None]
    torch.testing.assert_close(both.belief.var, (own + second.belief.var).float(), rtol=1e-3, atol=1e-5)
    assert (own > 0).all() and first.info["num_paths"].tolist() == both.info["num_paths"].tolist()


def mixed():
    """Items with and without something beside their paths, for two units."""
    scene = NearField(**SMALL)
    h, obs = observe(scene, 4)
    wide, _ = observe(scene, 4, 1.0, 0.3)
    keep = torch.tensor([True, False, True, False])[:, None, None]
    y = torch.where(keep, obs.y, obs.op.apply(wide) + obs.y - obs.op.apply(h))
    return scene, Observation(y, obs.op, obs.noise_var, obs.axes)


def test_only_items_that_need_it_are_gated_and_a_batch_equals_its_loop():
    scene, obs = mixed()
    method = Hybrid(Nomp(path_model(scene), max_paths=4))
    together = hhat.solve(method, obs)
    assert together.info["gated"].tolist() == [False, True, False, True]
    for i in range(4):
        alone = hhat.solve(method, Observation(obs.y[i], obs.op, obs.noise_var[i], obs.axes))
        assert alone.status.shape == () and bool(alone.info["gated"]) == bool(together.info["gated"][i])
        torch.testing.assert_close(alone.belief.mean, together.belief.mean[i], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(alone.belief.var, together.belief.var[i], rtol=1e-2, atol=1e-5)


def test_scale_and_phase():
    scene, obs = mixed()
    method = Hybrid(Nomp(path_model(scene), max_paths=4))
    c = torch.tensor(37.0 * complex(0.6, 0.8), dtype=torch.complex64)
    plain = hhat.solve(method, obs)
    other = hhat.solve(method, Observation(c * obs.y, obs.op, obs.noise_var * 37.0**2, obs.axes))
    torch.testing.assert_close(other.belief.mean / c, plain.belief.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other.belief.var / 37.0**2, plain.belief.var, rtol=2e-2, atol=1e-4)


def test_bad_items_are_marked_and_leave_the_others_alone():
    scene, obs = mixed()
    method = Hybrid(Nomp(path_model(scene), max_paths=4))
    good, y = hhat.solve(method, obs), obs.y.clone()
    y[1, 0, 0] = float("nan")
    est = hhat.solve(method, Observation(y, obs.op, obs.noise_var, obs.axes))
    assert est.status[1] == Status.NONFINITE and torch.isinf(est.belief.var[1]).all()
    keep = [0, 2, 3]
    assert (est.status[keep] == good.status[keep]).all()
    torch.testing.assert_close(est.belief.mean[keep], good.belief.mean[keep], rtol=1e-4, atol=1e-5)
    local = scene.local(hhat.Slot(None, obs)).obs
    matrix = local.op.left.matrix.clone()
    matrix[1, 0, 0] = float("nan")
    broken = Observation(local.y, Kron(Dense(matrix), local.op.right), local.noise_var, local.axes)
    est = hhat.solve(Hybrid(Nomp(path_model(scene, local=True))), broken)
    assert (est.status[:, 1] == Status.NONFINITE).all() and (est.status[:, 0] != Status.NONFINITE).all()
    assert torch.isfinite(est.belief.mean).all() and torch.isinf(est.belief.var[:, 1]).all()


def test_noise_alone_and_nothing_at_all():
    scene, obs = mixed()
    method = Hybrid(Nomp(path_model(scene)))
    noise = complex_normal((50, *obs.y.shape[1:]), gen("alone"))
    est = hhat.solve(method, Observation(noise, obs.op, 1.0, obs.axes))
    assert float(est.belief.mean.abs().square().mean()) < 0.01 and not est.info["gated"].any()
    for noise_var in (0.1, 0.0, None):
        est = hhat.solve(method, Observation(torch.zeros_like(obs.y), obs.op, noise_var, obs.axes))
        assert torch.isfinite(est.belief.mean).all() and not torch.isnan(est.belief.var).any()


def test_all_seen_without_noise_is_the_channel():
    """Nothing here is a path: the sparse half brings all of it."""
    h = complex_normal((3, 16, 12), gen("seen"))
    est = hhat.solve(Hybrid(), Observation(h, Identity((16, 12)), 1e-9, ("rx_ant", "subcarrier")))
    assert est.info["gated"].all() and nmse_db(est, h) < -60


def test_noise_that_is_not_given_is_learned_by_the_rest():
    scene = NearField(**SMALL)
    h, obs = observe(scene, 12, 1.0, 0.3)
    est = hhat.solve(Hybrid(Nomp(path_model(scene))), Observation(obs.y, obs.op, None, obs.axes))
    assert est.info["noise_var_source"] == "estimated" and est.info["gated"].all()
    assert est.status_counts() == {"OK": 12}
    # the pattern-coupled prior takes most of the noise for channel, as it does alone
    alone = hhat.solve(hhat.method("auto"), Observation(obs.y, obs.op, None, obs.axes))
    assert nmse_db(est, h) < nmse_db(alone, h)
    h, obs = observe(scene, 12)
    est = hhat.solve(Hybrid(Nomp(path_model(scene))), Observation(obs.y, obs.op, None, obs.axes))
    assert not est.info["gated"].any() and nmse_db(est, h) < -22
    assert 0.9 < float((est.info["noise_var"] / obs.noise_var).mean()) < 1.1


def test_an_unfinished_half_is_said():
    scene = NearField(**SMALL)
    _, obs = observe(scene, 3, 1.0, 0.3)
    rest = Oamp(hhat.prior("pattern-coupled", basis=scene.basis()), max_steps=2)
    assert hhat.solve(Hybrid(Nomp(path_model(scene)), rest), obs).status_counts() == {"MAX_STEPS": 3}


def test_without_a_path_model_it_is_the_rest_and_says_so():
    obs = Observation(complex_normal((4, 16, 16), gen("axes")), Identity((16, 16)), 0.1, ("rx_ant", "tx_ant"))
    est, alone = hhat.solve(Hybrid(), obs), hhat.solve(hhat.method("auto"), obs)
    assert torch.equal(est.belief.mean, alone.belief.mean)
    assert est.info["method"] == "oamp" and "no path model" in est.info["why"] and "rls" not in est.info["why"]


def test_by_name_both_halves_take_the_tones_of_the_file():
    scene = NearField(**SMALL)
    slot = scene.draw(2, gen("name"))
    method = choice_for("hybrid", slot.obs, slot.about, settings={"gate": "1.3"}).method
    assert method.gate == 1.3 and method.paths.model.carrier_hz == 30e9
    assert method.rest.subcarriers == tuple(range(8))
    assert hhat.solve(method, slot.obs).status_counts() == {"OK": 2}


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"gate: expected at least 1, got 0\.5"):
        Hybrid(gate=0.5)
