"""`impairment-tracking`: a channel through receive chains that distort, from a learned forward model of these."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hhat.distortion.channel import line_channel, observed
from hhat.distortion.exchange import LEAST_NOISE, Exchange, PerChain, Known
from hhat.distortion.linearised import Inverted, invert
from hhat.distortion.record import DistortedPilots
from hhat.distortion.surrogate import Surrogate, load
from hhat.methods.base import Method
from hhat.types import Estimate, Gaussian, Message, State

CHANNEL = "channel."
"""Names in the state that belong to the channel's tracker begin so"""


class Flat(NamedTuple):
    """Distorted pilots with one batch axis, in double precision: divisions of messages and Cholesky factors need it.

    y, noise_var (batch, pilot, rx_ant); pilots (batch, pilot, 1)
    """

    y: Tensor
    pilots: Tensor
    noise_var: Tensor

    @classmethod
    def of(cls, obs: DistortedPilots) -> "Flat":
        y = obs.y.to(torch.complex128)
        noise = obs.noise_var.to(torch.float64).expand(y.shape).clamp_min(LEAST_NOISE)
        pilots = obs.pilots.to(y).expand(y.shape[:-1])
        size = y.shape[-2:]
        return cls(y.reshape(-1, *size), pilots.reshape(-1, size[0], 1), noise.reshape(-1, *size))


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
    info: signal (undistorted, noisy; *batch, pilot, rx_ant) and its signal_var, of the last round; channel: what the
          channel's method reports
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
        _check(obs)
        flat = Flat.of(obs)
        seen = observed(Message(1 / flat.noise_var, flat.y / flat.noise_var), obs.y)
        channel = self._channel(obs)
        h = torch.zeros_like(seen.y)
        return {
            **{CHANNEL + name: value for name, value in channel.init(seen, gen).items()},
            **{"h": h, "h_var": h.real, "signal": torch.zeros_like(obs.y), "signal_var": torch.zeros_like(obs.y.real)},
            "change": obs.y.real.new_ones(obs.batch_shape),
        }

    def step(self, state: State, obs: DistortedPilots) -> State:
        _check(obs)
        flat, channel, exchange = Flat.of(obs), self._channel(obs), self._exchange
        surrogate = self._surrogate(obs.num_rx_ant).to(torch.float64)
        before = {name.removeprefix(CHANNEL): v for name, v in state.items() if name.startswith(CHANNEL)}
        told = exchange.start(flat.noise_var)
        belief = Message(told.precision[:, 0], told.shift[:, 0])
        signal = flat.y
        for count in range(self.rounds):
            known = exchange.down(belief, told, flat.pilots, flat.noise_var)
            steps = self.steps if count else self.first_steps
            fit_var = unexplained(surrogate, signal)
            found = invert(surrogate.mean, flat.y, fit_var, known.factors, signal, steps)
            signal, told = found.signal, exchange.up(found, known, flat.pilots, flat.noise_var)
            seen = observed(told, obs.y)
            after = channel.step(before, seen)
            est = channel.read(after, seen)
            mean = est.belief.mean
            var = est.belief.var.expand(mean.shape)
            wide = Gaussian(mean.to(torch.complex128), var.double().clamp_min(LEAST_NOISE))
            belief = Message(*(part.reshape(-1, obs.num_rx_ant) for part in _pair(wide.message())))
        return {
            **{CHANNEL + name: value for name, value in after.items()},
            **{"h": mean, "h_var": var},
            "signal": found.signal.reshape(obs.y.shape).to(obs.y),
            "signal_var": found.var.reshape(obs.y.shape).to(obs.y.real),
            "change": state["change"],
        }

    def read(self, state: State, obs: DistortedPilots) -> Estimate:
        info = {"signal": state["signal"], "signal_var": state["signal_var"]}
        return Estimate(Gaussian(state["h"], state["h_var"]), info)

    @property
    def _exchange(self) -> Exchange:
        return PerChain() if self.exchange is None else self.exchange

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


def _check(obs: Any) -> None:
    if not isinstance(obs, DistortedPilots):
        raise ValueError(f"impairment-tracking: expected DistortedPilots, got {type(obs).__name__}")


def _pair(message: Message) -> tuple[Tensor, Tensor]:
    return message.precision, message.shift
