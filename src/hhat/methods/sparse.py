"""`lasso` and `omp`: sparse coefficients without a posterior (their variance is reported as infinite)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hhat.methods.base import (
    Method,
    Problem,
    axis_numbers,
    gain,
    noise_info,
    noise_of,
    problem,
    relative_change,
    start_noise,
)
from hhat.ops.base import cached
from hhat.ops.elementary import Identity
from hhat.ops.linalg import squared
from hhat.ops.pinv import squared_norm
from hhat.ops.structured import Kron
from hhat.ops.tones import lane_axes
from hhat.priors.base import Prior
from hhat.types import Estimate, Gaussian, Observation, Shape, State


def _none(task: Problem, x: Tensor, state: State, obs: Observation) -> Estimate:
    h = task.channel(x)
    info = {"coefficients": x, **noise_info(state, obs)}
    if obs.noise_var is None:
        info["noise_var_source"] = "residual"  # a level to stop at, not an estimate to rely on
    return Estimate(Gaussian(h, torch.full_like(h.real, torch.inf)), info)


STALLED = 1e-8
"""A relative change (as a ratio of energies) of `tol` times this is round-off."""


@dataclass(frozen=True, eq=False)
class Lasso(Method):
    """min_x |y - A x|^2 / 2 + lambda |x|_1 with complex moduli, by FISTA; lambda = strength sigma sqrt(E|a|^2).

    E|a|^2 is the mean squared column norm of A, so that strength is in units of the noise seen by one coefficient.
    The best strength depends on channel and SNR (too small fits noise, too large shrinks): tune it on a validation
    set. prior: only its basis is used. Source: Beck & Teboulle, SIAM J. Imaging Sci. 2009, eqs. (4.1)-(4.3).
    Noise that is not given is re-estimated from the residual at every step.
    """

    variance: ClassVar[str] = "none"
    prior: Prior | None = None
    strength: float = 1.0
    max_steps: int = 1000
    tol: float | None = 1e-4

    def __post_init__(self):
        if not self.strength > 0:
            raise ValueError(f"lasso: strength: expected > 0, got {self.strength}")

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        zero = obs.y.new_zeros(*obs.batch_shape, *task.op.in_shape)
        one = obs.y.real.new_ones(obs.batch_shape)
        return {"x": zero, "ahead": zero, "momentum": one, "change": one, **start_noise(obs)}

    def step(self, state: State, obs: Observation) -> State:
        task = problem(obs, self.prior)
        lift = (..., *(None,) * task.num_event)
        size = (1.02 * squared_norm(task.op, obs.y))[lift]  # 2 %: round-off in the norm must not break descent
        x, ahead = state["x"], state["ahead"]
        ahead_was = ahead
        noise = noise_of(state, obs)
        columns = gain(task.op, obs.y) * math.prod(task.op.out_shape) / math.prod(task.op.in_shape)
        penalty = self.strength * _mean_noise(noise, task).sqrt() * columns.sqrt()
        u = ahead + task.op.adjoint(obs.y - task.op.apply(ahead)) / size
        modulus = u.abs()
        fresh = u * (1 - penalty / size / modulus.clamp_min(torch.finfo(modulus.dtype).tiny)).clamp_min(0)
        momentum = (1 + (1 + 4 * state["momentum"].square()).sqrt()) / 2
        push = ((state["momentum"] - 1) / momentum)[lift]
        # a step against the direction of travel means the momentum overshot (O'Donoghue & Candes 2015)
        against = ((ahead - fresh).conj() * (fresh - x)).real.sum(task.event()) > 0
        ahead = torch.where(against[lift], fresh, fresh + push * (fresh - x))
        momentum = torch.where(against, torch.ones_like(momentum), momentum)
        # rms of the gradient map against lambda: zero at the optimum, however slow the steps have become
        least = torch.finfo(modulus.dtype).tiny
        gap = (squared(size * (ahead_was - fresh)) / penalty.square().clamp_min(least)).mean(task.event())
        change = torch.minimum(gap, relative_change(fresh, x, task.num_event) / STALLED)
        new = {"x": fresh, "ahead": ahead, "momentum": momentum, "change": change}
        if obs.noise_var is None:
            residual = squared(obs.y - task.op.apply(fresh)).mean(task.out_event(), keepdim=True)
            new["noise_var"] = 0.9 * state["noise_var"] + 0.1 * residual
        return new

    def read(self, state: State, obs: Observation) -> Estimate:
        return _none(problem(obs, self.prior), state["x"], state, obs)


def _mean_noise(noise: Tensor, task: Problem) -> Tensor:
    """Mean noise variance per item, (*batch, 1, ..) over the coefficients' event axes."""
    count = len(task.op.out_shape)
    if noise.ndim < count:
        return noise.mean()
    mean = noise.mean(task.out_event())
    return mean.reshape(*mean.shape, *(1,) * task.num_event)


DEPENDENT = {torch.float32: 1e-10, torch.float64: 1e-24}
"""An atom with less than this share of its energy outside the span of those taken adds nothing but round-off."""


@dataclass(frozen=True, eq=False)
class Omp(Method):
    """Orthogonal matching pursuit: add the atom most correlated with the residual, refit, stop at the noise.

    An item stops when |residual|^2 <= (1 + 1/sqrt(M)) sum of the noise variances (its mean plus one standard
    deviation), or at max_atoms (default: a quarter of M, at most N). All items run at once; the refit is an orthogonal
    basis that grows by one column (modified Gram-Schmidt, twice). prior: only its basis is used.

    shared_axes: names of channel axes or negative numbers: coefficients along them are taken or left together
    (simultaneous OMP); M and N are then those of one lane, one entry of these axes. The operator must leave lanes
    apart (`lane_axes`), or have a unitary factor on just these axes, which moves onto y; else ValueError.
    Source: Tropp & Gilbert, IEEE TIT 2007, algorithm 3; the growing factor as in Rubinstein et al. 2008; shared
    supports: Tropp, Gilbert & Strauss, Signal Processing 86(3), 2006, with squares in place of moduli.
    """

    variance: ClassVar[str] = "none"
    prior: Prior | None = None
    max_atoms: int | None = None
    max_steps: int = 1 << 20
    tol: float | None = 0.0
    shared_axes: tuple[str | int, ...] = ()

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task, axes = self._task(obs)
        lanes = math.prod(task.op.in_shape[axis] for axis in axes)
        rows, columns = math.prod(task.op.out_shape) // lanes, math.prod(task.op.in_shape) // lanes
        most = max(1, min(columns, rows // 4)) if self.max_atoms is None else self.max_atoms
        if not 1 <= most <= min(rows, columns):
            raise ValueError(f"omp: max_atoms: expected 1..{min(rows, columns)}, got {self.max_atoms}")
        batch, y = obs.batch_shape, obs.y
        residual = _lanes(task.y.expand(*batch, *task.op.out_shape), task.op.out_shape, axes)
        state: State = {
            "residual": residual.clone(),
            "directions": y.new_zeros(*batch, lanes, rows, most),
            "triangle": torch.diag_embed(y.new_ones(*batch, lanes, most)),
            "projections": y.new_zeros(*batch, lanes, most),
            "atoms": torch.zeros(*batch, most, dtype=torch.int64, device=y.device),
            "count": torch.zeros(batch, dtype=torch.int64, device=y.device),
            "change": y.real.new_ones(batch),
            **start_noise(obs),
        }
        if obs.noise_var is None:
            state["noise_var"] = state["noise_var"] * 0.1  # stop at 1 % of the received power
        return state

    def step(self, state: State, obs: Observation) -> State:
        task, axes = self._task(obs)
        ahead, back = task.op.in_shape, task.op.out_shape
        count = state["count"]
        most = state["atoms"].shape[-1]
        residual = state["residual"]
        limit = self._limit(state, obs)
        # an item whose y is all noise takes no atom
        live = (squared(residual).sum((-2, -1)) > limit) & (count < most)
        match = _lanes(task.op.adjoint(_joined(residual, back, axes)), ahead, axes)
        weight = _lanes(task.op.squares.adjoint(obs.y.real.new_ones(back)), ahead, axes)
        score = (squared(match) / weight.clamp_min(torch.finfo(weight.dtype).tiny)).sum(-2)
        taken = torch.arange(most, device=count.device) < count[..., None]
        used = torch.zeros_like(score).scatter_add(-1, state["atoms"], taken.to(score.dtype))
        best = score.masked_fill(used > 0, -1).argmax(-1)
        one_hot = torch.nn.functional.one_hot(best, score.shape[-1]).to(obs.y.dtype)[..., None, :].expand_as(match)
        # lanes are apart: one product holds the atom's column of every lane
        column = _lanes(task.op.apply(_joined(one_hot, ahead, axes)), back, axes)
        grown = min(int(count.max()), most)  # columns behind are still zero
        q = state["directions"][..., :grown]
        overlap = _project(q, column)
        rest = column - (q @ overlap[..., None])[..., 0]
        again = _project(q, rest)
        rest = rest - (q @ again[..., None])[..., 0]
        norm = squared(rest).sum(-1, keepdim=True).sqrt()
        # an atom within the span of those taken is round-off: every other one is too, the item has ended
        fresh_lane = ~(norm[..., 0].square() <= DEPENDENT[norm.dtype] * squared(column).sum(-1))  # NaN is seen on
        live = live & fresh_lane.any(-1)
        unit = torch.where(fresh_lane[..., None], rest / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0)
        value = (unit.conj() * residual).sum(-1)
        here = torch.nn.functional.one_hot(count.clamp_max(most - 1), most) * live[..., None]
        mark, chosen = here.to(obs.y.dtype)[..., None, :], here.bool()[..., None, None, :]
        size = torch.where(fresh_lane[..., None], norm, 1)  # a lane that the atom adds nothing to gets coefficient 0
        r_column = torch.nn.functional.pad(overlap + again, (0, most - grown)) + size * mark
        fresh = torch.where(live[..., None, None], residual - unit * value[..., None], residual)
        count = count + live.to(count.dtype)
        energy = squared(fresh).sum((-2, -1))
        done = (energy <= limit) | (count >= most) | ~live
        return {
            **state,
            "residual": fresh,
            "directions": torch.where(chosen, unit[..., :, None], state["directions"]),
            "triangle": torch.where(chosen, r_column[..., :, None], state["triangle"]),
            "projections": state["projections"] + value[..., None] * mark,
            "atoms": torch.where(here.bool(), best[..., None], state["atoms"]),
            "count": count,
            "change": torch.where(done, 0.0, 1.0).to(energy.dtype),
        }

    def _task(self, obs: Observation) -> tuple[Problem, tuple[int, ...]]:
        """The problem and the shared axes; a unitary factor on the shared axes is moved onto y."""
        task = problem(obs, self.prior)
        axes = axis_numbers("shared_axes", self.shared_axes, obs.axes, task.num_event)
        op = task.op
        if isinstance(op, Kron) and axes and not set(axes) <= set(lane_axes(op)):
            behind = tuple(range(-len(op.right.in_shape), 0))
            if set(axes) == set(behind) and op.right.is_unitary and op.right.in_shape == op.right.out_shape:
                left, right = op.left, op.right
                y = Kron(Identity(left.out_shape), right).adjoint(task.y)
                op = cached(op, ("lanes",), lambda: Kron(left, Identity(right.in_shape)))
                task = replace(task, op=op, y=y)
        if not set(axes) <= set(lane_axes(op)):
            kept = lane_axes(op)
            raise ValueError(f"omp: shared_axes: the operator keeps axes {kept} of x apart, got {axes}")
        return task, axes

    def _limit(self, state: State, obs: Observation) -> Tensor:
        """Residual energy at which an item stops: mean plus one standard deviation of the noise energy."""
        total = noise_of(state, obs).expand(*obs.batch_shape, *obs.op.out_shape).flatten(len(obs.batch_shape))
        return total.sum(-1) * (1 + total.shape[-1] ** -0.5)

    def read(self, state: State, obs: Observation) -> Estimate:
        task, axes = self._task(obs)
        values = torch.linalg.solve_triangular(state["triangle"], state["projections"][..., None], upper=True)[..., 0]
        taken = torch.arange(values.shape[-1], device=values.device) < state["count"][..., None]
        values = torch.where(taken[..., None, :], values, 0)
        columns = math.prod(task.op.in_shape) // values.shape[-2]
        atoms = state["atoms"][..., None, :].expand_as(values)
        x = values.new_zeros(*values.shape[:-1], columns).scatter_add(-1, atoms, values)
        est = _none(task, _joined(x, task.op.in_shape, axes), state, obs)
        energy = squared(state["residual"]).sum((-2, -1))
        if obs.noise_var is None:
            lanes, rows = state["residual"].shape[-2:]
            left = energy / (lanes * (rows - state["count"]).clamp_min(1))
            est.info["noise_var"] = left.reshape(*obs.batch_shape, *(1,) * len(task.op.out_shape))
        est.info["num_atoms"] = state["count"]
        est.info["reached_noise"] = energy <= self._limit(state, obs)
        return est

    @classmethod
    def example(cls, gen: torch.Generator) -> "Omp":
        return cls(max_atoms=2)


def _lanes(x: Tensor, shape: Shape, axes: tuple[int, ...]) -> Tensor:
    """(*batch, *shape) as (*batch, lane, rest): the axes in front, all others behind, each flattened."""
    lead, order = x.ndim - len(shape), _order(shape, axes)
    moved = x.permute(*range(lead), *(x.ndim + axis for axis in order))
    return moved.reshape(*x.shape[:lead], math.prod(shape[axis] for axis in axes), -1)


def _joined(x: Tensor, shape: Shape, axes: tuple[int, ...]) -> Tensor:
    """(*batch, lane, rest) back as (*batch, *shape)."""
    order = _order(shape, axes)
    moved = x.reshape(*x.shape[:-2], *(shape[axis] for axis in order))
    lead = x.ndim - 2
    return moved.permute(*range(lead), *(lead + order.index(axis) for axis in range(-len(shape), 0)))


def _order(shape: Shape, axes: tuple[int, ...]) -> tuple[int, ...]:
    return axes + tuple(axis for axis in range(-len(shape), 0) if axis not in axes)


def _project(q: Tensor, x: Tensor) -> Tensor:
    """q^H x without a conjugated copy of the large q."""
    return (x.conj()[..., None, :] @ q)[..., 0, :].conj()
