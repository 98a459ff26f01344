"""The choice of the cheapest exact way from an operator's structure; made once, it is then a function of (v, s2)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.ops import conditional as parts
from hhat.ops.base import LinearOp, cached
from hhat.ops.compose import Compose
from hhat.ops.dense import Dense
from hhat.ops.elementary import Identity
from hhat.ops.khatri_rao import KhatriRao
from hhat.ops.picks import entries, is_pick, picked
from hhat.ops.structured import BlockDiag, Kron, swap

Way = Callable[[Tensor, Tensor], parts.Conditional]
"""From prior variances v (*batch, *in_shape or 1s) and noise variances s2 (*batch, *out_shape or 1s)"""

LARGEST_SYSTEM = 4096
"""Unknowns of the largest dense system that is factored (0.3 TFLOP); beyond it the structure must help."""
LARGEST_SVD = (256, 2048)
"""A matrix with one prior and one noise variance per item is factored by SVD up to this size, so that other variances
cost nothing: the smaller limit where all items share them (one Cholesky would do), the larger where they differ."""


class Sharing(NamedTuple):
    """What the choice depends on besides the operator: which event axes of the variances have size 1, whether items
    of a batch differ in them, and where and in which precision they live."""

    v: tuple[bool, ...]
    s2: tuple[bool, ...]
    differ: bool
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, v: Tensor, num_in: int, s2: Tensor, num_out: int) -> "Sharing":
        v_batch, s2_batch = v.shape[: v.ndim - num_in], s2.shape[: s2.ndim - num_out]
        return cls(
            tuple(n == 1 for n in v.shape[v.ndim - num_in :]),
            tuple(n == 1 for n in s2.shape[s2.ndim - num_out :]),
            any(n != 1 for n in v_batch) or any(n != 1 for n in s2_batch),
            v.dtype.to_complex(),
            v.device,
        )


def way(op: LinearOp, sharing: Sharing, view: LinearOp | None) -> Way:
    """How to condition on y = op(x) + n; ValueError where a dense system would exceed LARGEST_SYSTEM unknowns."""
    view = None if isinstance(view, Identity) else view
    white = all(sharing.s2)
    single = entries(op)
    if single is not None:
        gain, pick = single[0].to(sharing.device), single[1]
        return lambda v, s2: parts.Entrywise.make(gain, v, s2, pick, view)
    if isinstance(op, Compose) and op.outer.is_unitary and white:
        ahead, num_out, num_inner = op.outer, len(op.out_shape), len(op.inner.out_shape)
        inner = way(op.inner, sharing._replace(s2=(True,) * num_inner), view)
        return lambda v, s2: parts.Rotated(ahead, inner(v, _axes(s2, num_out, num_inner)))
    if op.is_unitary and white and not isinstance(op, Kron):
        num_out, num_in = len(op.out_shape), len(op.in_shape)
        inner = way(Identity(op.in_shape), sharing._replace(s2=(True,) * num_in), view)
        return lambda v, s2: parts.Rotated(op, inner(v, _axes(s2, num_out, num_in)))
    if isinstance(op, Kron):
        found = _kron(op, sharing, view)
        if found is not None:
            return found
    if isinstance(op, BlockDiag) and (view is None or isinstance(view, BlockDiag)):
        differ = sharing.differ or not (sharing.v[0] and sharing.s2[0])
        apart = sharing._replace(v=sharing.v[1:], s2=sharing.s2[1:], differ=differ)
        inner = way(op.op, apart, None if view is None else view.op)
        return lambda v, s2: parts.BlockSum(inner(v, s2))
    if isinstance(op, KhatriRao) and white and op.in_shape[0] < math.prod(op.out_shape):
        _check_size(op, op.in_shape[0])
        return lambda v, s2: parts.CoefficientSystem.make(op, v, s2, view)
    return _dense(op, sharing, view)


def _axes(s2: Tensor, have: int, want: int) -> Tensor:
    """Noise shared over all `have` event axes, with `want` event axes."""
    return s2.reshape(*s2.shape[: s2.ndim - have], *(1,) * want)


def _kron(op: Kron, sharing: Sharing, view: LinearOp | None) -> Way | None:
    left, right = op.left, op.right
    left_in, right_in = len(left.in_shape), len(right.in_shape)
    left_out, right_out = len(left.out_shape), len(right.out_shape)
    if view is not None and not (isinstance(view, Kron) and view.left.in_shape == left.in_shape):
        return None
    view_left, view_right = (view.left, view.right) if isinstance(view, Kron) else (None, None)
    shared_left, shared_right = all(sharing.s2[:left_out]), all(sharing.s2[left_out:])
    num_view = right_in if view_right is None else len(view_right.out_shape)
    if is_pick(left) and not isinstance(left, Identity):
        return _picked_left(op, sharing, view_left, view_right, num_view)
    if isinstance(left, Identity) or (left.is_unitary and shared_left):
        # the left axes become batch axes: as they are under an identity, one shared value under a rotation
        differ = sharing.differ or not (shared_left and all(sharing.v[:left_in]))
        apart = sharing._replace(v=sharing.v[left_in:], s2=sharing.s2[left_out:], differ=differ)
        inner = way(right.lift(left_in), apart, None if view_right is None else view_right.lift(left_in))

        def blocks(v: Tensor, s2: Tensor) -> parts.Conditional:
            if shared_left:
                s2 = s2.reshape(*s2.shape[: s2.ndim - left_out - right_out], *(1,) * left_in, *s2.shape[-right_out:])
            return parts.Blocks.make(left, inner(v, s2), right_out, num_view, view_left)

        return blocks
    if is_pick(right) or (right.is_unitary and shared_right):
        turned = sharing._replace(
            v=sharing.v[left_in:] + sharing.v[:left_in], s2=sharing.s2[left_out:] + sharing.s2[:left_out]
        )
        view_in, view_turned = (left_in, right_in), None
        if isinstance(view, Kron):
            view_in, view_turned = (len(view.left.out_shape), num_view), Kron(view.right, view.left)
        inner = way(Kron(right, left), turned, view_turned)
        return lambda v, s2: parts.Swapped(
            inner(swap(v, left_in, right_in), swap(s2, left_out, right_out)), (left_out, right_out), view_in
        )
    if all(sharing.v) and all(sharing.s2):
        factors = cached(op, ("factors", *sharing[3:]), lambda: _factors(op, sharing.dtype))
        views = _views(op, view, sharing.dtype)
        if views is not None and all(min(f.matrix.shape[-2:]) <= LARGEST_SYSTEM for f in factors):
            return _eigen(op, factors, views, view)
    return None


def _picked_left(
    op: Kron, sharing: Sharing, view_left: LinearOp | None, view_right: LinearOp | None, num_view: int
) -> Way:
    """A pick in front: the entries it leaves out keep their prior, the others are a batch of problems with op.right."""
    pick, count, right = op.left, len(op.left.in_shape), op.right.in_shape
    seen = Identity(pick.out_shape)
    inner = way(Kron(seen, op.right), sharing, None if view_right is None else Kron(seen, view_right))

    def apart(v: Tensor, s2: Tensor) -> parts.Conditional:
        chosen = swap(picked(pick, swap(v, count, len(right))), len(right), count)
        rest = v
        if view_right is not None:
            rest = view_right.squares.lift(count).apply(v.expand(*v.shape[: v.ndim - len(right)], *right))
        return parts.Placed.make(pick, inner(chosen, s2), view_left, rest, num_view)

    return apart


def _eigen(op: Kron, factors: tuple[Dense, ...], views: tuple[Tensor | None, ...], view: LinearOp | None) -> Way:
    count, num_in, num_out = len(factors), len(op.in_shape), len(op.out_shape)
    shape = op.in_shape if view is None else view.out_shape
    sizes = tuple(f.matrix.shape[-2] for f in factors)
    simple = num_out == count and len(shape) == count

    def eigen(v: Tensor, s2: Tensor) -> parts.Conditional:
        inner = parts.Eigen.make(factors, _axes(v, num_in, count), _axes(s2, num_out, count), views)
        return inner if simple else parts.Grouped(inner, sizes, num_out, shape)

    return eigen


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


def _dense(op: LinearOp, sharing: Sharing, view: LinearOp | None) -> Way:
    rows, columns = math.prod(op.out_shape), math.prod(op.in_shape)
    least = min(rows, columns)
    _check_size(op, least)
    dtype, num_in, num_out = sharing.dtype, len(op.in_shape), len(op.out_shape)
    if isinstance(op, Dense) and num_in == num_out == 1:
        matrix = op
    else:
        matrix = cached(op, ("dense", *sharing[3:]), lambda: Dense(op.dense(dtype)))
    view_matrix = None if view is None else view.dense(dtype)
    shape = op.in_shape if view is None else view.out_shape
    if all(sharing.v) and all(sharing.s2) and least <= LARGEST_SVD[sharing.differ]:

        def system(v: Tensor, s2: Tensor) -> parts.Conditional:
            return parts.Eigen.make((matrix,), _axes(v, num_in, 1), _axes(s2, num_out, 1), (view_matrix,))
    elif rows <= columns:

        def system(v: Tensor, s2: Tensor) -> parts.Conditional:
            return parts.DenseSystem.make(matrix, _flat(v, op.in_shape), _flat(s2, op.out_shape), view_matrix)
    else:
        seen = None if view_matrix is None else Dense(view_matrix)

        def system(v: Tensor, s2: Tensor) -> parts.Conditional:
            return parts.CoefficientSystem.make(matrix, _flat(v, op.in_shape), _flat(s2, op.out_shape), seen)

    if num_out == 1 and len(shape) == 1:
        return system
    return lambda v, s2: parts.Flat(system(v, s2), num_out, shape)


def _check_size(op: LinearOp, size: int) -> None:
    if size > LARGEST_SYSTEM:
        raise ValueError(
            f"posterior: {type(op).__name__} needs a dense system of {size} unknowns, more than {LARGEST_SYSTEM}; "
            "give the operator its structure (Kron, BlockDiag, Fourier) or share variances over axes"
        )


def _flat(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Event axes as one; all of size 1 stay one value."""
    count = len(shape)
    if count == 1:
        return x
    lead = x.shape[: x.ndim - count]
    if all(n == 1 for n in x.shape[x.ndim - count :]):
        return x.reshape(*lead, 1)
    return x.expand(*lead, *shape).flatten(x.ndim - count)
