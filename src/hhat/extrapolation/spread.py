"""What surrounds each path: the rays of a cluster differ a little in delay, angle and Doppler shift."""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.extrapolation.columns import Columns, columns, combined, late, matched, weights
from hhat.extrapolation.normal import pairs, paths_gram, shown
from hhat.extrapolation.task import Point, Task
from hhat.ops.linalg import cholesky

WIDTH = (0.3, 1e-9, 0.03, 0.03, 0.2)
"""Standard deviations of the rays of a cluster around its path: of their gains, as a share of the path's, of delay in
seconds (a tenth of TR 38.901's cluster delay spread, since most clusters have one delay), of the direction cosines
(c_ASD = 2 degrees), and of the Doppler shift, as a share of the largest (c_ASA = 15 degrees at the user)."""


SIGNIFICANT = 4.0
"""Standard deviations by which what a spread explains must exceed what noise would let it."""


class Spread(NamedTuple):
    """Coefficients of the columns value, d/dtau, d/du, d/dv and (1 / j) d/drate of every path, (item, type, path), and
    their posterior covariance (item, type path, type path); 0 where the pilots do not speak for them.

    excess (item): of what they explain, over what noise lets them, in standard deviations; freedom (item): how many
    coefficients the pilots settle rather than the prior
    """

    weight: Complex[Tensor, "item type path"]
    covariance: Complex[Tensor, "item column column"]
    excess: Float[Tensor, " item"]
    freedom: Float[Tensor, " item"]


def spread(task: Task, point: Point, made: Columns | None = None) -> Spread:
    """The rays around the fitted paths, to first order in how far from them they are:

      h = sum_k gain_k s_k + sum_k (w_0k + w_1k d/dtau + w_2k d/du + w_3k d/dv + w_4k d/df) s_k,
      w_jk ~ CN(0, WIDTH_j^2 |gain_k|^2),   w = (C + noise_var / P)^-1 J^H (y - h),   C = J^H J at gain 1, Khatri-Rao

    A path's own derivatives have one complex factor in common, its gain, times a real shift; a cluster's coefficients
    are complex: a low-rank spatial (and temporal) signature with one delay. At the best real shifts noise explains
    half a noise variance alone, in the other direction of each derivative, give or take as much: taken only where what
    is explained is more than that by SIGNIFICANT standard deviations, so that single paths stay single.
    """
    made = columns(task, point) if made is None else made
    basis, gain = task.doppler.basis(task.times), point.gain
    both, array = pairs(task, made)
    own = both[:, :, :, :, 0] * gain[:, None, None, None]
    away = matched(task, point, made) - shown(own, array)
    rate = torch.einsum("mj,bmk->bjk", basis.to(away.dtype), away[:, :, 0])
    seen = torch.cat([away.sum(1), rate], 1).flatten(1)
    types = seen.shape[1] // gain.shape[1]
    width = gain.real.new_tensor([*WIDTH[:4], *[WIDTH[4] * task.model.doppler_hz] * (types - 4)])
    scale = (width[:, None] * gain.abs()[:, None]).flatten(1) / task.noise_var.sqrt()[:, None]
    inner = scale[:, :, None] * paths_gram(both, array, basis) * scale[:, None]
    eye = torch.eye(seen.shape[1], dtype=seen.dtype, device=seen.device)
    factor = cholesky(inner + eye)[0]
    whole = scale * seen / task.noise_var.sqrt()[:, None]
    found = torch.cholesky_solve(whole[..., None], factor)[..., 0]
    explained = (whole.conj() * found).real.sum(-1)
    count = ((types - 1) * point.mask.sum(-1)).clamp_min(1) / 2
    excess = (explained - count) / count.sqrt()
    back, taken = scale * task.noise_var.sqrt()[:, None], excess > SIGNIFICANT
    weight = torch.where(taken[:, None], back * found, 0.0).unflatten(1, (types, -1))
    left = torch.cholesky_inverse(factor)
    free = (seen.shape[1] - left.diagonal(dim1=-2, dim2=-1).real.sum(-1)) * taken
    covariance = torch.where(taken[:, None, None], back[:, :, None] * left * back[:, None], 0.0)
    return Spread(weight, covariance, excess, free)


def without(task: Task, point: Point, weight: Complex[Tensor, "item type path"]) -> Task:
    """The task with what is around the paths taken off its pilots."""
    made = columns(task, point)
    alone = point._replace(gain=torch.zeros_like(point.gain))
    around = combined(made, made.tones, weights(task, alone, made, weight), list(task.band))
    return replace(task, y=task.y - late(task, point) * around)
