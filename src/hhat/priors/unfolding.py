"""What learned M-steps share: features on one scale, layers counted in the memory, coefficients that are not seen."""

import torch
from torch import Tensor

from hhat.ops.base import cached
from hhat.priors.m_step import Memory, Moments, Sight
from hhat.priors.weights import Weights

SCALE = 0.3
"""Brings logarithms that span several decades to the size of one"""
LEAST_ENERGY, LEAST_VAR = 1e-4, 1e-5
"""Below these shares of the unit a power or a variance is as good as zero to the networks"""
NOISE_RANGE = (3e-3, 1.0)
"""Noise as a share of the received power is held within what 0 to 15 dB of SNR show in training"""


def noise_share(now: Moments) -> Tensor:
    """(*batch, 1, ..)."""
    return (sight_of(now).noise() / now.unit).clamp(*NOISE_RANGE)


def column_energy(now: Moments) -> Tensor:
    """G_nn / gain: the energy of each column of the operator, about 1 on average where nothing is compressed."""
    sight = sight_of(now)

    def make() -> Tensor:
        return sight.op.squares.adjoint(now.energy.new_ones(sight.op.out_shape))

    return cached(sight.op, ("column energy", now.energy.dtype), make) / sight.gain


def where_seen(v: Tensor, now: Moments) -> Tensor:
    """The fresh v; the former where the operator's column is zero: nothing was learned about such a coefficient."""
    return torch.where(column_energy(now) > 0, v, now.prior_var)


def sight_of(now: Moments) -> Sight:
    if now.sight is None:
        raise ValueError("learned M-step: expected what was seen (Moments.sight)")
    if tuple(now.energy.shape[-now.num_event :]) != tuple(now.sight.op.in_shape):
        raise ValueError("learned M-step: expected a variance per coefficient; leave tied_axes empty")
    return now.sight


def next_layer(memory: Memory, num_layers: int) -> tuple[int, Memory]:
    """The layer to run, and the memory for the next: items that still run are all at the same layer, the highest."""
    layer = int(memory["layer"].max())
    return min(layer, num_layers - 1), {"layer": memory["layer"] + 1}


def like(weights: Weights, x: Tensor) -> Weights:
    return {name: value.to(x.device, x.dtype) for name, value in weights.items()}
