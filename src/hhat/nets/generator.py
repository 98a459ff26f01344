"""`Generator` and `Critic`: channels from a few latent numbers, and the network that tells them from real ones."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

GENERATOR_WIDTHS = (48, 32, 24, 16)
CRITIC_WIDTHS = (2, 24, 48, 64)
HALVINGS = 3
"""Times that both axes double in the generator and halve in the critic"""
LEAK = 0.2


class Generator(nn.Module):
    """forward(z (B, num_latent)) -> (B, 2, R, T), R and T multiples of 8: a linear layer to (48, R/8, T/8), three
    transposed 4x4 convolutions of stride 2, one 3x3; ReLU between. For 16 x 64 and 60 latents 90,218 parameters.
    Source: its form is Radford et al., ICLR 2016 (DCGAN), without batch normalisation."""

    def __init__(self, num_latent: int, shape: tuple[int, int]):
        super().__init__()
        self.grid = (shape[0] // 2**HALVINGS, shape[1] // 2**HALVINGS)
        self.first = nn.Linear(num_latent, GENERATOR_WIDTHS[0] * math.prod(self.grid))
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(GENERATOR_WIDTHS)
        )
        self.last = nn.Conv2d(GENERATOR_WIDTHS[-1], 2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z).unflatten(-1, (GENERATOR_WIDTHS[0], *self.grid))
        for layer in self.grow:
            x = layer(torch.relu(x))
        return self.last(torch.relu(x))


class Critic(nn.Module):
    """forward(planes (B, 2, R, T)) -> (B,): three 4x4 convolutions of stride 2 and a linear layer, leaky ReLU. No batch
    normalisation, which would make the answer to one channel depend on the others."""

    def __init__(self, shape: tuple[int, int]):
        super().__init__()
        self.shrink = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(CRITIC_WIDTHS)
        )
        self.last = nn.Linear(CRITIC_WIDTHS[-1] * math.prod(shape) // 4**HALVINGS, 1)

    def forward(self, planes: Tensor) -> Tensor:
        x = planes
        for layer in self.shrink:
            x = functional.leaky_relu(layer(x), LEAK)
        return self.last(x.flatten(1))[:, 0]
