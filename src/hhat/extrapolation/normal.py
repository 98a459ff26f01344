"""Normal equations of all paths, all symbols at once, from Khatri-Rao Gram matrices: no Jacobian is ever formed."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hhat.extrapolation.columns import ARRAY_TYPE, TONE_TYPE, Columns, columns, matched
from hhat.extrapolation.task import Doppler, Free, Linear, Point, Task

__all__ = ["ARRAY_TYPE", "TONE_TYPE", "Columns", "Doppler", "Free", "Linear", "Normal", "Point", "Task", "columns",
           "matched", "normal_at", "pairs", "paths_gram", "shown"]  # fmt: skip


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


def normal_at(task: Task, point: Point) -> Normal:
    """The normal equations of a task at a point: O(paths^2 (tones + antennas)) work."""
    made = columns(task, point)
    paths, basis = point.gain.shape[-1], task.doppler.basis(task.times)
    gain = point.gain
    seen = matched(task, point, made)
    both, array = pairs(task, made)
    # what the fitted channel, and its slope with timing, correlate like: (item, symbol, 4, path)
    weighed = both * gain[:, None, None, None, None]
    fitted, late = (shown(weighed[:, :, :, :, kind], array) for kind in (0, 1))
    away, own = seen - fitted, gain[:, None]
    rss = task.energy - (own.conj() * (seen[:, :, 0] + away[:, :, 0])).real.sum((-1, -2))
    complexes = paths_gram(both, array, basis)
    scale = torch.stack([torch.ones_like(gain), gain, gain, gain, *[1j * gain] * basis.shape[1]], 1).flatten(1)
    complexes = scale.conj()[:, :, None] * complexes * scale[:, None]
    cross = complexes[:, :paths].imag
    inner = torch.cat([torch.cat([complexes[:, :paths, :paths].real, cross], -1),
                       torch.cat([cross.mT, complexes.real], -1)], -2)  # fmt: skip
    phase_edge = _edge(1j * fitted, gain, basis)
    timing_edge = _edge(late, gain, basis)
    own_phase = (own.conj() * fitted[:, :, 0]).real.sum(-1)
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
    return Normal(rss, score * weight[:, None], information * weight[:, None, None])


def pairs(task: Task, made: Columns) -> tuple[Tensor, Tensor]:
    """Gram matrices of tone types in every symbol, turned, (item, symbol, type, path, type, path), and of the array's,
    (item, type, path, type, path)."""
    paths = made.turn.shape[-1]
    grams = made.tone_gram.unflatten(-1, (2, paths)).unflatten(-3, (2, paths))
    turned = made.turn.conj()[..., :, None] * made.turn[..., None, :]
    both = grams[:, list(task.band)] * turned[:, :, None, :, None]
    return both, made.array_gram.unflatten(-1, (3, paths)).unflatten(-3, (3, paths))


def shown(weighed: Tensor, array: Tensor) -> Tensor:
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


def paths_gram(both: Tensor, array: Tensor, basis: Tensor) -> Tensor:
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
