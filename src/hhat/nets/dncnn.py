"""`DnCnn`: a chain of 3x3 convolutions with ReLU between them and no biases."""

import itertools

import torch
from torch import Tensor, nn

LEVEL_PLANES = 3
"""Real and imaginary part, and the level of the noise"""


class DnCnn(nn.Module):
    """forward(planes (B, 3, R, T)) -> (B, 2, R, T), with f(c planes) = c f(planes) for c > 0.

    num_layers convolutions with zero padding, `width` channels between them; it sees 2 num_layers + 1 bins each way.
    With width 32 and 8 layers 56,736 parameters.
    Source: Zhang et al., IEEE TIP 2017 (DnCNN); no biases: Mohan et al., ICLR 2020. Departures: 8 layers, not 20; no
    batch normalisation, whose statistics would tie an item's answer to others and to the noise levels of training; the
    noise level comes in as a plane (Zhang et al., IEEE TIP 2018), where DnCNN has a network for each range of levels.
    """

    def __init__(self, width: int, num_layers: int):
        super().__init__()
        sizes = (LEVEL_PLANES, *(width,) * (num_layers - 1), 2)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(sizes))

    def forward(self, planes: Tensor) -> Tensor:
        x = planes
        for number, convolution in enumerate(self.layers):
            x = convolution(x if number == 0 else torch.relu(x))
        return x
