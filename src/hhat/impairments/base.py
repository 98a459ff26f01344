"""`Impairment`: a frozen callable, clean -> dirty. Those that are complex-linear also give `.op()`."""

import abc
import math
from typing import ClassVar

import torch
from torch import Tensor

from hhat.ops import LinearOp


class Impairment(abc.ABC):
    """One radio's errors, or a batch of them. Subclasses are frozen dataclasses with units in their fields' names.

    Those of receive chains take signals (*batch, pilot, rx_ant): symbols in time on axis -2 with nothing before the
    first one, chains on -1. Their parameters are (*batch, rx_ant), for every symbol the same, unless they say more.
    """

    lossless: ClassVar[bool] = False
    """Does the output have exactly the input's power?"""

    @abc.abstractmethod
    def __call__(self, clean: Tensor) -> Tensor:
        """What comes out where `clean` goes in."""

    @classmethod
    @abc.abstractmethod
    def draw(cls, gen: torch.Generator, severity: float | int = 1.0) -> "Impairment":
        """Errors at random, `severity` times as large as usual; at 0 exactly the identity."""

    def op(self) -> LinearOp | None:
        """The same as an operator, of receive chains over rx_ant with symbols as a batch axis; None where it is not
        complex-linear or has memory."""
        return None

    @classmethod
    @abc.abstractmethod
    def example(cls, gen: torch.Generator, severity: float | int = 1.0) -> tuple["Impairment", Tensor]:
        """A small instance of this severity and an input for it; the contract tests find it through this."""


def check_errors(where: str, values: dict[str, float | int]) -> None:
    """ValueError unless each is a finite number of at least 0."""
    for name, value in values.items():
        if not value >= 0 or math.isinf(value):
            raise ValueError(f"{where}: {name}: expected a finite number >= 0, got {value}")


def check_signal(where: str, clean: Tensor, num_rx_ant: int | None = None) -> None:
    """ValueError unless complex, (*batch, pilot, rx_ant), with so many chains."""
    wanted = num_rx_ant in (None, 1, clean.shape[-1] if clean.ndim else None)
    if not clean.is_complex() or clean.ndim < 2 or not wanted:
        chains = "rx_ant" if num_rx_ant in (None, 1) else f"{num_rx_ant}"
        have = f"{clean.dtype} {tuple(clean.shape)}"
        raise ValueError(f"{where}: expected a complex tensor (*batch, pilot, {chains}), got {have}")


def spread(gen: torch.Generator, shape: tuple[int, ...], value: float, share: float) -> Tensor:
    """(*shape) of value (1 + share N(0, 1)), float64: chains that are alike but for `share`."""
    return value * (1 + share * torch.randn(shape, generator=gen, dtype=torch.float64))
