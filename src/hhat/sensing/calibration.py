"""`Calibration`: gains and phases of the antennas as a calibrator leaves them, with how far they may be off."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.methods.state import load_state, save_state
from hhat.ops import Diagonal, Identity, Kron, LinearOp
from hhat.ops.linalg import squared
from hhat.sensing.scatter import split
from hhat.types import Gaussian, Shape, Status


@dataclass(frozen=True, eq=False)
class Calibration:
    """kappa up to what echoes do not show, |kappa|^2 = num_rx_ant and the sum of kappa real.

    kappa:        complex (rx)
    var:          (rx) E|error|^2 of kappa_n / |kappa_n| without the common shift of angles; infinite where unknown
    shift_var:    variance of the common shift, in u^2; infinite where the sectors were not used to find it
    positions:    (rx) in wavelengths
    info:         what a human may want to know
    factors:      (receiving, transmitting) antennas where kappa is that of a virtual array, kappa_r x kappa_t
    status:       OK; MAX_STEPS; WARMING_UP: too few echoes stand out; NONFINITE
    """

    kappa: Complex[Tensor, " rx"]
    var: Float[Tensor, " rx"]
    shift_var: float
    positions: Float[Tensor, " rx"]
    info: dict[str, Any] = field(default_factory=dict)
    status: Status = Status.OK
    factors: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """What the status says of a calibration, and what to do about it."""
        if self.status != Status.WARMING_UP:
            return self.status.text
        peaks, noise = (self.info.get(name) or 0.0 for name in ("peaks", "noise_peaks"))
        seen = f" ({peaks:.0f} peaks, of noise alone {noise:.0f})" if peaks else ""
        return f"too few echoes stand out of the noise{seen}; take more snapshots, or raise the SNR"

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
        """diag(kappa) on a channel of this shape, whose first axis are the antennas: y = A diag(kappa) h. Of a virtual
        array the first two axes, receiving and transmitting: y = A (kappa_r h kappa_t).

        Raises ValueError where the number of antennas differs.
        """
        if self.factors is not None and tuple(shape[: len(self.factors)]) == self.factors:
            both = Kron(*(Diagonal(part) for part in split(self.kappa, self.factors)))
            return both if len(shape) == 2 else Kron(both, Identity(tuple(shape[2:])))
        if not shape or shape[0] != len(self.kappa):
            raise ValueError(f"calibration: holds {len(self.kappa)} antennas, the channel's shape is {tuple(shape)}")
        diagonal = Diagonal(self.kappa)
        return diagonal if len(shape) == 1 else Kron(diagonal, Identity(tuple(shape[1:])))


TENSORS = ("kappa", "var", "positions")


def save_calibration(path: str | os.PathLike[str], found: Calibration, card: dict[str, Any] | None = None) -> None:
    """Write a calibration as a state file (safetensors), its info and `card` as JSON in it; whole or not at all.

    Raises ValueError where the folder is missing or the card is not JSON.
    """
    words = {"status": found.status.name, **found.info, **(card or {})}
    text = json.dumps({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in words.items()})
    tensors = {name: getattr(found, name).cpu() for name in TENSORS}
    shift_var = torch.tensor(found.shift_var, dtype=torch.float64)
    save_state(
        path, {**tensors, "shift_var": shift_var, **_pair(found.factors), "status": int(found.status), "card": text}
    )


def load_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Read what `save_calibration` wrote; ValueError names the file and what is missing or does not fit."""
    state, name = load_state(path), Path(path)
    for key in (*TENSORS, "shift_var"):
        if not isinstance(state.get(key), Tensor):
            raise ValueError(f"{name}: {key}: missing; expected a file that `hhat calibrate` wrote")
    kappa, var, positions = (state[key] for key in TENSORS)
    if not kappa.is_complex() or kappa.ndim != 1 or not kappa.shape == var.shape == positions.shape:
        shapes = ", ".join(f"{key} {tuple(state[key].shape)}" for key in TENSORS)
        raise ValueError(f"{name}: expected complex kappa and one var and position per antenna, got {shapes}")
    if not bool(torch.isfinite(torch.view_as_real(kappa)).all()):
        raise ValueError(f"{name}: kappa: expected finite gains")
    try:
        status, card = Status(state["status"]), json.loads(state["card"])
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"{name}: status, card: expected a file that `hhat calibrate` wrote") from None
    factors = (state["first_factor"], state["last_factor"]) if "first_factor" in state else None
    return Calibration(kappa, var, float(state["shift_var"]), positions, card, status, factors)


def _pair(factors: tuple[int, int] | None) -> dict[str, int]:
    return {} if factors is None else {"first_factor": factors[0], "last_factor": factors[1]}
