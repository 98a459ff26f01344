"""The variance that a denoiser leaves, from the denoiser alone: Tweedie's second moment by one random probe."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from hhat.random import generator
from hhat.types import Shape

STEP = 0.05
"""Length of a probe's step in standard deviations of the noise. A posterior mean bends over one standard deviation, and
a step far below it drowns in round-off where the noise is small"""


def divergence(
    denoise: Callable[[Tensor, Tensor], Tensor], r: Tensor, v: Tensor, probe: Tensor, mean: Tensor | None = None
) -> Tensor:
    """Entry by entry an estimate of v_n df_n/dr_n, f = E[x | r], of which the mean over an item is its variance:

      sum_n var[x_n | r] = sum_n v_n df_n/dr_n = E Re b^H sqrt(v) (f(r + e sqrt(v) b) - f(r)) / e,   e -> 0,

    df/dr the Wirtinger derivative, b with E b b^H = I, E b b^T = 0. Single entries are no use: their estimates have an
    error as large as the sums of their row; that of the mean over N entries is 1/sqrt(N) as large.
    denoise: (r, v) -> E[x | r], complex (*batch, *event);  v broadcasts to r;  probe broadcasts to r (`probe_for`)
    mean: denoise(r, v), where it is known
    Returns real, of r's shape; negative values occur. Where v differs between the entries of an item this holds too.
    Source: Ramani, Blu & Unser, IEEE TIP 2008; in AMP: Metzler, Maleki & Baraniuk, IEEE TIT 2016, eq. (11). There v is
    one number and the step an absolute one.
    """
    mean = denoise(r, v) if mean is None else mean
    way = v.sqrt().to(r.dtype) * probe
    moved = denoise(r + STEP * way, v) - mean
    return (way.conj() * moved).real / STEP


def probe_for(shape: Shape, like: Tensor) -> Tensor:
    """(+-1 +- j)/sqrt(2) by a fixed generator, for items of this shape: the same for all items and calls, so that a
    batch gives what its items give alone and an iteration has a fixed point."""
    return _probe(tuple(shape)).to(like.device, like.dtype)


@functools.lru_cache(maxsize=16)
def _probe(shape: Shape) -> Tensor:
    signs = 2 * torch.randint(0, 2, (2, *shape), generator=generator("divergence", *shape)) - 1
    return torch.complex(*(signs.double() / 2**0.5))
