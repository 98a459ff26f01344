"""Uplink pilots of a user who moves slowly, through receive chains that distort and drift."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex
from torch import Tensor

from hhat.distortion.record import DistortedPilots, ImpairedTruth
from hhat.impairments.amplifier import Amplifier
from hhat.impairments.chain import Chain
from hhat.impairments.drift import AMPLIFIER_NOISE, Drift, Theta
from hhat.impairments.quantiser import Quantiser
from hhat.random import complex_normal, qpsk
from hhat.scenarios.near_field_parts import LIGHT_M_PER_S
from hhat.scenarios.parts import check_between, check_choice, check_count, check_snr, half_wave_line
from hhat.scenarios.srs_sionna import SrsUma
from hhat.types import About, Slot

CHANNELS = ("clusters", "uma")
DRIFTS = ("off", *AMPLIFIER_NOISE)
POWERS = (0.6, 0.4)
RAYS = 20
SPREAD_RAD = math.radians(1.0)
MAX_CENTRE_RAD = math.radians(60.0)
APART_RAD = math.radians(10.0)
MATCHED = 0.1778
"""Crosstalk (-15 dB amplitude) and IQ phase (rad) of the receiver that models are trained on."""


@dataclass(frozen=True)
class ImpairedUplink:
    """ytil = f(h r^T + n),   n ~ CN(0, noise_var) before f;  f: crosstalk, amplifier with memory, IQ imbalance

    h(t) is constant in a slot and starts each slot with silence before the first pilot: f has no past.
    channel:   "clusters": two clusters of 20 rays with powers 0.6 and 0.4, centres uniform within +-60 degrees and at
               least 10 apart, ray angles N(centre, (1 degree)^2), each ray with a phase and a Doppler shift of its own
               on a half-wavelength line, E|h|^2 = 1 over drops; "uma": 3GPP UMa without line of sight by Sionna (all
               taps added, 38.901 pattern), scaled to mean |h|^2 = 1 over the slots and antennas of a drop
    pilots:    QPSK, new in every slot and for every link (constant ones hide memory and IQ imbalance)
    snr_db:    1 / noise_var
    amplifier: name of a preset, of a measured amplifier or a folder of records (`hhat.impairments.presets.preset`)
    back_off:  None: the amplifier's own
    severity:  of all errors; 0: f is the identity
    drift:     "off": every chain as models are trained, crosstalk and IQ phase 0.1778; else the receiver starts away
               from that and moves once per slot by `Drift`, and this says what noise amplifiers have: "per_chain",
               "shared", "none". Links are receivers of their own. In `draw` receivers are where the drift starts
    adc_bits:  per real number, full scale 4 times the rms of a unit-power signal; None: no rounding
    Truth: `ImpairedTruth`. obs: `DistortedPilots`. Raises ValueError for settings outside these.
    Source: Xu & Liu 2026, section on simulations; the clusters stand in for their ray tracer. The distorted signal's
    power relative to 1 depends on the SNR: at 0 dB amplifiers are driven 3 dB harder than at 30 dB.
    """

    num_rx_ant: int = 64
    num_pilots: int = 4
    snr_db: float | int = 20.0
    channel: str = "clusters"
    slot_s: float | int = 1e-3
    carrier_hz: float | int = 6e9
    speed_m_per_s: float | int = 1.0
    amplifier: str = "warp"
    back_off: float | int | None = None
    severity: float | int = 1.0
    drift: str = "off"
    adc_bits: int | None = None

    def __post_init__(self):
        where = type(self).__name__
        for name in ("num_rx_ant", "num_pilots"):
            check_count(where, name, getattr(self, name))
        check_snr(where, self.snr_db)
        check_choice(where, "channel", self.channel, CHANNELS)
        check_choice(where, "drift", self.drift, DRIFTS)
        for name, limit in (("slot_s", 1.0), ("carrier_hz", 1e12), ("speed_m_per_s", 1e4)):
            check_between(where, name, getattr(self, name), 0, limit)
        check_between(where, "severity", self.severity, -math.ulp(0.0), 10)
        if self.back_off is not None:
            check_between(where, "back_off", self.back_off, 0, 10)
        if self.adc_bits is not None and not 2 <= self.adc_bits <= 24:
            raise ValueError(f"{where}: adc_bits is None or 2..24, got {self.adc_bits}")
        if self.drift != "off" and self.severity != 1:
            raise ValueError(f"{where}: severity {self.severity} scales a receiver that stands still; it drifts at 1")
        _ = self.learned

    @property
    def doppler_hz(self) -> float:
        """Largest Doppler shift."""
        return self.speed_m_per_s * self.carrier_hz / LIGHT_M_PER_S

    def noise_var(self) -> float:
        return 10 ** (-self.snr_db / 10)

    @cached_property
    def learned(self) -> Amplifier:
        """The amplifier that models are trained on, at this severity."""
        return Amplifier(self.amplifier, self.back_off).at_severity(self.severity)

    def matched(self) -> Theta:
        """The receiver that models are trained on, (rx_ant)."""
        error = self.severity * MATCHED
        return Theta.alike(self.learned, (self.num_rx_ant,), error, error)

    def receiver(self, theta: Theta) -> Chain:
        """f with these values, converters included."""
        chain = theta.chain(self.learned)
        if self.adc_bits is None:
            return chain
        step = torch.full((self.num_rx_ant,), 4.0 / (2 ** (self.adc_bits - 1) - 1), dtype=torch.float64)
        return Chain((*chain.parts, Quantiser(step * self.severity, self.adc_bits)))

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        """n independent channels in one slot each, y (n, pilot, rx_ant)."""
        check_count(type(self).__name__, "n", n)
        h = self._channels(n, 1, gen)[0]
        law = self._law
        theta = self.matched() if law is None else law.begin(self.learned, (n, self.num_rx_ant))
        return self._slot(h, theta, gen)

    def slots(self, n: int, gen: torch.Generator, links: int = 1) -> Iterator[Slot]:
        """n slots of `links` users, each with a receiver of its own: channel and receivers go on from slot to slot."""
        check_count(type(self).__name__, "n", n)
        check_count(type(self).__name__, "links", links)
        channels = self._channels(links, n, gen)
        # receivers walk by their own generator: the same pilots and noise whatever the drift
        own = torch.Generator().manual_seed(int(torch.randint(1 << 62, (), generator=gen)))
        law, shape = self._law, (links, self.num_rx_ant)
        theta = self.matched() if law is None else law.begin(self.learned, shape)
        target = theta if law is None else law.towards(self.learned, shape)
        for h in channels:
            yield self._slot(h, theta, gen)
            if law is not None:
                theta = law.step(theta, target, own)

    def pairs(self, n: int, gen: torch.Generator, num_symbols: int = 10) -> tuple[Tensor, Tensor]:
        """Undistorted y ~ CN(0, 1) and what the matched receiver makes of it, complex64 (n, symbol, rx_ant): what a
        model of the receiver is trained on, before anything drifts."""
        check_count(type(self).__name__, "n", n)
        check_count(type(self).__name__, "num_symbols", num_symbols)
        clean = complex_normal((n, num_symbols, self.num_rx_ant), gen)
        return clean, self.receiver(self.matched())(clean)

    @cached_property
    def _law(self) -> Drift | None:
        return None if self.drift == "off" else Drift(amplifier_noise=self.drift)

    def _slot(self, h: Complex[Tensor, "n rx"], theta: Theta, gen: torch.Generator) -> Slot:
        pilots = qpsk((len(h), self.num_pilots), gen, h.dtype)
        noise = complex_normal((len(h), self.num_pilots, self.num_rx_ant), gen, h.dtype, self.noise_var())
        y = h[:, None] * pilots[..., None] + noise
        dirty = self.receiver(theta)(y).to(torch.complex64)
        values = (theta.coupling, theta.phase_rad, theta.coefficients)
        single = [value.to(torch.complex64 if value.is_complex() else torch.float32) for value in values]
        truth = ImpairedTruth(h.to(torch.complex64), y.to(torch.complex64), *single)
        return Slot(truth, DistortedPilots(dirty, pilots.to(torch.complex64), self.noise_var()), self._about)

    def _channels(self, n: int, num_slots: int, gen: torch.Generator) -> Complex[Tensor, "slot n rx"]:
        """complex128, of n drops at the slots' times."""
        if self.channel == "uma":
            return self._uma(n, num_slots, gen)
        real = lambda *shape: torch.rand(n, *shape, generator=gen, dtype=torch.float64)  # noqa: E731
        # order statistics of what is left, moved apart: uniform given that the centres are so far from each other
        room = 2 * MAX_CENTRE_RAD - APART_RAD
        centre = (room * real(2)).sort(-1).values + torch.tensor([0.0, APART_RAD]) - MAX_CENTRE_RAD
        centre = torch.where(real(1) < 0.5, centre, centre.flip(-1))
        angle = centre[..., None] + SPREAD_RAD * torch.randn(n, 2, RAYS, generator=gen, dtype=torch.float64)
        doppler = self.doppler_hz * torch.cos(2 * math.pi * real(2, RAYS))
        power = (torch.tensor(POWERS, dtype=torch.float64)[:, None] / RAYS).expand(n, 2, RAYS)
        gain = torch.polar(power.sqrt(), 2 * math.pi * real(2, RAYS)).flatten(1)
        place = torch.arange(self.num_rx_ant, dtype=torch.float64)
        phase = math.pi * angle.flatten(1).sin()[:, None] * place[:, None]
        steering = torch.polar(torch.ones_like(phase), phase)  # (n, rx_ant, ray)
        time_s = self.slot_s * torch.arange(num_slots, dtype=torch.float64)[:, None, None]
        turn = 2 * math.pi * doppler.flatten(1) * time_s
        return ((torch.polar(torch.ones_like(turn), turn) * gain)[..., None, :] @ steering.mT)[..., 0, :]

    def _uma(self, n: int, num_slots: int, gen: torch.Generator) -> Complex[Tensor, "slot n rx"]:
        law = SrsUma(
            columns=self.num_rx_ant,
            rows=1,
            period_s=self.slot_s,
            carrier_hz=self.carrier_hz,
            speed_kmh=3.6 * self.speed_m_per_s,
        )
        found = law.drops(n, gen, num_slots).gain[:, :, :, 0].sum(2)  # (n, rx_ant, slot)
        scale = found.abs().square().mean((1, 2), keepdim=True).rsqrt()
        return (found * scale).permute(2, 0, 1).to(torch.complex128)

    @cached_property
    def _about(self) -> About:
        law = {"clusters": "two clusters of 20 rays, 1 degree", "uma": "3GPP UMa by Sionna 2, no line of sight"}
        words = "as models are trained on them" if self.drift == "off" else f"drifting, amplifier noise {self.drift}"
        rounding = "" if self.adc_bits is None else f", {self.adc_bits}-bit converters"
        source = self.learned.polynomial.source
        return About(
            kind="pilots",
            snr_definition="1 / noise_var before the distortion",
            normalisation="mean |h|^2 = 1, |pilot| = 1",
            source=f"{law[self.channel]}; receivers {words}{rounding}; amplifier: {source}",
            geometry={"rx_ant": half_wave_line(self.num_rx_ant, "y")},
            constants={"carrier_hz": self.carrier_hz, "slot_s": self.slot_s, "doppler_hz": self.doppler_hz},
        )

    @classmethod
    def example(cls, gen: torch.Generator) -> "ImpairedUplink":
        return cls(num_rx_ant=4)
