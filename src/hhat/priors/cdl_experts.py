"""What two line arrays may know without a sample: the exact covariances of the CDL profiles, one expert each."""

import functools

import torch

from hhat.ops.dense import Dense
from hhat.priors import cdl_law
from hhat.priors.experts import Experts
from hhat.priors.gauss import Gauss

PROFILES = ("A", "B", "C", "D")
JITTER = 1e-11
"""Added to the diagonal, E|h|^2 = 1: the covariances are singular to double precision, and single cannot see it."""


@functools.lru_cache(maxsize=4)
def cdl_experts(num_rx_ant: int = 16, num_tx_ant: int = 64, axis: str = "horizontal") -> Experts:
    """h (rx, tx) ~ CN(0, C_k), k = CDL-A to D, half-wavelength line arrays that face each other, E|h_ij|^2 = 1.

    As unit-variance coefficients in the basis of a Cholesky factor of C_k, complex64: 0.4 s a profile for 16 x 64, a
    tenth of the eigenvectors' time. Kept for the process. axis: "horizontal" or "vertical" arrays.
    """
    shape = (num_rx_ant, num_tx_ant)
    found = []
    for profile in PROFILES:
        matrix = cdl_law.covariance(profile, num_rx_ant, num_tx_ant, axis, "fixed")
        matrix.diagonal().real.add_(JITTER)
        root = torch.linalg.cholesky(matrix).to(torch.complex64)
        found.append(Gauss(basis=Dense(root, in_shape=shape, out_shape=shape)))
    return Experts(found, names=[f"cdl-{profile.lower()}" for profile in PROFILES], ndim=2)
