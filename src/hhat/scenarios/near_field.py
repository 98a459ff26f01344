"""A long millimetre-wave line array split over processing units that see few analog beams of it each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.impairments.unit_sync import UnitSync
from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.scenarios.cdl_tables import PROFILES
from hhat.scenarios.near_field_laws import cdl_paths, hidden, rays_of, region_of, visibility
from hhat.scenarios.near_field_parts import (
    ANGLE_LAWS,
    COMBINERS,
    WAVEFRONTS,
    Combiner,
    Paths,
    draw_paths,
    exact_noise,
    responses,
    unit_operator,
    whitened,
)
from hhat.scenarios.parts import SNR_LIMIT_DB, check_between, check_choice, check_count, check_snr, half_wave_line
from hhat.types import About, Channel, Observation, Slot

AXES = ("rx_ant", "subcarrier")
CHUNK_ENTRIES = 1 << 20
"""Path responses formed at a time (8 MB): memory stays bounded, and the working set near the cache."""
CARRIER_LIMIT_HZ = 1e13
RANGE_LIMIT_M = 1e6
DELAY_SPREAD_LIMIT_S = 1e-3


class NearFieldChannel(NamedTuple):
    """h complex64 (n, rx_ant, subcarrier), the paths that make it, each (n, path): see `Paths`; rays of one cluster
    follow each other. phase_rad, timing_s (n, unit): errors of the units, which h holds: see `NearField.sync`."""

    h: Tensor
    psi: Tensor
    phi: Tensor
    delay_s: Tensor
    gain: Tensor
    range_m: Tensor
    angle_rad: Tensor
    first_ant: Tensor
    last_ant: Tensor
    phase_rad: Tensor
    timing_s: Tensor

    @property
    def paths(self) -> Paths:
        return Paths(*self[1:9])


@dataclass(frozen=True, eq=False)
class NearField:
    """Combined pilots of a near-field wideband channel: Y_m = W_m H_m + N for the units m = 1..num_unit, stacked.

    H[j, k] = sum_g alpha_g exp(j 2 pi [(psi_g j - phi_g j^2) (1 + f_k / f_c) - tau_g f_k]), j and k from 0,
    f_k = k B / num_subcarriers, alpha_g ~ CN(0, 1 / num_paths), so that E|H_jk|^2 = 1; `Paths` says what psi, phi and
    tau are. Unit m holds the m-th run of N = num_rx_ant / num_unit antennas, half a wavelength apart, and num_rf_chains
    RF chains: as many rows of W_m (num_slots num_rf_chains, N) per pilot slot. Rows of one slot are orthonormal, or
    made so (`whitened`), so that the antennas' noise is white behind them. W_m is drawn anew with every draw, one for
    all of its items; a combiner that is given stays.

    num_rx_ant, num_unit, num_subcarriers: the array, the units that share it, the pilot subcarriers
    num_slots, num_rf_chains: pilot slots, and beams that a unit sees in each
    num_paths:    of each channel
    num_rays:     of each path; from 2 on, a path is a cluster of rays of equal mean power around it, the truth holds
                  the rays, and the cluster has the path's gain where the spreads are 0
    angle_spread_deg, range_spread_m: standard deviation of the rays' normal offsets
    cdl_profile:  "A" to "E": clusters, powers, delays and angles of a CDL profile (num_paths, angle_law are not
                  used): see `cdl_paths`, which also says where ranges come from
    delay_spread_s: rms delay spread of the profile
    min_visible_share: a path is seen by a run of antennas whose share of the array is uniform from here to 1; below 1
                  the array is not stationary: see `visibility`
    visible_edge_ant, hidden_loss_db: antennas over which a path fades beyond its run, and by how much in the end
    phase_error_rad, timing_error_s: every unit is off by a phase and a delay uniform within +- these: see `sync`
    carrier_hz, bandwidth_hz: f_c and B; delays wrap at num_subcarriers / B (10 ns, 3 m, at the defaults)
    min_range_m, max_range_m: ranges are uniform between them
    angle_law:    angle to the array's axis uniform over "paper": -90..90 degrees (cosines of 0..1 alone, half of the
                  beams, piled up at end-fire) or "full": 0..180 degrees
    wavefront:    "fresnel": psi j - phi j^2 as above, or "spherical": exact distances
    combiner:     rows of W_m: "scrambled-hadamard" (a random sign per antenna), "hadamard", "dft" or "sign" (separate
                  +-1 / sqrt(N)), or a tensor of rows (num_unit, num_slots num_rf_chains, N), slot by slot. A partial
                  DFT never sees N - num_slots of its N directions, and Walsh rows look like waves: at the defaults 60
                  steps of `sbl` leave -7.8, -4.8, -3.0 and -7.2 dB in that order
    snr_db:       energy of W H (whitened) over that of N, all units together, exact for every item

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
    combiner: str | Tensor = "scrambled-hadamard"
    snr_db: float | int = 10.0
    num_rf_chains: int = 1
    num_rays: int = 1
    angle_spread_deg: float | int = 0.0
    range_spread_m: float | int = 0.0
    cdl_profile: str | None = None
    delay_spread_s: float | int = 30e-9
    min_visible_share: float | int = 1.0
    visible_edge_ant: float | int = 4.0
    hidden_loss_db: float | int = 20.0
    phase_error_rad: float | int = 0.0
    timing_error_s: float | int = 0.0

    def __post_init__(self):
        where = type(self).__name__
        for name in (
            "num_rx_ant",
            "num_unit",
            "num_subcarriers",
            "num_slots",
            "num_paths",
            "num_rf_chains",
            "num_rays",
        ):
            check_count(where, name, getattr(self, name))
        check_between(where, "carrier_hz", self.carrier_hz, 0, CARRIER_LIMIT_HZ)
        check_between(where, "bandwidth_hz", self.bandwidth_hz, 0, self.carrier_hz)
        check_between(where, "max_range_m", self.max_range_m, 0, RANGE_LIMIT_M)
        check_between(where, "min_range_m", self.min_range_m, 0, self.max_range_m)
        check_choice(where, "angle_law", self.angle_law, tuple(ANGLE_LAWS))
        check_choice(where, "wavefront", self.wavefront, tuple(WAVEFRONTS))
        check_snr(where, self.snr_db)
        check_between(where, "min_visible_share", self.min_visible_share, 0, 1)
        check_between(where, "hidden_loss_db", self.hidden_loss_db, 0, SNR_LIMIT_DB)
        check_between(where, "delay_spread_s", self.delay_spread_s, 0, DELAY_SPREAD_LIMIT_S)
        for name, limit in (
            ("angle_spread_deg", 90.0),
            ("range_spread_m", self.min_range_m),
            ("visible_edge_ant", 1e6),
            ("phase_error_rad", math.pi),
            ("timing_error_s", DELAY_SPREAD_LIMIT_S),
        ):
            if getattr(self, name) != 0:
                check_between(where, name, getattr(self, name), 0, limit)
        if self.cdl_profile is not None:
            check_choice(where, "cdl_profile", self.cdl_profile, tuple(PROFILES))
            if self.num_rays > 1 or self.angle_spread_deg:
                raise ValueError(f"{where}: cdl_profile sets the rays and their angles: leave num_rays 1, spread 0")
        elif self.num_rays == 1 and (self.angle_spread_deg or self.range_spread_m):
            raise ValueError(f"{where}: spreads are of the rays of a path: num_rays of at least 2, got 1")
        if self.num_rx_ant % self.num_unit:
            raise ValueError(f"{where}: num_unit divides num_rx_ant {self.num_rx_ant}, got {self.num_unit}")
        self._check_combiner(where)

    def _check_combiner(self, where: str) -> None:
        size = self.num_unit_ant
        if isinstance(self.combiner, Tensor):
            wanted = (self.num_unit, self.num_beams, size)
            if tuple(self.combiner.shape) != wanted or not bool(torch.isfinite(torch.view_as_real(self._given)).all()):
                raise ValueError(f"{where}: combiner: finite rows {wanted}, got {tuple(self.combiner.shape)}")
            return
        check_choice(where, "combiner", self.combiner, tuple(COMBINERS))
        if self.num_rf_chains > size:
            raise ValueError(f"{where}: at most {size} num_rf_chains for {size} antennas, got {self.num_rf_chains}")
        if self.combiner != "sign" and self.num_beams > size:
            chains = "" if self.num_rf_chains == 1 else f" times num_rf_chains {self.num_rf_chains}"
            told = f"num_slots {self.num_slots}{chains}"
            raise ValueError(f"{where}: combiner '{self.combiner}' has {size} rows, got {told}")
        if "hadamard" in self.combiner and size & (size - 1):
            raise ValueError(f"{where}: combiner '{self.combiner}' needs 2^k antennas per unit, got {size}")

    @property
    def num_unit_ant(self) -> int:
        """N, antennas of one unit."""
        return self.num_rx_ant // self.num_unit

    @property
    def num_beams(self) -> int:
        """Q, rows of one unit's combiner."""
        return self.num_slots * self.num_rf_chains

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
        """The paths of n independent channels, rays of one cluster behind each other."""
        limits = (self.min_range_m, self.max_range_m)
        if self.cdl_profile is not None:
            found, cluster = cdl_paths(
                n, self.cdl_profile, self.delay_spread_s, limits, self.range_spread_m, self.carrier_hz, gen
            )
        else:
            found = draw_paths((n, self.num_paths), ANGLE_LAWS[self.angle_law], limits, self.carrier_hz, gen)
            cluster = torch.arange(self.num_paths).repeat_interleave(self.num_rays)
        if self.num_rays > 1:
            spread = math.radians(self.angle_spread_deg), float(self.range_spread_m)
            found = rays_of(found, self.num_rays, spread, self.carrier_hz, gen)
        first, last = region_of((n, int(cluster.max()) + 1), self.num_rx_ant, self.min_visible_share, gen)
        return found._replace(first_ant=first[:, cluster], last_ant=last[:, cluster])

    def responses(self, paths: Paths) -> Complex[Tensor, "n path rx subcarrier"]:
        """What each path leaves on the array with gain 1: the channel is their sum, weighted by `paths.gain`."""
        lead = WAVEFRONTS[self.wavefront](paths, self.num_rx_ant, self.carrier_hz)
        waves = responses(lead, paths.delay_s, self.offset_hz(), self.carrier_hz)
        if hidden(paths, self.num_rx_ant):
            waves = waves * visibility(paths, self.num_rx_ant, self.visible_edge_ant, self.hidden_loss_db)[..., None]
        return waves

    def channels(self, paths: Paths) -> Complex[Tensor, "n rx subcarrier"]:
        """h of these paths."""
        n, num_paths = paths.gain.shape
        h = torch.empty(n, self.num_rx_ant, self.num_subcarriers, dtype=torch.complex64)
        size = max(1, CHUNK_ENTRIES // (num_paths * self.num_rx_ant * self.num_subcarriers))
        for start in range(0, n, size):
            some = paths.items(slice(start, start + size))
            flat = self.responses(some).flatten(2)
            h[start : start + size] = (some.gain[:, None] @ flat).unflatten(-1, h.shape[1:]).squeeze(1)
        return h

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        """n independent channels and what the units receive, y (n, num_unit num_beams, subcarrier).

        Paths, errors of the units, combiner, noise in this order: other combiners and SNRs see the same channels.
        """
        check_count(type(self).__name__, "n", n)
        paths = self.paths(n, gen)
        h = self.channels(paths)
        errors = torch.zeros(2, n, self.num_unit, dtype=torch.float64)
        if self.phase_error_rad or self.timing_error_s:
            off = (self.phase_error_rad, self.timing_error_s)
            drawn = UnitSync.draw(gen, 1.0, (n, self.num_unit), self.offset_hz(), *off, self.num_unit_ant)
            h, errors = drawn(h), torch.stack([drawn.phase_rad, drawn.timing_s])
        op = Kron(Dense(torch.block_diag(*self._rows(gen))), Identity((self.num_subcarriers,)))
        clean = op.apply(h)
        noise, noise_var = exact_noise(clean, self.snr_db, gen)
        kept: tuple[Any, ...] = (*paths, *errors)
        truth = NearFieldChannel(h, *kept)
        return Slot(truth, Observation(clean + noise, op, noise_var, AXES), self._about)

    def sync(self, truth: NearFieldChannel) -> UnitSync:
        """The units' errors: `truth.h = sync(h of the paths)`. The channel that data passes holds them, and so does h;
        a method is told nothing of them. `sync(truth).op().H` gives back the array whose units agree."""
        return UnitSync(truth.phase_rad, truth.timing_s, self.offset_hz(), self.num_unit_ant)

    def _rows(self, gen: torch.Generator) -> Combiner:
        """W_m of all units, orthonormal within each slot."""
        if isinstance(self.combiner, Tensor):
            return whitened(self._given, self.num_rf_chains)
        rows = COMBINERS[self.combiner](self.num_unit, self.num_beams, self.num_unit_ant, gen)
        # the other laws have orthonormal rows; a single row of norm one needs nothing
        return whitened(rows, self.num_rf_chains) if self.combiner == "sign" and self.num_rf_chains > 1 else rows

    @property
    def _given(self) -> Combiner:
        """The combiner that was given, complex."""
        return torch.as_tensor(self.combiner).to(torch.complex64)

    def slots(self, n: int, gen: torch.Generator, links: int = 1) -> Iterator[Slot]:
        """n independent slots of `links` channels each, every slot with combiners of its own."""
        check_count(type(self).__name__, "n", n)
        check_count(type(self).__name__, "links", links)
        for _ in range(n):
            yield self.draw(links, gen)

    def local(self, slot: Slot) -> Slot:
        """The same draw as what each unit sees alone: h (n, unit, N, subcarrier), y (n, unit, num_beams, subcarrier).

        The truth is `Channel(h)`; noise_var is the draw's, so a unit's own SNR may lie above or below `snr_db`.
        Raises ValueError for a slot that is not a draw with these numbers of antennas, units, slots and subcarriers.
        """
        wanted = (self.num_unit * self.num_beams, self.num_rx_ant, self.num_subcarriers)
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
        law = f"{self.num_paths} paths"
        if self.num_rays > 1:
            law += f" of {self.num_rays} rays ({self.angle_spread_deg:g} degrees, {self.range_spread_m:g} m)"
        angles = f"{degrees[0]} to {degrees[1]} degrees to the axis"
        if self.cdl_profile is not None:
            law, angles = f"CDL-{self.cdl_profile}, {self.delay_spread_s:g} s", "angles of its table"
        if self.min_visible_share < 1:
            angles += f", seen by {self.min_visible_share:g} to 1 of the array"
        if self.phase_error_rad or self.timing_error_s:
            angles += f", units off by {self.phase_error_rad:g} rad and {self.timing_error_s:g} s"
        combiner = "as given" if isinstance(self.combiner, Tensor) else self.combiner
        return About(
            kind="pilots",
            snr_definition="energy of W H over that of the noise, all units together, exact for every item",
            normalisation="E|h_jk|^2 = 1 over the law; never per sample",
            source=f"{law}, {self.wavefront} wavefronts, {self.min_range_m:g} to {self.max_range_m:g} m, {angles}, "
            f"combiner {combiner}",
            geometry={"rx_ant": half_wave_line(self.num_rx_ant, "y")},
            constants={
                "carrier_hz": self.carrier_hz,
                "bandwidth_hz": self.bandwidth_hz,
                "subcarrier_spacing_hz": self.bandwidth_hz / self.num_subcarriers,
            },
            subcarriers=tuple(range(self.num_subcarriers)),
        )
