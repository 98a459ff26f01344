"""The two losses of unsupervised gain-phase calibration, from one aligned vector per snapshot.

With z = a(u)^* * Y (b(R) * x)^* / sqrt(|x|^2 noise_var) at the largest value of the map under k, c = k^H z:

    loss (14)   -|c|^2 / N                                               minus the map's largest value at |k|^2 = N
    loss (15)   |Y - gamma (k * a) (b * x)^T| / sqrt(noise_var)          what one echo leaves, not squared
                = sqrt(E - 2 |c|^2 / d + |c|^2 |k|^2 / d^2),   E = |Y|^2 / noise_var,   d = N (1 + 1 / SNR)

with the ridge estimate of gamma under k, whose dependence on k counts: d is the paper's (N S + rho) / S. z is held
fixed: by the envelope theorem a maximiser adds nothing to the gradient: the search is never differentiated through.

Gradients are dJ/dRe + j dJ/dIm, torch's convention. Source: Mateos-Ramos et al. 2025, eqs. (14), (15), Algorithm 1.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops.linalg import squared

BOLTZMANN, ROOM_KELVIN = 1.380649e-23, 290.0


@dataclass(frozen=True, eq=False)
class Aligned:
    """Snapshots turned onto their peaks, in units in which noise has variance 1 per antenna.

    z:      complex (snapshot, rx): gamma' kappa + CN(0, 1), E|gamma'|^2 = SNR / N
    energy: (snapshot) |Y|^2 / noise_var; None where it is not known
    snr:    assumed SNR after full integration; None where it is not known
    """

    z: Complex[Tensor, "snapshot rx"]
    energy: Float[Tensor, " snapshot"] | None = None
    snr: float | None = None


@runtime_checkable
class Loss(Protocol):
    """Value (snapshot) and mean gradient (rx) of a loss at gains k."""

    def value(self, k: Complex[Tensor, " rx"], seen: Aligned) -> Float[Tensor, " snapshot"]: ...
    def gradient(self, k: Complex[Tensor, " rx"], seen: Aligned) -> Complex[Tensor, " rx"]: ...


@dataclass(frozen=True)
class PeakLoss:
    """Loss (14): -|k^H z|^2 / N, so that at |k|^2 = N it is minus the map's largest value in units of its noise.

    scale: what one such unit is in the loss's own, see `published_noise_var`.
    """

    scale: float = 1.0

    def value(self, k: Tensor, seen: Aligned) -> Tensor:
        return -self.scale / k.shape[-1] * squared(seen.z @ k.conj())

    def gradient(self, k: Tensor, seen: Aligned) -> Tensor:
        c = seen.z @ k.conj()
        return (c.conj()[:, None] * seen.z).mean(0) * (-2 * self.scale / k.shape[-1])


@dataclass(frozen=True)
class ResidualLoss:
    """Loss (15): the norm of what is left of a snapshot, in units of sqrt(noise_var).

    Needs the snapshots' energy and the assumed SNR; ValueError without. scale: see `published_noise_var`.
    """

    scale: float = 1.0

    def value(self, k: Tensor, seen: Aligned) -> Tensor:
        return self.scale * self._norm(k, seen)[0]

    def gradient(self, k: Tensor, seen: Aligned) -> Tensor:
        norm, c, slope = self._norm(k, seen)
        d = self._d(k, seen)
        along = ((slope / norm) * c.conj())[:, None] * seen.z
        radial = (squared(c) / (d * d * norm)).mean() * k
        return self.scale * (along.mean(0) + radial)

    def _norm(self, k: Tensor, seen: Aligned) -> tuple[Tensor, Tensor, float | Tensor]:
        if seen.energy is None:
            raise ValueError("loss (15): the snapshots' energy is not known; give echoes.energy, or use loss (14)")
        c, d = seen.z @ k.conj(), self._d(k, seen)
        slope = -2 / d + squared(k).sum() / d**2
        return (seen.energy + slope * squared(c)).clamp_min(torch.finfo(seen.energy.dtype).tiny).sqrt(), c, slope

    def _d(self, k: Tensor, seen: Aligned) -> float:
        """N + N / SNR: (N S + rho) / S."""
        if seen.snr is None:
            raise ValueError("loss (15): the SNR is not known; give echoes.snr, or use loss (14)")
        return k.shape[-1] * (1 + 1 / seen.snr)


def published_noise_var(num_subcarriers: int, subcarrier_spacing_hz: float | int) -> float:
    """k T bandwidth in watts at 290 K. With it the published losses are `PeakLoss(N |x|^2 noise_var)` and
    `ResidualLoss(sqrt(noise_var))`: so small that Adam's eps counts."""
    return BOLTZMANN * ROOM_KELVIN * num_subcarriers * subcarrier_spacing_hz


def tangent(gradient: Complex[Tensor, " rx"], k: Complex[Tensor, " rx"]) -> Complex[Tensor, " rx"]:
    """The gradient without its part along k: g - k Re(k^H g) / |k|^2.

    Growing k always lowers loss (14), and Adam, which divides each real and imaginary part by its own size, turns that
    push into one of phases towards odd multiples of 45 degrees.
    """
    return gradient - k * ((k.conj() * gradient).sum().real / squared(k).sum())
