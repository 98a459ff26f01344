"""M-steps: from the posterior of x ~ CN(0, v) to the variances v. `sbl` takes them as they are; `Hierarchical` makes
priors of them. Here those without a random field; `gamma_field` holds the others."""

import abc
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.linalg import per_axis, squared

Memory = dict[str, Tensor]
"""What an M-step keeps from call to call; batch axes lead."""
SMALLEST = 1e-8
"""Variances are kept above this share of the unit: below it a coefficient is off and only precision is lost."""
LEAST_KNOWN = 1e-3
"""MacKay: share of a coefficient that the data are taken to determine, at least."""


class Sight(NamedTuple):
    """What the posterior was made from, y = op(x) + CN(0, noise_var), for M-steps that look at it.

    noise_var broadcasts to y; gain: power of y per unit of coefficient power, a number or (*batch, 1, ..).
    """

    op: LinearOp
    y: Tensor
    noise_var: Tensor
    gain: Tensor | float

    def matched(self) -> Tensor:
        """|A^H y|^2 / gain^2, (*batch, *event): on the scale of coefficient powers."""
        return squared(self.op.adjoint(self.y)) / self.gain**2

    def noise(self) -> Tensor:
        """Mean noise variance / gain, (*batch, 1, ..): on the scale of coefficient powers."""
        count = len(self.op.out_shape)
        level = per_axis(self.noise_var, count, self.op.out_shape).flatten(-count).mean(-1)
        return level.reshape(*level.shape, *(1,) * len(self.op.in_shape)) / self.gain


class Moments(NamedTuple):
    """What an M-step sees: real tensors that broadcast to (*batch, *event).

    energy: |posterior mean|^2     var: posterior variance     prior_var: the v it was computed with
    unit:   power per coefficient, noise included, (*batch, 1, ..): what hyperparameters are relative to
    sight:  the observation behind the posterior; learned M-steps look at it
    """

    energy: Tensor
    var: Tensor
    prior_var: Tensor
    unit: Tensor
    num_event: int
    sight: Sight | None = None


class MStep(abc.ABC):
    """v <- m_step(moments). Subclasses are frozen dataclasses.

    num_steps: E-steps after which `sbl` stops: one observation overfits variances of its own per coefficient
    """

    num_steps: int

    @abc.abstractmethod
    def __call__(self, now: Moments, memory: Memory) -> tuple[Tensor, Memory]:
        """New variances, and the memory for the next call (as many tensors as `memory()` gave)."""

    def memory(self) -> Memory:
        """Before the first call; the tensors broadcast to (*batch, *event, *tail)."""
        return {}

    def tail(self, name: str) -> int:
        """Axes of a memory tensor behind its event axes."""
        return 0


@dataclass(frozen=True)
class Em(MStep):
    """v = |mu|^2 + Sigma: exact EM, the evidence never decreases. Source: Tipping, JMLR 2001, eq. (16)."""

    num_steps: int = 20

    def __call__(self, now: Moments, memory: Memory) -> tuple[Tensor, Memory]:
        return now.energy + now.var, memory


@dataclass(frozen=True)
class MacKay(MStep):
    """v = |mu|^2 / (1 - Sigma/v): fixed point of the same evidence, faster and without its guarantee.

    Source: MacKay 1992; Tipping, JMLR 2001, eq. (17).
    """

    num_steps: int = 8

    def __call__(self, now: Moments, memory: Memory) -> tuple[Tensor, Memory]:
        tiny = torch.finfo(now.var.dtype).tiny
        known = 1 - now.var / now.prior_var.clamp_min(tiny)
        return now.energy / known.clamp_min(LEAST_KNOWN), memory


@dataclass(frozen=True)
class PatternCoupling(MStep):
    """Neighbours share their precision: with e = |mu|^2 + Sigma and sums over the neighbours on the grid,

      a = 1 / (e + coupling sum e),      v = 1 / (a + coupling sum a)

    axes: along which coefficients have neighbours; None: the last two event axes, or the one there is. Each is a
    ring, as angles and delays of a DFT are: the torus of two axes has 4 neighbours.
    Source: Fang, Shen, Li & Wang, IEEE TSP 2015 (one dimension), 2-D as in Fang, Zhang & Li, IEEE TIP 2016; with
    numerator 1, where the papers' a0 + c depends on unstated hyperparameters.
    """

    coupling: float = 1.0
    axes: tuple[int, ...] | None = None
    num_steps: int = 30

    def __post_init__(self):
        if not self.coupling >= 0:
            raise ValueError(f"pattern-coupled: coupling: expected a number >= 0, got {self.coupling}")
        if self.axes is not None and (len(set(self.axes)) < len(self.axes) or not all(a < 0 for a in self.axes)):
            raise ValueError(f"pattern-coupled: axes: expected distinct negative numbers, got {self.axes}")

    def __call__(self, now: Moments, memory: Memory) -> tuple[Tensor, Memory]:
        e = now.energy + now.var
        axes = tuple(range(-min(now.num_event, 2), 0)) if self.axes is None else self.axes
        if axes and min(axes) < -now.num_event:
            raise ValueError(f"pattern-coupled: axes: expected -{now.num_event}..-1, got {self.axes}")
        tiny = torch.finfo(e.dtype).tiny
        precision = 1 / (e + self.coupling * neighbours(e, axes)).clamp_min(tiny)
        return 1 / (precision + self.coupling * neighbours(precision, axes)), memory


@dataclass(frozen=True)
class GammaShape(MStep):
    """v = (|mu|^2 + mean Sigma) / (2 eps + 1): precisions g = 1/v are Gamma(eps, 0) a priori, and eps follows them:

      eps = sqrt( log mean g - mean log g ) / 2          all means over the coefficients of an item

    Sigma is averaged as in its source, whose posterior variance is one number; with one per coefficient `uamp` settles
    later and 0.2 to 0.35 dB worse on the near-field array.
    Source: UAMP-SBL, Luo, Guo et al., IEEE TSP 2021; eps starts at 0.001.
    """

    num_steps: int = 20

    def memory(self) -> Memory:
        return {"eps": torch.full((1,), 1e-3)}

    def __call__(self, now: Moments, memory: Memory) -> tuple[Tensor, Memory]:
        event = tuple(range(-now.num_event, 0))
        var = now.var.expand(now.energy.shape).mean(event, keepdim=True)
        v = torch.maximum((now.energy + var) / (2 * memory["eps"] + 1), SMALLEST * now.unit)
        g = now.unit / v
        spread = g.mean(event, keepdim=True).log() - g.log().mean(event, keepdim=True)
        return v, {"eps": spread.clamp_min(0).sqrt() / 2}


def neighbours(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sum over the neighbours on rings along `axes`; two on a ring are one pair, one has none."""
    total = torch.zeros_like(x)
    for axis in axes:
        size = x.shape[axis]
        if size > 1:
            total = total + x.roll(1, axis)
        if size > 2:
            total = total + x.roll(-1, axis)
    return total
