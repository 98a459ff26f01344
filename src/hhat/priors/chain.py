"""`Chain`: active coefficients come in runs. A binary Markov chain along one axis, by a parallel forward-backward."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hhat.priors.support import Support, checked
from hhat.types import Shape

LEAST = 1e-4
"""Probabilities are learned within LEAST .. 1 - LEAST: at 0 or 1 nothing could be learned any more."""


@dataclass(frozen=True, eq=False)
class Chain(Support):
    """s_1 ~ Bernoulli(start), P(s_j+1 = 1 | s_j = 0) = appear, P(s_j+1 = 0 | s_j = 1) = vanish, along `axis`.

    start None: the stationary appear/(appear + vanish). Chains along the other axes are independent. Sum-product is
    exact; `learn` is one exact EM step, pooled over all chains of an item.
    The recursions are products of 2 x 2 matrices: a scan of log2 J steps does J of them at once.
    Source: Rabiner, Proc. IEEE 1989; the scan: Blelloch 1990. Raises ValueError for probabilities not inside (0, 1).
    """

    appear: Tensor
    vanish: Tensor
    start: Tensor
    axis: int

    def __init__(
        self,
        appear: Tensor | float | int = 0.02,
        vanish: Tensor | float | int = 0.2,
        start: Tensor | float | int | None = None,
        axis: int = -1,
    ):
        if axis >= 0:
            raise ValueError(f"chain: axis: expected a negative number, counted from the last axis, got {axis}")
        object.__setattr__(self, "appear", checked("chain: appear", appear, 0, 1))
        object.__setattr__(self, "vanish", checked("chain: vanish", vanish, 0, 1))
        stationary = self.appear / (self.appear + self.vanish)
        object.__setattr__(self, "start", stationary if start is None else checked("chain: start", start, 0, 1))
        object.__setattr__(self, "axis", axis)

    def infer(self, llr: Tensor, num_event: int) -> tuple[Tensor, "Chain"]:
        seen = self._last(llr, llr.ndim)
        step = self._transitions(seen)
        filtered, _ = self._forward(seen, step)
        ahead = (filtered[:, None, ..., :-1] * step).sum(0)
        predicted = torch.cat([self._first(seen), ahead], -1)
        odds = predicted[1].log() - predicted[0].log()
        backward = self._backward(seen, step)
        return (odds + backward[1].log() - backward[0].log()).movedim(-1, self.axis), self

    def log_evidence(self, llr: Tensor, num_event: int) -> Tensor:
        seen = self._last(llr, llr.ndim)
        _, scale = self._forward(seen, self._transitions(seen))
        total = scale[..., -1]
        return total.flatten(total.ndim - num_event + 1).sum(-1) if num_event > 1 else total

    def learn(self, llr: Tensor, num_event: int) -> "Chain":
        seen = self._last(llr, llr.ndim)
        step = self._transitions(seen)
        filtered, _ = self._forward(seen, step)
        backward = self._backward(seen, step)
        both = filtered[:, None, ..., :-1] * step * _likelihood(seen[..., 1:]) * backward[..., 1:]
        both = both / both.sum((0, 1))
        first = filtered[..., 0] * backward[..., 0]
        first = (first / first.sum(0))[1][..., None]
        axes = tuple(range(-num_event, 0))
        count = both.sum(axes, keepdim=True)
        tiny = torch.finfo(count.dtype).tiny
        return replace(
            self,
            appear=(count[0, 1] / count[0].sum(0).clamp_min(tiny)).clamp(LEAST, 1 - LEAST),
            vanish=(count[1, 0] / count[1].sum(0).clamp_min(tiny)).clamp(LEAST, 1 - LEAST),
            start=first.mean(axes, keepdim=True).clamp(LEAST, 1 - LEAST),
        )

    def marginals(self, num_event: int) -> Tensor:
        return self.appear / (self.appear + self.vanish)

    def sample(self, shape: Shape, gen: torch.Generator, num_event: int) -> Tensor:
        draws = torch.rand(shape, generator=gen, dtype=self.appear.dtype).movedim(self.axis, -1)
        size, three = draws.shape[-1], (self.appear, self.vanish, self.start)
        appear, vanish, start = (self._last(p, draws.ndim).expand(*draws.shape[:-1], 1)[..., 0] for p in three)
        now, drawn = draws[..., 0] < start, []
        for j in range(size):
            now = draws[..., j] < torch.where(now, 1 - vanish, appear) if j else now
            drawn.append(now)
        return torch.stack(drawn, -1).movedim(-1, self.axis)

    def params(self) -> dict[str, Tensor]:
        return {"appear": self.appear, "vanish": self.vanish, "start": self.start}

    def with_params(self, params: dict[str, Tensor]) -> "Chain":
        return replace(self, **{name: params[name] for name in self.params()})

    def _last(self, value: Tensor, ndim: int) -> Tensor:
        """The chain's axis of a tensor that broadcasts to `ndim` axes moved to the end, as everything inside."""
        return value.reshape((1,) * (ndim - value.ndim) + tuple(value.shape)).movedim(self.axis, -1)

    def _first(self, seen: Tensor) -> Tensor:
        """P(s_1) as [s, ..., 1]."""
        start = self._last(self.start.to(seen.dtype), seen.ndim).expand(*seen.shape[:-1], 1)
        return torch.stack([1 - start, start])

    def _transitions(self, seen: Tensor) -> Tensor:
        """P(s_j+1 = b | s_j = a) as [a, b, ..., J - 1]."""
        appear, vanish = (self._last(p.to(seen.dtype), seen.ndim) for p in (self.appear, self.vanish))
        rows = torch.stack([torch.stack([1 - appear, appear]), torch.stack([vanish, 1 - vanish])])
        return rows.expand(2, 2, *seen.shape[:-1], seen.shape[-1] - 1)

    def _forward(self, seen: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """P(s_j | llr up to j) as [s, ..., J], and log E of the normalised likelihoods up to j."""
        start = (self._first(seen) * _likelihood(seen[..., :1])).expand(2, 2, *seen.shape[:-1], 1)
        products, scale = _scan(torch.cat([start, step * _likelihood(seen[..., 1:])], -1))
        filtered = products[0]
        return filtered / filtered.sum(0), scale + filtered.sum(0).log()

    def _backward(self, seen: Tensor, step: Tensor) -> Tensor:
        """p(llr_j+1..J | s_j) as [s, ..., J], normalised over s."""
        onward = (step * _likelihood(seen[..., 1:])).transpose(0, 1).flip(-1)
        products, _ = _scan(onward)
        sums = products.sum(0).flip(-1)
        last = torch.ones_like(sums[..., :1]) if sums.shape[-1] else sums.new_ones(2, *seen.shape[:-1], 1)
        sums = torch.cat([sums, last], -1)
        return sums / sums.sum(0)


def _likelihood(llr: Tensor) -> Tensor:
    """(1, e^llr)/(1 + e^llr) as [s, ...]: the likelihoods of both states, scaled to sum to one."""
    return torch.stack([torch.sigmoid(-llr), torch.sigmoid(llr)])


def _scan(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Running products M_1 M_2 .. M_j of [2, 2, ..., J], each divided by the sum of its entries, and the logarithm of
    what was divided out."""
    scale, reach = torch.zeros_like(matrices[0, 0]), 1
    while reach < matrices.shape[-1]:
        product = (matrices[:, :, None, ..., :-reach] * matrices[None, ..., reach:]).sum(1)
        total = product.sum((0, 1))
        matrices = torch.cat([matrices[..., :reach], product / total], -1)
        scale = torch.cat([scale[..., :reach], scale[..., :-reach] + scale[..., reach:] + total.log()], -1)
        reach *= 2
    return matrices, scale
