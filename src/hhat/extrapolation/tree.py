"""The tree of one sounding symbol: groups of paths by delay, the angles of each group, the delay of each angle."""

import math

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from hhat.extrapolation.fit import steered
from hhat.extrapolation.model import Sounding, delay_steering
from hhat.extrapolation.normal import Point, Task, columns
from hhat.extrapolation.subspace import (
    NOISE_EDGE,
    OVERLAP_EDGE,
    Subspace,
    mdl_rank,
    of_rank,
    peaks,
    refined,
    share_grid,
    smoothed,
)
from hhat.ops.linalg import squared

SHARE = 0.5
"""Least part of a steering vector inside the signal subspace where it is taken for a source."""
APART = 0.7
"""Least distance of two groups, in cells (1 / sounded bandwidth)."""
SAME = 0.97
"""Steering vectors of this coherence or more are one path."""
WORTH = 3.0
"""A path stays if its |gain|^2 is above this times noise_var log(samples) / samples."""
EARLY = 0.1
"""Share of the unambiguous delays that counts as negative."""
PAD = 8
LOADING = 1e-6
"""On the diagonal of the filters' Gram matrices, as a share of it."""


def tree(task: Task, num_paths: int, smooth: bool, max_groups: int = 16, max_angles: int = 4) -> Point:
    """Paths of a task of one symbol on an evenly spaced comb, strongest first, num_paths of them, padded.

      Y = U S V^H;  1  peaks of ||Us^H a(tau)||^2 / N -> groups        2  Y_i = (I - P of the other groups' a) Y
      3  peaks of ||Vi^H b(u, v)||^2 / M on Y_i -> angles              4  z_ij = Y_i w_ij, blind to the group's others
      5  the peak of |z_ij^H a(tau)|^2 near the group -> delay         6  gains by least squares; weak ones, doubles off
    smooth: step 1 on sub-bands of the r signal columns (`smoothed`), where paths of one angle stand apart; without,
      antennas are the only snapshots.
    Everything is batched over items, groups padded to those of the item with the most, angles to max_angles: no loop.
    Steps 2 to 4 run on the r columns Y V_r, since what noise adds outside is no signal; Y_i is never formed.
    Source: Wan & Liu 2024, section on TST-MUSIC, eqs. (4)-(9), as reconstructed; frequency smoothing and step 6 added.
    Raises ValueError where the comb is not evenly spaced.
    """
    y, sigma = task.y[:, 0], task.noise_var.sqrt()
    step_hz = _step(task.frequency[0])
    num, ants = y.shape[-2:]
    u, s, vh = torch.linalg.svd(y, full_matrices=False)
    # of one singular value MDL has nothing to compare with
    rank = mdl_rank(s, max(num, ants)) if min(num, ants) > 1 else torch.ones_like(s[:, 0], dtype=torch.int64)
    signal, right = of_rank(u, s, rank), of_rank(vh.mH, s, rank).basis
    cells = signal.basis * signal.singular[..., None, :]  # (item, tone, r), Y V_r
    cycles, there = _groups(signal, rank, sigma, smooth, max_groups)
    late = delay_steering(_places(num, y)[:, 0], cycles) * there[..., None, :]  # (item, tone, group)
    part, kept = _filtered(late, there, cells, signal)
    power, inner = torch.linalg.eigh(kept)
    power, inner = power.flip(-1).clamp_min(0).sqrt(), inner.flip(-1)
    edge = NOISE_EDGE * sigma * (num**0.5 + ants**0.5)
    many = (power > edge[:, None, None]).sum(-1).clamp_max(max_angles) * there
    beams, cosine, found = _angles(task.model, right.conj()[:, None] @ inner.conj(), power, many, max_angles)
    inside = right.mH[:, None] @ beams
    z = cells[:, None] @ inside - late[:, None] @ (part @ inside)  # (item, group, tone, angle)
    start = cycles.repeat_interleave(found.shape[-1], -1)
    period = 1 / abs(step_hz)
    delay = torch.remainder(_delays(z.mT.flatten(1, 2), start) / step_hz + EARLY * period, period) - EARLY * period
    return _kept(task, delay, cosine.flatten(1, 2), found.flatten(1), num_paths)


def noise_level(y: Complex[Tensor, "*batch tone rx_ant"]) -> Float[Tensor, "*batch"]:
    """Noise variance per entry of Y: what lies outside its signal subspace of MDL's rank, per degree of freedom."""
    num, ants = y.shape[-2:]
    s = torch.linalg.svdvals(y)
    rank = mdl_rank(s, max(num, ants))
    out = torch.arange(s.shape[-1], device=s.device) >= rank[..., None]
    free = ((num - rank) * (ants - rank)).clamp_min(1)
    return (s.square() * out).sum(-1) / free


def _step(frequency: Float[Tensor, " tone"]) -> float:
    steps = frequency.diff()
    if len(steps) == 0 or float((steps - steps[0]).abs().max()) > 1e-6 * abs(float(steps[0])):
        got = [float(found) for found in steps.unique()][:4]
        raise ValueError(f"tst-music: expected evenly spaced tones, two or more, in every symbol, got steps {got} Hz")
    return float(steps[0])


def _groups(
    signal: Subspace, rank: Int[Tensor, " item"], sigma: Tensor, smooth: bool, most: int
) -> tuple[Float[Tensor, "item group"], Bool[Tensor, "item group"]]:
    """Delays in cycles per tone."""
    basis, num = signal.basis, signal.basis.shape[-2]
    if smooth:
        z = smoothed(basis * signal.singular[..., None, :])
        u, s, _ = torch.linalg.svd(z, full_matrices=False)
        snapshots = z.shape[-1] / basis.shape[-1] * rank  # those of padding are zeros
        edge = OVERLAP_EDGE * sigma * (z.shape[-2] ** 0.5 + snapshots.sqrt())
        basis = of_rank(u, s, (s > edge[:, None]).sum(-1)).basis
    size = basis.shape[-2]
    top = peaks(share_grid(basis, (size,), PAD), 1, most, (round(APART * PAD * size / num),), SHARE)
    count = max(1, int(top.mask.sum(-1).max()))
    there, step = top.mask[:, :count], 1 / (PAD * size)
    reach = torch.full((1,), step, dtype=torch.float64, device=basis.device)
    spot = refined(basis, _places(size, basis), top.index[:, :count].double() * step, reach)
    # delays turn tones backwards
    return torch.where(there, torch.remainder(-spot[..., 0], 1.0), 0.0), there


def _filtered(late: Tensor, there: Tensor, cells: Tensor, signal: Subspace) -> tuple[Tensor, Tensor]:
    """Y_i = Y V_r - A part_i, A all groups; and Y_i^H Y_i: (item, group, group, r), (item, group, r, r)."""
    num, count = late.shape[-2:]
    eye = torch.eye(count, dtype=late.dtype, device=late.device)
    gram, seen = (late.mH @ late)[:, None], (late.mH @ cells)[:, None]
    other = there[:, None] & (eye.real == 0)  # (item, group, other)
    system = torch.where(other[..., :, None] & other[..., None, :], gram + LOADING * num * eye, eye)
    seen = torch.where(other[..., None], seen, 0.0)
    part = torch.linalg.solve(system, seen)
    cross = seen.mH @ part
    whole = torch.diag_embed(signal.singular.square()).to(late.dtype)[:, None]
    return part, whole - cross - cross.mH + part.mH @ (gram @ part)


def _angles(
    model: Sounding, vectors: Tensor, power: Tensor, many: Int[Tensor, "item group"], most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Beams (item, group, rx_ant, angle), cosines and which are there."""
    spatial = of_rank(vectors, power, many).basis
    sizes = (model.columns, model.rows)
    top = peaks(share_grid(spatial, sizes, PAD), 2, most, (PAD // 2, PAD // 2), SHARE)
    found = top.mask & (torch.arange(top.mask.shape[-1], device=many.device) < many[..., None])
    step = torch.tensor([2 / (PAD * size) for size in sizes], dtype=torch.float64, device=many.device)
    cosine = refined(spatial, model.positions(step), top.index.double() * step, step)
    b = model.array_steering(cosine).mT * found[..., None, :]
    load = torch.diag_embed(torch.where(found, LOADING * model.num_rx_ant, 1.0)).to(b.dtype)
    beams = b.conj() @ torch.linalg.inv(b.mT @ b.conj() + load)
    return beams, torch.remainder(cosine + 1, 2) - 1, found


def _delays(z: Complex[Tensor, "item path tone"], start: Float[Tensor, "item path"]) -> Float[Tensor, "item path"]:
    """Cycles per tone of the peak of |z^H a| within half a cell of the start."""
    num = z.shape[-1]
    places = _places(num, z)
    offset = torch.linspace(-0.5, 0.5, PAD + 1, dtype=torch.float64, device=z.device) / num
    tried = start[..., None] + offset
    energy = squared(delay_steering(places[:, 0], tried).mH @ z[..., None])[..., 0]
    spot = tried.gather(-1, energy.argmax(-1, keepdim=True))
    reach = torch.full((1,), 1 / (PAD * num), dtype=torch.float64, device=z.device)
    return refined(z[..., None], -places, spot[..., None], reach)[..., 0, 0]


def _kept(task: Task, delay: Tensor, cosine: Tensor, mask: Tensor, num_paths: int) -> Point:
    """Gains, without paths that are weak or another's double, strongest first."""
    samples = task.y.shape[-1] * task.y.shape[-2]
    point = _steered(task, delay, cosine, mask)
    strong = squared(point.gain) > WORTH * task.noise_var[:, None] * math.log(samples) / samples
    size, order = torch.where(mask & strong, point.gain.abs(), 0.0).sort(dim=-1, descending=True, stable=True)
    point, mask = _ordered(point, order), size > 0
    made = columns(task, point)
    paths = delay.shape[-1]
    alike = (made.tone_gram[:, 0, :paths, :paths] * made.array_gram[:, :paths, :paths]).abs() > SAME * samples
    mask = mask & ~(alike.tril(-1) & mask[:, None]).any(-1)
    order = (~mask).to(torch.int8).argsort(dim=-1, stable=True)[:, :num_paths]
    point = _ordered(point._replace(mask=mask), order)
    return _steered(task, point.delay, point.cosine, point.mask).sized(num_paths)


def _steered(task: Task, delay: Tensor, cosine: Tensor, mask: Tensor) -> Point:
    offset = delay.new_zeros(len(delay), 1)
    rate = delay.new_zeros(*delay.shape, task.doppler.basis(task.times).shape[-1])
    start = Point(torch.zeros_like(delay, dtype=torch.complex128), delay, cosine, rate, offset, offset, mask)
    return steered(task, start, None)


def _ordered(point: Point, order: Tensor) -> Point:
    pick = lambda x: x.gather(1, order.reshape(*order.shape, *(1,) * (x.ndim - 2)).expand(*order.shape, *x.shape[2:]))  # noqa: E731
    gain, delay, cosine, rate, phase, timing, mask = point
    return Point(pick(gain), pick(delay), pick(cosine), pick(rate), phase, timing, pick(mask))


def _places(num: int, like: Tensor) -> Float[Tensor, "row 1"]:
    return (torch.arange(num, dtype=torch.float64, device=like.device) - (num - 1) / 2)[:, None]
