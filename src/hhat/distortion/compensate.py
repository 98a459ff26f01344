"""Compensators: the undistorted signal from the distorted one, and how far off it is."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.distortion.fit_variance import Loudness, calibrated
from hhat.distortion.memory_polynomial import MemoryPolynomial
from hhat.distortion.surrogate import POOLED, Surrogate, pooled_index


class Compensated(NamedTuple):
    """signal: estimate of what came in before the distortion, complex (*batch, pilot, rx_ant)
    error_var: E|error|^2 per complex sample, (pilot, rx_ant), or (*batch, pilot, rx_ant) by amplitude. Thermal noise is
               part of the signal, not of it."""

    signal: Tensor
    error_var: Tensor


@dataclass(frozen=True, eq=False)
class Compensator:
    """signal = model(distorted),   error_var_np calibrated at amplitudes of pilots

    model: a polynomial, a network that was trained the other way round, or None: the distorted signal as it is
    error_var: (net, pilot), per complex sample, as `Surrogate.fit_var`, which is per real part; as many networks as
        receive chains, or three for both ends and what lies between
    loudness: the same by the amplitudes of the signal, per real part: `loud`. None: not known
    With error_var 0 a channel estimate would take the -24 dB that a compensator leaves for signal at high SNR.
    """

    model: MemoryPolynomial | Surrogate | None
    error_var: Tensor
    loudness: Loudness | None = None

    def __post_init__(self):
        if self.error_var.ndim != 2 or (self.model is not None and self.model.num_net != len(self.error_var)):
            nets = "net" if self.model is None else self.model.num_net
            raise ValueError(f"compensator: error_var: expected ({nets}, pilot), got {tuple(self.error_var.shape)}")

    def __call__(self, distorted: Tensor) -> Compensated:
        if distorted.ndim < 2 or distorted.shape[-1] != len(self.error_var):
            have = tuple(distorted.shape)
            raise ValueError(f"compensator: expected (*batch, pilot, {len(self.error_var)}), got {have}")
        signal = distorted if self.model is None else self.model(distorted)
        place = torch.arange(distorted.shape[-2]).clamp_max(self.error_var.shape[1] - 1)
        return Compensated(signal, self.error_var[:, place].mT)

    def loud(self, distorted: Tensor) -> Compensated:
        """With the variance by the amplitudes of the estimate. ValueError where that is not known."""
        if self.loudness is None:
            raise ValueError("compensator: loudness: not known; calibrate it, or call the compensator itself")
        signal = self(distorted).signal
        return Compensated(signal, 2 * self.loudness(signal))

    def for_chains(self, num_rx_ant: int) -> "Compensator":
        """Three networks given to the ends and to all chains between, as `Surrogate.for_chains`."""
        if len(self.error_var) == num_rx_ant:
            return self
        if len(self.error_var) != POOLED or num_rx_ant < 2:
            raise ValueError(f"compensator: {len(self.error_var)} networks do not fit {num_rx_ant} receive chains")
        index = pooled_index(num_rx_ant)
        if isinstance(self.model, Surrogate):
            model = self.model.for_chains(num_rx_ant)
        else:
            model = None if self.model is None else self.model.take(index)
        loudness = None if self.loudness is None else self.loudness.take(index)
        return Compensator(model, self.error_var[index], loudness)

    @classmethod
    def calibrate(cls, model: MemoryPolynomial | Surrogate | None, signal: Tensor, distorted: Tensor) -> "Compensator":
        """With the error variance of pairs (sequence, pilot, rx_ant) at amplitudes of pilots."""
        error = ((distorted if model is None else model(distorted)) - signal).abs().square()
        return cls(model, calibrated(signal, error), Loudness.fit(signal, error / 2))

    @classmethod
    def polynomial(cls, signal: Tensor, distorted: Tensor) -> "Compensator":
        """The least squares inverse on these pairs, and its error there."""
        return cls.calibrate(MemoryPolynomial.fit(distorted, signal), signal, distorted)

    @classmethod
    def network(cls, surrogate: Surrogate) -> "Compensator":
        """A trained one (model `impairment-compensator`) with the variance that its file tells."""
        return cls(surrogate, 2 * surrogate.fit_var, surrogate.loudness)
