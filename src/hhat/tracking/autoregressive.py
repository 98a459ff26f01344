"""`autoregressive-tracking`: any prior, and what earlier slots told of this one."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from hhat.methods.base import (
    Method,
    noise_info,
    pack,
    problem,
    relative_change,
    start_noise,
    start_prior,
    unpack,
)
from hhat.methods.oamp import Oamp
from hhat.methods.readout import denoiser_factor
from hhat.priors.base import Prior
from hhat.priors.gauss import Gauss
from hhat.priors.informed import Informed
from hhat.tracking.sparse import DAMPING, check_inner, through_slot
from hhat.types import Estimate, Gaussian, Message, Observation, State


@dataclass(frozen=True, eq=False)
class AutoregressiveTracking(Method):
    """y_t = A_t B x_t + n_t, x_t = c x_{t-1} + sqrt(1 - c^2) w_t, the law of every x_t being the prior, of variance p.

    What earlier slots say of x_t is carried as one Gaussian likelihood per coefficient, without the prior in it:

      slot     `inner` under prior times L(x_t), L = CN(x_t; m, v): estimate, and r = x_t + CN(0, v_r) of this y alone
      update   L <- L times CN(x_t; r, v_r)
      predict  x_t = c x_{t+1} + CN(0, (1 - c^2) p), time reversed:  m <- m/c,  v <- (v + (1 - c^2) p)/c^2

    (about the prior's mean where it is not 0). A posterior carried on would count the prior once more in every slot.
    With a Gaussian prior and a diagonal operator this is the Kalman filter. Else it is approximate in three ways:
    the reversed step is taken as Gaussian; errors of coefficients as independent, which with the same pilots in every
    slot makes the stated variance too small; and c x + sqrt(1 - c^2) w as of the prior's law, which holds for Gaussian
    laws alone.

    prior:       of any kind; None: white, at the received power. A learnable one takes an EM step per slot.
    correlation: c, of neighbouring slots, 0..1, known
    inner:       a method with a `prior` and info "pseudo_observation" and "coefficients"; None: Oamp(damping=0.4)
    inner_steps: of `inner` per slot
    info: coefficients, pseudo_observation (r), prior.
    Raises ValueError for a correlation outside 0..1, an inner method without a prior, and inner_steps < 1.
    Source: none for the exchange with a learned prior; Kalman 1960 is its Gaussian case, in information form.
    """

    uses_prior: ClassVar[bool] = True
    tracks: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    correlation: float | int = 0.95
    inner: Method | None = None
    inner_steps: int = 20

    def __post_init__(self):
        where = "autoregressive-tracking"
        if not 0 <= self.correlation <= 1:
            raise ValueError(f"{where}: correlation: expected 0..1, got {self.correlation}")
        check_inner(where, self.inner, self.inner_steps)

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        one = obs.y.real.new_ones(obs.batch_shape)
        x = obs.y.new_zeros(*obs.batch_shape, *task.op.in_shape)
        h = obs.y.new_zeros(*obs.batch_shape, *obs.op.in_shape)
        return {
            **{"x": x, "v": x.real, "precision": x.real, "shift": x, "r": x, "r_var": x.real, "h": h, "h_var": h.real},
            **{"change": one, "count": torch.zeros_like(one)},
            **pack(start_prior(self.prior, obs, task)),
            **start_noise(obs, always=True),
        }

    def step(self, state: State, obs: Observation) -> State:
        task = problem(obs, self.prior)
        prior = unpack(self.prior, state, task)
        told = self._predicted(Message(state["precision"], state["shift"]), prior)
        informed = Informed(prior, told.precision, told.shift, ndim=task.num_event)
        inner = self.inner or Oamp(damping=DAMPING)
        est, noise = through_slot(inner, informed, state["noise_var"], obs, self.inner_steps)
        x, fresh = est.info["coefficients"], est.info["pseudo_observation"]
        known = fresh.message() + told
        if prior.learnable:
            prior = prior.learn(known.gaussian())
        shape = x.mean.shape
        return {
            **state,
            **pack(prior),
            "precision": known.precision.expand(shape),
            "shift": known.shift,
            "x": x.mean,
            "v": x.var.expand(shape),
            "r": fresh.mean,
            "r_var": fresh.var.expand(shape),
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
        prior = unpack(self.prior, state, problem(obs, self.prior))
        info = {"coefficients": x, "pseudo_observation": r, "prior": prior, **noise_info(state, obs)}
        return Estimate(Gaussian(state["h"], state["h_var"]), info)

    def _predicted(self, known: Message, prior: Prior) -> Message:
        """The likelihood of this slot's x from that of the last one's; of no precision it keeps none."""
        c, now = float(self.correlation), prior.moments()
        spread = 1 + (1 - c**2) * now.var * known.precision
        return Message(
            c**2 * known.precision / spread, c * (known.shift - (1 - c) * now.mean * known.precision) / spread
        )

    @classmethod
    def example(cls, gen: torch.Generator) -> "AutoregressiveTracking":
        return cls(Gauss(1.3))
