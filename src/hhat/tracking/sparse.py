"""`sparse-tracking`: sparse coefficients followed from slot to slot by a message-passing solver per slot."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hhat.methods.base import Method, Problem, noise_info, problem, relative_change, start_noise, start_prior
from hhat.methods.oamp import Oamp
from hhat.methods.readout import denoiser_factor
from hhat.ops.linalg import squared
from hhat.priors.base import Prior
from hhat.random import generator
from hhat.tracking.dynamics import Belief, Counts, MarkovGauss, Prediction
from hhat.types import Estimate, Gaussian, Observation, State

LEAST_POWER = 1e-4
"""Learned variances stay above this share of the mean power at the start."""
DAMPING = 0.4
"""Of the default inner method: with 0.7 partial DFTs of combs or bands, which are far from random, diverge."""
BELIEF = ("activity", "mean", "var", "power")
LEARNED = ("appear", "vanish", "forgetting")


@dataclass(frozen=True, eq=False)
class SparseTracking(Method):
    """y_t = A_t x_t + n_t, h_t = B x_t, each coefficient a `MarkovGauss` in time. One step is one slot:

      predict:  p(x_t | y_1..t-1) per coefficient: 0, or Gaussian with a mean and variance of its own, `predict`
      slot:     `inner_steps` steps of `inner` with that prior: estimate, and r = x_t + CN(0, v_r)
      update:   activity and value from r, `update`; the parameters by online EM, `learn`

    A_t, its shape along y, and the noise may change from slot to slot; the noise may differ per sample. Noise that is
    not given is estimated by the inner method, which goes on from slot to slot. The first slot's prior is stationary:
    solved on its own, a slot is `inner` with a Bernoulli-Gauss prior.
    prior:    gives the basis B and, where it is not learnable, E|x|^2 at the start; else the received power does.
    dynamics: model and learning; None: MarkovGauss().
    inner:    a method with a `prior` and info "pseudo_observation" and "coefficients"; None: Oamp(damping=0.4). Given
              noise is used at once: a prediction makes coming down from a high noise level needless.
    info: coefficients, pseudo_observation, activity (P(s = 1) after the slot), appear, vanish, forgetting as learned.
    Raises ValueError for an inner method without a prior and for inner_steps < 1.
    Source: Ziniel & Schniter, IEEE TSP 61(21), 2013, with OAMP in place of AMP, as in the receiver of Xu & Liu.
    """

    tracks: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    dynamics: MarkovGauss | None = None
    inner: Method | None = None
    inner_steps: int = 20

    def __post_init__(self):
        check_inner("sparse-tracking", self.inner, self.inner_steps)

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        one = obs.y.real.new_ones(obs.batch_shape)
        x = obs.y.new_zeros(*obs.batch_shape, *task.op.in_shape)
        h = obs.y.new_zeros(*obs.batch_shape, *obs.op.in_shape)
        return {
            **{"x": x, "v": x.real, "r": x, "r_var": x.real, "h": h, "h_var": h.real},
            **{"change": one, "count": torch.zeros_like(one)},
            **self._start(obs, task),
        }

    def step(self, state: State, obs: Observation) -> State:
        task = problem(obs, self.prior)
        fresh = state["count"] == 0
        if bool(fresh.any()):  # what was lost until now starts here, with a power it has shown
            state = {**state, **_where(fresh, self._start(obs, task), state)}
        model = replace(self._dynamics, **{name: state[name] for name in LEARNED})
        before = Belief(*(state[name] for name in BELIEF))
        predicted = model.predict(before)
        est, noise = self._slot(predicted, state["noise_var"], obs)
        r, x = est.info["pseudo_observation"], est.info["coefficients"]
        seen = model.see(predicted, r)
        after = model.update(predicted, seen, state["least_power"])
        learned, counts = model.learn(before, predicted, seen, _counts(state), task.event())
        # nothing came before the first slot: it shows no transition
        kept = _where(~fresh, {**_packed(counts), **{name: getattr(learned, name) for name in LEARNED}}, state)
        return {
            **state,
            **kept,
            **{name: getattr(after, name) for name in BELIEF},
            "x": x.mean,
            "v": x.var.expand(x.mean.shape),
            "r": r.mean,
            "r_var": r.var.expand(r.mean.shape),
            "h": est.belief.mean,
            "h_var": est.belief.var.expand(est.belief.mean.shape),
            "noise_var": noise,
            "change": relative_change(x.mean, state["x"], task.num_event),
            "count": state["count"] + 1,
        }

    def factor(self, state: State, obs: Observation) -> Gaussian:
        return denoiser_factor(Gaussian(state["r"], state["r_var"]), Gaussian(state["x"], state["v"]))

    def read(self, state: State, obs: Observation) -> Estimate:
        r, x = Gaussian(state["r"], state["r_var"]), Gaussian(state["x"], state["v"])
        learned = {name: state[name] for name in ("activity", *LEARNED)}
        info = {"coefficients": x, "pseudo_observation": r, **learned, **noise_info(state, obs)}
        return Estimate(Gaussian(state["h"], state["h_var"]), info)

    @property
    def _dynamics(self) -> MarkovGauss:
        return MarkovGauss() if self.dynamics is None else self.dynamics

    def _start(self, obs: Observation, task: Problem) -> State:
        """What is believed and counted before the first slot: the stationary law at the power that y shows."""
        model = self._dynamics
        now = start_prior(self.prior, obs, task).moments()
        shape = (*obs.batch_shape, *task.op.in_shape)
        second = (squared(now.mean) + now.var).expand(shape)
        belief = model.start(second, shape)
        own = second.mean(task.event(), keepdim=True)
        return {
            **{name: getattr(belief, name) for name in BELIEF},
            **{name: getattr(model, name) * torch.ones_like(own) for name in LEARNED},
            **_packed(model.start_counts(own)),
            "least_power": LEAST_POWER * own,
            **start_noise(obs, always=True),
        }

    def _slot(self, predicted: Prediction, noise_var: Tensor, obs: Observation) -> tuple[Estimate, Tensor]:
        """One slot under its predicted prior, and the noise variance to go on with where none is given."""
        basis = None if self.prior is None else self.prior.basis
        inner = self.inner or Oamp(damping=DAMPING)
        return through_slot(inner, predicted.mixture(basis), noise_var, obs, self.inner_steps)


def check_inner(where: str, inner: Method | None, steps: int) -> None:
    """ValueError for a method that cannot solve a slot under a predicted prior, or for no step of it."""
    if inner is not None and not (inner.uses_prior and hasattr(inner, "prior")):
        raise ValueError(f"{where}: inner: {type(inner).__name__} takes no prior; use Oamp or Gamp")
    if steps < 1:
        raise ValueError(f"{where}: inner_steps: expected at least 1, got {steps}")


def through_slot(
    inner: Method, prior: Prior, noise_var: Tensor, obs: Observation, steps: int
) -> tuple[Estimate, Tensor]:
    """`steps` steps of `inner` under a predicted prior, and the noise variance to go on with where none is given."""
    method = replace(inner, prior=prior)  # type: ignore[type-var]
    # the inner method's noise level starts at, and with given noise stays at, the lowest: the given one
    held = {} if obs.noise_var is None else {"noise_var": torch.zeros_like(noise_var)}
    now = {**method.init(obs, generator("sparse-tracking")), "noise_var": noise_var}
    for _ in range(steps):
        now = method.step({**now, **held}, obs)
    return method.read(now, obs), noise_var if held else now["noise_var"]


def _where(mask: Tensor, new: State, old: State) -> State:
    """Entries of `new` where the batch mask holds, those of `old` elsewhere."""
    return {k: torch.where(mask.reshape(*mask.shape, *(1,) * (v.ndim - mask.ndim)), v, old[k]) for k, v in new.items()}


def _packed(counts: Counts) -> State:
    return {f"counts.{name}": value for name, value in counts._asdict().items()}


def _counts(state: State) -> Counts:
    return Counts(*(state[f"counts.{name}"] for name in Counts._fields))
