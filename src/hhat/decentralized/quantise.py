"""Quantisers of complex tensors for a link: what is sent, what comes out, how many bits, how much noise."""

import abc
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.ops.linalg import squared
from hhat.ops.rounding import mid_tread, mid_tread_levels
from hhat.types import Gaussian

SCALE_BITS = 32


class Sent(NamedTuple):
    """codes: what the link carries, two numbers per complex entry; scale: float32 per item, (*batch, 1, ..)"""

    codes: Tensor
    scale: Tensor


class Quantiser(abc.ABC):
    """x (*batch, *event) -> codes and one scale per item -> x + noise. Subclasses are frozen dataclasses."""

    @abc.abstractmethod
    def send(self, x: Tensor, num_event: int) -> Sent: ...

    @abc.abstractmethod
    def receive(self, sent: Sent) -> Tensor: ...

    @abc.abstractmethod
    def noise_var(self, sent: Sent) -> Tensor:
        """E|noise|^2 per complex entry that a receiver counts with who knows the scale alone, in the scale's shape."""

    def error_var(self, x: Tensor, sent: Sent, num_event: int) -> Tensor:
        """What the sender knows better: mean |what comes out - x|^2 of an item, (*batch, 1, ..). Where most entries
        round to zero it is far less than a uniform error over a step."""
        return squared(self.receive(sent) - x).mean(tuple(range(-num_event, 0)), keepdim=True)

    @abc.abstractmethod
    def count_bits(self, entries: int) -> int:
        """Bits of one item of so many complex entries, its scale included."""

    def fault(self, sent: Sent) -> str:
        """What no sender of this kind sends; empty where nothing is wrong."""
        return ""


@dataclass(frozen=True)
class Floats(Quantiser):
    """Numbers as they are: 32 bits per real (64 in double precision, which is counted as 32: nobody would send it)."""

    def send(self, x: Tensor, num_event: int) -> Sent:
        lead = x.shape[: x.ndim - num_event]
        return Sent(torch.view_as_real(x.resolve_conj()), x.real.new_ones(*lead, *(1,) * num_event))

    def receive(self, sent: Sent) -> Tensor:
        return torch.view_as_complex(sent.codes.contiguous())

    def noise_var(self, sent: Sent) -> Tensor:
        return torch.zeros_like(sent.scale)

    def count_bits(self, entries: int) -> int:
        return 64 * entries


@dataclass(frozen=True)
class Uniform(Quantiser):
    """Uniform steps over -scale .. scale with scale = max(|Re|, |Im|) of an item; noise step^2 / 6 per complex entry
    (step^2 / 12 per real one), as for errors spread evenly over a step."""

    bits: int = 8

    def __post_init__(self):
        if not isinstance(self.bits, int) or not self.least() <= self.bits <= 24:
            raise ValueError(f"quantiser: bits: expected {self.least()}..24 per real number, got {self.bits}")

    @classmethod
    def least(cls) -> int:
        return 1

    @abc.abstractmethod
    def step(self, scale: Tensor) -> Tensor: ...

    def send(self, x: Tensor, num_event: int) -> Sent:
        parts = torch.view_as_real(x.resolve_conj())
        event = tuple(range(-num_event - 1, 0))
        scale = parts.abs().amax(event, keepdim=True)
        return Sent(self._codes(parts / self._divisor(scale)), scale.squeeze(-1))

    def receive(self, sent: Sent) -> Tensor:
        step = self.step(sent.scale)[..., None]
        return torch.view_as_complex(((sent.codes + self._offset()) * step).contiguous())

    def noise_var(self, sent: Sent) -> Tensor:
        return self.step(sent.scale).square() / 6

    def count_bits(self, entries: int) -> int:
        return 2 * self.bits * entries + SCALE_BITS

    def fault(self, sent: Sent) -> str:
        half = 2 ** (self.bits - 1)
        if bool((sent.scale < 0).any()):
            return "scale: expected at least 0"
        return (
            f"codes: expected {-half}..{half - 1}" if bool(((sent.codes < -half) | (sent.codes >= half)).any()) else ""
        )

    def _divisor(self, scale: Tensor) -> Tensor:
        return self.step(scale).clamp_min(torch.finfo(scale.dtype).tiny)

    @abc.abstractmethod
    def _codes(self, x: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def _offset(self) -> float: ...


@dataclass(frozen=True)
class MidTread(Uniform):
    """Steps around zero: 2^bits - 1 levels k scale / (2^(bits - 1) - 1). What is zero stays zero."""

    @classmethod
    def least(cls) -> int:
        return 2

    def step(self, scale: Tensor) -> Tensor:
        return scale / mid_tread_levels(self.bits)

    def _codes(self, x: Tensor) -> Tensor:
        return mid_tread(x, mid_tread_levels(self.bits)).to(torch.int32)

    def _offset(self) -> float:
        return 0.0


@dataclass(frozen=True)
class MidRise(Uniform):
    """Steps on both sides of zero: 2^bits levels (k + 1/2) scale / 2^(bits - 1), as the paper has it.

    Every zero becomes half a step: on sparse coefficients 4 bits of it destroy the estimate. Kept to show that.
    """

    def step(self, scale: Tensor) -> Tensor:
        return scale / 2 ** (self.bits - 1)

    def _codes(self, x: Tensor) -> Tensor:
        half = 2 ** (self.bits - 1)
        return x.floor().clamp(-half, half - 1).to(torch.int32)

    def _offset(self) -> float:
        return 0.5


def index_bits(entries: int) -> int:
    """Bits that name one of so many entries."""
    return math.ceil(math.log2(entries)) if entries > 1 else 0


def with_rounding(step: Tensor, var: Tensor, v: Tensor, error: Tensor) -> Gaussian:
    """The posterior of x - x_pri, x ~ CN(x_pri, v), for one who has the posterior's step with rounding noise `error`.

      kept = (v - var) / (v - var + error):   mean = kept step,   variance = var + kept error

    v - var is the variance of the step itself. With the prior divided out that is the extrinsic of the exact step, its
    mean as if the step were exact and its variance wider by error (v / (v - var))^2; were the variance alone widened,
    the division would turn rounding into a bias, and blow up where rounding exceeds what was learned.
    """
    learned = (v - var).clamp_min(torch.finfo(v.dtype).tiny)
    kept = learned / (learned + error)
    return Gaussian(kept * step, var + kept * error)
