"""Small factorisations and sums. What is factored is guarded: one thread (complex LAPACK on small batches can be many
times slower on two), failures as NaN that `solve` turns into a status, never an exception amid a batch."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

RELATIVE_FLOOR = {torch.complex64: 1e-7, torch.complex128: 1e-14}
"""Smallest noise variance relative to the signal's at y: below it C is singular to working precision."""


@contextmanager
def one_thread(matrix: Tensor) -> Iterator[None]:
    """LAPACK on the CPU runs on one thread inside; large matrices and other devices are left alone."""
    threads = torch.get_num_threads()
    if matrix.device.type != "cpu" or threads == 1 or max(matrix.shape[-2:]) > 512:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def cholesky(matrix: Tensor) -> tuple[Tensor, bool]:
    """Lower factor of Hermitian positive definite matrices, NaN where one is not, or is not finite; are all of them?"""
    with one_thread(matrix):
        factor, failed = torch.linalg.cholesky_ex(matrix)
    ok = not bool(failed.any())
    return factor if ok else torch.where((failed != 0)[..., None, None], torch.nan, factor), ok


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD (U, s, V^H); NaN for items that are not finite (LAPACK would raise for the whole batch)."""
    good = torch.isfinite(matrix).all(-1).all(-1)
    with one_thread(matrix):
        u, s, vh = torch.linalg.svd(torch.where(good[..., None, None], matrix, 0), full_matrices=False)
    bad = ~good[..., None]
    return u.masked_fill(bad[..., None], torch.nan), s.masked_fill(bad, torch.nan), vh


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending, at least 0) and vectors of the Hermitian part; NaN for items that are not finite."""
    good = torch.isfinite(matrix).all(-1).all(-1)
    with one_thread(matrix):
        values, vectors = torch.linalg.eigh(torch.where(good[..., None, None], (matrix + matrix.mH) / 2, 0))
    return values.clamp_min(0).masked_fill(~good[..., None], torch.nan), vectors


def squared(x: Tensor) -> Tensor:
    """|x|^2 entry by entry: the square of `abs` takes a root first and costs four times as much."""
    return torch.addcmul(x.real.square(), x.imag, x.imag) if x.is_complex() else x.square()


def column_energy(matrix: Tensor) -> Tensor:
    """sum_m |A_mn|^2 of matrices (*b, m, n): the rows of real and imaginary parts are summed before they are paired."""
    pairs = torch.view_as_real(matrix.resolve_conj()).flatten(-2)
    return pairs.square().sum(-2).unflatten(-1, (-1, 2)).sum(-1)


def matvec(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix (*b, m, n) times vectors x (*b', n), the batch axes broadcast.

    An axis over which the matrix is shared becomes the columns of one product instead of many small ones.
    """
    if not matrix.is_complex() and not x.is_complex():
        matrix = matrix.to(x.dtype)  # squared moduli of operators that have no precision of their own
    if matrix.ndim == 2:
        return x @ matrix.mT
    if matrix.shape[-3] == 1 and x.ndim >= 2:
        return x @ matrix.squeeze(-3).mT
    if matrix.is_conj():  # an adjoint: without this its conjugate would be written out
        return matvec(matrix.conj(), x.conj()).conj().resolve_conj()
    return (x[..., None, :] @ matrix.mT)[..., 0, :]  # rows times matrices: several times faster than columns


def per_axis(tensor: Tensor, num_event: int, shape: tuple[int, ...]) -> Tensor:
    """Give a broadcasting tensor its `num_event` event axes, each of size 1 (shared) or that of `shape`."""
    if tensor.ndim < num_event:
        tensor = tensor.reshape((1,) * (num_event - tensor.ndim) + tuple(tensor.shape))
    event = tensor.shape[tensor.ndim - num_event :]
    if any(have not in (1, want) for have, want in zip(event, shape, strict=True)):
        raise ValueError(f"expected a tensor that broadcasts to (*batch, {shape}), got {tuple(tensor.shape)}")
    return tensor


def event_sum(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum over event axes, axes of size 1 counted as often as `shape` says."""
    start = x.ndim - len(shape)
    return x.expand(*x.shape[:start], *shape).flatten(start).sum(-1)


def log_normal(num: int, log_det: Tensor, distance: Tensor) -> Tensor:
    """log CN(y; 0, C) from log det C and y^H C^-1 y."""
    return -num * math.log(math.pi) - log_det - distance
