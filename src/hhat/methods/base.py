"""`Method`: frozen settings and three pure functions, init, step and read. `solve` and `track` own the loops."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.elementary import Identity
from hhat.ops.linalg import squared
from hhat.priors.base import Prior, power
from hhat.priors.gauss import Gauss
from hhat.types import Estimate, Gaussian, Observation, State

ANNEAL = 0.9
"""Least factor per step by which the noise that a message-passing loop works with comes down to the given one."""
NOISELESS = 1e-6
"""Share of the received power below which noise is as good as none for the claim of convergence."""
START_NOISE = 0.1
"""Where unknown noise starts, as a share of the received power: learning from above is safe, from below it is not."""


class Method(abc.ABC):
    """An estimator. Subclasses are frozen dataclasses whose defaults are the best we know.

    uses_prior: does a `prior` change the answer?
    tracks:     does the state carry knowledge from slot to slot?
    variance:   "posterior" (calibrated under the prior), "plug-in" (noise only) or "none" (reported infinite)
    max_steps:  most steps `solve` takes
    tol:        an item has converged when `state["change"]` is at most this; None: take exactly max_steps steps

    State is a flat dict; every tensor in it has the batch axes in front, so that `solve` can freeze items, and
    `state["change"]` (*batch) is the relative change of the estimate in the last step, as a ratio of energies.
    """

    uses_prior: ClassVar[bool] = False
    tracks: ClassVar[bool] = False
    variance: ClassVar[str] = "none"
    max_steps: int | None = 1
    tol: float | None = None

    @abc.abstractmethod
    def init(self, obs: Observation, gen: torch.Generator) -> State:
        """State before the first step."""

    @abc.abstractmethod
    def step(self, state: State, obs: Observation) -> State:
        """The next state; neither argument is changed."""

    @abc.abstractmethod
    def read(self, state: State, obs: Observation) -> Estimate:
        """The channel estimate that a state holds."""

    def factor(self, state: State, obs: Observation) -> Gaussian | None:
        """The Gaussian factor on the coefficients that stands for the prior in a state, so that the exact posterior
        under it is the method's linear step at its fixed point. None: the method has no such factor."""
        return None

    def resolve(self, obs: Observation) -> tuple["Method", dict[str, str]]:
        """The method to run on this observation, and what to report about the choice; `auto` chooses here."""
        return self, {}

    @classmethod
    def example(cls, gen: torch.Generator) -> "Method":
        """A small instance for the contract tests."""
        return cls()


@dataclass(frozen=True, eq=False)
class Problem:
    """What a coefficient method works on: y = op(x) + n, h = basis(x)."""

    op: LinearOp
    basis: LinearOp | None
    y: Tensor
    num_event: int

    def event(self) -> tuple[int, ...]:
        return tuple(range(-self.num_event, 0))

    def out_event(self) -> tuple[int, ...]:
        return tuple(range(-len(self.op.out_shape), 0))

    def channel(self, x: Tensor) -> Tensor:
        return x if self.basis is None else self.basis.apply(x)


def problem(obs: Observation, prior: Prior | None) -> Problem:
    """The observation in the prior's coefficients, in y's precision; composed once and remembered by the operator."""
    op: LinearOp = obs.op.like(obs.y)  # type: ignore[attr-defined]
    basis = None if prior is None or prior.basis is None else prior.basis.like(obs.y)
    if isinstance(basis, Identity):
        basis = None
    if basis is not None:
        if basis.out_shape != op.in_shape:
            raise ValueError(f"prior: its basis gives {basis.out_shape}, but the channel has shape {op.in_shape}")
        op = op @ basis
    return Problem(op, basis, obs.y, len(op.in_shape))


def start_prior(prior: Prior | None, obs: Observation, task: Problem) -> Prior:
    """The prior with parameters per batch item; a learnable one starts at the power that y shows."""
    own = (prior or Gauss(learnable=True)).expand(obs.batch_shape, task.op.in_shape, obs.y)
    if not own.learnable:
        return own
    wanted = received_power(obs, task) / gain(task.op, obs.y)
    now = power(own)
    scale = (wanted / now.clamp_min(torch.finfo(now.dtype).tiny)).sqrt()
    return own.scaled(scale)


def received_power(obs: Observation, task: Problem) -> Tensor:
    """Mean signal power per sample of y, (*batch, 1, ..): at least 1 % of what came, where noise claims more."""
    energy = squared(obs.y)
    noise = 0.0 if obs.noise_var is None else obs.noise_var
    return torch.maximum(sample_mean(energy - noise, obs, task), 0.01 * sample_mean(energy, obs, task))


def sample_mean(x: Tensor, obs: Observation, task: Problem) -> Tensor:
    """Mean over the samples of y, (*batch, 1, ..) with as many axes of size 1 as the coefficients have."""
    mean = x.mean(task.out_event(), keepdim=True)
    lead = mean.shape[: mean.ndim - len(task.op.out_shape)]
    return mean.reshape(*lead, *(1,) * task.num_event).expand(*obs.batch_shape, *(1,) * task.num_event)


def gain(op: LinearOp, y: Tensor) -> Tensor:
    """Mean over outputs of sum_n |A_mn|^2: power of y per unit of coefficient power, (*batch, 1, ..) or a number."""
    rows = op.squares.apply(y.real.new_ones(op.in_shape))
    count = len(op.out_shape)
    mean = rows.flatten(rows.ndim - count).mean(-1)
    return mean.reshape(*mean.shape, *(1,) * len(op.in_shape)).clamp_min(torch.finfo(y.real.dtype).tiny)


def pack(prior: Prior) -> State:
    return {f"prior.{name}": value for name, value in prior.params().items()}


def unpack(prior: Prior | None, state: State, task: Problem) -> Prior:
    from dataclasses import replace

    own = replace(prior or Gauss(learnable=True), ndim=task.num_event)  # type: ignore[type-var]
    return own.with_params({k[6:]: v for k, v in state.items() if k.startswith("prior.")})


def relative_change(new: Tensor, old: Tensor, num_event: int, var: Tensor | None = None) -> Tensor:
    """|new - old|^2 / (|new|^2 + sum of var) per batch item; 0 where nothing moved.

    var: posterior variance of `new`: an estimate that fades into its uncertainty has settled, however small it gets.
    """
    start = new.ndim - num_event
    moved = squared(new - old).flatten(start).sum(-1)
    size = squared(new) if var is None else squared(new) + var
    size = size.flatten(start).sum(-1)
    return torch.where(moved == 0, 0.0, moved / size.clamp_min(torch.finfo(size.dtype).tiny))


def start_noise(obs: Observation, always: bool = False) -> State:
    """`noise_var` for the state where it is not given (or `always`): 10 % of the received power, refined by EM."""
    if obs.noise_var is not None and not always:
        return {}
    axes = tuple(range(-len(obs.op.out_shape), 0))
    start = START_NOISE * squared(obs.y).mean(axes, keepdim=True)
    return {"noise_var": start.expand(*obs.batch_shape, *start.shape[start.ndim - len(axes) :]).clone()}


def noise_of(state: State, obs: Observation) -> Tensor:
    return state["noise_var"] if obs.noise_var is None else obs.noise_var


def annealed_noise(state: State, obs: Observation) -> Tensor:
    """The noise variance a message-passing step works with, from `state["noise_var"]`, which EM learns.

    Given noise is approached from above, as EM lowers it from 10 % of the received power but no slower than by
    ANNEAL per step. Started at a low noise level, such loops trust their first guess and may stay there.
    """
    if obs.noise_var is None:
        return state["noise_var"]
    axes = tuple(range(-len(obs.op.out_shape), 0))
    start = START_NOISE * squared(obs.y).mean(axes, keepdim=True)
    count = state["count"][(..., *(None,) * len(axes))]
    return torch.maximum(obs.noise_var, torch.minimum(state["noise_var"], start * ANNEAL**count))


def settled_change(change: Tensor, noise: Tensor, obs: Observation) -> Tensor:
    """The change, held at 1 for items whose working noise is still above the given one: they have not converged."""
    if obs.noise_var is None:
        return change
    axes = tuple(range(-len(obs.op.out_shape), 0))
    least = NOISELESS * squared(obs.y).mean(axes, keepdim=True)
    above = (noise > torch.maximum(1.001 * obs.noise_var, least)).expand(*change.shape, *obs.op.out_shape)
    return torch.where(above.flatten(change.ndim).any(-1), change.clamp_min(1.0), change)


def learned_noise(task: Problem, x: Gaussian, prior_var: Tensor, noise_var: Tensor) -> Tensor:
    """EM update of a white noise variance: [ |y - A x|^2 + s2 sum_n (1 - var_n / prior_var_n) ] / M.

    x is the exact posterior of coefficients under x ~ CN(., prior_var). Source: Tipping, JMLR 2001, appendix A.
    """
    shape = task.op.in_shape
    tiny = torch.finfo(x.var.dtype).tiny
    known = (1 - x.var / prior_var.clamp_min(tiny)).clamp(0, 1)
    known = known.expand(*known.shape[: known.ndim - len(shape)], *shape).sum(task.event())
    residual = squared(task.y - task.op.apply(x.mean))
    count = residual[(0,) * (residual.ndim - len(task.op.out_shape))].numel()
    total = residual.sum(task.out_event()) + noise_var.flatten(-len(task.op.out_shape))[..., 0] * known
    return (total / count).reshape(*total.shape, *(1,) * len(task.op.out_shape))


def axis_numbers(
    setting: str, axes: tuple[str | int, ...], names: tuple[str, ...] | None, num_event: int
) -> tuple[int, ...]:
    """Axes of the coefficients as negative numbers, names meaning channel axes; ValueError says what there is."""
    if names is not None and len(names) != num_event and any(isinstance(axis, str) for axis in axes):
        raise ValueError(f"{setting}: {num_event} coefficient axes, {len(names)} channel axes: give numbers, not names")
    found: list[int] = []
    for axis in axes:
        if isinstance(axis, int):
            if not -num_event <= axis < 0:
                raise ValueError(f"{setting}: expected -{num_event}..-1 or a name, got {axis}")
            found.append(axis)
        elif names is not None and axis in names:
            found.append(names.index(axis) - len(names))
        else:
            raise ValueError(f"{setting}: no axis '{axis}'; the observation has {names or 'no named axes'}")
    if len(set(found)) != len(found):
        raise ValueError(f"{setting}: an axis is named twice in {axes}")
    return tuple(found)


def noise_info(state: State, obs: Observation) -> dict:
    """What is reported of the noise: the value used per item and where it came from."""
    if obs.noise_var is not None:
        return {"noise_var": obs.noise_var, "noise_var_source": "given"}
    return {"noise_var": state["noise_var"], "noise_var_source": "estimated"}
