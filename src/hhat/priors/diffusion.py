"""`diffusion`: a learned prior, known by a network that denoises its samples at every noise level."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hhat.nets.start import start_weights
from hhat.ops.base import LinearOp
from hhat.ops.dense import Dense
from hhat.ops.linalg import squared
from hhat.priors.denoiser import DenoiserPrior
from hhat.priors.expert import PLANES, Expert, angles, expert_from, film_cnn
from hhat.priors.reverse import reverse_samples
from hhat.priors.schedule import Schedule
from hhat.priors.weights import Trained, read_weights, shipped
from hhat.types import Gaussian, Shape

SAMPLE_STEPS = 100


@dataclass(frozen=True, eq=False)
class Diffusion(DenoiserPrior):
    """x / scale is what the expert was trained on: E[x | r] by its network, the variance by its table; h = basis(x).

      denoise   the network at the time t whose (1 - abar_t)/abar_t is the variance of r; the variance is the mean error
                per bin on validation channels at that t. It does not depend on r: right on average over the channels
                of the expert, not for each.
      sample    z <- (1 - v'/v) E[x|z] + (v'/v) z + noise of variance v' (1 - v'/v) + (1 - v'/v)^2 var[x|z],
                from the largest noise v of the schedule down: the reverse process with its optimal variance.
      moments, log_evidence   those of independent Gaussian bins with the expert's mean powers

    weights: a file that `hhat train diffusion` wrote, or the name of one in the package ("cdl-c", see `names`)
    basis:   from angular bins to the channel; None is the unitary DFT of both axes, as in training
    expert:  given, it is taken in place of `weights`, and `basis` then is that of its coefficients (`basis_of`)
    scale:   complex, broadcasts to (*batch, *event)
    Raises ValueError for weights of something else, and for other than one or two event axes.
    Source: diffusion_experts section 3.1; the variance of `sample` is Bao et al., ICLR 2022 (Analytic-DPM).
    """

    # where they lie is no part of what they are: the expert holds the numbers
    weights: str | None = field(default=None, metadata={"recipe": False})
    basis: LinearOp | None = None
    expert: Expert | None = None
    scale: Tensor | complex | float = 1.0
    sample_steps: int = SAMPLE_STEPS
    ndim: int = 2
    learnable: bool = False
    tied_axes: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.expert is None:
            if self.weights is None:
                raise ValueError(f"diffusion: weights: expected a file or one of {' '.join(names())}")
            expert, shape = _loaded(self.weights)
            object.__setattr__(self, "expert", expert)
            object.__setattr__(self, "basis", basis_of(expert, angles(shape) if self.basis is None else self.basis))
        if self.basis is not None:
            object.__setattr__(self, "ndim", len(self.basis.in_shape))
        if self.ndim not in (1, 2):
            raise ValueError(f"diffusion: expected coefficients with one or two axes, got {self.ndim}")
        trained = tuple(self._known.log_power.shape)
        if self.basis is not None and trained != (1, 1) and trained != self._grid(self.basis.in_shape):
            raise ValueError(
                f"diffusion: an expert for {trained} coefficients, but the basis has {self.basis.in_shape}"
            )
        scale = torch.as_tensor(self.scale)
        object.__setattr__(self, "scale", scale if scale.is_complex() else scale.to(torch.complex64))

    def denoise(self, r: Gaussian) -> Gaussian:
        c = self._factor(r.mean)
        unit = squared(c).clamp_min(torch.finfo(r.mean.real.dtype).tiny)
        v, lead = self._flat(r.var.to(unit) / unit, r.mean)
        grid = self._grid(r.mean.shape)
        mean = self._known.mean((r.mean / c).reshape(-1, *grid), v).reshape(r.mean.shape)
        var = self._known.var(v)
        var = var.expand(len(var), *grid).reshape(*lead, *r.mean.shape[r.mean.ndim - self.ndim :])
        return Gaussian(c * mean, (squared(c) * var).expand(r.mean.shape))

    def moments(self) -> Gaussian:
        scale: Tensor = self.scale  # type: ignore[assignment]
        zero = torch.zeros((), dtype=scale.dtype, device=scale.device)
        power = self._known.power.to(scale.device, scale.real.dtype)
        power = power.reshape(power.shape[2 - self.ndim :]) if self.ndim < 2 else power
        return Gaussian(zero, squared(scale) * power)

    def sample(self, shape: Shape, gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
        schedule = self._known.schedule
        levels = schedule.var(schedule.times(self.sample_steps)).tolist()
        power = self._known.power.mean().item()
        z = reverse_samples(replace(self, scale=1.0), levels, power, shape, gen, dtype)
        return (z * self._factor(z)).to(dtype)

    @property
    def _known(self) -> Expert:
        assert self.expert is not None
        return self.expert

    def _factor(self, like: Tensor) -> Tensor:
        return self.scale.to(like.device, like.dtype)  # type: ignore[union-attr]

    def _grid(self, shape: Shape) -> Shape:
        return tuple(shape[-2:]) if self.ndim > 1 else (1, shape[-1])

    def _flat(self, v: Tensor, like: Tensor) -> tuple[Tensor, Shape]:
        """v as (B or 1, R or 1, T or 1), and the batch axes that it stands for: one value for all items stays one."""
        v = v.reshape((1,) * max(self.ndim - v.ndim, 0) + tuple(v.shape))
        v = v[..., None, :] if self.ndim == 1 else v
        batch = tuple(like.shape[: like.ndim - self.ndim])
        if v.shape[:-2].numel() == 1:
            return v.reshape(1, *v.shape[-2:]), (1,) * len(batch)
        return v.expand(*batch, *v.shape[-2:]).reshape(-1, *v.shape[-2:]), batch

    @classmethod
    def example(cls, gen: torch.Generator) -> "Diffusion":
        """A silent network on bins of equal power: CN(0, 1.4), exactly."""
        width = 2
        silent = start_weights(film_cnn(width, PLANES[True]), gen, ("behind.2.weight",))
        power, ratio = torch.full((1, 1), math.log(1.4)), torch.zeros(2, 1, 1)
        return cls(expert=Expert(silent, power, ratio, width, True, Schedule()), sample_steps=10, ndim=1)


def basis_of(expert: Expert, bins: LinearOp) -> LinearOp:
    """From the expert's coefficients to the channel; bins: from angular bins to the channel."""
    if expert.turn is None:
        return bins
    shape = bins.in_shape
    return Dense(bins.dense(torch.complex64) @ expert.turn, in_shape=shape, out_shape=tuple(bins.out_shape))


def names() -> list[str]:
    """The experts that come with the library."""
    from importlib import resources

    there = (resources.files("hhat") / "weights").iterdir()
    found = (Path(path.name) for path in there)
    return sorted(p.stem.removeprefix("diffusion_").replace("_", "-") for p in found if _is_expert(p))


def _is_expert(path: Path) -> bool:
    return path.suffix == ".safetensors" and path.stem.startswith("diffusion_")


def _loaded(weights: str) -> tuple[Expert, Shape]:
    found: Trained = shipped(f"diffusion-{weights}") if weights in names() else read_weights(weights)
    settings: dict[str, Any] = found.card["settings"]
    expert = expert_from(settings, found.weights)
    return expert, tuple(settings["shape"])
