"""Unfolded methods, by gradient descent through their E-steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.methods.base import problem
from hhat.methods.sbl import Sbl
from hhat.priors.base import Prior
from hhat.priors.gauss import Gauss
from hhat.priors.weights import Weights
from hhat.random import generator
from hhat.train.data import Batch, Data
from hhat.train.loop import to_db

EARLIER = 0.2
"""Weight of the mean loss of the earlier layers beside that of the last"""
Build = Callable[[Weights, Prior], Sbl]
"""The method with these weights, on the basis of this prior"""


@dataclass(frozen=True, eq=False)
class UnfoldedFit:
    """E[ |h_T - h|^2/|h|^2 + EARLIER mean_t |h_t - h|^2/|h|^2 ],  h_t the estimate after layer t; the first is shown.

    first: the weights to start from; snr_db: of every channel uniform between these
    """

    build: Build
    first: Weights
    data: Data
    snr_db: tuple[float, float]

    def start(self) -> Weights:
        return self.first

    def draw(self, n: int, gen: torch.Generator, held_out: bool = False) -> Batch:
        return self.data.draw(n, self.snr_db, gen, held_out)

    def loss(self, weights: Weights, batch: Batch) -> tuple[Tensor, Tensor]:
        losses = layer_losses(self.build(weights, Gauss(basis=batch.basis)), batch)
        total = losses[-1]
        if len(losses) > 1:
            total = total + EARLIER * torch.stack(losses[:-1]).mean()
        return total, losses[-1]

    def check(self, weights: Weights, held_out: Batch) -> dict[str, float | None]:
        return {"valid_db": to_db(float(self.loss(weights, held_out)[1]))}


def layer_losses(method: Sbl, batch: Batch) -> list[Tensor]:
    """|h_t - h|^2 / |h|^2, mean over the batch, of the estimate after each layer."""
    obs = batch.obs
    chosen, _ = method.resolve(obs)
    assert isinstance(chosen, Sbl) and chosen.max_steps is not None
    task = problem(obs, chosen.prior)
    event = task.event()
    energy = batch.h.abs().square().sum(event)
    state, losses = chosen.init(obs, generator("train")), []
    for _ in range(chosen.max_steps):
        state = chosen.maximise(state, obs, chosen.expect(state, obs))
        error = task.channel(chosen.expect(state, obs).mean) - batch.h
        losses.append((torch.view_as_real(error).square().sum(-1).sum(event) / energy).mean())
    return losses
