"""One of several experts per channel, picked by the evidence of its Gaussian moments, and `oamp` with it."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hhat.methods.base import Method, noise_of
from hhat.methods.covariance_mixture import CovarianceMixture
from hhat.methods.oamp import Oamp
from hhat.methods.rows import Rows
from hhat.methods.solve import solve
from hhat.ops.linalg import per_axis
from hhat.priors.base import Prior
from hhat.priors.experts import Experts
from hhat.priors.gauss import Gauss
from hhat.types import Estimate, Gaussian, Observation, State


@dataclass(frozen=True, eq=False)
class Chosen(Method):
    """k = argmax q_k, q_k ~ w_k p_k(y) under the mean and variance of expert k (`covariance-mixture`); then `method`
    with expert k alone, for the items that took it.

    prior:  experts of known priors
    twins:  the same by their Gaussian moments; None: made of `prior`
    info: names, q (*batch, K).
    """

    uses_prior: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    method: Any = field(default_factory=Oamp)
    max_steps: int = 1
    tol: float | None = 0.0
    twins: Experts | None = None

    def __post_init__(self):
        if not isinstance(self.prior, Experts):
            raise ValueError(f"chosen: prior: expected experts, got {type(self.prior).__name__}")
        if self.twins is None:
            object.__setattr__(self, "twins", moments_of(self.prior))

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        if obs.noise_var is None:
            raise ValueError("chosen: expected a known noise_var, got None")
        shape, count = (*obs.batch_shape, *obs.op.in_shape), len(self._experts.experts)
        share = obs.y.real.new_full((*obs.batch_shape, count), 1 / count)
        state: State = {"mean": obs.y.new_zeros(shape), "var": obs.y.real.new_zeros(shape), "share": share}
        return {**state, "change": share.new_ones(obs.batch_shape)}

    def step(self, state: State, obs: Observation) -> State:
        share = CovarianceMixture(self.twins).judged({}, obs).share
        best = share.argmax(-1)
        mean, var, lift = state["mean"], state["var"], (..., *(None,) * len(obs.op.in_shape))
        for k in best.unique().tolist():
            wanted = best == k
            rows = Rows.all(obs.op, obs.batch_shape).of(wanted)  # type: ignore[arg-type]
            found = solve(replace(self.method, prior=self._experts.experts[k]), self._part(rows, obs)).belief
            where = wanted[lift]
            mean = torch.where(where, rows.put(mean, found.mean), mean)
            var = torch.where(where, rows.put(var, found.var.expand(found.mean.shape)), var)
        return {"mean": mean, "var": var, "share": share, "change": torch.zeros_like(state["change"])}

    def read(self, state: State, obs: Observation) -> Estimate:
        told = {"names": self._experts.names, "q": state["share"]}
        return Estimate(Gaussian(state["mean"], state["var"]), told)

    @property
    def _experts(self) -> Experts:
        assert isinstance(self.prior, Experts)
        return self.prior

    def _part(self, rows: Rows, obs: Observation) -> Observation:
        out = tuple(obs.op.out_shape)
        noise: Tensor = per_axis(noise_of({}, obs), len(out), out)
        if noise.ndim > len(out):
            noise = rows.take(noise.expand(*obs.batch_shape, *noise.shape[noise.ndim - len(out) :]))
        return Observation(rows.take(obs.y.expand(*obs.batch_shape, *out)), obs.op, noise, obs.axes)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Chosen":
        return cls(Experts.example(gen))


def moments_of(prior: Experts) -> Experts:
    """Each expert by its mean and variance alone."""
    own = []
    for expert in prior.experts:
        now = expert.moments()
        own.append(expert if isinstance(expert, Gauss) else Gauss(now.var, now.mean, expert.basis, ndim=expert.ndim))
    return Experts(own, prior.weights, prior.names, ndim=prior.ndim)
