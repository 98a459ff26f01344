"""`Polar`: a dictionary of spherical waves over a line array, plane waves among them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.dense import Dense


@dataclass(frozen=True, eq=False)
class Polar(Dense):
    """A_pg = exp(+j 2 pi lead_pg) * scale, lead the wavelengths by which position p is nearer to source g than 0 is.

    lead = (2 x u - x^2 q) / (1 + sqrt(1 + x^2 q^2 - 2 x q u)) = r - sqrt(r^2 + x^2 - 2 r x u), r = 1 / q;
    q = 0 is the plane wave exp(+j 2 pi x u), as in `Steering`.

    positions (P,): x along the array, in wavelengths; grid (*batch, G): u = cos of the angle to the array's axis;
    nearness (*batch, G): q, one over the range to position 0, per wavelength.
    Raises ValueError where the shapes do not fit.
    """

    positions: Tensor | None = None
    grid: Tensor | None = None
    nearness: Tensor | None = None
    scale: float = 1.0

    def __init__(self, positions: Tensor, grid: Tensor, nearness: Tensor, scale: float = 1.0):
        if positions.ndim != 1 or grid.ndim < 1 or grid.shape != nearness.shape:
            have = ", ".join(str(tuple(value.shape)) for value in (positions, grid, nearness))
            raise ValueError(f"Polar: expected positions (P,), grid and nearness (*batch, G), got {have}")
        x, u, q = positions.double()[:, None], grid.double()[..., None, :], nearness.double()[..., None, :]
        root = (1 + (x * q).square() - 2 * x * q * u).clamp_min(0).sqrt()
        cycles = torch.remainder((2 * x * u - x.square() * q) / (1 + root), 1.0)
        matrix = torch.polar(torch.full_like(cycles, scale), 2 * math.pi * cycles)
        double = all(value.dtype == torch.float64 for value in (positions, grid, nearness))
        Dense.__init__(self, matrix if double else matrix.to(torch.complex64))
        for name, value in (("positions", positions), ("grid", grid), ("nearness", nearness), ("scale", scale)):
            object.__setattr__(self, name, value)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Polar":
        positions = torch.arange(4) / 2 - 0.75
        return cls(positions, 2 * torch.rand(6, generator=gen) - 1, 0.3 * torch.rand(6, generator=gen))
