"""M-steps with trained weights: from a file or from the package."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hhat.nets.graph import GraphSizes
from hhat.priors.conv_m_step import ConvolutionalMStep, conv_stack
from hhat.priors.graph_m_step import ATTRIBUTES, NUM_ATTRIBUTES, GraphMStep, graph_stack
from hhat.priors.m_step import MStep
from hhat.priors.weights import Trained, Weights, read_weights, shipped


def m_step_from(settings: Mapping[str, Any], weights: Weights) -> MStep:
    """The M-step that a card's settings describe: {"kind": "convolutional", "num_layers", "width"} or {"kind": "graph",
    "attributes", and the fields of `GraphSizes`}. ValueError where they do not fit the weights."""
    try:
        kind, num_layers = settings["kind"], int(settings["num_layers"])
        if not 1 <= num_layers <= len(weights):
            raise ValueError(f"weights: {len(weights)} tensors are too few for {num_layers} layers")
        if kind == "convolutional":
            width = int(settings["width"])
            net, made = conv_stack(num_layers, width), ConvolutionalMStep(weights, width, num_layers)
        elif kind == "graph":
            name = settings["attributes"]
            sizes = graph_sizes(settings)
            net, made = graph_stack(sizes), GraphMStep(weights, sizes, ATTRIBUTES[name], num_layers)
        else:
            raise ValueError(f"weights: expected kind convolutional or graph, got '{kind}'")
    except (KeyError, TypeError, RuntimeError) as wrong:
        raise ValueError(f"weights: setting missing or unknown: {wrong}") from None
    want = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    have = {name: tuple(value.shape) for name, value in weights.items()}
    if want != have:
        odd = sorted(name for name in {*want, *have} if want.get(name) != have.get(name))[0]
        raise ValueError(f"weights: {odd}: expected shape {want.get(odd)}, got {have.get(odd)}")
    return made


def graph_sizes(settings: Mapping[str, Any]) -> GraphSizes:
    names = [f.name for f in fields(GraphSizes) if f.name != "num_attributes"]
    given: dict[str, Any] = {name: settings[name] for name in names if name in settings}
    for name in ("message", "readout"):
        if name in given:
            given[name] = tuple(given[name])  # JSON has lists alone
    return GraphSizes(NUM_ATTRIBUTES[settings["attributes"]], **given)


def learned_m_step(model: str, path: str | None = None) -> MStep:
    """The M-step of `model` from a file of weights, or the one that comes with the library; ValueError where the file
    is of another model."""
    found: Trained = shipped(model) if path is None else read_weights(path)
    if found.card["model"].removesuffix("-printed") != model:
        raise ValueError(f"weights {path}: expected weights of {model}, got those of {found.card['model']}")
    return m_step_from(found.card["settings"], found.weights)


def cnn(weights: str | None = None) -> MStep:
    """The M-step of `sbl-cnn`; weights: a file, or those of the package."""
    return learned_m_step("sbl-cnn", weights)


def gnn(weights: str | None = None) -> MStep:
    """The M-step of `sbl-gnn`; weights: a file, or those of the package."""
    return learned_m_step("sbl-gnn", weights)
