"""What every registered operator owes: found through `example`, nobody is listed by hand."""

import math

import pytest
import torch

from hhat import registry
from hhat.ops import Adjoint, Dense, Identity, LinearOp, posterior
from hhat.ops.compose import Compose
from hhat.ops.elementary import Average
from hhat.ops.pinv import pinv, squared_norm
from hhat.random import complex_normal, generator
from hhat.types import Gaussian

NAMES = [*registry.OPERATORS, "Adjoint", "Average"]
TOLERANCE = {torch.complex64: 2e-5, torch.complex128: 1e-12}


def example(name: str, dtype: torch.dtype) -> LinearOp:
    inner = {"Adjoint": Adjoint, "Average": Average}
    kind = inner[name] if name in inner else registry.load("operators", name)
    return kind.example(generator("contract", name)).to(dtype)


def draw(op: LinearOp, shape, dtype, *labels):
    return complex_normal((*op.batch_shape, *shape), generator(*labels), dtype)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=[torch.complex64, torch.complex128], ids=["complex64", "complex128"])
def dtype(request):
    return request.param


def test_adjoint_identity(name, dtype):
    op = example(name, dtype)
    x, y = draw(op, op.in_shape, dtype, "x"), draw(op, op.out_shape, dtype, "y")
    ahead, back = op.apply(x), op.adjoint(y)
    left = (y.conj() * ahead).flatten(len(op.batch_shape)).sum(-1)
    right = (back.conj() * x).flatten(len(op.batch_shape)).sum(-1)
    scale = x.abs().square().sum().sqrt() * y.abs().square().sum().sqrt()
    assert ((left - right).abs() / scale).max() < TOLERANCE[dtype]
    torch.testing.assert_close(op.H.apply(y), back)
    assert op.H.in_shape == op.out_shape and op.H.out_shape == op.in_shape


def test_dense_twin(name, dtype):
    op = example(name, dtype)
    x = draw(op, op.in_shape, dtype, "x")
    twin = op.dense(dtype)
    assert twin.shape == (*op.batch_shape, math.prod(op.out_shape), math.prod(op.in_shape))
    flat = x.reshape(*op.batch_shape, -1)
    want = (twin @ flat[..., None])[..., 0].reshape(*op.batch_shape, *op.out_shape)
    torch.testing.assert_close(op @ x, want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    torch.testing.assert_close(op.H.dense(dtype), twin.mH, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    squares = op.abs2().dense(dtype.to_real())
    torch.testing.assert_close(squares.to(dtype.to_real()), twin.abs().square(), rtol=1e-4, atol=1e-5)


def test_more_batch_axes_broadcast(name, dtype):
    op = example(name, dtype)
    x = complex_normal((5, *op.batch_shape, *op.in_shape), generator("more"), dtype)
    together = op.apply(x)
    alone = torch.stack([op.apply(item) for item in x])
    torch.testing.assert_close(together, alone, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_lift_adds_axes_behind_the_batch(name, dtype):
    op = example(name, dtype)
    try:
        lifted = op.lift(1)
    except ValueError as refusal:
        assert "batch" in str(refusal)
        return
    x = complex_normal((*op.batch_shape, 3, *op.in_shape), generator("lift"), dtype)
    want = torch.stack([op.apply(x.select(len(op.batch_shape), i)) for i in range(3)], dim=len(op.batch_shape))
    torch.testing.assert_close(lifted.apply(x), want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_composition_equals_two_steps(name, dtype):
    op = example(name, dtype)
    for outer, inner in ((op.H, op), (Identity(op.out_shape), op)):
        both = outer @ inner
        start = draw(op, op.in_shape, dtype, "s")
        torch.testing.assert_close(both.apply(start), outer.apply(inner.apply(start)), rtol=1e-4, atol=1e-4)
    matrix = Dense(complex_normal((4, math.prod(op.out_shape)), generator("m"), dtype), in_shape=op.out_shape)
    both = matrix @ op
    start = draw(op, op.in_shape, dtype, "t")
    torch.testing.assert_close(both.apply(start), matrix.apply(op.apply(start)), rtol=1e-4, atol=1e-4)


def test_posterior_equals_dense(name, dtype):
    op = example(name, dtype)
    y = draw(op, op.out_shape, dtype, "y")
    var = torch.rand((*op.batch_shape, *op.in_shape), generator=generator("v")).to(dtype.to_real()) + 0.3
    prior = Gaussian(torch.zeros((), dtype=dtype), var)
    got = posterior(op, y, prior, 0.2)
    want = posterior(Dense(op.dense(dtype), op.in_shape, op.out_shape), y, prior, 0.2)
    torch.testing.assert_close(got.belief.mean, want.belief.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got.belief.var.expand(want.belief.var.shape), want.belief.var, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got.log_evidence, want.log_evidence, rtol=1e-3, atol=1e-3)


def test_pinv_and_norm(name):
    dtype = torch.complex128
    op = example(name, dtype)
    like = torch.zeros((), dtype=dtype)
    inverse, seen = pinv(op, like)
    want = torch.linalg.pinv(op.dense(dtype))
    torch.testing.assert_close(inverse.dense(dtype), want, rtol=1e-8, atol=1e-9)
    share = (want @ op.dense(dtype)).diagonal(dim1=-2, dim2=-1).real
    have = seen.expand(*op.batch_shape, *op.in_shape).reshape(share.shape)
    torch.testing.assert_close(have, share, rtol=1e-8, atol=1e-8)
    largest = torch.linalg.matrix_norm(op.dense(dtype), 2).square()
    bound = squared_norm(op, like).expand(largest.shape)
    assert (bound >= largest * (1 - 1e-9)).all()
    if not isinstance(op, Compose) and name not in ("Stack", "Adjoint"):
        torch.testing.assert_close(bound, largest)


def test_wrong_shape_says_what_was_expected(name):
    op = example(name, torch.complex64)
    with pytest.raises(ValueError, match="expected x of shape"):
        op @ torch.zeros(*op.in_shape[:-1], op.in_shape[-1] + 1, dtype=torch.complex64)


def test_unitary_claims_are_true(name):
    op = example(name, torch.complex128)
    if op.is_unitary:
        matrix = op.dense(torch.complex128)
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype).expand(matrix.shape)
        torch.testing.assert_close(matrix.mH @ matrix, eye)
