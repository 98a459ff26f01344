"""From beliefs about coefficients to the belief about the channel h = B x."""

import torch
from torch import Tensor

from hhat.methods.base import Problem
from hhat.ops.posterior import posterior
from hhat.types import Gaussian

LEAST_PRECISION = 1e-4
"""Least precision of a denoiser's factor, relative to that of its input: mixtures may widen a belief, and a factor
with less would only carry round-off."""


def channel_belief(task: Problem, r: Gaussian, x: Gaussian, noise_var: Tensor) -> Gaussian:
    """Belief on h from a denoiser's input r and output x.

    In a unitary basis the errors of the coefficients are taken as independent: var = |B|^2 var_x. In an overcomplete
    basis they are strongly correlated, so the prior is replaced by the Gaussian factor that the denoiser applied,
    x / r per entry (expectation propagation), and the exact posterior with it gives mean and variance of B x.
    """
    if task.basis is None:
        return x
    if task.basis.is_unitary:
        var = task.basis.squares.apply(x.var.expand(x.mean.shape))
        return Gaussian(task.basis.apply(x.mean), var)
    return posterior(task.op, task.y, denoiser_factor(r, x), noise_var, task.basis).belief


def denoiser_factor(r: Gaussian, x: Gaussian) -> Gaussian:
    """The Gaussian that turns r into x: x / r per entry (expectation propagation)."""
    tiny = torch.finfo(x.var.dtype).tiny
    precision = (1 / x.var.clamp_min(tiny) - 1 / r.var).clamp_min(LEAST_PRECISION / r.var.clamp_max(1e30))
    shift = x.mean / x.var.clamp_min(tiny) - r.mean / r.var
    return Gaussian(shift / precision, 1 / precision)
