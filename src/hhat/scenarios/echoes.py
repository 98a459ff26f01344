"""Echoes of OFDM symbols at a base station whose antenna gains and phases are unknown: targets come and go, each
snapshot tells the sector in which one would be, and nobody labels anything."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.random import complex_normal, generator, qpsk
from hhat.scenarios.parts import check_between, check_choice, check_count, check_snr
from hhat.sensing.echoes import Echoes, EchoTruth, delay_basis_for, delay_response, steering
from hhat.sensing.mimo import virtual_array
from hhat.types import About, Slot

FORMS = ("compressed", "full")
HZ_LIMIT = 1e12
RANGE_LIMIT_M = 1e6
SPACING_LIMIT = 1e6
DRIFT_SNAPSHOTS = 1000
"""Snapshots to which `drift_deg` refers."""


@dataclass(frozen=True)
class EchoScene:
    """Y = sum_k gamma_k (kappa * a(u_k, R_k)) (b(R_k) * x)^T + CN(0, 1), one transmit antenna, num_rx_ant receiving.

    With num_tx_ant > 1 both arrays have gains: kappa = kappa_r x kappa_t of the virtual array (`sensing.mimo`), antenna
    r num_tx_ant + t, which stands in the place of the receiving one in everything below.

    Each snapshot: with probability `presence` it holds min_targets..max_targets targets (uniform), each with gamma ~
    CN(0, SNR / (num_rx_ant num_subcarriers)), an angle uniform in the sector and a range uniform in range_min_m ..
    range_max_m. The sector's centre is uniform in +-sector_center_deg, its width uniform in sector_width_min_deg ..
    sector_width_max_deg; both are drawn anew for every snapshot and known to the receiver. x: unit-modulus QPSK.

    num_rx_ant, num_subcarriers, subcarrier_spacing_hz, carrier_hz: array and OFDM grid
    snr_db:            see `target_var`
    amplitude_spread:  |kappa_n| ~ U[1 - spread, 1 + spread]
    phase_spread_deg:  arg kappa_n ~ U[-spread, spread]; then |kappa|^2 = num_rx_ant
    kappa_seed:        of kappa, the same in every draw of this scenario
    drift_deg:         `slots` only: rms by which each antenna's phase walks in 1,000 snapshots; it steps between slots
    form:              "compressed": y in the few columns that delays of the sector span, drawn there (the exact law of
                       the compressed full form); "full": per subcarrier, with symbols
    spherical:         spherical instead of plane waves
    positions:         of the receiving elements along the line, in wavelengths, the first at 0; None: n / 2
    num_tx_ant:        transmitting antennas, each with a waveform of its own, orthogonal on every subcarrier over as
                       many symbols; their gains are drawn by the same law as the receiving ones
    tx_spacing:        between them, in wavelengths; None: num_rx_ant / 2, so that the virtual line has no gaps
    Truth: `EchoTruth`. Raises ValueError for settings outside these.

    Source: Mateos-Ramos et al. 2025, section II, whose defaults these are. Departures: u and kappa in this library's
    sign, a_n(u) = exp(+j pi n u), so that u is minus the paper's; half-wavelength spacing, which the paper's table
    gives as 5 mm; c = 299 792 458 m/s, not 3e8; sectors drawn per snapshot, as in the authors' code.
    """

    num_rx_ant: int = 64
    num_subcarriers: int = 256
    subcarrier_spacing_hz: float | int = 240e3
    carrier_hz: float | int = 60e9
    snr_db: float | int = 15.0
    presence: float | int = 0.5
    max_targets: int = 1
    min_targets: int = 1
    sector_center_deg: float | int = 60.0
    sector_width_min_deg: float | int = 10.0
    sector_width_max_deg: float | int = 20.0
    range_min_m: float | int = 10.0
    range_max_m: float | int = 43.75
    amplitude_spread: float | int = 0.05
    phase_spread_deg: float | int = 90.0
    kappa_seed: int = 1
    drift_deg: float | int = 0.0
    form: str = "compressed"
    spherical: bool = False
    positions: tuple[float, ...] | None = None
    num_tx_ant: int = 1
    tx_spacing: float | int | None = None

    def __post_init__(self):
        where = type(self).__name__
        for name in ("num_rx_ant", "num_subcarriers", "max_targets", "min_targets", "num_tx_ant"):
            check_count(where, name, getattr(self, name))
        if self.min_targets > self.max_targets:
            raise ValueError(f"{where}: min_targets: expected at most {self.max_targets}, got {self.min_targets}")
        check_between(where, "subcarrier_spacing_hz", self.subcarrier_spacing_hz, 0, HZ_LIMIT)
        check_between(where, "carrier_hz", self.carrier_hz, 0, HZ_LIMIT)
        check_snr(where, self.snr_db)
        check_choice(where, "form", self.form, FORMS)
        for name, high in (("presence", 1), ("amplitude_spread", 1), ("phase_spread_deg", 180), ("drift_deg", 1e3)):
            check_between(where, name, getattr(self, name), -math.ulp(0.0), high)
        check_between(where, "range_max_m", self.range_max_m, self.range_min_m, RANGE_LIMIT_M)
        check_between(where, "range_min_m", self.range_min_m, 0, RANGE_LIMIT_M)
        check_between(where, "sector_width_max_deg", self.sector_width_max_deg, 0, 180)
        check_between(where, "sector_width_min_deg", self.sector_width_min_deg, 0, self.sector_width_max_deg)
        check_between(where, "sector_center_deg", self.sector_center_deg, -1e-9, 90 - self.sector_width_max_deg / 2)
        if self.positions is not None and (len(self.positions) != self.num_rx_ant or self.positions[0] != 0):
            have = f"{len(self.positions)} from {self.positions[0]}" if self.positions else "none"
            raise ValueError(f"{where}: positions: expected {self.num_rx_ant} numbers, the first 0, got {have}")
        if self.tx_spacing is not None:
            check_between(where, "tx_spacing", self.tx_spacing, 0, SPACING_LIMIT)
        if self.num_tx_ant > 1 and self.spherical:
            raise ValueError(f"{where}: spherical: expected plane waves with several transmitting antennas")

    def noise_var(self) -> float:
        """E|w|^2 = 1: only the ratio to the echo matters."""
        return 1.0

    def target_var(self) -> float:
        """E|gamma|^2 = SNR / (num_ant num_subcarriers): the SNR is that of one target after full integration."""
        return 10 ** (self.snr_db / 10) / (self.num_ant * self.num_subcarriers)

    @property
    def num_ant(self) -> int:
        """Antennas of the virtual array; num_rx_ant with one transmit antenna."""
        return self.num_rx_ant * self.num_tx_ant

    def kappa(self) -> Complex[Tensor, " rx"]:
        """Gains of the antennas, |kappa|^2 = num_ant, complex64."""
        return self._product(self.array_gains())

    def array_gains(self) -> tuple[Complex[Tensor, " rx"], Complex[Tensor, " tx"]]:
        """Gains of the receiving and the transmitting antennas, |.|^2 = their number; 1 for one transmit antenna."""
        one = torch.ones(1, dtype=torch.complex64)
        return self._gains("kappa", self.num_rx_ant), self._gains("tx", self.num_tx_ant) if self.num_tx_ant > 1 else one

    def array_positions(self) -> tuple[Float[Tensor, " rx"], Float[Tensor, " tx"]]:
        """Of both arrays in wavelengths, each from its own first antenna."""
        line = torch.arange(self.num_rx_ant, dtype=torch.float64) / 2
        rx = line if self.positions is None else torch.tensor(self.positions, dtype=torch.float64)
        spacing = self.num_rx_ant / 2 if self.tx_spacing is None else self.tx_spacing
        return rx, torch.arange(self.num_tx_ant, dtype=torch.float64) * spacing

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        """n independent snapshots, y (n, rx_ant, column)."""
        check_count(type(self).__name__, "n", n)
        return self._draw(n, gen, self.kappa())

    def slots(self, n: int, gen: torch.Generator, links: int = 1) -> Iterator[Slot]:
        """n slots of `links` snapshots each; between them the phases walk, E|step|^2 = drift^2 links / 1000."""
        check_count(type(self).__name__, "n", n)
        check_count(type(self).__name__, "links", links)
        gains, step = self.array_gains(), math.radians(self.drift_deg) * math.sqrt(links / DRIFT_SNAPSHOTS)
        sizes = [self.num_rx_ant, self.num_tx_ant] if self.num_tx_ant > 1 else [self.num_rx_ant]
        walk = torch.zeros(sum(sizes), dtype=torch.float64)
        for _ in range(n):
            turns = (*torch.polar(torch.ones_like(walk), walk).to(torch.complex64).split(sizes), torch.ones(1))
            yield self._draw(links, gen, self._product((gains[0] * turns[0], gains[1] * turns[1])))
            walk = walk + step * torch.randn(len(walk), generator=gen, dtype=torch.float64)

    @classmethod
    def example(cls, gen: torch.Generator) -> "EchoScene":
        seed = int(torch.randint(1 << 31, (), generator=gen))
        return cls(num_rx_ant=8, num_subcarriers=16, subcarrier_spacing_hz=3.84e6, kappa_seed=seed)

    def _draw(self, n: int, gen: torch.Generator, kappa: Tensor) -> Slot:
        sectors, truth = self._targets(n, gen, kappa)
        blank = self._blank(n, sectors)
        waves = (kappa * steering(blank, truth.u, truth.range_m)) * truth.gain[..., None]
        signal = waves.mT @ delay_response(blank, truth.range_m)
        if self.form == "full" and self.num_tx_ant > 1:
            return Slot(truth, self._received(signal, blank, gen), self._about)
        if self.form == "full":
            symbols = qpsk((n, self.num_subcarriers), gen)
            blank, signal = replace(blank, symbols=symbols), signal * symbols[:, None, :]
        y = signal + complex_normal(tuple(signal.shape), gen, var=self.noise_var())
        energy = None
        if self.form == "compressed":
            outside = self.num_ant * (self.num_subcarriers - y.shape[-1])
            energy = y.abs().square().sum((-2, -1)) + self.noise_var() * _gamma(outside, n, gen)
        return Slot(truth, replace(blank, y=y, energy=energy), self._about)

    def _received(self, signal: Complex[Tensor, "n ant subcarrier"], blank: Echoes, gen: torch.Generator) -> Echoes:
        """What the receiving antennas see over num_tx_ant symbols, matched to the waveforms: `signal`, gamma holding
        the factor sqrt(num_tx_ant) that this brings, and noise drawn where it arises."""
        num, tones = self.num_tx_ant, self.num_subcarriers
        grid = torch.outer(torch.arange(num), torch.arange(num)) / num
        order = torch.polar(torch.ones(num, num), -2 * math.pi * grid)  # t, symbol: rows of a Fourier matrix
        waveforms = order[:, None, :] * qpsk((tones, num), gen)
        sent = signal.unflatten(1, (self.num_rx_ant, num)) / math.sqrt(num)
        y = torch.einsum("nrts,tsm->nrsm", sent, waveforms)
        y = y + complex_normal(tuple(y.shape), gen, var=self.noise_var())
        rx, tx = self.array_positions()
        return virtual_array(
            y, waveforms, rx, tx, blank.u_limits, blank.range_limits_m, blank.subcarrier_spacing_hz, blank.carrier_hz,
            self.noise_var(), blank.snr,
        )  # fmt: skip

    def _gains(self, label: str, num: int) -> Complex[Tensor, " num"]:
        gen = generator(label, self.kappa_seed, num)
        size, phase = 2 * torch.rand(2, num, generator=gen, dtype=torch.float64) - 1
        kappa = torch.polar(1 + self.amplitude_spread * size, math.radians(self.phase_spread_deg) * phase)
        return (kappa * (math.sqrt(num) / kappa.norm())).to(torch.complex64)

    def _product(self, gains: tuple[Tensor, Tensor]) -> Complex[Tensor, " rx"]:
        return (gains[0][:, None] * gains[1]).flatten()

    def _virtual_positions(self) -> Float[Tensor, " rx"] | None:
        if self.positions is None and self.num_tx_ant == 1:
            return None
        rx, tx = self.array_positions()
        return (rx[:, None] + tx).flatten()

    def _targets(self, n: int, gen: torch.Generator, kappa: Tensor) -> tuple[Float[Tensor, "n 2"], EchoTruth]:
        center, width, seen, count = torch.rand(4, n, generator=gen)
        center = self.sector_center_deg * (2 * center - 1)
        width = self.sector_width_min_deg + (self.sector_width_max_deg - self.sector_width_min_deg) * width
        limits = torch.deg2rad(center[:, None] + width[:, None] * torch.tensor([-0.5, 0.5]))
        least, most = self.min_targets, self.max_targets
        choices = most - least + 1
        count = torch.where(seen < self.presence, least + (choices * count).long().clamp_max(choices - 1), 0)
        present = torch.arange(most) < count[:, None]
        across, far = torch.rand(2, n, most, generator=gen)
        u = (limits[:, :1] + (limits[:, 1:] - limits[:, :1]) * across).sin()
        range_m = self.range_min_m + (self.range_max_m - self.range_min_m) * far
        gain = complex_normal((n, most), gen, var=self.target_var()) * present
        return limits.sin(), EchoTruth(kappa, present, u, range_m, gain)

    def _blank(self, n: int, u_limits: Tensor) -> Echoes:
        """The record with zeros for y: what steering and delay responses are defined by."""
        columns, basis = self.num_subcarriers, None
        if self.form == "compressed":
            width = self.range_max_m - self.range_min_m
            basis = delay_basis_for(self.num_subcarriers, self.subcarrier_spacing_hz, width).to(torch.complex64)
            columns = basis.shape[1]
        return Echoes(
            torch.zeros((), dtype=torch.complex64).expand(n, self.num_ant, columns),
            u_limits,
            torch.tensor([self.range_min_m, self.range_max_m], dtype=torch.float32),
            float(self.subcarrier_spacing_hz),
            float(self.carrier_hz),
            self.noise_var(),
            symbols=None if basis is not None else torch.ones(columns, dtype=torch.complex64),
            delay_basis=basis,
            positions=self._virtual_positions(),
            spherical=self.spherical,
            snr=10 ** (self.snr_db / 10),
        )

    @cached_property
    def _about(self) -> About:
        virtual = self._virtual_positions()
        places = [n / 2 for n in range(self.num_rx_ant)] if virtual is None else virtual.tolist()
        waves = "spherical" if self.spherical else "plane"
        both = f", {self.num_rx_ant} receiving x {self.num_tx_ant} transmitting antennas" if self.num_tx_ant > 1 else ""
        return About(
            kind="echo",
            snr_definition="mean gain power * num_rx_ant * num_subcarriers / noise_var: one target, fully integrated",
            normalisation="noise_var = 1, |kappa|^2 = num_rx_ant",
            source=f"OFDM echoes, {waves} waves, up to {self.max_targets} targets in sectors known per snapshot{both}",
            geometry={"rx_ant": [[0.0, float(place), 0.0] for place in places]},
            constants={
                "carrier_hz": float(self.carrier_hz),
                "subcarrier_spacing_hz": float(self.subcarrier_spacing_hz),
            },
        )


def _gamma(shape: int, n: int, gen: torch.Generator) -> Float[Tensor, " n"]:
    """n draws of Gamma(shape, 1), an integer shape (Marsaglia & Tsang, ACM TOMS 26, 2000): the energy of `shape`
    entries of CN(0, 1) without drawing them."""
    if shape == 0:
        return torch.zeros(n)
    d = shape - 1 / 3
    found, open_ = torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.bool)
    while bool(open_.any()):
        z = torch.randn(n, generator=gen, dtype=torch.float64)
        v = (1 + z / math.sqrt(9 * d)) ** 3
        coin = torch.rand(n, generator=gen, dtype=torch.float64).log()
        taken = open_ & (v > 0) & (coin < z.square() / 2 + d * (1 - v + v.clamp_min(1e-300).log()))
        found, open_ = torch.where(taken, d * v, found), open_ & ~taken
    return found.float()
