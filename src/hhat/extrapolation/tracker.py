"""`srs-extrapolation`: the whole system, from the first sounding symbol on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.extrapolation.follow import Window, now_channel, unpacked
from hhat.extrapolation.model import Offsets, Paths, Sounding
from hhat.extrapolation.sliding import SlidingJointMl
from hhat.ops.linalg import squared
from hhat.types import State


@dataclass(frozen=True, eq=False)
class SrsExtrapolation(SlidingJointMl):
    """Full-band channels from hopping sounding symbols, one slot each: `joint-ml`, then `sliding-joint-ml`, and again.

      slots 1 .. num_symbols - 1   WARMING_UP, infinite variance
      slot num_symbols             stage 1 on all symbols so far
      later                        sliding window; stage 1 anew where the track is lost

    lost:  a track is lost where its predictions miss the newest symbols by more than this share of their power
           (`misfit`). Stage 1 then runs on the symbols remembered, is kept where it explains the newest better, and
           does not run again for num_symbols slots: until then the memory may hold symbols of before and after a jump.
    """

    lost: float | int = 0.3

    def __post_init__(self):
        super().__post_init__()
        if not self.lost > 0:
            raise ValueError(f"SrsExtrapolation: lost: expected more than 0, got {self.lost}")

    def begin(self, window: Window, paths: Paths, offsets: Offsets) -> State:
        return {**super().begin(window, paths, offsets), "since": torch.zeros_like(window.noise_var)}

    def follow(self, state: State, window: Window, elapsed_s: float) -> State:
        new = super().follow(state, window, elapsed_s)
        first = self._first(window.y.shape[-1])
        new["since"] = state["since"] + 1
        power = (squared(window.newest()).mean((-2, -1)) - window.noise_var).clamp_min(0)
        gone = (new["misfit"] > self.lost * power) & (power > 0) & (new["since"] >= first)
        if len(window.index) < first or not bool(gone.any()):
            return new
        rows = gone.nonzero()[:, 0]
        some = Window(window.y[rows], window.index, window.times_s, window.noise_var[rows], window.place)
        again = self._acquired(some.recent(first))
        better = self._left(again, some) < self._left({k: _at(v, rows) for k, v in new.items()}, some)
        for key, value in again.items():
            kept = torch.where(better.reshape(-1, *(1,) * (value.ndim - 1)), value, new[key][rows])
            new[key] = new[key].index_copy(0, rows, kept)
        new["since"] = new["since"].masked_fill(gone, 0)
        return new

    def _left(self, state: State, window: Window) -> Tensor:
        """Mean |y - h|^2 of the newest symbol."""
        now = now_channel(self._model(), unpacked(state))[..., window.index[0]]
        return squared(window.newest() - now).mean((-2, -1))

    @classmethod
    def example(cls, gen: torch.Generator) -> "SrsExtrapolation":
        return cls(Sounding(2, 2, tuple(120e3 * n for n in range(24))))


def _at(value, rows: Tensor):
    return value[rows] if isinstance(value, Tensor) else value
