"""Few antennas, many subcarriers: a handful of delays off any grid, shared by the antennas."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops import Compose, Diagonal, Identity, Kron, LinearOp, Select
from hhat.random import complex_normal
from hhat.scenarios.parts import (
    check_between,
    check_choice,
    check_count,
    check_snr,
    draw_pilots,
    half_wave_line,
    receive,
)
from hhat.types import About, Slot

SPACING_LIMIT_HZ = 1e9


class DelayChannel(NamedTuple):
    """h complex64 (n, rx_ant, subcarrier); delay_s (n, path); gains complex64 (n, rx_ant, path)."""

    h: Tensor
    delay_s: Tensor
    gains: Tensor


@dataclass(frozen=True)
class Ofdm:
    """One pilot symbol over OFDM: y_ak = p_k h_ak + n_ak on the subcarriers that carry a pilot.

    h_ak = sum_p g_ap exp(-j 2 pi f_k tau_p), g_ap ~ CN(0, 1/num_paths) independent over antennas and paths,
    tau_p exponential with mean delay_spread_s, shared by the antennas. Averaged over the delays this is the
    exponential power-delay profile of that rms spread, E|h_ak|^2 = 1, and the covariance over subcarriers is
    1 / (1 + j 2 pi (f_k - f_l) delay_spread_s). A spread beyond one symbol is refused.

    num_rx_ant, num_subcarriers, subcarrier_spacing_hz: the grid; `layout`: "802.11" leaves out the carrier's centre
    (-26..-1, 1..26 for 52), "contiguous" does not; delay_spread_s, num_paths: the channel; comb: a pilot on every
    comb-th subcarrier from the first; snr_db: see `noise_var`; pilot_seed: of the QPSK pilots, one set for all draws.
    Truth: `DelayChannel(h, delay_s, gains)`. Raises ValueError for settings outside these.
    """

    num_rx_ant: int = 8
    num_subcarriers: int = 52
    subcarrier_spacing_hz: float | int = 312.5e3
    layout: str = "802.11"
    delay_spread_s: float | int = 50e-9
    num_paths: int = 6
    comb: int = 1
    snr_db: float | int = 10.0
    pilot_seed: int = 5

    def __post_init__(self):
        where = type(self).__name__
        check_count(where, "num_rx_ant", self.num_rx_ant)
        check_count(where, "num_subcarriers", self.num_subcarriers)
        check_count(where, "num_paths", self.num_paths)
        check_count(where, "comb", self.comb)
        check_between(where, "comb", self.comb, 0, self.num_subcarriers)
        check_between(where, "subcarrier_spacing_hz", self.subcarrier_spacing_hz, 0, SPACING_LIMIT_HZ)
        check_between(where, "delay_spread_s", self.delay_spread_s, 0, 1 / self.subcarrier_spacing_hz)
        check_snr(where, self.snr_db)
        check_choice(where, "layout", self.layout, ("802.11", "contiguous"))
        if self.layout == "802.11" and self.num_subcarriers % 2:
            raise ValueError(f"{where}: num_subcarriers is even in layout '802.11', got {self.num_subcarriers}")

    @property
    def subcarriers(self) -> tuple[int, ...]:
        """Signed index of each subcarrier, 0 = carrier centre."""
        half = self.num_subcarriers // 2
        if self.layout == "802.11":
            return (*range(-half, 0), *range(1, half + 1))
        return tuple(range(-half, self.num_subcarriers - half))

    def frequency_hz(self) -> Float[Tensor, " subcarrier"]:
        """f_k relative to the carrier, float64."""
        return self.subcarrier_spacing_hz * torch.tensor(self.subcarriers, dtype=torch.float64)

    def pilot_symbols(self) -> Complex[Tensor, " pilots"]:
        """p on the subcarriers that carry one, the same for every draw."""
        return draw_pilots("qpsk", (len(range(0, self.num_subcarriers, self.comb)),), self.pilot_seed)

    def noise_var(self) -> float:
        """E|n_ak|^2 = 1 / SNR: the SNR is per antenna and pilot subcarrier."""
        return 10 ** (-self.snr_db / 10)

    def covariance(self, dtype: torch.dtype = torch.complex64) -> Complex[Tensor, "entries entries"]:
        """Exact E vec(h) vec(h)^H under h.reshape(rx_ant * subcarrier): antennas are independent."""
        f = self.frequency_hz()
        turns = 2 * math.pi * self.delay_spread_s * (f[:, None] - f)
        over_subcarriers = 1 / torch.complex(torch.ones_like(turns), turns)
        antennas = torch.eye(self.num_rx_ant, dtype=over_subcarriers.dtype)
        return torch.kron(antennas, over_subcarriers).to(dtype)

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        """n independent channels and what is received on their pilots, y (n, rx_ant, pilots)."""
        check_count(type(self).__name__, "n", n)
        uniform = torch.rand(n, self.num_paths, generator=gen, dtype=torch.float64)
        delay_s = -self.delay_spread_s * torch.log1p(-uniform)
        gains = complex_normal((n, self.num_rx_ant, self.num_paths), gen, var=1 / self.num_paths)
        phase = -2 * math.pi * delay_s[..., None] * self.frequency_hz()  # float64: many turns are lost in single
        h = gains @ torch.polar(torch.ones_like(phase), phase).to(gains.dtype)
        obs = receive(h, self._op, self.noise_var(), ("rx_ant", "subcarrier"), gen)
        return Slot(DelayChannel(h, delay_s, gains), obs, self._about)

    def slots(self, n: int, gen: torch.Generator, links: int = 1) -> Iterator[Slot]:
        """n independent slots of `links` channels each."""
        check_count(type(self).__name__, "n", n)
        check_count(type(self).__name__, "links", links)
        for _ in range(n):
            yield self.draw(links, gen)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Ofdm":
        seed = int(torch.randint(1 << 31, (), generator=gen))
        return cls(num_rx_ant=2, num_subcarriers=8, num_paths=2, comb=2, pilot_seed=seed)

    @cached_property
    def _op(self) -> LinearOp:
        pilots = Diagonal(self.pilot_symbols())
        if self.comb > 1:
            pilots = Compose(pilots, Select(torch.arange(0, self.num_subcarriers, self.comb), self.num_subcarriers))
        return Kron(Identity((self.num_rx_ant,)), pilots)

    @cached_property
    def _about(self) -> About:
        return About(
            kind="pilots",
            snr_definition="1 / noise_var: mean power of p_k h_ak over that of the noise, per antenna and pilot",
            normalisation="E|h_ak|^2 = 1 over the law; never per sample",
            source=f"{self.num_paths} exponential delays, off-grid, shared by the antennas",
            geometry={"rx_ant": half_wave_line(self.num_rx_ant, "y")},
            constants={
                "subcarrier_spacing_hz": self.subcarrier_spacing_hz,
                "delay_spread_s": self.delay_spread_s,
            },
            subcarriers=self.subcarriers,
        )
