"""`impairment-tracking`: a channel through receive chains that distort, from a learned forward model of these."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.distortion.channel import DistortedMethod, Flat, start_channel, step_channel, told_back
from hhat.distortion.exchange import Exchange, PerChain, without
from hhat.distortion.linearised import invert
from hhat.distortion.record import DistortedPilots
from hhat.distortion.surrogate import POOLED, Surrogate, fresh, load
from hhat.distortion.weight_tracking import WeightTracking, of_items
from hhat.methods.base import Method
from hhat.nets import residual_recurrent as unit
from hhat.types import Estimate, Gaussian, Message, State

WEIGHTS = ("weights", "weights_var")


@dataclass(frozen=True, eq=False)
class ImpairmentTracking(DistortedMethod):
    """y_t = f(h_t r_t^T + n_t; w) + e_t: f a network per receive chain (`Surrogate`), h_t sparse in angle.

    One step is one slot, of `rounds` rounds:
      IC: the undistorted signal by `linearised.invert` from y_t and what the channel says of it, extrinsic to h
      CT: one slot of `channel` on that; belief on h; the cavity goes back to IC
    In the first round IC has the noise's law alone. The channel's state goes on from the last round.

    surrogate: or the name or file of trained weights
    channel:   any method on r = h + CN(0, d), antennas along the last axis; a tracker carries its state. None: a line
               array, `channel.line_channel`. With `AutoregressiveTracking(prior)` any prior will do, a learned one too
    exchange:  `PerChain()` or `PerSymbol()`; None: the first
    first_steps, steps: of Gauss-Newton in the first round, from the distorted signal, and in later ones
    learning:  None: the networks stay as they are (MP-BDL-Frozen); else they follow the receiver, each link's own
    drift_var: added to what the networks leave, per real part: 4e-3 for frozen ones whose receiver drifts
    info: signal (undistorted, noisy; *batch, pilot, rx_ant) and its signal_var, of the last round
    Raises ValueError for an observation that is no `DistortedPilots`, and for rounds or steps below 1.
    Source: Xu & Liu 2026 (MP-BDL-Frozen); the inversion is exact in place of their message passing.
    """

    surrogate: Surrogate | str = "impairment-surrogate"
    channel: Method | None = None
    exchange: Exchange | None = None
    rounds: int = 2
    first_steps: int = 2
    steps: int = 1
    learning: WeightTracking | None = None
    drift_var: float = 0.0

    def __post_init__(self):
        for name in ("rounds", "first_steps", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"impairment-tracking: {name}: expected at least 1, got {getattr(self, name)}")

    def init(self, obs: DistortedPilots, gen: torch.Generator) -> State:
        half = start_channel(self.channel_of(obs), obs, gen)
        own: State = {"signal": torch.zeros_like(obs.y), "signal_var": torch.zeros_like(obs.y.real)}
        if self.learning is not None:
            start = self.learning.start(self._surrogate(obs.num_rx_ant), obs.batch_shape)
            own |= dict(zip(WEIGHTS, start, strict=True))
        return {**half, **own}

    def step(self, state: State, obs: DistortedPilots) -> State:
        flat, exchange = Flat.of(obs), PerChain() if self.exchange is None else self.exchange
        surrogate = self._surrogate(obs.num_rx_ant)
        mean, var = (
            state[name].reshape(len(flat.y), *state[name].shape[-2:]) if name in state else None for name in WEIGHTS
        )
        weights = surrogate.mean if mean is None else of_items(mean, surrogate.mean)
        told = exchange.start(flat.noise_var)
        belief = Message(told.precision[:, 0], told.shift[:, 0])
        signal, half = flat.y, state
        for count in range(self.rounds):
            known = exchange.down(belief, told, flat.pilots, flat.noise_var)
            fit_var = unexplained(surrogate, signal) + self.drift_var
            steps = self.steps if count else self.first_steps
            found = invert(weights, flat.y, fit_var, known.factors, signal, steps)
            signal, told = found.signal, exchange.up(found, known, flat.pilots, flat.noise_var)
            half = step_channel(self.channel_of(obs), state, told, obs)
            belief = told_back(half)
        learned: State = {}
        if self.learning is not None and mean is not None and var is not None:
            cavity = without(belief, Message(told.precision.sum(-2), told.shift.sum(-2)))
            after = self.learning.step(
                mean, var, surrogate.mean, flat.y, cavity, flat.pilots, flat.noise_var, fit_var.expand(flat.y.shape)
            )
            learned = {name: new.reshape(state[name].shape) for name, new in zip(WEIGHTS, after, strict=True)}
        return {
            **half,
            **learned,
            "signal": found.signal.reshape(obs.y.shape).to(obs.y),
            "signal_var": found.var.reshape(obs.y.shape).to(obs.y.real),
        }

    def read(self, state: State, obs: DistortedPilots) -> Estimate:
        info = {"signal": state["signal"], "signal_var": state["signal_var"]}
        return Estimate(Gaussian(state["h"], state["h_var"]), info)

    @classmethod
    def example(cls, gen: torch.Generator) -> "ImpairmentTracking":
        """Networks of random weights, pooled: for any number of chains."""
        mask = unit.present(POOLED, (0,), (POOLED - 1,), 4)
        return cls(fresh(unit.start(mask, gen)))

    def _surrogate(self, num_rx_ant: int) -> Surrogate:
        found = load(self.surrogate) if isinstance(self.surrogate, str) else self.surrogate
        return found.for_chains(num_rx_ant)


def unexplained(surrogate: Surrogate, signal: Tensor) -> Tensor:
    """What the networks leave, per real part, (*batch, pilot, rx_ant): by the amplitudes where that is known."""
    if surrogate.loudness is None:
        return surrogate.fit_var_at(signal.shape[-2]).mT.expand(signal.shape)
    return surrogate.loud_fit_var(signal)
