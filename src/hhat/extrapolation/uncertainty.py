"""How far paths can be off, from the curvature of their likelihood, and what that leaves of the channel."""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hhat.extrapolation.bound import tone_variance
from hhat.extrapolation.fit import posterior_information
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding
from hhat.extrapolation.normal import Normal, normal_at
from hhat.extrapolation.task import Point, Task
from hhat.ops.linalg import cholesky, squared
from hhat.types import State

MISFIT_MEMORY = 8
"""Symbols over which the error of the prediction is averaged"""
PER_PATH = 6
"""Im gain, Re gain, delay, u, v, Doppler shift: the rows of a path covariance come in this order, paths inside"""


def path_covariance(task: Task, point: Point, gain_var: Tensor, now: Normal | None = None) -> Tensor:
    """C of the path parameters, phases and timings integrated out, (item, 6 path, 6 path): C = F^-1 with F the Fisher
    information plus the priors' precisions (the Laplace approximation); 0 for masked paths."""
    fixed = task.fixed(point)
    now = normal_at(task, point) if now is None else now
    info = posterior_information(now, fixed, task.prior(gain_var, point.gain.shape[-1]))
    scale = info.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(info.dtype).tiny).rsqrt()
    factor = cholesky(scale[:, :, None] * info * scale[:, None])[0]
    count = PER_PATH * point.gain.shape[-1]
    eye = torch.eye(info.shape[-1], dtype=info.dtype, device=info.device)[:, :count]
    half = torch.linalg.solve_triangular(factor, eye.expand(len(info), -1, -1), upper=False)
    some = scale[:, :count].masked_fill(fixed[:, :count], 0)
    return some[:, :, None] * (half.mT @ half) * some[:, None]


def channel_variance(
    model: Sounding, paths: Paths, covariance: Float[Tensor, "item parameter parameter"], lag_s: Float[Tensor, " lag"]
) -> Float[Tensor, "item lag subcarrier"]:
    """First-order variance of the channel, mean over antennas, of paths as received now and `lag_s` later, phase and
    timing of that moment taken as known."""
    y = torch.zeros(len(paths.gain), model.num_rx_ant, len(lag_s), 1, dtype=torch.complex128, device=lag_s.device)
    index = torch.zeros(len(lag_s), 1, dtype=torch.int64, device=lag_s.device)
    task = Task.make(model, Sounded(y, index, None), lag_s)
    zero = paths.delay_s.new_zeros(len(paths.gain), len(lag_s))
    full = torch.nn.functional.pad(covariance, (0, 2 * len(lag_s)) * 2)
    return tone_variance(task, task.point(paths, Offsets(zero, zero)), full)


def unaccounted(
    y: Complex[Tensor, "item rx_ant tone"],
    h: Complex[Tensor, "item rx_ant tone"],
    known: Float[Tensor, " item"],
) -> Float[Tensor, " item"]:
    """Mean power of y - h beyond `known`, that of the noise and h's own variance; negative where that is too much."""
    return squared(y - h).mean((-2, -1)) - known


def averaged(state: State, missed: Float[Tensor, " item"]) -> State:
    """`misfit`, the running mean of what predictions missed the newest symbol by; `followed`, how many there were."""
    count = state["followed"] + 1
    misfit = state["misfit"] + (missed - state["misfit"]) / count.clamp_max(MISFIT_MEMORY)
    return {"misfit": misfit, "followed": count}


def with_misfit(
    var: Float[Tensor, "item 1 subcarrier"],
    misfit: Float[Tensor, " item"],
    left: Float[Tensor, " item"],
    chance: Float[Tensor, " item"],
    tones: Int[Tensor, " tone"],
) -> Float[Tensor, "item 1 subcarrier"]:
    """The variance a fit knows of, plus what it does not know of itself, missed and merged paths: at the tones sounded
    now the power left in the residual, at all others that by which predictions missed. What is not more than twice
    `chance`, the standard deviation of a mean of noise powers over one symbol's samples, is left out."""
    shown = [torch.where(x > 2 * chance, x, 0.0)[:, None] for x in (misfit, left)]
    extra = shown[0].expand(-1, var.shape[-1]).index_copy(1, tones, shown[1].expand(-1, len(tones)))
    return var + extra[:, None]
