"""Gaussian conditioning with op, prior variances and noise fixed: factored once, then linear in y.

A conditional answers, for x ~ CN(0, diag v), y = A x + CN(0, diag s2) and a view z = B x,
  var      = diag(B Sigma B^H),  Sigma = diag(v) - diag(v) A^H C^-1 A diag(v),  C = A diag(v) A^H + diag(s2)
  call(y) -> (B diag(v) A^H C^-1 y,  log CN(y; 0, C)).
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hhat.ops import linalg
from hhat.ops.base import LinearOp
from hhat.ops.linalg import squared
from hhat.ops.structured import swap
from hhat.types import Shape

RELATIVE_FLOOR = {torch.complex64: 1e-7, torch.complex128: 1e-14}
"""Smallest noise variance relative to the signal's at y: below it C is singular to working precision."""


@runtime_checkable
class Conditional(Protocol):
    @property
    def var(self) -> Tensor: ...

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]: ...


def log_normal(num: int, log_det: Tensor, distance: Tensor) -> Tensor:
    """log CN(y; 0, C) from log det C and y^H C^-1 y."""
    return -num * math.log(math.pi) - log_det - distance


def event_sum(x: Tensor, shape: Shape) -> Tensor:
    """Sum over event axes, axes of size 1 counted as often as `shape` says."""
    start = x.ndim - len(shape)
    return x.expand(*x.shape[:start], *shape).flatten(start).sum(-1)


@dataclass(frozen=True, eq=False)
class Entrywise:
    """A = diag(d): every entry on its own; any view of independent entries has var |B|^2 v."""

    gain: Tensor
    total: Tensor
    var: Tensor
    shape: Shape
    view: LinearOp | None

    @classmethod
    def make(cls, d: Tensor, v: Tensor, s2: Tensor, shape: Shape, view: LinearOp | None) -> "Entrywise":
        signal = squared(d) * v
        total = torch.maximum(signal + s2, signal.new_tensor(torch.finfo(signal.dtype).tiny))
        var = (v * (s2 / total)).clamp_min(0)
        if view is not None:
            var = view.squares.apply(var.expand(*var.shape[: var.ndim - len(shape)], *shape))
        return cls(d.conj() * v / total, total, var, shape, view)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shift = self.gain * y
        distance = event_sum(squared(y) / self.total, self.shape)
        log_det = event_sum(self.total.log(), self.shape)
        evidence = log_normal(math.prod(self.shape), log_det, distance)
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


@dataclass(frozen=True, eq=False)
class DenseSystem:
    """One matrix per item: Cholesky of C (data space) or, with fewer coefficients than data, of
    I + D^1/2 A^H S^-1 A D^1/2 (coefficient space)."""

    factor: Tensor
    back: Tensor
    front: Tensor
    log_det: Tensor
    noise: Tensor
    matrix: Tensor
    var: Tensor
    data_space: bool

    @classmethod
    def make(cls, a: Tensor, v: Tensor, s2: Tensor, view: Tensor | None) -> "DenseSystem":
        rows, columns = a.shape[-2:]
        v, s2 = v.expand(*v.shape[:-1], columns), s2.expand(*s2.shape[:-1], rows)
        signal = (squared(a) * v[..., None, :]).sum(-1).mean(-1, keepdim=True)
        s2 = torch.maximum(s2, RELATIVE_FLOOR[a.dtype] * signal).clamp_min(torch.finfo(v.dtype).tiny)
        if rows <= columns:
            av = a * v[..., None, :]
            factor, s2 = _factor(av @ a.mH, s2, RELATIVE_FLOOR[a.dtype] * signal)
            seen = _whiten(factor, av if view is None else av @ view.mH)  # L^-1 A D B^H
            prior = v if view is None else (squared(view) * v[..., None, :]).sum(-1)
            var = prior - squared(seen).sum(-2)
            log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
            return cls(factor, seen.mH, factor, log_det, s2, a, var.clamp_min(0), True)
        root = v.sqrt()[..., None, :]
        front = (a * root / s2[..., None]).mH  # D^1/2 A^H S^-1
        inner = front @ (a * root)
        factor = linalg.cholesky(inner + torch.eye(columns, dtype=a.dtype, device=a.device))
        back = _whiten(factor, (torch.diag_embed(v.sqrt()).to(a.dtype) if view is None else (view * root).mH))
        var = squared(back).sum(-2)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1) + s2.log().sum(-1)
        return cls(factor, back.mH, front, log_det, s2, a * root, var, False)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        num = self.matrix.shape[-2]
        if self.data_space:
            z = linalg.solve_lower(self.factor, y)
            return linalg.matvec(self.back, z), log_normal(num, self.log_det, squared(z).sum(-1))
        z = linalg.solve_lower(self.factor, linalg.matvec(self.front, y))
        # y^H C^-1 y = y^H S^-1 (y - A x_hat): no difference of large squares
        whitened = _solve_upper(self.factor, z)
        distance = (y.conj() * (y - linalg.matvec(self.matrix, whitened)) / self.noise).real.sum(-1)
        return linalg.matvec(self.back, z), log_normal(num, self.log_det, distance.clamp_min(0))


def _factor(signal: Tensor, s2: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky of signal + diag s2. Where round-off makes it indefinite, s2 is raised tenfold, at most three times."""
    factor = linalg.cholesky(signal + torch.diag_embed(s2).to(signal.dtype))
    for _ in range(3):
        failed = torch.isnan(factor.diagonal(dim1=-2, dim2=-1).real).any(-1, keepdim=True)
        if not bool(failed.any()):
            break
        s2 = torch.where(failed, 10 * torch.maximum(s2, floor), s2)
        factor = linalg.cholesky(signal + torch.diag_embed(s2).to(signal.dtype))
    return factor, s2


def _whiten(factor: Tensor, matrix: Tensor) -> Tensor:
    batch = torch.broadcast_shapes(factor.shape[:-2], matrix.shape[:-2])
    factor, matrix = factor.expand(*batch, *factor.shape[-2:]), matrix.expand(*batch, *matrix.shape[-2:])
    return torch.linalg.solve_triangular(factor, matrix, upper=False)


def _solve_upper(factor: Tensor, z: Tensor) -> Tensor:
    """L^-H z."""
    if factor.ndim == 2:
        flat = z.reshape(-1, z.shape[-1])
        return torch.linalg.solve_triangular(factor.mH, flat.mT, upper=True).mT.reshape(z.shape)
    if factor.shape[-3] == 1 and z.ndim >= 2:
        shared = factor.squeeze(-3).mH
        return torch.linalg.solve_triangular(shared, z.mT, upper=True).mT
    return torch.linalg.solve_triangular(factor.mH, z[..., None], upper=True)[..., 0]


@dataclass(frozen=True, eq=False)
class Rotated:
    """A = U A' with U unitary and white noise: U moves onto y."""

    outer: LinearOp
    inner: Conditional

    @property
    def var(self) -> Tensor:
        return self.inner.var

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(self.outer.adjoint(y))


@dataclass(frozen=True, eq=False)
class Blocks:
    """A = U kron R with U unitary: U moves onto y and its axes become batch axes of R's small problem."""

    left: LinearOp
    inner: Conditional
    var: Tensor
    num_right_out: int
    num_right_view: int
    view: LinearOp | None

    @classmethod
    def make(cls, left: LinearOp, inner: Conditional, out: int, num_view: int, view: LinearOp | None) -> "Blocks":
        var = inner.var
        if view is not None:
            count = len(left.in_shape)
            start = var.ndim - count - num_view
            var = var.expand(*var.shape[:start], *left.in_shape, *var.shape[start + count :])
            var = _on_left(view.squares, var, num_view)
        return cls(left, inner, var, out, num_view, view)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shift, evidence = self.inner(_on_left(self.left.H, y, self.num_right_out))
        if self.view is not None:
            shift = _on_left(self.view, shift, self.num_right_view)
        return shift, evidence.flatten(evidence.ndim - len(self.left.in_shape)).sum(-1)


def _on_left(op: LinearOp, x: Tensor, behind: int) -> Tensor:
    """Apply op to the axes in front of the last `behind` ones."""
    first = len(op.in_shape)
    return swap(op.lift(behind).apply(swap(x, first, behind)), behind, len(op.out_shape))


@dataclass(frozen=True, eq=False)
class Swapped:
    """A kron B solved as B kron A."""

    inner: Conditional
    split_out: tuple[int, int]
    split_view: tuple[int, int]

    @property
    def var(self) -> Tensor:
        return swap(self.inner.var, *reversed(self.split_view))

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shift, evidence = self.inner(swap(y, *self.split_out))
        return swap(shift, *reversed(self.split_view)), evidence


@dataclass(frozen=True, eq=False)
class Flat:
    """Event axes flattened for a dense system and restored behind it."""

    inner: Conditional
    num_out: int
    shape: Shape

    @property
    def var(self) -> Tensor:
        return self.inner.var.unflatten(-1, self.shape)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shift, evidence = self.inner(y.flatten(y.ndim - self.num_out))
        return shift.unflatten(-1, self.shape), evidence


@dataclass(frozen=True, eq=False)
class BlockSum:
    """Independent blocks on a leading event axis: their evidences add."""

    inner: Conditional

    @property
    def var(self) -> Tensor:
        return self.inner.var

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shift, evidence = self.inner(y)
        return shift, evidence.sum(-1)
