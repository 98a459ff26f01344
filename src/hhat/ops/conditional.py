"""Gaussian conditioning with op, prior variances and noise fixed: factored once, then linear in y.

A conditional answers, for x ~ CN(0, diag v), y = A x + CN(0, diag s2) and a view z = B x,
  var      = diag(B Sigma B^H),  Sigma = diag(v) - diag(v) A^H C^-1 A diag(v),  C = A diag(v) A^H + diag(s2)
  call(y) -> (B diag(v) A^H C^-1 y,  log CN(y; 0, C)).
What factors is in `spectral` and `systems`; here is what carries it to the place that structure gave it.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.picks import placed
from hhat.ops.spectral import Eigen, Entrywise
from hhat.ops.structured import swap
from hhat.ops.systems import CoefficientSystem, DenseSystem
from hhat.types import Shape

__all__ = [
    "BlockSum",
    "Blocks",
    "CoefficientSystem",
    "Conditional",
    "DenseSystem",
    "Eigen",
    "Entrywise",
    "Flat",
    "Grouped",
    "Placed",
    "Rotated",
    "Swapped",
]


@runtime_checkable
class Conditional(Protocol):
    @property
    def var(self) -> Tensor: ...

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]: ...


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
class Placed:
    """A = P kron R where P picks entries of the leading axes: the picked ones are a batch of problems with R, the
    others keep their prior."""

    pick: LinearOp
    inner: Conditional
    var: Tensor
    num_right_view: int
    view: LinearOp | None

    @classmethod
    def make(cls, pick: LinearOp, inner: Conditional, view: LinearOp | None, rest: Tensor, num_view: int) -> "Placed":
        """inner: of the picked entries; rest: variances of all before y, through the right part of the view."""
        count, picks = len(pick.in_shape), len(pick.out_shape)
        var = swap(placed(pick, swap(inner.var, picks, num_view), swap(rest, count, num_view)), num_view, count)
        if view is not None:
            var = _on_left(view.squares, var, num_view)
        return cls(pick, inner, var, num_view, view)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shift, evidence = self.inner(y)
        shift = _on_left(self.pick.H, shift, self.num_right_view)
        return (shift if self.view is None else _on_left(self.view, shift, self.num_right_view)), evidence


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


@dataclass(frozen=True, eq=False)
class Grouped:
    """Factors over several event axes: each factor's axes are one axis inside."""

    inner: Eigen
    sizes: tuple[int, ...]
    num_out: int
    shape: Shape

    @property
    def var(self) -> Tensor:
        var = self.inner.var
        return var.reshape(*var.shape[: var.ndim - len(self.sizes)], *self.shape)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shift, evidence = self.inner(y.reshape(*y.shape[: y.ndim - self.num_out], *self.sizes))
        return shift.reshape(*shift.shape[: shift.ndim - len(self.sizes)], *self.shape), evidence
