"""Covariances and mixtures for `hhat train`: fitted at once, in closed form or by a few dozen EM steps."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from hhat.methods.auto import Auto
from hhat.methods.base import Method
from hhat.methods.covariance_mixture import CovarianceMixture
from hhat.methods.solve import solve
from hhat.ops import Identity
from hhat.ops.linalg import squared
from hhat.priors.base import Prior
from hhat.priors.expert import angles
from hhat.priors.fit_gauss import covariance_from_pilots, fit_covariance, fit_mixture
from hhat.priors.fit_stationary import fit_stationary, stationary, stationary_from_pilots
from hhat.priors.gauss import Gauss
from hhat.priors.trained import gauss_from, gauss_tensors
from hhat.priors.weights import Weights
from hhat.random import complex_normal, generator
from hhat.train.data import Batch, CaptureData, Data, PilotData
from hhat.train.denoising import seen
from hhat.train.loop import Progress, Trained
from hhat.train.models import TEST_CHANNELS, Finished
from hhat.types import Observation

LARGEST = 4096
"""Entries of a channel whose covariance is still formed (128 MB)"""
JUDGED_DB = 30.0
"""SNR at which held-out channels tell one covariance from another"""
ALL = 1 << 40


@dataclass(frozen=True)
class GaussRecipe:
    """channels: at most so many are learned from; steps: of EM, where it takes any."""

    channels: int
    steps: int
    seed: int = 0


@dataclass(frozen=True)
class GaussModel:
    """count: components of a mixture, None: one covariance."""

    name: str
    count: int | None
    profiles: Mapping[str, GaussRecipe] = field(
        default_factory=lambda: {"quick": GaussRecipe(2000, 20), "full": GaussRecipe(ALL, 60)}
    )
    data: str = "cdl-c"
    test_snrs_db: tuple[float, ...] = (0.0, 10.0, 20.0, 30.0)

    def recipe(self, profile: str, seed: int) -> GaussRecipe:
        if profile not in self.profiles:
            raise ValueError(f"--profile: expected {' or '.join(self.profiles)}, got '{profile}'")
        found = self.profiles[profile]
        return GaussRecipe(found.channels, found.steps, seed)


COVARIANCE = GaussModel("covariance", None)
MIXTURE = GaussModel("mixture", 16)


@dataclass(frozen=True, eq=False)
class GaussTask:
    """A covariance or a mixture and what it is fitted to.

    covariance: that of the samples (shrunk) or that of the same lags everywhere, which uniform arrays have; from
    pilots alone the same two by maximum likelihood. Whichever makes what was held out more probable is kept.
    Raises ValueError for a mixture without truth and for channels of more than LARGEST entries.
    """

    model: GaussModel
    data: Data | PilotData
    data_name: str
    recipe: GaussRecipe
    metric: ClassVar[str] = "nmse_db"

    def __post_init__(self):
        if self.model.count is not None and isinstance(self.data, PilotData):
            raise ValueError(
                f"{self.data.name}: truth/h: missing; a mixture needs known channels, `covariance` learns from pilots"
            )

    @property
    def steps(self) -> int:
        return 1

    @property
    def test_snrs_db(self) -> tuple[float, ...]:
        return () if isinstance(self.data, PilotData) else self.model.test_snrs_db

    def words(self, trained: Trained) -> str:
        return "fitted at once"

    def run(
        self, folder: Path | None = None, progress: Progress | None = None, device: torch.device | str = "cpu"
    ) -> Trained:
        """Fits; short enough that nothing is kept on the way."""
        began = time.process_time()
        tensors, told = self._fitted()
        if progress is not None:
            progress(1, None)
        return Trained(tensors, [told], time.process_time() - began, 1)

    def finished(self, trained: Trained) -> Finished:
        told = dict(trained.curve[0])
        return Finished({"kind": self.model.name, "shape": told.pop("shape")}, trained.weights, told)

    def method(self, finished: Finished, batch: Batch) -> Method:
        """LMMSE of a covariance, the exact posterior of a mixture."""
        return Auto(gauss_from(finished.settings, finished.tensors))

    def tests(self, snr_db: float) -> Iterator[Batch]:
        gen = generator("train", "test", self.recipe.seed)
        assert not isinstance(self.data, PilotData)
        yield seen(self.data.draw(TEST_CHANNELS, (0.0, 0.0), gen, held_out=True), snr_db, gen)

    def card(self, trained: Trained, finished: Finished) -> dict[str, Any]:
        there = {"seed": self.recipe.seed, "steps": self.recipe.steps}
        return {
            "settings": finished.settings,
            "data": self.data_name,
            "recipe": there,
            "cpu_seconds": round(trained.seconds, 1),
            **finished.more,
        }

    def _fitted(self) -> tuple[Weights, dict[str, Any]]:
        if isinstance(self.data, PilotData):
            return self._from_pilots(self.data)
        h = self._channels(False)
        told: dict[str, Any] = {"shape": list(h.shape[1:]), "channels": len(h)}
        if self.model.count is not None:
            gen = generator("train", "mixture", self.recipe.seed)
            count = min(self.model.count, len(h))
            return gauss_tensors(fit_mixture(h, count, gen, angles(tuple(h.shape[1:])), self.recipe.steps)), told
        _check_size(h[0].numel())
        found: dict[str, Tensor | Gauss] = {"samples": fit_covariance(h)}
        if h.ndim < 4:
            found["same lags everywhere"] = fit_stationary(h)
        return _chosen(found, _in_noise(self._channels(True), self.recipe.seed), told)

    def _channels(self, held_out: bool) -> Tensor:
        if isinstance(self.data, CaptureData):
            h = self.data.channels(held_out)
        else:
            gen = generator("train", "channels", self.recipe.seed, int(held_out))
            h = self.data.draw(min(self.recipe.channels, 2000), (0.0, 0.0), gen, held_out).h  # type: ignore[union-attr]
        if not bool(torch.isfinite(h).all()):
            raise ValueError(f"{self.data_name}: truth/h: expected finite channels")
        return h[: self.recipe.channels]

    def _from_pilots(self, data: PilotData) -> tuple[Weights, dict[str, Any]]:
        obs, apart = _some(data.seen(), self.recipe.channels), data.seen(held_out=True)
        shape = tuple(obs.op.in_shape)
        _check_size(math.prod(shape))
        told: dict[str, Any] = {"shape": list(shape), "snapshots": len(obs.y)}
        found: dict[str, Tensor | Gauss] = {}
        if len(shape) < 3:
            found["same lags everywhere"], noise = stationary_from_pilots(obs, self.recipe.steps)
            if noise is not None:
                told["noise_var"] = noise
                apart = Observation(apart.y, apart.op, noise, apart.axes)
        if obs.noise_var is not None and obs.noise_var.numel() == 1:
            found["likelihood"] = covariance_from_pilots(obs, self.recipe.steps)
        if not found:
            raise ValueError(f"{data.name}: noise_var: missing; a covariance of {shape} is not told from noise without")
        return _chosen(found, apart, told)


def evidence(prior: Prior, obs: Observation) -> float:
    """Mean log p(y) per received sample."""
    found = solve(CovarianceMixture(prior), obs).info["log_evidence"]
    return float(found.mean()) / math.prod(obs.op.out_shape)


def _in_noise(h: Tensor, seed: int) -> Observation:
    """Channels (num, *shape) seen whole in white noise at JUDGED_DB."""
    noise = squared(h).mean() * 10 ** (-JUDGED_DB / 10)
    y = h + complex_normal(tuple(h.shape), generator("train", "judge", seed), h.dtype, noise)
    return Observation(y, Identity(tuple(h.shape[1:])), noise)


def _chosen(
    found: Mapping[str, Tensor | Gauss], apart: Observation, told: dict[str, Any]
) -> tuple[Weights, dict[str, Any]]:
    """The fit that makes what was held out most probable."""
    shape = tuple(told["shape"])
    priors = {name: stationary(one, shape) if isinstance(one, Tensor) else one for name, one in found.items()}
    scores = {name: evidence(prior, apart) for name, prior in priors.items()}
    if not all(math.isfinite(score) for score in scores.values()):
        raise ValueError(f"covariance: the fit failed: log evidence {scores}")
    best = max(scores, key=lambda name: scores[name])
    rounded = {name: round(value, 4) for name, value in scores.items()}
    return gauss_tensors(found[best]), {**told, "fit": best, "held_out_log_density": rounded}


def _some(obs: Observation, count: int) -> Observation:
    noise = obs.noise_var
    if noise is not None and noise.ndim == obs.y.ndim and len(noise) > 1:
        noise = noise[:count]
    return Observation(obs.y[:count], obs.op, noise, obs.axes)


def _check_size(entries: int) -> None:
    if entries > LARGEST:
        raise ValueError(f"covariance: expected channels of at most {LARGEST} entries, got {entries}")
