"""Operators made ready for AMP with shared variances: in their own singular basis, and as squared moduli pooled over
the coefficients that share a variance. Structure is kept: Kronecker factors and blocks stay apart."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.ops.base import LinearOp, cached
from hhat.ops.compose import Compose, compose
from hhat.ops.dense import Dense
from hhat.ops.elementary import Diagonal, Identity, Select
from hhat.ops.hops import Hops
from hhat.ops.structured import BlockDiag, Kron
from hhat.types import Shape

LARGEST_BASIS = 4096
"""Rows or columns, whichever are fewer, of the largest matrix that is brought into its singular basis."""
FAINTEST = 1e-8
"""Least noise variance of a sample, relative to the largest of its item."""


class Rotation(NamedTuple):
    """A = U (S V^H):   turn = U^H maps y to the singular basis,   op = S V^H takes the place of A there.

    U has orthonormal columns, so that white noise stays white; with more rows than columns the energy that y has
    outside the range of A is lost on the way.
    axes: for each axis of the turned y the axis of y (negative) that it is, or None where samples were mixed.
    """

    turn: LinearOp
    op: LinearOp
    axes: tuple[int | None, ...]

    def mixes_alike(self, noise_var: Tensor, num_out: int) -> bool:
        """Is noise_var, which broadcasts to y, constant over the samples that are mixed?"""
        kept = {axis for axis in self.axes if axis is not None}
        return all(noise_var.shape[axis] == 1 for axis in range(-min(num_out, noise_var.ndim), 0) if axis not in kept)

    def turned(self, noise_var: Tensor, num_out: int) -> Tensor:
        """noise_var, where `mixes_alike`, in a shape that broadcasts to the turned y."""
        full = noise_var.reshape((1,) * max(num_out - noise_var.ndim, 0) + tuple(noise_var.shape))
        lead = full.shape[: full.ndim - num_out]
        return full.reshape(*lead, *(1 if axis is None else full.shape[axis] for axis in self.axes))


def rotation(op: LinearOp, like: Tensor) -> Rotation:
    """The singular basis of `op` in the precision of `like`, made once; what is entry by entry or already has rows at
    right angles (Identity, Diagonal, Select, Hops) stays as it is, a unitary operator moves onto y entirely.

    Raises ValueError where a matrix with more than LARGEST_BASIS rows and columns would have to be factored.
    """
    return cached(op, ("rotation", like.dtype, str(like.device)), lambda: _rotation(op.like(like), like.dtype))


def _rotation(op: LinearOp, dtype: torch.dtype) -> Rotation:
    if isinstance(op, Identity | Diagonal | Select | Hops):
        return Rotation(Identity(op.out_shape), op, tuple(range(-len(op.out_shape), 0)))
    if isinstance(op, Kron):
        left, right = _rotation(op.left, dtype), _rotation(op.right, dtype)
        ahead = tuple(None if axis is None else axis - len(op.right.out_shape) for axis in left.axes)
        return Rotation(Kron(left.turn, right.turn), Kron(left.op, right.op), ahead + right.axes)
    if isinstance(op, BlockDiag):
        inner = _rotation(op.op, dtype)
        turn, turned = (BlockDiag(part) if part.batch_shape else None for part in (inner.turn, inner.op))
        return Rotation(
            turn or Identity(op.out_shape), turned or Identity(op.in_shape), (-len(op.out_shape), *inner.axes)
        )
    if op.is_unitary:
        return Rotation(op.H, Identity(op.in_shape), (None,) * len(op.in_shape))
    if isinstance(op, Compose) and op.outer.is_unitary:
        inner = _rotation(op.inner, dtype)
        return Rotation(compose(inner.turn, op.outer.H), inner.op, (None,) * len(inner.axes))
    rows, columns = math.prod(op.out_shape), math.prod(op.in_shape)
    if min(rows, columns) > LARGEST_BASIS:
        raise ValueError(
            f"rotation: {type(op).__name__} of {rows} x {columns} has no structure to factor it by, and is larger than "
            f"{LARGEST_BASIS}; give it as Kron or BlockDiag, or take gamp"
        )
    u, s, vh = (op if isinstance(op, Dense) else Dense(op.dense(dtype))).svd
    return Rotation(Dense(u.mH, in_shape=op.out_shape), Dense(s[..., None] * vh, in_shape=op.in_shape), (None,))


class Whitened(NamedTuple):
    """weight * y = (diag(weight) A) x + n with E|n|^2 = level, the largest noise variance of an item.

    weight: (*batch or 1s, *out_shape); level: (*batch or 1s, 1), for the turned y
    """

    weight: Tensor
    level: Tensor
    basis: Rotation


def whitened(op: LinearOp, noise_var: Tensor, like: Tensor) -> Whitened:
    """For noise that differs between samples that `rotation(op)` would mix: one dense matrix, made once for an operator
    and a noise tensor. Noise below FAINTEST of the largest is raised to that."""
    key = ("whitened", id(noise_var), like.dtype)
    return cached(op, key, lambda: (noise_var, _whitened(op.like(like), noise_var, like)))[1]


def _whitened(op: LinearOp, noise_var: Tensor, like: Tensor) -> Whitened:
    num_out = len(op.out_shape)
    lead = noise_var.shape[: max(noise_var.ndim - num_out, 0)]
    flat = noise_var.expand(*lead, *op.out_shape).flatten(len(lead))
    level = flat.amax(-1, keepdim=True)
    weight = torch.where(level > 0, (flat / level).clamp_min(FAINTEST).rsqrt(), 1.0)
    matrix = Dense(weight[..., None] * op.dense(like.dtype), op.in_shape, op.out_shape)
    return Whitened(weight.reshape(*lead, *op.out_shape), level, _rotation(matrix, like.dtype))


def pooled(op: LinearOp, axes: tuple[int, ...], like: Tensor) -> LinearOp:
    """|A|^2 for variances that have size 1 along `axes` (negative) of the coefficients; its adjoint sums over them."""
    return cached(op, ("pooled", axes, like.dtype, str(like.device)), lambda: _pooled(op, axes, like))


def _pooled(op: LinearOp, axes: tuple[int, ...], like: Tensor) -> LinearOp:
    if not axes:
        return op.squares
    if isinstance(op, Kron):
        right = len(op.right.in_shape)
        ahead = tuple(axis + right for axis in axes if axis < -right)
        return Kron(_pooled(op.left, ahead, like), _pooled(op.right, tuple(a for a in axes if a >= -right), like))
    if isinstance(op, BlockDiag) and -len(op.in_shape) not in axes:
        return BlockDiag(_pooled(op.op, axes, like))
    return compose(op.squares, _spread(op.in_shape, axes, like))


def _spread(shape: Shape, axes: tuple[int, ...], like: Tensor) -> LinearOp:
    """Size 1 along `axes` to the full shape."""
    if len(axes) == len(shape):
        return Dense(like.real.new_ones(math.prod(shape), 1), (1,) * len(shape), shape)
    parts: list[LinearOp] = [
        Dense(like.real.new_ones(size, 1)) if place - len(shape) in axes else Identity((size,))
        for place, size in enumerate(shape)
    ]
    spread = parts[-1]
    for part in reversed(parts[:-1]):
        spread = Kron(part, spread)
    return spread
