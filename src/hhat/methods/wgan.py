"""`wgan`: the channel that a trained generator can make and that explains y best, by descent in its latents."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from hhat.methods.base import NOISELESS, Method, noise_info, relative_change
from hhat.ops.base import LinearOp
from hhat.ops.linalg import squared
from hhat.priors.base import Prior
from hhat.priors.generated import Generated, Linear, generated_from
from hhat.priors.weights import read_weights, shipped
from hhat.types import Estimate, Gaussian, Observation, State

MODEL = "wgan"
FIRST_KEEP, SECOND_KEEP, TINY = 0.9, 0.999, 1e-12
"""Of Adam; TINY is far below its default, since the objective falls with the noise"""


@dataclass(frozen=True, eq=False)
class Wgan(Method):
    """h = G(z*),  z* = argmin sum_m |y_m - (A G(z))_m|^2 / s2_m + strength |z|^2 / 2,

    the most probable z under z ~ N(0, I) where strength is 1. By Adam, the rate falling as a cosine to 0, from z = 0
    and restarts - 1 starts ~ N(0, I), the same for all items; the one that ends lowest is taken.

    prior: a `Generated` (a `Prior`, which denoises, is refused); None: the generator of `weights`, for channels of
    16 x 64 antennas with E|h|^2 = 1 over their profile. `hhat.priors.generated.Linear()` makes it ridge regression.
    weights: a file that `hhat train wgan` wrote; None: those of the package
    strength: weight of |z|^2, with which the paper's lambda = strength s2 / 2 follows the noise. The default was the
    best at 0 and 10 dB on other channels than those of the tables, and level at 30 dB: what the generator cannot make
    acts as more noise.
    There is no variance: a point on a surface, and the distance to the surface is unknown. It is reported infinite.
    Noise that is not given is taken from the residual at each step, corrected for as many samples as there are latents.
    info: latents (*batch, num_latent), objective (*batch, restarts)
    Raises ValueError for channels of a shape that the generator is not for.
    Source: Balevi, Doshi, Jalal, Dimakis & Andrews, IEEE JSAC 2021, eq. (8); Bora et al., ICML 2017.
    """

    variance: ClassVar[str] = "none"
    prior: Generated | Prior | None = None
    # where they lie is no part of what they are: the generator holds the numbers
    weights: str | None = field(default=None, metadata={"recipe": False})
    strength: float = 10.0
    restarts: int = 3
    rate: float = 0.1
    max_steps: int = 100
    tol: float | None = None

    def __post_init__(self):
        if self.prior is not None and not isinstance(self.prior, Generated):
            raise ValueError(f"wgan: prior: expected a generator, got {type(self.prior).__name__}")
        for name, least in (("strength", 0.0), ("restarts", 1), ("max_steps", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"wgan: {name}: expected at least {least}, got {getattr(self, name)}")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"wgan: rate: expected a number > 0, got {self.rate}")

    def resolve(self, obs: Observation) -> tuple["Wgan", dict[str, str]]:
        method, words = self, {}
        if self.prior is None:
            found = shipped(MODEL) if self.weights is None else read_weights(self.weights)
            method = replace(self, prior=generated_from(found.card["settings"], found.weights))
            words = {"prior": "generator"}
        method._law.num_latent(tuple(obs.op.in_shape))
        return method, words

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        count, batch = self._law.num_latent(tuple(obs.op.in_shape)), obs.batch_shape
        z = torch.randn((self.restarts, count), generator=gen, dtype=torch.float64)
        z[0] = 0
        z = z.to(obs.y.device, obs.y.real.dtype).expand(*batch, -1, -1).clone()
        state: State = {"z": z, "first": torch.zeros_like(z), "second": torch.zeros_like(z), "count": 0}
        state |= {"h": obs.y.new_zeros(*batch, *obs.op.in_shape), "change": obs.y.real.new_ones(batch)}
        return state

    def step(self, state: State, obs: Observation) -> State:
        z, g, h = self._slope(state["z"], obs)
        count = state["count"] + 1
        first = FIRST_KEEP * state["first"] + (1 - FIRST_KEEP) * g
        second = SECOND_KEEP * state["second"] + (1 - SECOND_KEEP) * g.square()
        size = (second / (1 - SECOND_KEEP**count)).sqrt()
        # relative to the largest slope: the objective's unit is that of y
        size = size + TINY * (size.amax(-1, keepdim=True) + torch.finfo(size.dtype).tiny)
        share = 0.5 * (1 + math.cos(math.pi * min(state["count"] / self.max_steps, 1.0)))
        z = z - self.rate * share * first / (1 - FIRST_KEEP**count) / size
        change = relative_change(h, state["h"], len(obs.op.in_shape))
        return {**state, "z": z, "first": first, "second": second, "count": count, "h": h, "change": change}

    def read(self, state: State, obs: Observation) -> Estimate:
        with torch.no_grad():
            value, h, noise = self._objective(state["z"], obs)
        best = value.argmin(-1)
        z, h, noise = _taken(state["z"], best, -2), _taken(h, best, 0), _taken(noise, best, 0)
        info = {"latents": z, "objective": value, **noise_info({"noise_var": noise}, obs)}
        if obs.noise_var is None:
            info["noise_var_source"] = "residual"
        return Estimate(Gaussian(h, torch.full_like(h.real, torch.inf)), info)

    def _slope(self, z: Tensor, obs: Observation) -> tuple[Tensor, Tensor, Tensor]:
        """z, the gradient of its objective (times the mean noise), and the channel that it stands for."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            value, h, _ = self._objective(leaf, obs)
            slope = torch.autograd.grad(value.sum(), leaf)[0]
        return z, slope, _taken(h.detach(), value.detach().argmin(-1), 0)

    def _objective(self, z: Tensor, obs: Observation) -> tuple[Tensor, Tensor, Tensor]:
        """mean of s2 times the objective (*batch, restarts); h (restarts, *batch, *event); s2, shaped to y."""
        op: LinearOp = obs.op.like(obs.y)  # type: ignore[attr-defined]
        num_out = len(op.out_shape)
        out = tuple(range(-num_out, 0))
        h = self._law(z.movedim(-2, 0), tuple(op.in_shape)).to(obs.y.dtype)
        residual = squared(obs.y - op.apply(h))
        if obs.noise_var is None:
            size = math.prod(op.out_shape)
            noise = residual.sum(out, keepdim=True).detach() / max(size - z.shape[-1] / 2, size / 2)
        else:
            noise = obs.noise_var.expand(residual.shape)
        floor = torch.finfo(residual.dtype).tiny + NOISELESS * squared(obs.y).mean(out, keepdim=True) * 1e-3
        unit = noise.mean(out, keepdim=True)
        fit = (residual * ((unit + floor) / (noise + floor))).sum(out)
        value = fit + self.strength / 2 * unit.flatten(-num_out)[..., 0] * z.square().sum(-1).movedim(-1, 0)
        return value.movedim(0, -1), h, noise

    @property
    def _law(self) -> Generated:
        assert isinstance(self.prior, Generated)
        return self.prior

    @classmethod
    def example(cls, gen: torch.Generator) -> "Wgan":
        return cls(Linear())


def _taken(x: Tensor, best: Tensor, axis: int) -> Tensor:
    """Of x with the restarts at `axis`, that of each item which is at place `best` (*batch)."""
    x = x.movedim(axis, 0)
    place = best.reshape(1, *best.shape, *(1,) * (x.ndim - 1 - best.ndim)).expand(1, *x.shape[1:])
    return x.gather(0, place)[0]
