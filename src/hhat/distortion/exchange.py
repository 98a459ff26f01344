"""What the channel and the inverted receive chains tell one another: expectation propagation in information form.

Shapes: signals, noise_var (batch, pilot, rx_ant), pilots (batch, pilot, 1); messages on h (batch, kind, rx_ant), one
per symbol or one per chain, whose sum over `kind` the channel gets.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from hhat.distortion.linearised import Factors, Inverted
from hhat.types import Gaussian, Message

LEAST_NOISE = 1e-12
"""Thermal noise below this is raised to it: y = h r without noise has a singular covariance"""


class Known(NamedTuple):
    """What an inversion starts from, and the cavity it came from: of y_p or of h, which is taken off again after it."""

    factors: Factors
    cavity: Message


@runtime_checkable
class Exchange(Protocol):
    def start(self, noise_var: Tensor) -> Message:
        """Nothing told yet: flat messages on h."""
        ...

    def down(self, channel: Message, told: Message, pilots: Tensor, noise_var: Tensor) -> Known:
        """CT -> IC. channel (batch, rx_ant): the belief on h that `told` went into; flat at first."""
        ...

    def up(self, found: Inverted, known: Known, pilots: Tensor, noise_var: Tensor) -> Message:
        """IC -> CT: what the distorted symbols say of h, what was known before left out."""
        ...


def of_symbols(signal: Gaussian, pilots: Tensor, noise_var: Tensor) -> Message:
    """What independent beliefs on y_p = r_p h + noise say of h, one by one: r_p h = mean_p + CN(0, noise_var + var_p).
    var may be 0."""
    weight = 1 / (noise_var + signal.var).clamp_min(LEAST_NOISE)
    return Message(pilots.abs().square() * weight, pilots.conj() * signal.mean * weight)


def fused(told: Message) -> Gaussian:
    """All that was told of h, (batch, rx_ant): h = mean + CN(0, var) stands for all pilots, with no loss."""
    return Message(told.precision.sum(-2), told.shift.sum(-2)).gaussian()


@dataclass(frozen=True)
class PerSymbol:
    """Each y_p has a cavity of its own: h as all know it but for what was said of y_p; symbols count as independent.

      h without y_p ~ CN(m_p, c_p),   y_p ~ CN(r_p m_p, noise_var + |r_p|^2 c_p)

    Source: Xu & Liu 2026, eq. (21), by moments. That symbols share one error of h is lost on the way.
    """

    def start(self, noise_var: Tensor) -> Message:
        return _flat(noise_var)

    def down(self, channel: Message, told: Message, pilots: Tensor, noise_var: Tensor) -> Known:
        cavity = without(_per_kind(channel), told)
        spread = noise_var * cavity.precision + pilots.abs().square()  # no division by a precision of zero
        own = Message(cavity.precision / spread, pilots * cavity.shift / spread)
        precision = torch.diag_embed(2 * own.precision.mT.repeat_interleave(2, -1))
        return Known(Factors(precision, _parts(2 * own.shift)), own)

    def up(self, found: Inverted, known: Known, pilots: Tensor, noise_var: Tensor) -> Message:
        own = without(Gaussian(found.signal, found.var).message(), known.cavity)
        spread = 1 + noise_var * own.precision
        return Message(pilots.abs().square() * own.precision / spread, pilots.conj() * own.shift / spread)


@dataclass(frozen=True)
class PerChain:
    """One cavity for all symbols of a chain, which so share one error of h:

      h without this chain ~ CN(m, c),   y ~ CN(m r, diag noise_var + c r r^H)

    As if h stood in the state of the inversion: given y it is Gaussian and taken out in closed form. Source: hhat.
    """

    def start(self, noise_var: Tensor) -> Message:
        return _flat(noise_var[:, :1])

    def down(self, channel: Message, told: Message, pilots: Tensor, noise_var: Tensor) -> Known:
        cavity = without(_per_kind(channel), told)
        ahead, every = _sums(cavity, pilots, noise_var)
        column = ahead.mT
        inverse = (
            torch.diag_embed(1 / noise_var.mT).to(column) - column[..., None] * (column / every.mT)[..., None, :].conj()
        )
        return Known(Factors(2 * real_matrix(inverse), _parts(2 * ahead * (cavity.shift / every))), cavity)

    def up(self, found: Inverted, known: Known, pilots: Tensor, noise_var: Tensor) -> Message:
        ahead, every = _sums(known.cavity, pilots, noise_var)
        back = ahead.conj() / every
        mean = known.cavity.shift / every + (back * found.signal).sum(-2, keepdim=True)
        row = real_matrix(back.mT[..., None, :])
        spread = torch.diagonal(row @ found.covariance @ row.mT, dim1=-2, dim2=-1).sum(-1)
        belief = Gaussian(mean, 1 / every + spread[:, None])
        return without(belief.message(), known.cavity)


def _sums(cavity: Message, pilots: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
    """r / noise_var, and the precision of h from its cavity and from y if that were known."""
    return pilots / noise_var, cavity.precision + (pilots.abs().square() / noise_var).sum(-2, keepdim=True)


def without(whole: Message, part: Message) -> Message:
    """The cavity. Where round-off or an approximate belief would leave it less than nothing, it is flat."""
    left = whole - part
    kept = left.precision > 0
    return Message(torch.where(kept, left.precision, 0), torch.where(kept, left.shift, 0))


def _per_kind(channel: Message) -> Message:
    return Message(channel.precision[:, None], channel.shift[:, None])


def _flat(like: Tensor) -> Message:
    return Message(torch.zeros_like(like), torch.zeros_like(like, dtype=like.dtype.to_complex()))


def _parts(shift: Tensor) -> Tensor:
    """(batch, pilot, rx_ant) complex -> (batch, chain, 2 pilot)."""
    return torch.view_as_real(shift.mT.resolve_conj().contiguous()).flatten(-2)


def real_matrix(complex_matrix: Tensor) -> Tensor:
    """A complex matrix as it acts on (re, im) pairs: (..., rows, columns) -> (..., 2 rows, 2 columns)."""
    re, im = complex_matrix.real, complex_matrix.imag
    pairs = torch.stack([torch.stack([re, -im], -1), torch.stack([im, re], -1)], -2)
    return pairs.transpose(-3, -2).flatten(-2).flatten(-3, -2)
