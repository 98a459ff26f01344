"""`KhatriRao`: chosen cells of a Kronecker dictionary."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.base import LinearOp, cached
from hhat.ops.dense import Dense
from hhat.ops.elementary import Diagonal
from hhat.ops.structured import Kron
from hhat.random import complex_normal
from hhat.types import Shape


@dataclass(frozen=True, eq=False)
class KhatriRao(LinearOp):
    """Y = sum_c x_c a_c b_c^T: x (*batch, C) to Y (*batch, M1, M2), with a_c, b_c the columns of left and right.

    left (*batch, M1, C), right (*batch, M2, C): matrices, or operators with C unknowns, which are turned into them;
    an operator with several output axes keeps them. The (M1 M2) x C matrix is never formed. `KhatriRao.of` picks cells
    of a `Kron` dictionary; pilots, hops and arrays fold in by `Kron(...) @ KhatriRao(...)`.
    Raises ValueError where the two do not have the same number of columns.
    Source: the candidate set of Turbo-CS trackers; Gram matrix by Khatri & Rao, Sankhya A 1968.
    """

    left: Dense
    right: Dense

    def __init__(self, left: LinearOp | Tensor, right: LinearOp | Tensor):
        left, right = _columns(left), _columns(right)
        if left.in_shape != right.in_shape:
            raise ValueError(f"KhatriRao: left has {left.in_shape[0]} columns, right has {right.in_shape[0]}")
        object.__setattr__(self, "left", left)
        object.__setattr__(self, "right", right)

    @classmethod
    def of(cls, kron: Kron, left_index: Tensor, right_index: Tensor) -> "KhatriRao":
        """The cells (left_index[c], right_index[c]) of a dictionary; several axes of a factor count row-major.

        Raises ValueError where the lists differ in length or leave the dictionary.
        """
        if left_index.ndim != 1 or left_index.shape != right_index.shape:
            have = tuple(left_index.shape), tuple(right_index.shape)
            raise ValueError(f"KhatriRao.of: expected two lists of one length, got shapes {have[0]} and {have[1]}")
        dtype = kron.dtype or torch.complex64
        return cls(_picked(kron.left, left_index, dtype), _picked(kron.right, right_index, dtype))

    @property
    def in_shape(self) -> Shape:
        return self.left.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.left.out_shape + self.right.out_shape

    @property
    def batch_shape(self) -> Shape:
        return tuple(torch.broadcast_shapes(self.left.batch_shape, self.right.batch_shape))

    @property
    def gram(self) -> Tensor:
        """A^H A = (left^H left) * (right^H right), entry by entry: (*batch, C, C), made once."""
        left, right = self.left.matrix, self.right.matrix
        return cached(self, ("gram",), lambda: (left.mH @ left) * (right.mH @ right))

    def apply(self, x: Tensor) -> Tensor:
        y = (self.left.matrix * x[..., None, :]) @ self.right.matrix.mT
        return y if len(self.out_shape) == 2 else y.reshape(*y.shape[:-2], *self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        left, right = self.left.matrix, self.right.matrix
        y = y.reshape(*y.shape[: y.ndim - len(self.out_shape)], left.shape[-2], right.shape[-2])
        return (left.conj() * (y @ right.conj())).sum(-2)

    def abs2(self) -> LinearOp:
        return KhatriRao(self.left.abs2(), self.right.abs2())

    def lift(self, count: int) -> LinearOp:
        return KhatriRao(self.left.lift(count), self.right.lift(count)) if self.batch_shape else self

    def behind(self, outer: Kron) -> "KhatriRao | None":
        """outer after this, where the factors of outer take the two groups of axes apart."""
        if outer.left.in_shape != self.left.out_shape:
            return None
        return KhatriRao(_through(outer.left, self.left), _through(outer.right, self.right))

    def scaled(self, inner: Diagonal) -> "KhatriRao":
        """This after a diagonal: its values scale the columns."""
        matrix = self.left.matrix * inner.values[..., None, :]
        return KhatriRao(Dense(matrix, out_shape=self.left.out_shape), self.right)

    @classmethod
    def example(cls, gen: torch.Generator) -> "KhatriRao":
        return cls(complex_normal((2, 3, 4), gen), complex_normal((2, 4), gen))


def _columns(factor: LinearOp | Tensor) -> Dense:
    if isinstance(factor, Tensor):
        return Dense(factor)
    if isinstance(factor, Dense) and len(factor.in_shape) == 1:
        return factor
    return Dense(factor.dense(factor.dtype or torch.complex64), out_shape=factor.out_shape)


def _picked(factor: LinearOp, index: Tensor, dtype: torch.dtype) -> Dense:
    matrix = factor.dense(dtype)
    if index.numel() == 0 or int(index.min()) < 0 or int(index.max()) >= matrix.shape[-1]:
        raise ValueError(f"KhatriRao.of: expected indices in 0..{matrix.shape[-1] - 1}, got {index.tolist()[:8]}")
    return Dense(matrix.index_select(-1, index.to(matrix.device)), out_shape=factor.out_shape)


def _through(op: LinearOp, columns: Dense) -> Dense:
    """op applied to every column."""
    matrix = columns.matrix.mT.unflatten(-1, columns.out_shape)  # (*batch, C, *out)
    moved = op.like(matrix).lift(1).apply(matrix)
    return Dense(moved.flatten(moved.ndim - len(op.out_shape)).mT, out_shape=op.out_shape)
