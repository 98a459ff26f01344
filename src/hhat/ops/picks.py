"""Operators that see each unknown at most once: A = diag(d) P, where P picks entries."""

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.compose import Compose
from hhat.ops.elementary import Diagonal, Identity, Select
from hhat.ops.hops import Hops
from hhat.ops.structured import Kron, swap


def is_pick(op: LinearOp) -> bool:
    """Does op only pick entries (`Select`, `Hops`, and `Kron` of such)?"""
    if isinstance(op, Kron):
        return is_pick(op.left) and is_pick(op.right)
    return isinstance(op, Identity | Select | Hops)


def entries(op: LinearOp) -> tuple[Tensor, LinearOp] | None:
    """(d, P) with op = diag(d) P; None where op is not of that form. d has op's output axes, or none where it is 1."""
    if is_pick(op):
        return torch.ones(()), op
    if isinstance(op, Diagonal):
        return op.values, Identity(op.in_shape)
    if isinstance(op, Compose):
        outer, inner = entries(op.outer), entries(op.inner)
        if outer is None or inner is None:
            return None
        gain = inner[0] if inner[0].ndim == 0 else outer[1].apply(inner[0])
        both = inner[1] if isinstance(outer[1], Identity) else Compose(outer[1], inner[1])
        return outer[0] * gain, both
    if isinstance(op, Kron):
        left, right = entries(op.left), entries(op.right)
        if left is None or right is None:
            return None
        count = len(op.right.out_shape)
        gain = left[0].reshape(*left[0].shape, *(1,) * count) if left[0].ndim else left[0]
        ahead = right[0].ndim - count
        middle = (*right[0].shape[:ahead], *(1,) * len(op.left.out_shape), *right[0].shape[ahead:])
        return gain * (right[0].reshape(middle) if right[0].ndim else right[0]), Kron(left[1], right[1])
    return None


def picked(pick: LinearOp, v: Tensor) -> Tensor:
    """The variances of the picked entries; an axis of size 1 stays shared."""
    if isinstance(pick, Kron):
        left, right = len(pick.left.in_shape), len(pick.right.in_shape)
        v = swap(picked(pick.right, v), left, right)
        return swap(picked(pick.left, v), right, left)
    if isinstance(pick, Compose):
        return picked(pick.outer, picked(pick.inner, v))
    if isinstance(pick, Hops):
        return pick.apply(v.expand(*v.shape[:-2], *pick.in_shape))
    return v if isinstance(pick, Identity) or v.shape[-1] == 1 else pick.apply(v)


def placed(pick: LinearOp, fresh: Tensor, v: Tensor) -> Tensor:
    """`fresh` where entries are picked, v elsewhere; event axes as pick.in_shape."""
    if isinstance(pick, Identity):
        return fresh
    count = len(pick.in_shape)
    fresh = fresh.expand(*fresh.shape[: fresh.ndim - count], *pick.out_shape)
    seen = pick.adjoint(torch.ones(pick.out_shape, device=v.device)) > 0
    return torch.where(seen, pick.adjoint(fresh), v)
