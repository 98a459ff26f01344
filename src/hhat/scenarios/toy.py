"""A sparse channel whose law is exactly a prior's: Bernoulli-Gauss coefficients in the angles of the unitary DFT."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Complex
from torch import Tensor

from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.random import complex_normal
from hhat.scenarios.parts import (
    PILOTS,
    check_between,
    check_choice,
    check_count,
    check_snr,
    draw_pilots,
    half_wave_line,
    receive,
)
from hhat.types import About, Slot


class SparseChannel(NamedTuple):
    """h = basis(coefficients), both complex64 (n, rx_ant, tx_ant)."""

    h: Tensor
    coefficients: Tensor


@dataclass(frozen=True)
class SparseAngular:
    """Pilots through a channel of few angles: Y = H X + N, H = F_rx C F_tx^T, C i.i.d. Bernoulli-Gauss.

    C_ij is 0 with probability 1 - active, else CN(0, 1/active), so that E|H_ij|^2 = 1. The angles lie on the grid of
    the DFT, so that the prior "bernoulli-gauss" with this `active`, variance 1/active and `basis()` is the truth; with
    "gaussian" pilots the matrix between C and Y is i.i.d. along the transmit axis, as state evolution assumes.

    num_rx_ant, num_tx_ant: antennas; active: probability of a nonzero coefficient; num_pilots: pilot symbols;
    snr_db: see `noise_var`; pilots, pilot_seed: "qpsk" or "gaussian" symbols and the seed of their block, one for all
    draws. Truth: `SparseChannel(h, coefficients)`. Raises ValueError for settings outside these.
    """

    num_rx_ant: int = 16
    num_tx_ant: int = 64
    active: float | int = 0.1
    num_pilots: int = 38
    snr_db: float | int = 10.0
    pilots: str = "gaussian"
    pilot_seed: int = 5

    def __post_init__(self):
        where = type(self).__name__
        check_count(where, "num_rx_ant", self.num_rx_ant)
        check_count(where, "num_tx_ant", self.num_tx_ant)
        check_count(where, "num_pilots", self.num_pilots)
        check_between(where, "active", self.active, 0, 1)
        check_snr(where, self.snr_db)
        check_choice(where, "pilots", self.pilots, PILOTS)

    def basis(self) -> Kron:
        """Coefficients to channel, unitary."""
        return Kron(Fourier(self.num_rx_ant), Fourier(self.num_tx_ant))

    def pilot_matrix(self) -> Complex[Tensor, "tx pilots"]:
        """X, the same for every draw."""
        return draw_pilots(self.pilots, (self.num_tx_ant, self.num_pilots), self.pilot_seed)

    def noise_var(self) -> float:
        """E|N_ij|^2 = num_tx_ant / SNR: the SNR is the mean power of an entry of H X over that of N."""
        return self.num_tx_ant * 10 ** (-self.snr_db / 10)

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        """n independent channels and their received blocks, y (n, rx_ant, pilots)."""
        check_count(type(self).__name__, "n", n)
        shape = (n, self.num_rx_ant, self.num_tx_ant)
        support = torch.rand(shape, generator=gen) < self.active
        coefficients = support * complex_normal(shape, gen, var=1 / self.active)
        h = self.basis().apply(coefficients)
        obs = receive(h, self._op, self.noise_var(), ("rx_ant", "tx_ant"), gen)
        return Slot(SparseChannel(h, coefficients), obs, self._about)

    def slots(self, n: int, gen: torch.Generator, links: int = 1) -> Iterator[Slot]:
        """n independent slots of `links` channels each."""
        check_count(type(self).__name__, "n", n)
        check_count(type(self).__name__, "links", links)
        for _ in range(n):
            yield self.draw(links, gen)

    @classmethod
    def example(cls, gen: torch.Generator) -> "SparseAngular":
        seed = int(torch.randint(1 << 31, (), generator=gen))
        return cls(num_rx_ant=2, num_tx_ant=8, active=0.25, num_pilots=5, pilot_seed=seed)

    @cached_property
    def _op(self) -> Kron:
        # kept, so that factorisations cached in it serve every draw
        return Kron(Identity((self.num_rx_ant,)), Dense(self.pilot_matrix().mT.contiguous()))

    @cached_property
    def _about(self) -> About:
        return About(
            kind="pilots",
            snr_definition="num_tx_ant / noise_var: mean power of an entry of H X over that of the noise",
            normalisation="E|h_ij|^2 = 1 over the law; never per sample",
            source=f"Bernoulli-Gauss angles, {self.active:g} active, on the DFT grid",
            geometry={
                "rx_ant": half_wave_line(self.num_rx_ant, "y"),
                "tx_ant": half_wave_line(self.num_tx_ant, "y"),
            },
        )
