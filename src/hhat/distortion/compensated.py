"""`compensated-tracking`: the distortion taken off first, then the channel: what joint tracking is held against."""

from dataclasses import dataclass

import torch

from hhat.distortion.channel import DistortedMethod, Flat, start_channel, step_channel
from hhat.distortion.compensate import Compensator
from hhat.distortion.exchange import of_symbols
from hhat.distortion.record import DistortedPilots
from hhat.methods.base import Method
from hhat.types import Estimate, Gaussian, State


@dataclass(frozen=True, eq=False)
class CompensatedTracking(DistortedMethod):
    """y = compensator(distorted) + CN(0, error_var),   y_p = h r_p + noise: one slot of `channel` on all symbols fused.

    compensator: None: the distorted symbols count as undistorted ones (with those of the truth, the reference without
                 impairments). Its error counts by the signal's amplitudes where it tells it so
    channel: as in `impairment-tracking`
    Raises ValueError for an observation that is no `DistortedPilots`.
    """

    compensator: Compensator | None = None
    channel: Method | None = None

    def init(self, obs: DistortedPilots, gen: torch.Generator) -> State:
        return start_channel(self.channel_of(obs), obs, gen)

    def step(self, state: State, obs: DistortedPilots) -> State:
        flat = Flat.of(obs)
        signal, var = flat.y, torch.zeros_like(flat.noise_var)
        if self.compensator is not None:
            chains = self.compensator.for_chains(obs.num_rx_ant)
            found = chains(flat.y) if chains.loudness is None else chains.loud(flat.y)
            signal, var = found.signal.to(flat.y), found.error_var.double().expand(flat.noise_var.shape)
        told = of_symbols(Gaussian(signal, var), flat.pilots, flat.noise_var)
        return step_channel(self.channel_of(obs), state, told, obs)

    def read(self, state: State, obs: DistortedPilots) -> Estimate:
        return Estimate(Gaussian(state["h"], state["h_var"]))
