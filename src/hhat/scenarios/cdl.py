"""3GPP CDL channels between two single-polarised uniform linear arrays, each channel written as one matrix product."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops import Dense, Identity, Kron
from hhat.ops.waves import line_waves as _steering
from hhat.scenarios import cdl_law
from hhat.scenarios.cdl_tables import PROFILES
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
from hhat.types import About, Channel, Slot

CHUNK_ENTRIES = 1 << 20
"""Steering entries formed at a time (8 MB): memory stays bounded, and the working set near the cache."""
PILOT_RATIO_LIMIT = 64.0


class CdlChannel(NamedTuple):
    """The channel, and the direction cosines of every path at both ends: the coupling of this draw. The specular path
    of D and E is the last."""

    h: Complex[Tensor, "n rx tx"]
    rx_cosine: Float[Tensor, "n paths"]
    tx_cosine: Float[Tensor, "n paths"]


@dataclass(frozen=True)
class Cdl:
    """Pilots through CDL-A to CDL-E: Y = H X + N, with N of variance `noise_var()` and one block X for all draws.

    H = sum_l sum_m sqrt(P_l / 20) exp(j phi_lm) a_r(u_lm) a_t(u'_lm)^T (+ sqrt(P_los) exp(j phi) a_r a_t^T for D, E),
    a_n(u) = exp(j pi n u), phi uniform, the azimuths and zeniths of the 20 rays of a cluster coupled anew at random
    for each channel (TR 38.901 section 7.7.1 for V-polarised omnidirectional elements: the polarisation matrix is a
    phase, absorbed in phi; so are the delays, as one subcarrier is seen). E|H_ij|^2 = 1 over the profile, exactly.

    profile:     "A" to "E"
    num_rx_ant, num_tx_ant: elements of the arrays, half a wavelength apart
    pilot_ratio: floor(pilot_ratio * num_tx_ant) pilot symbols
    snr_db:      see `noise_var`
    axis:        "horizontal" (sees azimuth) or "vertical" (sees zenith alone) arrays
    geometry:    "fixed": the arrays face each other, one covariance for all draws (still not Gaussian: the coupling
                 differs per draw); "rotated": transmitter turned by U(-60, 60) degrees, receiver by U(-180, 180)
    los_phase:   of the specular path of D and E: "random" per draw, or "constant" (0 at antennas 0)
    pilots, pilot_seed: "qpsk" or "gaussian" symbols, and the seed of their block

    Truth: `CdlChannel`, h complex64 (n, rx_ant, tx_ant) first; `cdl_bounds` uses the cosines.
    Raises ValueError for settings outside these.
    Source: diffusion_experts section 2.1; steering counts from antenna 0, not from the array's centre as there.
    """

    source: ClassVar[str] = "TR 38.901 tables 7.7.1-1 to -5, single-polarised ULA form"

    profile: str = "C"
    num_rx_ant: int = 16
    num_tx_ant: int = 64
    pilot_ratio: float | int = 0.6
    snr_db: float | int = 10.0
    axis: str = "horizontal"
    geometry: str = "fixed"
    los_phase: str = "random"
    pilots: str = "qpsk"
    pilot_seed: int = 5

    def __post_init__(self):
        where = type(self).__name__
        check_choice(where, "profile", self.profile, tuple(PROFILES))
        check_count(where, "num_rx_ant", self.num_rx_ant)
        check_count(where, "num_tx_ant", self.num_tx_ant)
        check_between(where, "pilot_ratio", self.pilot_ratio, 0, PILOT_RATIO_LIMIT)
        check_snr(where, self.snr_db)
        check_choice(where, "axis", self.axis, ("horizontal", "vertical"))
        check_choice(where, "geometry", self.geometry, ("fixed", "rotated"))
        check_choice(where, "los_phase", self.los_phase, ("random", "constant"))
        check_choice(where, "pilots", self.pilots, PILOTS)
        if self.num_pilots < 1:
            raise ValueError(f"{where}: pilot_ratio {self.pilot_ratio} of {self.num_tx_ant} antennas leaves no pilot")
        if (self.axis, self.geometry) == ("vertical", "rotated"):
            raise ValueError(f"{where}: a vertical array does not see the yaw of geometry 'rotated'; use 'fixed'")

    @property
    def num_pilots(self) -> int:
        return math.floor(self.pilot_ratio * self.num_tx_ant + 1e-9)  # 0.29 * 100 is 28.999... in binary

    def pilot_matrix(self) -> Complex[Tensor, "tx pilots"]:
        """X, the same for every draw."""
        return draw_pilots(self.pilots, (self.num_tx_ant, self.num_pilots), self.pilot_seed)

    def noise_var(self) -> float:
        """E|N_ij|^2 = num_tx_ant / SNR: the SNR is the mean power of an entry of H X over that of N."""
        return self.num_tx_ant * 10 ** (-self.snr_db / 10)

    def covariance(self, dtype: torch.dtype = torch.complex64) -> Complex[Tensor, "entries entries"]:
        """Exact E vec(H) vec(H)^H under h.reshape(rx * tx), from the tables alone; see `cdl_law.covariance`."""
        exact = cdl_law.covariance(self.profile, self.num_rx_ant, self.num_tx_ant, self.axis, self.geometry)
        return exact.to(dtype)

    def path_amplitudes(self) -> Float[Tensor, " paths"]:
        """Modulus of the gain of every path, as `CdlChannel` counts them."""
        return self._amplitudes

    def steering(
        self, rx_cosine: Float[Tensor, "n paths"], tx_cosine: Float[Tensor, "n paths"]
    ) -> tuple[Complex[Tensor, "n paths rx"], Complex[Tensor, "n paths tx"]]:
        """Array responses of the two ends, complex64."""
        return _steering(rx_cosine, self.num_rx_ant), _steering(tx_cosine, self.num_tx_ant)

    def channels(self, n: int, gen: torch.Generator) -> Complex[Tensor, "n rx tx"]:
        """n independent channels, complex64."""
        return self._truth(n, gen).h

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        """n independent channels and their received blocks, y (n, rx_ant, pilots)."""
        check_count(type(self).__name__, "n", n)
        truth = self._truth(n, gen)
        obs = receive(truth.h, self._op, self.noise_var(), ("rx_ant", "tx_ant"), gen)
        return Slot(truth, obs, self._about)

    def slots(self, n: int, gen: torch.Generator, links: int = 1) -> Iterator[Slot]:
        """n slots of `links` channels each. Slots are independent (block fading): this form has no Doppler."""
        check_count(type(self).__name__, "n", n)
        check_count(type(self).__name__, "links", links)
        for _ in range(n):
            yield self.draw(links, gen)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Cdl":
        return cls(num_rx_ant=2, num_tx_ant=4, pilot_seed=int(torch.randint(1 << 31, (), generator=gen)))

    @cached_property
    def _ends(self) -> tuple[cdl_law.End, cdl_law.End]:
        return cdl_law.ends(self.profile, self.axis, self.geometry, torch.float32)

    @cached_property
    def _amplitudes(self) -> Float[Tensor, " paths"]:
        return cdl_law.amplitudes(self.profile).to(torch.float32)

    @cached_property
    def _op(self) -> Kron:
        # kept, so that factorisations cached in it serve every draw
        return Kron(Identity((self.num_rx_ant,)), Dense(self.pilot_matrix().mT.contiguous()))

    @cached_property
    def _about(self) -> About:
        along = "y" if self.axis == "horizontal" else "z"
        return About(
            kind="pilots",
            snr_definition="num_tx_ant / noise_var: mean power of an entry of H X over that of the noise",
            normalisation="E|h_ij|^2 = 1 over the profile, by its table; never per sample",
            source=f"CDL-{self.profile}: {self.source}",
            geometry={
                "rx_ant": half_wave_line(self.num_rx_ant, along),
                "tx_ant": half_wave_line(self.num_tx_ant, along),
            },
        )

    def _truth(self, n: int, gen: torch.Generator) -> CdlChannel | Channel:
        paths = len(self._amplitudes)
        size = max(1, CHUNK_ENTRIES // (paths * (self.num_rx_ant + self.num_tx_ant)))
        h = torch.empty(n, self.num_rx_ant, self.num_tx_ant, dtype=torch.complex64)
        truth = CdlChannel(h, torch.empty(n, paths), torch.empty(n, paths))
        for start in range(0, n, size):
            for whole, part in zip(truth, self._chunk(min(size, n - start), gen), strict=True):
                whole[start : start + size] = part
        return truth

    def _chunk(self, n: int, gen: torch.Generator) -> CdlChannel:
        rx, tx = self._ends
        clusters, rays = rx.azimuth.shape
        paths = len(self._amplitudes)
        coupling = torch.rand(n, 3, clusters, rays, generator=gen).argsort(-1)  # step 8; one list of four may stay
        in_order = torch.arange(rays).expand(n, clusters, rays)
        turn = 2 * torch.rand(2, n, 1, generator=gen) - 1
        phase = 2 * math.pi * torch.rand(n, paths, generator=gen)
        if self.los_phase == "constant":
            phase[:, clusters * rays :] = 0
        rx_cosine = rx.cosines(coupling[:, 0], coupling[:, 1], turn[0])
        tx_cosine = tx.cosines(in_order, coupling[:, 2], turn[1])
        left, right = self.steering(rx_cosine, tx_cosine)
        gain = torch.polar(self._amplitudes.expand(n, -1), phase)
        return CdlChannel((left * gain[..., None]).mT @ right, rx_cosine, tx_cosine)
