"""`Blend`: the denoisers of several priors, averaged with weights that are given, not found from what is denoised."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.elementary import Identity
from hhat.priors.base import Prior
from hhat.priors.experts import combined
from hhat.random import complex_normal, generator
from hhat.types import Gaussian, Shape

ALIKE = 1e-5
"""Relative difference below which two bases are one, on a random vector"""


@dataclass(frozen=True, eq=False)
class Blend(Prior):
    """x_0 = sum_k q_k E_k[x | r],  var = sum_k q_k (var_k + |E_k - x_0|^2),  q as given: the score of sum q_k log p_k.

    That is what a variational posterior on the expert does to the reverse process (Jiang et al. 2026, (24)-(26)); a
    mixture, which finds q anew from each r, is `Experts`.

    experts: known priors of one channel. The coefficients are those of the first; another basis must be unitary, and
             then noise is passed on by its mean and the expert's variance likewise.
    share:   q, (*batch, K)
    Raises ValueError for learnable experts and for as many shares as there are not experts.
    """

    experts: tuple[Prior, ...]
    share: Tensor
    ndim: int = 1
    learnable: bool = False
    tied_axes: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.share.shape[-1:] != (len(self.experts),) or any(expert.learnable for expert in self.experts):
            raise ValueError(f"blend: expected {len(self.experts)} known experts, shares {tuple(self.share.shape)}")
        for expert in self.experts[1:]:
            same = alike(self.basis, expert.basis)
            if not same and not all(b is None or b.is_unitary for b in (self.basis, expert.basis)):
                raise ValueError("blend: expected unitary bases where they differ")

    @property
    def basis(self) -> LinearOp | None:  # type: ignore[override]
        return self.experts[0].basis

    def denoise(self, r: Gaussian) -> Gaussian:
        each = [self._given(expert, r) for expert in self.experts]
        mean = torch.stack([x.mean for x in each], -1)
        var = torch.stack([x.var.expand(x.mean.shape) for x in each], -1)
        return combined(self._weights(mean), mean, var, -1)

    def moments(self) -> Gaussian:
        now = [self._turned(expert, expert.moments()) for expert in self.experts]
        mean = torch.stack(torch.broadcast_tensors(*(x.mean for x in now)), -1)
        var = torch.stack(torch.broadcast_tensors(*(x.var for x in now)), -1)
        missing = self.ndim + 1 - var.ndim
        var, mean = (x.reshape(*(1,) * max(missing, 0), *x.shape) for x in (var, mean))
        return combined(self._weights(mean), mean, var, -1)

    def log_evidence(self, r: Gaussian) -> Tensor:
        """sum_k q_k log p_k(r), a bound from below on that of the mixture."""
        logs = torch.stack([expert.log_evidence(r) for expert in self.experts], -1)
        return (self.share.to(logs) * logs).sum(-1)

    def sample(self, shape: Shape, gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
        raise ValueError("blend: nothing is drawn from averaged denoisers: draw from `experts`")

    def scaled(self, c: Tensor | float) -> "Blend":
        return replace(self, experts=tuple(expert.scaled(c) for expert in self.experts))

    def learn(self, r: Gaussian) -> "Blend":
        return self

    def params(self) -> dict[str, Tensor]:
        return {"share": self.share}

    def with_params(self, params: dict[str, Tensor]) -> "Blend":
        return replace(self, share=params["share"])

    def expand(self, batch_shape: Shape, event_shape: Shape, like: Tensor) -> "Blend":
        inner = tuple(
            expert.expand((), event_shape if expert.basis is None else expert.basis.in_shape, like)
            for expert in self.experts
        )
        share = self.share.to(like.device, like.real.dtype)
        return Blend(inner, share.expand(*batch_shape, len(inner)) if batch_shape else share, len(event_shape))

    def _weights(self, like: Tensor) -> Tensor:
        return self.share.to(like.real)[(..., *(None,) * self.ndim, slice(None))]

    def _given(self, expert: Prior, r: Gaussian) -> Gaussian:
        if alike(self.basis, expert.basis):
            return expert.denoise(r)
        event = self.event_axes()
        seen = Gaussian(self._over(expert, r.mean), r.var.expand(r.mean.shape).mean(event, keepdim=True))
        return self._turned(expert, expert.denoise(seen))

    def _turned(self, expert: Prior, x: Gaussian) -> Gaussian:
        """From another expert's coefficients into these."""
        if alike(self.basis, expert.basis):
            return x
        mine, other = self.basis, expert.basis
        shape = (mine or other).in_shape  # type: ignore[union-attr]
        mean = x.mean.expand(*x.mean.shape[: max(0, x.mean.ndim - len(shape))], *shape)
        h = mean if other is None else other.like(mean).apply(mean)
        var = x.var.expand(*x.var.shape[: max(0, x.var.ndim - len(shape))], *shape)
        return Gaussian(h if mine is None else mine.like(h).adjoint(h), var.mean(self.event_axes(), keepdim=True))

    def _over(self, expert: Prior, x: Tensor) -> Tensor:
        """These coefficients in another expert's."""
        h = x if self.basis is None else self.basis.like(x).apply(x)
        return h if expert.basis is None else expert.basis.like(h).adjoint(h)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Blend":
        from hhat.priors.gauss import Gauss

        return cls((Gauss(0.4), Gauss(3.0)), torch.tensor([0.7, 0.3]))


def alike(one: LinearOp | None, other: LinearOp | None) -> bool:
    """Do two bases map coefficients to the same channel? Asked on one random vector: they are linear."""
    one, other = (None if isinstance(basis, Identity) else basis for basis in (one, other))
    if one is other:
        return True
    shapes = {tuple(basis.in_shape) for basis in (one, other) if basis is not None}
    if len(shapes) > 1:
        return False
    shape = next(iter(shapes))
    x = complex_normal(shape, generator("blend", math.prod(shape)))
    seen = [x if basis is None else basis.like(x).apply(x) for basis in (one, other)]
    return seen[0].shape == seen[1].shape and bool((seen[0] - seen[1]).norm() <= ALIKE * x.norm())
