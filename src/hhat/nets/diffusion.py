"""`FilmCnn`: five 3x3 convolutions with zero padding, told the diffusion time by a scale and a shift per channel."""

import math

import torch
from torch import Tensor, nn

NUM_WAVES = 8
"""Sines, and as many cosines, of the embedding of time"""


class FilmCnn(nn.Module):
    """forward(planes (B, num_planes, R, T), time (B or 1,)) -> (B, 2, R, T): real and imaginary part.

    num_planes -> (1+c)//2 -> c, scaled and shifted (FiLM), -> 1+round(2(c-1)/3) -> 1+round((c-1)/3) -> 2; ReLU behind
    the first, third and fourth layer. FiLM is residual, x (1 + g) + b, so that small weights leave x alone.
    With 2 planes c = 32, 64, 128 have 14,779, 55,025, 212,683 parameters. It sees 11 x 11 bins.
    Source: Fesl et al., "Diffusion-based generative prior for low-complexity MIMO channel estimation", 2024, whose
    widths these are; the paper prints FiLM without the 1 (its eq. 13).
    """

    def __init__(self, width: int, num_planes: int = 2):
        super().__init__()
        into = (1 + width) // 2
        out = (1 + round(2 * (width - 1) / 3), 1 + round((width - 1) / 3), 2)
        self.ahead = nn.ModuleList((_conv(num_planes, into), _conv(into, width)))
        self.behind = nn.ModuleList((_conv(width, out[0]), _conv(out[0], out[1]), _conv(out[1], out[2])))
        self.film = nn.Linear(2 * NUM_WAVES, 2 * width)

    def forward(self, planes: Tensor, time: Tensor) -> Tensor:
        first, second = self.ahead
        x = second(torch.relu(first(planes)))
        scale, shift = self.film(embedded(time))[..., None, None].chunk(2, 1)
        x = x * (1 + scale) + shift
        for number, convolution in enumerate(self.behind):
            x = convolution(x if number == 0 else torch.relu(x))
        return x


def embedded(time: Tensor) -> Tensor:
    """(B,) -> (B, 16): sines and cosines of time at the frequencies 10000^(-i/7), i = 0..7."""
    places = torch.arange(NUM_WAVES, dtype=time.dtype, device=time.device) / (NUM_WAVES - 1)
    angle = time[:, None] * torch.exp(-math.log(10000) * places)
    return torch.cat([angle.sin(), angle.cos()], 1)


def _conv(num_in: int, num_out: int) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, 3, padding=1)
