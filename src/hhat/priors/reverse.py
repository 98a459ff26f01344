"""Samples of what a denoiser knows: the reverse process from noise down."""

import torch
from torch import Tensor

from hhat.priors.base import Prior
from hhat.random import complex_normal
from hhat.types import Gaussian, Shape


def reverse_samples(
    prior: Prior, levels: list[float], power: float, shape: Shape, gen: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """From z ~ CN(0, power + levels[0]) through the noise variances `levels`, falling, and 0:

      z <- (1 - v'/v) E[x|z] + (v'/v) z + noise of variance v' (1 - v'/v) + (1 - v'/v)^2 var[x|z]

    Source: Ho et al. 2020; the variance is Bao et al., ICLR 2022 (Analytic-DPM).
    """
    z = complex_normal(shape, gen, dtype, power + levels[0])
    for v, after in zip(levels, [*levels[1:], 0.0], strict=True):
        share = 1 - after / v
        x = prior.denoise(Gaussian(z, torch.tensor(v, dtype=z.real.dtype)))
        noise = complex_normal(shape, gen, dtype, after * share + share**2 * x.var)
        z = share * x.mean + (1 - share) * z + noise
    return z
