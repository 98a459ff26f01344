"""How far calibrated gains are from the true ones, with what no echo can show taken out.

    e0      1 - |k^H kappa|^2 / (|k|^2 |kappa|^2): what the beam loses at the true angle
    e1      the least e0 between k and kappa_n exp(+j 2 pi p_n d) over d: the same, however angles are shifted in common
    shift   the d at which it is reached: angles seen through k come out too small by it

A common phase and the norm count in none of them.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops.linalg import squared
from hhat.sensing.beam import climbed, line

POINTS_PER_CELL = 8
"""Shifts looked at per resolution cell (1 / aperture in u) before the Newton steps."""
NEWTON_STEPS = 6


class GainErrors(NamedTuple):
    """Each of the batch shape of the gains."""

    e0: Float[Tensor, "*batch"]
    e1: Float[Tensor, "*batch"]
    shift_u: Float[Tensor, "*batch"]


def gain_errors(
    estimate: Complex[Tensor, "..."],
    truth: Complex[Tensor, "..."],
    positions: Float[Tensor, " rx"] | None = None,
) -> GainErrors:
    """e0, e1 and the shift of estimated gains, in double precision.

    estimate (*batch, rx) and truth (rx) or (*batch, rx)
    positions: (rx) along the line, in wavelengths; None: n / 2. Raises ValueError where the numbers of antennas differ.
    """
    num = truth.shape[-1]
    if estimate.shape[-1] != num:
        raise ValueError(f"gains: expected {num} antennas as in the truth, got {estimate.shape[-1]}")
    k, kappa = estimate.to(torch.complex128), truth.to(torch.complex128)
    size = (squared(k).sum(-1) * squared(kappa).sum(-1)).clamp_min(torch.finfo(torch.float64).tiny)
    product = k * kappa.conj()
    at = line(num, product, positions)
    step = 1 / (POINTS_PER_CELL * max(float(at.max() - at.min()), 1.0))
    grid = torch.arange(-1.0, 1.0, step, dtype=at.dtype, device=at.device)
    waves = torch.polar(torch.ones(num, len(grid), dtype=at.dtype, device=at.device), -2 * math.pi * at[:, None] * grid)
    d = climbed(product, at, grid[squared(product @ waves).argmax(-1)], step, NEWTON_STEPS)
    turned = product * torch.polar(torch.ones_like(at), -2 * math.pi * at * d[..., None])
    e0, e1 = (1 - squared(value.sum(-1)) / size for value in (product, turned))
    return GainErrors(e0.clamp_min(0), e1.clamp_min(0), d)
