"""Covariances of uniform arrays by their lags: c(a, b) = E h_(i+a, k+b) conj(h_(i, k)), the same for all i and k."""

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.linalg import eigh
from hhat.types import Shape


def lags_of(covariance: Tensor, shape: Shape) -> Tensor:
    """(2R-1, 2T-1) lags of C = E vec(h) vec(h)^H, h (R, T), row-major: means along its two-level diagonals. Of rays on
    uniform line arrays, whose phases are independent, C is that exactly."""
    rows, columns = shape
    full = covariance.reshape(rows, columns, rows, columns)
    at = [torch.arange(n)[:, None] - torch.arange(n) + n - 1 for n in shape]
    place = at[0][:, None, :, None] * (2 * columns - 1) + at[1][None, :, None, :]
    size = (2 * rows - 1) * (2 * columns - 1)
    total = torch.zeros(size, dtype=full.dtype).index_add(0, place.flatten(), full.flatten())
    count = torch.zeros(size, dtype=full.real.dtype).index_add(
        0, place.flatten(), torch.ones(full.numel()).to(full.real)
    )
    return (total / count).reshape(2 * rows - 1, 2 * columns - 1)


def covariance_of(lags: Tensor) -> Tensor:
    """(R T, R T) from lags (2R-1, 2T-1)."""
    shape = [(n + 1) // 2 for n in lags.shape]
    at = [torch.arange(n)[:, None] - torch.arange(n) + n - 1 for n in shape]
    size = shape[0] * shape[1]
    return lags[at[0][:, None, :, None], at[1][None, :, None, :]].reshape(size, size)


def principal(lags: Tensor, basis: LinearOp) -> tuple[Tensor, Tensor]:
    """Powers (R T,), largest first, of the uncorrelated coefficients u = W^H x of x = basis^H h, and W (R T, R T);
    `basis` is unitary. Double precision inside."""
    dense = basis.dense(torch.complex128)
    values, vectors = eigh(dense.mH @ covariance_of(lags.to(torch.complex128)) @ dense)
    return values.flip(-1), vectors.flip(-1)
