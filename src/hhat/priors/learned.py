"""Learned M-steps: from the posterior of x ~ CN(0, v) and what it was made from to v, a network per step."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hhat.nets.conv import ConvStack
from hhat.nets.graph import GraphSizes, GraphStack
from hhat.ops.base import LinearOp, cached
from hhat.ops.structured import Kron
from hhat.priors.m_step import SMALLEST, Memory, Moments, MStep, Sight
from hhat.priors.weights import Trained, Weights, read_weights, shipped

SCALE = 0.3
"""Brings logarithms that span several decades to the size of one"""
LEAST_ENERGY, LEAST_VAR = 1e-4, 1e-5
"""Below these shares of the unit a power or a variance is as good as zero to the networks"""
NOISE_RANGE = (3e-3, 1.0)
"""Noise as a share of the received power is held within what 0 to 15 dB of SNR show in training"""
FACTOR_LIMIT = 8.0
"""Most by which one step changes log v against EM"""
LOG_VAR_LIMITS = (-11.0, 5.0)
"""Of the graph's own log v, relative to the unit"""
LARGEST_GRAM = 1024
"""Coefficients that an operator without Kronecker structure may mix under a graph"""
NUM_FEATURES = 5
Attributes = Callable[[Moments], tuple[Tensor, Tensor]]


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
        layer, memory = _next_layer(memory, self.num_steps)
        features = conv_features(now)
        grid = (*features.shape[-2:], 1)[:2] if now.num_event == 1 else features.shape[-2:]
        net = _conv_stack(self.num_steps, self.width)
        inputs = features.reshape(len(features), -1, *grid).movedim(0, 1)
        out = functional_call(net, _like(self.weights, inputs), (inputs, layer)).reshape(features.shape[1:])
        energy = now.energy + now.var
        v = energy * out.clamp(-FACTOR_LIMIT, FACTOR_LIMIT).exp()
        return _where_seen(v, now), memory


def conv_features(now: Moments) -> Tensor:
    """(5, *batch, *event)."""
    sight = _sight(now)
    level = (sight.noise() / now.unit).clamp(*NOISE_RANGE).expand(now.energy.shape)
    parts = [
        now.energy / now.unit + LEAST_ENERGY,
        now.var / now.unit + LEAST_VAR,
        (now.prior_var / now.unit).clamp_min(SMALLEST),
        sight.matched() / now.unit + LEAST_ENERGY,
        level,
    ]
    return SCALE * torch.stack([part.expand(now.energy.shape) for part in parts]).log()


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
        layer, kept = _next_layer(memory, self.num_steps)
        order = columns(_sight(now).op)
        base, attributes = self.attributes(now)
        nodes = order.split(attributes, 1)
        shape = nodes.shape[:-3]
        gram = order.gram.to(nodes.dtype) / _gain(now, shape)
        noise = _noise(now).reshape(*now.unit.shape[: -now.num_event], 1, 1).expand(*shape, 1, 1)
        edge = SCALE * (gram / noise).log1p().expand(*shape, *gram.shape[-2:])
        level = -SCALE * noise.log()
        state = order.split(memory["node"].expand(*now.energy.shape, -1), 1)
        flat = [nodes.reshape(-1, *nodes.shape[-3:]), edge.reshape(-1, *edge.shape[-2:]), level.reshape(-1)]
        net = _graph_stack(self.sizes)
        weights = _like(self.weights, nodes)
        out, state = functional_call(net, weights, (*flat, state.reshape(-1, *state.shape[-3:]), layer))
        answer = order.join(out.reshape(*shape, *out.shape[1:], 1), now.energy.shape[-now.num_event :])[..., 0]
        v = now.unit * (answer + base).clamp(*LOG_VAR_LIMITS).exp()
        node = order.join(state.reshape(*shape, *state.shape[1:]), now.energy.shape[-now.num_event :])
        return _where_seen(v, now), {**kept, "node": node}


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
    noise = _noise(now)
    matched = (_sight(now).matched() / now.unit).expand(now.energy.shape).clamp_min(torch.finfo(noise.dtype).tiny)
    precision = now.unit / now.prior_var.clamp_min(SMALLEST * now.unit)
    own = _seen(now) / noise + precision
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


def columns(op: LinearOp) -> Columns:
    """By the operator's structure; ValueError where it mixes more than LARGEST_GRAM coefficients."""

    def make() -> Columns:
        if isinstance(op, Kron) and len(op.left.in_shape) == len(op.right.in_shape) == 1:
            if op.right.is_unitary:
                return Columns(_gram(op.left), False, False)
            if op.left.is_unitary:
                return Columns(_gram(op.right), True, False)
        if op.is_unitary and len(op.in_shape) == 2:
            return Columns(torch.eye(op.in_shape[0]), False, False)
        size = math.prod(op.in_shape)
        if size > LARGEST_GRAM:
            wanted = f"Kron with a unitary factor, or at most {LARGEST_GRAM} unknowns"
            raise ValueError(f"sbl-gnn: expected {wanted}, got {type(op).__name__} with {size}")
        return Columns(_gram(op), False, True)

    return cached(op, ("columns",), make)


def _gram(op: LinearOp) -> Tensor:
    a = op.dense()
    return (a.mH @ a).abs()


def _gain(now: Moments, shape: torch.Size) -> Tensor | float:
    value = _sight(now).gain
    return value.reshape(*value.shape[: -now.num_event], 1, 1) if isinstance(value, Tensor) and value.ndim else value


def _noise(now: Moments) -> Tensor:
    """(*batch, 1, ..)."""
    return (_sight(now).noise() / now.unit).clamp(*NOISE_RANGE)


def _seen(now: Moments) -> Tensor:
    """G_nn / gain: the energy of each column of the operator, about 1 on average where nothing is compressed."""
    sight = _sight(now)

    def make() -> Tensor:
        return sight.op.squares.adjoint(now.energy.new_ones(sight.op.out_shape))

    return cached(sight.op, ("column energy", now.energy.dtype), make) / sight.gain


def _where_seen(v: Tensor, now: Moments) -> Tensor:
    """The fresh v; the former where the operator's column is zero: nothing was learned about such a coefficient."""
    return torch.where(_seen(now) > 0, v, now.prior_var)


def _sight(now: Moments) -> Sight:
    if now.sight is None:
        raise ValueError("learned M-step: expected what was seen (Moments.sight)")
    if tuple(now.energy.shape[-now.num_event :]) != tuple(now.sight.op.in_shape):
        raise ValueError("learned M-step: expected a variance per coefficient; leave tied_axes empty")
    return now.sight


def _next_layer(memory: Memory, num_layers: int) -> tuple[int, Memory]:
    """The layer to run, and the memory for the next: items that still run are all at the same layer, the highest."""
    layer = int(memory["layer"].max())
    return min(layer, num_layers - 1), {"layer": memory["layer"] + 1}


def _like(weights: Weights, x: Tensor) -> Weights:
    return {name: value.to(x.device, x.dtype) for name, value in weights.items()}


@functools.cache
def _conv_stack(num_layers: int, width: int) -> nn.Module:
    """The networks without weights: those come with every call."""
    with torch.device("meta"):
        return ConvStack(num_layers, NUM_FEATURES, width)


@functools.cache
def _graph_stack(sizes: GraphSizes) -> nn.Module:
    with torch.device("meta"):
        return GraphStack(sizes)


def m_step_from(settings: Mapping[str, Any], weights: Weights) -> MStep:
    """The M-step that a card's settings describe: {"kind": "convolutional", "num_layers", "width"} or {"kind": "graph",
    "attributes", and the fields of `GraphSizes`}. ValueError where they do not fit the weights."""
    try:
        kind, num_layers = settings["kind"], int(settings["num_layers"])
        if kind == "convolutional":
            width = int(settings["width"])
            net, made = _conv_stack(num_layers, width), ConvolutionalMStep(weights, width, num_layers)
        elif kind == "graph":
            name = settings["attributes"]
            sizes = graph_sizes(settings)
            net, made = _graph_stack(sizes), GraphMStep(weights, sizes, ATTRIBUTES[name], num_layers)
        else:
            raise ValueError(f"weights: expected kind convolutional or graph, got '{kind}'")
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"weights: setting missing or unknown: {wrong}") from None
    want = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    have = {name: tuple(value.shape) for name, value in weights.items()}
    if want != have:
        odd = sorted(name for name in {*want, *have} if want.get(name) != have.get(name))[0]
        raise ValueError(f"weights: {odd}: expected shape {want.get(odd)}, got {have.get(odd)}")
    return made


def graph_sizes(settings: Mapping[str, Any]) -> GraphSizes:
    names = [f.name for f in fields(GraphSizes) if f.name != "num_attributes"]
    given = {name: settings[name] for name in names if name in settings}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return GraphSizes(NUM_ATTRIBUTES[settings["attributes"]], **given)


def learned_m_step(model: str, path: str | None = None) -> MStep:
    """The M-step of `model` from a file of weights, or the one that comes with the library; ValueError where the file
    is of another model."""
    found: Trained = shipped(model) if path is None else read_weights(path)
    if found.card["model"].removesuffix("-printed") != model:
        raise ValueError(f"weights {path}: expected weights of {model}, got those of {found.card['model']}")
    return m_step_from(found.card["settings"], found.weights)
