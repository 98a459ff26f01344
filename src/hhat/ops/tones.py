"""`Tones`: a matrix of its own per entry of the last axis; and which axes of x an operator leaves where they are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.base import Adjoint, LinearOp
from hhat.ops.dense import Dense
from hhat.ops.elementary import Diagonal, Identity
from hhat.ops.linalg import squared
from hhat.random import complex_normal
from hhat.types import Shape


@dataclass(frozen=True, eq=False)
class Tones(LinearOp):
    """Y[:, k] = A_k X[:, k], x (*batch, N, K), y (*batch, M, K): e.g. a dictionary that knows the tone's frequency.

    matrix: (*batch, K, M, N). `BlockDiag` with its blocks behind: the order of axes is that of a channel.
    Raises ValueError for a matrix without an axis of tones.
    """

    matrix: Tensor

    def __post_init__(self):
        if self.matrix.ndim < 3:
            raise ValueError(f"Tones: expected matrices (*batch, K, M, N), got shape {tuple(self.matrix.shape)}")

    @property
    def in_shape(self) -> Shape:
        return (self.matrix.shape[-1], self.matrix.shape[-3])

    @property
    def out_shape(self) -> Shape:
        return (self.matrix.shape[-2], self.matrix.shape[-3])

    @property
    def batch_shape(self) -> Shape:
        return tuple(self.matrix.shape[:-3])

    @property
    def H(self) -> LinearOp:
        return Tones(self.matrix.mH)

    def apply(self, x: Tensor) -> Tensor:
        return _times(self.matrix, x)

    def adjoint(self, y: Tensor) -> Tensor:
        return _times(self.matrix.mH, y)

    def abs2(self) -> LinearOp:
        return Tones(squared(self.matrix))

    def lift(self, count: int) -> LinearOp:
        if not self.batch_shape:
            return self
        return Tones(self.matrix.reshape(*self.batch_shape, *(1,) * count, *self.matrix.shape[-3:]))

    def behind(self, outer: LinearOp, right: LinearOp) -> "Tones | None":
        """`Kron(outer, right) @ self` as one `Tones`, where nothing mixes the tones."""
        if isinstance(outer, Dense) and isinstance(right, Identity) and len(outer.out_shape) == 1:
            return Tones(outer.matrix[..., None, :, :] @ self.matrix)
        return None

    @classmethod
    def example(cls, gen: torch.Generator) -> "Tones":
        return cls(complex_normal((2, 3, 2, 4), gen))


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """Items that share a matrix are its right-hand sides: one product per tone."""
    rows = x.mT
    extra = rows.ndim - (matrix.ndim - 1)
    if extra <= 0:
        return (matrix @ rows[..., None])[..., 0].mT
    flat = rows.flatten(0, extra - 1).movedim(0, -1)
    return (matrix @ flat).movedim(-1, 0).unflatten(0, rows.shape[:extra]).mT


def lane_axes(op: LinearOp) -> tuple[int, ...]:
    """Event axes (negative) along which entry k of x reaches entry k of y alone, at the same place in both shapes."""
    from hhat.ops.compose import Compose
    from hhat.ops.structured import BlockDiag, Kron

    count = len(op.in_shape)
    if len(op.out_shape) != count:
        return ()
    if isinstance(op, Identity | Diagonal):
        return tuple(range(-count, 0))
    if isinstance(op, Tones):
        return (-1,)
    if isinstance(op, Adjoint):
        return lane_axes(op.op)
    if isinstance(op, BlockDiag):
        return (-count, *lane_axes(op.op))
    if isinstance(op, Compose):
        inner = lane_axes(op.inner)
        return tuple(axis for axis in lane_axes(op.outer) if axis in inner)
    if isinstance(op, Kron) and len(op.right.in_shape) == len(op.right.out_shape):
        return tuple(axis - len(op.right.in_shape) for axis in lane_axes(op.left)) + lane_axes(op.right)
    return ()
