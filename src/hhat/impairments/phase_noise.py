"""`phase-noise`: local oscillators whose phase wanders from symbol to symbol."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.impairments.base import Impairment, check_errors, check_signal
from hhat.ops import Diagonal
from hhat.random import complex_normal


@dataclass(frozen=True, eq=False)
class PhaseNoise(Impairment):
    """y_pn = exp(j phase_pn) x_pn; one realisation of the phases, so it is linear and keeps power.

    phase_rad: (*batch, pilot, rx_ant), or (*batch, pilot, 1) for chains that share an oscillator
    clean:     (*batch, pilot, rx_ant), complex
    `op()`: `Diagonal` over rx_ant, complex128, for phases of every chain; of a shared oscillator over one entry, which
    fits no array, so None. Raises ValueError for shapes that do not fit.
    Source: Wiener phase noise, textbook.
    """

    lossless = True
    phase_rad: Tensor

    def __post_init__(self):
        if self.phase_rad.ndim < 2:
            have = tuple(self.phase_rad.shape)
            raise ValueError(f"phase-noise: phase_rad: expected (*batch, pilot, rx_ant), got {have}")

    def __call__(self, clean: Tensor) -> Tensor:
        check_signal("phase-noise", clean, self.phase_rad.shape[-1])
        if clean.shape[-2] != self.phase_rad.shape[-2]:
            raise ValueError(f"phase-noise: expected {self.phase_rad.shape[-2]} symbols, got {clean.shape[-2]}")
        return self._turns().to(clean) * clean

    def op(self) -> Diagonal | None:
        return Diagonal(self._turns(), 1) if self.phase_rad.shape[-1] > 1 else None

    def _turns(self) -> Tensor:
        phase = self.phase_rad.double()
        return torch.polar(torch.ones_like(phase), phase)

    @classmethod
    def draw(
        cls,
        gen: torch.Generator,
        severity: float | int = 1.0,
        shape: tuple[int, ...] = (4, 8),
        step_rad: float | int = 0.02,
        shared: bool = False,
    ) -> "PhaseNoise":
        """Random walks of `shape` (*batch, pilot, rx_ant) from phase 0 with steps severity step_rad N(0, 1); a Lorentz
        line of width B gives step_rad^2 = 2 pi B T. shared: one oscillator for all chains."""
        check_errors("phase-noise", {"severity": severity, "step_rad": step_rad})
        steps = torch.randn(*shape[:-1], 1 if shared else shape[-1], generator=gen, dtype=torch.float64)
        steps[..., 0, :] = 0
        return cls(severity * step_rad * steps.cumsum(-2))

    @classmethod
    def example(cls, gen: torch.Generator, severity: float | int = 1.0) -> tuple["PhaseNoise", Tensor]:
        return cls.draw(gen, severity, shape=(3, 4)), complex_normal((5, 3, 4), gen)
