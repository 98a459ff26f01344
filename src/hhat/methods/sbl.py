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
    sample_mean,
    start_noise,
)
from hhat.ops.linalg import squared
from hhat.ops.posterior import posterior
from hhat.priors.base import Prior, per_item
from hhat.priors.m_step import SMALLEST, Em, Moments, MStep, PatternCoupling, Sight
from hhat.types import Estimate, Gaussian, Observation, State

STEPS_TIED = 100
"""E-steps where variances are tied: many observations share them, and nothing is overfitted."""


@dataclass(frozen=True, eq=False)
class Sbl(Method):
    """x_n ~ CN(0, v_n), y = A x + n; E-step and M-step in turn; the estimate is the posterior mean.

      E: (mu, Sigma) = exact posterior under v        M: v <- m_step(|mu|^2, diag Sigma), means over tied axes

    m_step: `Em`, `MacKay`, `PatternCoupling` (PC-SBL), `mrf()` (MRF-SBL) or any `MStep`; with a learned one the steps
    are the layers of an unfolded network (`sbl-cnn`, `sbl-gnn`). None: `Em` where variances
    are tied, where it is the maximum of the evidence; else `PatternCoupling`, which one observation overfits least.
    tied_axes: names of channel axes (`Observation.axes`) or negative numbers: coefficients that share one variance
    ("rx_ant": all antennas see the same delays). prior: only its basis is used.
    max_steps None: 100 with tied variances; without, the M-step's own number, where early stopping wins.
    Noise that is not given is learned too (it overfits with untied variances: prefer a known level).
    info: prior_var (v), log_evidence. Source: Wipf & Rao, IEEE TSP 2004; tied (multiple-vector) form: IEEE TSP 2007.
    """

    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    tied_axes: tuple[str | int, ...] = ()
    m_step: MStep | None = None
    max_steps: int | None = None
    tol: float | None = None

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        steps = (STEPS_TIED if self.tied_axes else self._rule().num_steps) if self.max_steps is None else self.max_steps
        return replace(self, max_steps=steps), {}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        axes = self._tied(obs, task)
        per_gain = gain(task.op, obs.y)
        start = received_power(obs, task) / per_gain
        unit = sample_mean(squared(obs.y), obs, task) / per_gain
        unit = torch.where(unit == 0, 1.0, unit)
        shape = tuple(1 if a in axes else n for a, n in zip(task.event(), task.op.in_shape, strict=True))
        lead = start.shape[: start.ndim - task.num_event]
        v = start.expand(*lead, *shape).clone()
        rule = self._rule()
        memory = {
            f"m_step.{name}": per_item(f"m_step: {name}", value, rule.tail(name), obs.batch_shape, shape, obs.y)
            for name, value in rule.memory().items()
        }
        return {"v": v, "unit": unit, "change": v.new_ones(obs.batch_shape), **memory, **start_noise(obs)}

    def step(self, state: State, obs: Observation) -> State:
        return self.maximise(state, obs, self.expect(state, obs))

    def expect(self, state: State, obs: Observation) -> Gaussian:
        """The E-step alone: the posterior of the coefficients. Training looks at it between the steps."""
        return posterior(problem(obs, self.prior).op, obs.y, self.factor(state, obs), noise_of(state, obs)).belief

    def maximise(self, state: State, obs: Observation, x: Gaussian) -> State:
        """The M-step alone, from the posterior that `expect` gave for this state."""
        task = problem(obs, self.prior)
        v, noise = state["v"], noise_of(state, obs)
        axes = self._tied(obs, task)
        energy, var = squared(x.mean), x.var.expand(x.mean.shape)
        if axes:
            energy, var = energy.mean(axes, keepdim=True), var.mean(axes, keepdim=True)
        memory = {name[7:]: value for name, value in state.items() if name.startswith("m_step.")}
        sight = Sight(task.op, obs.y, noise, gain(task.op, obs.y))
        fresh, memory = self._rule()(Moments(energy, var, v, state["unit"], task.num_event, sight), memory)
        fresh = torch.maximum(fresh, SMALLEST * state["unit"])
        new: State = {**state, "v": fresh, "change": relative_change(fresh, v, task.num_event)}
        new |= {f"m_step.{name}": value for name, value in memory.items()}
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

    def _rule(self) -> MStep:
        if self.m_step is not None:
            return self.m_step
        return Em() if self.tied_axes else PatternCoupling()

    def _tied(self, obs: Observation, task: Problem) -> tuple[int, ...]:
        return axis_numbers("tied_axes", self.tied_axes, obs.axes, task.num_event)
