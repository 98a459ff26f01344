"""Sparse vectors seen through matrices that message passing is known to fail on: ill-conditioned, with a mean, of low
rank, with correlated rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops import Dense
from hhat.random import complex_normal
from hhat.scenarios.parts import check_between, check_count, check_snr, receive
from hhat.types import About, Channel, Slot


@dataclass(frozen=True)
class IllConditioned:
    """y = A h + n with h i.i.d. Bernoulli-Gauss and one matrix A for all items of a draw, anew in every draw.

    A starts with i.i.d. CN(0, 1) entries. What is not left at its neutral value is then done to it, in this order:
      rank         (share of num_rows, 1)   A <- product of num_rows x R and R x num_columns, R = rank num_rows
      correlation  (0 <= rho < 1, 0)        A <- C^1/2 A,  C_ij = rho^|i-j|: neighbouring rows resemble each other
      condition    (>= 1, None)             singular values become geometric, the largest over the smallest = condition
      mean         (>= 0, 0)                A <- A + mean, in units of the rms of its entries
    At last A is scaled to ||A||_F^2 = num_rows. h_n is 0 with probability 1 - active, else CN(0, 1/active), so that the
    prior "bernoulli-gauss" with this `active` is the truth. snr_db: see `noise_var`. Truth: `Channel(h)`.
    Raises ValueError for settings outside these.
    Source: the matrices of Vila, Schniter, Rangan, Krzakala & Zdeborova, ICASSP 2015.
    """

    num_rows: int = 256
    num_columns: int = 512
    condition: float | int | None = None
    mean: float | int = 0.0
    rank: float | int = 1.0
    correlation: float | int = 0.0
    active: float | int = 0.1
    snr_db: float | int = 30.0

    def __post_init__(self):
        where = type(self).__name__
        check_count(where, "num_rows", self.num_rows)
        check_count(where, "num_columns", self.num_columns)
        check_between(where, "rank", self.rank, 0, 1)
        check_between(where, "active", self.active, 0, 1)
        check_snr(where, self.snr_db)
        _check_from(where, "mean", self.mean, 0, torch.inf)
        _check_from(where, "correlation", self.correlation, 0, 1)
        if self.condition is not None:
            _check_from(where, "condition", self.condition, 1, torch.inf)

    def noise_var(self) -> float:
        """E|n_m|^2 = 10^(-snr_db/10): the SNR is E||A h||^2 over E||n||^2, both num_rows times a power."""
        return 10 ** (-self.snr_db / 10)

    def matrix(self, gen: torch.Generator) -> Complex[Tensor, "rows columns"]:
        """A, complex64; computed in double precision, so that small singular values are what was asked for."""
        rows, columns = self.num_rows, self.num_columns
        rank = max(1, round(self.rank * rows))
        a = complex_normal((rank, columns), gen, torch.complex128)
        if rank < rows:
            a = complex_normal((rows, rank), gen, torch.complex128) @ a
        if self.correlation > 0:
            a = torch.linalg.cholesky(_exponential(rows, float(self.correlation))).to(a.dtype) @ a
        if self.condition is not None:
            u, _, vh = torch.linalg.svd(a, full_matrices=False)
            kept = min(rank, columns)
            falling = torch.arange(kept, dtype=torch.float64) / max(kept - 1, 1)
            a = (u[:, :kept] * float(self.condition) ** -falling) @ vh[:kept]
        a = a + self.mean * a.abs().square().mean().sqrt()
        return (a * (rows / a.abs().square().sum()).sqrt()).to(torch.complex64)

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        """n independent vectors through one matrix, y (n, num_rows); h is drawn first, then A, then the noise."""
        check_count(type(self).__name__, "n", n)
        shape = (n, self.num_columns)
        h = (torch.rand(shape, generator=gen) < self.active) * complex_normal(shape, gen, var=1 / self.active)
        obs = receive(h, Dense(self.matrix(gen)), self.noise_var(), ("coefficient",), gen)
        return Slot(Channel(h), obs, self._about)

    def slots(self, n: int, gen: torch.Generator, links: int = 1) -> Iterator[Slot]:
        """n independent slots of `links` vectors each, every slot with a matrix of its own."""
        check_count(type(self).__name__, "n", n)
        check_count(type(self).__name__, "links", links)
        for _ in range(n):
            yield self.draw(links, gen)

    @classmethod
    def example(cls, gen: torch.Generator) -> "IllConditioned":
        return cls(num_rows=12, num_columns=20, condition=100.0, active=0.2)

    @cached_property
    def _about(self) -> About:
        return About(
            kind="pilots",
            snr_definition="E||A h||^2 / E||n||^2, over the law of h",
            normalisation="E|h_n|^2 = 1 over the law, ||A||_F^2 = number of rows; never per sample",
            source=f"Bernoulli-Gauss, {self.active:g} active; condition {self.condition}, mean {self.mean:g}, rank "
            f"{self.rank:g}, correlation {self.correlation:g}",
        )


def _check_from(where: str, name: str, value: object, low: float | int, high: float | int) -> None:
    """ValueError unless low <= value < high, both numbers."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value < high:
        raise ValueError(f"{where}: {name} is a number of at least {low:g} and below {high:g}, got {value!r}")


def _exponential(size: int, rho: float) -> Float[Tensor, "rows rows"]:
    place = torch.arange(size, dtype=torch.float64)
    return rho ** (place[:, None] - place).abs()
