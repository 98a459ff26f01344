"""`impairment-tracking`: a channel through receive chains that distort, from a learned forward model of these."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hhat.distortion.channel import Flat, check, line_channel, start_channel, step_channel, told_back
from hhat.distortion.exchange import Exchange, PerChain
from hhat.distortion.linearised import invert
from hhat.distortion.record import DistortedPilots
from hhat.distortion.surrogate import Surrogate, load
from hhat.methods.base import Method
from hhat.types import Estimate, Gaussian, Message, State


@dataclass(frozen=True, eq=False)
class ImpairmentTracking(Method):
    """y_t = f(h_t r_t^T + n_t; w) + e_t: f a network per receive chain (`Surrogate`), h_t sparse in angle, slot by slot.

    One step is one slot, of `rounds` rounds:
      IC: the undistorted signal by `linearised.invert` from y_t and what the channel says of it, extrinsic to h
      CT: one slot of `channel` on that; belief on h; the cavity goes back to IC
    In the first round IC has the noise's law alone. The channel's state goes on from the last round.

    surrogate: or the name or file of trained weights
    channel:   any method on r = h + CN(0, d), antennas along the last axis; a tracker carries its state. None: a line
               array, `channel.line_channel`. With `AutoregressiveTracking(prior)` any prior will do, a learned one too
    exchange:  `PerChain()` or `PerSymbol()`; None: the first
    first_steps, steps: of Gauss-Newton in the first round, from the distorted signal, and in later ones
    info: signal (undistorted, noisy; *batch, pilot, rx_ant) and its signal_var, of the last round
    Raises ValueError for an observation that is no `DistortedPilots`, and for rounds or steps below 1.
    Source: Xu & Liu 2026 (MP-BDL-Frozen); the inversion is exact in place of their message passing.
    """

    tracks: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    surrogate: Surrogate | str = "impairment-surrogate"
    channel: Method | None = None
    exchange: Exchange | None = None
    rounds: int = 2
    first_steps: int = 2
    steps: int = 1

    def __post_init__(self):
        for name in ("rounds", "first_steps", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"impairment-tracking: {name}: expected at least 1, got {getattr(self, name)}")

    def init(self, obs: DistortedPilots, gen: torch.Generator) -> State:
        check(obs, "impairment-tracking")
        half = start_channel(self._channel(obs), obs, gen)
        return {**half, "signal": torch.zeros_like(obs.y), "signal_var": torch.zeros_like(obs.y.real)}

    def step(self, state: State, obs: DistortedPilots) -> State:
        check(obs, "impairment-tracking")
        flat, exchange = Flat.of(obs), PerChain() if self.exchange is None else self.exchange
        surrogate = self._surrogate(obs.num_rx_ant)
        told = exchange.start(flat.noise_var)
        belief = Message(told.precision[:, 0], told.shift[:, 0])
        signal, half = flat.y, state
        for count in range(self.rounds):
            known = exchange.down(belief, told, flat.pilots, flat.noise_var)
            fit_var = unexplained(surrogate, signal)
            steps = self.steps if count else self.first_steps
            found = invert(surrogate.mean, flat.y, fit_var, known.factors, signal, steps)
            signal, told = found.signal, exchange.up(found, known, flat.pilots, flat.noise_var)
            half = step_channel(self._channel(obs), state, told, obs)
            belief = told_back(half)
        return {
            **half,
            "signal": found.signal.reshape(obs.y.shape).to(obs.y),
            "signal_var": found.var.reshape(obs.y.shape).to(obs.y.real),
        }

    def read(self, state: State, obs: DistortedPilots) -> Estimate:
        info = {"signal": state["signal"], "signal_var": state["signal_var"]}
        return Estimate(Gaussian(state["h"], state["h_var"]), info)

    def _channel(self, obs: DistortedPilots) -> Method:
        return line_channel(obs.num_rx_ant) if self.channel is None else self.channel

    def _surrogate(self, num_rx_ant: int) -> Surrogate:
        found = load(self.surrogate) if isinstance(self.surrogate, str) else self.surrogate
        return found.for_chains(num_rx_ant)


def unexplained(surrogate: Surrogate, signal: Tensor) -> Tensor:
    """What the networks leave, per real part, (*batch, pilot, rx_ant): by the signal's amplitudes where that is known."""
    if surrogate.loudness is None:
        return surrogate.fit_var_at(signal.shape[-2]).mT.expand(signal.shape)
    return surrogate.loud_fit_var(signal)
