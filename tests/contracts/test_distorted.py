"""What every method owes that sees `DistortedPilots`: found through the registry, run by `track`."""

import inspect

import pytest
import torch

import hhat
from hhat import registry
from hhat.distortion.record import DistortedPilots
from hhat.distortion.surrogate import POOLED, Surrogate, fresh
from hhat.methods.base import Method
from hhat.nets import residual_recurrent as unit
from hhat.ops import Identity
from hhat.random import generator
from hhat.types import Observation, Status
from tests.contracts.test_sounding import takes_sounding


def takes_distorted(name: str) -> bool:
    """Does a registered method see distorted pilots alone, by the type of what its `step` takes?"""
    step = getattr(registry.load("methods", name), "step", None)
    return step is not None and DistortedPilots.__name__ in str(inspect.signature(step).parameters["obs"].annotation)


def takes_observation(name: str) -> bool:
    return not (takes_sounding(name) or takes_distorted(name))


NAMES = [name for name in registry.METHODS if takes_distorted(name)]


def surrogate() -> Surrogate:
    """Chains that are a little off the identity, which is how the impaired ones are taken."""
    mask = unit.present(POOLED, (0,), (2,), 4)
    mean = unit.start(mask, generator("distorted contract"))
    return fresh(unit.RecurrentWeights(*(0.3 * part for part in mean)))


def build(name: str) -> Method:
    return hhat.method(name, surrogate=surrogate()) if name == "impairment-tracking" else hhat.method(name)


def drawn(num=3, dtype=torch.complex64, count=4):
    scene = hhat.scenario("impaired-uplink", num_rx_ant=8, severity=0.3)
    slots = list(scene.slots(count, generator("distorted contract"), num))
    return [DistortedPilots(s.obs.y.to(dtype), s.obs.pilots.to(dtype), s.obs.noise_var) for s in slots]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_shapes_dtypes_and_precisions(name):
    single, double = (
        [est for _, est in hhat.track(build(name), drawn(dtype=dtype))][-1]
        for dtype in (torch.complex64, torch.complex128)
    )
    for est, dtype in ((single, torch.complex64), (double, torch.complex128)):
        assert est.belief.mean.shape == est.belief.var.shape == (3, 8) and est.belief.mean.dtype == dtype
        assert bool((est.belief.var > 0).all()) and est.status.tolist() == [Status.OK] * 3
    assert (single.belief.mean - double.belief.mean).abs().max() < 2e-3


def test_step_is_pure_and_state_leads_with_the_batch(name):
    method, (obs, *_) = build(name), drawn()
    state = method.init(obs, generator("pure"))
    kept = {k: v.clone() for k, v in state.items() if isinstance(v, torch.Tensor)}
    first, second = method.step(state, obs), method.step(state, obs)
    for key, value in kept.items():
        assert torch.equal(value, state[key]) and value.shape[0] == 3, key
        assert torch.equal(first[key], second[key]) and first[key].shape == value.shape, key


def test_resumes_from_a_file_to_the_bit(name, tmp_path):
    slots = drawn()
    unbroken = [est for _, est in hhat.track(build(name), slots)]
    *_, (state, _) = hhat.track(build(name), slots[:2])
    hhat.save_state(tmp_path / "s.safetensors", state)
    resumed = [est for _, est in hhat.track(build(name), slots[2:], hhat.load_state(tmp_path / "s.safetensors"))]
    for whole, part in zip(unbroken[2:], resumed, strict=True):
        assert torch.equal(whole.belief.mean, part.belief.mean) and torch.equal(whole.belief.var, part.belief.var)


def test_batch_equals_loop_and_a_link_may_stand_alone(name):
    slots = drawn(count=2)
    *_, (_, together) = hhat.track(build(name), slots)
    alone = [DistortedPilots(obs.y[1], obs.pilots[1], obs.noise_var) for obs in slots]
    *_, (_, one) = hhat.track(build(name), alone)
    assert one.belief.mean.shape == (8,) and one.status.shape == ()
    torch.testing.assert_close(one.belief.mean, together.belief.mean[1], rtol=1e-3, atol=1e-4)


def test_a_lost_link_keeps_its_state_and_leaves_the_others_alone(name):
    slots = drawn(count=3)
    y = slots[1].y.clone()
    y[1, 2, 3] = complex(float("nan"), 0)
    broken = [slots[0], DistortedPilots(y, slots[1].pilots, slots[1].noise_var), slots[2]]
    (before, _), (during, lost), (_, after) = hhat.track(build(name), broken)
    *_, (_, good) = hhat.track(build(name), slots)
    assert lost.status[1] == Status.NONFINITE and torch.isinf(lost.belief.var[1]).all()
    assert torch.equal(before["h"][1], during["h"][1])
    assert torch.isfinite(after.belief.mean).all()
    torch.testing.assert_close(after.belief.mean[[0, 2]], good.belief.mean[[0, 2]])


def test_a_common_phase_turns_the_estimate(name):
    """Pilots turned back by as much: the distorted symbols are the same."""
    (obs,) = drawn(count=1)
    turn = torch.polar(torch.tensor(1.0), torch.tensor(0.7))
    _, plain = next(hhat.track(build(name), [obs]))
    _, turned = next(hhat.track(build(name), [DistortedPilots(obs.y, obs.pilots / turn, obs.noise_var)]))
    torch.testing.assert_close(turned.belief.mean / turn, plain.belief.mean, rtol=1e-3, atol=2e-4)


def test_another_record_is_told_so(name):
    obs = Observation(torch.zeros(3, 8, dtype=torch.complex64), Identity((8,)), 0.1)
    with pytest.raises(ValueError, match="expected DistortedPilots, got Observation"):
        next(hhat.track(build(name), [obs]))


def test_its_example_runs(name):
    est = hhat.track(registry.load("methods", name).example(generator("example")), drawn(count=1))
    assert torch.isfinite(next(est)[1].belief.mean).all()
