"""What a model of the distortion leaves unexplained: per symbol of a slot, or by the amplitudes of the signal."""

from dataclasses import dataclass

import torch
from torch import Tensor

LOUDEST = 2.5
"""|y|^2 up to which a sample counts as one of pilots, where E|y|^2 = 1"""
NUM_STARTS = 4
"""Symbols at the beginning of a slot that have a level of their own; all later ones share the last"""
NEWTON_STEPS = 12
SMALLEST = 1e-12


def calibrated(signal: Tensor, error: Tensor) -> Tensor:
    """Mean error per chain and symbol over the sequences that were not loud so far, max_{p' <= p} |y_p'|^2 < LOUDEST.

    signal: undistorted, complex (sequence, pilot, rx_ant); error: squared, per real part, of the same shape
    Returns (rx_ant, pilot). A network's error is mostly that of few strong samples of a Gaussian signal; pilots have
    none of these. Raises ValueError where no sequence is left.
    """
    quiet = signal.abs().square().cummax(-2).values < LOUDEST
    count = quiet.sum(0)
    if bool((count == 0).any()):
        raise ValueError(f"calibration: expected a sequence with |y|^2 < {LOUDEST} throughout, at every chain")
    return ((error * quiet).sum(0) / count).clamp_min(SMALLEST).mT


@dataclass(frozen=True, eq=False)
class Loudness:
    """log fit_var_np = level_p + sum_k slope_k log(1 + |y|^2),  y: of this symbol, the last, the one before that, and
    both neighbours (their mean)

    coefficients: (net, NUM_STARTS + 4)
    """

    coefficients: Tensor

    def __call__(self, signal: Tensor) -> Tensor:
        """(*batch, pilot, rx_ant) -> the same, per real part; symbol 0 is the first of a slot."""
        exponent = (_features(signal) * self.coefficients[:, None, :]).sum(-1)
        return exponent.clamp(-40.0, 10.0).exp().movedim(-2, -1)

    def take(self, index: Tensor) -> "Loudness":
        return Loudness(self.coefficients[index])

    def to(self, where: torch.dtype | torch.device | str) -> "Loudness":
        return Loudness(self.coefficients.to(where))

    @classmethod
    def fit(cls, signal: Tensor, error: Tensor) -> "Loudness":
        """Greatest likelihood of the residuals as N(0, fit_var): convex, by Newton steps, all chains at once.

        signal, error: as in `calibrated`.
        """
        f = _features(signal).movedim(-3, 0).flatten(1, 2).double()
        squared = error.movedim(-1, 0).flatten(1).double()
        start = squared.mean(1).clamp_min(SMALLEST).log()
        c = f.new_zeros(f.shape[0], f.shape[-1])
        c[:, :NUM_STARTS] = start[:, None]
        eye = 1e-6 * torch.eye(f.shape[-1], dtype=f.dtype, device=f.device)
        for _ in range(NEWTON_STEPS):
            ratio = squared * torch.exp(-(f @ c[..., None])[..., 0])
            gradient = (f * (1 - ratio)[..., None]).mean(1)
            # half of the curvature's expectation beside the curvature itself keeps the first steps short
            weight = 0.5 + 0.5 * ratio
            curvature = (f * weight[..., None]).mT @ f / f.shape[1]
            c = c - torch.linalg.solve(curvature + eye, gradient)
        return cls(c.to(signal.real.dtype))


def _features(signal: Tensor) -> Tensor:
    """(*batch, pilot, rx_ant) -> (*batch, rx_ant, pilot, NUM_STARTS + 4)."""
    loud = torch.log1p(signal.abs().square())
    pilots = signal.shape[-2]
    last = torch.nn.functional.pad(loud, (0, 0, 1, 0))[..., :pilots, :]
    before = torch.nn.functional.pad(loud, (0, 0, 2, 0))[..., :pilots, :]
    sides = torch.nn.functional.pad(loud, (1, 1))
    beside = (sides[..., :-2] + sides[..., 2:]) / 2
    place = torch.arange(pilots, device=signal.device).clamp_max(NUM_STARTS - 1)
    levels = torch.nn.functional.one_hot(place, NUM_STARTS).to(loud.dtype)
    levels = levels[:, None, :].expand(*loud.shape, NUM_STARTS)
    return torch.cat([levels, torch.stack([loud, last, before, beside], -1)], -1).movedim(-2, -3)
