"""Moments of Q(X), X ~ N(mean, var), Q the standard normal distribution function: closed forms, entry by entry."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.nets.residual_recurrent import cdf, density

NODES = (
    (0.019855071751231884, 0.050614268145188130),
    (0.101666761293186630, 0.111190517226687236),
    (0.237233795041835507, 0.156853322938943644),
    (0.408282678752175098, 0.181341891689180991),
    (0.591717321247824902, 0.181341891689180991),
    (0.762766204958164493, 0.156853322938943644),
    (0.898333238706813370, 0.111190517226687236),
    (0.980144928248768116, 0.050614268145188130),
)
"""Places and weights of Gauss and Legendre's rule on [0, 1]"""
WIDEST = 1e30
"""Variance from which on nothing changes, and whose square root is still a float32"""


class ProbitMoments(NamedTuple):
    """mean: E Q(X); var: Var Q(X); slope: E phi(X) = Cov(X, Q(X)) / Var X, phi the standard normal density"""

    mean: Tensor
    var: Tensor
    slope: Tensor


def probit_moments(mean: Tensor, var: Tensor) -> ProbitMoments:
    """X ~ N(mean, var), entry by entry, with k = 1 / sqrt(1 + var) and a = k mean:

        E Q = Q(a),   E phi = k phi(a)
        Var Q = Q(a) (1 - Q(a)) - 2 T(a, b) = 2 T(a, 1) - 2 T(a, b),   b = 1 / sqrt(1 + 2 var)

    mean, var: real, of shapes that broadcast; var below 0 counts as 0, infinite var as WIDEST (E Q = 1/2, Var Q = 1/4).
    T is Owen's function; the difference is one integral over [b, 1] of a positive function, so that Var Q has no
    difference of nearly equal numbers, is never negative and keeps its digits as var -> 0, where it is phi(mean)^2 var.
    Source: Owen 1956; the variance is that of Xu & Liu 2026, appendix. The form as one integral: hhat.
    """
    var = var.clamp(0.0, WIDEST)
    shrink = torch.rsqrt(1 + var)
    at = mean * shrink
    root = torch.sqrt(1 + 2 * var)
    low, width = 1 / root, 2 * var / (root * (root + 1))
    half = at.square() * -0.5
    area = torch.zeros_like(half * width)
    for place, weight in NODES:
        grown = 1 + (low + width * place).square()
        area = area + weight * torch.exp(half * grown) / grown
    return ProbitMoments(cdf(at), area * width / math.pi, shrink * density(at))


def narrow_moments(mean: Tensor, var: Tensor) -> ProbitMoments:
    """The same to first order in var, at a third of the cost: Q(mean), phi(mean)^2 var, phi(mean).

    For beliefs that are narrow beside 1, such as a known network's states. At var 0 the two forms are equal.
    """
    slope = density(mean)
    return ProbitMoments(cdf(mean), slope.square() * var.clamp_min(0.0), slope)
