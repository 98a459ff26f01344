"""Where on a coarse grid one more path agrees best with a residual: one chirp and one zoomed Fourier transform per
curvature, so that a long array needs neither a dictionary of its curved waves nor all correlations at once."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from hhat.methods.nomp_fit import Whitened
from hhat.methods.nomp_paths import DELAYS_PER_TONE, LinePaths
from hhat.ops.base import LinearOp, cached
from hhat.ops.linalg import squared
from hhat.ops.structured import Kron

DIM = 1e-3
"""Paths of which y sees less than this share of what it sees of the best are searched as if it saw so much."""
SEARCH_ENTRIES = 1 << 22
"""Correlations formed at a time (32 MB)."""


def coarse(task: Whitened, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Where on the grid a path agrees best with the residual, (*batch, 3), and the energy it explains there (*batch).

    The place is that of the largest |s^H op^H r|^2 / |op s|^2, in single precision: only the start of the refinement
    depends on it.
    """
    model, batch = task.model, residual.shape[:-1]
    back = task.op.adjoint((residual * task.weight).unflatten(-1, tuple(task.op.out_shape)))
    back = back.reshape(-1, model.num_ant or 1, len(model.subcarriers or (0,)))
    # squares of what is divided by small noise would leave single precision
    back = (back / back.abs().amax((-2, -1), keepdim=True).clamp_min(1e-300)).to(torch.complex64)
    psi, phi = (axis.to(back.device) for axis in model.search_axes())
    norms = _norms(task.op, model, back)
    norms = norms.expand(*batch, *norms.shape[-2:]).reshape(-1, len(phi), len(psi), 1)
    zoom, chirp = _waves(model, back.device)
    per_curve = len(psi) * DELAYS_PER_TONE * back.shape[-1]
    items = max(1, SEARCH_ENTRIES // per_curve)
    curves = max(1, SEARCH_ENTRIES // (per_curve * min(items, len(back))))
    spots = torch.zeros(len(back), 3, dtype=torch.float64, device=back.device)
    for start in range(0, len(back), items):
        some = slice(start, start + items)
        best = norms.new_full((len(back[some]),), -1.0)
        for first in range(0, len(phi), curves):
            part = slice(first, first + curves)
            match = zoom(back[some].mT[:, None] * chirp[part])
            score, delay = model.delays(match.mT)
            value, place = (squared(score) / norms[some, part]).flatten(1).max(-1)
            row = torch.stack(
                [
                    psi[place // len(delay) % len(psi)],
                    phi[part][place // (len(delay) * len(psi))],
                    delay[place % len(delay)],
                ],
                -1,
            )
            spots[some] = torch.where((value > best)[:, None], row, spots[some])
            best = torch.maximum(best, value)
    spots = spots.reshape(*batch, 3)
    seen = task.seen(model.responses(spots[..., None, :]))[..., 0, :]
    energy = squared((seen.conj() * residual).sum(-1))
    return spots, energy / squared(seen).sum(-1).clamp_min(1e-300)


@dataclass(frozen=True, eq=False)
class Zoom:
    """x (*batch, tone, ant) -> sum_j exp(-j 2 pi psi_m scale_k j) x_kj at equal steps of psi, (*batch, tone, psi).

    exp(-j 2 pi step scale m j) with m j = (m^2 + j^2 - (m - j)^2) / 2 is a convolution: two FFTs, whatever the scale.
    Source: Rabiner, Schafer & Rader 1969 (chirp z-transform).
    """

    ahead: Tensor
    kernel: Tensor
    behind: Tensor

    @classmethod
    def make(cls, psi: Tensor, num_ant: int, scale: Tensor) -> "Zoom":
        """scale (tone): by which each tone stretches psi."""
        size = 1 << (num_ant + len(psi) - 2).bit_length()
        step = psi[1] - psi[0] if len(psi) > 1 else psi.new_zeros(())
        half = (step * scale / 2)[:, None]
        j, m = (torch.arange(n, dtype=torch.float64, device=psi.device) for n in (num_ant, len(psi)))
        lag = torch.arange(size, dtype=torch.float64, device=psi.device)
        lag = torch.where(lag < len(psi), lag, lag - size)
        return cls(
            turned(-psi[0] * scale[:, None] * j - half * j.square()),
            torch.fft.fft(turned(half * lag.square())),
            turned(-half * m.square()),
        )

    def __call__(self, x: Tensor) -> Tensor:
        size, count = self.kernel.shape[-1], self.behind.shape[-1]
        spread = torch.fft.fft(x * self.ahead, size) * self.kernel
        return torch.fft.ifft(spread)[..., :count] * self.behind


def turned(cycles: Tensor) -> Tensor:
    """exp(j 2 pi cycles), complex64: reduced in double precision, since j^2 wavelengths are many."""
    phase = (2 * math.pi * torch.remainder(cycles, 1.0)).float()
    return torch.polar(torch.ones_like(phase), phase)


@lru_cache(maxsize=4)
def _waves(model: LinePaths, device: torch.device) -> tuple[Zoom, Tensor]:
    """The transform along the antennas of every tone, and what undoes each curvature: (phi, tone, ant)."""
    psi, phi = (axis.to(device) for axis in model.search_axes())
    scale, j = model.squint().to(device), torch.arange(model.num_ant or 1, dtype=torch.float64, device=device)
    chirp = turned(phi[:, None, None] * j.square() * scale[:, None])
    return Zoom.make(psi, len(j), scale), chirp


def _norms(op: LinearOp, model: LinePaths, like: Tensor) -> Tensor:
    """|op s|^2 at delay 0 up to a factor, (*op batch, phi, psi); once per operator. Dark places count as DIM.

    Where op is apart in antennas and tones, the antennas at the middle of the band stand for all tones.
    """

    def make() -> Tensor:
        own = op.like(like)
        if isinstance(own, Kron) and own.left.in_shape == model.in_shape[:1] != model.in_shape:
            own = own.left
        norms = _apart(own, model, like) if own.in_shape == (model.num_ant,) else _whole(own, model, like)
        return torch.maximum(norms, DIM * norms.amax((-2, -1), keepdim=True)).clamp_min(torch.finfo(norms.dtype).tiny)

    return cached(op, ("nomp", model, str(like.device)), make)


def _apart(own: LinearOp, model: LinePaths, like: Tensor) -> Tensor:
    """s^H G s, G = A^H A, from sums along the diagonals of G that are not zero:

      c_d = sum_j G_{j, j + d} conj(u_j) u_{j + d},  u = exp(-j 2 pi phi j^2);  s^H G s = Re sum_d c_d exp(j 2 pi psi d)

    d >= 0, all but the first twice: units of few antennas have few diagonals, however long the array.
    """
    a = own.dense(like.dtype)
    gram = a.mH @ a
    size, middle = gram.shape[-1], model.middle()
    row, column = gram.abs().flatten(0, -3).amax(0).nonzero().T if gram.ndim > 2 else gram.abs().nonzero().T
    count = 1 + int((column - row).max()) if len(row) else 1
    lines = [pad(gram.diagonal(d, -2, -1), (0, d)) * (1 if d == 0 else 2) for d in range(count)]
    band = torch.stack(lines, -2)
    psi, phi = (axis.to(like.device) for axis in model.search_axes())
    zoom = Zoom.make(psi, count, torch.full((1,), middle, dtype=torch.float64, device=like.device))
    j = torch.arange(size, dtype=torch.float64, device=like.device)
    parts = []
    for some in phi.split(max(1, SEARCH_ENTRIES // (size * count))):
        u = turned(-some[:, None] * j.square() * middle)
        ahead = pad(u, (0, count - 1)).unfold(-1, size, 1)
        c = torch.einsum("...dj,pj,pdj->...pd", band, u.conj(), ahead)
        parts.append(zoom(c.conj()[..., None, :])[..., 0, :].real)
    return torch.cat(parts, -2)


def _whole(own: LinearOp, model: LinePaths, like: Tensor) -> Tensor:
    """Path by path, for operators that mix antennas with tones, or have no antennas."""
    psi, phi = (axis.to(like.device) for axis in model.search_axes())
    pairs = torch.cartesian_prod(phi, psi)
    grid = torch.stack([pairs[:, 1], pairs[:, 0], torch.zeros_like(pairs[:, 0])], -1)
    parts = []
    for some in grid.split(max(1, SEARCH_ENTRIES // math.prod((*own.in_shape, *own.batch_shape)))):
        s = model.responses(some).to(like.dtype)
        parts.append(squared(own.lift(1).apply(s)).flatten(-len(own.out_shape)).sum(-1))
    return torch.cat(parts, -1).unflatten(-1, (len(phi), len(psi)))
