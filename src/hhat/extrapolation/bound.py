"""What no estimator can do better than: Fisher information of paths and offsets, and what it leaves of the channel."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from hhat.extrapolation.columns import ARRAY_TYPE, TONE_TYPE, Columns, columns, whole_band
from hhat.extrapolation.fit import posterior_information
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding
from hhat.extrapolation.normal import normal_at
from hhat.extrapolation.task import Doppler, Point, Task
from hhat.ops.linalg import eigh, squared

NULL = 1e-12
"""Eigenvalues of the scaled information below this share of the largest are 0: nothing is known along them."""
MOVES = 1e-6
"""A direction of which nothing is known is no gauge where it moves the channel by more than this share of what the
parameters, each on its own, would."""


class Bound(NamedTuple):
    """Cramer-Rao bound of one channel per batch item.

    delay_std    (*batch, path) seconds; relative_delay_std: of delay_k - delay_0, which alone gains from hops
    var          (*batch, 1, symbol, subcarrier): error of the channel, mean over the antennas; infinite where the
                 pilots leave it open
    nmse         (*batch, symbol): error energy over channel energy, whole band
    band_nmse    (*batch, symbol, part): the same in each part of the band that some symbol sounds
    eigenvalues  (*batch, parameter) of the information, scaled to unit diagonal, ascending
    """

    delay_std: Tensor
    relative_delay_std: Tensor
    var: Tensor
    nmse: Tensor
    band_nmse: Tensor
    eigenvalues: Tensor


def channel_bound(
    model: Sounding,
    paths: Paths,
    offsets: Offsets,
    index: Int[Tensor, "symbol tone"],
    noise_var: Tensor | float,
    times: Float[Tensor, " symbol"] | None = None,
    doppler: Doppler | None = None,
    priors: bool = True,
    gain_var: Float[Tensor, "*batch"] | None = None,
    known_offsets: bool = False,
) -> Bound:
    """Bound of an unbiased estimator that sees the tones `index` of every symbol, at the true paths and offsets.

      C = F^+,  F = 2 / noise_var Re J^H J (+ prior precisions);   var = mean over antennas of diag(J_h C J_h^T)
    times: of the symbols (default: one per period); doppler: how phases turn, `Linear()` (default) or `Free()`
    priors: those of Doppler shifts and timing (the hybrid bound, what an estimator with priors is held against); else
            the pseudo-inverse, since a common Doppler shift hides in the phases. No bound of a channel that moves along
            what is not known (more unknowns than pilots): there var is infinite; delay_std leaves such directions out
    gain_var: E|gain|^2 of a prior on the gains besides, None: none
    known_offsets: phases and timings are told
    Source: Kay 1993, chapter 3; hybrid bound: Van Trees 1968, section 2.4.
    """
    device = paths.gain.device
    times = model.period_s * torch.arange(len(index)).double() if times is None else times
    noise = torch.as_tensor(noise_var, dtype=torch.float64, device=device)
    batch = torch.broadcast_shapes(paths.gain.shape[:-1], noise.shape)
    y = torch.zeros(*batch, model.num_rx_ant, *index.shape, dtype=torch.complex128, device=device)
    task = Task.make(model, Sounded(y, index, noise.expand(batch)[..., None, None, None]), times, doppler)
    full = [x.expand(*batch, *x.shape[paths.gain.ndim - 1 :]) for x in (*paths, *offsets)]
    point = task.point(Paths(*full[:5]), Offsets(*full[5:]))
    fixed, num = task.fixed(point, priors), point.gain.shape[-1]
    if known_offsets:
        fixed[:, -2 * len(times) :] = True
    prior = task.prior(None if gain_var is None else gain_var.reshape(-1), num)
    info = posterior_information(normal_at(task, point), fixed, prior if priors else torch.zeros_like(prior))
    covariance, values = inverse(info, fixed)
    delay = covariance[:, 2 * num : 3 * num, 2 * num : 3 * num]
    own = delay.diagonal(dim1=-2, dim2=-1)
    relative = own + own[:, :1] - 2 * delay[:, 0]
    var = tone_variance(task, point, covariance)
    open_, each = (tone_variance(task, point, x) for x in _unknown(info, fixed))
    var = torch.where(open_ > MOVES * each, torch.inf, var)
    h = model.channel(Paths(*full[:5]), Offsets(*full[5:]), task.times)
    power = squared(h).mean(-3).reshape(var.shape)
    parts = var[..., task.index].sum(-1) / power[..., task.index].sum(-1)

    def shaped(x: Tensor) -> Tensor:
        return x.reshape(*batch, *x.shape[1:])

    return Bound(
        shaped(own.clamp_min(0).sqrt()),
        shaped(relative.clamp_min(0).sqrt()),
        shaped(var[:, None]),
        shaped(var.sum(-1) / power.sum(-1)),
        shaped(parts),
        shaped(values),
    )


def inverse(
    info: Float[Tensor, "item parameter parameter"], fixed: Tensor
) -> tuple[Float[Tensor, "item parameter parameter"], Float[Tensor, "item parameter"]]:
    """Pseudo-inverse of an information matrix, 0 for what is fixed, and its eigenvalues at unit diagonal."""
    scale, values, vectors = _scaled(info)
    weight = torch.where(values > NULL * values[:, -1:], 1 / values, 0.0)
    covariance = scale[:, :, None] * ((vectors * weight[:, None]) @ vectors.mT) * scale[:, None]
    return covariance.masked_fill(fixed[:, :, None] | fixed[:, None], 0), values


def _scaled(info: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What takes the diagonal to 1, and the eigenvalues and eigenvectors there."""
    scale = info.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(info.dtype).tiny).rsqrt()
    return scale, *eigh(scale[:, :, None] * info * scale[:, None])


def _unknown(info: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
    """Covariances of one unit along every direction of which nothing is known, and along every parameter."""
    scale, values, vectors = _scaled(info)
    scale = scale.masked_fill(fixed, 0)
    none = (values <= NULL * values[:, -1:]).to(info.dtype)
    return scale[:, :, None] * ((vectors * none[:, None]) @ vectors.mT) * scale[:, None], scale.square().diag_embed()


def tone_variance(
    task: Task, point: Point, covariance: Float[Tensor, "item parameter parameter"]
) -> Float[Tensor, "item symbol subcarrier"]:
    """Error of the channel, mean over the antennas, that parameters of a covariance C leave to first order.

      var_mf = (1 / A) sum_pq d_p[f] W_pq conj(d_q[f]),   W = (T_m C T_m^H) * (Gram of array columns)^T
    T_m maps parameters to weights of the columns value, d/dtau, d/du, d/dv of every path at symbol m.
    """
    made, basis = columns(task, point), task.doppler.basis(task.times)
    return _seen(task, point, made, covariance + 0j, lambda rows, m: _mapped(rows, m, made.turn, point.gain, basis))


def unseen(mask: Bool[Tensor, "item path"], noise_var: Float[Tensor, " item"], samples: int) -> Float[Tensor, " item"]:
    """Power per entry of a channel of which no path was found: noise_var / sqrt(samples), the standard deviation of the
    mean noise power, in which it hides; 0 where there is any path. No curvature tells it: nothing is certain of 0."""
    return torch.where(mask.any(-1), 0.0, noise_var / samples**0.5)


def spread_variance(
    task: Task, point: Point, covariance: Complex[Tensor, "item column column"]
) -> Float[Tensor, "item symbol subcarrier"]:
    """`tone_variance` of the coefficients of `spread`."""
    made, basis = columns(task, point), task.doppler.basis(task.times)
    return _seen(task, point, made, covariance, lambda rows, m: _around(rows, m, made.turn, basis))


def _seen(
    task: Task, point: Point, made: Columns, covariance: Tensor, mapped: Callable[[Tensor, int], Tensor]
) -> Float[Tensor, "item symbol subcarrier"]:
    paths, tones = point.gain.shape[-1], whole_band(task, point)[:, 0]
    grams = made.array_gram.unflatten(-1, (3, paths)).unflatten(-3, (3, paths))
    grams = grams[:, list(ARRAY_TYPE)][:, :, :, list(ARRAY_TYPE)].permute(0, 3, 4, 1, 2)
    found = []
    for m in range(len(task.times)):
        half = mapped(covariance, m)
        weight = mapped(half.mH, m).mH.unflatten(-1, (4, paths)).unflatten(-3, (4, paths)) * grams
        two = weight.new_zeros(len(tones), 2, paths, 2, paths)
        for row, i in enumerate(TONE_TYPE):
            for column, j in enumerate(TONE_TYPE):
                two[:, i, :, j] += weight[:, row, :, column]
        two = two.flatten(3).flatten(1, 2)
        found.append(((tones @ two) * tones.conj()).real.sum(-1))
    return torch.stack(found, 1).clamp_min(0) / task.model.num_rx_ant


def _mapped(rows: Tensor, m: int, turn: Tensor, gain: Tensor, basis: Tensor) -> Tensor:
    """T_m times (item, parameter, n): (item, 4 path, n)."""
    (symbols, num), paths = basis.shape, gain.shape[1]
    turn = turn[:, m, :, None]
    own = turn * gain[..., None]
    imag, real, delay, u, v, *rate = rows[:, : rows.shape[1] - 2 * symbols].split(paths, 1)
    phase, timing = rows[:, -2 * symbols + m, None], rows[:, -symbols + m, None]
    for j in range(num):
        phase = phase + basis[m, j] * rate[j]
    value = turn * (real + 1j * imag) + 1j * own * phase
    return torch.cat([value, own * (delay + timing), own * u, own * v], 1)


def _around(rows: Tensor, m: int, turn: Tensor, basis: Tensor) -> Tensor:
    """The same of the coefficients of `spread`: weights of value, d/dtau, d/du, d/dv and the rates."""
    value, delay, u, v, *rate = rows.split(turn.shape[-1], 1)
    for j in range(basis.shape[1]):
        value = value + basis[m, j] * rate[j]
    return torch.cat([value, delay, u, v], 1) * turn[:, m].repeat(1, 4)[..., None]
