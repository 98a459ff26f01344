"""`crosstalk`: neighbouring receive chains leak into each other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.impairments.base import Impairment, check_errors, check_signal, spread
from hhat.ops import Dense
from hhat.random import complex_normal


@dataclass(frozen=True, eq=False)
class Crosstalk(Impairment):
    """u_n = y_n + coupling_n (y_{n-1} + y_{n+1}); the first and last chain have one neighbour.

    coupling: (*batch, rx_ant), real amplitude ratio; -15 dB is 10^(-15/20) = 0.1778
    clean:    (*batch, pilot, rx_ant), complex
    `op()`: `Dense`, tridiagonal, complex128, symbols as a batch axis. Raises ValueError for shapes that do not fit.
    Source: Xu & Liu 2026, the receiver of their simulations.
    """

    coupling: Tensor

    def __post_init__(self):
        if self.coupling.ndim < 1 or self.coupling.is_complex():
            have = f"{self.coupling.dtype} {tuple(self.coupling.shape)}"
            raise ValueError(f"crosstalk: coupling: expected real numbers (*batch, rx_ant), got {have}")

    def __call__(self, clean: Tensor) -> Tensor:
        check_signal("crosstalk", clean, self.coupling.shape[-1])
        left = torch.nn.functional.pad(clean[..., :-1], (1, 0))
        right = torch.nn.functional.pad(clean[..., 1:], (0, 1))
        return clean + self.coupling[..., None, :].to(clean) * (left + right)

    def op(self) -> Dense:
        count = self.coupling.shape[-1]
        beside = torch.diag(torch.ones(count - 1, dtype=torch.float64), 1)
        matrix = torch.eye(count, dtype=torch.float64) + self.coupling[..., None].double() * (beside + beside.mT)
        lead = matrix.unsqueeze(-3) if matrix.ndim > 2 else matrix
        return Dense(lead.to(torch.complex128))

    @classmethod
    def draw(
        cls,
        gen: torch.Generator,
        severity: float | int = 1.0,
        shape: tuple[int, ...] = (8,),
        coupling_db: float | int = -15.0,
        deviation: float | int = 0.02,
    ) -> "Crosstalk":
        """Chains of `shape` (*batch, rx_ant) with severity 10^(coupling_db / 20), alike but for a share `deviation`."""
        check_errors("crosstalk", {"severity": severity, "deviation": deviation})
        return cls(spread(gen, shape, severity * 10 ** (coupling_db / 20), deviation))

    @classmethod
    def example(cls, gen: torch.Generator, severity: float | int = 1.0) -> tuple["Crosstalk", Tensor]:
        return cls.draw(gen, severity, shape=(4,)), complex_normal((5, 3, 4), gen)
