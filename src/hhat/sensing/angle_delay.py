"""Angle-delay map of echoes, its maximum on a grid (coarse to fine), and the continuous maximum beside it.

    c(u, R) = (kappa * a(u))^H Y (b(R) * x)^*          statistic(u, R) = |c|^2 / (|kappa|^2 |x|^2 noise_var)

so that a cell of noise alone is Exp(1) and the cell of a target Exp(1 + (1 - e0) SNR). The delay is integrated in the
few columns of compressed echoes, where a product with their responses costs less than a zoomed Fourier transform.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops.linalg import squared
from hhat.sensing.echoes import Echoes, delay_response, matched, noise_level, ones_like_gains, positions_of, steering

COARSE = (3, 2)
MAP_VALUES = 1 << 20
"""Values of maps that are formed at a time (8 MB before their modulus is taken)."""
CURVATURE = 0.1
"""Largest error of a spherical wave's phase, radians, in the coarse search, which shares waves over ranges."""
REFINED = 256
"""Values that refining a snapshot counts for in MAP_VALUES."""
SHRINK = 3.0
"""By which the spacing of `refine` falls from step to step."""


class Found(NamedTuple):
    """The largest value of each snapshot's map and where it is, each (*batch)."""

    u: Float[Tensor, "*batch"]
    range_m: Float[Tensor, "*batch"]
    statistic: Float[Tensor, "*batch"]

    @property
    def angle_rad(self) -> Float[Tensor, "*batch"]:
        """From broadside."""
        return self.u.asin()


def angle_delay_map(
    echoes: Echoes, kappa: Complex[Tensor, "..."] | None, u: Float[Tensor, "..."], range_m: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """statistic(u_i, R_j), (*batch, I, J), for u (*batch, I) or (I,) and range_m (*batch, J) or (J,).

    kappa (rx_ant) or (*batch, rx_ant), any norm; None: ones. ValueError where shapes do not fit.
    """
    batch, flat = echoes.batch_shape, echoes.flat()
    gains = gains_of(echoes, kappa)
    places = [v.to(echoes.y.real).expand(*batch, v.shape[-1]).reshape(-1, v.shape[-1]) for v in (u, range_m)]
    shared = range_m if range_m.ndim == 1 and echoes.range_limits_m.ndim == 1 else None
    found = _map(flat, matched(flat), gains, places[0], places[1] if shared is None else shared, 0.0)
    return (found / _noise_only(flat, gains)[:, None, None]).reshape(*batch, u.shape[-1], range_m.shape[-1])


def search(
    echoes: Echoes,
    kappa: Complex[Tensor, "..."] | None = None,
    size: tuple[int, int] = (100, 100),
    coarse: tuple[int, int] = COARSE,
    margin_u: float | int = 0.0,
    refine_steps: int = 0,
) -> Found:
    """The maximum of each snapshot's map over its sector.

    size:         angles (uniform in angle, ends included) and ranges of the grid
    coarse:       every how-manieth angle and range is looked at first; (1, 1): all, an exact search of the grid
    margin_u:     by how much u may lie outside the sector on either side
    refine_steps: steps of `refine` from the grid's maximum; 0: none

    A coarse search finds the grid's maximum but for near-ties: with (3, 2) in 99 % of snapshots with a target at 15 dB
    and 93 % of those without, at most a few permille lower. ValueError for sizes below 2 or steps below 1.
    """
    if min(size) < 2 or min(coarse) < 1:
        raise ValueError(f"search: expected size >= 2 and coarse >= 1, got {size} and {coarse}")
    flat, gains = replace(echoes.flat(), noise_var=noise_level(echoes)), gains_of(echoes, kappa)
    limits = sector(flat, margin_u)
    ends = limits[0].asin()
    shift = torch.linspace(0, 1, size[0], dtype=ends.dtype, device=ends.device)
    u_grid = (ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * shift).sin()
    first = (_every(size[0], coarse[0], flat), _every(size[1], coarse[1], flat))
    columns, found = matched(flat), []
    per_item = len(first[0]) * len(first[1])
    for rows in _chunks(len(flat.y), per_item):
        part, kappa_part, z = flat.rows(rows), gains[rows if len(gains) > 1 else slice(None)], columns[rows]
        ranges = _range_grid(part, size[1])
        u = u_grid[rows]
        values = _map(part, z, kappa_part, u[:, first[0]], ranges[..., first[1]], CURVATURE)
        top, place = values.flatten(1).max(-1)
        i, j = first[0][place // len(first[1])], first[1][place % len(first[1])]
        if max(coarse) > 1:
            near_i, near_j = _window(i, coarse[0], size[0]), _window(j, coarse[1], size[1])
            near_r = ranges.expand(len(u), -1).gather(-1, near_j)
            values = _map(part, z, kappa_part, u.gather(-1, near_i), near_r, 0.0)
            top, place = values.flatten(1).max(-1)
            i = near_i.gather(-1, place[:, None] // near_j.shape[-1])[:, 0]
            j = near_j.gather(-1, place[:, None] % near_j.shape[-1])[:, 0]
        best = u.gather(-1, i[:, None])[:, 0], ranges.expand(len(u), -1).gather(-1, j[:, None])[:, 0]
        if refine_steps:
            steps = (ends[rows, 1] - ends[rows, 0]) / (size[0] - 1), (limits[1][rows] @ ends.new_tensor([-1, 1]))
            steps = steps[0] * (1 - best[0].square()).sqrt(), steps[1] / (size[1] - 1)
            box = limits[0][rows], limits[1][rows]
            best = _climb(part, z, kappa_part, (*best, top), steps, box, refine_steps)
            best, top = best[:2], best[2]
        found.append(torch.stack([*best, top / _noise_only(part, kappa_part)]))
    u, range_m, statistic = torch.cat(found, 1).reshape(3, *echoes.batch_shape)
    return Found(u, range_m, statistic)


def refine(
    echoes: Echoes,
    kappa: Complex[Tensor, "..."] | None,
    found: Found,
    step: tuple[float | int | Tensor, float | int | Tensor],
    steps: int = 3,
    margin_u: float | int = 0.0,
) -> Found:
    """Continuous maximum near `found`: Newton steps on quadratics fitted to 3 x 3 values.

    step:     spacing in u and in metres of the first 3 x 3 values, numbers or (*batch): the spacing of the grid that
              `found` comes from; it is divided by 3 from step to step
    margin_u: by how much u may leave the sector. The result is never below the value at `found`.
    """
    flat, gains = replace(echoes.flat(), noise_var=noise_level(echoes)), gains_of(echoes, kappa)
    scale = _noise_only(flat, gains)
    start = found.u.flatten(), found.range_m.flatten(), found.statistic.flatten() * scale
    width = [torch.as_tensor(s).to(flat.y.real).expand(echoes.batch_shape).flatten() for s in step]
    box = sector(flat, margin_u)
    columns, parts = matched(flat), []
    for rows in _chunks(len(flat.y), REFINED):
        here = (start[0][rows], start[1][rows], start[2][rows]), (width[0][rows], width[1][rows])
        limits, kappa_part = (box[0][rows], box[1][rows]), gains[rows] if len(gains) > 1 else gains
        parts.append(torch.stack(_climb(flat.rows(rows), columns[rows], kappa_part, *here, limits, steps)))
    u, range_m, top = torch.cat(parts, 1)
    return Found(*(value.reshape(echoes.batch_shape) for value in (u, range_m, top / scale)))


def sector(echoes: Echoes, margin_u: float | int = 0.0) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch 2"]]:
    """Limits of u, widened by margin_u within -1..1, and of the range in metres, one row per snapshot."""
    shape = (*echoes.batch_shape, 2)
    u = echoes.u_limits.to(echoes.y.real).expand(shape)
    u = (u + margin_u * u.new_tensor([-1.0, 1.0])).clamp(-1, 1)
    return u, echoes.range_limits_m.to(echoes.y.real).expand(shape)


def gains_of(echoes: Echoes, kappa: Tensor | None) -> Tensor:
    """kappa as (1 or snapshots, rx_ant) in y's precision."""
    kappa = ones_like_gains(echoes) if kappa is None else kappa.to(echoes.y)
    num, batch = echoes.num_rx_ant, echoes.batch_shape
    if kappa.shape not in ((num,), (*batch, num)):
        raise ValueError(f"kappa: expected shape ({num},) or {(*batch, num)}, got {tuple(kappa.shape)}")
    return kappa.reshape(-1, num)


def _noise_only(echoes: Echoes, gains: Tensor) -> Tensor:
    """E|c|^2 of noise alone, |kappa|^2 |x|^2 noise_var, per snapshot (or one)."""
    energy = squared(gains).sum(-1) * echoes.symbol_energy.to(gains.real) * noise_level(echoes)
    return energy.expand(len(echoes.y))


def _map(echoes: Echoes, z: Tensor, gains: Tensor, u: Tensor, range_m: Tensor, phase: float) -> Tensor:
    """|c|^2 (n, I, J) at u (n, I) and range_m (n, J) or, where one response serves all, (J,)."""
    response = delay_response(echoes, range_m).conj().mT
    if not echoes.spherical:
        return squared((gains[:, None] * steering(echoes, u)).conj() @ z @ response)
    parts = []
    for block in _blocks(echoes, range_m, phase):
        near, far = range_m[..., block.start, None], range_m[..., block.stop - 1, None]
        waves = steering(echoes, u, 2 / (1 / near + 1 / far))
        parts.append(squared((gains[:, None] * waves).conj() @ z @ response[..., block]))
    return torch.cat(parts, -1)


def _blocks(echoes: Echoes, range_m: Tensor, phase: float) -> Iterator[slice]:
    """Neighbouring ranges whose spherical waves differ by less than `phase` radians from the one in their middle."""
    bend = math.pi * float(positions_of(echoes).abs().max()) ** 2  # phase per unit of nearness, in wavelengths
    nearness = bend * echoes.wavelength_m / range_m.double()
    start = 0
    for j in range(1, nearness.shape[-1] + 1):
        if j == nearness.shape[-1] or float((nearness[..., j] - nearness[..., start]).abs().max()) > 2 * phase:
            yield slice(start, j)
            start = j


def _range_grid(echoes: Echoes, count: int) -> Tensor:
    """Equally spaced ranges, ends included: (count) where limits are shared, else (n, count)."""
    limits = echoes.range_limits_m.to(echoes.y.real)
    shift = torch.linspace(0, 1, count, dtype=limits.dtype, device=limits.device)
    return limits[..., :1] + (limits[..., 1:] - limits[..., :1]) * shift


def _every(count: int, step: int, echoes: Echoes) -> Tensor:
    """0, step, 2 step, ... and the last."""
    index = torch.arange(0, count, step, device=echoes.y.device)
    return index if int(index[-1]) == count - 1 else torch.cat([index, index.new_tensor([count - 1])])


def _window(index: Tensor, step: int, count: int) -> Tensor:
    """The indices around each that lie nearer to it than its coarse neighbours do."""
    reach = torch.arange(-(step - 1), step, device=index.device)
    return (index[:, None] + reach).clamp(0, count - 1)


def _chunks(count: int, per_item: int) -> Iterator[slice]:
    size = max(1, MAP_VALUES // per_item)
    yield from (slice(start, start + size) for start in range(0, count, size))


def _climb(
    echoes: Echoes,
    z: Tensor,
    gains: Tensor,
    start: tuple[Tensor, Tensor, Tensor],
    step: tuple[Tensor, Tensor],
    box: tuple[Tensor, Tensor],
    steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(u, range, |c|^2) after `steps` quadratic fits from `start`, kept in the box; each (n)."""
    spots = torch.tensor([-1.0, 0.0, 1.0], dtype=start[0].dtype, device=start[0].device)
    at, best = torch.stack(start[:2], -1), start
    width = torch.stack(step, -1)
    low, high = (torch.stack([box[0][:, k], box[1][:, k]], -1) for k in (0, 1))
    for number in range(steps + 1):
        last = number == steps
        around = at[:, :, None] + (0 * spots[:1] if last else spots) * width[:, :, None]
        values = _map(echoes, z, gains, around[:, 0], around[:, 1], 0.0)
        middle = values[:, 0, 0] if last else values[:, 1, 1]
        u, range_m, top = (
            torch.where(middle > best[2], new, old) for new, old in zip((at[:, 0], at[:, 1], middle), best, strict=True)
        )
        best = u, range_m, top
        if not last:
            room = width.clamp_min(torch.finfo(width.dtype).tiny)
            limits = ((low - at) / room).clamp(-1, 0), ((high - at) / room).clamp(0, 1)
            at = (at + width * _newton(values, *limits)).clamp(low, high)
            width = width / SHRINK
    return best


def _newton(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where the quadratic through 3 x 3 values is largest within low..high, (n, 2) in spacings; where it has no
    maximum, the place of the largest of the nine."""
    f = values / values.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    slope = (f[:, 2] - f[:, 0]).mean(-1) / 2, (f[:, :, 2] - f[:, :, 0]).mean(-1) / 2
    bend = (f[:, 2] - 2 * f[:, 1] + f[:, 0]).mean(-1), (f[:, :, 2] - 2 * f[:, :, 1] + f[:, :, 0]).mean(-1)
    cross = (f[:, 2, 2] - f[:, 2, 0] - f[:, 0, 2] + f[:, 0, 0]) / 4
    determinant = bend[0] * bend[1] - cross.square()
    peak = (determinant > 0) & (bend[0] < 0)
    one = torch.where(peak, (cross * slope[1] - bend[1] * slope[0]) / torch.where(peak, determinant, 1.0), 0.0)
    jumps = [one.clamp(low[:, 0], high[:, 0]), one]
    for axis in (1, 0, 1):  # at an edge the other axis moves along it
        other = -(slope[axis] + cross * jumps[1 - axis]) / torch.where(peak, bend[axis], -1.0)
        jumps[axis] = other.clamp(low[:, axis], high[:, axis])
    place = f.flatten(1).argmax(-1)
    largest = torch.stack([place // 3 - 1, place % 3 - 1], -1).to(f.dtype).clamp(low, high)
    return torch.where(peak[:, None], torch.stack(jumps, -1), largest)
