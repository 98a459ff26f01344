"""`quantiser`: analog-to-digital converters of few bits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.impairments.base import Impairment, check_errors, check_signal, spread
from hhat.ops.rounding import mid_tread, mid_tread_levels
from hhat.random import complex_normal


@dataclass(frozen=True, eq=False)
class Quantiser(Impairment):
    """Re and Im each to the nearest of 2^bits - 1 levels  k step,  |k| <= 2^(bits - 1) - 1; beyond the last it clips.

    step:  (*batch, rx_ant), real; 0: nothing is rounded
    bits:  per real number, at least 2
    clean: (*batch, pilot, rx_ant), complex
    Errors are far from independent of the signal at 3 bits and fewer. Raises ValueError for what does not fit.
    Source: mid-tread quantiser, textbook.
    """

    step: Tensor
    bits: int = 8

    def __post_init__(self):
        if self.step.ndim < 1 or bool((~(self.step >= 0)).any()):
            raise ValueError(f"quantiser: step: expected numbers >= 0, (*batch, rx_ant), got {tuple(self.step.shape)}")
        if not 2 <= self.bits <= 24:
            raise ValueError(f"quantiser: bits: expected 2..24 per real number, got {self.bits}")

    def __call__(self, clean: Tensor) -> Tensor:
        check_signal("quantiser", clean, self.step.shape[-1])
        parts = torch.view_as_real(clean.resolve_conj())
        step = self.step[..., None, :, None].to(parts)
        rounded = mid_tread(parts / step.clamp_min(torch.finfo(parts.dtype).tiny), mid_tread_levels(self.bits)) * step
        return torch.view_as_complex(torch.where(step > 0, rounded, parts))

    @classmethod
    def draw(
        cls,
        gen: torch.Generator,
        severity: float | int = 1.0,
        shape: tuple[int, ...] = (8,),
        bits: int = 8,
        full_scale: float | int = 4.0,
        deviation: float | int = 0.02,
    ) -> "Quantiser":
        """Converters of `shape` (*batch, rx_ant) whose last level lies at severity full_scale, alike but for a share
        `deviation` of the gain control; 4 is about 12 dB over a signal of unit power."""
        check_errors("quantiser", {"severity": severity, "full_scale": full_scale, "deviation": deviation})
        levels = mid_tread_levels(bits)
        return cls(spread(gen, shape, severity * full_scale / levels, deviation).clamp_min(0), bits)

    @classmethod
    def example(cls, gen: torch.Generator, severity: float | int = 1.0) -> tuple["Quantiser", Tensor]:
        return cls.draw(gen, severity, shape=(4,), bits=4), complex_normal((5, 3, 4), gen)
