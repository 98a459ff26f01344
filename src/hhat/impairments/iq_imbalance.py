"""`iq-imbalance`: the two branches of a direct-conversion chain differ in phase and gain."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.impairments.base import Impairment, check_errors, check_signal, spread
from hhat.random import complex_normal


@dataclass(frozen=True, eq=False)
class IqImbalance(Impairment):
    """y = mu a + nu conj(a),   mu = cos(phase/2) + j gain sin(phase/2),   nu = gain cos(phase/2) - j sin(phase/2)

    It is real-linear only, and turns circular noise improper: no complex operator stands for it. In OFDM it ties
    subcarrier k to its image -k: here a symbol is one sample in time.

    phase_rad: (*batch, rx_ant), quadrature error
    gain:      (*batch, rx_ant), relative amplitude error; None: none, the published receiver
    clean:     (*batch, pilot, rx_ant), complex
    Raises ValueError for shapes that do not fit.
    Source: Tarighat, Bagheri & Sayed 2005, eqs. (2)-(3), whose case gain = 0 Xu & Liu 2026 take.
    """

    phase_rad: Tensor
    gain: Tensor | None = None

    def __post_init__(self):
        if self.phase_rad.ndim < 1 or (self.gain is not None and self.gain.shape != self.phase_rad.shape):
            have = tuple(self.phase_rad.shape), None if self.gain is None else tuple(self.gain.shape)
            raise ValueError(
                f"iq-imbalance: expected phase_rad and gain of one shape (*batch, rx_ant), got {have[0]}, {have[1]}"
            )

    def factors(self) -> tuple[Tensor, Tensor]:
        """mu and nu, complex128, (*batch, 1, rx_ant)."""
        half = self.phase_rad.double()[..., None, :] / 2
        gain = torch.zeros_like(half) if self.gain is None else self.gain.double()[..., None, :]
        return torch.complex(half.cos(), gain * half.sin()), torch.complex(gain * half.cos(), -half.sin())

    def __call__(self, clean: Tensor) -> Tensor:
        check_signal("iq-imbalance", clean, self.phase_rad.shape[-1])
        direct, image = self.factors()
        return direct.to(clean) * clean + image.to(clean) * clean.conj()

    def image_rejection(self) -> Tensor:
        """|nu|^2 / |mu|^2, (*batch, rx_ant): power of the image over that of the signal, tan^2(phase/2) at gain 0."""
        direct, image = self.factors()
        return (image.abs() / direct.abs()).square()[..., 0, :]

    @classmethod
    def draw(
        cls,
        gen: torch.Generator,
        severity: float | int = 1.0,
        shape: tuple[int, ...] = (8,),
        phase_rad: float | int = 0.1778,
        gain: float | int = 0.0,
        deviation: float | int = 0.02,
    ) -> "IqImbalance":
        """Chains of `shape` (*batch, rx_ant) with severity times phase and gain, alike but for a share `deviation`."""
        check_errors("iq-imbalance", {"severity": severity, "deviation": deviation})
        return cls(spread(gen, shape, severity * phase_rad, deviation), spread(gen, shape, severity * gain, deviation))

    @classmethod
    def example(cls, gen: torch.Generator, severity: float | int = 1.0) -> tuple["IqImbalance", Tensor]:
        return cls.draw(gen, severity, shape=(4,), gain=0.05), complex_normal((5, 3, 4), gen)
