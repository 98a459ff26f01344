"""`ConvStack`: per layer of an unfolded method, three circular 3x3 convolutions over a grid."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

KERNEL = 3


class ConvStack(nn.Module):
    """forward(features (B, num_features, N, K), layer) -> (B, N, K); each layer has weights of its own.

    Circular along both axes: a cyclic shift of the input shifts the output.
    """

    def __init__(self, num_layers: int, num_features: int, width: int):
        super().__init__()
        sizes = (num_features, width, width, 1)
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(a, b, KERNEL) for a, b in itertools.pairwise(sizes)) for _ in range(num_layers)
        )

    def forward(self, features: Tensor, layer: int) -> Tensor:
        x = features
        for number, convolution in enumerate(self.layers[layer]):  # type: ignore[arg-type]
            x = convolution(ring(x if number == 0 else torch.relu(x)))
        return x[:, 0]


def ring(x: Tensor) -> Tensor:
    """One more entry on each side of the last two axes, from the other end."""
    return functional.pad(x, (1, 1, 1, 1), mode="circular")
