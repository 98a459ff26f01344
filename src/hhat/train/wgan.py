"""The generator of `wgan`, as a Wasserstein GAN with gradient penalty: it and a critic move in turns."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from hhat.methods.solve import solve
from hhat.methods.wgan import Wgan
from hhat.nets.generator import Critic
from hhat.nets.start import start_weights
from hhat.ops.linalg import squared
from hhat.priors.generated import GeneratedBins, generated_from, generator_net
from hhat.priors.weights import Weights
from hhat.random import generator
from hhat.train.data import Batch, Data
from hhat.train.denoising import REFERENCE_CHANNELS, REFERENCE_DB, seen
from hhat.train.dncnn import RELU_GAIN
from hhat.train.loop import Fit, Recipe, Turn, to_db
from hhat.train.models import Finished, Model

CRITIC_TURNS = 4
"""Steps of the critic for each of the generator"""
PENALTY, PENALTY_EVERY = 10.0, 2
"""Weight of the gradient penalty, and in which of the critic's steps it is taken (then as many times its weight)"""
TEST_CHANNELS = 48
MADE, SHARP = "generator.", "critic."
"""Beginnings of the names of the two networks' weights"""


class Pairs(NamedTuple):
    """Coefficients x (B, R, T) of real channels, latents z (B, K), and where between real and made the slope of the
    critic is taken, mix (B, 1, 1)."""

    x: Tensor
    z: Tensor
    mix: Tensor
    reference: Batch | None = None

    def to(self, device: torch.device | str) -> "Pairs":
        reference = None if self.reference is None else self.reference.to(device)
        return Pairs(self.x.to(device), self.z.to(device), self.mix.to(device), reference)


@dataclass(frozen=True, eq=False)
class WganFit:
    """Critic:     E c(G(z)) - E c(x) + PENALTY E (|dc/dx| - 1)^2, the slope between x and G(z)
    Generator:  - E c(G(z))

    in turns, CRITIC_TURNS to 1; every channel turned by a random phase. What is shown is the squared estimate of the
    Wasserstein distance, E c(x) - E c(G(z)), over the mean energy of a channel: it falls as the generator learns, and
    is no measure of the method. valid_db is: the NMSE of `wgan` at REFERENCE_DB on held-out channels, and the weights
    that are kept are those where it is least.
    Source: Gulrajani et al., NIPS 2017, algorithm 1; a penalty in every second step: Karras et al., CVPR 2020.
    """

    data: Data
    num_latent: int
    seed: int

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Of the coefficients."""
        return tuple(self.data.draw(1, (0.0, 0.0), generator("train", "shape")).basis.in_shape)  # type: ignore[return-value]

    @cached_property
    def critic(self) -> Critic:
        with torch.device("meta"):
            return Critic(self.shape)

    def start(self) -> Weights:
        found = {}
        for prefix, net in ((MADE, generator_net(self.num_latent, self.shape)), (SHARP, self.critic)):
            first = start_weights(net, generator("train", "start", "wgan", prefix, self.seed))
            found |= {prefix + name: RELU_GAIN * value for name, value in first.items()}
        return found

    def draw(self, n: int, gen: torch.Generator, held_out: bool = False) -> Pairs:
        batch = self.data.draw(n, (0.0, 0.0), gen, held_out)
        x = batch.basis.adjoint(batch.h)
        turn = 2 * math.pi * torch.rand(n, 1, 1, generator=gen)
        z = torch.randn(n, self.num_latent, generator=gen)
        mix = torch.rand(n, 1, 1, generator=gen)
        reference = seen(batch.some(REFERENCE_CHANNELS), REFERENCE_DB, gen) if held_out else None
        return Pairs(x * torch.polar(torch.ones_like(turn), turn), z, mix, reference)

    def turn(self, step: int) -> Turn:
        rounds, place = divmod(step, CRITIC_TURNS + 1)
        if place < CRITIC_TURNS:
            return Turn(SHARP, rounds * CRITIC_TURNS + place)
        return Turn(MADE, rounds)

    def turn_loss(self, turn: Turn, weights: Weights, batch: Pairs) -> tuple[Tensor, Tensor]:
        made = self._network(weights).bins(batch.z)
        if turn.prefix == MADE:
            worth = self._judged(weights, made).mean()
            apart = self._judged(weights, batch.x).mean().detach() - worth.detach()
            return -worth, self._shown(apart, batch)
        made = made.detach()
        apart = self._judged(weights, batch.x).mean() - self._judged(weights, made).mean()
        loss = -apart
        if turn.count % PENALTY_EVERY == 0:
            loss = loss + PENALTY * PENALTY_EVERY * (self._steepness(weights, batch, made) - 1).square().mean()
        return loss, self._shown(apart.detach(), batch)

    def loss(self, weights: Weights, batch: Pairs) -> tuple[Tensor, Tensor]:
        """The critic's, with the penalty."""
        return self.turn_loss(Turn(SHARP, 0), weights, batch)

    def check(self, weights: Weights, held_out: Pairs) -> dict[str, float | None]:
        assert held_out.reference is not None
        reference = held_out.reference
        error = solve(Wgan(self._network(weights)), reference.obs).belief.mean - reference.h
        ratio = squared(error).sum((-2, -1)) / squared(reference.h).sum((-2, -1))
        return {"valid_db": to_db(float(ratio.mean()))}

    def _network(self, weights: Weights) -> GeneratedBins:
        return GeneratedBins(_part(weights, MADE), self.num_latent, self.shape)

    def _judged(self, weights: Weights, x: Tensor) -> Tensor:
        """c(x), (B,)."""
        planes = torch.view_as_real(x).movedim(-1, 1).contiguous(memory_format=torch.channels_last)
        return functional_call(self.critic, _part(weights, SHARP), (planes,))

    def _steepness(self, weights: Weights, batch: Pairs, made: Tensor) -> Tensor:
        """|dc/dx| per channel, between real and made."""
        between = torch.view_as_real(batch.mix * batch.x + (1 - batch.mix) * made).requires_grad_()
        with torch.enable_grad():
            worth = self._judged(weights, torch.view_as_complex(between)).sum()
            slope = torch.autograd.grad(worth, between, create_graph=True)[0]
        return (slope.flatten(1).square().sum(1) + 1e-12).sqrt()

    @staticmethod
    def _shown(apart: Tensor, batch: Pairs) -> Tensor:
        return apart.square() / squared(batch.x).sum((-2, -1)).mean()


@dataclass(frozen=True)
class WganModel(Model):
    """settings: {"num_latent"}."""

    def fit(self, data: Data, recipe: Recipe) -> WganFit:
        return WganFit(data, self.settings["num_latent"], recipe.seed)

    def finished(self, fit: Fit, weights: Weights) -> Finished:
        """The generator alone; the critic has done its work."""
        assert isinstance(fit, WganFit)
        made = fit._network(weights)
        return Finished(made.settings(), made.weights, {})

    def method(self, settings: Mapping[str, Any], tensors: Weights, batch: Batch) -> Wgan:
        return Wgan(generated_from(settings, tensors))

    def tests(self, data: Data, snr_db: float, seed: int) -> Iterator[Batch]:
        gen = generator("train", "test", seed)
        yield seen(data.draw(TEST_CHANNELS, (0.0, 0.0), gen, held_out=True), snr_db, gen)


def _part(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


_SHIPPED = Recipe(4000, 64, 1e-3, check_every=500, held_out=48, warm_up=50, average=0.995, betas=(0.5, 0.9))
WGAN = WganModel(
    "wgan",
    {"num_latent": 60},
    {
        "quick": replace(_SHIPPED, steps=800, check_every=200),
        "shipped": _SHIPPED,
        "full": replace(_SHIPPED, steps=200000, check_every=5000),
    },
    data="cdl-abcd",
    test_snrs_db=(0.0, 10.0, 20.0, 30.0),
)
"""steps: of both; shipped: 800 of the generator, five CPU minutes"""
