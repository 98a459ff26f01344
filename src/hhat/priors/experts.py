"""`experts`: one of several priors holds for all entries of an item at once, and which one is not known."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.elementary import Identity
from hhat.ops.linalg import squared
from hhat.ops.posterior import posterior
from hhat.priors.base import Prior
from hhat.priors.gauss import Gauss
from hhat.types import Gaussian, Shape

WIDEST = 1e30
"""Pseudo-variances above this are 'nothing known': log densities stay finite in float32."""


class Group(NamedTuple):
    """Gaussian experts with one basis: their parameters have the experts' axis K in front of the event axes, unless
    there is only one. `index` (K,) says which experts they are."""

    basis: LinearOp | None
    index: tuple[int, ...]
    var: Tensor
    mean: Tensor


@dataclass(frozen=True, eq=False)
class Experts(Prior):
    """h ~ sum_k w_k p_k(h): expert k draws the whole channel of an item, all its entries together.

    experts: priors of the same channel, each in its own basis; experts among them are taken apart, their weights
             multiplied in. The coefficients of this prior are the channel itself.
    weights: (K,), or (*batch, *1s, K) with as many 1s as event axes; None: equal over `experts`
    names:   what to report, one per entry of `experts`; those of experts inside experts stay together under one name
    learnable: EM of the weights, item by item; the experts themselves stay
    Raises ValueError for no experts, weights that do not sum to 1, other counts, and experts of different channels.
    Source: Jiang et al. 2026, section III, with any priors in the place of its diffusion models.
    """

    experts: tuple[Prior, ...]
    weights: Tensor
    names: tuple[str, ...]
    learnable: bool
    ndim: int
    basis: None = field(init=False)
    tied_axes: None = field(init=False)

    def __init__(
        self,
        experts: Sequence[Prior],
        weights: Tensor | Sequence[float] | None = None,
        names: Sequence[str] | None = None,
        learnable: bool = False,
        ndim: int = 1,
    ):
        count = len(experts)
        if not count or not all(isinstance(expert, Prior) for expert in experts):
            raise ValueError(f"experts: expected at least one prior, got {[type(e).__name__ for e in experts]}")
        share = torch.full((count,), 1 / count) if weights is None else torch.as_tensor(weights)
        total = share.sum(-1)
        if share.shape[-1:] != (count,) or bool((share < 0).any()) or bool(((total - 1).abs() > 1e-3).any()):
            raise ValueError(f"experts: weights: expected {count} values >= 0 that sum to 1, got {share.tolist()}")
        names = tuple(str(k) for k in range(count)) if names is None else tuple(names)
        if len(names) != count:
            raise ValueError(f"experts: names: expected {count}, got {names}")
        apart: list[tuple[Prior, Tensor, str]] = []
        for k, (expert, name) in enumerate(zip(experts, names, strict=True)):
            if isinstance(expert, Experts):
                within = expert.weights * share[..., k : k + 1]
                apart += [(inner, within[..., j], name) for j, inner in enumerate(expert.experts)]
            else:
                apart.append((expert, share[..., k], name))
        shapes = {expert.basis.out_shape for expert, _, _ in apart if expert.basis is not None}
        if len(shapes) > 1:
            raise ValueError(f"experts: expected priors of one channel, got bases for {sorted(shapes)}")
        for name, value in (
            ("experts", tuple(expert for expert, _, _ in apart)),
            ("weights", torch.stack([weight for _, weight, _ in apart], -1)),
            ("names", tuple(name for _, _, name in apart)),
            ("learnable", learnable),
            ("ndim", len(next(iter(shapes))) if shapes else ndim),
            ("basis", None),
            ("tied_axes", None),
        ):
            object.__setattr__(self, name, value)

    @property
    def gaussian(self) -> bool:
        """Are all experts Gaussian and known?"""
        return all(isinstance(expert, Gauss) and not expert.learnable for expert in self.experts)

    @property
    def labels(self) -> tuple[str, ...]:
        """The different names, in order."""
        return tuple(dict.fromkeys(self.names))

    def log_weights(self) -> Tensor:
        """(*batch, K), or (K,)."""
        weights = self.weights
        if weights.ndim > 1:  # as `expand` shapes it, with event axes of size 1
            weights = weights.flatten(weights.ndim - 1 - min(self.ndim, weights.ndim - 1), -1)
        return weights.clamp_min(torch.finfo(weights.dtype).tiny).log()

    def by_name(self, share: Tensor) -> Tensor:
        """Shares (*batch, K) summed over the experts of one name: (*batch, labels)."""
        place = torch.tensor([self.labels.index(name) for name in self.names], device=share.device)
        whole = share.new_zeros(*share.shape[:-1], len(self.labels))
        return whole.index_add(-1, place, share)

    def groups(self) -> tuple[Group, ...]:
        """The Gaussian experts by their basis, so that each basis meets y once."""
        order: dict[int, list[int]] = {}
        for k, expert in enumerate(self.experts):
            order.setdefault(id(expert.basis), []).append(k)
        found = []
        for index in order.values():
            first = self.experts[index[0]]
            shape = (1,) * self.ndim if first.basis is None else first.basis.in_shape
            now = [self.experts[k].moments() for k in index]
            var, mean = (
                [x.reshape(*(1,) * (len(shape) - x.ndim), *x.shape) for x in xs]
                for xs in ([m.var for m in now], [m.mean for m in now])
            )
            if len(index) > 1:
                var, mean = (list(torch.broadcast_tensors(*xs)) for xs in (var, mean))
                stacked = [torch.stack(xs, -1 - len(shape)) for xs in (var, mean)]
            else:
                stacked = [var[0], mean[0]]
            found.append(Group(first.basis, tuple(index), stacked[0], stacked[1]))
        return tuple(found)

    def by_expert(self, r: Gaussian) -> tuple[Tensor, Gaussian]:
        """log w_k p_k(r), (*batch, K), and the belief that each expert gives, its axis K behind the event axes."""
        found = [self._given(expert, r) for expert in self.experts]
        evidence = torch.stack([log for _, log in found], -1)
        mean = torch.stack([belief.mean for belief, _ in found], -1)
        var = torch.stack([belief.var.expand(belief.mean.shape) for belief, _ in found], -1)
        return evidence + self.log_weights().to(evidence), Gaussian(mean, var)

    def denoise(self, r: Gaussian) -> Gaussian:
        joint, each = self.by_expert(r)
        share = joint.softmax(-1)[(..., *(None,) * self.ndim, slice(None))]
        return combined(share, each.mean, each.var, -1)

    def log_evidence(self, r: Gaussian) -> Tensor:
        return self.by_expert(r)[0].logsumexp(-1)

    def learn(self, r: Gaussian) -> "Experts":
        if not self.learnable:
            return self
        share = self.by_expert(r)[0].softmax(-1)
        return self.with_params({"weights": share[(..., *(None,) * self.ndim, slice(None))]})

    def _given(self, expert: Prior, r: Gaussian) -> tuple[Gaussian, Tensor]:
        """Belief on the channel and log p(r) under one expert."""
        event = tuple(r.mean.shape[r.mean.ndim - self.ndim :])
        var = r.var.clamp_max(WIDEST)
        basis = Identity(event) if expert.basis is None else expert.basis.like(r.mean)
        if isinstance(expert, Gauss):
            now = Gaussian(expert.mean.to(r.mean), expert.var.to(r.mean.device, r.mean.real.dtype))
            found = posterior(basis, r.mean, now, var, basis)
            return found.belief, found.log_evidence
        if not basis.is_unitary:
            raise ValueError(f"experts: {type(expert).__name__}: expected a unitary basis, got {type(basis).__name__}")
        white = var.expand(*r.mean.shape).mean(tuple(range(-self.ndim, 0)), keepdim=True)
        seen = Gaussian(basis.adjoint(r.mean), white)
        own = expert.expand(tuple(r.mean.shape[: -self.ndim]), basis.in_shape, r.mean)
        x = own.denoise(seen)
        spread = x.var if isinstance(basis, Identity) else basis.squares.apply(x.var.expand(x.mean.shape))
        return Gaussian(basis.apply(x.mean), spread), own.log_evidence(seen)

    def moments(self) -> Gaussian:
        means, vars_ = [], []
        for expert in self.experts:
            now, basis = expert.moments(), expert.basis
            if basis is None:
                means.append(now.mean)
                vars_.append(now.var)
                continue
            shape = basis.in_shape
            mean, var = (x.expand(*x.shape[: max(0, x.ndim - len(shape))], *shape) for x in (now.mean, now.var))
            means.append(basis.like(mean).apply(mean))
            vars_.append(basis.like(mean).squares.apply(var))
        mean, var = (torch.stack(torch.broadcast_tensors(*xs), -1) for xs in (means, vars_))
        share = self.log_weights().exp().to(var.dtype)
        share = share if share.ndim == 1 else share[(..., *(None,) * self.ndim, slice(None))]
        return combined(share, mean, var, -1)

    def sample(self, shape: Shape, gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
        lead, event = shape[: len(shape) - self.ndim], shape[len(shape) - self.ndim :]
        cumulative = self.log_weights().exp().cumsum(-1).expand(*lead, len(self.experts))
        pick = (torch.rand((*lead, 1), generator=gen) > cumulative[..., :-1]).sum(-1).flatten()
        h = torch.empty((len(pick), *event), dtype=dtype)
        for k, expert in enumerate(self.experts):
            chosen = (pick == k).nonzero()[:, 0]
            if len(chosen):
                inner = event if expert.basis is None else expert.basis.in_shape
                x = expert.sample((len(chosen), *inner), gen, dtype)
                h[chosen] = x.to(dtype) if expert.basis is None else expert.basis.like(x).apply(x).to(dtype)
        return h.reshape(shape)

    def scaled(self, c: Tensor | float) -> "Experts":
        return replace_experts(self, tuple(expert.scaled(c) for expert in self.experts))

    def params(self) -> dict[str, Tensor]:
        return {"weights": self.weights}

    def with_params(self, params: dict[str, Tensor]) -> "Experts":
        return Experts(self.experts, params["weights"], self.names, self.learnable, self.ndim)

    def expand(self, batch_shape: Shape, event_shape: Shape, like: Tensor) -> "Experts":
        inner = tuple(
            replace(expert, ndim=len(event_shape)) if expert.basis is None else expert  # type: ignore[type-var]
            for expert in self.experts
        )
        own = Experts(inner, self.weights, self.names, self.learnable, len(event_shape))
        lead = self.weights.shape[:-1]
        weights = self.weights.to(like.device, like.real.dtype)
        weights = weights.reshape(*lead, *(1,) * len(event_shape), -1) if self.weights.ndim == 1 else weights
        return own.with_params({"weights": weights.expand(*batch_shape, *weights.shape[-1 - len(event_shape) :])})

    def tail(self, name: str) -> int:
        return 1

    @classmethod
    def example(cls, gen: torch.Generator) -> "Experts":
        return cls((Gauss(0.4), Gauss(3.0, mean=0.5)), (0.7, 0.3), ("weak", "strong"))


def replace_experts(prior: Experts, inner: tuple[Prior, ...]) -> Experts:
    """The same mixture of other experts."""
    return Experts(inner, prior.weights, prior.names, prior.learnable, prior.ndim)


def combined(share: Tensor, mean: Tensor, var: Tensor, axis: int) -> Gaussian:
    """Mean and variance of a mixture whose components lie along `axis`: the law of total variance."""
    centre = (share * mean).sum(axis)
    spread = (share * (var + squared(mean - centre.unsqueeze(axis)))).sum(axis)
    return Gaussian(centre, spread)
