"""What every registered impairment owes: identity at severity 0, causality, and `.op()` where it is complex-linear."""

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


def test_a_batch_is_its_loop_and_power_is_kept_where_it_says_so(name):
    errors, clean = example(name)
    dirty = errors(clean)
    assert dirty.shape == clean.shape and dirty.dtype == clean.dtype
    assert torch.isfinite(torch.view_as_real(dirty)).all()
    torch.testing.assert_close(torch.stack([errors(item) for item in clean]), dirty)
    kept = torch.isclose(dirty.abs().square().sum(), clean.abs().square().sum(), rtol=1e-5)
    assert bool(kept) == errors.lossless


def test_operator_equals_call(name):
    errors, clean = example(name)
    op = errors.op()
    other = complex_normal(tuple(clean.shape), generator("other"))
    if op is None:
        # not complex-linear: then it must not behave as if it were
        assert not torch.allclose(errors(clean + 2j * other), errors(clean) + 2j * errors(other), rtol=1e-3, atol=1e-3)
        return
    torch.testing.assert_close(op @ clean, errors(clean))
    torch.testing.assert_close(errors(clean + 2j * other), errors(clean) + 2j * errors(other), rtol=1e-5, atol=1e-5)


def test_the_future_does_not_matter(name):
    errors, clean = example(name)
    if name == "unit-sync":
        pytest.skip("its last axis counts tones, not chains, and none of its axes is time")
    later = clean.clone()
    later[..., -1, :] = complex_normal(tuple(later[..., -1, :].shape), generator("later"))
    assert torch.equal(errors(later)[..., :-1, :], errors(clean)[..., :-1, :])
    assert not torch.equal(errors(later)[..., -1, :], errors(clean)[..., -1, :])


def test_draws_depend_on_the_generator_alone(name):
    kind = type(example(name)[0])
    first, again, other = (kind.draw(generator("draw", k)) for k in (1, 1, 2))

    def tensors(x):
        held = [part for value in vars(x).values() for part in (value if isinstance(value, tuple) else (value,))]
        inner = [tensor for part in held if isinstance(part, Impairment) for tensor in tensors(part)]
        return [value for value in held if isinstance(value, torch.Tensor)] + inner

    assert tensors(first)
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(other), strict=True))


def test_severity_says_how_much(name):
    """Half as severe is nearer to the identity, for the same draw."""
    kind = type(example(name)[0])
    (half, clean), (full, _) = (kind.example(generator("impairment", name), severity) for severity in (0.5, 1.0))
    far = [(errors(clean) - clean).abs().square().sum() for errors in (half, full)]
    assert 0 < far[0] < 0.7 * far[1]
