"""A long millimetre-wave line array split over processing units that see few analog beams of it each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.scenarios.near_field_parts import (
    ANGLE_LAWS,
    COMBINERS,
    WAVEFRONTS,
    Paths,
    draw_paths,
    exact_noise,
    responses,
    unit_operator,
)
from hhat.scenarios.parts import check_between, check_choice, check_count, check_snr, half_wave_line
from hhat.types import About, Channel, Observation, Slot

AXES = ("rx_ant", "subcarrier")
CHUNK_ENTRIES = 1 << 20
"""Path responses formed at a time (8 MB): memory stays bounded, and the working set near the cache."""
CARRIER_LIMIT_HZ = 1e13
RANGE_LIMIT_M = 1e6


class NearFieldChannel(NamedTuple):
    """h complex64 (n, rx_ant, subcarrier) and the paths that make it, each (n, path): see `Paths`."""

    h: Tensor
    psi: Tensor
    phi: Tensor
    delay_s: Tensor
    gain: Tensor
    range_m: Tensor
    angle_rad: Tensor


@dataclass(frozen=True)
class NearField:
    """Combined pilots of a near-field wideband channel: Y_m = W_m H_m + N for the units m = 1..num_unit, stacked.

    H[j, k] = sum_g alpha_g exp(j 2 pi [(psi_g j - phi_g j^2) (1 + f_k / f_c) - tau_g f_k]), j and k from 0,
    f_k = k B / num_subcarriers, alpha_g ~ CN(0, 1 / num_paths), so that E|H_jk|^2 = 1; `Paths` says what psi, phi and
    tau are. Unit m holds the m-th run of N = num_rx_ant / num_unit antennas, half a wavelength apart, and one RF chain:
    a row of W_m (num_slots, N) per pilot slot, of norm one, so that the antennas' noise is white behind it (several
    chains per unit would need whitening slot by slot and are not offered). W_m is drawn anew with every draw, one for
    all of its items.

    num_rx_ant, num_unit, num_subcarriers: the array, the units that share it, the pilot subcarriers
    num_slots:    pilot slots = beams a unit sees
    num_paths:    of each channel
    carrier_hz, bandwidth_hz: f_c and B; delays wrap at num_subcarriers / B (10 ns, 3 m, at the defaults)
    min_range_m, max_range_m: ranges are uniform between them
    angle_law:    angle to the array's axis uniform over "paper": -90..90 degrees (cosines of 0..1 alone, half of the
                  beams, piled up at end-fire) or "full": 0..180 degrees
    wavefront:    "fresnel": psi j - phi j^2 as above, or "spherical": exact distances
    combiner:     rows of W_m: "scrambled-hadamard" (a random sign per antenna), "hadamard", "dft" or "sign" (separate
                  +-1 / sqrt(N)). A partial DFT never sees N - num_slots of its N directions, and Walsh rows look like
                  waves: at the defaults 60 steps of `sbl` leave -7.8, -4.8, -3.0 and -7.2 dB in that order
    snr_db:       energy of W H over that of N, all units together, exact for every item

    Truth: `NearFieldChannel(h, psi, phi, ...)`. Raises ValueError for settings outside these.
    Source: Tang et al., Channel Estimation for XL-MIMO Systems with Decentralized Baseband Processing, 2025, equations
    (1)-(4), corrected: there f_k spans 24 GHz, the carrier's phase counts twice and the curvature has the sign of the
    delay. Its law of the gains is not stated.
    """

    num_rx_ant: int = 128
    num_unit: int = 4
    num_subcarriers: int = 16
    num_slots: int = 16
    num_paths: int = 4
    carrier_hz: float | int = 30e9
    bandwidth_hz: float | int = 1.6e9
    min_range_m: float | int = 10.0
    max_range_m: float | int = 50.0
    angle_law: str = "paper"
    wavefront: str = "fresnel"
    combiner: str = "scrambled-hadamard"
    snr_db: float | int = 10.0

    def __post_init__(self):
        where = type(self).__name__
        for name in ("num_rx_ant", "num_unit", "num_subcarriers", "num_slots", "num_paths"):
            check_count(where, name, getattr(self, name))
        check_between(where, "carrier_hz", self.carrier_hz, 0, CARRIER_LIMIT_HZ)
        check_between(where, "bandwidth_hz", self.bandwidth_hz, 0, self.carrier_hz)
        check_between(where, "max_range_m", self.max_range_m, 0, RANGE_LIMIT_M)
        check_between(where, "min_range_m", self.min_range_m, 0, self.max_range_m)
        check_choice(where, "angle_law", self.angle_law, tuple(ANGLE_LAWS))
        check_choice(where, "wavefront", self.wavefront, tuple(WAVEFRONTS))
        check_choice(where, "combiner", self.combiner, tuple(COMBINERS))
        check_snr(where, self.snr_db)
        if self.num_rx_ant % self.num_unit:
            raise ValueError(f"{where}: num_unit divides num_rx_ant {self.num_rx_ant}, got {self.num_unit}")
        size = self.num_unit_ant
        if self.combiner != "sign" and self.num_slots > size:
            raise ValueError(f"{where}: combiner '{self.combiner}' has {size} rows, got num_slots {self.num_slots}")
        if "hadamard" in self.combiner and size & (size - 1):
            raise ValueError(f"{where}: combiner '{self.combiner}' needs 2^k antennas per unit, got {size}")

    @property
    def num_unit_ant(self) -> int:
        """N, antennas of one unit."""
        return self.num_rx_ant // self.num_unit

    def offset_hz(self) -> Float[Tensor, " subcarrier"]:
        """f_k above the carrier, float64."""
        spacing = self.bandwidth_hz / self.num_subcarriers
        return spacing * torch.arange(self.num_subcarriers, dtype=torch.float64)

    def basis(self) -> Kron:
        """Angle-delay coefficients to the channel, H = F_A^H X F_D, unitary: X = fft over antennas, ifft over tones."""
        return Kron(Fourier(self.num_rx_ant).H, Fourier(self.num_subcarriers))

    def local_basis(self) -> Kron:
        """The same for the antennas of one unit."""
        return Kron(Fourier(self.num_unit_ant).H, Fourier(self.num_subcarriers))

    def paths(self, n: int, gen: torch.Generator) -> Paths:
        """The paths of n independent channels."""
        limits = (self.min_range_m, self.max_range_m)
        return draw_paths((n, self.num_paths), ANGLE_LAWS[self.angle_law], limits, self.carrier_hz, gen)

    def responses(self, paths: Paths) -> Complex[Tensor, "n path rx subcarrier"]:
        """What each path leaves on the array with gain 1: the channel is their sum, weighted by `paths.gain`."""
        lead = WAVEFRONTS[self.wavefront](paths, self.num_rx_ant, self.carrier_hz)
        return responses(lead, paths.delay_s, self.offset_hz(), self.carrier_hz)

    def channels(self, paths: Paths) -> Complex[Tensor, "n rx subcarrier"]:
        """h of these paths."""
        n, num_paths = paths.gain.shape
        h = torch.empty(n, self.num_rx_ant, self.num_subcarriers, dtype=torch.complex64)
        size = max(1, CHUNK_ENTRIES // (num_paths * self.num_rx_ant * self.num_subcarriers))
        for start in range(0, n, size):
            some = Paths(*(value[start : start + size] for value in paths))
            flat = self.responses(some).flatten(2)
            h[start : start + size] = (some.gain[:, None] @ flat).unflatten(-1, h.shape[1:]).squeeze(1)
        return h

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        """n independent channels and what the units receive, y (n, num_unit num_slots, subcarrier).

        Paths first, then combiner, then noise: other combiners and SNRs see the same channels.
        """
        check_count(type(self).__name__, "n", n)
        paths = self.paths(n, gen)
        h = self.channels(paths)
        rows = COMBINERS[self.combiner](self.num_unit, self.num_slots, self.num_unit_ant, gen)
        op = Kron(Dense(torch.block_diag(*rows)), Identity((self.num_subcarriers,)))
        clean = op.apply(h)
        noise, noise_var = exact_noise(clean, self.snr_db, gen)
        return Slot(NearFieldChannel(h, *paths), Observation(clean + noise, op, noise_var, AXES), self._about)

    def slots(self, n: int, gen: torch.Generator, links: int = 1) -> Iterator[Slot]:
        """n independent slots of `links` channels each, every slot with combiners of its own."""
        check_count(type(self).__name__, "n", n)
        check_count(type(self).__name__, "links", links)
        for _ in range(n):
            yield self.draw(links, gen)

    def local(self, slot: Slot) -> Slot:
        """The same draw as what each unit sees alone: h (n, unit, N, subcarrier), y (n, unit, num_slots, subcarrier).

        The truth is `Channel(h)`; noise_var is the draw's, so a unit's own SNR may lie above or below `snr_db`.
        Raises ValueError for a slot that is not a draw with these numbers of antennas, units, slots and subcarriers.
        """
        wanted = (self.num_unit * self.num_slots, self.num_rx_ant, self.num_subcarriers)
        op = unit_operator(slot.obs.op, self.num_unit, wanted)
        units = (self.num_unit, -1)
        h = None if slot.truth is None else Channel(slot.truth.h.unflatten(-2, units))
        noise_var = slot.obs.noise_var
        if noise_var is not None and noise_var.ndim > 1:
            per_row = noise_var.shape[-2] > 1
            noise_var = noise_var.unflatten(-2, units) if per_row else noise_var[..., None, :, :]
        obs = Observation(slot.obs.y.unflatten(-2, units), op, noise_var, AXES)
        return Slot(h, obs, replace(slot.about, geometry={"rx_ant": half_wave_line(self.num_unit_ant, "y")}))

    @classmethod
    def example(cls, gen: torch.Generator) -> "NearField":
        return cls(num_rx_ant=8, num_unit=2, num_subcarriers=4, num_slots=2, num_paths=2)

    @cached_property
    def _about(self) -> About:
        degrees = [round(math.degrees(limit)) for limit in ANGLE_LAWS[self.angle_law]]
        return About(
            kind="pilots",
            snr_definition="energy of W H over that of the noise, all units together, exact for every item",
            normalisation="E|h_jk|^2 = 1 over the law; never per sample",
            source=f"{self.num_paths} paths, {self.wavefront} wavefronts, {self.min_range_m:g} to "
            f"{self.max_range_m:g} m, {degrees[0]} to {degrees[1]} degrees to the axis, combiner {self.combiner}",
            geometry={"rx_ant": half_wave_line(self.num_rx_ant, "y")},
            constants={
                "carrier_hz": self.carrier_hz,
                "bandwidth_hz": self.bandwidth_hz,
                "subcarrier_spacing_hz": self.bandwidth_hz / self.num_subcarriers,
            },
            subcarriers=tuple(range(self.num_subcarriers)),
        )
