"""`lasso` and `omp`: sparse coefficients without a posterior (their variance is reported as infinite)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hhat.methods.base import Method, Problem, gain, noise_info, noise_of, problem, relative_change, start_noise
from hhat.ops.linalg import squared
from hhat.ops.pinv import squared_norm
from hhat.priors.base import Prior
from hhat.types import Estimate, Gaussian, Observation, State


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
    Source: Tropp & Gilbert, IEEE TIT 2007, algorithm 3; the growing factor as in Rubinstein et al. 2008.
    """

    variance: ClassVar[str] = "none"
    prior: Prior | None = None
    max_atoms: int | None = None
    max_steps: int = 1 << 20
    tol: float | None = 0.0

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        task = problem(obs, self.prior)
        rows, columns = math.prod(task.op.out_shape), math.prod(task.op.in_shape)
        most = max(1, min(columns, rows // 4)) if self.max_atoms is None else self.max_atoms
        if not 1 <= most <= min(rows, columns):
            raise ValueError(f"omp: max_atoms: expected 1..{min(rows, columns)}, got {self.max_atoms}")
        batch, y = obs.batch_shape, obs.y
        residual = y.expand(*batch, *task.op.out_shape).reshape(*batch, rows)
        state: State = {
            "residual": residual.clone(),
            "directions": y.new_zeros(*batch, rows, most),
            "triangle": torch.diag_embed(y.new_ones(*batch, most)),
            "projections": y.new_zeros(*batch, most),
            "atoms": torch.zeros(*batch, most, dtype=torch.int64, device=y.device),
            "count": torch.zeros(batch, dtype=torch.int64, device=y.device),
            "change": y.real.new_ones(batch),
            **start_noise(obs),
        }
        if obs.noise_var is None:
            state["noise_var"] = state["noise_var"] * 0.1  # stop at 1 % of the received power
        return state

    def step(self, state: State, obs: Observation) -> State:
        task = problem(obs, self.prior)
        batch, count = obs.batch_shape, state["count"]
        most = state["atoms"].shape[-1]
        residual = state["residual"]
        limit = self._limit(state, obs)
        # an item whose y is all noise takes no atom
        live = (squared(residual).sum(-1) > limit) & (count < most)
        match = task.op.adjoint(residual.reshape(*batch, *task.op.out_shape)).flatten(len(batch))
        norms = task.op.squares
        weight = norms.adjoint(obs.y.real.new_ones(task.op.out_shape)).flatten(-task.num_event)
        score = squared(match) / weight.clamp_min(torch.finfo(weight.dtype).tiny)
        taken = torch.arange(most, device=count.device) < count[..., None]
        used = torch.zeros_like(score).scatter_add(-1, state["atoms"], taken.to(score.dtype))
        best = score.masked_fill(used > 0, -1).argmax(-1)
        one_hot = torch.nn.functional.one_hot(best, score.shape[-1]).to(obs.y.dtype)
        column = task.op.apply(one_hot.reshape(*batch, *task.op.in_shape)).flatten(len(batch))
        grown = min(int(count.max()), most)  # columns behind are still zero
        q = state["directions"][..., :grown]
        overlap = _project(q, column)
        rest = column - (q @ overlap[..., None])[..., 0]
        again = _project(q, rest)
        rest = rest - (q @ again[..., None])[..., 0]
        norm = squared(rest).sum(-1, keepdim=True).sqrt()
        # an atom within the span of those taken is round-off: every other one is too, the item has ended
        live = live & (norm[..., 0].square() > DEPENDENT[norm.dtype] * squared(column).sum(-1))
        unit = rest / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        value = (unit.conj() * residual).sum(-1)
        here = torch.nn.functional.one_hot(count.clamp_max(most - 1), most) * live[..., None]
        mark = here.to(obs.y.dtype)
        r_column = torch.nn.functional.pad(overlap + again, (0, most - grown)) + norm * mark
        triangle = torch.where(here[..., None, :].bool(), r_column[..., :, None], state["triangle"])
        fresh = torch.where(live[..., None], residual - unit * value[..., None], residual)
        count = count + live.to(count.dtype)
        energy = squared(fresh).sum(-1)
        done = (energy <= limit) | (count >= most) | ~live
        return {
            **state,
            "residual": fresh,
            "directions": torch.where(here[..., None, :].bool(), unit[..., :, None], state["directions"]),
            "triangle": triangle,
            "projections": state["projections"] + value[..., None] * mark,
            "atoms": torch.where(here.bool(), best[..., None], state["atoms"]),
            "count": count,
            "change": torch.where(done, 0.0, 1.0).to(energy.dtype),
        }

    def _limit(self, state: State, obs: Observation) -> Tensor:
        """Residual energy at which an item stops: mean plus one standard deviation of the noise energy."""
        total = noise_of(state, obs).expand(*obs.batch_shape, *obs.op.out_shape).flatten(len(obs.batch_shape))
        return total.sum(-1) * (1 + total.shape[-1] ** -0.5)

    def read(self, state: State, obs: Observation) -> Estimate:
        task, batch = problem(obs, self.prior), obs.batch_shape
        values = torch.linalg.solve_triangular(state["triangle"], state["projections"][..., None], upper=True)[..., 0]
        taken = torch.arange(values.shape[-1], device=values.device) < state["count"][..., None]
        values = torch.where(taken, values, 0)
        x = values.new_zeros(*batch, math.prod(task.op.in_shape)).scatter_add(-1, state["atoms"], values)
        est = _none(task, x.reshape(*batch, *task.op.in_shape), state, obs)
        if obs.noise_var is None:
            free = (state["residual"].shape[-1] - state["count"]).clamp_min(1)
            left = squared(state["residual"]).sum(-1) / free
            est.info["noise_var"] = left.reshape(*batch, *(1,) * len(task.op.out_shape))
        est.info["num_atoms"] = state["count"]
        est.info["reached_noise"] = squared(state["residual"]).sum(-1) <= self._limit(state, obs)
        return est

    @classmethod
    def example(cls, gen: torch.Generator) -> "Omp":
        return cls(max_atoms=2)


def _project(q: Tensor, x: Tensor) -> Tensor:
    """q^H x without a conjugated copy of the large q."""
    return (x.conj()[..., None, :] @ q)[..., 0, :].conj()
