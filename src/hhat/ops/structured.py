"""Operators made of operators: Kron, BlockDiag, Stack."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.dense import Dense
from hhat.ops.elementary import Diagonal, Fourier
from hhat.random import complex_normal
from hhat.types import Shape


@dataclass(frozen=True, eq=False)
class Kron(LinearOp):
    """Y = left X right^T, axis by axis: left acts on the leading event axes, right on the trailing ones.

    Factors are operators or matrices (*batch, M, N). Nest for three axes: Kron(space, Kron(time, frequency)).
    """

    left: LinearOp
    right: LinearOp

    def __init__(self, left: LinearOp | Tensor, right: LinearOp | Tensor):
        object.__setattr__(self, "left", Dense(left) if isinstance(left, Tensor) else left)
        object.__setattr__(self, "right", Dense(right) if isinstance(right, Tensor) else right)

    @property
    def in_shape(self) -> Shape:
        return self.left.in_shape + self.right.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.left.out_shape + self.right.out_shape

    @property
    def batch_shape(self) -> Shape:
        return tuple(torch.broadcast_shapes(self.left.batch_shape, self.right.batch_shape))

    @property
    def is_unitary(self) -> bool:
        return self.left.is_unitary and self.right.is_unitary

    @property
    def H(self) -> LinearOp:
        return Kron(self.left.H, self.right.H)

    def apply(self, x: Tensor) -> Tensor:
        return _both(self.left, self.right, x)

    def adjoint(self, y: Tensor) -> Tensor:
        return _both(self.left.H, self.right.H, y)

    def abs2(self) -> LinearOp:
        return Kron(self.left.abs2(), self.right.abs2())

    def lift(self, count: int) -> LinearOp:
        return Kron(self.left.lift(count), self.right.lift(count)) if self.batch_shape else self

    @classmethod
    def example(cls, gen: torch.Generator) -> "Kron":
        return cls(complex_normal((2, 3), gen), Dense(complex_normal((2, 4, 3), gen)))


def swap(x: Tensor, first: int, second: int) -> Tensor:
    """Exchange the last two groups of `first` and `second` axes."""
    start = x.ndim - first - second
    return x.permute(*range(start), *range(start + first, x.ndim), *range(start, start + first))


def _both(left: LinearOp, right: LinearOp, x: Tensor) -> Tensor:
    first = len(left.in_shape)
    x = right.lift(first).apply(x)
    second = len(right.out_shape)
    x = left.lift(second).apply(swap(x, first, second))
    return swap(x, second, len(left.out_shape))


@dataclass(frozen=True, eq=False)
class BlockDiag(LinearOp):
    """y_k = A_k x_k: the last batch axis of `op` holds the blocks and becomes a leading event axis."""

    op: LinearOp

    def __post_init__(self):
        if not self.op.batch_shape:
            raise ValueError("BlockDiag: expected an operator with a batch axis that holds the blocks, got none")

    @property
    def in_shape(self) -> Shape:
        return (self.op.batch_shape[-1], *self.op.in_shape)

    @property
    def out_shape(self) -> Shape:
        return (self.op.batch_shape[-1], *self.op.out_shape)

    @property
    def batch_shape(self) -> Shape:
        return self.op.batch_shape[:-1]

    @property
    def is_unitary(self) -> bool:
        return self.op.is_unitary

    @property
    def H(self) -> LinearOp:
        return BlockDiag(self.op.H)

    def apply(self, x: Tensor) -> Tensor:
        return self.op.apply(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.op.adjoint(y)

    def abs2(self) -> LinearOp:
        return BlockDiag(self.op.abs2())

    def lift(self, count: int) -> LinearOp:
        if not self.batch_shape:
            return self
        raise ValueError("BlockDiag inside Kron: expected blocks without further batch axes")

    @classmethod
    def example(cls, gen: torch.Generator) -> "BlockDiag":
        return cls(Dense(complex_normal((3, 2, 4), gen)))


@dataclass(frozen=True, eq=False)
class Stack(LinearOp):
    """Several views of one channel, their outputs concatenated along the first output axis."""

    ops: tuple[LinearOp, ...]

    def __post_init__(self):
        object.__setattr__(self, "ops", tuple(self.ops))
        if not self.ops or any(op.in_shape != self.ops[0].in_shape for op in self.ops):
            raise ValueError(f"Stack: expected equal input shapes, got {[op.in_shape for op in self.ops]}")
        if any(op.out_shape[1:] != self.ops[0].out_shape[1:] for op in self.ops):
            raise ValueError(f"Stack: output shapes differ behind axis 0: {[op.out_shape for op in self.ops]}")

    @property
    def in_shape(self) -> Shape:
        return self.ops[0].in_shape

    @property
    def out_shape(self) -> Shape:
        return (sum(op.out_shape[0] for op in self.ops), *self.ops[0].out_shape[1:])

    @property
    def batch_shape(self) -> Shape:
        return tuple(torch.broadcast_shapes(*(op.batch_shape for op in self.ops)))

    def apply(self, x: Tensor) -> Tensor:
        parts = [op.apply(x) for op in self.ops]
        axis = len(self.out_shape)
        batch = torch.broadcast_shapes(*(part.shape[: part.ndim - axis] for part in parts))
        return torch.cat([p.expand(*batch, *p.shape[p.ndim - axis :]) for p in parts], dim=-axis)

    def adjoint(self, y: Tensor) -> Tensor:
        parts = y.split([op.out_shape[0] for op in self.ops], dim=-len(self.out_shape))
        total = self.ops[0].adjoint(parts[0])
        for op, part in zip(self.ops[1:], parts[1:], strict=True):
            total = total + op.adjoint(part)
        return total

    def abs2(self) -> LinearOp:
        return Stack(tuple(op.abs2() for op in self.ops))

    def lift(self, count: int) -> LinearOp:
        return Stack(tuple(op.lift(count) for op in self.ops)) if self.batch_shape else self

    @classmethod
    def example(cls, gen: torch.Generator) -> "Stack":
        return cls((Diagonal(complex_normal((4,), gen)), Fourier(4), Dense(complex_normal((2, 2, 4), gen))))
