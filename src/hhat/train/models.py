"""What `hhat train` can train: a network, the method around it, and recipes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from hhat.methods.sbl import Sbl
from hhat.nets.conv import ConvStack
from hhat.nets.graph import GraphStack
from hhat.nets.start import start_weights
from hhat.priors.base import Prior
from hhat.priors.conv_m_step import NUM_FEATURES
from hhat.priors.learned import graph_sizes, m_step_from
from hhat.priors.weights import Weights
from hhat.random import generator
from hhat.train.loop import Recipe


@dataclass(frozen=True)
class Model:
    """name: also that of the method; settings: what `m_step_from` needs beside the weights; profiles: recipes."""

    name: str
    settings: Mapping[str, Any]
    profiles: Mapping[str, Recipe]

    def start(self, seed: int) -> Weights:
        """Weights before training: the networks answer 0, which is EM or, for printed attributes, v = 1."""
        gen = generator("train", "start", self.name, seed)
        with torch.device("meta"):
            net, last = self._net()
        return start_weights(net, gen, last)

    def _net(self) -> tuple[torch.nn.Module, tuple[str, ...]]:
        s = self.settings
        if s["kind"] == "convolutional":
            return ConvStack(s["num_layers"], NUM_FEATURES, s["width"]), (".2.weight",)
        sizes = graph_sizes(s)
        return GraphStack(sizes), (f"readout.{len(sizes.readout)}.weight",)

    def build(self, weights: Weights, prior: Prior | None) -> Sbl:
        return Sbl(prior, m_step=m_step_from(self.settings, weights))

    def recipe(self, profile: str, seed: int) -> Recipe:
        if profile not in self.profiles:
            raise ValueError(f"--profile: expected {' or '.join(self.profiles)}, got '{profile}'")
        return replace(self.profiles[profile], seed=seed)


def _graph(attributes: str) -> dict[str, Any]:
    return {"kind": "graph", "attributes": attributes, "num_layers": 4, "rounds": 1, "message": [16]}


SBL_CNN = Model(
    "sbl-cnn",
    {"kind": "convolutional", "num_layers": 5, "width": 16},
    {
        "quick": Recipe(300, batch=4),
        "shipped": Recipe(2800, batch=8, check_every=100),
        "full": Recipe(4000, batch=64, check_every=100),
    },
)
_GRAPH = {
    "quick": Recipe(80, batch=2, check_every=20),
    "shipped": Recipe(1500, batch=8),
    "full": Recipe(16000, batch=16, check_every=100),
}
"""full: as many samples as the paper's 50 epochs of 320 batches of 64"""
SBL_GNN = Model("sbl-gnn", _graph("posterior"), _GRAPH)
SBL_GNN_PRINTED = Model("sbl-gnn-printed", _graph("printed"), {**_GRAPH, "shipped": Recipe(400, batch=8)})
