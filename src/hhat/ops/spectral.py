"""Conditionals in a basis where everything is diagonal: entry by entry, and the singular bases of Kronecker factors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops import linalg
from hhat.ops.base import LinearOp
from hhat.ops.linalg import RELATIVE_FLOOR, event_sum, log_normal, squared
from hhat.ops.picks import picked, placed


@dataclass(frozen=True, eq=False)
class Entrywise:
    """A = diag(d) P, P picking entries: every entry on its own, those not picked as before. Any view of independent
    entries has var |B|^2 v."""

    gain: Tensor
    total: Tensor
    var: Tensor
    pick: LinearOp
    view: LinearOp | None

    @classmethod
    def make(cls, d: Tensor, v: Tensor, s2: Tensor, pick: LinearOp, view: LinearOp | None) -> "Entrywise":
        chosen = picked(pick, v)
        signal = squared(d) * chosen
        total = torch.maximum(signal + s2, signal.new_tensor(torch.finfo(signal.dtype).tiny))
        var = placed(pick, (chosen * (s2 / total)).clamp_min(0), v)
        if view is not None:
            shape = pick.in_shape
            var = view.squares.apply(var.expand(*var.shape[: var.ndim - len(shape)], *shape))
        return cls(d.conj() * chosen / total, total, var, pick, view)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shape = self.pick.out_shape
        shift = self.pick.adjoint(self.gain * y)
        distance = event_sum(squared(y) / self.total, shape)
        log_det = event_sum(self.total.log(), shape)
        evidence = log_normal(math.prod(shape), log_det, distance)
        return (shift if self.view is None else self.view.apply(shift)), evidence


@dataclass(frozen=True, eq=False)
class Eigen:
    """Kronecker product of matrices, one prior variance and one noise variance per item: exact in the singular
    basis of the factors, A = U s V^H per axis; nothing larger than a factor is formed."""

    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]
    gain: Tensor
    log_det: Tensor
    inverse: Tensor
    noise: Tensor
    var: Tensor
    num: int

    @classmethod
    def make(cls, factors: tuple, v: Tensor, s2: Tensor, views: tuple[Tensor | None, ...]) -> "Eigen":
        # v and s2: (*batch, 1, ..., 1) with one axis of size 1 per factor
        count = len(factors)
        num = math.prod(f.matrix.shape[-2] for f in factors)
        lefts, rights = [], []
        sigma = reach = v.new_ones(())
        for axis, (factor, view) in enumerate(zip(factors, views, strict=True)):
            u, s, vh = factor.svd
            lefts.append(u.mH)
            rights.append(vh.mH if view is None else view @ vh.mH)
            sigma = sigma * _axis(s.square(), axis, count)
            rows = s.new_ones(vh.shape[-1]) if view is None else squared(view).sum(-1)
            reach = reach * _axis(rows, axis, count)
        floor = RELATIVE_FLOOR[factors[0].matrix.dtype]
        rank = sigma.flatten(-count).shape[-1]
        signal = v * sigma
        s2 = torch.maximum(s2, floor * signal.flatten(-count).amax(-1).reshape(*signal.shape[:-count], *(1,) * count))
        s2 = s2.clamp_min(torch.finfo(s2.dtype).tiny)
        total = signal + s2
        gain = v * sigma.sqrt() / total
        log_det = total.log().flatten(-count).sum(-1) + (num - rank) * s2.log().flatten(-count).sum(-1)
        shrink = v * signal / total
        for axis, right in enumerate(rights):
            shrink = _apply_axis(squared(right), shrink, axis, count)
        var = (v * reach - shrink).clamp_min(0)
        return cls(tuple(lefts), tuple(rights), gain, log_det, 1 / total, s2, var, num)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        count = len(self.left)
        w = y
        for axis, left in enumerate(self.left):
            w = _apply_axis(left, w, axis, count)
        energy = squared(w)
        distance = (energy * self.inverse).flatten(-count).sum(-1)
        if self.num > self.inverse.flatten(-count).shape[-1]:
            rest = squared(y).flatten(-count).sum(-1) - energy.flatten(-count).sum(-1)
            distance = distance + rest.clamp_min(0) / self.noise.flatten(-count).sum(-1)
        shift = self.gain * w
        for axis, right in enumerate(self.right):
            shift = _apply_axis(right, shift, axis, count)
        return shift, log_normal(self.num, self.log_det, distance)


def _axis(x: Tensor, axis: int, count: int) -> Tensor:
    """(*b, n) -> (*b, 1, .., n, .., 1): place a vector on one of `count` event axes."""
    return x.reshape(*x.shape[:-1], *(1,) * axis, x.shape[-1], *(1,) * (count - 1 - axis))


def _apply_axis(matrix: Tensor, x: Tensor, axis: int, count: int) -> Tensor:
    """matrix (*b, m, n) along one of the last `count` axes of x."""
    place = axis - count
    moved = x.movedim(place, -1)
    if matrix.ndim > 2:
        matrix = matrix.reshape(*matrix.shape[:-2], *(1,) * (count - 1), *matrix.shape[-2:])
    return linalg.matvec(matrix, moved).movedim(-1, place)
