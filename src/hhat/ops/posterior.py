"""`posterior`: the exact Gaussian posterior of x given y = A x + n, by the cheapest exact way A's structure allows."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.ops import conditional as parts
from hhat.ops.base import LinearOp, cached
from hhat.ops.compose import Compose
from hhat.ops.dense import Dense
from hhat.ops.elementary import Diagonal, Identity
from hhat.ops.linalg import per_axis
from hhat.ops.structured import BlockDiag, Kron, swap
from hhat.types import Gaussian

LARGEST_SYSTEM = 4096
"""Unknowns of the largest dense system that is factored (0.3 TFLOP); beyond it the structure must help."""
LARGEST_SVD = (256, 2048)
"""A matrix with one prior and one noise variance per item is factored by SVD up to this size, so that other variances
cost nothing: the smaller limit where all items share them (one Cholesky would do), the larger where they differ."""


class Posterior(NamedTuple):
    """Belief on the view of x, and log p(y) per batch item (natural log, complex density)."""

    belief: Gaussian
    log_evidence: Tensor


def posterior(
    op: LinearOp, y: Tensor, prior: Gaussian, noise_var: Tensor | float, view: LinearOp | None = None
) -> Posterior:
    """Exact posterior of z = view(x), x ~ CN(prior.mean, diag prior.var), y = op(x) + CN(0, diag noise_var).

    y (*batch, *op.out_shape); prior.mean and prior.var broadcast to (*batch, *op.in_shape): an axis of size 1 is
    shared, and sharing is what opens the fast ways. noise_var broadcasts to y. The ways, first that fits: entry by
    entry; unitary factors moved onto y, their axes becoming a batch of small problems; Kronecker singular basis
    (one prior and one noise variance per item); Cholesky in data or coefficient space, whichever is smaller.

    Where a system is factored, noise below 1e-7 (complex64) or 1e-14 (complex128) of the signal's power at y is
    raised to that, and further where round-off would leave the system indefinite.
    Raises ValueError where shapes do not fit or a dense system would exceed LARGEST_SYSTEM unknowns.
    Source: Kay, Fundamentals of Statistical Signal Processing I, theorem 11.1, complex form.
    """
    given = condition(op, prior.var, noise_var, view, like=y)
    mean = prior.mean.expand(*prior.mean.shape[: max(prior.mean.ndim - len(op.in_shape), 0)], *op.in_shape)
    centred = bool((prior.mean == 0).all())
    shift, evidence = given(y if centred else y - op.apply(mean))
    if not centred:
        shift = shift + (mean if view is None else view.apply(mean))
    shape = op.in_shape if view is None else view.out_shape
    return Posterior(Gaussian(shift, given.var), evidence.expand(shift.shape[: shift.ndim - len(shape)]))


def condition(
    op: LinearOp, var: Tensor, noise_var: Tensor | float, view: LinearOp | None = None, *, like: Tensor
) -> parts.Conditional:
    """The factored form: `given.var` and `given(y - op(mean)) -> (shift, log_evidence)` for as many y as one likes.

    Arguments as `posterior`; `like` gives device and precision.
    """
    op, view = op.like(like), None if view is None else view.like(like)
    noise = torch.as_tensor(noise_var, dtype=like.real.dtype, device=like.device)
    var = per_axis(var.to(like.real.dtype), len(op.in_shape), op.in_shape)
    return _pick(op, var, per_axis(noise, len(op.out_shape), op.out_shape), view)


def _pick(op: LinearOp, v: Tensor, s2: Tensor, view: LinearOp | None) -> parts.Conditional:
    view = None if isinstance(view, Identity) else view
    num_in, num_out = len(op.in_shape), len(op.out_shape)
    white = _shared(s2, num_out)
    if isinstance(op, Identity):
        return parts.Entrywise.make(v.new_ones(()), v, s2, op.in_shape, view)
    if isinstance(op, Diagonal):
        return parts.Entrywise.make(op.values, v, s2, op.in_shape, view)
    if isinstance(op, Compose) and op.outer.is_unitary and white:
        inner_s2 = s2.reshape(*s2.shape[: s2.ndim - num_out], *(1,) * len(op.inner.out_shape))
        return parts.Rotated(op.outer, _pick(op.inner, v, inner_s2, view))
    if op.is_unitary and white and not isinstance(op, Kron):
        flat_s2 = s2.reshape(*s2.shape[: s2.ndim - num_out], *(1,) * num_in)
        return parts.Rotated(op, _pick(Identity(op.in_shape), v, flat_s2, view))
    if isinstance(op, Kron):
        found = _kron(op, v, s2, view)
        if found is not None:
            return found
    if isinstance(op, BlockDiag) and (view is None or isinstance(view, BlockDiag)):
        return parts.BlockSum(_pick(op.op, v, s2, None if view is None else view.op))
    return _dense(op, v, s2, view)


def _kron(op: Kron, v: Tensor, s2: Tensor, view: LinearOp | None) -> parts.Conditional | None:
    left_in, right_in = len(op.left.in_shape), len(op.right.in_shape)
    left_out, right_out = len(op.left.out_shape), len(op.right.out_shape)
    splits = isinstance(view, Kron) and view.left.in_shape == op.left.in_shape
    if view is not None and not splits:
        return None
    view_left, view_right = (view.left, view.right) if isinstance(view, Kron) else (None, None)
    shared_left = _shared(s2, left_out + right_out, right_out)
    if isinstance(op.left, Identity) or (op.left.is_unitary and shared_left):
        right = cached(op, ("lift right",), lambda: op.right.lift(left_in))
        # the left axes become batch axes: as they are under an identity, one shared value under a rotation
        if shared_left:
            tail = s2.shape[s2.ndim - right_out :]
            s2 = s2.reshape(*s2.shape[: s2.ndim - left_out - right_out], *(1,) * left_in, *tail)
        inner = _pick(right, v, s2, None if view_right is None else view_right.lift(left_in))
        num_view = right_in if view_right is None else len(view_right.out_shape)
        return parts.Blocks.make(op.left, inner, right_out, num_view, view_left)
    if isinstance(op.right, Identity) or (op.right.is_unitary and _shared(s2, right_out)):
        swapped = cached(op, ("swap",), lambda: Kron(op.right, op.left))
        swapped_view = Kron(view.right, view.left) if isinstance(view, Kron) else None
        inner = _pick(swapped, swap(v, left_in, right_in), swap(s2, left_out, right_out), swapped_view)
        view_in = (left_in, right_in)
        if isinstance(view, Kron):
            view_in = (len(view.left.out_shape), len(view.right.out_shape))
        return parts.Swapped(inner, (left_out, right_out), view_in)
    if _shared(v, left_in + right_in) and _shared(s2, left_out + right_out):
        dtype = v.dtype.to_complex()
        factors = cached(op, ("factors", dtype, str(v.device)), lambda: _factors(op, dtype))
        views = _views(op, view, dtype)
        if views is not None and all(min(f.matrix.shape[-2:]) <= LARGEST_SYSTEM for f in factors):
            return _eigen(op, factors, v, s2, views, view)
    return None


def _eigen(
    op: Kron,
    factors: tuple[Dense, ...],
    v: Tensor,
    s2: Tensor,
    views: tuple[Tensor | None, ...],
    view: LinearOp | None,
) -> parts.Conditional:
    count = len(factors)
    v = v.reshape(*v.shape[: v.ndim - len(op.in_shape)], *(1,) * count)
    s2 = s2.reshape(*s2.shape[: s2.ndim - len(op.out_shape)], *(1,) * count)
    inner = parts.Eigen.make(factors, v, s2, views)
    shape = op.in_shape if view is None else view.out_shape
    simple = len(op.out_shape) == count and len(shape) == count
    return inner if simple else _Grouped(inner, tuple(f.matrix.shape[-2] for f in factors), len(op.out_shape), shape)


class _Grouped(NamedTuple):
    """Factors over several event axes: each factor's axes are one axis inside."""

    inner: parts.Eigen
    sizes: tuple[int, ...]
    num_out: int
    shape: tuple[int, ...]

    @property
    def var(self) -> Tensor:
        var = self.inner.var
        return var.reshape(*var.shape[: var.ndim - len(self.sizes)], *self.shape)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shift, evidence = self.inner(y.reshape(*y.shape[: y.ndim - self.num_out], *self.sizes))
        return shift.reshape(*shift.shape[: shift.ndim - len(self.sizes)], *self.shape), evidence


def _factors(op: LinearOp, dtype: torch.dtype) -> tuple[Dense, ...]:
    if isinstance(op, Kron):
        return _factors(op.left, dtype) + _factors(op.right, dtype)
    return (op if isinstance(op, Dense) else Dense(op.dense(dtype), op.in_shape, op.out_shape),)


def _count(op: LinearOp) -> int:
    return _count(op.left) + _count(op.right) if isinstance(op, Kron) else 1


def _views(op: LinearOp, view: LinearOp | None, dtype: torch.dtype) -> tuple[Tensor | None, ...] | None:
    """The view's matrix for each factor of op, None where it does not split the same way."""
    if view is None or isinstance(view, Identity):
        return (None,) * _count(op)
    if isinstance(op, Kron):
        if not isinstance(view, Kron) or view.left.in_shape != op.left.in_shape:
            return None
        left, right = _views(op.left, view.left, dtype), _views(op.right, view.right, dtype)
        return None if left is None or right is None else left + right
    return (view.dense(dtype),)


def _dense(op: LinearOp, v: Tensor, s2: Tensor, view: LinearOp | None) -> parts.Conditional:
    rows, columns = math.prod(op.out_shape), math.prod(op.in_shape)
    if min(rows, columns) > LARGEST_SYSTEM:
        raise ValueError(
            f"posterior: {type(op).__name__} needs a dense system of {min(rows, columns)} unknowns, more than "
            f"{LARGEST_SYSTEM}; give the operator its structure (Kron, BlockDiag, Fourier) or share variances over axes"
        )
    dtype = v.dtype.to_complex()
    matrix = (
        op if isinstance(op, Dense) else cached(op, ("dense", dtype, str(v.device)), lambda: Dense(op.dense(dtype)))
    )
    view_matrix = None if view is None else view.dense(dtype)
    num_in, num_out = len(op.in_shape), len(op.out_shape)
    differ = v[(..., *(0,) * num_in)].numel() > 1 or s2[(..., *(0,) * num_out)].numel() > 1
    if _shared(v, num_in) and _shared(s2, num_out) and min(rows, columns) <= LARGEST_SVD[differ]:
        one = (1,)
        inner: parts.Conditional = parts.Eigen.make(
            (matrix,),
            v.reshape(*v.shape[: v.ndim - num_in], *one),
            s2.reshape(*s2.shape[: s2.ndim - num_out], *one),
            (view_matrix,),
        )
    else:
        flat_v = v if num_in == 1 else v.expand(*v.shape[: v.ndim - num_in], *op.in_shape).flatten(v.ndim - num_in)
        flat_s2 = (
            s2 if num_out == 1 else s2.expand(*s2.shape[: s2.ndim - num_out], *op.out_shape).flatten(s2.ndim - num_out)
        )
        inner = parts.DenseSystem.make(matrix.matrix, flat_v, flat_s2, view_matrix)
    shape = op.in_shape if view is None else view.out_shape
    return inner if num_out == 1 and len(shape) == 1 else parts.Flat(inner, num_out, shape)


def _shared(x: Tensor, num_event: int, but_last: int = 0) -> bool:
    """One value for all of the last `num_event` axes, the very last `but_last` left aside."""
    return all(n == 1 for n in x.shape[x.ndim - num_event : x.ndim - but_last])
