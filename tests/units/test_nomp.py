"""`nomp`: derivatives and normal equations against autograd and dense algebra, recovery, bounds, and what it owes."""

import math

import pytest
import torch

import hhat
from hhat.methods import nomp_search
from hhat.methods.defaults import choice_for
from hhat.methods.nomp import Nomp
from hhat.methods.nomp_fit import Fit, Normal, Whitened, fitted, normal_at
from hhat.methods.nomp_paths import LinePaths, line_paths
from hhat.methods.nomp_search import coarse
from hhat.methods.rows import Rows
from hhat.ops import Dense, Diagonal, Identity, Kron, Select
from hhat.random import complex_normal, generator
from hhat.scenarios.near_field import NearField
from hhat.scenarios.near_field_bounds import cramer_rao, path_model, unit_geometry
from hhat.scenarios.near_field_parts import Paths
from hhat.types import About, Observation, Status

DOUBLE = torch.complex128
MODELS = {
    "near": LinePaths(12, (0, 1, 2, 3), 1e8, 30e9),
    "far": LinePaths(12, (0, 1, 2, 3), 1e8, 30e9, curved=False),
    "no squint": LinePaths(12, (0, 1, 2, 3), 1e8),
    "one tone": LinePaths(12, (0,), 1e8, 30e9),
    "no tones": LinePaths(12),
    "delays": LinePaths(None, (-5, -1, 1, 7)),
}
SCENE = {"num_rx_ant": 32, "num_unit": 2, "num_subcarriers": 8, "num_slots": 8, "num_paths": 2, "snr_db": 15.0}


def gen(*labels):
    return generator("nomp", *labels)


def db(x):
    return 10 * math.log10(float(x))


def ratio(est, h):
    error = (est.belief.mean - h).abs().square().flatten(h.ndim - 2).sum(-1)
    return error / h.abs().square().flatten(h.ndim - 2).sum(-1)


def somewhere(model, shape, label="somewhere"):
    """Paths anywhere in the natural range of the geometry."""
    return torch.rand(*shape, 3, generator=gen(label), dtype=torch.float64) * model.scale() * torch.tensor([4, 2, 4.0])


# --- the path model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_tangent_is_the_gradient(name):
    model, theta = MODELS[name], somewhere(MODELS[name], (2,))
    jacobian = torch.autograd.functional.jacobian(lambda x: torch.view_as_real(model.responses(x)), theta)
    tangent, scale = model.tangent(theta), model.scale()
    assert tangent.shape == (len(model.free) + 1, 2, *model.in_shape)
    assert torch.equal(tangent[-1], model.responses(theta))
    for place, column in enumerate(model.free):
        for path in range(2):
            slope = torch.view_as_complex(jacobian[path, ..., path, column].contiguous()) * scale[column]
            torch.testing.assert_close(tangent[place, path], slope, rtol=1e-9, atol=1e-9)


def test_it_is_the_scenario():
    scene = NearField(num_paths=3)
    paths = scene.paths(2, gen("scenario"))
    theta = torch.stack([paths.psi, paths.phi, paths.delay_s], -1)
    s = path_model(scene).responses(theta)
    torch.testing.assert_close(s, scene.responses(paths).to(DOUBLE), rtol=0, atol=1e-5)
    here, gain = unit_geometry(scene, paths)
    local = (gain[..., None, None] * path_model(scene, local=True).responses(here)).sum(-3)
    torch.testing.assert_close(local.flatten(1, 2), scene.channels(paths).to(DOUBLE), rtol=0, atol=2e-5)


def pairs_of(model: LinePaths) -> torch.Tensor:
    psi, phi = model.search_axes()
    pairs = torch.cartesian_prod(phi, psi)
    return torch.stack([pairs[:, 1], pairs[:, 0], torch.zeros_like(pairs[:, 0])], -1)


@pytest.mark.parametrize("name", MODELS)
def test_the_search_finds_what_trying_every_path_finds(name):
    model = MODELS[name]
    h = complex_normal((3, *model.in_shape), gen("correlate", name), DOUBLE)
    grid = pairs_of(model)
    delay = model.delays(torch.ones(len(model.subcarriers or (0,)), dtype=DOUBLE))[1]
    grid = grid.repeat_interleave(len(delay), 0)
    grid[:, 2] = delay.repeat(len(grid) // len(delay))
    s = model.responses(grid).flatten(1)
    wanted = (s.conj() @ h.flatten(1).mT).abs().square().mT / s.abs().square().sum(-1)
    task = Whitened(model, Identity(model.in_shape), h.flatten(1), torch.ones(3, s.shape[-1], dtype=torch.float64))
    spot, energy = coarse(task, task.y)
    torch.testing.assert_close(energy, wanted.amax(-1), rtol=1e-5, atol=1e-5)
    assert any(torch.equal(spot[0], one) for one in grid)


def test_the_search_of_a_long_array_takes_one_curvature_at_a_time(monkeypatch):
    """In pieces of any size it finds the same places."""
    model = LinePaths(64, tuple(range(4)), 1e8, 3e10, max_curvature=1e-3)
    h = complex_normal((5, 64, 4), gen("pieces"), DOUBLE).flatten(1)
    task = Whitened(model, Identity((64, 4)), h, torch.ones(5, 256, dtype=torch.float64))
    whole = coarse(task, task.y)
    monkeypatch.setattr(nomp_search, "SEARCH_ENTRIES", 1 << 12)
    fresh = Whitened(model, Identity((64, 4)), h, task.weight)
    torch.testing.assert_close(coarse(fresh, task.y), whole)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_what_is_seen_of_every_path_along_diagonals_is_what_it_is(batch):
    """Two units of 6 antennas, and the middle of the band for all tones."""
    model = LinePaths(12, (0, 1, 2), 1e9, 3e10, max_curvature=0.01)
    a = torch.zeros(*batch, 8, 12, dtype=torch.complex64)
    a[..., :4, :6], a[..., 4:, 6:] = complex_normal((2, *batch, 4, 6), gen("seen"))
    norms = nomp_search._norms(Kron(Dense(a), Identity((3,))), model, a)
    grid = pairs_of(model) * model.middle()
    s = LinePaths(12).responses(grid).to(a.dtype)
    wanted = (a @ s.mT).abs().square().sum(-2)
    torch.testing.assert_close(norms.flatten(-2), wanted, rtol=1e-4, atol=1e-4)


def test_what_the_channel_cannot_tell_is_not_free():
    assert [len(MODELS[name].free) for name in MODELS] == [3, 2, 3, 2, 2, 1]
    assert LinePaths(1, (0, 1)).free == (2,) and LinePaths(2, (0, 1)).free == (0, 2)


def test_told_is_the_same_path():
    model = LinePaths(8, (0, 2, 4), 1e3)
    theta = torch.tensor([[0.9, 1e-3, 7.3e-3], [-1.2, 0.0, -2e-4]], dtype=torch.float64)
    told = model.told(theta)
    assert (told[:, 0].abs() <= 0.5).all() and (told[:, 2] >= 0).all() and (told[:, 2] < 0.5e-3).all()
    torch.testing.assert_close(model.responses(told), model.responses(theta))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "neither"),
        ({"num_ant": 0}, "num_ant"),
        ({"num_ant": 4, "subcarriers": (1, 1)}, "subcarriers"),
        ({"num_ant": 4, "carrier_hz": 0.0}, "carrier_hz"),
        ({"num_ant": 4, "max_curvature": -1.0}, "max_curvature"),
    ],
)
def test_wrong_models_are_named(settings, word):
    with pytest.raises(ValueError, match=word):
        LinePaths(**settings)


def test_the_model_of_a_file():
    about = About(constants={"carrier_hz": 30e9, "subcarrier_spacing_hz": 1e8}, subcarriers=(-1, 0, 1))
    assert line_paths((64, 3), ("rx_ant", "subcarrier"), about) == LinePaths(64, (-1, 0, 1), 1e8, 30e9)
    assert line_paths((8,), None) == LinePaths(8, curved=False)
    assert line_paths((52,), ("subcarrier",)) == LinePaths(None, tuple(range(52)), curved=False)
    assert line_paths((2, 10), ("rx_ant", "tx_ant")) is None and line_paths((2, 10), None) is None
    # without the spacing the carrier says nothing of the squint
    assert line_paths((8, 2), ("ant", "subcarrier"), About(constants={"carrier_hz": 1e9})).carrier_hz is None


# --- normal equations -------------------------------------------------------------------------------------------


def problem(name="near", num=3, paths=2, rows=20):
    model = MODELS[name]
    size = math.prod(model.in_shape)
    op = Dense(complex_normal((rows, size), gen("op", name), DOUBLE), in_shape=model.in_shape)
    y = complex_normal((num, rows), gen("y"), DOUBLE)
    return Whitened(model, op, y, torch.ones(num, rows, dtype=torch.float64)), somewhere(model, (num, paths), "start")


def cost(task, theta, gain):
    seen = task.seen(task.model.responses(theta))
    return (task.y - (gain[..., None, :] @ seen)[..., 0, :]).abs().square().sum(-1)


@pytest.mark.parametrize("name", MODELS)
def test_normal_equations_are_those_of_autograd(name):
    """Gradient of |y - A S gain|^2 where the gains are at their best, and Fisher with gains eliminated."""
    task, theta = problem(name)
    model, mask = task.model, torch.ones(3, 2, dtype=torch.bool)
    normal, tangent = normal_at(task, theta, mask)
    free = list(model.free)
    leaf = theta.clone().requires_grad_()
    gain = normal.gain.clone().requires_grad_()
    loss = cost(task, leaf, gain)
    torch.testing.assert_close(normal.rss, loss.detach(), rtol=1e-8, atol=1e-8)
    by_theta, by_gain = torch.autograd.grad(loss.sum(), (leaf, gain))
    assert by_gain.abs().max() < 1e-6 * loss.max()
    slope = -by_theta[..., free] * model.scale()[free] / 2
    torch.testing.assert_close(normal.slope.unflatten(-1, (-1, 2)).mT, slope, rtol=1e-6, atol=1e-6)

    # all real unknowns of one item, by automatic differentiation of what y and h are
    def real(unknown, to):
        moved = theta[0].clone()
        moved[:, free] = unknown[: 2 * len(free)].reshape(len(free), 2).T * model.scale()[free]
        g = torch.complex(*unknown[2 * len(free) :].reshape(2, 2))
        return torch.view_as_real(to((g[:, None] * model.responses(moved).flatten(1)).sum(0))).flatten()

    g = normal.gain[0]
    at = torch.cat([(theta[0][:, free] / model.scale()[free]).T.flatten(), g.real, g.imag])
    seen = torch.autograd.functional.jacobian(lambda u: real(u, lambda h: task.op.dense(DOUBLE) @ h), at)
    entries = torch.autograd.functional.jacobian(lambda u: real(u, lambda h: h), at)
    fisher = 2 * seen.T @ seen
    var = (entries @ torch.linalg.inv(fisher) @ entries.T).diagonal().reshape(-1, 2).sum(-1)
    torch.testing.assert_close(normal.variance(tangent)[0], var, rtol=1e-5, atol=1e-9)
    cut = 2 * len(free)
    whole = fisher[:cut, :cut] - fisher[:cut, cut:] @ torch.linalg.solve(fisher[cut:, cut:], fisher[cut:, :cut])
    torch.testing.assert_close(2 * normal.hessian[0], whole, rtol=1e-6, atol=1e-6 * float(whole.abs().max()))


def test_masked_paths_are_not_there():
    task, theta = problem()
    mask = torch.tensor([[True, False]] * 3)
    both, tangent = normal_at(task, theta, mask)
    alone, short = normal_at(task, theta[:, :1], mask[:, :1])
    torch.testing.assert_close(both.rss, alone.rss)
    torch.testing.assert_close(both.gain, torch.nn.functional.pad(alone.gain, (0, 1)))
    torch.testing.assert_close(both.variance(tangent), alone.variance(short))
    move = both.step(torch.full((3,), 0.1, dtype=torch.float64))[0].unflatten(-1, (-1, 2))
    assert (move[..., 1] == 0).all() and (move[..., 0] != 0).all()


def test_a_known_gain_is_taken_as_it_is():
    task, theta = problem()
    mask, gain = torch.ones(3, 2, dtype=torch.bool), complex_normal((3, 2), gen("gain"), DOUBLE)
    tangent = task.model.tangent(theta)
    seen = task.seen(tangent.flatten(1, 2)).unflatten(1, tangent.shape[1:3])
    torch.testing.assert_close(Normal.make(seen, task.y, mask, gain).rss, cost(task, theta, gain))


def test_the_fit_ends_where_the_gradient_is_zero_and_items_do_not_meet():
    task, truth = problem(num=5)
    mask, gain = torch.ones(5, 2, dtype=torch.bool), complex_normal((5, 1, 2), gen("fit"), DOUBLE)
    y = (gain @ task.seen(task.model.responses(truth)))[:, 0] * 1e3 + task.y
    task, theta = Whitened(task.model, task.op, y, task.weight), truth + 0.05 * task.model.scale()
    live = torch.tensor([True, True, False, True, True])
    found = fitted(task, theta, mask, 100, live)
    assert (found.gain[2] == 0).all() and float(found.rss[2]) == 0
    start = normal_at(task, theta, mask)[0].rss
    for i in (0, 1, 3, 4):
        one_item = Whitened(task.model, task.op, task.y[i : i + 1], task.weight[i : i + 1])
        now = normal_at(one_item, found.geometry[i : i + 1], mask[:1])[0]
        assert float(now.rss) < 40 < float(start[i])  # 20 samples of unit noise, 1e6 of signal
        assert float(now.step(torch.zeros(1, dtype=torch.float64))[1]) < 0.02
        alone = fitted(one_item, theta[i : i + 1], mask[:1], 100, live[:1])
        torch.testing.assert_close(found.geometry[i], alone.geometry[0], rtol=1e-6, atol=1e-12)


def test_rows_are_taken_and_put_back():
    op = Kron(Dense(torch.zeros(3, 2, 4, dtype=DOUBLE)), Identity((5,)))
    wanted = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]], dtype=torch.bool)
    rows = Rows.all(op, wanted.shape).of(wanted)
    x = torch.arange(12.0).reshape(4, 3)
    assert (
        rows.take(x).shape == (2, 3) and rows.take(x)[:, 0].tolist() == [0, 6] and rows.take(x)[:, 2].tolist() == [5, 8]
    )
    again = rows.of(rows.take(wanted & (x > 5)))
    both = rows.then(again)
    assert both.take(x)[0, [0, 2]].tolist() == [6, 8] or both.take(x)[:, 0].tolist() == [6.0]
    put = both.put(x, -both.take(x))
    changed = put != x
    assert bool(changed[2, 0]) and bool(changed[2, 2])
    own = Kron(Dense(torch.zeros(4, 3, 2, 4, dtype=DOUBLE)), Identity((5,)))
    assert Rows.all(own, wanted.shape).of(wanted).take(x) is x


# --- estimates --------------------------------------------------------------------------------------------------


def draw(num=12, local=False, label="draw", **settings):
    scene = NearField(**{**SCENE, **settings})
    slot = scene.draw(num, gen(label))
    return scene, scene.local(slot) if local else slot


@pytest.mark.parametrize("local", [False, True])
def test_one_path_without_noise_is_found_exactly(local):
    scene, slot = draw(num_paths=1, local=local, snr_db=80.0)
    est = hhat.solve(Nomp(path_model(scene, local)), slot.obs)
    assert db(ratio(est, slot.truth.h).max()) < -80 and (est.info["num_paths"] == 1).all()
    exact = Observation(slot.obs.op.apply(slot.truth.h), slot.obs.op, 0.0, slot.obs.axes)
    est = hhat.solve(Nomp(path_model(scene, local)), exact)
    assert db(ratio(est, slot.truth.h).max()) < -60 and est.status_counts().keys() == {"OK"}


def test_paths_are_those_of_the_draw():
    scene, slot = draw(num_paths=1, snr_db=60.0)
    found, paths = hhat.solve(Nomp(path_model(scene)), slot.obs).info["paths"], slot.truth
    torch.testing.assert_close(found["psi"][:, 0], paths.psi[:, 0], rtol=0, atol=5e-5)
    torch.testing.assert_close(found["phi"][:, 0], paths.phi[:, 0], rtol=0, atol=1e-6)
    wrap = scene.num_subcarriers / scene.bandwidth_hz
    late = torch.remainder(found["delay"][:, 0] - paths.delay_s[:, 0] + wrap / 2, wrap) - wrap / 2
    assert late.abs().max() < 1e-3 * wrap
    torch.testing.assert_close(found["gain"][:, 0].to(torch.complex64), paths.gain[:, 0], rtol=0, atol=1e-2)
    assert (found["gain"][:, 1:] == 0).all()


def test_central_is_at_its_bound():
    """Specification: -30.2 dB at 10 dB, with the bound at -30.0."""
    scene = NearField()
    slot = scene.draw(16, gen("central"))
    est = hhat.solve(Nomp(path_model(scene)), slot.obs)
    bound = (cramer_rao(scene, slot) / slot.truth.h.abs().square().sum((-2, -1))).mean()
    assert abs(db(ratio(est, slot.truth.h).mean()) - db(bound)) < 0.5
    error = (est.belief.mean - slot.truth.h).abs().square().mean()
    assert 0.7 < float(error / est.belief.var.mean()) < 1.4
    assert 3.5 < float(est.info["num_paths"].double().mean()) <= 4.2


def test_units_are_near_theirs():
    """Specification: -23.3 dB at 10 dB."""
    scene = NearField()
    slot = scene.draw(16, gen("units"))
    here = scene.local(slot)
    est = hhat.solve(Nomp(path_model(scene, local=True)), here.obs)
    assert est.status.shape == (16, 4) and -24.5 < db(ratio(est, here.truth.h).mean()) < -22
    error = (est.belief.mean - here.truth.h).abs().square().mean()
    assert 0.7 < float(error / est.belief.var.mean()) < 1.4


def clustered(scene, num, degrees, metres, rays=10, label="clusters"):
    """Channels of clusters of rays about the scene's paths."""
    g = gen(label)
    centre = scene.paths(num, g)
    shape = (*centre.psi.shape, rays)
    angle = centre.angle_rad[..., None] + math.radians(degrees) * torch.randn(shape, generator=g, dtype=torch.float64)
    far = centre.range_m[..., None] + metres * torch.randn(shape, generator=g, dtype=torch.float64)
    gain = complex_normal(shape, g, var=1 / (shape[1] * rays))
    wave = 299792458 / scene.carrier_hz
    parts = (angle.cos() / 2, wave * angle.sin().square() / (8 * far), far / 299792458, gain, far, angle)
    return scene.channels(Paths(*(part.flatten(1) for part in parts)))


@pytest.mark.parametrize(("degrees", "metres"), [(0.3, 0.1), (1.0, 0.3)])
def test_what_paths_cannot_say_stands_in_the_variance(degrees, metres):
    scene, slot = draw(24, num_rx_ant=64, num_subcarriers=16, num_slots=16, num_paths=4)
    h = clustered(scene, 24, degrees, metres)
    clean = slot.obs.op.apply(h)
    noise_var = 0.03 * clean.abs().square().mean()
    y = clean + complex_normal(clean.shape, gen("clustered"), var=noise_var)
    obs = Observation(y, slot.obs.op, noise_var, slot.obs.axes)
    for remainder in (True, False):
        est = hhat.solve(Nomp(path_model(scene), max_paths=4, remainder=remainder), obs)
        error = (est.belief.mean - h).abs().square().mean()
        assert 0.6 < float(error / est.belief.var.expand(h.shape).mean()) < 1.7
        assert float(est.info["residual_ratio"].mean()) > 1.5


def test_exact_distances_cost_little():
    scene, slot = draw(16, label="spherical", wavefront="spherical", num_rx_ant=64, num_paths=2)
    est = hhat.solve(Nomp(path_model(scene)), slot.obs)
    same = NearField(**{**SCENE, "num_rx_ant": 64, "num_paths": 2}).draw(16, gen("spherical"))
    fresnel = hhat.solve(Nomp(path_model(scene)), same.obs)
    assert db(ratio(est, slot.truth.h).mean()) < db(ratio(fresnel, same.truth.h).mean()) + 1.0


@pytest.mark.parametrize("tones", [None, 1])
def test_a_far_field_array_with_random_beams(tones):
    """16 antennas, 12 samples: frequencies of a line."""
    g = gen("ula")
    psi = torch.tensor([-0.31, 0.04, 0.27], dtype=torch.float64)
    s = LinePaths(16, curved=False).responses(torch.nn.functional.pad(psi[:, None], (0, 2))).to(torch.complex64)
    h = complex_normal((10, 3), g) @ s / 3**0.5
    op = Dense(complex_normal((12, 16), g) / 4)
    axes = ("rx_ant",)
    if tones:
        h, op, axes = h[..., None], Kron(op, Identity((1,))), ("rx_ant", "subcarrier")
    clean = op.apply(h)
    obs = Observation(clean + complex_normal(clean.shape, g, var=1e-3), op, 1e-3, axes)
    est = hhat.solve(Nomp(), obs)
    assert est.status_counts() == {"OK": 10}
    assert hhat.nmse_db(est.belief.mean, h) < -22
    found = est.info["paths"]["psi"][est.info["num_paths"] == 3][:, :3].sort(-1).values
    assert len(found) >= 5 and (found - psi.sort().values).abs().median() < 0.005


def test_delays_of_uneven_tones():
    tones = (*range(-26, 0), *range(1, 27))
    model, g = LinePaths(None, tones), gen("tones")
    delay = torch.tensor([0.013, 0.0921], dtype=torch.float64)
    s = model.responses(torch.nn.functional.pad(delay[:, None], (2, 0))).to(torch.complex64)
    h = complex_normal((6, 2), g) @ s
    obs = Observation(h + complex_normal(h.shape, g, var=0.01), Identity((52,)), 0.01, ("subcarrier",))
    est = hhat.solve(Nomp(model), obs)
    right = est.info["num_paths"] == 2  # of a line spectrum of 52 samples BIC takes a third path in one of ten
    assert int(right.sum()) >= 4
    found = est.info["paths"]["delay"][:, :2].sort(-1).values
    assert (found - delay)[right].abs().max() < 5e-3


# --- what every method owes, on a problem that has paths ------------------------------------------------------------


def owed(local=True):
    scene, slot = draw(4, local, label="owed")
    return Nomp(path_model(scene, local), max_paths=4), slot.obs


def test_batch_equals_loop():
    method, obs = owed()
    together = hhat.solve(method, obs)
    for i in range(4):
        for u in range(2):
            op = Kron(Dense(obs.op.left.matrix[u]), obs.op.right)
            noise = obs.noise_var.expand(4, 2, 1, 1)[i, u]
            alone = hhat.solve(method, Observation(obs.y[i, u], op, noise, obs.axes))
            assert alone.status.shape == () and int(alone.info["num_paths"]) == int(together.info["num_paths"][i, u])
            torch.testing.assert_close(alone.belief.mean, together.belief.mean[i, u], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(alone.belief.var, together.belief.var[i, u], rtol=1e-3, atol=1e-6)


def test_an_operator_per_item():
    method, obs = owed()
    op = Kron(Dense(obs.op.left.matrix.expand(4, 2, -1, -1).contiguous()), obs.op.right)
    own = hhat.solve(method, Observation(obs.y, op, obs.noise_var, obs.axes))
    torch.testing.assert_close(own.belief.mean, hhat.solve(method, obs).belief.mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [37.0, 1e-12, 1e12])
def test_scale_and_phase(size):
    method, obs = owed()
    c = torch.tensor(size * complex(0.6, 0.8), dtype=torch.complex64)
    plain = hhat.solve(method, obs)
    other = hhat.solve(method, Observation(c * obs.y, obs.op, obs.noise_var * size**2, obs.axes))
    torch.testing.assert_close(other.belief.mean / c, plain.belief.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.belief.var / size**2, plain.belief.var, rtol=1e-2, atol=1e-6)


def test_a_bad_item_is_marked_and_leaves_the_others_alone():
    method, obs = owed()
    y, good = obs.y.clone(), hhat.solve(method, obs)
    y[1, 0, 0, 0] = float("nan")
    est = hhat.solve(method, Observation(y, obs.op, obs.noise_var, obs.axes))
    assert est.status[1, 0] == Status.NONFINITE and torch.isinf(est.belief.var[1, 0]).all()
    assert int((est.status == Status.OK).sum()) == 7 and torch.isfinite(est.belief.mean).all()
    keep = est.status == Status.OK
    torch.testing.assert_close(est.belief.mean[keep], good.belief.mean[keep], rtol=1e-5, atol=1e-6)
    matrix = obs.op.left.matrix.clone()
    matrix[1, 0, 0] = float("nan")
    est = hhat.solve(method, Observation(obs.y, Kron(Dense(matrix), obs.op.right), obs.noise_var, obs.axes))
    assert (est.status[:, 1] == Status.NONFINITE).all() and (est.status[:, 0] == Status.OK).all()
    assert torch.isfinite(est.belief.mean).all()


def test_noise_alone_gives_no_paths():
    method, obs = owed()
    noise = complex_normal((200, *obs.y.shape[1:]), gen("noise alone"))
    est = hhat.solve(method, Observation(noise, obs.op, 1.0, obs.axes))
    assert float((est.info["num_paths"] > 0).double().mean()) < 0.02
    assert float(est.belief.mean.abs().square().mean()) < 0.01
    zero = hhat.solve(method, Observation(torch.zeros_like(obs.y), obs.op, 0.0, obs.axes))
    assert (zero.belief.mean == 0).all() and torch.isfinite(zero.belief.var).all()


def test_unknown_noise_is_found():
    scene, slot = draw(20, label="unknown")
    est = hhat.solve(Nomp(path_model(scene)), Observation(slot.obs.y, slot.obs.op, None, slot.obs.axes))
    assert est.info["noise_var_source"] == "estimated"
    assert 0.9 < float((est.info["noise_var"] / slot.obs.noise_var).mean()) < 1.1
    assert est.status_counts() == {"OK": 20}
    known = hhat.solve(Nomp(path_model(scene)), slot.obs)
    assert db(ratio(est, slot.truth.h).mean()) < db(ratio(known, slot.truth.h).mean()) + 1.0  # one false path in 20


def test_unknown_noise_and_a_search_that_was_cut_off():
    """What is left passes for noise: said by the status, not by the variance."""
    scene, slot = draw(5, label="cut", num_paths=3, snr_db=30.0)
    few = Nomp(path_model(scene), max_paths=1)
    est = hhat.solve(few, Observation(slot.obs.y, slot.obs.op, None, slot.obs.axes))
    assert est.status_counts() == {"MAX_STEPS": 5}
    assert hhat.solve(few, slot.obs).status_counts() == {"OK": 5}


def test_noise_that_differs_is_weighted():
    """Half of the tones drowned: as good as without them, and better than with one mean level."""
    scene, slot = draw(30, label="weights", snr_db=100.0)
    loud = torch.where(torch.arange(8) < 4, 0.01, 100.0)
    y = slot.obs.y + complex_normal(slot.obs.y.shape, gen("weights"), var=loud)
    model = path_model(scene)
    weighted = hhat.solve(Nomp(model), Observation(y, slot.obs.op, loud, slot.obs.axes))
    level = hhat.solve(Nomp(model), Observation(y, slot.obs.op, loud.mean(), slot.obs.axes))
    pick = Kron(Identity((32,)), Select(torch.arange(4), 8))
    quiet = Observation(y[..., :4], Kron(slot.obs.op.left, Identity((4,))) @ pick, 0.01, slot.obs.axes)
    clean = hhat.solve(Nomp(model), quiet)

    def error(est):
        return ((est.belief.mean - slot.truth.h).abs().square()[..., :4].sum((-2, -1))).median()

    a, b, c = (db(error(est)) for est in (weighted, clean, level))
    assert abs(a - b) < 1.0 and a < c - 5


def test_tones_behind_pilots_and_precisions():
    scene, slot = draw(6, label="pilots")
    pilots = hhat.random.qpsk((8,), gen("qpsk"))
    op = Kron(slot.obs.op.left, Diagonal(pilots))
    behind = Observation(slot.obs.y * pilots, op, slot.obs.noise_var, slot.obs.axes)
    method = Nomp(path_model(scene), max_paths=3)
    plain = hhat.solve(method, slot.obs)
    torch.testing.assert_close(hhat.solve(method, behind).belief.mean, plain.belief.mean, rtol=1e-3, atol=1e-4)
    double = hhat.solve(method, Observation(slot.obs.y.to(DOUBLE), slot.obs.op, slot.obs.noise_var, slot.obs.axes))
    assert double.belief.mean.dtype == DOUBLE
    torch.testing.assert_close(double.belief.mean.to(torch.complex64), plain.belief.mean, rtol=1e-3, atol=1e-4)


def test_max_paths_is_the_most():
    scene, slot = draw(6, label="most", num_paths=4)
    est = hhat.solve(Nomp(path_model(scene), max_paths=2), slot.obs)
    assert (est.info["num_paths"] == 2).all() and est.info["paths"]["psi"].shape == (6, 2)
    assert est.status_counts() == {"OK": 6}


def test_without_a_model_it_is_rls_and_says_so():
    obs = Observation(complex_normal((4, 2, 10), gen("axes")), Identity((2, 10)), 0.1, ("rx_ant", "tx_ant"))
    est = hhat.solve(Nomp(), obs)
    assert est.info["method"] == "rls" and "rx_ant, tx_ant" in est.info["why"]
    torch.testing.assert_close(est.belief.mean, hhat.solve(hhat.method("rls"), obs).belief.mean)


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="max_paths: expected at least 1, got 0"):
        Nomp(max_paths=0)
    obs = Observation(complex_normal((4, 10), gen("shape")), Identity((10,)), 0.1)
    with pytest.raises(ValueError, match=r"nomp: model: it makes channels \(8,\)"):
        hhat.solve(Nomp(LinePaths(8)), obs)


def test_by_name_it_takes_the_tones_of_the_file():
    scene, slot = draw(3)
    choice = choice_for("nomp", slot.obs, slot.about, settings={"max_paths": "3"})
    spacing = scene.bandwidth_hz / scene.num_subcarriers
    assert choice.method.model == LinePaths(32, tuple(range(8)), spacing, 30e9, curved=False)
    assert choice.method.max_paths == 3
    with pytest.raises(ValueError, match="unknown setting 'model'"):
        choice_for("nomp", slot.obs, slot.about, settings={"model": "x"})


def test_fit_is_the_record_it_says():
    assert Fit._fields == ("geometry", "gain", "rss")
