"""`unit-sync`: units of one array whose oscillators and clocks do not agree."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hhat.impairments.base import Impairment
from hhat.ops import Diagonal
from hhat.random import complex_normal


@dataclass(frozen=True, eq=False)
class UnitSync(Impairment):
    """y_mjk = x_mjk exp(j (phase_m - 2 pi offset_k timing_m)): unit m, its row j, tone k.

    The modulus is 1: no energy is lost, and noise stays white. A late unit (timing > 0) sees delays grow by timing.

    phase_rad, timing_s: (*batch, unit), float64: phase at tone offset 0 and delay of each unit
    offset_hz:    of the tones from where the phase is counted, (subcarrier)
    rows_per_unit: antennas or beams of one unit
    clean:        (*batch, unit rows_per_unit, subcarrier), rows unit by unit, complex

    `op()`: `Diagonal` over (rows, subcarrier), complex128; `op @ x` takes the precision of x.
    Raises ValueError for shapes that do not fit.
    Source: linear phase of a delay, textbook.
    """

    lossless = True
    phase_rad: Tensor
    timing_s: Tensor
    offset_hz: Tensor
    rows_per_unit: int = 1

    def __post_init__(self):
        if self.phase_rad.shape != self.timing_s.shape:
            have = tuple(self.phase_rad.shape), tuple(self.timing_s.shape)
            raise ValueError(
                f"unit-sync: phase_rad and timing_s have one shape (*batch, unit), got {have[0]}, {have[1]}"
            )

    def factors(self) -> Tensor:
        """(*batch, unit, 1, subcarrier), complex128; cycles are counted in float64 and cut to one."""
        cycles = self.phase_rad[..., None] / (2 * math.pi) - self.timing_s[..., None] * self.offset_hz
        angle = 2 * math.pi * torch.remainder(cycles.double(), 1.0)
        return torch.polar(torch.ones_like(angle), angle)[..., None, :]

    def __call__(self, clean: Tensor) -> Tensor:
        wanted = (self.phase_rad.shape[-1] * self.rows_per_unit, self.offset_hz.numel())
        if tuple(clean.shape[-2:]) != wanted:
            raise ValueError(f"unit-sync: expected (*batch, {wanted[0]}, {wanted[1]}), got {tuple(clean.shape)}")
        rows = clean.unflatten(-2, (-1, self.rows_per_unit))
        return (rows * self.factors().to(clean.dtype)).flatten(-3, -2)

    def op(self) -> Diagonal:
        values = self.factors().expand(*self.phase_rad.shape, self.rows_per_unit, self.offset_hz.numel())
        return Diagonal(values.flatten(-3, -2), 2)

    @classmethod
    def draw(
        cls,
        gen: torch.Generator,
        severity: float | int = 1.0,
        shape: tuple[int, ...] = (4,),
        offset_hz: Float[Tensor, " subcarrier"] | None = None,
        phase_error_rad: float | int = math.pi,
        timing_error_s: float | int = 1e-9,
        rows_per_unit: int = 1,
    ) -> "UnitSync":
        """Independent units, `shape` (*batch, unit): phase uniform within +-severity phase_error_rad, timing within
        +-severity timing_error_s. The defaults are units that share no oscillator and a clock to 1 ns.

        offset_hz: one tone at 0 where left out. Raises ValueError for errors below 0.
        """
        for name, value in (
            ("severity", severity),
            ("phase_error_rad", phase_error_rad),
            ("timing_error_s", timing_error_s),
        ):
            if not value >= 0 or math.isinf(value):
                raise ValueError(f"unit-sync: {name}: expected a finite number >= 0, got {value}")
        either = 2 * torch.rand((2, *shape), generator=gen, dtype=torch.float64) - 1
        tones = torch.zeros(1, dtype=torch.float64) if offset_hz is None else offset_hz
        phase, timing = either[0] * (severity * phase_error_rad), either[1] * (severity * timing_error_s)
        return cls(phase, timing, tones, rows_per_unit)

    @classmethod
    def example(cls, gen: torch.Generator, severity: float | int = 1.0) -> tuple["UnitSync", Tensor]:
        tones = torch.arange(3, dtype=torch.float64) * 1e8
        errors = cls.draw(gen, severity, shape=(2,), offset_hz=tones, rows_per_unit=2)
        return errors, complex_normal((5, 4, 3), gen)
