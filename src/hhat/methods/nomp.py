"""`nomp`: a few paths without a grid, found one by one and refined together."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hhat.methods.base import Method
from hhat.methods.linear import rls
from hhat.methods.nomp_fit import Fit, Whitened, fitted, normal_at
from hhat.methods.nomp_paths import LinePaths, line_paths
from hhat.methods.nomp_search import coarse
from hhat.ops.base import LinearOp
from hhat.ops.linalg import per_axis, squared
from hhat.ops.posterior import posterior
from hhat.types import Estimate, Gaussian, Observation, State

FLOOR = 1e-12
"""Least noise variance, as a share of the received power: what single precision leaves of its own is below."""
WORTH = 0.5
"""A path that gains less than this share of its price on the coarse grid is not refined: it ends the search."""
SIGNIFICANT = 2.0
"""Standard deviations by which the residual's energy must exceed that of noise to be taken for channel."""


@dataclass(frozen=True, eq=False)
class Nomp(Method):
    """y = op(h) + n, h = sum_g alpha_g s(theta_g): Newtonized orthogonal matching pursuit on a path model.

      step: the theta of one more path from a coarse grid, where |s^H op^H r|^2 / |op s|^2 is largest, r the residual;
            all thetas and gains by Levenberg-Marquardt on |y - op(h)|^2; kept if that lowers the criterion
      BIC  = 2 |r|^2 / s2 + (real unknowns) log(2 M),   M samples of y: 2.5 log(2 M) noise variances for 5 unknowns

    model: `LinePaths`, what a path looks like. None: what fits the channel's axes (`line_paths`); `rls` where that is
      none, and info says so.
    max_paths: most paths; refine_steps: most Levenberg-Marquardt steps after each, fewer where they no longer pay.
    remainder: what the residual holds beyond noise, where it is more than chance (SIGNIFICANT), is taken for a white
      channel of that power and estimated as such; without, its variance alone is reported.
    Noise that is not given is the residual's: BIC by 2 M log |r|^2, and no remainder, which it cannot be told from; an
      item that takes all max_paths then ends with MAX_STEPS, since more may be left and its variance is too small.
    Variance: diag(J F^-1 J^H), F the Fisher information of all real unknowns, plus the remainder's. It covers noise and
    paths that were missed, in sum; not the choice of the number of paths, nor the tails of merged close paths.
    complex128 inside: normal equations square the condition, which close paths make large.
    info: paths (psi, phi, delay, gain (*batch, max_paths); gain 0: none), num_paths, residual_ratio (its energy over
    that of noise alone), remainder_var (power per entry that the remainder is taken to have).
    Source: Mamandipoor, Ramasamy & Madhow, IEEE TSP 64(19), 2016; departs in the joint second-order refinement (theirs
    takes one path at a time), BIC for the stop, and the gains' elimination (Golub & Pereyra 1973).
    """

    variance: ClassVar[str] = "posterior"
    model: LinePaths | None = None
    max_paths: int = 8
    refine_steps: int = 8
    remainder: bool = True
    max_steps: int | None = None
    tol: float | None = 0.0

    def __post_init__(self):
        for name in ("max_paths", "refine_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"nomp: {name}: expected at least 1, got {getattr(self, name)}")

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        model = self._model(obs)
        if model is None:
            axes = ", ".join(obs.axes or ("no names",))
            return rls().resolve(obs)[0], {"method": "rls", "why": f"no path model for axes {axes}: give nomp a model"}
        steps = self.max_paths + 1 if self.max_steps is None else self.max_steps
        return replace(self, model=model, max_steps=steps), {}

    def _model(self, obs: Observation) -> LinePaths | None:
        model = line_paths(tuple(obs.op.in_shape), obs.axes) if self.model is None else self.model
        if model is not None and model.in_shape != tuple(obs.op.in_shape):
            raise ValueError(
                f"nomp: model: it makes channels {model.in_shape}, the observation's are {obs.op.in_shape}"
            )
        return model

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task, batch = self.task(obs), obs.batch_shape
        paths = (*batch, self.max_paths)
        real = task.weight.new_zeros(paths)
        return {
            "geometry": real[..., None].expand(*paths, 3).clone(),
            "gain": real.to(torch.complex128),
            "rss": squared(task.y).sum(-1),
            "count": torch.zeros(batch, dtype=torch.int64, device=real.device),
            "change": obs.y.real.new_ones(batch),
        }

    def step(self, state: State, obs: Observation) -> State:
        task, count, rss = self.task(obs), state["count"], state["rss"]
        live = (state["change"] > 0) & (count < self.max_paths)
        num = min(int(count.max()) + 1, self.max_paths)
        now = Fit(state["geometry"][..., :num, :], state["gain"][..., :num], rss)
        spot, energy = coarse(task, task.residual(now))
        price = self._price(task)
        rss = torch.where(torch.isfinite(energy), rss, torch.nan)  # an operator with NaN: for `solve` to mark
        # what one more path would leave at its coarse place; with known noise the criterion is linear in it
        live = live & (self._gain(obs, rss, rss - energy, task) > WORTH * price)
        here = torch.arange(num, device=count.device) == count[..., None]
        start = torch.where((here & live[..., None])[..., None], spot[..., None, :], now.geometry)
        mask = torch.arange(num, device=count.device) < (count + live)[..., None]
        found = now
        if bool(live.any()):
            found = fitted(task, start, mask, self.refine_steps, live, obs.noise_var is not None)
        kept = live & (self._gain(obs, rss, found.rss, task) > price)
        more = self.max_paths - num
        geometry = torch.where(kept[..., None, None], found.geometry, now.geometry)
        gain = torch.where(kept[..., None], found.gain, now.gain)
        count = count + kept
        going = kept & (count < self.max_paths)
        if obs.noise_var is None:
            # a search that was cut off leaves what nothing accounts for: it has not converged
            going = going | ((count == self.max_paths) & (state["change"] > 0))
        return {
            "geometry": torch.cat([geometry, state["geometry"][..., num:, :]], -2) if more else geometry,
            "gain": torch.cat([gain, state["gain"][..., num:]], -1) if more else gain,
            "rss": torch.where(kept, found.rss, rss),
            "count": count,
            "change": going.to(state["change"].dtype),
        }

    def read(self, state: State, obs: Observation) -> Estimate:
        paths = self.paths_of(state, obs)
        belief, extra = paths.belief, paths.info["remainder_var"]
        mean, var = belief.mean, belief.var
        if obs.noise_var is not None and bool((extra > 0).any()):
            op: LinearOp = obs.op.like(mean)  # type: ignore[attr-defined]
            noise = self._noise(obs)
            prior = Gaussian(mean.new_zeros(()), extra[(..., *(None,) * len(op.in_shape))])
            rest = posterior(op, obs.y.to(mean.dtype) - op.apply(mean), prior, noise.to(var.dtype)).belief
            if self.remainder:
                mean, var = mean + rest.mean, var + rest.var
            else:
                var = var + prior.var
        real = obs.y.real.dtype
        return Estimate(Gaussian(mean.to(obs.y.dtype), var.to(real)), paths.info)

    def paths_of(self, state: State, obs: Observation) -> Estimate:
        """The paths alone, complex128, without a remainder; what they leave being in info alone."""
        task, num = self.task(obs), max(1, int(state["count"].max()))
        model, shape = task.model, tuple(obs.op.in_shape)
        geometry, gain = state["geometry"][..., :num, :], state["gain"][..., :num]
        mask = torch.arange(num, device=gain.device) < state["count"][..., None]
        normal, entries = normal_at(task, geometry, mask, gain)
        var = normal.variance(entries).reshape(*obs.batch_shape, *shape)
        mean = (gain[..., None, :] @ entries[..., -1, :, :])[..., 0, :].reshape(*obs.batch_shape, *shape)
        samples = task.y.shape[-1]
        spare = (samples - state["count"] * model.num_real / 2).clamp_min(1.0)
        ratio = state["rss"] / spare
        noise_var, source = obs.noise_var, "given"
        if noise_var is None:
            event = (..., *(None,) * len(obs.op.out_shape))
            noise_var, source = ratio[event].to(obs.y.real.dtype), "estimated"
            var = var * ratio[(..., *(None,) * len(shape))]
            ratio = torch.ones_like(ratio)
        reach = task.op.squares.apply(mean.real.new_ones(shape)).flatten(-len(obs.op.out_shape)) * task.weight.square()
        significant = ratio > 1 + SIGNIFICANT / math.sqrt(samples)
        extra = torch.where(significant, (state["rss"] - spare).clamp_min(0) / reach.sum(-1).clamp_min(1e-300), 0.0)
        told = model.told(state["geometry"])
        info = {
            "paths": {
                "psi": told[..., 0],
                "phi": told[..., 1],
                "delay": told[..., 2],
                "gain": state["gain"],
            },
            "num_paths": state["count"],
            "residual_ratio": ratio,
            "noise_var": noise_var,
            "noise_var_source": source,
            "remainder_var": extra,
        }
        return Estimate(Gaussian(mean, var), info)

    def task(self, obs: Observation) -> Whitened:
        """The observation in complex128, its noise white and of unit variance where it is known."""
        model = self._model(obs)
        assert model is not None  # resolve() has seen to it
        shape = tuple(obs.op.out_shape)
        y = obs.y.to(torch.complex128).expand(*obs.batch_shape, *shape).flatten(len(obs.batch_shape))
        weight = self._noise(obs).expand(*obs.batch_shape, *shape).flatten(len(obs.batch_shape)).rsqrt()
        if obs.noise_var is None:
            weight = torch.ones_like(weight)
        return Whitened(model, obs.op.like(y), y * weight, weight)  # type: ignore[attr-defined]

    def _noise(self, obs: Observation) -> Tensor:
        """Noise variance, float64, at least FLOOR of the received power (1 where nothing was received)."""
        axes = tuple(range(-len(obs.op.out_shape), 0))
        power = squared(obs.y.to(torch.complex128)).mean(axes, keepdim=True)
        least = torch.where(power > 0, FLOOR * power, 1.0)
        if obs.noise_var is None:
            return least
        return torch.maximum(per_axis(obs.noise_var.double(), len(axes), tuple(obs.op.out_shape)), least)

    def _price(self, task: Whitened) -> float:
        """What a path must lower |residual|^2 by, in noise variances."""
        return task.model.num_real / 2 * math.log(2 * task.y.shape[-1])

    def _gain(self, obs: Observation, before: Tensor, after: Tensor, task: Whitened) -> Tensor:
        """By how much half the criterion falls, the price of the path apart."""
        if obs.noise_var is not None:
            return before - after
        least = FLOOR * squared(task.y).sum(-1).clamp_min(1e-300)
        return task.y.shape[-1] * (torch.maximum(before, least) / torch.maximum(after, least)).log()

    @classmethod
    def example(cls, gen: torch.Generator) -> "Nomp":
        return cls(max_paths=2)
