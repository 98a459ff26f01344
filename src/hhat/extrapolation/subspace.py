"""Subspaces of a block of pilots and how much of a steering vector lies in them: MUSIC without divisions."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from hhat.ops.linalg import squared

NOISE_EDGE = 1.15
"""Factor on sigma (sqrt(rows) + sqrt(columns)), where the largest singular value of noise lies."""
OVERLAP_EDGE = 1.5
"""The same for sub-bands that overlap: of 200 draws of noise 95 % lay below 1.3, at 24 to 250 tones and 1 to 5 columns."""


class Subspace(NamedTuple):
    """Orthonormal columns (*batch, row, rank), zero beyond each item's rank, and the singular values that go with
    them."""

    basis: Complex[Tensor, "*batch row rank"]
    singular: Float[Tensor, "*batch rank"]

    @property
    def rank(self) -> Int[Tensor, "*batch"]:
        return (self.singular > 0).sum(-1)


def mdl_rank(singular: Float[Tensor, "*batch value"], snapshots: int) -> Int[Tensor, "*batch"]:
    """Number of sources: argmin over k of

      MDL(k) = -n (p - k) log(geometric / arithmetic mean of the p - k smallest lambda) + k (2 p - k) log(n) / 2

    lambda = singular^2 / n, descending; p of them, n snapshots. Source: Wax & Kailath, IEEE TASSP 33(2), 1985, eq. 17.
    """
    num = singular.shape[-1]
    power = singular.square() / snapshots
    power = power.clamp_min(1e-15 * power[..., :1]).clamp_min(torch.finfo(power.dtype).tiny)
    kept = torch.arange(num, dtype=power.dtype, device=power.device)
    left = num - kept
    tail = lambda x: x.flip(-1).cumsum(-1).flip(-1) / left  # noqa: E731
    ratio = tail(power.log()) - tail(power).log()
    mdl = -snapshots * left * ratio + 0.5 * kept * (2 * num - kept) * math.log(snapshots)
    return mdl.argmin(-1)


def of_rank(vectors: Tensor, singular: Tensor, rank: Int[Tensor, "*batch"]) -> Subspace:
    """The leading columns, zeros beyond each item's rank; as many columns as the largest rank, at least one."""
    most = max(1, int(rank.max()))
    kept = torch.arange(most, device=rank.device) < rank[..., None]
    values = torch.where(kept, singular[..., :most], 0.0)
    return Subspace(torch.where(kept[..., None, :], vectors[..., :most], 0.0), values)


def smoothed(columns: Complex[Tensor, "*batch tone column"]) -> Complex[Tensor, "*batch part snapshot"]:
    """Sub-bands of 0.6 of the tones, Nb / 20 apart, and their conjugate reversals, side by side as snapshots.

    Two delays of one angle are one dimension over antennas alone; in shifted sub-bands they turn against each other.
    Source: Shan, Wax & Kailath 1985; Pillai & Kwon 1989 (forward and backward).
    """
    num = columns.shape[-2]
    parts = columns.unfold(-2, max(1, round(0.6 * num)), max(1, num // 20))  # (*batch, start, column, part)
    z = parts.flatten(-3, -2).mT
    return torch.cat([z, z.flip(-2).conj()], -1)


def share(
    basis: Complex[Tensor, "*batch row rank"],
    position: Float[Tensor, "row axis"],
    spot: Float[Tensor, "*batch point axis"],
) -> Float[Tensor, "*batch point"]:
    """||U^H a(x)||^2 / ||a||^2, a(x) = exp(j 2 pi position . x): 1 - noise energy, in [0, 1] for orthonormal U.

    MUSIC's pseudospectrum is 1 / (1 - share): same maximisers, nothing divided by a small number.
    """
    turn = torch.remainder(spot @ position.mT, 1.0) * (2 * math.pi)
    return squared(torch.polar(torch.ones_like(turn), turn).conj() @ basis).sum(-1) / basis.shape[-2]


def share_grid(basis: Complex[Tensor, "*batch row rank"], sizes: tuple[int, ...], pad: int = 8) -> Tensor:
    """`share` at x = k / (pad size) on every axis, (*batch, *grid), by zero-padded FFTs.

    The rows are the points of a regular array of these sizes at distance 1, row-major; only the modulus is used, so
    where its origin lies does not matter.
    """
    num, axes = len(sizes), tuple(range(-len(sizes), 0))
    rows = basis.conj().mT.unflatten(-1, sizes)
    full = [pad * size for size in sizes]
    # conj(U)^T a, with a = exp(+j 2 pi n k / size): an inverse transform without its 1 / size
    spectrum = torch.fft.ifftn(rows, full, axes) * math.prod(full)
    return squared(spectrum).sum(-num - 1) / basis.shape[-2]


class Peaks(NamedTuple):
    """The largest local maxima of a periodic grid: index (*batch, peak, axis), value (*batch, peak), mask."""

    index: Int[Tensor, "*batch peak axis"]
    value: Float[Tensor, "*batch peak"]
    mask: Bool[Tensor, "*batch peak"]


def peaks(grid: Tensor, num_axes: int, count: int, apart: tuple[int, ...], least: Tensor | float = 0.0) -> Peaks:
    """The `count` largest of those local maxima above `least` that have no higher one within `apart` grid steps.

    The grid's last num_axes axes wrap around. Padded with masked entries where there are fewer.
    """
    sizes = grid.shape[-num_axes:]
    flat = grid.reshape(-1, 1, *sizes)
    top = torch.where(flat >= _window_max(flat, (1,) * num_axes), flat, -torch.inf)
    top = torch.where(top >= _window_max(top, apart), top, -torch.inf).reshape(*grid.shape[:-num_axes], -1)
    count = min(count, top.shape[-1])
    value, where = top.topk(count, -1)
    floor = least if isinstance(least, float) else least[..., None]
    index = torch.stack(torch.unravel_index(where, sizes), -1)
    mask = value > floor
    return Peaks(index, torch.where(mask, value, 0.0), mask)


def _window_max(x: Tensor, apart: tuple[int, ...]) -> Tensor:
    """Largest value within `apart` steps, circular, on the last len(apart) axes of (item, 1, *sizes)."""
    sizes = x.shape[2:]
    reach = [min(a, (size - 1) // 2) for a, size in zip(apart, sizes, strict=True)]
    for axis, r in enumerate(reach):
        if r:
            moved = x.movedim(2 + axis, -1)
            flat = torch.cat([moved[..., -r:], moved, moved[..., :r]], -1)
            pooled = torch.nn.functional.max_pool1d(flat.reshape(-1, 1, flat.shape[-1]), 2 * r + 1, 1)
            x = pooled.reshape(moved.shape).movedim(-1, 2 + axis)
    return x


def refined(
    basis: Complex[Tensor, "*batch row rank"],
    position: Float[Tensor, "row axis"],
    spot: Float[Tensor, "*batch point axis"],
    reach: Float[Tensor, " axis"],
    steps: int = 4,
) -> Float[Tensor, "*batch point axis"]:
    """Local maxima of `share` next to `spot`, no farther away than `reach` on any axis: guarded Newton steps.

    A step is taken where it raises the share; where the Hessian is not negative definite it follows the gradient.
    """
    axes = position.shape[-1]
    scale = 2 * math.pi * position
    pairs = [(i, j) for i in range(axes) for j in range(i, axes)]
    moments = [torch.ones_like(scale[:, 0]), *scale.unbind(-1), *(scale[:, i] * scale[:, j] for i, j in pairs)]
    weighted = torch.stack(moments, -1).to(basis.dtype)  # (row, moment)
    low, high, where = spot - reach, spot + reach, spot
    best, gradient, hessian = _newton(basis, position, where, weighted, pairs)
    for _ in range(steps):
        step = -torch.linalg.solve_ex(hessian, gradient[..., None])[0][..., 0]
        trace, uphill = hessian.diagonal(dim1=-2, dim2=-1).sum(-1), (step * gradient).sum(-1) > 0
        if axes == 2:
            uphill = uphill & (torch.linalg.det(hessian) > 0)
        fallback = gradient.sign() * reach / 4
        step = torch.where((uphill & (trace < 0))[..., None], step, fallback)
        tried = torch.minimum(torch.maximum(where + step.nan_to_num(), low), high)
        value, g, h = _newton(basis, position, tried, weighted, pairs)
        better = value > best
        where = torch.where(better[..., None], tried, where)
        best = torch.where(better, value, best)
        gradient, hessian = (
            torch.where(better[..., None], g, gradient),
            torch.where(better[..., None, None], h, hessian),
        )
    return where


def _newton(basis: Tensor, position: Tensor, spot: Tensor, weighted: Tensor, pairs: list) -> tuple[Tensor, ...]:
    """Value, gradient and Hessian of |U^H a(x)|^2."""
    axes = position.shape[-1]
    turn = torch.remainder(spot @ position.mT, 1.0) * (2 * math.pi)
    steering = torch.polar(torch.ones_like(turn), turn)  # (*batch, point, row)
    columns = (steering[..., None, :] * weighted.mT).flatten(-3, -2)  # (*batch, point moment, row)
    found = (columns @ basis.conj()).unflatten(-2, (spot.shape[-2], weighted.shape[-1]))
    zero, first, second = found[..., 0, :], found[..., 1 : 1 + axes, :], found[..., 1 + axes :, :]
    # the derivatives of exp(j s . x) are j s and -s s^T
    gradient = -2 * (zero.conj()[..., None, :] * first).sum(-1).imag
    hessian = spot.new_empty(*spot.shape, axes)
    for k, (i, j) in enumerate(pairs):
        curve = (first[..., i, :].conj() * first[..., j, :]).sum(-1) - (zero.conj() * second[..., k, :]).sum(-1)
        hessian[..., i, j] = hessian[..., j, i] = 2 * curve.real
    return squared(zero).sum(-1), gradient, hessian
