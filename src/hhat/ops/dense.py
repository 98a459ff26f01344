"""Operators that are a matrix: Dense, and Steering with its two coordinates."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hhat.ops import linalg
from hhat.ops.base import LinearOp
from hhat.ops.linalg import squared
from hhat.random import complex_normal
from hhat.types import Shape


@dataclass(frozen=True, eq=False)
class Dense(LinearOp):
    """y = A x for a matrix (*batch, M, N); several event axes are flattened row-major where shapes are given.

    Raises ValueError where the shapes do not multiply to M and N.
    """

    matrix: Tensor
    rows: Shape | None = None
    columns: Shape | None = None
    unitary: bool = False

    def __init__(
        self, matrix: Tensor, in_shape: Shape | None = None, out_shape: Shape | None = None, unitary: bool = False
    ):
        if matrix.ndim < 2:
            raise ValueError(f"Dense: expected a matrix (*batch, M, N), got shape {tuple(matrix.shape)}")
        rows = (matrix.shape[-2],) if out_shape is None else tuple(out_shape)
        columns = (matrix.shape[-1],) if in_shape is None else tuple(in_shape)
        if (math.prod(rows), math.prod(columns)) != tuple(matrix.shape[-2:]):
            raise ValueError(f"Dense: out_shape {rows} and in_shape {columns} do not fit {tuple(matrix.shape)}")
        for name, value in (("matrix", matrix), ("rows", rows), ("columns", columns), ("unitary", unitary)):
            object.__setattr__(self, name, value)

    @property
    def in_shape(self) -> Shape:
        return self.columns or ()

    @property
    def out_shape(self) -> Shape:
        return self.rows or ()

    @property
    def batch_shape(self) -> Shape:
        return tuple(self.matrix.shape[:-2])

    @property
    def is_unitary(self) -> bool:
        return self.unitary

    @property
    def H(self) -> LinearOp:
        return Dense(self.matrix.mH, self.out_shape, self.in_shape, self.unitary)

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        return linalg.svd(self.matrix)

    @property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Thin SVD, factored once."""
        return self._svd

    def apply(self, x: Tensor) -> Tensor:
        return self._times(self.matrix, x, self.in_shape, self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._times(self.matrix.mH, y, self.out_shape, self.in_shape)

    def _times(self, matrix: Tensor, x: Tensor, have: Shape, want: Shape) -> Tensor:
        out = linalg.matvec(matrix, x.flatten(x.ndim - len(have)) if len(have) != 1 else x)
        return out if len(want) == 1 else out.unflatten(-1, want)

    def dense(self, dtype: torch.dtype = torch.complex64) -> Tensor:
        return self.matrix

    def abs2(self) -> LinearOp:
        return Dense(squared(self.matrix), self.in_shape, self.out_shape)

    def lift(self, count: int) -> LinearOp:
        if not self.batch_shape:
            return self
        matrix = self.matrix.reshape(*self.batch_shape, *(1,) * count, *self.matrix.shape[-2:])
        return Dense(matrix, self.in_shape, self.out_shape, self.unitary)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Dense":
        return cls(complex_normal((2, 3, 4), gen), in_shape=(2, 2))


@dataclass(frozen=True, eq=False)
class Steering(Dense):
    """A_pg = exp(+j 2 pi position_p coordinate_g) * scale: a dictionary of plane waves or delays.

    positions (P,), grid (*batch, G): a grid of its own per item gives matrices (*batch, P, G).
    `ula`: a_n(u) = exp(+j pi n u), n from 0, u = sin(angle from broadside), half-wavelength spacing.
    `delay`: exp(-j 2 pi f tau), f in Hz, tau in seconds.
    Raises ValueError where positions are no list or the grid has no axis.
    """

    positions: Tensor | None = None
    grid: Tensor | None = None
    scale: float = 1.0

    def __init__(self, positions: Tensor, grid: Tensor, scale: float = 1.0, unitary: bool = False):
        if positions.ndim != 1 or grid.ndim < 1:
            have = tuple(positions.shape), tuple(grid.shape)
            raise ValueError(f"Steering: expected positions (P,) and grid (*batch, G), got {have[0]} and {have[1]}")
        # phases reach hundreds of cycles: float64 and modulo one cycle before the exponential
        cycles = torch.remainder(positions.double()[:, None] * grid.double()[..., None, :], 1.0)
        matrix = torch.polar(torch.full_like(cycles, scale), 2 * math.pi * cycles)
        double = positions.dtype == torch.float64 and grid.dtype == torch.float64
        Dense.__init__(self, matrix if double else matrix.to(torch.complex64), unitary=unitary)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "scale", scale)

    @property
    def arms(self) -> Tensor:
        """Positions from their centre (P,)."""
        positions = self.positions.double()  # type: ignore[union-attr]
        return positions - (positions.amax() + positions.amin()) / 2

    @property
    def spacing(self) -> Tensor:
        """Distance of each grid point to its neighbours, their mean (grid's shape); alone: one over the aperture."""
        grid: Tensor = self.grid  # type: ignore[assignment]
        if grid.shape[-1] == 1:
            aperture = 2 * self.arms.amax()
            return (1 / aperture if bool(aperture > 0) else aperture).to(grid.dtype).expand(grid.shape)
        ordered, order = grid.sort(-1)
        gap = ordered.diff(dim=-1)
        mean = torch.cat([gap[..., :1], (gap[..., 1:] + gap[..., :-1]) / 2, gap[..., -1:]], -1)
        return mean.gather(-1, order.argsort(-1))

    def moved(self, offset: Tensor) -> Dense:
        """The dictionary at grid + offset, offset (*batch, G): matrices (*batch, P, G).

        Each column keeps the phase it has at the centre of the positions, a(grid + offset) e^(-j 2 pi centre offset):
        coefficients stay as they are while the grid moves, and a column's slope is at right angles to the column.
        """
        return Dense(self.matrix * Steering(self.arms.to(offset.dtype), offset).matrix)

    def slope(self, moved: Dense) -> Tensor:
        """Derivative of what `moved` gave by its offset, column by column: (*batch, P, G)."""
        return 2j * math.pi * self.arms.to(moved.matrix.real.dtype)[:, None] * moved.matrix

    @classmethod
    def ula(cls, num_ant: int, u: Tensor, scale: float = 1.0) -> "Steering":
        """Half-wavelength line array; u in [-1, 1]."""
        return cls(torch.arange(num_ant, dtype=u.dtype) / 2, u, scale)

    @classmethod
    def ula_grid(cls, num_ant: int) -> "Steering":
        """The unitary grid: num_ant values of u, uniform over [-1, 1), columns of norm one."""
        u = 2 * torch.arange(num_ant) / num_ant - (1 if num_ant > 1 else 0)
        return cls(torch.arange(num_ant) / 2, u, num_ant**-0.5, unitary=True)

    @classmethod
    def dft(cls, num: int) -> "Steering":
        """The columns of `Fourier(num)`, as a dictionary that can move: positions 0, -1, .., grid b / num cycles."""
        return cls(-torch.arange(num), torch.arange(num) / num, num**-0.5, unitary=True)

    @classmethod
    def delay(cls, frequency_hz: Tensor, delay_s: Tensor, scale: float = 1.0) -> "Steering":
        """Delays as seen on subcarriers; both in float64 keep their phase over wide bands."""
        return cls(-frequency_hz, delay_s, scale)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Steering":
        return cls.ula(4, torch.rand(6, generator=gen) * 2 - 1)
