"""`r-tst-music`: paths of one symbol, refined on all symbols at once, one path after another."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.extrapolation.columns import channel_at, residual
from hhat.extrapolation.fit import steered
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding, delay_steering
from hhat.extrapolation.normal import Doppler, Linear, Point, Task
from hhat.extrapolation.subspace import refined
from hhat.extrapolation.sync import searched
from hhat.extrapolation.tree import tree
from hhat.extrapolation.tst_music import Music, plug_in, symbols_alone
from hhat.ops.linalg import squared
from hhat.types import Estimate, Observation, State

GROUPS = 10
"""Into which a symbol's tones are added up for the delay search: at most 0.16 rad from a group's middle."""
DELAY_REACH = 0.5
"""Of the search for a path's delay, in cells of what is coherent, to either side."""
ANGLE_REACH = 0.25
"""The same in cells of the array."""
DOPPLER_REACH = 3.0
"""Of the search for a path's Doppler shift, in standard deviations of its prior."""
POINTS = 11
LINEAR = Linear()


@dataclass(frozen=True, eq=False)
class RTstMusic(Music):
    """y(m) = e^{j phi_m} diag(e^{-j 2 pi f timing_m}) sum_k gain_k e^{j turn_mk} a(tau_k) b(u_k, v_k)^T + n, all m.

      init: `tree` on a symbol; phase and timing of the others by the concentrated energy (`searched`); of all symbols
            the one whose paths leave least of y
      step: each path, strongest first: z = (y less the other paths) conj(b_k), delay at the peak of |d_k(tau)^H z|^2,
            d_k over all symbols; angle at the peak of |b^H (d_k^H y)|; then turns from gains free in each symbol, phase
            and timing by search, gains by least squares
    doppler: `Linear()`: one Doppler shift per path, or `Free()` (the source's): a phase per path and symbol. Free
      phases leave the symbols' parts of the band incoherent to each other: only slopes inside of them tell delays.
    successive: take only the stronger paths off, as the source does, not all others
    starts: symbols to start from, counted from the first (the source: 1), None: all. A path that is missed at the start
      stays missed; each start costs a tree.
    band_phases: count free phases at the middle of the whole band, as the source does, not of the symbol's tones, where
      they do not depend on the delay: the alternation then creeps, more than ten steps at four hops
    The iterate of least |y - h|^2 is kept; `tol` is on its relative change. One symbol: `tst-music`, refined.
    Variance: per tone, mean over antennas: the Cramer-Rao bound at the fit plus the residual beyond noise.
    info: paths (`Paths`, gains at symbol 0; doppler_hz of free turns: their slope), offsets, turn (*batch, symbol,
    path) radians, num_paths, objective (*batch, max_steps + 1): |y - h|^2 after each step, constant once an item ended.
    Source: Wan & Liu 2024, R-TST-MUSIC, eqs. (15)-(27), as reconstructed. Departs: paths are not paired between
    symbols; they are cancelled by subtraction, not projected out; searches where the source takes gradient steps; and
    `starts`, `successive`, `band_phases` and `doppler` as above.
    """

    tol: float | None = 1e-4
    max_steps: int | None = 10
    doppler: Doppler = LINEAR
    successive: bool = False
    band_phases: bool = False
    starts: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.starts is not None and self.starts < 1:
            raise ValueError(f"r-tst-music: starts: expected at least 1, or None for all symbols, got {self.starts}")

    @property
    def label(self) -> str:
        return "r-tst-music"

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        pilots = self.pilots(obs)
        task = self._task(pilots)
        symbols = len(task.times)
        point = self._start(task, pilots, 0)
        for symbol in range(1, symbols if self.starts is None else min(self.starts, symbols)):
            other = self._start(task, pilots, symbol)
            better = energy(task, other) < energy(task, point)
            point = Point(*(_where(better, new, old) for new, old in zip(other, point, strict=True)))
        objective = energy(task, point)
        trace = objective[:, None].expand(-1, 1 + (self.max_steps or 1))
        flat = {**point._asdict(), **_best(point), "objective": objective, "trace": trace}
        shaped = {key: value.reshape((*obs.batch_shape, *value.shape[1:])) for key, value in flat.items()}
        return {**shaped, "count": torch.zeros(obs.batch_shape, dtype=torch.int64, device=obs.y.device),
                "change": obs.y.real.new_ones(obs.batch_shape)}  # fmt: skip

    def _start(self, task: Task, pilots: Sounded, symbol: int) -> Point:
        """The paths of one symbol, fitted to all."""
        assert pilots.noise_var is not None
        at = slice(symbol, symbol + 1)
        alone = Sounded(pilots.y[..., at, :], pilots.index[at], pilots.noise_var[..., at, :])
        ((_, one),) = symbols_alone(self.model, alone)
        point = tree(one, self.num_paths, self.smooth).compact()
        zero = task.noise_var.new_zeros(len(task.y), len(task.times))
        rate = zero.new_zeros(*point.gain.shape, task.doppler.basis(task.times).shape[-1])
        point = point._replace(rate=rate, phase=zero, timing=zero)
        _, timing = searched(task, point, False)
        return _joined(task, _aligned(point._replace(timing=timing))).sized(self.num_paths)

    def step(self, state: State, obs: Observation) -> State:
        task, batch = self._task(self.pilots(obs)), obs.batch_shape
        now = _point(state, "", len(batch))
        point = _joined(task, cancelled(task, now, self.successive, self.band_phases)).sized(self.num_paths)
        objective = energy(task, point).reshape(batch)
        before, better = state["trace"][..., -1], objective < state["objective"]
        best = {name: _where(better, value.reshape((*batch, *value.shape[1:])), state[name])
                for name, value in _best(point).items()}  # fmt: skip
        count = state["count"] + 1
        last = state["trace"].shape[-1] - 1
        later = torch.arange(last + 1, device=count.device) >= count[..., None].clamp_max(last)
        return {
            **{name: value.reshape((*batch, *value.shape[1:])) for name, value in point._asdict().items()},
            **best,
            "objective": torch.where(better, objective, state["objective"]),
            "trace": torch.where(later, objective[..., None], state["trace"]),
            "count": count,
            "change": ((before - objective).abs() / before.clamp_min(1e-300)).to(state["change"].dtype),
        }

    def read(self, state: State, obs: Observation) -> Estimate:
        pilots, batch = self.pilots(obs), obs.batch_shape
        task = self._task(pilots)
        point = _point(state, "best.", len(batch))
        mean = channel_at(task, point)
        var = plug_in(task, point)
        turn = turns(task, point)
        slope = (turn * (task.times - task.times.mean())[:, None]).sum(-2) / (
            (task.times - task.times.mean()).square().sum().clamp_min(1e-300) * 2 * math.pi
        )
        paths = Paths(point.gain, point.delay, point.cosine, slope, point.mask)
        whole = lambda x: x.reshape((*batch, *x.shape[1:]))  # noqa: E731
        info: dict[str, Any] = {
            "paths": Paths(*map(whole, paths)),
            "offsets": Offsets(whole(point.phase), whole(point.timing)),
            "turn": whole(turn),
            "num_paths": state["best.mask"].sum(-1),
            "objective": state["trace"],
        }
        return self.told(obs, whole(mean), whole(var[:, None]), pilots, info)

    def _task(self, pilots: Sounded) -> Task:
        assert self.model is not None and pilots.noise_var is not None
        level = pilots.noise_var.mean(-2, keepdim=True)
        return Task.make(self.model, pilots._replace(noise_var=level), self.times(pilots), self.doppler)

    @classmethod
    def example(cls, gen: torch.Generator) -> "RTstMusic":
        return cls(Sounding(2, 2, tuple(120e3 * n for n in range(24))), num_paths=3)


def turns(task: Task, point: Point) -> Float[Tensor, "item symbol path"]:
    return torch.einsum("mj,bkj->bmk", task.doppler.basis(task.times), point.rate)


def signatures(task: Task, point: Point, frequency: Float[Tensor, "symbol tone"]) -> Tensor:
    """d_k over symbols and tones at gain 1, (item, symbol, tone, path): delays, timing, phases and turns in it."""
    late = delay_steering(frequency, point.delay[:, None] + point.timing[..., None])
    angle = turns(task, point) + point.phase[..., None]
    return late * torch.polar(torch.ones_like(angle), angle)[:, :, None]


def energy(task: Task, point: Point) -> Float[Tensor, " item"]:
    """|y - h|^2 of the pilots."""
    return squared(residual(task, point)).sum((-1, -2, -3))


def cancelled(task: Task, point: Point, successive: bool = False, band_phases: bool = False) -> Point:
    """Delays and angles of all paths, one after the other, each on what the others leave of y.

    A loop over paths, since each needs those before it; all items take part in each turn.
    """
    model, y, frequency = task.model, task.y, task.frequency[list(task.band)]
    symbols, tones, ants = y.shape[1:]
    whole = task.doppler.common or band_phases
    middle = torch.zeros_like(frequency[:, :1]) if whole else frequency.mean(-1, keepdim=True)
    off = frequency - middle
    width = (off.amax() - off.amin()) * tones / max(tones - 1, 1)
    cell = 1 / float(width) if float(width) > 0 else 1.0
    size = max(1, tones // GROUPS)
    middles = _grouped(off, size) / _grouped(torch.ones_like(off), size)
    position = -(middles * cell).reshape(-1, 1)
    grid = torch.linspace(-DELAY_REACH, DELAY_REACH, POINTS, dtype=torch.float64, device=y.device)
    steps = delay_steering(middles.flatten() * cell, grid)
    reach = torch.full((1,), 2 * DELAY_REACH / (POINTS - 1), dtype=torch.float64, device=y.device)
    shape = torch.tensor([model.columns, model.rows], dtype=torch.float64, device=y.device)
    d = signatures(task, point, frequency)
    b = model.array_steering(point.cosine).mT
    weight = torch.zeros_like(point.gain) if successive else point.gain * point.mask
    delay, cosine = point.delay.clone(), point.cosine.clone()
    for k in range(int(point.mask.sum(-1).max())):
        there, others = point.mask[:, k], weight.clone()
        others[:, k] = 0
        beam = b[:, :, k].conj()
        seen = (y @ beam[:, None, :, None] - d @ (others[..., None] * (b.mT @ beam[..., None]))[:, None])[..., 0]
        short = _grouped(d[..., k].conj() * seen, size).flatten(1)[..., None]
        start = grid[squared(steps.mH @ short)[..., 0].argmax(-1)]
        shift = torch.where(there, refined(short, position, start[:, None, None], reach)[:, 0, 0] * cell, 0.0)
        delay[:, k] += shift
        d[..., k] *= delay_steering(off, shift[:, None, None])[..., 0]
        own = d[..., k].flatten(1).conj()[:, None]
        array = (own @ y.flatten(1, 2))[:, 0] - (b @ (others * (own @ d.flatten(1, 2))[:, 0])[..., None])[..., 0]
        spot = refined(array[..., None], model.positions(y.real), cosine[:, k : k + 1], 2 * ANGLE_REACH / shape)[:, 0]
        cosine[:, k] = torch.where(there[:, None], spot, cosine[:, k])
        b[:, :, k] = model.array_steering(cosine[:, k])
        found = (b[:, :, k].conj() * array).sum(-1) / (symbols * tones * ants)
        weight[:, k] = torch.where(there, found, 0.0)
    return point._replace(delay=delay, cosine=torch.remainder(cosine + 1, 2) - 1, gain=weight)


def _grouped(x: Tensor, size: int) -> Tensor:
    """Sums of `size` neighbours along the last axis, the last group shorter."""
    return torch.nn.functional.pad(x, (0, -x.shape[-1] % size)).unflatten(-1, (-1, size)).sum(-1)


def _joined(task: Task, point: Point) -> Point:
    """Turns, phase and timing, and gains, of paths whose delays and angles are given."""
    gain = _symbol_gains(task, point)
    rate, phase = _rates(task, gain)
    point = steered(task, point._replace(rate=rate, phase=phase, gain=gain[:, 0]), None)
    more, timing = searched(task, point, True)
    if task.doppler.common:
        point = point._replace(phase=more)
    else:
        point = point._replace(rate=point.rate + (more - more[:, :1])[:, None, 1:])
    return steered(task, _aligned(point._replace(timing=timing)), None)


def _aligned(point: Point) -> Point:
    """Phase and timing 0 at symbol 0; gains are to be found anew."""
    first = point.timing[:, :1]
    return point._replace(
        delay=point.delay + first, timing=point.timing - first, phase=point.phase - point.phase[:, :1]
    )


def _symbol_gains(task: Task, point: Point) -> Complex[Tensor, "item symbol path"]:
    """Gains that are free in every symbol, at the point's timing."""
    items, symbols = point.timing.shape
    found = point.gain.new_zeros(symbols, items, point.gain.shape[-1])
    noise = task.noise_var[:, None, None, None].expand(-1, 1, symbols, 1)
    pilots = Sounded(task.y.permute(0, 3, 1, 2), task.index[list(task.band)], noise)
    for rows, one in symbols_alone(task.model, pilots):
        again = lambda x: x.repeat(len(rows), *(1,) * (x.ndim - 1))  # noqa: B023, E731
        offset = point.timing[:, rows].mT.reshape(-1, 1)
        rate = offset.new_zeros(len(offset), point.gain.shape[-1], 1)
        alone = Point(again(point.gain), again(point.delay), again(point.cosine), rate, 0 * offset, offset,
                      again(point.mask))  # fmt: skip
        found[rows] = steered(one, alone, None).gain.unflatten(0, (len(rows), items))
    return found.movedim(0, 1)


def _rates(task: Task, gain: Complex[Tensor, "item symbol path"]) -> tuple[Tensor, Tensor]:
    """Rates of the paths' turns and the phases of the symbols, from gains that are free in each."""
    turned = gain * gain[:, :1].conj()
    zero = torch.zeros(turned.shape[:2], dtype=torch.float64, device=gain.device)
    if not task.doppler.common:
        return turned[:, 1:].angle().mT, zero
    precision = task.doppler.precision(task.model, task.times)
    limit = DOPPLER_REACH * float(precision[0]) ** -0.5
    grid = torch.linspace(-limit, limit, 121, dtype=torch.float64, device=gain.device)
    basis = task.doppler.basis(task.times)
    rate, phase = zero.new_zeros(*turned.shape[:1], turned.shape[-1], 1), zero
    for _ in range(3):
        angle = basis * rate[..., 0][:, None]
        phase = (turned * torch.polar(torch.ones_like(angle), -angle)).sum(-1).angle()
        own = turned * torch.polar(torch.ones_like(phase), -phase)[..., None]
        tried = torch.polar(torch.ones_like(basis * grid), basis * grid).to(own.dtype)
        spot = grid[squared(own.mT.conj() @ tried).argmax(-1)][..., None, None]
        reach = grid.diff()[:1]
        rate = refined(own.mT[..., None], task.times[:, None], spot, reach)[..., 0]
    return rate, phase


def _point(state: State, prefix: str, lead: int) -> Point:
    flat = lambda x: x.flatten(0, lead - 1) if lead else x[None]  # noqa: E731
    return Point(*(flat(state[prefix + name]) for name in Point._fields)).compact()


def _best(point: Point) -> State:
    return {f"best.{name}": value for name, value in point._asdict().items()}


def _where(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.reshape(*better.shape, *(1,) * (new.ndim - better.ndim)), new, old)
