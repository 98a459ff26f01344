"""`joint-ml`: all symbols of hopping pilots explained by one set of paths, found one by one and fitted together."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hhat.extrapolation.bound import inverse, spread_variance, tone_variance, unseen
from hhat.extrapolation.columns import channel_at, residual
from hhat.extrapolation.fit import descend, gain_power, posterior_information, steered
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding, sounded
from hhat.extrapolation.normal import normal_at
from hhat.extrapolation.search import appended, noise_floor, peaks, thinned
from hhat.extrapolation.spread import Spread, spread, without
from hhat.extrapolation.sync import gauged, searched
from hhat.extrapolation.task import Point, Task
from hhat.methods.base import Method
from hhat.methods.rows import Rows
from hhat.ops.linalg import squared
from hhat.types import Estimate, Gaussian, Observation, State

FLOOR = 1e-12
"""Least noise variance, as a share of the received power."""
STRONG = 6
"""Most paths that are taken from the first symbol alone; more would split what one part of the band cannot resolve."""
AT_ONCE = 2
"""Peaks of the residual that are taken in one step."""
FIRST = 12
"""Most paths of the first search, which is there for the phases and timings."""
STARTS = 2
"""Symbols from which that search starts; the best of them counts. One start alone lost 1 of 48 users in urban cells."""
SYNC_EVERY = (2, 4)
"""Steps of the first and the second search after which phases and timings are searched again."""
MARGIN, SPARE = 4.0, 1.5
"""A peak counts if it explains more noise variances than log(tones * antennas) + MARGIN; a path that explains fewer
than SPARE times that goes in the end, ELIMINATED at the most."""
ELIMINATED = 6
SIGNIFICANT = 4.0
"""Standard deviations by which the residual must exceed noise to be taken for channel."""
MERGED = 1.5
"""By which the variance is raised where there are rays around the paths: paths that stand for several are off by more
than the curvature tells. Measured: in UMa at 15 dB the error is 1.4 (2 hops) and 1.9 (4) times what that says, in the
median over 64 channels, wherever in the band and however large the residual."""
GROWN_STEPS, SYNC_STEPS, START_STEPS = 2, 4, 12
"""Levenberg-Marquardt steps after new paths, after a synchronisation amid a search, and after the start."""


@dataclass(frozen=True, eq=False)
class JointMl(Method):
    """y_m = S_m h(m) + n: paths, their Doppler shifts, and phase and timing of every symbol at their posterior's mode.

      start   at most STRONG paths of one symbol, one by one; phase and timing of the other symbols by the energy that
              these paths explain there; one fit of all symbols; then `grow` to FIRST paths and `settle` once. From
              each of STARTS symbols: the phases and timings of the best are kept, the paths are not
      grow    peaks of what is left of all symbols, compensated and laid side by side as one band (`peaks`), then a few
              Levenberg-Marquardt steps of everything; every SYNC_EVERY steps all symbols are synchronised anew
      settle  paths that are not worth it go; then `rounds` times: what surrounds the paths (`spread`) is taken off,
              all symbols, the first one too, are synchronised anew, and everything is fitted

    max over theta of -|y - h(theta)|^2 / noise_var + log priors: doppler_k ~ N(0, (0.7 largest)^2),
    timing ~ N(0, timing_var), gain ~ CN(0, P / 12) with P the power received, which tames pairs of near paths.

    model:     `Sounding`, the law of array, tones and period; `Sounding.of(about, num_rx_ant)` reads it off a capture
    num_paths: most paths. Fewer where the residual shows no more; clusters of many rays take all they get
    rounds, refine_steps: of settling, and Levenberg-Marquardt steps at most in each
    around:    estimate the rays around the paths too; without, paths alone
    Several symbols, op Kron(Identity((rx_ant,)), Hops(index, N)), at least one more than hops where they come in order
    (with as many, Doppler shifts and delays can be told apart by their priors alone), or one symbol, ... Select.
    noise_var None: from the quietest delays and angles, then from the residual; an item that takes all num_paths then
    ends with MAX_STEPS: what is left may be channel. complex128 inside.
    Variance, per tone, mean over antennas: the curvature of the posterior, the rays around the paths, and what the
    residual holds beyond noise; where no path is found, what noise may hide. It does not know of paths that are merged
    or timings that are a lobe off.
    info: paths (`Paths`), offsets (`Offsets`, 0 at symbol 0), num_paths, residual_ratio (residual over that of noise).
    Source: the refinement of Wan & Liu 2024 made joint: linear Doppler phases, one likelihood, its search and its
    synchronisation are ours.
    """

    variance: ClassVar[str] = "posterior"
    model: Sounding | None = None
    num_paths: int = 36
    rounds: int = 3
    refine_steps: int = 12
    around: bool = True
    max_steps: int | None = None
    tol: float | None = 0.0

    def __post_init__(self):
        for name in ("num_paths", "rounds", "refine_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"joint-ml: {name}: expected at least 1, got {getattr(self, name)}")

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        steps = self.num_paths + self.rounds + 1 if self.max_steps is None else self.max_steps
        return replace(self, max_steps=steps), {}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = self.task(obs)
        if obs.noise_var is None:
            task = replace(task, noise_var=torch.maximum(noise_floor(task), task.noise_var))
        phase, timing = self._offsets(task)
        point = Point.blank(task, self.num_paths)._replace(phase=phase, timing=timing)
        stage = torch.zeros(len(task.y), dtype=torch.int64, device=phase.device)
        return self._packed(point, stage, task.noise_var, torch.ones_like(task.noise_var), obs)

    def step(self, state: State, obs: Observation) -> State:
        """stage: how often the search has grown, or -1 - how often it has settled."""
        task, point, stage = self._unpacked(state, obs)
        noise, growing = task.noise_var, stage >= 0
        settling = ~growing & (stage >= -self.rounds)
        new_stage = stage
        if bool(growing.any()):
            rows = Rows(None, True).of(growing)
            part, more = self._grown(task.some(rows), point.rows(rows), rows.take(stage), SYNC_EVERY[1])
            point = point.put(rows, part)
            new_stage = torch.where(growing, torch.where(rows.put(growing, more), stage + 1, -1), stage)
        if bool(settling.any()):
            rows = Rows(None, True).of(settling)
            part = self._settled(task.some(rows), point.rows(rows), rows.take(stage) == -1)
            point = point.put(rows, part)
            new_stage = torch.where(settling, stage - 1, new_stage)
        done = new_stage < -self.rounds
        if obs.noise_var is None:
            rest = left(task, point, self._found(task, point) if bool(settling.any()) else None)
            noise = torch.where(new_stage < 0, rest, torch.minimum(noise, rest))
            noise = torch.maximum(noise, self.task(obs).noise_var)
            done = done & ~point.mask.all(-1)
        return self._packed(point, new_stage, noise, torch.where(done, 0.0, 1.0), obs)

    def read(self, state: State, obs: Observation) -> Estimate:
        task, point, _ = self._unpacked(state, obs)
        noise = task.noise_var
        point = point.compact()
        found = self._found(task, point)
        mean = channel_at(task, point, None if found is None else found.weight)
        var, ratio = self._variance(task, point, found)
        batch, real = obs.batch_shape, obs.y.real.dtype
        mean = mean.reshape((*batch, *mean.shape[1:])).to(obs.y.dtype)
        var = var[:, None].reshape((*batch, 1, *var.shape[1:])).to(real)
        if len(obs.op.in_shape) == 2:
            mean, var = mean[..., 0, :], var[..., 0, :]
        paths = Paths(point.gain, point.delay, point.cosine, point.rate[..., 0], point.mask)
        given, event = obs.noise_var, (..., *(None,) * len(obs.op.out_shape))
        info = {
            "paths": Paths(*(x.reshape((*batch, *x.shape[1:])) for x in paths)),
            "offsets": Offsets(
                point.phase.reshape((*batch, len(task.times))), point.timing.reshape((*batch, len(task.times)))
            ),
            "num_paths": point.mask.sum(-1).reshape(batch),
            "residual_ratio": ratio.reshape(batch),
            "noise_var": noise.reshape(batch)[event].to(real) if given is None else given,
            "noise_var_source": "estimated" if given is None else "given",
        }
        return Estimate(Gaussian(mean, var), info)

    def pilots(self, obs: Observation) -> Sounded:
        """Raises ValueError without a model and for operators that are no sounding."""
        if self.model is None:
            raise ValueError(
                "joint-ml: model: expected a Sounding, got None; Sounding.of(about, num_rx_ant) reads it off a capture "
                "that tells the array's positions, the tones and the period"
            )
        return sounded(self.model, obs)

    def task(self, obs: Observation) -> Task:
        pilots = self.pilots(obs)
        assert self.model is not None
        times = self.model.period_s * torch.arange(len(pilots.index), dtype=torch.float64)
        task = Task.make(self.model, pilots, times)
        power = squared(task.y).mean((-3, -2, -1))
        least = torch.where(power > 0, FLOOR * power, 1.0)
        return replace(task, noise_var=torch.maximum(task.noise_var if obs.noise_var is not None else least, least))

    def _price(self, task: Task) -> float:
        return math.log(task.model.num_subcarriers * task.model.num_rx_ant) + MARGIN

    def _offsets(self, task: Task) -> tuple[Tensor, Tensor]:
        """Phase and timing of all symbols: the best of short searches from each of the first STARTS symbols."""
        starts = min(STARTS, len(task.times))
        many = task.some(Rows(torch.arange(len(task.y), device=task.y.device).repeat(starts), True))
        point = Point.joined([self._started(task, symbol) for symbol in range(starts)])
        point, live = point.sized(max(FIRST, point.mask.shape[-1])), torch.ones_like(many.noise_var, dtype=torch.bool)
        for count in range(FIRST):
            rows = Rows(None, True).of(live)
            stage = torch.full_like(rows.take(live), count, dtype=torch.int64)
            part, more = self._grown(many.some(rows), point.rows(rows), stage, SYNC_EVERY[0])
            point, live = point.put(rows, part), live & rows.put(live, more)
            if not bool(live.any()):
                break
        point = self._settled(many, point, torch.ones_like(live))
        price = self._price(task) * point.mask.sum(-1) + many.prior_cost(point, gain_power(many))
        cost = squared(residual(many, point)).sum((-3, -2, -1)) / many.noise_var + price
        best = cost.unflatten(0, (starts, -1)).argmin(0)
        chosen = Rows(best * len(task.y) + torch.arange(len(best), device=best.device), True)
        return chosen.take(point.phase), chosen.take(point.timing)

    def _started(self, task: Task, which: int) -> Point:
        """Strong paths of one symbol, all symbols synchronised with them."""
        items, symbols = len(task.y), len(task.times)
        first, ridge = task.symbol(which), gain_power(task)
        size = min(STRONG, self.num_paths)
        point = Point.blank(first, size)
        live = torch.ones(items, dtype=torch.bool, device=task.y.device)
        for _ in range(size):
            found = peaks(first, residual(first, point), 1)
            live = live & (found.worth[:, 0] > self._price(task))
            if not bool(live.any()):
                break
            point = appended(point, found, live[:, None])
            point, _ = descend(first, point, ridge, GROWN_STEPS, live)
        zero = task.noise_var.new_zeros(items, symbols)
        point = point._replace(phase=zero, timing=zero)
        phase, timing = searched(task, point, coherent=False)
        point = gauged(point._replace(phase=phase, timing=timing))
        return descend(task, point, ridge, START_STEPS)[0]

    def _grown(self, task: Task, point: Point, stage: Tensor, every: int) -> tuple[Point, Tensor]:
        """With the next peaks, and which items may have more; all symbols synchronised anew after `every` stages."""
        size = point.mask.shape[-1]
        count = int(point.mask.sum(-1).max())
        some = point.sized(min(count + AT_ONCE, size))
        found = peaks(task, residual(task, some), AT_ONCE)
        wanted = found.worth > self._price(task)
        grown = wanted.any(-1)
        if bool(grown.any()):
            some = appended(some, found, wanted)
            some, _ = descend(task, some, gain_power(task), GROWN_STEPS, grown)
        point = some.sized(size)
        more = grown & ~point.mask.all(-1)
        sync = more & ((stage + 1) % every == 0)
        if bool(sync.any()):
            rows = Rows(None, True).of(sync)
            point = point.put(rows, self._synchronised(task.some(rows), point.rows(rows), None, SYNC_STEPS))
        return point, more

    def _settled(self, task: Task, point: Point, first: Tensor) -> Point:
        """A round; before the first one, paths that are not worth it go."""
        size, ridge = point.mask.shape[-1], gain_power(task)
        if bool(first.any()):
            less = thinned(task, point, ridge, SPARE * self._price(task), ELIMINATED)
            less, _ = descend(task, less, ridge, self.refine_steps)
            point = less.where(first, point)
        point = point.compact()
        found = self._found(task, point)
        return self._synchronised(task, point, found, self.refine_steps).sized(size)

    def _synchronised(self, task: Task, point: Point, around: Spread | None, steps: int) -> Point:
        """All symbols against the paths, then everything."""
        size = point.mask.shape[-1]
        point = point.compact()
        ridge = gain_power(task)
        if around is not None:
            task = without(task, point, around.weight)
        phase, timing = searched(task, point, coherent=True)
        point = steered(task, gauged(point._replace(phase=phase, timing=timing)), ridge)
        return descend(task, point, ridge, steps)[0].sized(size)

    @classmethod
    def example(cls, gen: torch.Generator) -> "JointMl":
        model = Sounding(2, 2, tuple(120e3 * n for n in range(24)))
        return cls(model, num_paths=3, rounds=1)

    def _found(self, task: Task, point: Point) -> Spread | None:
        return spread(task, point) if self.around else None

    def _variance(self, task: Task, point: Point, found: Spread | None) -> tuple[Tensor, Tensor]:
        """Of every tone, (item, symbol, subcarrier), and the residual over that of noise."""
        fixed, prior = task.fixed(point), task.prior(gain_power(task), point.gain.shape[-1])
        covariance, _ = inverse(posterior_information(normal_at(task, point), fixed, prior), fixed)
        var = tone_variance(task, point, covariance)
        if found is not None:
            wide = var + spread_variance(task, point, found.covariance)
            var = torch.where((found.freedom > 0)[:, None, None], MERGED * wide, var)
        ratio = left(task, point, found) / task.noise_var
        extra = torch.where(ratio > 1 + SIGNIFICANT / math.sqrt(task.y[0].numel()), ratio - 1, 0.0) * task.noise_var
        return var + (extra + unseen(point.mask, task.noise_var, task.y[0].numel()))[:, None, None], ratio

    def _packed(self, point: Point, stage: Tensor, noise: Tensor, change: Tensor, obs: Observation) -> State:
        rest = {"stage": stage, "noise_var": noise, "change": change.to(obs.y.real.dtype)}
        flat, batch = {**point._asdict(), **rest}, obs.batch_shape
        return {name: x.reshape((*batch, *x.shape[1:])) for name, x in flat.items()}

    def _unpacked(self, state: State, obs: Observation) -> tuple[Task, Point, Tensor]:
        lead = len(obs.batch_shape)
        flat = {name: x.flatten(0, lead - 1) if lead else x[None] for name, x in state.items()}
        task = replace(self.task(obs), noise_var=flat["noise_var"])
        return task, Point(*(flat[name] for name in Point._fields)), flat["stage"]


def left(task: Task, point: Point, found: Spread | None) -> Tensor:
    """Residual energy per sample that is not explained, (item): the noise variance, if nothing else is left."""
    rest = squared(residual(task, point, None if found is None else found.weight)).sum((-3, -2, -1))
    spent = 3.0 * point.mask.sum(-1) + len(task.times) - 1  # complex numbers
    if found is not None:
        spent = torch.where(found.freedom > 0, found.freedom + len(task.times) - 1, spent)
    return rest / (task.y[0].numel() - spent).clamp_min(1.0)
