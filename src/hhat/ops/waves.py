"""Plane waves over equally spaced elements, fast: the dictionary of `Steering` for many coordinates at once."""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def line_waves(u: Float[Tensor, "*any"], num: int) -> Complex[Tensor, "*any num"]:
    """exp(j pi a u), a = 0..num-1, as a coarse comb times a fine one: 2 sqrt(num) sines, not num."""
    comb = math.isqrt(num - 1) + 1
    fine = math.pi * torch.arange(comb, dtype=u.dtype, device=u.device)
    coarse = math.pi * torch.arange(0, num, comb, dtype=u.dtype, device=u.device)

    def rotation(angle: Tensor) -> Tensor:
        return torch.complex(angle.cos(), angle.sin())

    product = rotation(u[..., None] * coarse)[..., :, None] * rotation(u[..., None] * fine)[..., None, :]
    return product.flatten(-2)[..., :num]
