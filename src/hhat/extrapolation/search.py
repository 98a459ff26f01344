"""Which paths there are: peaks of what the fitted ones leave, over all symbols and the whole band at once."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.extrapolation.columns import columns
from hhat.extrapolation.fit import path_gram, steered
from hhat.extrapolation.model import Sounding
from hhat.extrapolation.task import Point, Task
from hhat.ops.linalg import cholesky, squared

OVERSAMPLING = 2
"""Points of the search per cell of delay and of each angle."""
APART = 1.5
"""Cells of delay between peaks that are taken at once."""
EVEN = 1e-3
"""Steps of the tone grid by which a tone may be off it."""
DOPPLER_CELLS = 0.75
"""Largest Doppler shift, in cells (1 / duration), below which only paths at rest are searched."""


class Peaks(NamedTuple):
    """Peaks of a residual, strongest first: place (item, peak): delay_s, cosine (.., 2), doppler_hz; gain, that of
    one path there alone; worth, by how many noise variances it lowers |residual|^2 (0: no peak)."""

    delay: Tensor
    cosine: Tensor
    doppler: Tensor
    gain: Tensor
    worth: Tensor


def peaks(task: Task, rest: Complex[Tensor, "item symbol tone rx_ant"], count: int) -> Peaks:
    """The `count` strongest places, APART in delay, of |sum_m d(tau)^H R_m conj(b) e^{-j 2 pi f t_m}|^2 / samples.

    One zero-padded Fourier transform over the tones and both array axes (single precision: only the start of a fit
    depends on it), once per Doppler shift of a grid where the symbols span more than DOPPLER_CELLS of its cells.
    Raises ValueError where the tones lie on no even grid.
    """
    model, items = task.model, len(rest)
    slot, size, spacing = tone_slots(task)
    length = 1 << (OVERSAMPLING * size - 1).bit_length()
    shape = [OVERSAMPLING * n for n in (model.columns, model.rows)]
    samples = rest.shape[1] * rest.shape[2] * rest.shape[3]
    shifts = doppler_grid(task)
    scale = rest.abs().amax((-3, -2, -1)).clamp_min(1e-300)
    scaled = (rest / scale[:, None, None, None]).to(torch.complex64)
    best: list[Tensor] = []  # energy, cell of the angles, match and shift of every delay
    for value in shifts:
        turn = torch.polar(torch.ones_like(task.times), -2 * math.pi * value * task.times).to(scaled.dtype)
        whole = scaled.new_zeros(items, size, model.num_rx_ant)
        whole.index_add_(1, slot.flatten(), (scaled * turn[:, None, None]).flatten(1, 2))
        angles = torch.fft.fft2(whole.unflatten(-1, (model.columns, model.rows)), s=shape)
        match = torch.fft.ifft(angles.flatten(2), length, dim=1, norm="forward")
        energy, place = squared(match).max(-1)
        part = [energy, place, match.gather(-1, place[..., None])[..., 0], torch.full_like(energy, value)]
        if best:
            better = energy > best[0]
            part = [torch.where(better, new, old) for new, old in zip(part, best, strict=True)]
        best = part
    energy, place, gain, shift = best
    apart = max(1, round(APART * length / size))
    near = torch.arange(-apart, apart + 1, device=rest.device)
    taken, values = [], []
    for _ in range(count):
        value, bin_ = energy.max(-1)
        taken.append(bin_)
        values.append(value)
        energy = energy.scatter(-1, (bin_[:, None] + near) % length, 0.0)
    bins = torch.stack(taken, -1)
    worth = torch.stack(values, -1).double() / samples * (scale.square() / task.noise_var)[:, None]
    cell = place.gather(-1, bins)
    u, v = cell // shape[1], cell % shape[1]
    # position x_n = (n - (N - 1) / 2) / 2, so a cosine of 2 makes a cycle per element
    cosine = torch.stack([2 * u / shape[0], 2 * v / shape[1]], -1).double()
    cosine = torch.remainder(cosine + 1, 2) - 1
    place = bins.double() / length
    delay = torch.where(place > 0.875, place - 1, place) / spacing
    gain = gain.gather(-1, bins).to(torch.complex128) / samples * scale[:, None]
    # the transforms count tones and elements from the first one, the model from the middle
    first = task.frequency.min() if len(slot) else task.frequency.new_zeros(())
    centre = model.positions(delay)[0]
    gain = gain * torch.polar(torch.ones_like(delay), 2 * math.pi * (first * delay - cosine @ centre))
    return Peaks(delay, cosine, shift.gather(-1, bins).double(), gain, worth)


def tone_slots(task: Task) -> tuple[Tensor, int, float]:
    """Where each sounded tone lies on an even grid, (symbol, tone); the grid's size and its step in Hz."""
    tones = task.frequency.flatten().unique()
    step = float(tones.diff().min()) if len(tones) > 1 else 1.0
    place = (task.frequency - tones[0]) / step
    if bool(((place - place.round()).abs() > EVEN).any()):
        raise ValueError("sounding: frequency_hz: the search needs evenly spaced tones (some may be missing)")
    slot = place.round().long()
    return slot[list(task.band)], int(slot.max()) + 1, step


def doppler_grid(task: Task) -> list[float]:
    """Doppler shifts to search: multiples of 1 / duration up to the largest; 0 alone where that is a small share."""
    duration = float(task.times.max() - task.times.min())
    cells = task.model.doppler_hz * duration
    count = 0 if cells < DOPPLER_CELLS else math.ceil(cells)
    return [step / duration for step in range(-count, count + 1)] if count else [0.0]


def appended(point: Point, found: Peaks, wanted: Tensor) -> Point:
    """The point with the wanted peaks (item, peak) in its first places that are free, as far as there are any."""
    slots = torch.arange(point.mask.shape[-1], device=wanted.device)
    gain, delay, cosine, rate, mask = point.gain, point.delay, point.cosine, point.rate, point.mask
    for k in range(wanted.shape[-1]):
        free = (~mask).to(torch.int8).argmax(-1)
        here = (slots == free[:, None]) & ~mask & wanted[:, k : k + 1]
        gain = torch.where(here, found.gain[:, k : k + 1], gain)
        delay = torch.where(here, found.delay[:, k : k + 1], delay)
        cosine = torch.where(here[..., None], found.cosine[:, None, k], cosine)
        rate = torch.where(here[..., None], found.doppler[:, None, k : k + 1], rate)
        mask = mask | here
    return Point(gain, delay, cosine, rate, point.phase, point.timing, mask)


def thinned(task: Task, point: Point, gain_var: Tensor, price: float, most: int) -> Point:
    """Without those paths, `most` at the most, whose removal costs less than `price` noise variances: one at a time,

    cost_k = |gain_k|^2 / [(G + ridge)^-1]_kk / noise_var,  G the Gram matrix of the paths over all symbols
    """
    made = columns(task, point)
    for _ in range(most):
        point, inverse = steered(task, point, gain_var, made), path_gram(task, point, gain_var, made)
        inverse = torch.cholesky_inverse(cholesky(inverse)[0]).diagonal(dim1=-2, dim2=-1).real
        cost = squared(point.gain) / inverse / task.noise_var[:, None]
        cost, place = torch.where(point.mask, cost, math.inf).min(-1)
        gone = cost < price
        if not bool(gone.any()):
            break
        here = torch.arange(point.mask.shape[-1], device=gone.device) == place[:, None]
        mask = point.mask & ~(here & gone[:, None])
        point = point._replace(mask=mask, gain=point.gain * mask)
    return steered(task, point, gain_var, made)


def noise_floor(task: Task) -> Float[Tensor, " item"]:
    """Noise variance of all symbols of an item, see `quiet_power`."""
    return quiet_power(task.model, task.y)


def quiet_power(model: Sounding, y: Complex[Tensor, "item symbol tone rx_ant"]) -> Float[Tensor, " item"]:
    """Noise variance from the quieter half of delays and angles: tones under a Hann window (against leakage), Fourier
    transformed, median of the squares over ln 2. Too high where paths fill more than half of them."""
    window = torch.hann_window(y.shape[2] + 2, periodic=False, dtype=torch.float64, device=y.device)[1:-1]
    shape = (model.columns, model.rows)
    seen = torch.fft.fftn((y * window[:, None]).unflatten(-1, shape), dim=(2, 3, 4), norm="backward")
    scale = window.square().sum() * model.num_rx_ant
    return (squared(seen) / scale).flatten(1).median(-1).values / math.log(2)
