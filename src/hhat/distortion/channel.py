"""The channel's half of joint tracking: the engine's tracker of sparse channels, on pilots that were fused per antenna."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hhat.distortion.exchange import LEAST_NOISE, fused, of_symbols
from hhat.distortion.record import DistortedPilots
from hhat.methods.base import Method
from hhat.methods.oamp import Oamp
from hhat.methods.off_grid import OffGrid
from hhat.methods.solve import solve
from hhat.ops.dense import Steering
from hhat.ops.elementary import Identity
from hhat.priors.mixture import bernoulli_gauss
from hhat.tracking.dynamics import MarkovGauss
from hhat.tracking.sparse import SparseTracking
from hhat.types import Gaussian, Message, Observation, State

DYNAMICS = MarkovGauss(appear=0.1, vanish=0.01, forgetting=0.004, idle=0.2, memory=None)
"""Angles that vary by Doppler shifts of 20 Hz and slots of 1 ms. Given, not learned: the model knows no phase that
turns, for which EM makes up by forgetting ten times as fast (2 to 3 dB at 20 dB)"""
INNER_STEPS = 5


def line_channel(num_rx_ant: int) -> Method:
    """Half-wavelength line array, angles that come, go and move: Turbo-OAMP with a Markov support and Gauss-Markov
    values, a variance per angle by EM, and one Newton step per slot on the grid of sin(angle)."""
    tracker = SparseTracking(
        bernoulli_gauss(basis=Steering.ula_grid(num_rx_ant)),
        DYNAMICS,
        Oamp(),
        INNER_STEPS,
    )
    return OffGrid(inner=tracker, every=1, start_after=1)


CHANNEL = "channel."
"""Names in the state that belong to the channel's own method begin so"""


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


def check(obs: Any, where: str) -> None:
    if not isinstance(obs, DistortedPilots):
        raise ValueError(f"{where}: expected DistortedPilots, got {type(obs).__name__}")


def observed(told: Message, obs: DistortedPilots) -> Observation:
    """What all symbols say of h as an observation r = h + CN(0, d), in the record's precision and batch axes."""
    r = fused(told)
    shape = (*obs.batch_shape, obs.num_rx_ant)
    return Observation(r.mean.to(obs.y).reshape(shape), Identity(shape[-1:]), r.var.to(obs.y.real).reshape(shape))


def start_channel(channel: Method, obs: DistortedPilots, gen: torch.Generator) -> State:
    """The state of a channel's method, which has seen nothing but the distorted pilots' size, and its estimate."""
    flat = Flat.of(obs)
    seen = observed(of_symbols(Gaussian(flat.y, torch.zeros_like(flat.noise_var)), flat.pilots, flat.noise_var), obs)
    own = {CHANNEL + name: value for name, value in channel.init(seen, gen).items()}
    h = torch.zeros_like(seen.y)
    return {**own, "h": h, "h_var": h.real, "change": obs.y.real.new_ones(obs.batch_shape)}


def step_channel(channel: Method, state: State, told: Message, obs: DistortedPilots) -> State:
    """CT: one slot of the channel's method on what it is told; the state it began with is not changed."""
    seen = observed(told, obs)
    own = {name.removeprefix(CHANNEL): value for name, value in state.items() if name.startswith(CHANNEL)}
    if channel.tracks or isinstance(channel, OffGrid):
        own = channel.step(own, seen)
        belief = channel.read(own, seen).belief
    else:
        belief = solve(channel, seen).belief
    var = belief.var.expand(belief.mean.shape)
    return {**state, **{CHANNEL + k: v for k, v in own.items()}, "h": belief.mean, "h_var": var}


def told_back(state: State) -> Message:
    """The belief on h that a state holds, (batch, rx_ant), in double precision."""
    mean, var = state["h"].to(torch.complex128), state["h_var"].double().clamp_min(LEAST_NOISE)
    size = mean.shape[-1]
    return Gaussian(mean.reshape(-1, size), var.reshape(-1, size)).message()
