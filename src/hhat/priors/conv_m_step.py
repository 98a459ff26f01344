"""`ConvolutionalMStep`: v by three small convolutions over angles and delays."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hhat.nets.conv import ConvStack
from hhat.priors.m_step import SMALLEST, Memory, Moments, MStep
from hhat.priors.unfolding import (
    LEAST_ENERGY,
    LEAST_VAR,
    SCALE,
    like,
    next_layer,
    noise_share,
    sight_of,
    where_seen,
)
from hhat.priors.weights import Weights

NUM_FEATURES = 5
FACTOR_LIMIT = 8.0
"""Most by which one step changes log v against EM"""


@dataclass(frozen=True, eq=False)
class ConvolutionalMStep(MStep):
    """v = (|mu|^2 + Sigma) exp(c_t(f)),  c_t: three circular 3x3 convolutions of layer t over the last two event axes,

      f = 0.3 log [ |mu|^2 + 1e-4, Sigma + 1e-5, v, |A^H y|^2 + 1e-4, s2 ]      all in units of the received power

    so that zero weights are EM. Trained for coefficients (angle, delay); a single axis is a column of one delay. Steps
    beyond the last layer repeat it. What the operator does not see keeps its v.
    weights: by the names of `ConvStack`, as trained. Source: hhat; in place of the graph of A. Tang et al. 2025.
    """

    weights: Weights
    width: int = 16
    num_steps: int = 5

    def memory(self) -> Memory:
        return {"layer": torch.zeros(1)}

    def __call__(self, now: Moments, memory: Memory) -> tuple[Tensor, Memory]:
        layer, memory = next_layer(memory, self.num_steps)
        features = conv_features(now)
        grid = (features.shape[-1], 1) if now.num_event == 1 else features.shape[-2:]
        net = conv_stack(self.num_steps, self.width)
        inputs = features.reshape(len(features), -1, *grid).movedim(0, 1)
        out = functional_call(net, like(self.weights, inputs), (inputs, layer)).reshape(features.shape[1:])
        energy = now.energy + now.var
        v = energy * out.clamp(-FACTOR_LIMIT, FACTOR_LIMIT).exp()
        return where_seen(v, now), memory


def conv_features(now: Moments) -> Tensor:
    """(5, *batch, *event)."""
    parts = [
        now.energy / now.unit + LEAST_ENERGY,
        now.var / now.unit + LEAST_VAR,
        (now.prior_var / now.unit).clamp_min(SMALLEST),
        sight_of(now).matched() / now.unit + LEAST_ENERGY,
        noise_share(now),
    ]
    return SCALE * torch.stack([part.expand(now.energy.shape) for part in parts]).log()


@functools.cache
def conv_stack(num_layers: int, width: int) -> nn.Module:
    """The networks without weights: those come with every call."""
    with torch.device("meta"):
        return ConvStack(num_layers, NUM_FEATURES, width)
