"""`Hops`: other tones in every symbol."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.types import Shape


@dataclass(frozen=True, eq=False)
class Hops(LinearOp):
    """y[s, k] = x[s, index[s, k]], x (*batch, symbol, subcarrier): the tones that symbol s sounds.

    index: (symbol, tones), none twice in a row; size: subcarriers of the channel. With antennas in front,
    Kron(Identity((num_rx_ant,)), Hops(index, size)).
    Raises ValueError for indices outside of 0..size - 1 and for repeats.
    """

    index: Tensor
    size: int

    def __post_init__(self):
        index = torch.as_tensor(self.index, dtype=torch.int64)
        if index.ndim != 2 or index.numel() == 0 or int(index.min()) < 0 or int(index.max()) >= self.size:
            got = tuple(index.shape), index.flatten().tolist()[:8]
            raise ValueError(f"Hops: expected (symbol, tones) in 0..{self.size - 1}, got shape {got[0]}, {got[1]}")
        if any(row.unique().numel() != row.numel() for row in index):
            raise ValueError("Hops: expected distinct tones in every symbol, got repeats")
        object.__setattr__(self, "index", index)

    @property
    def in_shape(self) -> Shape:
        return (len(self.index), self.size)

    @property
    def out_shape(self) -> Shape:
        return tuple(self.index.shape)

    def apply(self, x: Tensor) -> Tensor:
        return x.gather(-1, self._rows(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return y.new_zeros(*y.shape[:-1], self.size).scatter(-1, self._rows(y), y)

    def abs2(self) -> LinearOp:
        return self

    def lift(self, count: int) -> LinearOp:
        return self

    @classmethod
    def example(cls, gen: torch.Generator) -> "Hops":
        return cls(torch.tensor([[3, 0], [1, 4], [0, 2]]), 5)

    def _rows(self, x: Tensor) -> Tensor:
        return self.index.to(x.device).expand(*x.shape[:-2], *self.index.shape)
