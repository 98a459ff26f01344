"""Operators that touch each entry once: Identity, Diagonal, Select, Fourier."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.base import Adjoint, LinearOp
from hhat.ops.linalg import squared
from hhat.random import complex_normal
from hhat.types import Shape


@dataclass(frozen=True, eq=False)
class Identity(LinearOp):
    """y = x."""

    shape: Shape

    def __post_init__(self):
        object.__setattr__(self, "shape", (self.shape,) if isinstance(self.shape, int) else tuple(self.shape))

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return self.shape

    @property
    def is_unitary(self) -> bool:
        return True

    @property
    def H(self) -> LinearOp:
        return self

    def apply(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def abs2(self) -> LinearOp:
        return self

    def lift(self, count: int) -> LinearOp:
        return self

    @classmethod
    def example(cls, gen: torch.Generator) -> "Identity":
        return cls((3, 2))


@dataclass(frozen=True, eq=False)
class Diagonal(LinearOp):
    """y = d * x entry by entry; d is (*batch, *shape) with `ndim` event axes."""

    values: Tensor
    ndim: int = 1

    def __post_init__(self):
        if self.values.ndim < self.ndim:
            raise ValueError(f"Diagonal: expected values with {self.ndim} event axes, got {tuple(self.values.shape)}")

    @property
    def in_shape(self) -> Shape:
        return tuple(self.values.shape[self.values.ndim - self.ndim :])

    @property
    def out_shape(self) -> Shape:
        return self.in_shape

    @property
    def batch_shape(self) -> Shape:
        return tuple(self.values.shape[: self.values.ndim - self.ndim])

    @property
    def H(self) -> LinearOp:
        return Diagonal(self.values.conj(), self.ndim)

    def apply(self, x: Tensor) -> Tensor:
        return self.values * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.values.conj() * y

    def abs2(self) -> LinearOp:
        return Diagonal(squared(self.values), self.ndim)

    def lift(self, count: int) -> LinearOp:
        if not self.batch_shape:
            return self
        return Diagonal(self.values.reshape(*self.batch_shape, *(1,) * count, *self.in_shape), self.ndim)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Diagonal":
        return cls(complex_normal((2, 3, 2), gen), ndim=2)


@dataclass(frozen=True, eq=False)
class Select(LinearOp):
    """y = x[index]: some of `size` entries of one axis (combs, hops, lost tones); `index` holds no repeats."""

    index: Tensor
    size: int

    def __post_init__(self):
        index = torch.as_tensor(self.index, dtype=torch.int64)
        if index.ndim != 1 or index.numel() == 0 or int(index.min()) < 0 or int(index.max()) >= self.size:
            raise ValueError(f"Select: expected a list of indices in 0..{self.size - 1}, got {index.tolist()[:8]}")
        if index.unique().numel() != index.numel():
            raise ValueError("Select: expected distinct indices, got repeats")
        object.__setattr__(self, "index", index)

    @property
    def in_shape(self) -> Shape:
        return (self.size,)

    @property
    def out_shape(self) -> Shape:
        return (self.index.numel(),)

    def apply(self, x: Tensor) -> Tensor:
        return x.index_select(-1, self.index.to(x.device))

    def adjoint(self, y: Tensor) -> Tensor:
        out = y.new_zeros(*y.shape[:-1], self.size)
        return out.index_copy(-1, self.index.to(y.device), y)

    def abs2(self) -> LinearOp:
        return self

    def lift(self, count: int) -> LinearOp:
        return self

    @classmethod
    def example(cls, gen: torch.Generator) -> "Select":
        return cls(torch.tensor([4, 0, 2]), 5)


@dataclass(frozen=True, eq=False)
class Fourier(LinearOp):
    """Unitary DFT of one axis: F_ab = exp(-j 2 pi a b / n) / sqrt(n)."""

    size: int

    @property
    def in_shape(self) -> Shape:
        return (self.size,)

    @property
    def out_shape(self) -> Shape:
        return (self.size,)

    @property
    def is_unitary(self) -> bool:
        return True

    @property
    def H(self) -> LinearOp:
        return Adjoint(self)

    def apply(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x, norm="ortho")

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.fft.ifft(y, norm="ortho")

    def abs2(self) -> LinearOp:
        return Average(self.size)

    def lift(self, count: int) -> LinearOp:
        return self

    @classmethod
    def example(cls, gen: torch.Generator) -> "Fourier":
        return cls(5)


@dataclass(frozen=True, eq=False)
class Average(LinearOp):
    """y_k = mean of x: the squared moduli of a unitary DFT."""

    size: int

    @property
    def in_shape(self) -> Shape:
        return (self.size,)

    @property
    def out_shape(self) -> Shape:
        return (self.size,)

    def apply(self, x: Tensor) -> Tensor:
        return x.mean(-1, keepdim=True).expand(x.shape)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.apply(y)

    def lift(self, count: int) -> LinearOp:
        return self

    @classmethod
    def example(cls, gen: torch.Generator) -> "Average":
        return cls(4)
