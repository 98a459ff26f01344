"""What every method owes that takes the law of hopping sounding pilots: the contract of `test_methods` on such pilots.

Trackers among them get the symbols one by one.
"""

import inspect
from dataclasses import replace

import pytest
import torch

import hhat
from hhat import registry
from hhat.extrapolation.model import Sounding
from hhat.methods.base import Method
from hhat.ops import Dense, Identity, Kron, Select
from hhat.random import complex_normal, generator
from hhat.types import Estimate, Gaussian, Observation, Status


def takes_sounding(name: str) -> bool:
    """Does a registered method work on hopping pilots alone, by the type of its setting `model`?"""
    setting = inspect.signature(registry.load("methods", name)).parameters.get("model")
    return setting is not None and Sounding.__name__ in str(setting.annotation)


NAMES = [name for name in registry.METHODS if takes_sounding(name)]
SCENE = hhat.scenario("srs-paths", columns=4, rows=2, num_tones=48, num_paths=2, separation_s=8e-7, snr_db=20)


def build(name: str) -> Method:
    return hhat.method(name, model=SCENE.model)


def observe(num=3, dtype=torch.complex64, **settings):
    slot = replace(SCENE, **settings).draw(num, generator("sounding contract"))
    return slot.truth.h.to(dtype), observed(slot.obs, slot.obs.y.to(dtype), slot.obs.noise_var)


def observed(obs, y, noise_var):
    return Observation(y, obs.op, noise_var, obs.axes)


def run(method: Method, obs: Observation) -> Estimate:
    """All symbols at once, or one after the other where the method tracks; then stacked, with the last status."""
    if not method.tracks:
        return hhat.solve(method, obs)
    index, size = obs.op.right.index, obs.op.right.size
    ops = [Kron(obs.op.left, Select(row, size)) for row in index]
    slots = [Observation(obs.y[..., m, :], op, obs.noise_var, ("rx_ant", "subcarrier")) for m, op in enumerate(ops)]
    found = [est for _, est in hhat.track(method, slots)]
    mean = torch.stack([est.belief.mean for est in found], -2)
    var = torch.stack([est.belief.var.expand(est.belief.mean.shape) for est in found], -2)
    return Estimate(Gaussian(mean, var), found[-1].info, found[-1].status)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_shapes_dtypes_and_status(name, dtype):
    h, obs = observe(dtype=dtype)
    est = run(build(name), obs)
    assert est.belief.mean.shape == h.shape and est.belief.mean.dtype == dtype
    assert est.belief.var.dtype == dtype.to_real() and bool((est.belief.var >= 0).all())
    assert torch.broadcast_shapes(est.belief.var.shape, h.shape) == h.shape
    assert est.status.shape == (3,) and Status.NONFINITE not in est.status.tolist()
    assert est.info["noise_var_source"] == "given"


def test_its_example_runs_on_the_example_of_the_scenario(name):
    slot = registry.load("scenarios", "srs-paths").example(generator("example")).draw(2, generator("example"))
    est = run(registry.load("methods", name).example(generator("example")), slot.obs)
    assert torch.isfinite(est.belief.mean).all()


def test_precisions_agree(name):
    _, short = observe()
    one, two = (run(build(name), observed(short, y, 1e-2)) for y in (short.y, short.y.to(torch.complex128)))
    assert (one.belief.mean.to(torch.complex128) - two.belief.mean).abs().max() < 2e-3 * two.belief.mean.abs().max()


def test_step_is_pure_and_state_leads_with_the_batch(name):
    _, obs = observe()
    method, _ = build(name).resolve(obs)
    if method.tracks:
        obs = Observation(obs.y[..., 0, :], Kron(obs.op.left, Select(obs.op.right.index[0], 48)), obs.noise_var)
    state = method.init(obs, generator("pure"))
    before = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
    first, second = method.step(state, obs), method.step(state, obs)
    method.read(first, obs)
    for key, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, state[key]) and value.shape[0] == 3, key
            assert torch.equal(first[key], second[key]), key


def test_batch_equals_loop(name):
    _, obs = observe()
    together = run(build(name), obs)
    for i in range(3):
        alone = run(build(name), observed(obs, obs.y[i], obs.noise_var))
        assert alone.status.shape == () and int(alone.status) == int(together.status[i])
        torch.testing.assert_close(together.belief.mean[i], alone.belief.mean, rtol=1e-3, atol=1e-3)


def test_scaling_and_phase(name):
    _, obs = observe()
    c = torch.tensor(37.0 * complex(0.6, 0.8), dtype=torch.complex64)
    plain = run(build(name), obs)
    other = run(build(name), observed(obs, c * obs.y, obs.noise_var * float(c.abs()) ** 2))
    torch.testing.assert_close(other.belief.mean / c, plain.belief.mean, rtol=1e-3, atol=1e-3)
    finite = torch.isfinite(plain.belief.var)
    torch.testing.assert_close(
        other.belief.var[finite] / float(c.abs()) ** 2, plain.belief.var[finite], rtol=5e-2, atol=1e-4
    )


def test_a_bad_item_is_marked_and_leaves_the_others_alone(name):
    _, obs = observe()
    y = obs.y.clone()
    y[1, 0, -1, 0] = complex(float("nan"), 0)
    est, good = run(build(name), observed(obs, y, obs.noise_var)), run(build(name), obs)
    assert est.status[1] == Status.NONFINITE and torch.isfinite(est.belief.mean).all()
    torch.testing.assert_close(est.belief.mean[[0, 2]], good.belief.mean[[0, 2]], rtol=1e-3, atol=1e-3)


def test_nothing_received_gives_a_finite_estimate(name):
    _, obs = observe()
    for noise_var in (0.05, 0.0, None):
        est = run(build(name), observed(obs, torch.zeros_like(obs.y), noise_var))
        assert torch.isfinite(est.belief.mean).all() and not torch.isnan(est.belief.var).any()
        assert est.belief.mean.abs().max() == 0


def test_noise_alone_is_not_taken_for_much_of_a_channel(name):
    _, obs = observe()
    est = run(build(name), observed(obs, complex_normal(tuple(obs.y.shape), generator("noise")), 1.0))
    assert est.belief.mean.abs().square().mean() < 0.3


def test_unknown_noise_is_estimated_and_reported(name):
    _, obs = observe(snr_db=10)
    est = run(build(name), observed(obs, obs.y, None))
    assert est.info["noise_var_source"] in ("estimated", "residual")
    assert 0.05 < float(est.info["noise_var"].mean()) < 0.2


def test_a_missing_model_another_operator_and_another_setting_are_refused(name):
    _, obs = observe()
    with pytest.raises(ValueError, match="Sounding"):
        run(hhat.method(name), obs)
    dense = Observation(obs.y[:, :, 0], Kron(Identity((8,)), Dense(complex_normal((24, 48), generator("dense")))), 0.1)
    with pytest.raises(ValueError, match=r"expected Kron\(Identity"):
        hhat.solve(build(name), dense)
    with pytest.raises(ValueError, match="unknown setting 'no_such'"):
        hhat.method(name, no_such=1)


def test_variance_declaration_is_kept(name):
    _, obs = observe()
    method = build(name)
    var = run(method, obs).belief.var
    assert method.variance in ("posterior", "plug-in", "none")
    assert bool(torch.isinf(var).all()) == (method.variance == "none")


def test_cuda_equals_cpu(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    _, obs = observe()
    there = Observation(obs.y.cuda(), obs.op.to("cuda"), obs.noise_var, obs.axes)
    est = run(build(name), there)
    assert est.belief.mean.device.type == "cuda"
    torch.testing.assert_close(est.belief.mean.cpu(), run(build(name), obs).belief.mean, rtol=1e-3, atol=1e-3)
