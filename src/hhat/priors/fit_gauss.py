"""Gaussian priors from channels or noisy pilots of them: one covariance, or a mixture of diagonal ones."""

import math
from typing import Any

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.linalg import matvec, squared
from hhat.priors.experts import Experts
from hhat.priors.gauss import Gauss, covariance
from hhat.types import Observation

SHRINKAGE = {"one": 0.02, "ten": 1e-4}
"""By rule of thumb, at one and at ten samples per dimension; between and beyond: a straight line in log-log."""
LEAST_SHARE = 1e-9
"""Least variance of a component's entry, as a share of the mean power."""


def rule_of_thumb(samples: int, dimensions: int) -> float:
    """Shrinkage for a sample covariance: 0.02 at one sample per dimension, 1e-4 at ten, at most 0.5."""
    slope = math.log10(SHRINKAGE["ten"] / SHRINKAGE["one"])
    return min(0.5, SHRINKAGE["one"] * 10 ** (slope * math.log10(max(samples, 1) / dimensions)))


def fit_covariance(h: Tensor, shrinkage: float | None = None) -> Gauss:
    """The zero-mean covariance prior of channels h (num, *shape), shrunk to the scaled identity.

    shrinkage: None: `rule_of_thumb`. Raises ValueError for fewer than two axes or channels that are not finite.
    """
    _check("fit_covariance", h)
    size = math.prod(h.shape[1:])
    amount = rule_of_thumb(len(h), size) if shrinkage is None else shrinkage
    return covariance(samples=h, shrinkage=amount)


def fit_variances(h: Tensor, basis: LinearOp | None = None) -> Gauss:
    """Independent zero-mean coefficients in a unitary basis (angles), their variances the mean powers of h."""
    _check("fit_variances", h)
    x = h if basis is None else basis.like(h).adjoint(h)
    return Gauss(squared(x).mean(0), basis=basis, ndim=h.ndim - 1)


def fit_mixture(
    h: Tensor, count: int, gen: torch.Generator, basis: LinearOp | None = None, steps: int = 50, floor: float = 0.01
) -> Experts:
    """`count` zero-mean Gaussians, diagonal in a unitary basis, by EM over channels h (num, *shape).

      q_nk ~ w_k prod_i CN(x_ni; 0, v_ki),   v_ki = sum_n q_nk |x_ni|^2 / sum_n q_nk + floor * mean power

    Starts at the powers of `count` channels drawn by gen, smoothed half by the mean of all. floor: keeps components of
    few channels from closing in on them. Raises ValueError for fewer channels than components.
    Source: textbook EM; as the diagonal mixtures of diffusion_experts section 4.8.
    """
    _check("fit_mixture", h)
    if not 1 <= count <= len(h):
        raise ValueError(f"fit_mixture: count: expected 1..{len(h)} components for {len(h)} channels, got {count}")
    shape = tuple(h.shape[1:])
    power = squared(h if basis is None else basis.like(h).adjoint(h)).flatten(1)
    mean = power.mean()
    least = floor * mean
    first = torch.randperm(len(h), generator=gen)[:count].to(h.device)
    variances = 0.5 * power[first] + 0.5 * power.mean(0) + least
    weights = torch.full((count,), 1 / count, dtype=power.dtype, device=h.device)
    for _ in range(steps):
        joint = weights.log() - variances.log().sum(-1) - power @ (1 / variances).mT
        share = joint.softmax(-1)
        mass = share.sum(0)
        variances = (share.mT @ power) / mass.clamp_min(1e-6)[:, None] + least
        weights = ((mass + 1e-3) / (mass + 1e-3).sum()).clamp_min(LEAST_SHARE)
    weights = weights / weights.sum()
    return Experts([Gauss(v.reshape(shape), basis=basis, ndim=len(shape)) for v in variances], weights)


def covariance_from_pilots(obs: Observation, steps: int = 30, shrinkage: float = 0.0) -> Gauss:
    """The covariance of channels that were only seen through noisy pilots: EM over all items of an observation.

      C <- mean_n ( m_n m_n^H + Sigma ),   (m_n, Sigma): posterior of h_n under CN(0, C)

    Starts at the identity times the received power. What the pilots never see stays at the start: pilots that change
    from item to item (`obs.op` with batch axes), or as many as antennas, see all. Each step raises the likelihood.
    Raises ValueError where the noise variance is not given.
    """
    if obs.noise_var is None:
        raise ValueError("covariance_from_pilots: expected a known noise_var, got None")
    op: LinearOp = obs.op.like(obs.y)  # type: ignore[attr-defined]
    shape, out = tuple(op.in_shape), tuple(op.out_shape)
    size, samples = math.prod(shape), math.prod(out)
    a = op.dense().reshape(-1, samples, size)
    y = obs.y.reshape(-1, samples)
    noise = obs.noise_var.expand(obs.y.shape).reshape(-1, samples)
    if bool((noise == noise[:1]).all()) and len(a) == 1:
        noise = noise[:1]
    gain = squared(a).sum(-1).mean()
    start = ((squared(y) - noise).mean() / gain).clamp_min(1e-6 * squared(y).mean() / gain)
    c = start * torch.eye(size, dtype=y.dtype, device=y.device)
    for _ in range(steps):
        seen = a @ c  # (1 or n, M, N)
        s = seen @ a.mH + torch.diag_embed(noise).to(y.dtype)
        gain_matrix = torch.linalg.solve(s, seen).mH  # C A^H S^-1
        mean = matvec(gain_matrix, y)
        left = c - (gain_matrix @ seen).mean(0)
        c = mean.mT @ mean.conj() / len(mean) + left
        c = (c + c.mH) / 2
    return covariance(matrix=c, shape=shape, shrinkage=shrinkage)


def pooled(priors: tuple[Gauss, ...], weights: Tensor | None = None) -> Gauss:
    """One Gaussian with the mean of the covariances: the best linear estimate where it is not known which one holds."""
    if not priors or any(prior.basis is None or bool((prior.mean != 0).any()) for prior in priors):
        raise ValueError("pooled: expected zero-mean covariance priors")
    share = torch.full((len(priors),), 1 / len(priors)) if weights is None else weights
    total: Any = 0
    for weight, prior in zip(share, priors, strict=True):
        assert prior.basis is not None
        shape = prior.basis.in_shape
        root = prior.basis.dense(prior.var.dtype.to_complex())
        total = total + weight * (root * prior.var.expand(shape).flatten()) @ root.mH
    return covariance(matrix=total, shape=priors[0].basis.out_shape)  # type: ignore[union-attr]


def _check(where: str, h: Tensor) -> None:
    if h.ndim < 2 or not h.is_complex() or not bool(torch.isfinite(h).all()):
        raise ValueError(f"{where}: expected finite complex channels (num, *shape), got {h.dtype} {tuple(h.shape)}")
