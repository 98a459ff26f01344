"""What is fitted to hopping pilots: the pilots as plain tensors, and a value of all parameters with its priors."""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding
from hhat.methods.rows import Rows


class Doppler(abc.ABC):
    """How a path's phase may turn from symbol to symbol: turn[m, k] = sum_j basis[m, j] rate[k, j], radians.

    common: is a phase of each symbol, common to all paths, a parameter besides?
    """

    common: ClassVar[bool]

    @abc.abstractmethod
    def basis(self, times: Float[Tensor, " symbol"]) -> Float[Tensor, "symbol rate"]:
        """Phase per rate."""

    @abc.abstractmethod
    def start(self, doppler_hz: Float[Tensor, "*batch path"], times: Tensor) -> Float[Tensor, "*batch path rate"]:
        """The rates of paths with given Doppler shifts."""

    @abc.abstractmethod
    def precision(self, model: Sounding, times: Tensor) -> Float[Tensor, " rate"]:
        """Of the prior N(0, .) of the rates; infinite: they are 0."""


@dataclass(frozen=True)
class Linear(Doppler):
    """One Doppler shift per path: turn = 2 pi doppler_hz t, doppler_hz ~ N(0, (0.7 of the largest)^2)."""

    common: ClassVar[bool] = True

    def basis(self, times: Tensor) -> Tensor:
        return 2 * math.pi * times[:, None]

    def start(self, doppler_hz: Tensor, times: Tensor) -> Tensor:
        return doppler_hz[..., None]

    def precision(self, model: Sounding, times: Tensor) -> Tensor:
        spread = 0.7 * model.doppler_hz
        return times.new_full((1,), spread**-2 if spread > 0 else math.inf)


@dataclass(frozen=True)
class Free(Doppler):
    """A phase of its own per path and symbol after the first: what the source's method assumes; no prior."""

    common: ClassVar[bool] = False

    def basis(self, times: Tensor) -> Tensor:
        return torch.eye(len(times), dtype=times.dtype, device=times.device)[:, 1:]

    def start(self, doppler_hz: Tensor, times: Tensor) -> Tensor:
        return 2 * math.pi * doppler_hz[..., None] * (times - times[0])[1:]

    def precision(self, model: Sounding, times: Tensor) -> Tensor:
        return times.new_zeros(len(times) - 1)


class Point(NamedTuple):
    """A value of all parameters, one batch axis: gain (item, path), delay, cosine (item, path, 2), rate (item, path,
    rate), phase and timing (item, symbol), mask (item, path)."""

    gain: Tensor
    delay: Tensor
    cosine: Tensor
    rate: Tensor
    phase: Tensor
    timing: Tensor
    mask: Tensor

    def moved(self, step: Float[Tensor, "item parameter"]) -> "Point":
        """Parameters in the order of `Normal`."""
        paths, symbols = self.gain.shape[-1], self.phase.shape[-1]
        imag, real, delay, u, v, *rate = step[:, : step.shape[-1] - 2 * symbols].split(paths, -1)
        phase, timing = step[:, -2 * symbols :].split(symbols, -1)
        return Point(
            self.gain + torch.complex(real, imag),
            self.delay + delay,
            self.cosine + torch.stack([u, v], -1),
            self.rate + torch.stack(rate, -1) if rate else self.rate,
            self.phase + phase,
            self.timing + timing,
            self.mask,
        )

    @classmethod
    def blank(cls, task: "Task", num_paths: int) -> "Point":
        """Room for paths, none of them there; phases and timings 0."""
        real = task.noise_var.new_zeros(len(task.y), num_paths)
        rates = task.doppler.basis(task.times).shape[1]
        symbols = real.new_zeros(len(task.y), len(task.times))
        cosine, rate = (real[..., None].expand(-1, -1, n).clone() for n in (2, rates))
        mask = torch.zeros_like(real, dtype=torch.bool)
        return cls(real.to(torch.complex128), real, cosine, rate, symbols, symbols, mask)

    @classmethod
    def joined(cls, points: "list[Point]") -> "Point":
        """Items of several points with as many places for paths."""
        return cls(*(torch.cat(parts) for parts in zip(*points, strict=True)))

    def rows(self, rows: Rows) -> "Point":
        return Point(*map(rows.take, self))

    def put(self, rows: Rows, part: "Point") -> "Point":
        """This with the items at `rows` replaced."""
        return Point(*(rows.put(old, new) for old, new in zip(self, part, strict=True)))

    def where(self, better: Bool[Tensor, " item"], old: "Point") -> "Point":
        """This where `better`, else `old`."""
        shaped = [better.reshape(-1, *(1,) * (x.ndim - 1)) for x in self]
        return Point(*(torch.where(b, new, was) for b, new, was in zip(shaped, self, old, strict=True)))

    def sized(self, num_paths: int) -> "Point":
        """With so many places for paths: the last ones cut off, or empty ones added."""
        more = num_paths - self.mask.shape[-1]
        if more == 0:
            return self
        return self._paths(lambda x: x[:, :num_paths] if more < 0 else _longer(x, more))

    def compact(self) -> "Point":
        """The paths that are there in the first places, in their order, and no more places than needed, at least 1."""
        order = (~self.mask).to(torch.int8).argsort(dim=-1, stable=True)[:, : max(1, int(self.mask.sum(-1).max()))]
        return self._paths(
            lambda x: x.gather(1, order.reshape(*order.shape, *(1,) * (x.ndim - 2)).expand(-1, -1, *x.shape[2:]))
        )

    def _paths(self, change: Callable[[Tensor], Tensor]) -> "Point":
        gain, delay, cosine, rate, mask = map(change, (self.gain, self.delay, self.cosine, self.rate, self.mask))
        return Point(gain, delay, cosine, rate, self.phase, self.timing, mask)

    def vector(self) -> Float[Tensor, "item parameter"]:
        """All parameters in the order of `Normal`."""
        path = [self.gain.imag, self.gain.real, self.delay, *self.cosine.unbind(-1), *self.rate.unbind(-1)]
        return torch.cat([*path, self.phase, self.timing], -1)


@dataclass(frozen=True, eq=False)
class Task:
    """Pilots as they are fitted: y (item, symbol, tone, rx_ant) complex128, noise_var (item) of each sample.

    index:  (band, tone), the different sets of tones; frequency: of these; band (symbol): which of them a symbol sounds
    anchor:    symbol whose phase and timing are 0 by gauge; None: none, they are known by a prior
    """

    model: Sounding
    y: Complex[Tensor, "item symbol tone rx_ant"]
    noise_var: Float[Tensor, " item"]
    index: Int[Tensor, "band tone"]
    frequency: Float[Tensor, "band tone"]
    band: tuple[int, ...]
    times: Float[Tensor, " symbol"]
    doppler: Doppler = Linear()
    anchor: int | None = 0

    @classmethod
    def make(
        cls,
        model: Sounding,
        pilots: Sounded,
        times: Float[Tensor, " symbol"],
        doppler: Doppler | None = None,
        anchor: int | None = 0,
    ) -> "Task":
        """Of `sounded` pilots (*batch, rx_ant, symbol, tone), their batch flattened; noise_var None counts as 1.

        Raises ValueError where symbols and times differ in number.
        """
        y = pilots.y.to(torch.complex128)
        if len(times) != y.shape[-2]:
            raise ValueError(f"times: expected one per symbol, {y.shape[-2]}, got {len(times)}")
        batch = y.shape[:-3]
        noise = torch.ones((), dtype=torch.float64) if pilots.noise_var is None else pilots.noise_var.double()
        noise = noise.to(y.device)
        if noise.ndim > 3:
            noise = noise[..., 0, 0, 0]
        elif noise.ndim:
            noise = noise.mean()
        index, band = torch.unique(pilots.index.to(y.device), dim=0, return_inverse=True)
        return cls(
            model,
            y.flatten(0, -4).permute(0, 2, 3, 1).contiguous() if batch else y.permute(1, 2, 0)[None].contiguous(),
            noise.expand(batch).reshape(-1),
            index,
            model.tones_hz(y.real)[index],
            tuple(band.tolist()),
            times.to(y.device, torch.float64),
            doppler or Linear(),
            anchor,
        )

    @cached_property
    def energy(self) -> Float[Tensor, " item"]:
        """|y|^2."""
        return torch.view_as_real(self.y).square().sum((-4, -3, -2, -1))

    def prior_cost(self, point: Point, gain_var: Float[Tensor, " item"]) -> Float[Tensor, " item"]:
        """-log of the priors at a point, up to a constant."""
        return (self.prior(gain_var, point.gain.shape[-1]) * point.vector().square()).sum(-1) / 2

    @cached_property
    def places(self) -> Complex[Tensor, "rx_ant 2"]:
        """j 2 pi times the antennas' positions."""
        return 2j * math.pi * self.model.positions(self.y.real)

    def symbol(self, which: int) -> "Task":
        """That symbol alone."""
        kind = self.band[which : which + 1]
        y, index, frequency = self.y[:, which : which + 1], self.index[list(kind)], self.frequency[list(kind)]
        times = self.times[which : which + 1]
        return replace(self, y=y, index=index, frequency=frequency, band=(0,), times=times, anchor=0)

    def some(self, rows: Rows) -> "Task":
        return replace(self, y=rows.take(self.y), noise_var=rows.take(self.noise_var))

    def point(self, paths: Paths, offsets: Offsets) -> Point:
        lead = paths.gain.ndim - 1

        def flat(x: Tensor) -> Tensor:
            return x.flatten(0, lead - 1) if lead else x[None]

        mask = flat(paths.mask)
        return Point(
            flat(paths.gain) * mask,
            flat(paths.delay_s),
            flat(paths.cosine),
            flat(self.doppler.start(paths.doppler_hz, self.times)),
            flat(offsets.phase_rad),
            flat(offsets.timing_s),
            mask,
        )

    def fixed(self, point: Point, priors: bool = True) -> Tensor:
        """Parameters that do not move, (item, parameter): of masked paths, of the gauge, of priors without width."""
        still, symbols = ~point.mask, len(self.times)
        rate = torch.isinf(self.doppler.precision(self.model, self.times)) & priors
        rates = [still | bool(stuck) for stuck in rate]
        offsets = torch.zeros(2, symbols, dtype=torch.bool, device=still.device)
        offsets[0] |= not self.doppler.common
        offsets[1] |= priors and self.model.timing_var == 0
        if self.anchor is not None:
            offsets[:, self.anchor] = True
        return torch.cat([still.repeat(1, 5), *rates, offsets.flatten().expand(len(still), -1)], -1)

    def prior(self, gain_var: Float[Tensor, " item"] | None, num_paths: int) -> Float[Tensor, "item parameter"]:
        """Precisions of the priors, all of mean 0. gain_var: E|gain|^2; None: gains are free."""
        items, dev = len(self.y), self.y.device
        ridge = self.noise_var.new_zeros(items) if gain_var is None else 2 / gain_var
        rate = torch.nan_to_num(self.doppler.precision(self.model, self.times), posinf=0.0)
        timing = 1 / self.model.timing_var if self.model.timing_var > 0 else 0.0
        symbols = len(self.times)
        flat = [torch.zeros(3 * num_paths, device=dev), rate.repeat_interleave(num_paths)]
        flat += [torch.zeros(symbols, device=dev), torch.full((symbols,), timing, device=dev)]
        rest = torch.cat([part.double() for part in flat]).expand(items, -1)
        return torch.cat([ridge[:, None].expand(-1, 2 * num_paths), rest], -1)


def _longer(x: Tensor, more: int) -> Tensor:
    return torch.cat([x, x.new_zeros(x.shape[0], more, *x.shape[2:])], 1)
