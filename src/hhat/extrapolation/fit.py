"""Paths fitted to hopping pilots: gains by Khatri-Rao least squares, everything by Levenberg-Marquardt."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from hhat.extrapolation.columns import Columns, columns, matched, residual
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding
from hhat.extrapolation.normal import Normal, normal_at
from hhat.extrapolation.sync import aligned, timing_search
from hhat.extrapolation.task import Doppler, Point, Task
from hhat.methods.rows import Rows
from hhat.ops.linalg import cholesky, squared

__all__ = ["Fitted", "aligned", "descend", "gains", "normal", "polish", "steered", "timing_search"]

DAMPING = (1e-3, 1e-9, 1e6)
"""Of Levenberg-Marquardt, as a share of the scaled curvature: at the start, at least, and where an item gives up."""
SETTLED = 1e-3
"""A step that promises less than this per parameter, in units of log posterior, is not taken."""
RIDGE = 12
"""The gains' prior variance is the channel's power over this."""


class Fitted(NamedTuple):
    """Paths and offsets as they are after the fit; objective (*batch): the negative log posterior up to a constant,
    rss / noise_var + theta^T (prior precisions) theta / 2; turn (*batch, symbol, path): the paths' phases, radians,
    which `paths.doppler_hz` holds only where they are linear in time."""

    paths: Paths
    offsets: Offsets
    objective: Tensor
    turn: Tensor


def normal(
    model: Sounding,
    paths: Paths,
    offsets: Offsets,
    pilots: Sounded,
    times: Float[Tensor, " symbol"],
    doppler: Doppler | None = None,
) -> Normal:
    """Residual energy, score and Fisher information of all parameters, the batch flattened to one axis of items.

      y_m = e^{j phi_m} sum_k gain_k e^{j turn_mk} d(delay_k + timing_m) b(u_k, v_k)^T + n
      Gram block of two derivative types = (their tone columns' Gram) * (their array columns' Gram), entry by entry
    Neither priors nor gauge: `Task.prior` and `Task.fixed` say what they are.
    Source: Khatri & Rao 1968 for the Gram of column-wise Kronecker products.
    """
    task = Task.make(model, pilots, times, doppler)
    return normal_at(task, task.point(paths, offsets))


def gains(
    model: Sounding,
    paths: Paths,
    offsets: Offsets,
    pilots: Sounded,
    times: Float[Tensor, " symbol"],
    gain_var: Float[Tensor, "*batch"] | None = None,
) -> Paths:
    """The paths with gains by least squares over all symbols, ridge noise_var / gain_var (None: none)."""
    task = Task.make(model, pilots, times)
    point = steered(task, task.point(paths, offsets), None if gain_var is None else gain_var.reshape(-1))
    return paths._replace(gain=point.gain.reshape(paths.gain.shape))


def steered(task: Task, point: Point, gain_var: Tensor | None, made: Columns | None = None) -> Point:
    """A point with the gains that are best for the rest of it."""
    made = columns(task, point) if made is None else made
    seen = matched(task, point, made)[:, :, 0].sum(1)
    factor = cholesky(path_gram(task, point, gain_var, made))[0]
    gain = torch.cholesky_solve((seen * point.mask)[..., None], factor)[..., 0]
    return point._replace(gain=gain)


def path_gram(task: Task, point: Point, gain_var: Tensor | None, made: Columns) -> Complex[Tensor, "item path path"]:
    """Gram matrix of the paths over all symbols, with the ridge noise_var / gain_var; 1 where masked."""
    paths, turn = point.gain.shape[-1], made.turn
    gram = made.tone_gram[:, list(task.band), :paths, :paths] * (turn.conj()[..., :, None] * turn[..., None, :])
    gram = gram.sum(1) * made.array_gram[:, :paths, :paths]
    gram = gram * (point.mask[:, :, None] & point.mask[:, None])
    level = 1e-13 * gram.diagonal(dim1=-2, dim2=-1).real.amax(-1)
    ridge = level if gain_var is None else task.noise_var / gain_var + level
    return gram + torch.where(point.mask, ridge[:, None], 1.0).diag_embed()


def polish(
    model: Sounding,
    paths: Paths,
    offsets: Offsets,
    pilots: Sounded,
    times: Float[Tensor, " symbol"],
    steps: int = 12,
    doppler: Doppler | None = None,
    anchor: int | None = 0,
    gain_var: Float[Tensor, "*batch"] | None = None,
) -> Fitted:
    """All parameters to the mode of their posterior by damped Gauss-Newton steps, from where they are.

    doppler: `Linear()` (default) or `Free()`; anchor: the symbol of phase and timing 0, None where it is a symbol
    of a longer stretch; gain_var: E|gain|^2 of the prior (default: the pilots' power over RIDGE)
    Source: Levenberg-Marquardt; priors as in the spec of the source's refinement, made joint.
    """
    task = Task.make(model, pilots, times, doppler, anchor)
    ridge = gain_power(task) if gain_var is None else gain_var.reshape(-1)
    point, objective = descend(task, task.point(paths, offsets), ridge, steps)
    batch = paths.gain.shape[:-1]
    turn = torch.einsum("mj,bkj->bmk", task.doppler.basis(task.times), point.rate)
    shift = point.rate[..., 0] if task.doppler.common else paths.doppler_hz.reshape(point.delay.shape)
    found = Paths(point.gain, point.delay, point.cosine, shift, point.mask)
    return Fitted(
        Paths(*(x.reshape(*batch, *x.shape[1:]) for x in found)),
        Offsets(point.phase.reshape(*batch, -1), point.timing.reshape(*batch, -1)),
        objective.reshape(batch),
        turn.reshape(*batch, *turn.shape[1:]),
    )


def gain_power(task: Task) -> Float[Tensor, " item"]:
    """Prior variance of a gain: what the pilots have above noise, over RIDGE; at least 1 % of what they have."""
    power = torch.view_as_real(task.y).square().sum(-1).mean((-3, -2, -1))
    return (power - task.noise_var).clamp_min(0.01 * power).clamp_min(1e-300) / RIDGE


def descend(
    task: Task,
    point: Point,
    gain_var: Float[Tensor, " item"],
    steps: int,
    live: Bool[Tensor, " item"] | None = None,
) -> tuple[Point, Float[Tensor, " item"]]:
    """Levenberg-Marquardt on rss / noise_var - log prior; settled items leave the batch. Returns the objective too.

    The normal matrix is scaled to unit diagonal before it is damped (delays of 1e-9 beside gains of 1). An item whose
    step does not lower its objective keeps its place and is damped more.
    """
    items = len(task.y)
    live = torch.ones(items, dtype=torch.bool, device=task.y.device) if live is None else live
    fixed, prior = task.fixed(point), task.prior(gain_var, point.gain.shape[-1])
    whole, best = point, task.noise_var.new_zeros(items)
    rows = Rows(None, True)
    now, value = _objective(task, point, prior)
    damping = torch.full_like(value, DAMPING[0])
    best = value
    for count in range(steps):
        move, promise = step(now, point, fixed, prior, damping)
        live = live & (promise > SETTLED * (~fixed).sum(-1)) & torch.isfinite(promise)
        if not bool(live.any()):
            break
        whole, best = whole.put(rows, point), rows.put(best, value)
        fewer = rows.of(live)
        if fewer.index is not None:
            rows, task = rows.then(fewer), task.some(fewer)
            point = point.rows(fewer)
            now = Normal(*(fewer.take(x) for x in (now.rss, now.score, now.information)))
            live, fixed, prior, damping = map(fewer.take, (live, fixed, prior, damping))
            value, move = fewer.take(value), fewer.take(move)
        trial = point.moved(move)
        if count == steps - 1:  # nothing comes after it: what it leaves is enough, at a third of the cost
            rss = squared(residual(task, trial)).sum((-3, -2, -1))
            better = live & ((wanted := _loss(task, rss, trial, prior)) < value)
            point, value = trial.where(better, point), torch.where(better, wanted, value)
            break
        then, wanted = _objective(task, trial, prior)
        better = live & (wanted < value)
        point = trial.where(better, point)
        now = Normal(
            _chosen(better, then.rss, now.rss),
            _chosen(better, then.score, now.score),
            _chosen(better, then.information, now.information),
        )
        value = torch.where(better, wanted, value)
        damping = torch.where(better, damping / 5, damping * 10).clamp_min(DAMPING[1])
        live = live & (damping < DAMPING[2])
    return whole.put(rows, point), rows.put(best, value)


def step(now: Normal, point: Point, fixed: Tensor, prior: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The damped step of all parameters, and by how much it promises to lower the objective."""
    slope = (now.score - prior * point.vector()).masked_fill(fixed, 0)
    curve = posterior_information(now, fixed, prior)
    scale = curve.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(slope.dtype).tiny).rsqrt()
    lifted = scale[:, :, None] * curve * scale[:, None] + damping[:, None, None] * torch.eye(
        slope.shape[-1], dtype=slope.dtype, device=slope.device
    )
    move = torch.cholesky_solve((scale * slope)[..., None], cholesky(lifted)[0])[..., 0] * scale
    return move, (move * slope).sum(-1) / 2


def posterior_information(now: Normal, fixed: Tensor, prior: Tensor) -> Tensor:
    """Information with the priors, 1 on the diagonal (and 0 beside it) for what is fixed."""
    curve = (now.information + prior.diag_embed()).masked_fill(fixed[:, :, None] | fixed[:, None], 0)
    return curve + fixed.to(curve.dtype).diag_embed()


def _objective(task: Task, point: Point, prior: Tensor) -> tuple[Normal, Tensor]:
    now = normal_at(task, point)
    return now, _loss(task, now.rss, point, prior)


def _loss(task: Task, rss: Tensor, point: Point, prior: Tensor) -> Tensor:
    return rss / task.noise_var + (prior * point.vector().square()).sum(-1) / 2


def _chosen(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
