"""`sbl`: sparse Bayesian learning, one variance per coefficient or per group of coefficients."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from hhat.methods.base import (
    Method,
    Problem,
    axis_numbers,
    gain,
    learned_noise,
    noise_info,
    noise_of,
    problem,
    received_power,
    relative_change,
    start_noise,
)
from hhat.ops.linalg import squared
from hhat.ops.posterior import posterior
from hhat.priors.base import Prior
from hhat.types import Estimate, Gaussian, Observation, State

SMALLEST = 1e-8
"""Variances are kept above this share of the start: below it a coefficient is off and C only loses precision."""
STEPS_TIED, STEPS_UNTIED = 100, 15


@dataclass(frozen=True, eq=False)
class Sbl(Method):
    """x_n ~ CN(0, v_n), y = A x + n; v maximises the evidence of y by EM; the estimate is the posterior mean.

      E: (mu, Sigma) = exact posterior under v        M: v <- mean over tied axes of |mu|^2 + diag Sigma

    tied_axes: names of channel axes (`Observation.axes`) or negative numbers: coefficients that share one variance
    ("rx_ant": all antennas see the same delays). prior: only its basis is used.
    max_steps None: 100 with tied variances; 15 without, where one observation overfits and early stopping wins.
    Noise that is not given is learned too (it overfits with untied variances: prefer a known level).
    info: prior_var (v), log_evidence. Source: Wipf & Rao, IEEE TSP 2004; tied (multiple-vector) form: IEEE TSP 2007.
    """

    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    tied_axes: tuple[str | int, ...] = ()
    max_steps: int | None = None
    tol: float | None = None

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        steps = (STEPS_TIED if self.tied_axes else STEPS_UNTIED) if self.max_steps is None else self.max_steps
        return replace(self, max_steps=steps), {}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        axes = self._tied(obs, task)
        start = received_power(obs, task) / gain(task.op, obs.y)
        shape = [1 if a in axes else n for a, n in zip(task.event(), task.op.in_shape, strict=True)]
        lead = start.shape[: start.ndim - task.num_event]
        v = start.expand(*lead, *shape).clone()
        one = v.new_ones(obs.batch_shape)
        return {"v": v, "floor": SMALLEST * start, "change": one, **start_noise(obs)}

    def step(self, state: State, obs: Observation) -> State:
        task = problem(obs, self.prior)
        v, noise = state["v"], noise_of(state, obs)
        x = posterior(task.op, obs.y, Gaussian(obs.y.new_zeros(()), v), noise).belief
        second = squared(x.mean) + x.var
        axes = self._tied(obs, task)
        fresh = torch.maximum(second.mean(axes, keepdim=True) if axes else second, state["floor"])
        new: State = {**state, "v": fresh, "change": relative_change(fresh, v, task.num_event)}
        if obs.noise_var is None:
            new["noise_var"] = learned_noise(task, x, v, noise)
        return new

    def factor(self, state: State, obs: Observation) -> Gaussian:
        return Gaussian(obs.y.new_zeros(()), state["v"])

    def read(self, state: State, obs: Observation) -> Estimate:
        task = problem(obs, self.prior)
        found = posterior(task.op, obs.y, self.factor(state, obs), noise_of(state, obs), task.basis)
        info = {"prior_var": state["v"], "log_evidence": found.log_evidence, **noise_info(state, obs)}
        mean = found.belief.mean.expand(*obs.batch_shape, *obs.op.in_shape)
        return Estimate(Gaussian(mean, found.belief.var), info)

    def _tied(self, obs: Observation, task: Problem) -> tuple[int, ...]:
        return axis_numbers("tied_axes", self.tied_axes, obs.axes, task.num_event)
