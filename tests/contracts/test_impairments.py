"""What every registered impairment owes: identity at severity 0, power, and `.op()` where it is complex-linear."""

import pytest
import torch

from hhat import registry
from hhat.impairments.base import Impairment
from hhat.random import complex_normal, generator

NAMES = list(registry.IMPAIRMENTS)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def example(name: str) -> tuple[Impairment, torch.Tensor]:
    return registry.load("impairments", name).example(generator("impairment", name))


def test_severity_zero_is_exactly_the_identity(name):
    errors, clean = example(name)
    none, _ = type(errors).example(generator("impairment", name), 0.0)
    assert torch.equal(none(clean), clean)
    assert not torch.equal(errors(clean), clean)


def test_power_is_kept_and_a_batch_is_its_loop(name):
    errors, clean = example(name)
    dirty = errors(clean)
    assert dirty.shape == clean.shape and dirty.dtype == clean.dtype
    torch.testing.assert_close(dirty.abs().square().sum(), clean.abs().square().sum())
    torch.testing.assert_close(torch.stack([errors(item) for item in clean]), dirty)


def test_operator_equals_call(name):
    errors, clean = example(name)
    op = errors.op()
    if op is None:
        # not complex-linear: then it must not behave as if it were
        assert not torch.allclose(errors(1j * clean), 1j * errors(clean))
        return
    torch.testing.assert_close(op @ clean, errors(clean))
    other = complex_normal(tuple(clean.shape), generator("other"))
    torch.testing.assert_close(errors(clean + 2j * other), errors(clean) + 2j * errors(other), rtol=1e-5, atol=1e-5)


def test_draws_depend_on_the_generator_alone(name):
    kind = type(example(name)[0])
    first, again, other = (kind.draw(generator("draw", k)) for k in (1, 1, 2))

    def tensors(x):
        return [value for value in vars(x).values() if isinstance(value, torch.Tensor)]

    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(other), strict=True))
