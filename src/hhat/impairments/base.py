"""`Impairment`: a frozen callable, clean -> dirty. Those that are complex-linear also give `.op()`."""

import abc

import torch
from torch import Tensor

from hhat.ops import LinearOp


class Impairment(abc.ABC):
    """One radio's errors, or a batch of them. Subclasses are frozen dataclasses with units in their fields' names."""

    @abc.abstractmethod
    def __call__(self, clean: Tensor) -> Tensor:
        """What comes out where `clean` goes in."""

    @classmethod
    @abc.abstractmethod
    def draw(cls, gen: torch.Generator, severity: float | int = 1.0) -> "Impairment":
        """Errors at random, `severity` times as large as usual; at 0 exactly the identity."""

    def op(self) -> LinearOp | None:
        """The same as an operator; None where it is not complex-linear."""
        return None

    @classmethod
    @abc.abstractmethod
    def example(cls, gen: torch.Generator, severity: float | int = 1.0) -> tuple["Impairment", Tensor]:
        """A small instance of this severity and an input for it; the contract tests find it through this."""
