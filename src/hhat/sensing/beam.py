"""The beam of one snapshot as a function of angle, climbed to its top by Newton steps."""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops.linalg import squared

STEPS = 3
"""Newton steps: from a tenth of a cell the second is exact to 1e-4 of a cell."""


def line(num: int, like: Tensor, positions: Tensor | None = None) -> Float[Tensor, " rx"]:
    """Element positions in wavelengths in the real precision of `like`: those given, or n / 2."""
    if positions is None:
        positions = torch.arange(num, device=like.device) / 2
    return positions.to(like.device, like.real.dtype)


def climbed(
    weights: Complex[Tensor, "*batch rx"],
    positions: Float[Tensor, " rx"],
    start: Float[Tensor, "*batch"],
    limit: float | Tensor,
    steps: int = STEPS,
) -> Float[Tensor, "*batch"]:
    """The d within start +- limit at which f(d) = |sum_n w_n exp(-j 2 pi p_n d)|^2 is largest near `start`.

    Newton where f is concave, else a step uphill of half the limit; positions are centred first, which takes the
    turning of the sum's phase out of both derivatives.
    """
    centred = positions - positions.mean()
    omega = 2 * math.pi * centred
    # moments of the weights under the wave, all three from one product
    powers = torch.stack([torch.ones_like(omega), omega, omega.square()], -1).to(weights.dtype)
    d = start
    for _ in range(steps):
        angle = -omega * d[..., None]
        s0, s1, s2 = ((weights * torch.complex(angle.cos(), angle.sin())) @ powers).unbind(-1)
        slope = 2 * (s0.conj() * s1).imag
        bend = 2 * (squared(s1) - (s0.conj() * s2).real)
        newton = -slope / torch.where(bend < 0, bend, -1.0)
        move = torch.where(bend < 0, newton, 0.5 * limit * slope.sign())
        d = torch.minimum(torch.maximum(d + move, start - limit), start + limit)
    return d
