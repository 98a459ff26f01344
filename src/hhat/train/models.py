"""What `hhat train` can train: a network, the prior or method around it, and recipes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from hhat.methods.base import Method
from hhat.methods.sampling import DiffusionPosterior
from hhat.methods.sbl import Sbl
from hhat.nets.conv import ConvStack
from hhat.nets.graph import GraphStack
from hhat.nets.start import start_weights
from hhat.priors.base import Prior
from hhat.priors.conv_m_step import NUM_FEATURES
from hhat.priors.diffusion import Diffusion, basis_of
from hhat.priors.expert import expert_from
from hhat.priors.gauss import Gauss
from hhat.priors.learned import graph_sizes, m_step_from
from hhat.priors.schedule import Schedule
from hhat.priors.weights import Weights
from hhat.random import generator
from hhat.train.data import Batch, Data
from hhat.train.denoising import DenoisingFit, seen
from hhat.train.loop import Fit, Recipe
from hhat.train.unfolding import UnfoldedFit

TEST_CHANNELS = 96
"""On which the card's numbers of an expert rest"""


@dataclass(frozen=True)
class Model:
    """name: as the user writes it; settings: of the network; profiles: recipes; data: where none is named.

    fit: what the loop trains. finished: (settings and tensors for the file, what else the card says of them).
    method: the method to measure them by, at test_snrs_db.
    """

    name: str
    settings: Mapping[str, Any]
    profiles: Mapping[str, Recipe]
    data: str = "near-field"
    test_snrs_db: tuple[float, ...] = (0.0, 5.0, 10.0, 15.0)

    def recipe(self, profile: str, seed: int) -> Recipe:
        if profile not in self.profiles:
            raise ValueError(f"--profile: expected {' or '.join(self.profiles)}, got '{profile}'")
        return replace(self.profiles[profile], seed=seed)

    def fit(self, data: Data, recipe: Recipe) -> Fit:
        raise NotImplementedError

    def finished(self, fit: Fit, weights: Weights) -> "Finished":
        raise NotImplementedError

    def method(self, settings: Mapping[str, Any], tensors: Weights, batch: Batch) -> Method:
        raise NotImplementedError

    def tests(self, data: Data, snr_db: float, seed: int) -> Iterator[Batch]:
        """Channels that training did not see, for the card's number at one SNR."""
        return data.test(snr_db, seed)


class Finished(NamedTuple):
    settings: dict[str, Any]
    tensors: Weights
    more: dict[str, Any]


@dataclass(frozen=True)
class UnfoldedModel(Model):
    """name: also that of the method; settings: what `m_step_from` needs beside the weights."""

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

    def fit(self, data: Data, recipe: Recipe) -> UnfoldedFit:
        return UnfoldedFit(self.build, self.start(recipe.seed), data, recipe.snr_db)

    def finished(self, fit: Fit, weights: Weights) -> Finished:
        return Finished(dict(self.settings), weights, {})

    def method(self, settings: Mapping[str, Any], tensors: Weights, batch: Batch) -> Sbl:
        return self.build(tensors, Gauss(basis=batch.basis))


@dataclass(frozen=True)
class DiffusionModel(Model):
    """settings: {"width", "wiener", "correlated", "num_steps"}."""

    def fit(self, data: Data, recipe: Recipe) -> DenoisingFit:
        s = self.settings
        schedule, correlated = Schedule(s["num_steps"]), s["correlated"]
        return DenoisingFit(data, s["width"], s["wiener"], schedule, recipe.seed, correlated=correlated)

    def finished(self, fit: Fit, weights: Weights) -> Finished:
        assert isinstance(fit, DenoisingFit)
        expert = fit.finished(weights)
        shape = tuple(expert.log_power.shape)
        return Finished(expert.settings(shape), expert.tensors(), {"loss_per_entry": fit.losses(expert)})

    def method(self, settings: Mapping[str, Any], tensors: Weights, batch: Batch) -> DiffusionPosterior:
        expert = expert_from(settings, tensors)
        return DiffusionPosterior(Diffusion(expert=expert, basis=basis_of(expert, batch.basis)))

    def tests(self, data: Data, snr_db: float, seed: int) -> Iterator[Batch]:
        gen = generator("train", "test", seed)
        yield seen(data.draw(TEST_CHANNELS, (0.0, 0.0), gen, held_out=True), snr_db, gen)


def _graph(attributes: str) -> dict[str, Any]:
    return {"kind": "graph", "attributes": attributes, "num_layers": 4, "rounds": 1, "message": [16]}


SBL_CNN = UnfoldedModel(
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
SBL_GNN = UnfoldedModel("sbl-gnn", _graph("posterior"), _GRAPH)
SBL_GNN_PRINTED = UnfoldedModel("sbl-gnn-printed", _graph("printed"), {**_GRAPH, "shipped": Recipe(400, batch=8)})


def _denoising(steps: int, check_every: int = 250) -> Recipe:
    return Recipe(steps, 64, 3e-3, seed=0, check_every=check_every, held_out=512, warm_up=50, average=0.998)


DIFFUSION = DiffusionModel(
    "diffusion",
    {"width": 32, "wiener": True, "correlated": False, "num_steps": 100},
    {
        "quick": _denoising(500, 100),
        "shipped": _denoising(1500, 500),
        "long": _denoising(6000, 1000),
        "full": _denoising(62500, 1000),
    },
    data="cdl-c",
    test_snrs_db=(0.0, 10.0, 20.0, 30.0),
)
"""shipped: 96,000 samples, two CPU minutes; long: as many as four of these, what a model of four profiles takes; full:
4 million, as many as the paper's recipe"""
DIFFUSION_CORRELATED = replace(
    DIFFUSION, name="diffusion-correlated", settings={**DIFFUSION.settings, "correlated": True}
)
"""From the exact covariance of CDL profiles on: the network learns what no covariance tells"""
DIFFUSION_PLAIN = DiffusionModel(
    "diffusion-plain",
    {"width": 64, "wiener": False, "correlated": False, "num_steps": 100},
    {
        name: replace(recipe, batch=128, rate=1e-4, steps=recipe.steps // 2)
        for name, recipe in DIFFUSION.profiles.items()
    },
    data="cdl-c",
    test_snrs_db=DIFFUSION.test_snrs_db,
)
"""The paper's network, batch and rate (which falls here); angular bins all the same"""
