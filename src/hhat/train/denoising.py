"""Experts of the diffusion prior: a denoiser for all noise levels at once, then the error that it leaves at each."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.methods.sampling import DiffusionPosterior
from hhat.methods.solve import solve
from hhat.nets.start import start_weights
from hhat.ops.linalg import squared
from hhat.priors.diffusion import Diffusion, basis_of
from hhat.priors.expert import PLANES, Expert, film_cnn, principal_of
from hhat.priors.schedule import Schedule
from hhat.priors.stationary import lags_of
from hhat.priors.weights import Weights
from hhat.random import complex_normal, generator
from hhat.train.data import Batch, Data
from hhat.train.loop import to_db
from hhat.types import Observation

POWER_CHANNELS = 10000
"""Channels whose mean is the power per bin"""
LEAST_POWER = 1e-6
"""Least mean power of a bin, relative to the mean over all"""
NODES, ERROR_CHANNELS = 25, 1000
"""Times at which the error left is measured, and on how many held-out channels"""
REFERENCE_DB, REFERENCE_CHANNELS = 20.0, 32
"""SNR and channels of the estimate that accompanies each validation"""


class Noised(NamedTuple):
    """Coefficients x (B, R, T), noise eps ~ CN(0, 1), and the time (B,) at which they are mixed."""

    x: Tensor
    eps: Tensor
    time: Tensor
    reference: Batch | None = None

    def to(self, device: torch.device | str) -> "Noised":
        reference = None if self.reference is None else self.reference.to(device)
        return Noised(self.x.to(device), self.eps.to(device), self.time.to(device), reference)


@dataclass(frozen=True, eq=False)
class DenoisingFit:
    """E |eps - eps_hat(h_t, t)|^2 per complex entry, t uniform on 1..T, every channel turned by a random phase,

    which with h_t = (x + sqrt(v) eps) / sqrt(1 + v) is E |x - E[x|r]|^2 / v of the denoiser that the prior uses.
    correlated: the expert starts from the exact covariance of the data, not from the power per bin.
    Departures: t is real, not whole, so that the network is right at every noise level. Source: (7) of the paper;
    diffusion_experts section 6.
    """

    data: Data
    width: int
    wiener: bool
    schedule: Schedule
    seed: int
    half: bool = True
    correlated: bool = False

    @cached_property
    def expert(self) -> Expert:
        """Before training: a silent last layer with the Wiener skip, else torch's start; powers of the data."""
        batch = self.data.draw(POWER_CHANNELS, (0.0, 0.0), generator("train", "power", self.seed))
        power, lags = squared(batch.basis.adjoint(batch.h)).mean(0), None
        if self.correlated:
            covariance = getattr(self.data, "covariance", None)
            if covariance is None:
                raise ValueError("train: expected data with an exact covariance, such as --data cdl-c")
            lags = lags_of(covariance, tuple(power.shape)).to(torch.complex64)
            power = principal_of(lags)[0].reshape(power.shape)
        power = power.clamp_min(LEAST_POWER * float(power.mean()))
        gen = generator("train", "start", "diffusion", self.seed)
        silent = ("behind.2.weight",) if self.wiener else ()
        first = start_weights(film_cnn(self.width, PLANES[self.wiener]), gen, silent)
        ratio = torch.zeros(NODES, *power.shape)
        return Expert(first, power.log(), ratio, self.width, self.wiener, self.schedule, self.half, lags)

    def _coefficients(self, batch: Batch) -> Tensor:
        """x (B, R, T) of channels: bins, or what the expert's W makes of them."""
        bins, turn = batch.basis.adjoint(batch.h), self.expert.turn
        return bins if turn is None else (bins.flatten(1) @ turn.conj()).reshape(bins.shape)

    def start(self) -> Weights:
        return self.expert.weights

    def draw(self, n: int, gen: torch.Generator, held_out: bool = False) -> Noised:
        batch = self.data.draw(n, (0.0, 0.0), gen, held_out)
        x = self._coefficients(batch)
        turn = 2 * math.pi * torch.rand(n, 1, 1, generator=gen)
        time = 1 + (self.schedule.num_steps - 1) * torch.rand(n, generator=gen)
        x = x * torch.polar(torch.ones_like(turn), turn)
        eps = complex_normal(tuple(x.shape), gen)
        return Noised(x, eps, time, seen(batch.some(REFERENCE_CHANNELS), REFERENCE_DB, gen) if held_out else None)

    def loss(self, weights: Weights, batch: Noised) -> tuple[Tensor, Tensor]:
        v = self.schedule.var(batch.time)[:, None, None]
        error = self.expert.with_weights(weights).mean(batch.x + v.sqrt() * batch.eps, v) - batch.x
        loss = (torch.view_as_real(error).square().sum(-1) / v).mean()
        return loss, loss

    def check(self, weights: Weights, held_out: Noised) -> dict[str, float | None]:
        """Beside the loss: NMSE of `diffusion-posterior` at REFERENCE_DB, with the variances of Gaussian bins."""
        assert held_out.reference is not None
        found = {"valid_db": to_db(float(self.loss(weights, held_out)[1]))}
        method = DiffusionPosterior(self._prior(weights, held_out.reference))
        error = solve(method, held_out.reference.obs).belief.mean - held_out.reference.h
        ratio = squared(error).sum((-2, -1)) / squared(held_out.reference.h).sum((-2, -1))
        return {**found, "reference_nmse_db": to_db(float(ratio.mean()))}

    def finished(self, weights: Weights) -> Expert:
        """With the error left per bin, measured on held-out channels."""
        expert = self.expert.with_weights(weights)
        gen = generator("train", "error left", self.seed)
        batch = self.data.draw(ERROR_CHANNELS, (0.0, 0.0), gen, held_out=True)
        x = self._coefficients(batch)
        rows = []
        with torch.no_grad():
            for time in torch.linspace(1, self.schedule.num_steps, NODES):
                v = self.schedule.var(time).reshape(1, 1, 1)
                r = x + complex_normal(tuple(x.shape), gen, var=v)
                left = squared(expert.mean(r, v) - x).mean(0)
                rows.append((left / expert.var(v)[0]).log())
        return replace(expert, log_ratio=torch.stack(rows), half=False)

    def losses(self, expert: Expert) -> list[tuple[float, float]]:
        """(t, loss per entry) at the nodes, from the errors that `finished` measured."""
        times = torch.linspace(1, self.schedule.num_steps, NODES)
        v = self.schedule.var(times)[:, None, None]
        return [
            (round(float(t), 2), round(float(row.mean()), 5)) for t, row in zip(times, expert.var(v) / v, strict=True)
        ]

    def _prior(self, weights: Weights, batch: Batch) -> Diffusion:
        expert = replace(self.expert.with_weights(weights), half=False)
        return Diffusion(expert=expert, basis=basis_of(expert, batch.basis))


def seen(batch: Batch, snr_db: float, gen: torch.Generator) -> Batch:
    """The channels with fresh noise, of one level for all: mean energy of A h over that of the noise. A level for each
    would be a factorisation for each."""
    clean = batch.obs.op.apply(batch.h)
    noise_var = squared(clean).mean() * 10 ** (-snr_db / 10)
    y = clean + complex_normal(tuple(clean.shape), gen, clean.dtype, noise_var)
    return batch._replace(obs=Observation(y, batch.obs.op, noise_var, batch.obs.axes))
