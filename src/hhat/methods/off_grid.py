"""`off-grid`: an inner method on steering dictionaries whose grid points move to where the evidence is higher."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from hhat.methods.base import Method, noise_of
from hhat.methods.sbl import Sbl
from hhat.ops.base import Adjoint, LinearOp, cached, walk
from hhat.ops.compose import compose
from hhat.ops.coupling import coupled_axes
from hhat.ops.dense import Dense, Steering
from hhat.ops.elementary import Fourier
from hhat.ops.linalg import per_axis, squared
from hhat.ops.posterior import posterior
from hhat.ops.structured import BlockDiag
from hhat.priors.base import Prior
from hhat.types import Estimate, Gaussian, Observation, State

LEAST_NOISE = 1e-6
"""Noise below this share of the received power is raised to it where the grid moves: the rest would be round-off."""
Op = TypeVar("Op", bound=LinearOp)
OWN = "offset."
"""Names in the state that belong to the wrapper begin so; the others are the inner method's."""


class Slope(NamedTuple):
    """What a move follows: per dictionary dL/d offset and curvature (*batch, G); energy of A x over s2 (*batch)."""

    gradient: tuple[Tensor, ...]
    curvature: tuple[Tensor, ...]
    energy: Tensor


@dataclass(frozen=True, eq=False)
class OffGrid(Method):
    """y = A B(g + d) x + n: the inner method estimates x, Newton steps on the evidence move the grid g by d.

      step:  `every` steps of the inner method with the dictionary at g + d (`start_after` steps the first time), then
             d_k <- d_k + share (dL/dd_k) / c_k
      dL/dd_k = 2 Re[a'_k^H S^-1 ((y - A B mu) mu_k^* - A B Sigma_k)],   c_k = 2 E|x_k|^2 sum_p |a'_pk|^2 / s2_p

    L = log p(y | d) under the Gaussian factor that stands for the prior (`Method.factor`). By Fisher's identity its
    gradient is that of the expected log-likelihood with its trace term, the one in Sigma.
    Every `Steering` and `Fourier` in the basis of the prior moves (alone, in Kron, KhatriRao, Compose, Stack or
    BlockDiag), one offset per grid line; without any this is the inner method. A moved column keeps its phase at the
    centre of the positions (`Steering.moved`), so that x stays valid.

    inner: the method, None is `sbl`; prior: where the inner method was given none. largest_move, reach: the most that
    one step and all steps together move a line, in distances between neighbours. active: lines whose c_k is below
    this share of the largest stay.
    max_steps counts steps as above, None: as many as take the inner method's number; tol None: the inner method's.
    Converged are items whose x and grid are both at rest.
    info: of the inner method; offset and grid: a tensor (*batch, G) per dictionary, in the units of its grid.
    Raises ValueError for an inner method without a factor, and under torch.inference_mode (gradients are taken).
    Source: Hu, Shi, Zhou & Fu, IEEE TSP 60(7), 2012 (EM over frequencies); departs in the step and in what is inside.
    """

    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    inner: Method | None = None
    every: int = 2
    start_after: int = 5
    share: float = 1.0
    largest_move: float = 0.1
    reach: float = 0.5
    active: float = 0.05
    max_steps: int | None = None
    tol: float | None = None

    def __post_init__(self):
        for name in ("every", "start_after"):
            if getattr(self, name) < 1:
                raise ValueError(f"off-grid: {name}: expected at least 1, got {getattr(self, name)}")
        for name in ("share", "largest_move", "reach"):
            if not getattr(self, name) > 0:
                raise ValueError(f"off-grid: {name}: expected a number > 0, got {getattr(self, name)}")
        if not 0 <= self.active <= 1:
            raise ValueError(f"off-grid: active: expected 0 <= active <= 1, got {self.active}")
        if self.prior is not None and self.inner is not None and getattr(self.inner, "prior", self) is not None:
            word = "has one already" if hasattr(self.inner, "prior") else "takes none"
            raise ValueError(f"off-grid: prior: the inner {type(self.inner).__name__} {word}")

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        inner, words = self._inner.resolve(obs)
        if not dictionaries(basis_of(inner)):
            return inner, words
        steps, tol = self.max_steps, inner.tol if self.tol is None else self.tol
        if steps is None and inner.max_steps is not None:
            steps = 1 + max(0, math.ceil((inner.max_steps - self.start_after) / self.every))
        return replace(self, prior=None, inner=inner, max_steps=steps, tol=tol), words

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        one = obs.y.real.new_ones(obs.batch_shape)
        own: State = {f"{OWN}steps": 0}
        for i, part in enumerate(self._parts(obs)):
            own[f"{OWN}{i}"] = one[..., None] * torch.zeros_like(part.spacing.to(one))
        inner, seen = self._at(own, obs)
        return {**inner.init(seen, gen), **own, "change": one}

    def step(self, state: State, obs: Observation) -> State:
        inner, seen = self._at(state, obs)
        new = {name: value for name, value in state.items() if not name.startswith(OWN)}
        for _ in range(self.every if state[f"{OWN}steps"] else self.start_after):
            new = inner.step(new, seen)
        return self._move(state, new, obs)

    def factor(self, state: State, obs: Observation) -> Gaussian | None:
        return self._inner.factor(state, obs)

    def read(self, state: State, obs: Observation) -> Estimate:
        inner, seen = self._at(state, obs)
        est, parts = inner.read(state, seen), self._parts(obs)
        offset = tuple(state[f"{OWN}{i}"] for i in range(len(parts)))
        grid = tuple(part.grid + d for part, d in zip(parts, offset, strict=True))
        return replace(est, info={**est.info, "offset": offset, "grid": grid})

    @property
    def _inner(self) -> Method:
        inner: Any = self.inner or Sbl()
        return inner if self.prior is None else replace(inner, prior=self.prior)

    def _basis(self, obs: Observation) -> LinearOp | None:
        basis = basis_of(self._inner)
        return basis if basis is None else _on(basis, obs.y.device)

    def _parts(self, obs: Observation) -> tuple[Steering, ...]:
        return tuple(_on(part, obs.y.device) for part in dictionaries(self._basis(obs)))

    def _at(self, state: State, obs: Observation) -> tuple[Method, Observation]:
        """The inner method on the moved dictionaries, and the observation with an operator that remembers nothing:
        what it would keep of a dictionary is of use for one step only."""
        inner, parts = self._inner, self._parts(obs)
        if state[f"{OWN}steps"]:
            new = [part.moved(state[f"{OWN}{i}"]) for i, part in enumerate(parts)]
        else:
            new = [Dense(part.matrix) for part in parts]  # one for all items, and never taken for unitary
        return _with_basis(inner, exchanged(self._basis(obs), iter(new))), replace(obs, op=_fresh(obs))

    def _move(self, state: State, new: State, obs: Observation) -> State:
        parts, factor = self._parts(obs), self._inner.factor(new, obs)
        if factor is None:
            raise ValueError(f"off-grid: {type(self._inner).__name__} holds no Gaussian factor; take sbl, gamp or oamp")
        if torch.is_inference_mode_enabled():
            raise ValueError("off-grid: takes gradients: expected torch.no_grad at most, got torch.inference_mode")
        offsets = tuple(state[f"{OWN}{i}"] for i in range(len(parts)))
        slope = self._slope(offsets, factor, noise_of(new, obs), obs)
        moved = torch.zeros_like(slope.energy)
        tiny = torch.finfo(moved.dtype).tiny
        for i, (part, offset) in enumerate(zip(parts, offsets, strict=True)):
            spacing, curvature = part.spacing.to(offset), slope.curvature[i]
            seen = (spacing > 0) & (curvature > 0) & (curvature >= self.active * curvature.amax(-1, keepdim=True))
            newton = self.share * slope.gradient[i] / curvature.clamp_min(tiny)
            newton = torch.where(seen, newton, 0.0).clamp(-self.largest_move * spacing, self.largest_move * spacing)
            fresh = (offset + newton).clamp(-self.reach * spacing, self.reach * spacing)
            moved = moved + (curvature * (fresh - offset).square()).sum(-1) / 2
            new[f"{OWN}{i}"] = fresh
        # energy by which the moves changed A x, as a share of it
        change = torch.where(moved == 0, 0.0, moved / slope.energy.clamp_min(tiny))
        return {**new, f"{OWN}steps": state[f"{OWN}steps"] + 1, "change": torch.maximum(new["change"], change)}

    def _slope(self, offsets: tuple[Tensor, ...], factor: Gaussian, noise_var: Tensor, obs: Observation) -> Slope:
        basis, parts = self._basis(obs), self._parts(obs)
        op, y = _fresh(obs), obs.y
        out = tuple(range(-len(op.out_shape), 0))
        least = (LEAST_NOISE * squared(y).mean(out, keepdim=True)).clamp_min(torch.finfo(y.real.dtype).tiny)
        noise = torch.maximum(noise_var, least)
        with torch.enable_grad():
            leaves = [offset.detach().requires_grad_() for offset in offsets]
            here = [part.moved(leaf) for part, leaf in zip(parts, leaves, strict=True)]
            whole = compose(op, exchanged(basis, iter(here)).like(y))
            found = posterior(whole, y, _spread(factor, whole), noise)
            gradient = torch.autograd.grad(found.log_evidence.sum(), leaves)
        mean = found.belief.mean.detach()
        second = squared(mean) + found.belief.var.detach()
        energy = (squared(whole.apply(mean)).detach() / noise).sum(out)
        still, curvature = [Dense(part.matrix.detach()) for part in here], []
        for i, part in enumerate(parts):
            # what slopes of weight w bring to y is quadratic in w: its gradient at w = 1 is c_k, summed over all that
            # shares the grid line, whatever is around the dictionary
            with torch.enable_grad():
                weight = torch.ones_like(offsets[i]).requires_grad_()
                sloped = Dense(part.slope(still[i]) * weight[..., None, :])
                rows = compose(op, exchanged(basis, iter([*still[:i], sloped, *still[i + 1 :]])).like(y)).abs2()
                curvature += torch.autograd.grad((rows.apply(second) / noise).sum(), weight)
        return Slope(gradient, tuple(curvature), energy)


def basis_of(method: Method) -> LinearOp | None:
    prior = getattr(method, "prior", None)
    return None if prior is None else prior.basis


def dictionaries(basis: LinearOp | None) -> tuple[Steering, ...]:
    """The steering dictionaries in a basis, in the order in which they are written; a DFT is one, too."""
    return () if basis is None else tuple(_steering(op) for op in walk(basis) if isinstance(op, Steering | Fourier))


def _steering(op: Steering | Fourier) -> Steering:
    return op if isinstance(op, Steering) else cached(op, ("steering",), lambda: Steering.dft(op.size))


def exchanged(op: Any, new: Iterator[LinearOp], blocks: int = 0) -> LinearOp:
    """The operator with its dictionaries replaced, in their order; `blocks`: how many BlockDiag are around it."""
    if isinstance(op, Steering | Fourier):
        if blocks and op.batch_shape:
            have = (*op.batch_shape, *op.in_shape)
            raise ValueError(f"off-grid: Steering in BlockDiag: expected one grid (G,) for all blocks, got {have}")
        return next(new).lift(blocks)
    if isinstance(op, Adjoint):
        return Adjoint(exchanged(op.op, new, blocks))
    whole, inside = op, {}
    for field in fields(op) if is_dataclass(op) else ():
        value, depth = getattr(op, field.name), blocks + isinstance(op, BlockDiag)
        if isinstance(value, LinearOp):
            inside[field.name] = exchanged(value, new, depth)
        elif isinstance(value, tuple) and any(isinstance(part, LinearOp) for part in value):
            inside[field.name] = tuple(exchanged(part, new, depth) for part in value)
    return replace(whole, **inside) if inside else whole


def _with_basis(method: Any, basis: LinearOp) -> Method:
    return replace(method, prior=replace(method.prior, basis=basis))


def _on(op: Op, device: torch.device) -> Op:
    return op if op.device in (None, device) else op.to(device)  # type: ignore[return-value]


def _fresh(obs: Observation) -> LinearOp:
    given: Any = obs.op
    op = copy.copy(given.like(obs.y))
    vars(op).pop("_cache", None)
    return op


def _spread(factor: Gaussian, op: LinearOp) -> Gaussian:
    """The factor with a variance of its own for every coefficient that the operator mixes with others: the singular
    basis, by which equal variances are conditioned, has no stable gradient."""
    shape, axes = op.in_shape, coupled_axes(op)
    var = per_axis(factor.var, len(shape), shape)
    tail = [shape[axis] if axis in axes else var.shape[axis] for axis in range(-len(shape), 0)]
    return Gaussian(factor.mean, var.expand(*var.shape[: var.ndim - len(shape)], *tail))
