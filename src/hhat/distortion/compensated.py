"""`compensated-tracking`: the distortion taken off first, then the channel from what is left. What joint tracking is held
against."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from hhat.distortion.channel import Flat, check, line_channel, start_channel, step_channel
from hhat.distortion.compensate import Compensator
from hhat.distortion.exchange import of_symbols
from hhat.distortion.record import DistortedPilots
from hhat.methods.base import Method
from hhat.types import Estimate, Gaussian, State


@dataclass(frozen=True, eq=False)
class CompensatedTracking(Method):
    """y = compensator(distorted) + CN(0, error_var),   y_p = h r_p + noise: one slot of `channel` on all symbols fused.

    compensator: None: the distorted symbols count as undistorted ones (with those of the truth, the reference without
                 impairments); its error variance may be shared by all chains
    channel: as in `impairment-tracking`
    Raises ValueError for an observation that is no `DistortedPilots`.
    """

    tracks: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    compensator: Compensator | None = None
    channel: Method | None = None

    def init(self, obs: DistortedPilots, gen: torch.Generator) -> State:
        check(obs, "compensated-tracking")
        return start_channel(self._channel(obs), obs, gen)

    def step(self, state: State, obs: DistortedPilots) -> State:
        check(obs, "compensated-tracking")
        flat = Flat.of(obs)
        signal, var = flat.y, torch.zeros_like(flat.noise_var)
        if self.compensator is not None:
            found = self.compensator.for_chains(obs.num_rx_ant)(flat.y)
            signal, var = found.signal.to(flat.y), found.error_var.double().expand(flat.noise_var.shape)
        told = of_symbols(Gaussian(signal, var), flat.pilots, flat.noise_var)
        return step_channel(self._channel(obs), state, told, obs)

    def read(self, state: State, obs: DistortedPilots) -> Estimate:
        return Estimate(Gaussian(state["h"], state["h_var"]))

    def _channel(self, obs: DistortedPilots) -> Method:
        return line_channel(obs.num_rx_ant) if self.channel is None else self.channel
