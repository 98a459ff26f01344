"""`Calibration`: gains and phases of the antennas as a calibrator leaves them, with how far they may be off."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops import Diagonal, Identity, Kron, LinearOp
from hhat.ops.linalg import squared
from hhat.types import Gaussian, Shape, Status


@dataclass(frozen=True, eq=False)
class Calibration:
    """kappa up to what echoes do not show, |kappa|^2 = num_rx_ant and the sum of kappa real.

    kappa:        complex (rx)
    var:          (rx) E|error|^2 of kappa_n / |kappa_n| without the common shift of angles; infinite where unknown
    shift_var:    variance of the common shift, in u^2; infinite where the sectors were not used to find it
    positions:    (rx) in wavelengths
    info:         what a human may want to know
    status:       OK; MAX_STEPS; WARMING_UP: too few echoes stand out; NONFINITE
    """

    kappa: Complex[Tensor, " rx"]
    var: Float[Tensor, " rx"]
    shift_var: float
    positions: Float[Tensor, " rx"]
    info: dict[str, Any] = field(default_factory=dict)
    status: Status = Status.OK

    @property
    def log_gain_var(self) -> Float[Tensor, " rx"]:
        """Variance of log |kappa_n|: half of `var`."""
        return self.var / 2

    @property
    def phase_var(self) -> Float[Tensor, " rx"]:
        """Variance of arg kappa_n in rad^2, against the mean phase: half of `var`, and the common shift's part."""
        return self.var / 2 + (2 * math.pi * (self.positions - self.positions.mean())).square() * self.shift_var

    @property
    def belief(self) -> Gaussian:
        return Gaussian(self.kappa, squared(self.kappa) * (self.log_gain_var + self.phase_var))

    @property
    def expected_e1(self) -> float:
        """E e1 = sum_n |kappa_n|^2 var_n / N."""
        return float((squared(self.kappa) * self.var).mean())

    @property
    def expected_e0(self) -> float:
        """E e0 = E e1 + 4 pi^2 var(p) shift_var."""
        return self.expected_e1 + 4 * math.pi**2 * float(self.positions.var(correction=0)) * self.shift_var

    def op(self, shape: Shape) -> LinearOp:
        """diag(kappa) on a channel of this shape, whose first axis are the antennas: y = A diag(kappa) h.

        Raises ValueError where the number of antennas differs.
        """
        if not shape or shape[0] != len(self.kappa):
            raise ValueError(f"calibration: holds {len(self.kappa)} antennas, the channel's shape is {tuple(shape)}")
        diagonal = Diagonal(self.kappa)
        return diagonal if len(shape) == 1 else Kron(diagonal, Identity(tuple(shape[1:])))
