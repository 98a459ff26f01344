"""Patterns by name: the paper's simplified one, and sounding that the standard can schedule. One interface for both:
`num_tones`, `hops`, `tone_spacing_hz`, `period_s`, `hop_index(num_hops, first)`, `frequency_hz()`."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hhat.nr.config import SoundingConfig
from hhat.nr.hopping import hop_index


@dataclass(frozen=True)
class TonePattern:
    """Evenly spaced tones in contiguous parts of equal size, a part per sounding. Not schedulable in NR.

    The defaults are the pattern of Wan & Liu 2024 as reconstructed: every second subcarrier at 60 kHz, 500 tones over
    60 MHz. That is 83.3 resource blocks, where SRS comes in multiples of 4 and a 60 MHz carrier at 60 kHz has 79.
    order: "sequential" (the paper's) or "nr", see `hop_index`.
    Raises ValueError as `hop_index` does, and for numbers that are not above 0.
    """

    num_tones: int = 500
    hops: int = 2
    order: str = "sequential"
    tone_spacing_hz: float | int = 120e3
    period_s: float | int = 5e-3

    def __post_init__(self):
        for name in ("tone_spacing_hz", "period_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"tones: {name}: expected a number above 0, got {getattr(self, name)}")
        self.hop_index(1)

    def hop_index(self, num_hops: int, first: int = 0) -> Int[Tensor, "symbol tone"]:
        """Hops first, first + 1, ... as indices into the tones."""
        return hop_index(self.num_tones, self.hops, first + num_hops, self.order)[first:]

    def frequency_hz(self) -> Float[Tensor, " tone"]:
        """Of every tone, mean 0, float64."""
        return (torch.arange(self.num_tones, dtype=torch.float64) - (self.num_tones - 1) / 2) * self.tone_spacing_hz


PATTERNS: dict[str, TonePattern | SoundingConfig] = {
    "paper-2": TonePattern(),
    "paper-4": TonePattern(hops=4),
    "nr-30khz-272rb-2": SoundingConfig(c_srs=61, b_srs=1),
    "nr-30khz-272rb-4": SoundingConfig(c_srs=61, b_srs=2),
    "nr-15khz-264rb-2": SoundingConfig(num_rb=270, subcarrier_spacing_hz=15e3, c_srs=60, b_srs=1, t_srs=5),
    "nr-15khz-264rb-6": SoundingConfig(num_rb=270, subcarrier_spacing_hz=15e3, c_srs=60, b_srs=2, t_srs=5),
    "nr-15khz-256rb-4": SoundingConfig(num_rb=270, subcarrier_spacing_hz=15e3, c_srs=57, b_srs=2, t_srs=5),
}
"""The paper's pattern with 2 and 4 hops; the widest SRS of a 100 MHz carrier at 30 kHz (273 blocks) and of a 50 MHz one
at 15 kHz (270), comb 4, a hop every 5 ms. 264 blocks do not go into four hops (132 = 3 x 44): 256 do."""
