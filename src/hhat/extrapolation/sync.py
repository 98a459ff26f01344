"""Where in time and phase each symbol lies, by a search over a grid: a local step would find the next best lobe."""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.extrapolation.columns import columns
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding
from hhat.extrapolation.task import Point, Task
from hhat.ops.linalg import cholesky, squared

GRID_STEP = 0.2
"""Of the timing search, in cells of the sounded tones (1 / their width)."""
ZOOM = (8, 2)
"""By which the grid is refined around its best point, and how often."""
REACH = 4.0
"""Standard deviations of the timing that the search spans to either side."""


def timing_search(
    model: Sounding,
    paths: Paths,
    pilots: Sounded,
    times: Float[Tensor, " symbol"],
    coherent: bool = False,
    reach_s: float | None = None,
) -> Offsets:
    """Timing and phase of every symbol, all items and symbols at once.

      e(d) = r(d)^H G^-1 r(d),  r_k(d) = sum_n e^{j 2 pi f_n d} conj(a_k[n]) (Y conj(B))[n, k],  G of the paths
    is what gains free in each symbol explain at timing d; phase: that of their common turn against the given gains.
    coherent: gains and Doppler shifts are taken as they are (better once they are known), e(d) = 2 |x^H r(d)|.
    The prior of the timing is in both. reach_s: of the search to either side (default: REACH standard deviations).
    Gauge: symbol 0 is searched like the others; subtract its offsets where it is to be the reference (`aligned`).
    Source: Wan & Liu 2024, section on initialisation, its unpaired delays replaced by the concentrated energy.
    """
    task = Task.make(model, pilots, times)
    zero = torch.zeros(*paths.gain.shape[:-1], len(times), dtype=torch.float64, device=paths.delay_s.device)
    phase, timing = searched(task, task.point(paths, Offsets(zero, zero)), coherent, reach_s)
    return Offsets(phase.reshape(zero.shape), timing.reshape(zero.shape))


def searched(task: Task, point: Point, coherent: bool, reach_s: float | None = None) -> tuple[Tensor, Tensor]:
    """`timing_search` of a task: phase and timing, (item, symbol); the point's own are not used."""
    zero = torch.zeros_like(point.timing)
    point = point._replace(phase=zero, timing=zero)
    made, band, paths = columns(task, point), list(task.band), point.gain.shape[-1]
    steered = made.tones[:, band, :, :paths].conj() * (task.y @ made.array.conj()[:, None])
    steered = steered * made.turn.conj()[:, :, None]  # (item, symbol, tone, path)
    gram = made.tone_gram[:, band, :paths, :paths] * made.array_gram[:, None, :paths, :paths]
    gram = gram * (made.turn.conj()[..., :, None] * made.turn[..., None, :])
    known = (gram @ point.gain[:, None, :, None])[..., 0]
    own = point.gain.conj()[:, None]
    factor = None
    if coherent:
        steered = (steered * own[:, :, None]).sum(-1, keepdim=True)
    else:
        there = point.mask[:, :, None] & point.mask[:, None]
        level = gram.diagonal(dim1=-2, dim2=-1).real.amax(-1, keepdim=True)
        ridge = torch.where(point.mask[:, None], 1e-6 * level, 1.0)
        factor = cholesky(gram * there[:, None] + ridge.diag_embed())[0]
        steered = steered * point.mask[:, None, None]
    width = (task.frequency.amax(-1) - task.frequency.amin(-1)).clamp_min(1.0)[band]
    spread = task.model.timing_var**0.5
    reach = REACH * spread if reach_s is None else reach_s
    step = GRID_STEP / width[None, :, None]
    count = min(512, math.ceil(reach / float(step.amin())))
    grid = step * torch.arange(-count, count + 1, device=step.device, dtype=step.dtype)
    grid = grid.clamp(-reach, reach).expand(len(point.gain), -1, -1)
    best = grid[..., count]
    for zoom in range(ZOOM[1] + 1):
        if zoom:
            step = step / ZOOM[0]
            fine = torch.arange(-ZOOM[0], ZOOM[0] + 1, device=step.device, dtype=step.dtype)
            grid = (best[..., None] + step * fine).clamp(-reach, reach)
        energy = _energy(task, steered, factor, grid)
        if spread > 0:
            energy = energy - grid.square() * (task.noise_var / (2 * task.model.timing_var))[:, None, None]
        best = grid.gather(-1, energy.argmax(-1, keepdim=True))[..., 0]
    best = best + step[..., 0] * _vertex(energy)
    there = _turned(task, best[..., None]) @ steered  # (item, symbol, 1, path)
    if factor is None:
        phase = there[..., 0, 0].angle()
    else:
        gain = torch.cholesky_solve(there.mT, factor)[..., 0]
        phase = (known.conj() * gain).sum(-1).angle()
    return phase, best


def _turned(task: Task, late: Float[Tensor, "item symbol shift"]) -> Complex[Tensor, "item symbol shift tone"]:
    angle = 2 * math.pi * late[..., None] * task.frequency[list(task.band)][:, None]
    return torch.polar(torch.ones_like(angle), angle)


def _energy(task: Task, steered: Tensor, factor: Tensor | None, grid: Tensor) -> Float[Tensor, "item symbol shift"]:
    """By what |y - h|^2 falls at each timing, the phase (and, with a factor, all gains) at their best; its part
    that depends on the timing."""
    found = _turned(task, grid) @ steered
    if factor is None:
        return 2 * found[..., 0].abs()
    return squared(torch.linalg.solve_triangular(factor, found.mT, upper=False)).sum(-2)


def _vertex(energy: Float[Tensor, "item symbol shift"]) -> Float[Tensor, "item symbol"]:
    """Of the parabola through the largest value and its neighbours, in steps from it; 0 at the ends."""
    place = energy.argmax(-1, keepdim=True)
    inner = place.clamp(1, energy.shape[-1] - 2)
    low, top, high = (energy.gather(-1, inner + shift)[..., 0] for shift in (-1, 0, 1))
    bend = 2 * top - low - high
    off = torch.where(bend > 0, (high - low) / (2 * bend), 0.0).clamp(-0.5, 0.5)
    return torch.where((inner == place)[..., 0], off, 0.0)


def gauged(point: Point) -> Point:
    """`aligned`, of a point."""
    phase, timing = point.phase[:, :1], point.timing[:, :1]
    gain = point.gain * torch.polar(torch.ones_like(phase), phase)
    delay = torch.where(point.mask, point.delay + timing, point.delay)
    return point._replace(gain=gain, delay=delay, phase=point.phase - phase, timing=point.timing - timing)


def aligned(paths: Paths, offsets: Offsets) -> tuple[Paths, Offsets]:
    """The same channel with phase and timing 0 at symbol 0: the paths take them over."""
    phase, timing = offsets.phase_rad[..., :1], offsets.timing_s[..., :1]
    gain = paths.gain * torch.polar(torch.ones_like(phase), phase)
    moved = paths._replace(gain=gain, delay_s=paths.delay_s + timing)
    return moved, Offsets(offsets.phase_rad - phase, offsets.timing_s - timing)
