"""Normal equations of all paths, all symbols at once, from Khatri-Rao Gram matrices: no Jacobian is ever formed."""

import abc
import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding, delay_steering
from hhat.methods.rows import Rows
from hhat.ops.linalg import squared

ARRAY_TYPE, TONE_TYPE = (0, 0, 1, 2), (0, 1, 0, 0)
"""Which derivative along the array (none, u, v) and along the tones (none, delay) makes a path's value, d/dtau, d/du,
d/dv."""


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


@dataclass(frozen=True, eq=False)
class Normal:
    """The log-likelihood -|y - h|^2 / noise_var to second order at a point, without priors.

    Parameters: Im gain, Re gain, delay, u, v, rates (paths each), then phase and timing (symbols each).
    rss:         |y - h|^2 per item
    score:       its gradient, (item, parameter)
    information: Fisher's, 2 / noise_var Re J^H J, (item, parameter, parameter)
    """

    rss: Float[Tensor, " item"]
    score: Float[Tensor, "item parameter"]
    information: Float[Tensor, "item parameter parameter"]


class Columns(NamedTuple):
    """What all paths look like: tones (item, band, tone, 2 path) values, then d/dtau; array (item, rx_ant, path);
    turn (item, symbol, path), of unit modulus; and the Gram matrices of tones and of [array, d/du, d/dv]."""

    tones: Tensor
    array: Tensor
    turn: Tensor
    tone_gram: Tensor
    array_gram: Tensor


def columns(task: Task, point: Point) -> Columns:
    late = delay_steering(task.frequency, point.delay[:, None])
    tones = torch.cat([late, -2j * math.pi * task.frequency[..., None] * late], -1)
    array = task.model.array_steering(point.cosine).mT
    places = 2j * math.pi * task.model.positions(point.cosine)
    slopes = torch.cat([array, places[:, :1] * array, places[:, 1:] * array], -1)
    angle = point.phase[..., None] + torch.einsum("mj,bkj->bmk", task.doppler.basis(task.times), point.rate)
    turn = torch.polar(torch.ones_like(angle), angle)
    return Columns(tones, array, turn, tones.mH @ tones, slopes.mH @ slopes)


def matched(task: Task, point: Point, made: Columns) -> Complex[Tensor, "item symbol 4 path"]:
    """Correlations of y with every path's value, d/dtau, d/du, d/dv at gain 1."""
    late = delay_steering(task.frequency[list(task.band)], point.timing[..., None])
    y = task.y * late.conj()
    paths = point.gain.shape[-1]
    back = torch.stack([made.tones[:, band].mH @ y[:, m] for m, band in enumerate(task.band)], 1)
    back = back.unflatten(2, (2, paths)) * made.array.mH[:, None, None]
    places = 2 * math.pi * task.model.positions(point.cosine)
    weights = torch.cat([torch.ones_like(places[:, :1]) + 0j, -1j * places], -1)
    value, slope = back[:, :, 0] @ weights, back[:, :, 1].sum(-1)
    found = torch.stack([value[..., 0], slope, value[..., 1], value[..., 2]], 2)
    return found * made.turn.conj()[:, :, None]


def normal_at(task: Task, point: Point) -> Normal:
    """The normal equations of a task at a point: O(paths^2 (tones + antennas)) work."""
    made = columns(task, point)
    paths, basis = point.gain.shape[-1], task.doppler.basis(task.times)
    gain, band = point.gain, list(task.band)
    seen = matched(task, point, made)
    # Grams of tone types, turned: (item, symbol, type, path, type, path)
    grams = made.tone_gram.unflatten(-1, (2, paths)).unflatten(-3, (2, paths))
    turned = made.turn.conj()[..., :, None] * made.turn[..., None, :]
    both = grams[:, band] * turned[:, :, None, :, None]
    array = made.array_gram.unflatten(-1, (3, paths)).unflatten(-3, (3, paths))
    # what the fitted channel, and its slope with timing, correlate like: (item, symbol, 4, path)
    weighed = both * gain[:, None, None, None, None]
    shown, late = (_shown(weighed[:, :, :, :, kind], array) for kind in (0, 1))
    away, own = seen - shown, gain[:, None]
    energy = squared(task.y).sum((-1, -2))
    rss = energy - (own.conj() * (seen[:, :, 0] + away[:, :, 0])).real.sum(-1)
    complexes = _paths_gram(both, array, basis)
    scale = torch.stack([torch.ones_like(gain), gain, gain, gain, *[1j * gain] * basis.shape[1]], 1).flatten(1)
    complexes = scale.conj()[:, :, None] * complexes * scale[:, None]
    cross = complexes[:, :paths].imag
    inner = torch.cat([torch.cat([complexes[:, :paths, :paths].real, cross], -1),
                       torch.cat([cross.mT, complexes.real], -1)], -2)  # fmt: skip
    phase_edge = _edge(1j * shown, gain, basis)
    timing_edge = _edge(late, gain, basis)
    own_phase = (own.conj() * shown[:, :, 0]).real.sum(-1)
    own_timing = (own.conj() * late[:, :, 1]).real.sum(-1)
    both_own = (own.conj() * -1j * late[:, :, 0]).real.sum(-1)
    corner = torch.cat([torch.cat([own_phase.diag_embed(), both_own.diag_embed()], -1),
                        torch.cat([both_own.diag_embed(), own_timing.diag_embed()], -1)], -2)  # fmt: skip
    edge = torch.cat([phase_edge, timing_edge], 1)
    information = torch.cat([torch.cat([inner, edge.mT], -1), torch.cat([edge, corner], -1)], -2)
    phase_score = (own.conj() * -1j * away[:, :, 0]).real.sum(-1)
    timing_score = (own.conj() * away[:, :, 1]).real.sum(-1)
    score = torch.cat([_edge(away, gain, basis).sum(1), phase_score, timing_score], -1)
    weight = 2 / task.noise_var
    return Normal(rss.sum(-1), score * weight[:, None], information * weight[:, None, None])


def _shown(weighed: Tensor, array: Tensor) -> Tensor:
    """sum_l of Gram columns l of one tone type, weighed, for the rows value, d/dtau, d/du, d/dv: (item, symbol, 4,
    path); weighed (item, symbol, type, path, path)."""
    rows = [(weighed[:, :, t] * array[:, None, a, :, 0]).sum(-1) for t, a in zip(TONE_TYPE, ARRAY_TYPE, strict=True)]
    return torch.stack(rows, 2)


def _edge(column: Tensor, gain: Tensor, basis: Tensor) -> Tensor:
    """Correlations of the path parameters with one column of each symbol, (item, symbol, parameter), from those of
    value, d/dtau, d/du, d/dv at gain 1."""
    own = gain.conj()[:, None]
    value, rest = column[:, :, 0], (own[:, :, None] * column[:, :, 1:]).real.flatten(2)
    turning = (own * -1j * value).real
    rates = (turning[:, :, None] * basis[:, :, None]).flatten(2)
    return torch.cat([value.imag, value.real, rest, rates], -1)


def _paths_gram(both: Tensor, array: Tensor, basis: Tensor) -> Tensor:
    """Gram matrix, summed over symbols, of value, d/dtau, d/du, d/dv and the rates at gain 1, without their factor j:
    (item, (4 + rate) path, (4 + rate) path)."""
    once = both.sum(1)
    rate = torch.einsum("mj,bmktl->bjktl", basis.to(both.dtype), both[:, :, 0])
    twice = torch.einsum("mj,mi,bmkl->bjkil", basis.to(both.dtype), basis.to(both.dtype), both[:, :, 0, :, 0])
    items, _, paths = once.shape[:3]
    num = basis.shape[1]
    tone = torch.empty(items, 2 + num, paths, 2 + num, paths, dtype=both.dtype, device=both.device)
    tone[:, :2, :, :2] = once
    tone[:, 2:, :, :2] = rate
    tone[:, :2, :, 2:] = rate.permute(0, 3, 4, 1, 2).conj()
    tone[:, 2:, :, 2:] = twice
    first, second = [*TONE_TYPE, *range(2, 2 + num)], [*ARRAY_TYPE, *[0] * num]
    made = tone[:, first][:, :, :, first] * array[:, second][:, :, :, second]
    return made.flatten(3).flatten(1, 2)
