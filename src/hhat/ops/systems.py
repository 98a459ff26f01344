"""Conditionals by Cholesky, one system per item: in data space, or in coefficient space where that is smaller."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.base import LinearOp, cached
from hhat.ops.cholesky import Factor, factor
from hhat.ops.dense import Dense
from hhat.ops.khatri_rao import KhatriRao
from hhat.ops.linalg import RELATIVE_FLOOR, column_energy, event_sum, log_normal, matvec, squared
from hhat.types import Shape

HEADROOM = 1e8
"""Smallest noise variance over the smallest number of its precision: the squares of L^-1 A stay finite."""
TABLE_ENTRIES = 1 << 20
"""Most entries of the table of a_n a_n^H (8 MB), by which variances become A diag(v) A^H in one real product."""
TABLE_ROWS = 8
"""Fewest systems for which reading the table pays."""
WORKING_SET = {"cpu": 1 << 23, "cuda": 1 << 31}
"""Bytes that the systems factored at a time touch: a batch that needs more is taken in slices. On a CPU so that they
stay in its cache (40 % less time at batch 1024), elsewhere so that memory stays bounded."""


@dataclass(frozen=True, eq=False)
class DenseSystem:
    """No more data than coefficients: C = A diag(v) A^H + diag(s2) = L L^H, one per item."""

    factor: Factor
    seen: Tensor
    scale: Tensor
    var: Tensor

    @classmethod
    def make(cls, op: Dense, v: Tensor, s2: Tensor, view: Tensor | None) -> "DenseSystem | Slices":
        """A batch whose systems touch more than WORKING_SET bytes is factored in slices of its first axis."""
        rows, columns = op.matrix.shape[-2:]
        v = v.expand(*v.shape[:-1], columns)
        systems = v.numel() // columns
        size = 2 * rows * (rows + columns) * op.matrix.itemsize * systems  # C and L^-1, L^-1 A and its squares
        count = min(math.ceil(size / _working_set(v)), v.shape[0])
        if count < 2 or v.ndim < max(op.matrix.ndim, s2.ndim):  # the first axis has to be v's own
            return cls.whole(op, v, s2, view)
        pieces = v.tensor_split(count)
        noise = s2.tensor_split(count) if s2.ndim == v.ndim and s2.shape[0] > 1 else (s2,) * count
        systems = tuple(cls.whole(op, a, b, view) for a, b in zip(pieces, noise, strict=True))
        return Slices(systems, torch.cat([part.var for part in systems]))

    @classmethod
    def whole(cls, op: Dense, v: Tensor, s2: Tensor, view: Tensor | None) -> "DenseSystem":
        a = op.matrix
        lower = _factored(_covariance(op, v), s2, _floor(op, v, a.dtype)[..., None])
        if view is None:
            seen = lower.solve(a)
            return cls(lower, seen, v, v * (1 - v * column_energy(seen)).clamp_min(0))
        seen = lower.solve((a * v[..., None, :]) @ view.mH)
        prior = (squared(view) * v[..., None, :]).sum(-1)
        return cls(lower, seen, v.new_ones(()), (prior - column_energy(seen)).clamp_min(0))

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        z = self.factor.solve_vector(y)
        shift = self.scale * matvec(self.seen.mT, z.conj()).conj()
        return shift, log_normal(y.shape[-1], self.factor.log_det, torch.linalg.vecdot(z, z).real)


@dataclass(frozen=True, eq=False)
class Slices:
    """The systems of a batch, a slice of its first axis at a time."""

    parts: tuple[DenseSystem, ...]
    var: Tensor

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        axis = y.ndim - self.var.ndim  # of y that is the slices' axis; y may have more batch axes, or share this one
        if axis < 0 or y.shape[axis] == 1:
            found = [part(y) for part in self.parts]
        else:
            sizes = [part.var.shape[0] for part in self.parts]
            found = [part(piece) for part, piece in zip(self.parts, y.split(sizes, axis), strict=True)]
        shifts, evidences = zip(*found, strict=True)
        return torch.cat(shifts, -self.var.ndim), torch.cat(evidences, 1 - self.var.ndim)


def _floor(op: LinearOp, v: Tensor, dtype: torch.dtype) -> Tensor:
    """RELATIVE_FLOOR of the mean power of A x over the samples, per item."""

    def make() -> Tensor:
        return op.squares.adjoint(v.new_ones(op.out_shape)) * (RELATIVE_FLOOR[dtype] / math.prod(op.out_shape))

    share = cached(op, ("floor", dtype), make)
    return v @ share if share.ndim == 1 else (v * share).sum(-1)


def _covariance(op: Dense, v: Tensor) -> Tensor:
    """A diag(v) A^H. It is linear in v: with the table of a_n a_n^H it is one real product, half the operations and a
    third of the time of (A diag(v)) A^H, where enough systems share A."""
    a = op.matrix
    rows, columns = a.shape[-2:]
    count = v.numel() // columns if a.ndim == 2 else v.shape[-2] if a.shape[-3] == 1 and v.ndim > 1 else 0
    if count < TABLE_ROWS or rows * rows * columns > TABLE_ENTRIES:
        return (a * v[..., None, :]) @ a.mH
    table = cached(op, ("table",), lambda: _table(a if a.ndim == 2 else a.squeeze(-3)))
    return torch.view_as_complex((v @ table).unflatten(-1, (rows, rows, 2)))


def _table(a: Tensor) -> Tensor:
    """(*batch, M, N) -> (*batch, N, 2 M^2): real and imaginary parts of a_n a_n^H."""
    columns = a.mT
    return torch.view_as_real(columns[..., :, None] * columns.conj()[..., None, :]).flatten(-3)


def _factored(c: Tensor, s2: Tensor, floor: Tensor) -> Factor:
    """Factor of c + diag s2. Where round-off makes it indefinite, s2 is raised tenfold, at most three times."""
    least = HEADROOM * torch.finfo(floor.dtype).tiny
    s2 = torch.maximum(s2, floor).clamp_min(least)
    if _differs(s2.shape[:-1], c.shape[:-2]):  # items that differ in their noise alone
        c = c.expand(*torch.broadcast_shapes(s2.shape[:-1], c.shape[:-2]), *c.shape[-2:]).clone()
    c.diagonal(dim1=-2, dim2=-1).real.add_(s2)
    lower = factor(c)
    for _ in range(3):
        if lower.ok:
            break
        failed = torch.isnan(lower.log_det)[..., None]
        raised = torch.where(failed, 10 * torch.maximum(s2, floor), s2)
        c = c.clone()
        c.diagonal(dim1=-2, dim2=-1).real.add_(raised - s2)
        s2, lower = raised, factor(c)
    return lower


def _differs(small: Shape, large: Shape) -> bool:
    """Does `small` not broadcast to `large`?"""
    return len(small) > len(large) or any(a not in (1, b) for a, b in zip(small[::-1], large[::-1], strict=False))


@dataclass(frozen=True, eq=False)
class CoefficientSystem:
    """Fewer coefficients than data: K = I + D^1/2 A^H S^-1 A D^1/2 = L L^H with D = diag(v), S = diag(s2), so that
    Sigma = D^1/2 K^-1 D^1/2 and y^H C^-1 y = |S^-1/2 (y - A x)|^2 + |D^-1/2 x|^2 at the posterior mean x.

    In double precision whatever y's: K holds the square of A's condition, and 1 beside powers that grow with the
    number of samples. With the collinear columns of a contiguous band single precision is off by 0.03 to 2 standard
    deviations of x at 30 dB, depending on how it solves, and has no digit left at 50 dB.
    """

    op: LinearOp
    back: Tensor
    v: Tensor
    s2: Tensor
    log_det: Tensor
    view: LinearOp | None
    var: Tensor

    @classmethod
    def make(cls, op: LinearOp, v: Tensor, s2: Tensor, view: LinearOp | None) -> "CoefficientSystem":
        """op is a Dense, or a KhatriRao with one noise variance per item; one input axis."""
        real, num_out = v.dtype, len(op.out_shape)
        columns = op.in_shape[0]
        op, v = op.to(torch.complex128), v.double().expand(*v.shape[:-1], columns)
        floor = _floor(op, v, real.to_complex())[(..., *(None,) * num_out)]
        s2 = torch.maximum(s2.double(), floor).clamp_min(HEADROOM * torch.finfo(real).tiny)
        root = v.sqrt()
        system = _information(op, s2) * root[..., :, None] * root[..., None, :]
        system.diagonal(dim1=-2, dim2=-1).add_(1)
        lower = factor(system)
        back = lower.inverse * root[..., None, :]
        var = column_energy(back) if view is None else _seen_through(view, back, real.to_complex())
        return cls(op, back, v, s2, lower.log_det + event_sum(s2.log(), op.out_shape), view, var.to(real))

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shape, dtype = self.op.out_shape, y.dtype
        y = y.to(torch.complex128)
        z = matvec(self.back, self.op.adjoint(y / self.s2))
        x = matvec(self.back.mH, z)
        distance = event_sum(squared(y - self.op.apply(x)) / self.s2, shape)
        distance = distance + (squared(x) / self.v.clamp_min(torch.finfo(self.v.dtype).tiny)).sum(-1)
        evidence = log_normal(math.prod(shape), self.log_det, distance)
        x = x.to(dtype)
        return x if self.view is None else self.view.apply(x), evidence.to(x.real.dtype)


def _information(op: LinearOp, s2: Tensor) -> Tensor:
    """A^H S^-1 A; with one noise variance per item the Gram matrix is formed once."""
    num_out = len(op.out_shape)
    if all(n == 1 for n in s2.shape[s2.ndim - num_out :]):
        s2 = s2.reshape(*s2.shape[: s2.ndim - num_out], 1, 1)
        return _gram(op) / s2
    a = op.dense()
    return (a / s2.flatten(s2.ndim - num_out)[..., :, None]).mH @ a


def _gram(op: LinearOp) -> Tensor:
    """A^H A (*batch, N, N)."""
    if isinstance(op, KhatriRao):
        return op.gram
    a = op.dense()
    return cached(op, ("gram",), lambda: a.mH @ a)


def _seen_through(view: LinearOp, back: Tensor, dtype: torch.dtype) -> Tensor:
    """diag(B back^H back B^H): sum_q |B r_q^*|^2 over the rows r_q of `back`, a bounded number at a time."""
    lifted, rows = view.lift(1), back.conj().to(dtype)
    size = dtype.itemsize * math.prod(view.out_shape) * (rows.numel() // rows.shape[-1] // rows.shape[-2])
    axis = -1 - len(view.out_shape)
    found = [squared(lifted.apply(some)).sum(axis) for some in rows.split(max(1, _working_set(rows) // size), -2)]
    return torch.stack(found).sum(0)


def _working_set(x: Tensor) -> int:
    return WORKING_SET.get(x.device.type, WORKING_SET["cuda"])
