"""What paths look like along tones and antennas, and what is made of them without their Kronecker products."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.extrapolation.model import delay_steering
from hhat.extrapolation.task import Point, Task

ARRAY_TYPE, TONE_TYPE = (0, 0, 1, 2), (0, 1, 0, 0)
"""Which derivative along the array (none, u, v) and along the tones (none, delay) makes a path's value, d/dtau, d/du,
d/dv."""
FINE = 16
"""Tones whose steering is made from a coarse and a fine factor."""


@dataclass(frozen=True, eq=False)
class Columns:
    """What all paths look like: tones (item, band, tone, 2 path) values, then d/dtau; array (item, rx_ant, path);
    turn (item, symbol, path), of unit modulus; places (rx_ant, 2), j 2 pi times the antennas' positions."""

    tones: Tensor
    array: Tensor
    turn: Tensor
    places: Tensor

    @cached_property
    def tone_gram(self) -> Complex[Tensor, "item band column column"]:
        return self.tones.mH @ self.tones

    @cached_property
    def array_gram(self) -> Complex[Tensor, "item column column"]:
        """Of [array, d/du, d/dv]."""
        slopes = torch.cat([self.array, self.places[:, :1] * self.array, self.places[:, 1:] * self.array], -1)
        return slopes.mH @ slopes


def columns(task: Task, point: Point) -> Columns:
    value = steering(task.frequency, point.delay[:, None])
    tones = torch.cat([value, -2j * math.pi * task.frequency[..., None] * value], -1)
    angle = point.phase[..., None] + torch.einsum("mj,bkj->bmk", task.doppler.basis(task.times), point.rate)
    turn = torch.polar(torch.ones_like(angle), angle)
    phase = task.places.imag @ point.cosine.mT
    return Columns(tones, torch.polar(torch.ones_like(phase), phase), turn, task.places)


def matched(task: Task, point: Point, made: Columns) -> Complex[Tensor, "item symbol 4 path"]:
    """Correlations of y with every path's value, d/dtau, d/du, d/dv at gain 1."""
    y = task.y * late(task, point).conj()
    paths = point.gain.shape[-1]
    back = torch.stack([made.tones[:, band].mH @ y[:, m] for m, band in enumerate(task.band)], 1)
    back = back.unflatten(2, (2, paths)) * made.array.mH[:, None, None]
    slopes = torch.cat([torch.ones_like(made.places[:, :1]), made.places.conj()], -1)
    value, slope = back[:, :, 0] @ slopes, back[:, :, 1].sum(-1)
    found = torch.stack([value[..., 0], slope, value[..., 1], value[..., 2]], 2)
    return found * made.turn.conj()[:, :, None]


def steering(
    frequency: Float[Tensor, "band tone"], delay: Float[Tensor, "item 1 path"]
) -> Complex[Tensor, "item band tone path"]:
    """`delay_steering` of even tones with fewer exponentials: every FINE-th tone times FINE neighbours."""
    count, steps = frequency.shape[-1], frequency.diff(dim=-1)
    if count < 4 * FINE or bool((steps - steps[:1, :1]).abs().amax() > 1e-3):
        return delay_steering(frequency, delay)
    coarse = delay_steering(frequency[:, ::FINE], delay)
    fine = delay_steering(frequency[:1, :FINE] - frequency[:1, :1], delay)
    return (coarse[..., :, None, :] * fine[..., None, :, :]).flatten(-3, -2)[..., :count, :]


def weights(
    task: Task, point: Point, made: Columns, around: Complex[Tensor, "item type path"] | None = None
) -> Complex[Tensor, "item symbol kind path"]:
    """Of every path's value in each symbol; with `around`, the coefficients of `spread` beside the gains, of d/dtau,
    d/du, d/dv too."""
    value = point.gain[:, None].expand_as(made.turn)
    if around is None:
        return (value * made.turn)[:, :, None]
    basis = task.doppler.basis(task.times).to(around.dtype)
    value = value + around[:, None, 0] + torch.einsum("mj,bjk->bmk", basis, around[:, 4:])
    rest = around[:, None, 1:4].expand(-1, value.shape[1], -1, -1)
    return torch.cat([value[:, :, None], rest], 2) * made.turn[:, :, None]


def combined(
    made: Columns,
    tones: Complex[Tensor, "item band tone column"],
    weight: Complex[Tensor, "item symbol kind path"],
    band: list[int],
) -> Complex[Tensor, "item symbol tone rx_ant"]:
    """Sum over paths and types of weights times columns, without the symbols' timing. tones: values, then d/dtau, of
    the bands that `band` names for each symbol."""
    array = made.array[:, None]
    right = array * weight[:, :, None, 0]
    if weight.shape[2] > 1:
        along = made.places[:, :1] * weight[:, :, None, 2] + made.places[:, 1:] * weight[:, :, None, 3]
        right = torch.cat([right + array * along, array * weight[:, :, None, 1]], -1)
    left = tones[..., : right.shape[-1]]
    return torch.stack([left[:, kind] @ right[:, m].mT for m, kind in enumerate(band)], 1)


def late(task: Task, point: Point) -> Complex[Tensor, "item symbol tone 1"]:
    """What the timing of each symbol makes of its tones."""
    return delay_steering(task.frequency[list(task.band)], point.timing[..., None])


def residual(
    task: Task, point: Point, around: Complex[Tensor, "item type path"] | None = None
) -> Complex[Tensor, "item symbol tone rx_ant"]:
    """What the fitted paths, and what is `around` them (`spread`), leave of y; each symbol's phase and timing taken
    off."""
    still = point._replace(phase=torch.zeros_like(point.phase))
    made = columns(task, still)
    back = torch.polar(torch.ones_like(point.phase), -point.phase)[..., None, None]
    fitted = combined(made, made.tones, weights(task, still, made, around), list(task.band))
    return task.y * late(task, point).conj() * back - fitted


def channel_at(
    task: Task, point: Point, around: Complex[Tensor, "item type path"] | None = None
) -> Complex[Tensor, "item rx_ant symbol subcarrier"]:
    """The channel on all tones, of the paths and what is `around` them (`spread`)."""
    made, tones = columns(task, point), whole_band(task, point)
    h = combined(made, tones, weights(task, point, made, around), [0] * len(task.times))
    shift = delay_steering(task.model.tones_hz(point.delay), point.timing[..., None])
    return (h * shift).movedim(-1, 1)


def whole_band(task: Task, point: Point) -> Complex[Tensor, "item 1 subcarrier column"]:
    """Tone columns of all subcarriers: values, then d/dtau."""
    f = task.model.tones_hz(point.delay)[None]
    value = steering(f, point.delay[:, None])
    return torch.cat([value, -2j * math.pi * f[..., None] * value], -1)
