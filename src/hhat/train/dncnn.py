"""The denoiser of `ldamp`: one network for all noise levels, trained to tell the noise."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hhat.methods.ldamp import Ldamp
from hhat.methods.solve import solve
from hhat.nets.start import start_weights
from hhat.ops.linalg import squared
from hhat.priors.dncnn import HIGHEST_DB, LOWEST_DB, Dncnn, Residual, dn_cnn, residual_from
from hhat.priors.weights import Weights
from hhat.random import complex_normal, generator
from hhat.train.data import Batch, Data
from hhat.train.denoising import POWER_CHANNELS, REFERENCE_CHANNELS, REFERENCE_DB, seen
from hhat.train.loop import Fit, Recipe, to_db
from hhat.train.models import TEST_CHANNELS, Finished, Model

RELU_GAIN = math.sqrt(6.0)
"""From uniform within 1/sqrt(fan in) to He's scale, which ReLU keeps from layer to layer"""


class Noisy(NamedTuple):
    """Coefficients x (B, R, T), noise eps ~ CN(0, 1), and its variance (B, 1, 1) in r = x + sqrt(v) eps."""

    x: Tensor
    eps: Tensor
    v: Tensor
    reference: Batch | None = None

    def to(self, device: torch.device | str) -> "Noisy":
        reference = None if self.reference is None else self.reference.to(device)
        return Noisy(self.x.to(device), self.eps.to(device), self.v.to(device), reference)


@dataclass(frozen=True, eq=False)
class DncnnFit:
    """E |x - E[x|r]|^2 / (g v) per entry: the error over that of the linear denoiser of a white channel, g = p/(p + v),

    p/v uniform in dB from LOWEST_DB to HIGHEST_DB, every channel turned by a random phase. 1 is a silent network.
    """

    data: Data
    width: int
    num_layers: int
    seed: int
    half: bool = True

    @cached_property
    def network(self) -> Residual:
        """Before training: a silent last layer, and the data's mean power."""
        batch = self.data.draw(POWER_CHANNELS, (0.0, 0.0), generator("train", "power", self.seed))
        power = float(squared(batch.h).mean())
        gen = generator("train", "start", "dncnn", self.seed)
        first = start_weights(dn_cnn(self.width, self.num_layers), gen, (f"layers.{self.num_layers - 1}.weight",))
        return Residual({n: RELU_GAIN * w for n, w in first.items()}, self.width, self.num_layers, power, self.half)

    def start(self) -> Weights:
        return self.network.weights

    def draw(self, n: int, gen: torch.Generator, held_out: bool = False) -> Noisy:
        batch = self.data.draw(n, (0.0, 0.0), gen, held_out)
        x = batch.basis.adjoint(batch.h)
        turn = 2 * math.pi * torch.rand(n, 1, 1, generator=gen)
        level_db = LOWEST_DB + (HIGHEST_DB - LOWEST_DB) * torch.rand(n, 1, 1, generator=gen)
        v = self.network.power * 10 ** (-level_db / 10)
        eps = complex_normal(tuple(x.shape), gen)
        reference = seen(batch.some(REFERENCE_CHANNELS), REFERENCE_DB, gen) if held_out else None
        return Noisy(x * torch.polar(torch.ones_like(turn), turn), eps, v, reference)

    def loss(self, weights: Weights, batch: Noisy) -> tuple[Tensor, Tensor]:
        v, p = batch.v, self.network.power
        error = replace(self.network, weights=weights).mean(batch.x + v.sqrt() * batch.eps, v) - batch.x
        loss = (torch.view_as_real(error).square().sum(-1) / (v * (p / (p + v)))).mean()
        return loss, loss

    def check(self, weights: Weights, held_out: Noisy) -> dict[str, float | None]:
        """Beside the loss: NMSE of `ldamp` at REFERENCE_DB."""
        assert held_out.reference is not None
        reference = held_out.reference
        found = {"valid_db": to_db(float(self.loss(weights, held_out)[1]))}
        method = Ldamp(Dncnn(network=self.finished(weights), basis=reference.basis))
        error = solve(method, reference.obs, max_steps=60).belief.mean - reference.h
        ratio = squared(error).sum((-2, -1)) / squared(reference.h).sum((-2, -1))
        return {**found, "reference_nmse_db": to_db(float(ratio.mean()))}

    def finished(self, weights: Weights) -> Residual:
        return replace(self.network, weights=weights, half=False)


@dataclass(frozen=True)
class DncnnModel(Model):
    """settings: {"width", "num_layers"}."""

    def fit(self, data: Data, recipe: Recipe) -> DncnnFit:
        return DncnnFit(data, self.settings["width"], self.settings["num_layers"], recipe.seed)

    def finished(self, fit: Fit, weights: Weights) -> Finished:
        assert isinstance(fit, DncnnFit)
        batch = fit.data.draw(1, (0.0, 0.0), generator("train", "shape"))
        shape = tuple(batch.basis.in_shape)
        return Finished(fit.finished(weights).settings(shape), weights, {})

    def method(self, settings: Mapping[str, Any], tensors: Weights, batch: Batch) -> Ldamp:
        return Ldamp(Dncnn(network=residual_from(settings, tensors)[0], basis=batch.basis))

    def tests(self, data: Data, snr_db: float, seed: int) -> Iterator[Batch]:
        gen = generator("train", "test", seed)
        yield seen(data.draw(TEST_CHANNELS, (0.0, 0.0), gen, held_out=True), snr_db, gen)


def _recipe(steps: int, check_every: int) -> Recipe:
    return Recipe(steps, 64, 3e-3, seed=0, check_every=check_every, held_out=512, warm_up=50, average=0.998)


LDAMP = DncnnModel(
    "ldamp",
    {"width": 32, "num_layers": 8},
    {"quick": _recipe(400, 100), "shipped": _recipe(1500, 500), "full": _recipe(62500, 1000)},
    data="cdl-abcd",
    test_snrs_db=(0.0, 10.0, 20.0, 30.0),
)
"""shipped: 96,000 samples, four CPU minutes; full: 4 million, as many as the recipe of the diffusion experts"""
