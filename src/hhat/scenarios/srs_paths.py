"""Hopping sounding pilots of a channel that is a sum of a few paths: the law that path estimators assume."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex
from torch import Tensor

from hhat.extrapolation.model import Offsets, Paths
from hhat.scenarios.parts import check_between, check_count
from hhat.scenarios.srs import LIMIT_S, Srs

MAX_AZIMUTH_RAD = math.radians(60)
MAX_ELEVATION_RAD = 0.3
POWER_DECAY_S = 0.5e-6
"""Channel A of section 6 of the specification: a choice, where the paper's own text is lost."""


@dataclass(frozen=True)
class SrsPaths(Srs):
    """`Srs` over num_paths specular paths: nothing that `Sounding` does not know.

    Delays uniform over min_delay_s..max_delay_s, any two at least separation_s apart; power
    e^{-(tau - first) / 0.5 us} with a log-normal factor of spread_db; phases uniform; azimuth uniform within 60 degrees
    of broadside, elevation within 0.3 rad of the horizon; Doppler shifts doppler_hz cos(angle), the angle uniform.
    Source: specification's channel A. Raises ValueError where so many separated paths do not fit the delays.
    """

    num_paths: int = 5
    separation_s: float | int = 60e-9
    min_delay_s: float | int = 0.2e-6
    max_delay_s: float | int = 2e-6
    spread_db: float | int = 3.0

    def __post_init__(self):
        super().__post_init__()
        where = type(self).__name__
        check_count(where, "num_paths", self.num_paths)
        check_between(where, "max_delay_s", self.max_delay_s, 0, LIMIT_S)
        for name, limit in (("min_delay_s", self.max_delay_s), ("spread_db", 100), ("separation_s", LIMIT_S)):
            if getattr(self, name) != 0:
                check_between(where, name, getattr(self, name), 0, limit)
        if self._room < 0:
            span = f"{self.min_delay_s:g} to {self.max_delay_s:g} s"
            raise ValueError(f"{where}: {self.num_paths} paths, {self.separation_s:g} s apart, do not fit {span}")

    @property
    def _room(self) -> float:
        return self.max_delay_s - self.min_delay_s - (self.num_paths - 1) * self.separation_s

    def drops(self, n: int, gen: torch.Generator, num_symbols: int | None = None) -> Paths:
        """Paths of n channels, by delay; good for any number of symbols."""
        real = lambda: torch.rand(n, self.num_paths, generator=gen, dtype=torch.float64)  # noqa: E731
        # order statistics of what is left, moved apart: uniform given that all gaps are at least the separation
        apart = self.separation_s * torch.arange(self.num_paths, dtype=torch.float64)
        delay = self.min_delay_s + self._room * real().sort(-1).values + apart
        spread = self.spread_db * torch.randn(n, self.num_paths, generator=gen, dtype=torch.float64) / 20
        size = torch.exp(-(delay - delay[:, :1]) / POWER_DECAY_S / 2) * 10**spread
        gain = torch.polar(size, 2 * math.pi * real())
        azimuth, elevation = MAX_AZIMUTH_RAD * (2 * real() - 1), MAX_ELEVATION_RAD * (2 * real() - 1)
        cosine = torch.stack([elevation.cos() * azimuth.sin(), elevation.sin()], -1)
        doppler = self.doppler_hz * torch.cos(2 * math.pi * real())
        return Paths(gain, delay, cosine, doppler, torch.ones_like(delay, dtype=torch.bool))

    def response(self, drops: Paths, num_symbols: int) -> Complex[Tensor, "n rx lag symbol subcarrier"]:
        times = self.times_s(num_symbols)
        still = drops.delay_s.new_zeros(len(drops.gain), times.numel())
        return self.model.channel(drops, Offsets(still, still), times.flatten()).unflatten(2, times.shape)

    @property
    def _law(self) -> str:
        return f"{self.num_paths} paths at least {self.separation_s:g} s apart"

    @classmethod
    def example(cls, gen: torch.Generator) -> "SrsPaths":
        return cls(columns=2, rows=2, num_tones=24, num_paths=2)
