"""`gamp`: generalized approximate message passing for y = A x + noise; EM-GM-AMP with the learnable mixture."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from hhat.methods.base import (
    Method,
    annealed_noise,
    noise_info,
    noise_of,
    pack,
    problem,
    relative_change,
    settled_change,
    start_noise,
    start_prior,
    unpack,
)
from hhat.methods.readout import channel_belief, denoiser_factor
from hhat.ops.linalg import squared
from hhat.priors.base import Prior
from hhat.types import Estimate, Gaussian, Observation, State


@dataclass(frozen=True, eq=False)
class Gamp(Method):
    """Sum-product GAMP with per-entry variances, Gaussian noise, any prior.

      v_p = |A|^2 v_x,          p = A x - v_p s
      s   = (y - p)/(v_p + s2), v_s = 1/(v_p + s2)
      v_r = 1/(|A|^2^T v_s),    r = x + v_r A^H s
      (x, v_x) = prior.denoise(r, v_r);  prior <- prior.learn(r, v_r) where it is learnable

    damping: share of the new s and x that is taken. Converges for i.i.d. A; for ill-conditioned A use `oamp`.
    Noise that is not given follows EM: s2 <- mean |y - A x|^2 + v_p.
    info: coefficients, the last pseudo-observation (r, v_r), learned parameters.
    Source: Rangan, ISIT 2011, algorithm 1; EM-GM-AMP: Vila & Schniter, IEEE TSP 2013.
    """

    uses_prior: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    damping: float = 0.7
    learn_after: int = 3
    max_steps: int = 300
    tol: float | None = 1e-6

    def __post_init__(self):
        if not 0 < self.damping <= 1:
            raise ValueError(f"gamp: damping: expected 0 < damping <= 1, got {self.damping}")

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        prior = start_prior(self.prior, obs, task)
        now = prior.moments()
        shape = (*obs.batch_shape, *task.op.in_shape)
        x, v = now.mean.expand(shape).clone(), now.var.expand(shape).clone()
        s = obs.y.new_zeros(*obs.batch_shape, *task.op.out_shape)
        one = obs.y.real.new_ones(obs.batch_shape)
        r_var = torch.full_like(v, 1e30)
        state = {"x": x, "v": v, "s": s, "r": x, "r_var": r_var, "change": one, "count": torch.zeros_like(one)}
        return {**state, **pack(prior), **start_noise(obs, always=True)}

    def step(self, state: State, obs: Observation) -> State:
        task = problem(obs, self.prior)
        prior, squares = unpack(self.prior, state, task), task.op.squares
        noise, x = annealed_noise(state, obs), state["x"]
        tiny = torch.finfo(noise.dtype).tiny
        v_p = squares.apply(state["v"])
        p = task.op.apply(x) - v_p * state["s"]
        v_s = 1 / (v_p + noise).clamp_min(tiny)
        first = (state["count"] == 0)[(..., *(None,) * len(task.op.out_shape))]
        share = torch.where(first, 1.0, self.damping)
        s = share * v_s * (obs.y - p) + (1 - share) * state["s"]
        r_var = 1 / squares.adjoint(v_s).clamp_min(1e-30)  # unseen coefficients: wide, but finite
        r = Gaussian(x + r_var * task.op.adjoint(s), r_var)
        if prior.learnable and bool((state["count"] >= self.learn_after).any()):
            prior = prior.learn(r)
        found = prior.denoise(r)
        fresh = self.damping * found.mean + (1 - self.damping) * x
        v = self.damping * found.var + (1 - self.damping) * state["v"]
        new: State = {
            "x": fresh,
            "v": v,
            "s": s,
            "r": r.mean,
            "r_var": r_var,
            "change": settled_change(relative_change(fresh, x, task.num_event), noise, obs),
            "count": state["count"] + 1,
            **pack(prior),
        }
        seen = squared(obs.y - task.op.apply(fresh)) + squares.apply(v)
        return {**new, "noise_var": seen.mean(task.out_event(), keepdim=True)}

    def factor(self, state: State, obs: Observation) -> Gaussian:
        return denoiser_factor(Gaussian(state["r"], state["r_var"]), Gaussian(state["x"], state["v"]))

    def read(self, state: State, obs: Observation) -> Estimate:
        task = problem(obs, self.prior)
        r, x = Gaussian(state["r"], state["r_var"]), Gaussian(state["x"], state["v"])
        info = {"coefficients": x, "pseudo_observation": r, "prior": unpack(self.prior, state, task)}
        return Estimate(channel_belief(task, r, x, noise_of(state, obs)), {**info, **noise_info(state, obs)})
