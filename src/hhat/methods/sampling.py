"""`diffusion-posterior`: the deterministic reverse process of a diffusion prior, led by y."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hhat.methods.base import Method, Problem, noise_info, noise_of, pack, problem, relative_change, start_prior, unpack
from hhat.methods.likelihood_steps import Dmps, LikelihoodStep, Now, Proximal, VarianceMap, shared, signal_to_noise
from hhat.methods.linear import Lmmse
from hhat.methods.solve import solve
from hhat.ops.posterior import condition
from hhat.priors.base import Prior, power
from hhat.priors.diffusion import Diffusion
from hhat.priors.gauss import Gauss
from hhat.priors.schedule import Schedule
from hhat.types import Estimate, Gaussian, Observation, State

ERROR_ROUNDS = 4
"""Rounds of the recursion for the error; it has settled to a few per cent by then"""
LEAST_SHARE = 1e-4
"""Least share of a variance that one side takes off; below, it counts as having said nothing"""
DEFAULT_EXPERT = "cdl-abcd"
LIKELIHOODS: dict[str, LikelihoodStep] = {
    "variance-map": VarianceMap(),
    "proximal": Proximal(),
    "dmps": Dmps(),
    "dmps-printed": Dmps(1.0, "ht"),
}


@dataclass(frozen=True, eq=False)
class DiffusionPosterior(Method):
    """From z = 0 and the largest noise of the schedule down, t = T..1:

      x_0, V = prior.denoise(z_t, v_t);   z_s = likelihood(y, x_0, V, z_t)

    prior: any that denoises; `diffusion` is what it is made for. None: the expert of all CDL profiles, for 64 x 16.
    likelihood: `VarianceMap()`, `Proximal()` or `Dmps()`, or one of the names in LIKELIHOODS.
    schedule: None is the prior's own.
    max_steps: None is what the likelihood step says; the times are spread evenly over the schedule.
    Nothing is drawn: the answer is near the posterior mean, no sample.

    Variance: x's error as orthogonal AMP would have it. With e the variance that the prior's side leaves and V what
    y's side starts from, repeat  e_y = diag (1/V + A^H A / s2)^-1,  r = 1/(1/e_y - 1/V),  e = var[x | r],
    V = 1/(1/e - 1/r);  e_y is reported. Exact for a Gaussian prior; for an expert right on average, as its table is.
    Noise that is not given is learned first, under the Gaussian with the prior's mean and variance.
    info: coefficients, noise_var.
    Source: Jiang et al. 2026, algorithm 1 for one expert, corrected; diffusion_experts sections 3.3 and 10.
    """

    uses_prior: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    likelihood: LikelihoodStep | str = "variance-map"
    schedule: Schedule | None = None
    max_steps: int | None = None
    tol: float | None = None

    def __post_init__(self):
        if isinstance(self.likelihood, str):
            if self.likelihood not in LIKELIHOODS:
                there = " ".join(LIKELIHOODS)
                raise ValueError(f"diffusion-posterior: likelihood: '{self.likelihood}', expected one of {there}")
            object.__setattr__(self, "likelihood", LIKELIHOODS[self.likelihood])
        if self.max_steps is None:
            object.__setattr__(self, "max_steps", self.likelihood.num_steps)  # type: ignore[union-attr]
        self._schedule(self.prior).times(self.max_steps)  # type: ignore[arg-type]

    def resolve(self, obs: Observation) -> tuple["DiffusionPosterior", dict[str, str]]:
        if self.prior is not None:
            return self, {}
        chosen = Diffusion(DEFAULT_EXPERT)
        assert chosen.basis is not None
        shape = tuple(chosen.basis.out_shape)
        if tuple(obs.op.in_shape) != shape:
            raise ValueError(
                f"diffusion-posterior: prior: expected one for channels {tuple(obs.op.in_shape)}; that of the package "
                f"is for {shape}"
            )
        return replace(self, prior=chosen), {"prior": f"diffusion {DEFAULT_EXPERT}"}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        shape = (*obs.batch_shape, *task.op.in_shape)
        state: State = {"z": obs.y.new_zeros(shape), "x": obs.y.new_zeros(shape), "count": 0}
        state["change"] = obs.y.real.new_ones(obs.batch_shape)
        if self.prior is not None and self.prior.learnable:
            state |= pack(start_prior(self.prior, obs, task))
        if obs.noise_var is None:
            now = self._prior(state, obs, task).moments()
            found = solve(Lmmse(Gauss(now.var, now.mean, basis=self.prior and self.prior.basis)), obs)
            state["noise_var"] = found.info["noise_var"]
        return state

    def step(self, state: State, obs: Observation) -> State:
        task, noise = problem(obs, self.prior), noise_of(state, obs)
        prior = self._prior(state, obs, task)
        unit = power(prior).to(obs.y.real.dtype)
        unit = unit if unit.ndim else unit.reshape((1,) * task.num_event)
        unit = unit.clamp_min(torch.finfo(unit.dtype).tiny)
        level, move = self._level(state["count"])
        x = prior.denoise(Gaussian(state["z"], level * unit))
        now = Now(task, noise, state["z"], level * unit, x, move, signal_to_noise(task, unit, noise))
        z, best = self.likelihood(now)  # type: ignore[operator]
        change = relative_change(best, state["x"], task.num_event)
        return {**state, "z": z, "x": best.expand(z.shape), "change": change, "count": state["count"] + 1}

    def read(self, state: State, obs: Observation) -> Estimate:
        task, noise = problem(obs, self.prior), noise_of(state, obs)
        var, coefficients_var = self._error(state, obs, task, noise)
        x = Gaussian(state["x"], coefficients_var)
        return Estimate(Gaussian(task.channel(state["x"]), var), {"coefficients": x, **noise_info(state, obs)})

    def _error(self, state: State, obs: Observation, task: Problem, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The variance of the channel and of the coefficients, by the recursion of the class."""
        prior = self._prior(state, obs, task)
        v = prior.moments().var.to(obs.y.real.dtype)
        for number in range(ERROR_ROUNDS):
            left = condition(task.op, v, noise, like=obs.y).var
            if number == ERROR_ROUNDS - 1:
                break
            r = _without(left, v)
            after = shared(prior.denoise(Gaussian(state["x"], r)).var, task.num_event)
            v = _without(torch.minimum(after, r), r)
        var = left if task.basis is None else condition(task.op, v, noise, task.basis, like=obs.y).var
        return var, left

    def _level(self, count: int) -> tuple[float, float]:
        """(v_t, 1 - v_s/v_t) of a step; steps beyond the last repeat it."""
        levels = self._levels
        place = min(count, len(levels) - 1)
        return levels[place], 1.0 if place == len(levels) - 1 else 1 - levels[place + 1] / levels[place]

    @property
    def _levels(self) -> list[float]:
        schedule = self._schedule(self.prior)
        return schedule.var(schedule.times(self.max_steps)).tolist()  # type: ignore[arg-type]

    def _schedule(self, prior: Prior | None) -> Schedule:
        if self.schedule is not None:
            return self.schedule
        return prior.expert.schedule if isinstance(prior, Diffusion) and prior.expert is not None else Schedule()

    def _prior(self, state: State, obs: Observation, task: Problem) -> Prior:
        """In y's precision; without a copy per item where nothing in it is the item's own."""
        if self.prior is None or self.prior.learnable:
            return unpack(self.prior, state, task)
        return self.prior.expand((), task.op.in_shape, obs.y)

    @classmethod
    def example(cls, gen: torch.Generator) -> "DiffusionPosterior":
        return cls(Gauss(1.0))


def _without(after: Tensor, before: Tensor) -> Tensor:
    """1 / (1/after - 1/before), without the difference of two large numbers, at most after / LEAST_SHARE."""
    tiny = torch.finfo(after.dtype).tiny
    share = ((before - after) / before.clamp_min(tiny)).clamp_min(LEAST_SHARE)
    return after.clamp_min(tiny) / share
