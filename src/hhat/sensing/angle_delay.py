"""Angle-delay map of echoes, its maximum on a grid (coarse to fine), and the continuous maximum beside it.

    c(u, R) = (kappa * a(u))^H Y (b(R) * x)^*          statistic(u, R) = |c|^2 / (|kappa|^2 |x|^2 noise_var)

so that a cell of noise alone is Exp(1) and the cell of a target Exp(1 + (1 - e0) SNR).
"""

from typing import NamedTuple

from jaxtyping import Complex, Float
from torch import Tensor

from hhat.sensing.echoes import Echoes

COARSE = (3, 2)


class Found(NamedTuple):
    """The largest value of each snapshot's map and where it is, each (*batch)."""

    u: Float[Tensor, "*batch"]
    range_m: Float[Tensor, "*batch"]
    statistic: Float[Tensor, "*batch"]


def angle_delay_map(
    echoes: Echoes, kappa: Complex[Tensor, "..."] | None, u: Float[Tensor, "..."], range_m: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """statistic(u_i, R_j), (*batch, I, J), for u (*batch, I) or (I,) and range_m (*batch, J) or (J,).

    kappa (rx_ant) or (*batch, rx_ant), any norm; None: ones.
    """
    raise NotImplementedError


def search(
    echoes: Echoes,
    kappa: Complex[Tensor, "..."] | None = None,
    size: tuple[int, int] = (100, 100),
    coarse: tuple[int, int] = COARSE,
    margin_u: float = 0.0,
    refine: int = 0,
) -> Found:
    """The maximum of each snapshot's map over its sector.

    size:     angles (uniform in angle, ends included) and ranges of the grid
    coarse:   every how-manieth angle and range is looked at first; (1, 1): all, an exact grid search
    margin_u: by how much u may lie outside the sector on either side
    refine:   steps of `refine` after the grid; 0: the grid's maximum
    """
    raise NotImplementedError


def refine(
    echoes: Echoes, kappa: Complex[Tensor, "..."] | None, found: Found, step: tuple[Tensor, Tensor], steps: int = 3
) -> Found:
    """Continuous maximum near `found`: quadratic fits to 3 x 3 values, the spacing divided by 3 each time."""
    raise NotImplementedError
