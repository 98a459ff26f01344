"""Pseudo-inverse and spectral norm by structure: Kronecker factors, blocks and unitary factors stay apart."""

import torch
from torch import Tensor

from hhat.ops import linalg
from hhat.ops.base import LinearOp, cached
from hhat.ops.compose import Compose
from hhat.ops.dense import Dense
from hhat.ops.elementary import Diagonal, Select
from hhat.ops.hops import Hops
from hhat.ops.khatri_rao import KhatriRao
from hhat.ops.linalg import squared
from hhat.ops.structured import BlockDiag, Kron, Stack

CUTOFF = {torch.complex64: 1e-6, torch.complex128: 1e-12}
"""Singular values below this share of the largest count as zero."""


def pinv(op: LinearOp, like: Tensor) -> tuple[LinearOp, Tensor]:
    """(A^+, diag(A^+ A)): the minimum-norm inverse, and per unknown the share of it that y sees (1: all, 0: none)."""
    return cached(op, ("pinv", like.dtype, str(like.device)), lambda: _pinv(op.like(like), like))


def _pinv(op: LinearOp, like: Tensor) -> tuple[LinearOp, Tensor]:
    ones = like.real.new_ones(op.in_shape)
    if op.is_unitary and not isinstance(op, Kron):
        return op.H, ones
    if isinstance(op, Diagonal):
        size = op.values.abs()
        largest = size.amax(tuple(range(-op.ndim, 0)), keepdim=True)
        live = ~(size <= CUTOFF[like.dtype] * largest)  # NaN stays live and marks its own item
        return Diagonal(torch.where(live, 1 / op.values, 0), op.ndim), live.to(ones.dtype)
    if isinstance(op, Select | Hops):
        return op.H, op.adjoint(like.real.new_ones(op.out_shape))
    if isinstance(op, Kron):
        left, seen_left = pinv(op.left, like)
        right, seen_right = pinv(op.right, like)
        seen = seen_left.reshape(*seen_left.shape, *(1,) * len(op.right.in_shape))
        lift = seen_right.ndim - len(op.right.in_shape)
        middle = (*seen_right.shape[:lift], *(1,) * len(op.left.in_shape), *seen_right.shape[lift:])
        return Kron(left, right), seen * seen_right.reshape(middle)
    if isinstance(op, BlockDiag):
        inner, seen = pinv(op.op, like)
        return BlockDiag(inner), seen.expand(*op.op.batch_shape, *op.op.in_shape)
    if isinstance(op, Compose) and op.outer.is_unitary:
        inner, seen = pinv(op.inner, like)
        return Compose(inner, op.outer.H), seen
    matrix = op if isinstance(op, Dense) else Dense(op.dense(like.dtype), op.in_shape, op.out_shape)
    u, s, vh = matrix.svd
    live = ~(s <= CUTOFF[like.dtype] * s.amax(-1, keepdim=True))
    inverse = (vh.mH * torch.where(live, 1 / s, 0)[..., None, :]) @ u.mH
    seen = (squared(vh) * live[..., :, None]).sum(-2)
    return Dense(inverse, op.out_shape, op.in_shape), seen.unflatten(-1, op.in_shape)


def squared_norm(op: LinearOp, like: Tensor) -> Tensor:
    """Largest eigenvalue of A^H A per batch item (an upper bound for Compose and Stack): a safe step size is 1/it."""
    return cached(op, ("norm", like.dtype, str(like.device)), lambda: _squared_norm(op.like(like), like))


def _squared_norm(op: LinearOp, like: Tensor) -> Tensor:
    if op.is_unitary or isinstance(op, Select | Hops):
        return like.real.new_ones(())
    if isinstance(op, Diagonal):
        return squared(op.values).amax(tuple(range(-op.ndim, 0)))
    if isinstance(op, Kron):
        return squared_norm(op.left, like) * squared_norm(op.right, like)
    if isinstance(op, Compose):
        return squared_norm(op.outer, like) * squared_norm(op.inner, like)
    if isinstance(op, Stack):
        return torch.stack([squared_norm(part, like).expand(op.batch_shape) for part in op.ops]).sum(0)
    if isinstance(op, BlockDiag):
        return squared_norm(op.op, like).expand(op.op.batch_shape).amax(-1)
    if isinstance(op, KhatriRao):
        return linalg.eigh(op.gram)[0][..., -1]
    matrix = op.dense(like.dtype)
    gram = matrix @ matrix.mH if matrix.shape[-2] <= matrix.shape[-1] else matrix.mH @ matrix
    return linalg.eigh(gram)[0][..., -1]
