"""`GraphMStep`: v by messages between all coefficients."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hhat.nets.graph import GraphSizes, GraphStack
from hhat.ops.base import LinearOp, cached
from hhat.ops.structured import Kron
from hhat.priors.m_step import SMALLEST, Memory, Moments, MStep
from hhat.priors.unfolding import (
    LEAST_ENERGY,
    LEAST_VAR,
    SCALE,
    column_energy,
    like,
    next_layer,
    noise_share,
    sight_of,
    where_seen,
)
from hhat.priors.weights import Weights

LOG_VAR_LIMITS = (-11.0, 5.0)
"""Of the graph's own log v, relative to the unit"""
LARGEST_GRAM = 1024
"""Coefficients that an operator without Kronecker structure may mix under a graph"""
Attributes = Callable[[Moments], tuple[Tensor, Tensor]]
"""(base, attributes (*batch, *event, A)): where log v starts, and what is told of each coefficient"""


@dataclass(frozen=True, eq=False)
class GraphMStep(MStep):
    """SBL-GNN: the variances by messages between all coefficients, the absolute Gram entry |G_nk| on each edge.

    attributes: `printed_attributes` (v = exp(out)) or `posterior_attributes` (v = (|mu|^2 + Sigma) exp(out)). Edges are
    0.3 log(1 + zeta |G_nk|) and log zeta, zeta = 1/s2 in units of the received power. Where one factor of the operator
    is unitary (the delays of a near-field array), coefficients of different columns have no edge attribute: the network
    commutes with every permutation of the columns and cannot know which delays are neighbours.
    weights: by the names of `GraphStack`, as trained; sizes: of the networks.
    Source: A. Tang et al. 2025, eqs. (32)-(38) and algorithm 1, with these corrections: (32)'s mu^H v_n equals
    zeta conj(Phi^H y)_n in every layer, so it stands there by its modulus; log v in place of a ReLU, which allows a
    precision of 0; constants that biases absorb are left out.
    """

    weights: Weights
    sizes: GraphSizes
    attributes: Attributes
    num_steps: int = 4

    def memory(self) -> Memory:
        return {"layer": torch.zeros(1), "node": torch.zeros(1, self.sizes.state + self.sizes.memory)}

    def tail(self, name: str) -> int:
        return 1 if name == "node" else 0

    def __call__(self, now: Moments, memory: Memory) -> tuple[Tensor, Memory]:
        if now.num_event > 2:
            raise ValueError(f"sbl-gnn: expected coefficients on one or two axes, got {now.num_event}")
        layer, kept = next_layer(memory, self.num_steps)
        order = columns(sight_of(now).op, sight_of(now).y.dtype)
        base, attributes = self.attributes(now)
        nodes = order.split(attributes, 1)
        shape = nodes.shape[:-3]
        gram = order.gram.to(nodes) / _gain(now, shape)
        noise = noise_share(now).reshape(*now.unit.shape[: -now.num_event], 1, 1).expand(*shape, 1, 1)
        edge = SCALE * (gram / noise).log1p().expand(*shape, *gram.shape[-2:])
        level = -SCALE * noise.log()
        state = order.split(memory["node"].expand(*now.energy.shape, -1), 1)
        flat = [nodes.reshape(-1, *nodes.shape[-3:]), edge.reshape(-1, *edge.shape[-2:]), level.reshape(-1)]
        net = graph_stack(self.sizes)
        weights = like(self.weights, nodes)
        out, state = functional_call(net, weights, (*flat, state.reshape(-1, *state.shape[-3:]), layer))
        answer = order.join(out.reshape(*shape, *out.shape[1:], 1), now.energy.shape[-now.num_event :])[..., 0]
        v = now.unit * (answer + base).clamp(*LOG_VAR_LIMITS).exp()
        node = order.join(state.reshape(*shape, *state.shape[1:]), now.energy.shape[-now.num_event :])
        return where_seen(v, now), {**kept, "node": node}


def printed_attributes(now: Moments) -> tuple[Tensor, Tensor]:
    """log v starts at 0; (32): |zeta (Phi^H y)_n|, v_nn = zeta G_nn + 1/v_n and zeta, as logarithms."""
    parts = _printed(now)
    return torch.zeros_like(parts[0]), SCALE * torch.stack(parts, -1)


def posterior_attributes(now: Moments) -> tuple[Tensor, Tensor]:
    """log v starts at that of EM; (32) and |mu|^2 and Sigma."""
    energy, var = now.energy / now.unit, now.var.expand(now.energy.shape) / now.unit
    more = [(energy + LEAST_ENERGY).log(), (var + LEAST_VAR).log()]
    base = (energy + var).clamp_min(SMALLEST).log()
    return base, SCALE * torch.stack([*_printed(now), *more], -1)


ATTRIBUTES: dict[str, Attributes] = {"printed": printed_attributes, "posterior": posterior_attributes}
NUM_ATTRIBUTES = {"printed": 3, "posterior": 5}


def _printed(now: Moments) -> list[Tensor]:
    noise = noise_share(now)
    matched = (sight_of(now).matched() / now.unit).expand(now.energy.shape).clamp_min(torch.finfo(noise.dtype).tiny)
    precision = now.unit / now.prior_var.clamp_min(SMALLEST * now.unit)
    own = column_energy(now) / noise + precision
    return [(matched.sqrt() / noise).log1p(), own.log(), -noise.log().expand(now.energy.shape)]


@dataclass(frozen=True, eq=False)
class Columns:
    """How a grid falls into K columns of N coefficients that the operator mixes: gram |G| (*batch, N, N)."""

    gram: Tensor
    swapped: bool
    whole: bool

    def split(self, x: Tensor, tail: int) -> Tensor:
        """(*batch, *event, tail) -> (*batch, K, N, tail)."""
        if self.whole:
            size = self.gram.shape[-1]
            lead = x.ndim - tail
            while x.shape[lead - 1] != size:
                x = x.flatten(lead - 2, lead - 1)
                lead -= 1
            return x.unsqueeze(-2 - tail)
        return x if self.swapped else x.transpose(-2 - tail, -1 - tail)

    def join(self, x: Tensor, event: tuple[int, ...]) -> Tensor:
        """(*batch, K, N, tail) -> (*batch, *event, tail)."""
        if self.whole:
            return x.reshape(*x.shape[:-3], *event, x.shape[-1])
        return x if self.swapped else x.transpose(-3, -2)


def columns(op: LinearOp, dtype: torch.dtype) -> Columns:
    """By the operator's structure; ValueError where it mixes more than LARGEST_GRAM coefficients."""

    def make() -> Columns:
        if isinstance(op, Kron) and len(op.left.in_shape) == len(op.right.in_shape) == 1:
            if op.right.is_unitary:
                return Columns(_gram(op.left, dtype), False, False)
            if op.left.is_unitary:
                return Columns(_gram(op.right, dtype), True, False)
        if op.is_unitary and len(op.in_shape) == 2:
            return Columns(torch.eye(op.in_shape[0]), False, False)
        size = math.prod(op.in_shape)
        if size > LARGEST_GRAM:
            wanted = f"Kron with a unitary factor, or at most {LARGEST_GRAM} unknowns"
            raise ValueError(f"sbl-gnn: expected {wanted}, got {type(op).__name__} with {size}")
        return Columns(_gram(op, dtype), False, True)

    return cached(op, ("columns", dtype), make)


def _gram(op: LinearOp, dtype: torch.dtype) -> Tensor:
    a = op.dense(dtype)
    return (a.mH @ a).abs()


def _gain(now: Moments, shape: torch.Size) -> Tensor | float:
    value = sight_of(now).gain
    return value.reshape(*value.shape[: -now.num_event], 1, 1) if isinstance(value, Tensor) and value.ndim else value


@functools.cache
def graph_stack(sizes: GraphSizes) -> nn.Module:
    with torch.device("meta"):
        return GraphStack(sizes)
