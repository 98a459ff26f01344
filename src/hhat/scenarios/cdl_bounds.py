"""What a CDL channel's estimate can reach when the coupling of its rays is known: head-room over the covariance."""

import torch
from jaxtyping import Float
from torch import Tensor

from hhat.ops import Dense, KhatriRao
from hhat.ops.linalg import squared
from hhat.ops.posterior import posterior
from hhat.scenarios.cdl import Cdl, CdlChannel
from hhat.types import Gaussian, Slot

CHUNK_ENTRIES = 1 << 23
"""Entries of the ray systems factored at a time (128 MB in complex128)."""


def coupling_lmmse(scene: Cdl, slot: Slot) -> Gaussian:
    """Genie coupling: LMMSE given the directions of all rays of this draw, their complex gains unknown.

      h = sum_p x_p a_r(u_p) a_t(u'_p)^T,   x_p ~ CN(0, P_p),   y = A h + n

    P_p: the power of each ray in the table. The channel of fixed arrays is a mixture of such laws over the coupling,
    of which `lmmse` with the covariance sees the average. No bound in the strict sense: the modulus of x_p is known
    too, which a linear estimate cannot use. slot: a draw of the scene, or some of its items.
    Raises ValueError where the truth lacks the cosines or the noise variance is not given.
    Source: diffusion_experts section 0.1.
    """
    truth, obs = slot.truth, slot.obs
    if not isinstance(truth, CdlChannel):
        raise ValueError(f"bounds: expected a draw of cdl with its ray directions, got {type(truth).__name__}")
    if obs.noise_var is None:
        raise ValueError("bounds: expected a known noise_var, got None")
    power = scene.path_amplitudes().double().square()
    size = max(1, CHUNK_ENTRIES // (len(power) * max(len(power), truth.h[0].numel())))
    means, vars_ = [], []
    for start in range(0, len(truth.h), size):
        some = slice(start, start + size)
        left, right = scene.steering(truth.rx_cosine[some], truth.tx_cosine[some])
        rays = KhatriRao(Dense(left.mT), Dense(right.mT))
        prior = Gaussian(torch.zeros((), dtype=left.dtype), power.to(left.real.dtype))
        found = posterior(obs.op @ rays, obs.y[some], prior, obs.noise_var, rays).belief  # type: ignore[operator]
        means.append(found.mean)
        vars_.append(found.var)
    return Gaussian(torch.cat(means), torch.cat(vars_))


def coupling_nmse(scene: Cdl, slot: Slot) -> Float[Tensor, " n"]:
    """|h_lmmse - h|^2 / |h|^2 of `coupling_lmmse`, item by item."""
    error = squared(coupling_lmmse(scene, slot).mean - slot.truth.h).sum((-2, -1))
    return error / squared(slot.truth.h).sum((-2, -1))
