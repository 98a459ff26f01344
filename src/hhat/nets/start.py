"""Weights to start training from, by a generator of one's own."""

import math

import torch
from torch import Tensor, nn


def start_weights(net: nn.Module, gen: torch.Generator, silent: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Matrices and kernels uniform within 1/sqrt(fan in), biases 0; names that end as one of `silent` are 0 entirely,
    so that a network whose last layer they are answers 0. Source: the scale is torch's own default."""
    found = {}
    for name, value in net.state_dict().items():
        if value.ndim < 2 or name.endswith(silent):
            found[name] = torch.zeros(value.shape)
        else:
            bound = 1 / math.sqrt(math.prod(value.shape[1:]))
            found[name] = (2 * torch.rand(value.shape, generator=gen) - 1) * bound
    return found
