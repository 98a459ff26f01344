"""Hopping sounding pilots: what the laws of their channels share: hops, phases and timing, noise, and the file."""

import abc
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hhat.extrapolation.model import Offsets, Paths, Sounding
from hhat.nr.config import SUBCARRIERS, SoundingConfig
from hhat.nr.hopping import ORDERS, hop_index
from hhat.nr.patterns import PATTERNS
from hhat.ops import Hops, Identity, Kron, Select
from hhat.ops.linalg import squared
from hhat.random import complex_normal
from hhat.scenarios.near_field_parts import LIGHT_M_PER_S
from hhat.scenarios.parts import check_between, check_choice, check_count, check_snr
from hhat.types import About, Observation, Slot

AXES = ("rx_ant", "symbol", "subcarrier")
CHUNK_ENTRIES = 1 << 21
"""Entries of channels formed at a time (32 MB in complex128)."""
PRESETS = {name: pattern for name, pattern in PATTERNS.items() if isinstance(pattern, SoundingConfig)}
LIMIT_HZ, LIMIT_S, LIMIT_KMH, LIMIT_RAD = 1e12, 1.0, 3e4, 100.0


class SoundingTruth(NamedTuple):
    """A sounded channel and all that made it; of one symbol (`slots`) without the symbol axis.

    h           complex64 (n, rx_ant, symbol, subcarrier), phases and timing in it
    phase_rad, timing_s (n, symbol): 0 in the first symbol
    reciprocity complex64 (n, rx_ant): the downlink's gains over the uplink's, see `h_down`; None where they are 1
    h_at        (n, lag, rx_ant, symbol, subcarrier): h later by each of the scenario's `lags_s`, the user moved on,
                with the symbol's own phase and timing; None without lags
    gain ...    (n, path): paths as `Paths` has them, gains at the first symbol (of one symbol: at that symbol); None
                where the law is not a sum of a few paths
    """

    h: Tensor
    phase_rad: Tensor
    timing_s: Tensor
    reciprocity: Tensor | None = None
    h_at: Tensor | None = None
    gain: Tensor | None = None
    delay_s: Tensor | None = None
    cosine: Tensor | None = None
    doppler_hz: Tensor | None = None
    mask: Tensor | None = None

    @property
    def offsets(self) -> Offsets:
        return Offsets(self.phase_rad, self.timing_s)

    @property
    def paths(self) -> Paths | None:
        found = (self.gain, self.delay_s, self.cosine, self.doppler_hz, self.mask)
        return None if any(value is None for value in found) else Paths(*found)  # type: ignore[arg-type]

    @property
    def h_down(self) -> Tensor:
        """The downlink's channel, whose transmit chains differ from the receive chains by `reciprocity`."""
        if self.reciprocity is None:
            return self.h
        return self.h * self.reciprocity.reshape(*self.reciprocity.shape, *(1,) * (self.h.ndim - 2))


@dataclass(frozen=True)
class Srs(abc.ABC):
    """A user sounds one part of the band per symbol; each symbol has a phase and a timing offset of its own.

      y[a, m, k] = h[a, m, index[m, k]] + n,    h = e^{j phase(m)} e^{-j 2 pi f timing(m)} (law of the channel at m T)

    hops, hop_order: parts of the band, and in which order they are visited: `hop_index`
    num_symbols:  None: 2 hops, every part twice
    snr_db:       1 / noise_var: every channel is scaled to mean |h|^2 = 1 over band, antennas and symbols
    columns, rows: of a planar array at half a wavelength
    num_tones, tone_spacing_hz: of the pilot comb over the whole band (the channel has no other tones)
    period_s, speed_kmh, carrier_hz: symbol spacing, and what makes the largest Doppler shift
    random_phase: a phase uniform over the circle in each symbol. Where False, what is left of it:
    phase_drift_rad: standard deviation of a random walk's step, 0: none
    frequency_offset_hz: standard deviation of a carrier offset, one per channel: phase 2 pi offset m T
    timing_spread_s: standard deviation of the offset, independent over symbols
    timing_drift_s: standard deviation of a random walk's step, added to it; `model` and files take the rms over symbols
    reciprocity_error_db: power of the downlink's relative gain error per antenna, CN; None: none
    lags_s:       times after each symbol at which the truth holds the channel too
    preset:       a name of PRESETS or a `SoundingConfig` with one symbol per slot: sets hops, hop_order, num_tones,
                  tone_spacing_hz and period_s to what the standard sounds, whatever was given for them
    Phase and timing are 0 in the first symbol. Truth: `SoundingTruth`. Raises ValueError for settings outside these.
    Source: Wan & Liu 2024, eqs. (1)-(3), as reconstructed; array, period and the law of the timing are choices.
    """

    hops: int = 2
    hop_order: str = "sequential"
    num_symbols: int | None = None
    snr_db: float | int = 15.0
    columns: int = 8
    rows: int = 4
    num_tones: int = 500
    tone_spacing_hz: float | int = 120e3
    period_s: float | int = 5e-3
    speed_kmh: float | int = 3.0
    carrier_hz: float | int = 3.5e9
    random_phase: bool = True
    phase_drift_rad: float | int = 0.0
    frequency_offset_hz: float | int = 0.0
    timing_spread_s: float | int = 1e-8
    timing_drift_s: float | int = 0.0
    reciprocity_error_db: float | int | None = None
    lags_s: tuple[float | int, ...] = ()
    preset: str | SoundingConfig | None = None

    def __post_init__(self):
        where = type(self).__name__
        if self.preset is not None:
            self._take(self.preset)
        counted = () if self.num_symbols is None else ("num_symbols",)
        for name in ("hops", "columns", "rows", "num_tones", *counted):
            check_count(where, name, getattr(self, name))
        if self.num_tones % self.hops:
            raise ValueError(f"{where}: expected hops that divide the {self.num_tones} tones, got {self.hops}")
        check_choice(where, "hop_order", self.hop_order, ORDERS)
        check_snr(where, self.snr_db)
        for name, limit in (("tone_spacing_hz", LIMIT_HZ), ("carrier_hz", LIMIT_HZ), ("period_s", LIMIT_S)):
            check_between(where, name, getattr(self, name), 0, limit)
        for name, limit in (
            ("speed_kmh", LIMIT_KMH),
            ("phase_drift_rad", LIMIT_RAD),
            ("frequency_offset_hz", LIMIT_HZ),
            ("timing_spread_s", LIMIT_S),
            ("timing_drift_s", LIMIT_S),
        ):
            if getattr(self, name) != 0:
                check_between(where, name, getattr(self, name), 0, limit)
        if self.reciprocity_error_db is not None:
            check_between(where, "reciprocity_error_db", self.reciprocity_error_db, -300, 100)
        if not isinstance(self.lags_s, tuple):
            raise ValueError(f"{where}: lags_s is a tuple of times, got {self.lags_s!r}")
        for lag in self.lags_s:
            check_between(where, "lags_s", lag, 0, 1e3 * LIMIT_S)

    def _take(self, preset: str | SoundingConfig) -> None:
        if isinstance(preset, str):
            check_choice(type(self).__name__, "preset", preset, tuple(PRESETS))
            preset = PRESETS[preset]
            object.__setattr__(self, "preset", preset)
        if preset.num_symbols != 1:
            raise ValueError(f"{type(self).__name__}: preset: expected one symbol per slot, got {preset.num_symbols}")
        for name, value in (
            ("hops", preset.cycle),
            ("hop_order", "nr"),
            ("num_tones", preset.num_tones),
            ("tone_spacing_hz", preset.tone_spacing_hz),
            ("period_s", preset.period_s),
        ):
            object.__setattr__(self, name, value)

    @abc.abstractmethod
    def drops(self, n: int, gen: torch.Generator, num_symbols: int | None = None) -> Any:
        """n independent channels before hops, offsets and noise: a named tuple of tensors, batch first.

        num_symbols: how many symbols may be asked of them, None: those of the scenario.
        """

    @abc.abstractmethod
    def response(self, drops: Any, num_symbols: int) -> Complex[Tensor, "n rx lag symbol subcarrier"]:
        """The channel without offsets; lag 0 is the symbol itself, the others are those of `lags_s`."""

    @property
    @abc.abstractmethod
    def _law(self) -> str:
        """The channel's law in a few words."""

    def times_s(self, num_symbols: int) -> Float[Tensor, "lag symbol"]:
        """When the channel is wanted: at the symbols, and each lag after them."""
        lags = torch.tensor((0.0, *self.lags_s), dtype=torch.float64)
        return lags[:, None] + self.period_s * torch.arange(num_symbols, dtype=torch.float64)

    @property
    def doppler_hz(self) -> float:
        """Largest Doppler shift."""
        return self.speed_kmh / 3.6 * self.carrier_hz / LIGHT_M_PER_S

    @property
    def symbols(self) -> int:
        return 2 * self.hops if self.num_symbols is None else self.num_symbols

    @cached_property
    def model(self) -> Sounding:
        """What an estimator may know: array, tones, period, and how far Doppler shifts and timing spread."""
        found = Sounding.of(self._about, self.columns * self.rows)
        assert found is not None
        return found

    def index(self, num_symbols: int | None = None) -> Int[Tensor, "symbol tone"]:
        """Tones that each symbol sounds."""
        if isinstance(self.preset, SoundingConfig):
            return self.preset.hop_index(num_symbols or self.symbols)
        return hop_index(self.num_tones, self.hops, num_symbols or self.symbols, self.hop_order)

    def noise_var(self) -> float:
        return 10 ** (-self.snr_db / 10)

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        """n channels and all of their symbols, y (n, rx_ant, symbol, tones of one hop)."""
        check_count(type(self).__name__, "n", n)
        return self.slot_of(self.drops(n, gen), gen)

    def slot_of(self, drops: Any, gen: torch.Generator, num_symbols: int | None = None) -> Slot:
        """Sounds given channels: other hops, SNRs and offsets of the same drops."""
        count = num_symbols or self.symbols
        n = len(drops[0])
        offsets = self._offsets(n, count, gen)
        h, drops = self._channels(drops, offsets, count)
        gains = None
        if self.reciprocity_error_db is not None:
            gains = 1 + complex_normal((n, self.columns * self.rows), gen, var=10 ** (self.reciprocity_error_db / 10))
        op = Kron(Identity((self.columns * self.rows,)), Hops(self.index(count), self.num_tones))
        now = h[:, :, 0]
        seen = op.apply(now)
        noise_var = self.noise_var()
        y = seen + complex_normal(tuple(seen.shape), gen, seen.dtype, noise_var)
        at = h[:, :, 1:].movedim(2, 1).contiguous() if self.lags_s else None
        kept: tuple[Any, ...] = drops if isinstance(drops, Paths) else ()
        truth = SoundingTruth(now.contiguous(), *offsets, gains, at, *kept)
        about = self._about if count == self.symbols else replace(self, num_symbols=count)._about
        return Slot(truth, Observation(y, op, noise_var, AXES), about)

    def slots(self, n: int, gen: torch.Generator, links: int = 1) -> Iterator[Slot]:
        """The same draw of `links` channels and n symbols, one symbol per slot."""
        check_count(type(self).__name__, "n", n)
        check_count(type(self).__name__, "links", links)
        whole = self.slot_of(self.drops(links, gen, n), gen, n)
        index = self.index(n)
        for symbol in range(n):
            yield self._one(whole, symbol, index[symbol])

    def _one(self, whole: Slot, symbol: int, tones: Int[Tensor, " tone"]) -> Slot:
        truth, obs = whole.truth, whole.obs
        gain = truth.gain
        if gain is not None:
            cycles = truth.doppler_hz * (symbol * self.period_s)
            gain = gain * torch.polar(torch.ones_like(cycles), 2 * math.pi * cycles)
        one = truth._replace(
            h=truth.h[:, :, symbol],
            phase_rad=truth.phase_rad[:, symbol],
            timing_s=truth.timing_s[:, symbol],
            h_at=None if truth.h_at is None else truth.h_at[:, :, :, symbol],
            gain=gain,
        )
        op = Kron(Identity((self.columns * self.rows,)), Select(tones, self.num_tones))
        seen = Observation(obs.y[:, :, symbol], op, obs.noise_var, (AXES[0], AXES[2]))
        return Slot(one, seen, whole.about)

    def _offsets(self, n: int, count: int, gen: torch.Generator) -> Offsets:
        """Each cause is drawn whether or not it counts, so that others see the same numbers."""
        uniform = 2 * math.pi * torch.rand(n, count, generator=gen, dtype=torch.float64)
        steps = torch.randn(3, n, count, generator=gen, dtype=torch.float64)
        steps[..., 0] = 0
        offset_hz = self.frequency_offset_hz * torch.randn(n, 1, generator=gen, dtype=torch.float64)
        phase = self.phase_drift_rad * steps[0].cumsum(-1)
        phase = phase + 2 * math.pi * offset_hz * self.period_s * torch.arange(count, dtype=torch.float64)
        if self.random_phase:
            phase = phase + uniform - uniform[:, :1]
        timing = self.timing_spread_s * steps[1] + self.timing_drift_s * steps[2].cumsum(-1)
        return Offsets(torch.remainder(phase + math.pi, 2 * math.pi) - math.pi, timing)

    def _channels(self, drops: Any, offsets: Offsets, count: int) -> tuple[Complex[Tensor, "n rx lag symbol f"], Any]:
        """h with its offsets, of unit mean power, complex64; the drops with gains to match."""
        n, f = len(drops[0]), self.model.tones_hz()
        shape = (self.columns * self.rows, 1 + len(self.lags_s), count, self.num_tones)
        h = torch.empty(n, *shape, dtype=torch.complex64)
        power = torch.empty(n, dtype=torch.float64)
        size = max(1, CHUNK_ENTRIES // math.prod(shape))
        for start in range(0, n, size):
            some = slice(start, start + size)
            found = self.response(type(drops)(*(value[some] for value in drops)), count)
            power[some] = squared(found[:, :, 0]).mean((1, 2, 3), dtype=torch.float64)
            cycles = offsets.phase_rad[some, :, None] / (2 * math.pi) - offsets.timing_s[some, :, None] * f
            turn = torch.polar(power[some].rsqrt()[:, None, None].expand(cycles.shape), 2 * math.pi * cycles)
            h[some] = found * turn.to(found.dtype)[:, None, None]
        if isinstance(drops, Paths):
            drops = drops._replace(gain=drops.gain * power.rsqrt()[:, None])
        return h, drops

    @cached_property
    def _about(self) -> About:
        half, spacing = self.num_tones // 2, self.tone_spacing_hz
        tones = tuple(range(-half, self.num_tones - half))
        if isinstance(self.preset, SoundingConfig):
            spacing, centre = self.preset.subcarrier_spacing_hz, SUBCARRIERS * self.preset.num_rb // 2
            tones = tuple((self.preset.band() - centre).tolist())
        walk = self.timing_drift_s * math.sqrt((self.symbols - 1) / 2)  # rms over the symbols
        # elements column by column, along x and up z
        place = [[x, 0.0, z] for x, z in Sounding(self.columns, self.rows, (0.0,)).positions().tolist()]
        return About(
            kind="srs",
            snr_definition="1 / noise_var: the mean power of each channel over band, antennas and symbols is 1",
            normalisation="each channel: mean |h|^2 = 1 over all tones, antennas and symbols",
            source=f"{self._law}, {self.hops} hops {self.hop_order}, {self.speed_kmh:g} km/h",
            geometry={"rx_ant": place},
            constants={
                "carrier_hz": self.carrier_hz,
                "subcarrier_spacing_hz": spacing,
                "sounding_period_s": self.period_s,
                "doppler_hz": self.doppler_hz,
                "timing_spread_s": math.hypot(self.timing_spread_s, walk),
            },
            subcarriers=tones,
        )
