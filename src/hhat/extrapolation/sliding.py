"""`sliding-joint-ml`: the paths that fit the last symbols best, from symbol to symbol."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hhat.extrapolation.fit import descend, gain_power, timing_search
from hhat.extrapolation.follow import Follower, Window, moved, now_channel, packed, unpacked
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding
from hhat.extrapolation.normal import Point, Task
from hhat.extrapolation.search import appended, peaks, residual, thinned
from hhat.extrapolation.uncertainty import averaged, channel_variance, path_covariance, unaccounted, with_misfit
from hhat.methods.base import relative_change
from hhat.types import State


@dataclass(frozen=True, eq=False)
class SlidingJointMl(Follower):
    """The last W symbols as one fit of all paths and offsets, started from the last one, Levenberg-Marquardt:

      predict   paths T later; phase and timing of the new symbol by a search over all delays against them
      paths     up to `revise` more where the residual of all W symbols has a peak worth `price` (log(samples) + 4) noise
                variances; as many less, after the fit, whose removal costs less than that
      fit       max over paths, phi, d of  sum over W symbols log p(y(m) | paths, phi(m), d(m)) + priors,   `steps` steps
      gauge     the newest symbol's phase and timing are 0; those of the others move along

    num_paths: room for paths: more than stage 1 names, since clusters of many rays show more of their paths in time
    window: W; None: num_symbols. At least one more than hops: with fewer every tone is seen once, and a delay and a
            Doppler shift that explain each other (hops in order) are told apart by their priors alone.
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
        task = self._task(window)
        point, ridge = task.point(paths, offsets), gain_power(task)
        size, items = self.memory(window.y.shape[-1]), len(window.y)
        room = {name: window.noise_var.new_zeros(items, size) for name in ("phase_rad", "timing_s")}
        zero = torch.zeros_like(window.noise_var)
        fresh = self._told(task, window, point, ridge, zero)
        return {**room, **fresh, **self._put(room, window, point), "misfit": zero, "followed": zero}

    def follow(self, state: State, window: Window, elapsed_s: Float[Tensor, " item"]) -> State:
        model = self._model()
        used = self.window or self._first(window.y.shape[-1])
        window = window.recent(used)
        ahead = moved(unpacked(state), elapsed_s[:, None], elapsed_s.new_zeros(()), elapsed_s.new_zeros(()))
        noise = window.noise_var[:, None, None, None]
        newest = Sounded(window.y[:, :, :1], window.index[:1], noise)
        found = timing_search(model, ahead, newest, window.times_s[:1], coherent=True)
        paths = moved(ahead, elapsed_s.new_zeros(()), found.phase_rad, found.timing_s)
        expected = now_channel(model, paths)
        own = channel_variance(model, ahead, state["covariance"], elapsed_s[:1])[:, 0, window.index[0]].mean(-1)
        seen = averaged(state, unaccounted(window.newest(), expected[..., window.index[0]], window.noise_var + own))
        old = [
            state[name][:, window.place[1:]] - new for name, new in zip(("phase_rad", "timing_s"), found, strict=True)
        ]
        offsets = Offsets(*(torch.cat([torch.zeros_like(new), was], 1) for new, was in zip(found, old, strict=True)))
        task = self._task(window)
        ridge = gain_power(task)
        point = task.point(paths, offsets)
        price = self.price * (math.log(model.num_subcarriers * model.num_rx_ant) + 4)
        if self.revise and bool((~point.mask).any()):
            found = peaks(task, residual(task, point), self.revise)
            point = appended(point, found, found.worth > price)
        point, _ = descend(task, point, ridge, self.steps)
        if self.revise:
            point = thinned(task, point, ridge, price, self.revise)
        fresh = self._told(task, window, point, ridge, seen["misfit"])
        change = relative_change(now_channel(model, unpacked(fresh)), expected, 2)
        return {**state, **fresh, **self._put(state, window, point), **seen, "change": change}

    def _task(self, window: Window) -> Task:
        pilots = Sounded(window.y, window.index, window.noise_var[:, None, None, None])
        return Task.make(self._model(), pilots, window.times_s)

    def _told(self, task: Task, window: Window, point: Point, ridge: Tensor, misfit: Tensor) -> State:
        model = self._model()
        paths = Paths(point.gain, point.delay, point.cosine, point.rate[..., 0], point.mask)
        covariance = path_covariance(task, point, ridge)
        var = channel_variance(model, paths, covariance, window.times_s[:1])
        now = now_channel(model, paths)[..., window.index[0]]
        left = unaccounted(window.newest(), now, window.noise_var)
        var = with_misfit(var, misfit, left, window.chance(), window.index[0])
        return {**packed(paths), "covariance": covariance, "h_var": var}

    def _put(self, state: State, window: Window, point: Point) -> State:
        """Offsets at their symbols' places in the memory."""
        values = {"phase_rad": point.phase, "timing_s": point.timing}
        return {name: state[name].index_copy(1, window.place, value) for name, value in values.items()}

    @classmethod
    def example(cls, gen: torch.Generator) -> "SlidingJointMl":
        return cls(Sounding(2, 2, tuple(120e3 * n for n in range(24))))
