"""`sliding-joint-ml`: the paths that fit the last symbols best, from symbol to symbol."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.extrapolation.bound import spread_variance, unseen
from hhat.extrapolation.columns import residual
from hhat.extrapolation.fit import descend, gain_power, timing_search
from hhat.extrapolation.follow import Follower, Window, channel_later, moved, packed, unpacked
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding
from hhat.extrapolation.search import appended, peaks, thinned
from hhat.extrapolation.spread import spread
from hhat.extrapolation.task import Point, Task
from hhat.extrapolation.uncertainty import averaged, channel_variance, path_covariance, unaccounted, with_misfit
from hhat.methods.base import relative_change
from hhat.types import State


@dataclass(frozen=True, eq=False)
class SlidingJointMl(Follower):
    """The last W symbols as one fit of all paths and offsets, started from the last one, Levenberg-Marquardt:

      predict   paths T later; phase and timing of the new symbol by a search over all delays against them
      paths     up to `revise` more where the residual of all W symbols has a peak worth `price` (log(tones antennas)
                + 4) noise variances; as many less, after the fit, whose removal costs less than that
      fit       max over paths, phi, d of  sum over W symbols log p(y(m) | paths, phi(m), d(m)) + priors, `steps` steps
      gauge     the newest symbol's phase and timing are 0; those of the others move along

    num_paths: room for paths: more than stage 1 names, since clusters of many rays show more of their paths in time
    window: W; None: num_symbols. At least one more than hops: with fewer every tone is seen once, and a delay and a
            Doppler shift that explain each other (hops in order) are told apart by their priors alone.
    around: estimate the rays around the paths too (`spread`), after each fit. Their part is not taken off the next
            symbols' pilots before that fit, as `joint-ml` does: from symbol to symbol the two would feed each other.
    Variance: the Laplace approximation of the fit, seen at every tone, plus what the fit cannot know of itself: missed
    and merged paths. That is measured: the power by which the last predictions missed the tones then sounded, beyond
    the noise (`misfit`), is added at tones not sounded now, and the excess of the residual at those that are.
    Source: none; maximum likelihood of Wan & Liu 2024's model, eq. (23), over a window.
    """

    window: int | None = None
    num_paths: int = 44
    steps: int = 4
    revise: int = 2
    price: float | int = 1.5
    around: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.window is not None and self.window < 2:
            raise ValueError(f"SlidingJointMl: window: expected at least 2 symbols, got {self.window}")
        if self.steps < 1 or self.revise < 0 or not self.price >= 0:
            got = self.steps, self.revise, self.price
            raise ValueError(f"SlidingJointMl: expected steps of at least 1, revise and price >= 0, got {got}")

    def memory(self, num_tones: int) -> int:
        first = self._first(num_tones)
        return max(first, self.window or first)

    def begin(self, window: Window, paths: Paths, offsets: Offsets) -> State:
        task = Task.make(self._model(), self._pilots(window), window.times_s)
        point, ridge = task.point(paths, offsets), gain_power(task)
        size, items = self.memory(window.y.shape[-1]), len(window.y)
        room = {name: window.noise_var.new_zeros(items, size) for name in ("phase_rad", "timing_s")}
        zero = torch.zeros_like(window.noise_var)
        fresh = self._told(task, window, point, ridge, zero)
        return {**room, **fresh, **self._put(room, window, point), "misfit": zero, "followed": zero}

    def follow(self, state: State, window: Window, elapsed_s: float) -> State:
        model, now = self._model(), window.times_s[:1]
        window = window.recent(self.window or self._first(window.y.shape[-1]))
        pilots = self._pilots(window)
        newest = Sounded(pilots.y[:, :, :1], pilots.index[:1], pilots.noise_var)
        ahead = moved(unpacked(state), elapsed_s, now.new_zeros(()), now.new_zeros(()))
        common = timing_search(model, ahead, newest, now, coherent=True)
        later = now + elapsed_s
        expected = channel_later(model, state, later, common)[:, :, 0]
        own = channel_variance(model, unpacked(state), state["covariance"], later)[:, 0, window.index[0]].mean(-1)
        seen = averaged(state, unaccounted(window.newest(), expected[..., window.index[0]], window.noise_var + own))
        # the others' offsets against the newest symbol's
        names = ("phase_rad", "timing_s")
        old = [state[name][:, window.place[1:]] - new for name, new in zip(names, common, strict=True)]
        offsets = Offsets(*(torch.cat([torch.zeros_like(new), was], 1) for new, was in zip(common, old, strict=True)))
        task = Task.make(model, pilots, window.times_s)
        point = task.point(moved(ahead, 0.0, common.phase_rad, common.timing_s), offsets)
        point, ridge = self._fitted(task, point)
        fresh = self._told(task, window, point, ridge, seen["misfit"])
        change = relative_change(channel_later(model, fresh, now)[:, :, 0], expected, 2)
        return {**state, **fresh, **self._put(state, window, point), **seen, "change": change}

    def _fitted(self, task: Task, point: Point) -> tuple[Point, Tensor]:
        """Paths that come, the fit, paths that go; and the prior variance of their gains."""
        model, size, ridge = task.model, point.mask.shape[-1], gain_power(task)
        price = self.price * (math.log(model.num_subcarriers * model.num_rx_ant) + 4)
        if self.revise and bool((~point.mask).any()):
            found = peaks(task, residual(task, point), self.revise)
            point = appended(point, found, found.worth > price)
        point, _ = descend(task, point.compact(), ridge, self.steps)
        if self.revise:
            point = thinned(task, point, ridge, price, self.revise)
        return point.sized(size), ridge

    def _pilots(self, window: Window) -> Sounded:
        return Sounded(window.y, window.index, window.noise_var[:, None, None, None])

    def _told(self, task: Task, window: Window, point: Point, ridge: Tensor, misfit: Tensor) -> State:
        model, now, tones = self._model(), window.times_s[:1], window.index[0]
        paths = Paths(point.gain, point.delay, point.cosine, point.rate[..., 0], point.mask)
        covariance = path_covariance(task, point, ridge)
        var = channel_variance(model, paths, covariance, now)
        told = {**packed(paths), "covariance": covariance}
        if self.around:
            found = spread(task, point)
            told["around"] = found.weight
            newest = point._replace(phase=point.phase[:, :1], timing=point.timing[:, :1])
            var = var + spread_variance(task.symbol(0), newest, found.covariance)
        var = var + unseen(paths.mask, window.noise_var, window.y[0].numel())[:, None, None]
        left = unaccounted(window.newest(), channel_later(model, told, now)[:, :, 0, tones], window.noise_var)
        return {**told, "h_var": with_misfit(var, misfit, left, window.chance(), tones)}

    def _put(self, state: State, window: Window, point: Point) -> State:
        """Offsets at their symbols' places in the memory."""
        values = {"phase_rad": point.phase, "timing_s": point.timing}
        return {name: state[name].index_copy(1, window.place, value) for name, value in values.items()}

    @classmethod
    def example(cls, gen: torch.Generator) -> "SlidingJointMl":
        return cls(Sounding(2, 2, tuple(120e3 * n for n in range(24))))
