"""`chain`: one impairment after the other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.impairments.amplifier import Amplifier
from hhat.impairments.base import Impairment
from hhat.impairments.crosstalk import Crosstalk
from hhat.impairments.iq_imbalance import IqImbalance
from hhat.impairments.polynomial import Polynomial
from hhat.ops import LinearOp
from hhat.random import complex_normal


@dataclass(frozen=True, eq=False)
class Chain(Impairment):
    """y = f_last( .. f_2(f_1(x)))

    parts: f_1, f_2, ..., in the signal's order; none: the identity. `op()`: their product, None where one has none.
    """

    parts: tuple[Impairment, ...] = ()

    def __call__(self, clean: Tensor) -> Tensor:
        for part in self.parts:
            clean = part(clean)
        return clean

    def op(self) -> LinearOp | None:
        ops = [part.op() for part in self.parts]
        found = None
        for op in ops:
            if op is None:
                return None
            found = op if found is None else op @ found
        return found

    @classmethod
    def draw(
        cls,
        gen: torch.Generator,
        severity: float | int = 1.0,
        shape: tuple[int, ...] = (8,),
        model: str | Polynomial = "warp",
        back_off: float | int | None = None,
        deviation: float | int = 0.02,
    ) -> "Chain":
        """A receiver of chains `shape` (*batch, rx_ant): crosstalk, amplifier `model`, IQ imbalance.

        Source: the order of Xu & Liu 2026.
        """
        return cls(
            (
                Crosstalk.draw(gen, severity, shape, deviation=deviation),
                Amplifier.draw(gen, severity, shape, model, back_off, deviation),
                IqImbalance.draw(gen, severity, shape, deviation=deviation),
            )
        )

    @classmethod
    def example(cls, gen: torch.Generator, severity: float | int = 1.0) -> tuple["Chain", Tensor]:
        return cls.draw(gen, severity, shape=(4,)), complex_normal((5, 6, 4), gen)
