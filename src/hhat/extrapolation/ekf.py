"""`path-ekf`: a Kalman filter on the paths themselves."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from hhat.extrapolation.bound import unseen
from hhat.extrapolation.fit import gain_power, timing_search
from hhat.extrapolation.follow import Follower, Window, moved, now_channel, packed, unpacked
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding
from hhat.extrapolation.normal import Normal, normal_at
from hhat.extrapolation.task import Point, Task
from hhat.extrapolation.uncertainty import averaged, channel_variance, path_covariance, unaccounted, with_misfit
from hhat.methods.base import relative_change
from hhat.ops.linalg import cholesky, squared
from hhat.types import State


@dataclass(frozen=True, eq=False)
class PathEkf(Follower):
    """State per path: gain (real and imaginary), delay, u, v, Doppler shift; phase flat, timing N(0, 2 s^2).

      predict  gain <- gain e^{j 2 pi f T} + CN(0, forgetting |gain|^2),  f <- f + N(0, doppler_std_hz^2),  delay and
               cosines random walks; phase and timing of the new symbol by a search over all delays
      update   `updates` Gauss-Newton steps on  |y - h|^2 / noise_var + |theta - predicted|^2_{P^-1} + priors
      then     the symbol's phase and timing, with their covariance, go into gains and delays: they are the channel's
               as received, and the next symbol is at a phase and a timing of its own from there

    The covariance carries what earlier symbols said, so that one symbol's work does not grow with memory; what was
    linearised once stays so, where `sliding-joint-ml` fits the whole window anew.
    forgetting, doppler_std_hz: per symbol; the spec's tuning on urban channels
    delay_std_s, cosine_std:    per symbol
    Variance: the filter's, plus what predictions are seen to miss (`with_misfit`).
    Source: iterated extended Kalman filter, Bell & Cathey 1993, on the model of Wan & Liu 2024.
    """

    forgetting: float | int = 0.02
    doppler_std_hz: float | int = 0.3
    delay_std_s: float | int = 1e-10
    cosine_std: float | int = 1e-3
    updates: int = 3

    def __post_init__(self):
        super().__post_init__()
        for name in ("forgetting", "doppler_std_hz", "delay_std_s", "cosine_std"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"PathEkf: {name}: expected a number >= 0, got {getattr(self, name)}")
        if self.updates < 1:
            raise ValueError(f"PathEkf: updates: expected at least 1, got {self.updates}")

    def begin(self, window: Window, paths: Paths, offsets: Offsets) -> State:
        pilots = Sounded(window.y, window.index, window.noise_var[:, None, None, None])
        task = Task.make(self._model(), pilots, window.times_s)
        covariance = path_covariance(task, task.point(paths, offsets), gain_power(task))
        zero = torch.zeros_like(window.noise_var)
        told = self._told(window, paths, covariance, zero)
        return {**told, "misfit": zero, "followed": zero}

    def follow(self, state: State, window: Window, elapsed_s: float) -> State:
        model, noise = self._model(), window.noise_var[:, None, None, None]
        newest = Sounded(window.y[:, :, :1], window.index[:1], noise)
        paths, covariance = self._ahead(unpacked(state), state["covariance"], elapsed_s)
        found = timing_search(model, paths, newest, window.times_s[:1], coherent=True)
        expected = now_channel(model, moved(paths, 0.0, found.phase_rad, found.timing_s))
        own = channel_variance(model, paths, covariance, window.times_s[:1])[:, 0, window.index[0]].mean(-1)
        seen = averaged(state, unaccounted(window.newest(), expected[..., window.index[0]], window.noise_var + own))
        # the timing before this symbol's was one draw, this one's is another
        law = replace(model, timing_var=2 * model.timing_var)
        task = Task.make(law, newest, window.times_s[:1], anchor=None)
        start = task.point(paths, found)
        point, after = updated(task, start, covariance, self.updates)
        paths, covariance = _absorbed(point, after)
        told = self._told(window, paths, covariance, seen["misfit"])
        change = relative_change(now_channel(model, paths), expected, 2)
        return {**state, **told, **seen, "change": change}

    def _ahead(self, paths: Paths, covariance: Tensor, elapsed_s: float) -> tuple[Paths, Tensor]:
        """Paths and their covariance at the next symbol, before it is seen; noise grows with the time."""
        zero, rate = paths.delay_s.new_zeros(()), 2 * math.pi * elapsed_s
        new = moved(paths, elapsed_s, zero, zero)
        turn = torch.polar(torch.ones_like(paths.doppler_hz), rate * paths.doppler_hz)
        im, re, delay, u, v, doppler = covariance.unflatten(1, (6, -1)).unbind(1)
        gain = turn[..., None] * torch.complex(re, im) + (1j * rate * new.gain)[..., None] * doppler
        rows = torch.stack([gain.imag, gain.real, delay, u, v, doppler], 1).flatten(1, 2)
        im, re, *rest = rows.unflatten(2, (6, -1)).unbind(2)
        gain = turn[:, None] * torch.complex(re, im) + (1j * rate * new.gain)[:, None] * rest[-1]
        full = torch.stack([gain.imag, gain.real, *rest], 2).flatten(2)
        one, steps = paths.mask.double(), elapsed_s / self._model().period_s
        fading = self.forgetting * squared(new.gain) / 2
        walk = [one * std**2 for std in (self.delay_std_s, self.cosine_std, self.cosine_std, self.doppler_std_hz)]
        return new, full + torch.cat([steps * part for part in (fading, fading, *walk)], 1).diag_embed()

    def _told(self, window: Window, paths: Paths, covariance: Tensor, misfit: Tensor) -> State:
        model, tones = self._model(), window.index[0]
        var = channel_variance(model, paths, covariance, window.times_s[:1])
        var = var + unseen(paths.mask, window.noise_var, window.y[0].numel())[:, None, None]
        left = unaccounted(window.newest(), now_channel(model, paths)[..., tones], window.noise_var)
        return {
            **packed(paths),
            "covariance": covariance,
            "h_var": with_misfit(var, misfit, left, window.chance(), tones),
        }

    @classmethod
    def example(cls, gen: torch.Generator) -> "PathEkf":
        return cls(Sounding(2, 2, tuple(120e3 * n for n in range(24))))


def updated(
    task: Task, start: Point, covariance: Float[Tensor, "item parameter parameter"], updates: int
) -> tuple[Point, Float[Tensor, "item all all"]]:
    """Mode and covariance of paths, phase and timing of one symbol under paths ~ N(start, covariance), by Gauss-Newton
    steps from it. A step that does not raise the posterior is halved until the next; masked paths stay."""
    count = covariance.shape[-1]
    still = (~start.mask).repeat(1, 6)
    scale = torch.where(still, 1.0, covariance.diagonal(dim1=-2, dim2=-1)).sqrt()
    tiny = torch.finfo(scale.dtype).tiny
    scale = scale.clamp_min(tiny)
    unit = covariance / scale[:, :, None] / scale[:, None] + still.double().diag_embed()
    factor = cholesky(unit)[0]
    eye = torch.eye(count, dtype=scale.dtype, device=scale.device)
    inverse = torch.cholesky_solve(eye.expand_as(unit), factor)
    prior = inverse / scale[:, :, None] / scale[:, None]
    timing = 1 / task.model.timing_var if task.model.timing_var > 0 else 1e30
    full = torch.nn.functional.pad(prior, (0, 2, 0, 2))
    full[:, -1, -1] = timing
    scale = torch.cat([scale, torch.ones_like(scale[:, :1]), torch.full_like(scale[:, :1], timing**-0.5)], 1)
    fixed = torch.cat([still, torch.zeros_like(still[:, :2])], 1)
    origin = start.vector()
    origin = torch.cat([origin[:, :-1], torch.zeros_like(origin[:, -1:])], 1)  # the timing's prior is about 0

    def curvature(now: Normal) -> Tensor:
        info = now.information.masked_fill(fixed[:, :, None] | fixed[:, None], 0) + full
        return cholesky(scale[:, :, None] * info * scale[:, None])[0]

    def cost(now: Normal, point: Point) -> Tensor:
        off = point.vector() - origin
        return now.rss / task.noise_var + ((full @ off[..., None])[..., 0] * off).sum(-1) / 2

    point, now = start, normal_at(task, start)
    share = torch.ones_like(task.noise_var)
    for _ in range(updates):
        slope = now.score - (full @ (point.vector() - origin)[..., None])[..., 0]
        slope = slope.masked_fill(fixed, 0)
        move = torch.cholesky_solve((scale * slope)[..., None], curvature(now))[..., 0] * scale
        trial = point.moved((share[:, None] * move).masked_fill(fixed, 0))
        then = normal_at(task, trial)
        better = cost(then, trial) < cost(now, point)
        choose = lambda a, b: torch.where(better.reshape(-1, *(1,) * (a.ndim - 1)), a, b)  # noqa: B023, E731
        point = Point(*map(choose, trial, point))
        now = Normal(*(choose(getattr(then, n), getattr(now, n)) for n in ("rss", "score", "information")))
        share = torch.where(better, 1.0, share / 2)
    half = torch.linalg.solve_triangular(
        curvature(now),
        torch.eye(count + 2, dtype=scale.dtype, device=scale.device).expand(len(scale), -1, -1),
        upper=False,
    )
    scale = scale.masked_fill(fixed, 0)
    return point, scale[:, :, None] * (half.mT @ half) * scale[:, None]


def _absorbed(point: Point, covariance: Tensor) -> tuple[Paths, Tensor]:
    """Paths as received: phase and timing in gains and delays, and the covariance of those."""
    paths = Paths(point.gain, point.delay, point.cosine, point.rate[..., 0], point.mask)
    new = moved(paths, 0.0, point.phase, point.timing)
    turn = torch.polar(torch.ones_like(point.phase), point.phase)[..., None]
    for axis in (1, 2):
        rows = covariance if axis == 1 else covariance.mT
        phase, timing = rows[:, -2:-1], rows[:, -1:]
        im, re, delay, *rest = rows[:, :-2].unflatten(1, (6, -1)).unbind(1)
        gain = turn * torch.complex(re, im) + 1j * new.gain[..., None] * phase
        delay = delay + timing * point.mask[..., None]
        rows = torch.stack([gain.imag, gain.real, delay, *rest], 1).flatten(1, 2)
        covariance = rows if axis == 1 else rows.mT
    return new, (covariance + covariance.mT) / 2
