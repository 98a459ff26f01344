"""Paths fitted to whitened samples: gains by least squares, geometry by Levenberg-Marquardt, what their errors are."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from hhat.methods.nomp_paths import LinePaths
from hhat.methods.rows import Rows
from hhat.ops.base import LinearOp
from hhat.ops.linalg import cholesky, squared

SETTLED = 1e-2
"""A step that promises to lower |residual|^2 by less than this many noise variances is not taken."""
LARGEST_STEP = 0.25
"""Most that a step turns the phase across the channel, in cycles, by one parameter of a path."""
DAMPING = (1e-3, 1e-7, 1e5)
"""Of Levenberg-Marquardt, as a share of the curvature: at the start, at least, and where an item gives up."""
RIDGE = 1e-13
"""Added to the Gram matrix of the paths, as a share of its mean diagonal: two of one geometry share a gain."""


class Fit(NamedTuple):
    """Paths (*batch, path, 3) and their gains (*batch, path), 0 where masked; |residual|^2 (*batch), whitened."""

    geometry: Tensor
    gain: Tensor
    rss: Tensor


@dataclass(frozen=True, eq=False)
class Whitened:
    """y = op(h) + n with unit noise: samples (*batch, M), and the weight 1 / sqrt(noise_var) that made them so."""

    model: LinePaths
    op: LinearOp
    y: Complex[Tensor, "*batch sample"]
    weight: Float[Tensor, "*batch sample"]

    def seen(self, h: Tensor) -> Complex[Tensor, "*batch column sample"]:
        """What channels (*batch, column, *in_shape), several per item, leave in the samples."""
        out = self.op.lift(1).apply(h)
        return out.flatten(-len(self.op.out_shape)) * self.weight[..., None, :]

    def some(self, rows: Rows) -> "Whitened":
        return Whitened(self.model, self.op, rows.take(self.y), rows.take(self.weight))

    def residual(self, fit: Fit) -> Complex[Tensor, "*batch sample"]:
        columns = self.seen(self.model.responses(fit.geometry))
        return self.y - (fit.gain[..., None, :] @ columns)[..., 0, :]


@dataclass(frozen=True, eq=False)
class Normal:
    """Normal equations of all paths at one geometry, the complex gains eliminated (they are linear).

    With tangents T (free columns, then paths) and values V, all as samples:
      gain   = (V^H V)^-1 V^H y,    rss = |y - V gain|^2
      schur  = T^H T - T^H V (V^H V)^-1 V^H T
      hessian = Re[conj(a) a^T * schur],   slope = Re[conj(a) * T^H (y - V gain)],   a = gain per column of T
    hessian is half the Fisher information of the geometry in unit noise.
    """

    gain: Tensor
    rss: Tensor
    hessian: Tensor
    slope: Tensor
    gram: Tensor
    carry: Tensor

    @classmethod
    def make(
        cls, tangent: Tensor, y: Tensor, mask: Bool[Tensor, "*batch path"], gain: Tensor | None = None
    ) -> "Normal":
        """tangent: `LinePaths.tangent` as samples, (*batch, column, path, M). gain: None, or the known one."""
        paths = mask.shape[-1]
        rows = tangent.flatten(-3, -2)
        there = mask.repeat(*(1,) * (mask.ndim - 1), tangent.shape[-3])
        gram = (rows @ rows.mH).conj() * (there[..., :, None] & there[..., None, :])
        seen = (rows @ y.conj()[..., None])[..., 0].conj() * there
        cut = gram.shape[-1] - paths
        vv, vt, tt = gram[..., cut:, cut:], gram[..., cut:, :cut], gram[..., :cut, :cut]
        level = vv.diagonal(dim1=-2, dim2=-1).real.mean(-1, keepdim=True)
        vv = vv + torch.diag_embed(torch.where(mask, RIDGE * level, 1.0).to(vv.dtype))
        factor = cholesky(vv)[0]
        solved = torch.cholesky_solve(torch.cat([seen[..., cut:, None], vt], -1), factor)
        best, carry = solved[..., 0], solved[..., 1:]
        gain = best if gain is None else gain * mask
        energy = squared(y).sum(-1)
        rss = energy - 2 * (gain.conj() * seen[..., cut:]).sum(-1).real
        rss = rss + (gain.conj() * (gram[..., cut:, cut:] @ gain[..., None])[..., 0]).sum(-1).real
        a = gain.repeat(*(1,) * (gain.ndim - 1), cut // paths)
        schur = tt - vt.mH @ carry
        off = seen[..., :cut] - (vt.mH @ gain[..., None])[..., 0]
        hessian = (a.conj()[..., :, None] * a[..., None, :] * schur).real
        return cls(gain, rss.clamp_min(0), hessian, (a.conj() * off).real, factor, carry)

    def step(self, damping: Float[Tensor, "*batch"]) -> tuple[Tensor, Tensor]:
        """The damped Gauss-Newton step of the geometry (*batch, column * path), and how much it promises."""
        diagonal = self.hessian.diagonal(dim1=-2, dim2=-1)
        least = torch.finfo(diagonal.dtype).eps * diagonal.amax(-1, keepdim=True) + torch.finfo(diagonal.dtype).tiny
        lifted = self.hessian + torch.diag_embed(diagonal * damping[..., None] + least)
        move = torch.cholesky_solve(self.slope[..., None], cholesky(lifted)[0])[..., 0]
        return move, (move * self.slope).sum(-1)

    def variance(self, tangent: Complex[Tensor, "*batch column path entry"]) -> Float[Tensor, "*batch entry"]:
        """Variance of the channel's entries in unit noise, to first order: diag(J F^-1 J^H), F over all real unknowns.

        tangent: `LinePaths.tangent` as entries of the channel; masked paths have gain 0. With the gains eliminated,
          var = diag(V (V^H V)^-1 V^H) + diag(Z hessian^-1 Z^H) / 2,   Z = (T - V (V^H V)^-1 V^H T) a.
        """
        values, slopes = tangent[..., -1, :, :], tangent[..., :-1, :, :].flatten(-3, -2)
        live = (self.gain != 0)[..., None]
        values = values * live
        spread = torch.linalg.solve_triangular(self.gram, values.conj(), upper=False)
        var = squared(spread).sum(-2)
        count = slopes.shape[-2]
        if count == 0:
            return var
        a = self.gain.repeat(*(1,) * (self.gain.ndim - 1), count // self.gain.shape[-1])
        z = a[..., None] * (slopes - self.carry.mT @ values)
        diagonal = self.hessian.diagonal(dim1=-2, dim2=-1)
        least = torch.where(a == 0, 1.0, RIDGE * diagonal)
        factor = cholesky(self.hessian + torch.diag_embed(least))[0].to(z.dtype)
        return var + squared(torch.linalg.solve_triangular(factor, z, upper=False)).sum(-2) / 2


def normal_at(
    task: Whitened, geometry: Float[Tensor, "*batch path 3"], mask: Tensor, gain: Tensor | None = None
) -> tuple[Normal, Tensor]:
    """The normal equations at a geometry, gains at their best or given, and the tangent as entries of the channel."""
    tangent = task.model.tangent(geometry)
    lead = geometry.ndim - 2
    seen = task.seen(tangent.flatten(lead, lead + 1)).unflatten(-2, tangent.shape[lead : lead + 2])
    return Normal.make(seen, task.y, mask, gain), tangent.flatten(lead + 2)


def fitted(task: Whitened, geometry: Tensor, mask: Tensor, steps: int, live: Tensor, known: bool = True) -> Fit:
    """All paths of each item at once, from a start: Levenberg-Marquardt with the gains always at their best.

    live: items that are fitted at all (the others come back with no gain and rss 0); an item rests once a step promises
    less than SETTLED noise variances, and leaves the batch. known: the samples' noise is 1, not their residual's.
    Source: Golub & Pereyra 1973; Kaufman 1975.
    """
    free, scale, samples = list(task.model.free), task.model.scale().to(geometry.device), task.y.shape[-1]
    whole = Fit(geometry, torch.zeros_like(mask, dtype=task.y.dtype), geometry.new_zeros(live.shape))
    rows = Rows.all(task.op, live.shape).of(live)
    task, geometry, mask, live = task.some(rows), rows.take(geometry), rows.take(mask), rows.take(live)
    now, damping = normal_at(task, geometry, mask)[0], geometry.new_full(live.shape, DAMPING[0])
    for _ in range(steps if free else 0):
        move, promise = now.step(damping)
        live = live & (promise > SETTLED * (1.0 if known else now.rss / samples))
        if not bool(live.any()):
            break
        whole = _put(rows, whole, Fit(geometry, now.gain, now.rss))
        fewer = rows.of(live)
        rows, task = rows.then(fewer), task.some(fewer)
        live, geometry, mask, damping, move = map(fewer.take, (live, geometry, mask, damping, move))
        now = Normal(*(fewer.take(getattr(now, name)) for name in PARTS))
        move = move.clamp(-LARGEST_STEP, LARGEST_STEP).unflatten(-1, (len(free), -1)).mT
        trial = geometry.clone()
        trial[..., free] += move * scale[free]
        then = normal_at(task, trial, mask)[0]
        better = live & (then.rss < now.rss)
        geometry = torch.where(better[..., None, None], trial, geometry)
        now = Normal(*(_chosen(better, getattr(then, name), getattr(now, name)) for name in PARTS))
        damping = torch.where(better, damping / 10, damping * 10).clamp_min(DAMPING[1])
        live = live & (damping < DAMPING[2])
    return _put(rows, whole, Fit(geometry, now.gain, now.rss))


PARTS = tuple(field.name for field in fields(Normal))


def _put(rows: Rows, whole: Fit, part: Fit) -> Fit:
    return Fit(*(rows.put(old, new) for old, new in zip(whole, part, strict=True)))


def _chosen(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.reshape((*better.shape, *(1,) * (new.ndim - better.ndim))), new, old)
