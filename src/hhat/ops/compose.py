"""Composition, simplified where the structure is known: Kron with Kron, Dense with Dense, unitary with its adjoint."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.base import Adjoint, LinearOp
from hhat.ops.dense import Dense
from hhat.ops.elementary import Diagonal, Fourier, Identity, Select
from hhat.ops.khatri_rao import KhatriRao
from hhat.ops.structured import BlockDiag, Kron
from hhat.ops.tones import Tones
from hhat.random import complex_normal
from hhat.types import Shape


@dataclass(frozen=True, eq=False)
class Compose(LinearOp):
    """y = outer(inner(x)), kept as two maps. `outer @ inner` simplifies first and is what one usually wants."""

    outer: LinearOp
    inner: LinearOp

    def __post_init__(self):
        if self.outer.in_shape != self.inner.out_shape:
            raise ValueError(
                f"Compose: the outer operator takes {self.outer.in_shape}, the inner one gives {self.inner.out_shape}"
            )

    @property
    def in_shape(self) -> Shape:
        return self.inner.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.outer.out_shape

    @property
    def batch_shape(self) -> Shape:
        return tuple(torch.broadcast_shapes(self.outer.batch_shape, self.inner.batch_shape))

    @property
    def is_unitary(self) -> bool:
        return self.outer.is_unitary and self.inner.is_unitary

    @property
    def H(self) -> LinearOp:
        return Compose(self.inner.H, self.outer.H)

    def apply(self, x: Tensor) -> Tensor:
        return self.outer.apply(self.inner.apply(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def lift(self, count: int) -> LinearOp:
        return Compose(self.outer.lift(count), self.inner.lift(count)) if self.batch_shape else self

    @classmethod
    def example(cls, gen: torch.Generator) -> "Compose":
        return cls(Select(torch.tensor([1, 3]), 4), Dense(complex_normal((4, 3), gen)))


def compose(outer: LinearOp, inner: LinearOp) -> LinearOp:
    """outer after inner in its simplest form; ValueError where the shapes do not meet."""
    pair = Compose(outer, inner)  # checks the shapes
    if isinstance(outer, Identity):
        return inner
    if isinstance(inner, Identity):
        return outer
    if _undo(outer, inner):
        return Identity(inner.in_shape)
    if isinstance(inner, Compose):
        first = compose(outer, inner.outer)
        return pair if isinstance(first, Compose) else compose(first, inner.inner)
    if isinstance(outer, Compose):
        last = compose(outer.inner, inner)
        return pair if isinstance(last, Compose) else compose(outer.outer, last)
    if isinstance(outer, Kron) and isinstance(inner, Kron) and outer.left.in_shape == inner.left.out_shape:
        return Kron(compose(outer.left, inner.left), compose(outer.right, inner.right))
    if isinstance(outer, Kron) and isinstance(inner, KhatriRao):
        return inner.behind(outer) or pair
    if isinstance(outer, Kron) and isinstance(inner, Tones):
        return inner.behind(outer.left, outer.right) or pair
    if isinstance(outer, KhatriRao) and isinstance(inner, Diagonal):
        return outer.scaled(inner)
    if isinstance(outer, BlockDiag) and isinstance(inner, BlockDiag):
        return BlockDiag(compose(outer.op, inner.op))
    if isinstance(outer, Diagonal) and isinstance(inner, Diagonal) and outer.ndim == inner.ndim:
        return Diagonal(outer.values * inner.values, outer.ndim)
    if isinstance(inner, Dense):
        return _onto_matrix(outer, inner) or pair
    if isinstance(outer, Dense) and isinstance(inner, Diagonal):
        scale = inner.values.flatten(inner.values.ndim - inner.ndim)
        return Dense(outer.matrix * scale[..., None, :], inner.in_shape, outer.out_shape)
    if isinstance(outer, Dense) and _transform(inner):
        matrix = inner.adjoint(outer.matrix.conj()).conj()  # (U^H A^H)^H = A U
        return Dense(matrix, out_shape=outer.out_shape, unitary=outer.unitary)
    return pair


def _transform(op: LinearOp) -> bool:
    """A DFT of one axis, or its inverse."""
    return isinstance(op, Fourier) or (isinstance(op, Adjoint) and isinstance(op.op, Fourier))


def _undo(outer: LinearOp, inner: LinearOp) -> bool:
    """Is this a Fourier transform followed by its inverse?"""
    forward, backward = (outer, inner) if isinstance(outer, Fourier) else (inner, outer)
    return isinstance(forward, Fourier) and isinstance(backward, Adjoint) and isinstance(backward.op, Fourier)


def _onto_matrix(outer: LinearOp, inner: Dense) -> LinearOp | None:
    """The product as one matrix, where it is no larger than what it replaces."""
    if isinstance(outer, Dense):
        unitary = outer.unitary and inner.unitary
        return Dense(outer.matrix @ inner.matrix, inner.in_shape, outer.out_shape, unitary)
    if isinstance(outer, Diagonal):
        scale = outer.values.flatten(outer.values.ndim - outer.ndim)
        return Dense(scale[..., None] * inner.matrix, inner.in_shape, outer.out_shape)
    if isinstance(outer, Select):
        return Dense(inner.matrix.index_select(-2, outer.index.to(inner.matrix.device)), inner.in_shape)
    if _transform(outer):
        columns = outer.apply(inner.matrix.mT).mT
        return Dense(columns, inner.in_shape, unitary=inner.unitary)
    return None
