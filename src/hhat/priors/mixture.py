"""`bernoulli-gauss` and `gauss-mixture`: one complex mixture; a component of variance zero is the Bernoulli zero."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.linalg import squared
from hhat.priors.base import Prior
from hhat.random import complex_normal
from hhat.types import Gaussian, Shape

WIDEST = 1e30
"""Pseudo-variances above this are 'nothing known': still finite when squared sums are formed in float32."""


@dataclass(frozen=True, eq=False)
class Mixture(Prior):
    """p(x) = sum_k w_k CN(x; m_k, v_k), entry by entry; h = basis(x).

    weights, variances and means: (*batch, *event or 1, K). means None: all zero, since nothing is known of the phase
    of a channel coefficient; a coefficient tracked in time has a mean of its own.
    learnable: EM of weights and variances over `tied_axes`, about the means, which stay; a variance of exactly zero
    stays zero.
    Raises ValueError for weights that are negative or do not sum to one, and for other counts of components.
    Source: Vila & Schniter, IEEE TSP 61(19), 2013, complex form.
    """

    weights: Tensor
    variances: Tensor
    basis: LinearOp | None = None
    tied_axes: tuple[int, ...] | None = None
    learnable: bool = True
    ndim: int = 1
    means: Tensor | None = None

    def __post_init__(self):
        if self.weights.shape[-1] != self.variances.shape[-1]:
            have = self.weights.shape[-1], self.variances.shape[-1]
            raise ValueError(f"mixture: expected as many weights as variances, got {have[0]} and {have[1]}")
        total = self.weights.detach().sum(-1)
        if bool((self.weights < 0).any()) or bool(((total - 1).abs() > 1e-3).any()):
            raise ValueError("mixture: weights: expected values >= 0 that sum to 1 over the last axis")
        if bool((self.variances < 0).any()):
            raise ValueError("mixture: variances: expected values >= 0")
        if self.means is not None:
            if self.means.shape[-1] != self.variances.shape[-1]:
                have = self.variances.shape[-1], self.means.shape[-1]
                raise ValueError(f"mixture: expected as many means as variances ({have[0]}), got {have[1]}")
            if not self.means.is_complex():
                object.__setattr__(self, "means", self.means.to(self.variances.dtype.to_complex()))
        if self.basis is not None:
            object.__setattr__(self, "ndim", len(self.basis.in_shape))

    def moments(self) -> Gaussian:
        if self.means is None:
            var = (self.weights * self.variances).sum(-1)
            return Gaussian(torch.zeros((), dtype=var.dtype.to_complex(), device=var.device), var)
        return merged(self.weights, self.means, self.variances)

    def _components(self, r: Gaussian) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log joint, gain and posterior variance per component, and |r - m|^2."""
        tiny = torch.finfo(self.variances.dtype).tiny
        second = self.variances if self.means is None else self.variances + squared(self.means)
        floor = (1e-10 * second.amax(-1)).clamp_min(1e3 * tiny)
        noise = torch.maximum(r.var, floor).clamp_max(WIDEST)[..., None]
        total = self.variances + noise
        energy = squared(r.mean)[..., None] if self.means is None else squared(r.mean[..., None] - self.means)
        joint = self.weights.clamp_min(tiny).log() - math.log(math.pi) - total.log() - energy / total
        gain = self.variances / total
        return joint, gain, gain * noise, energy

    def denoise(self, r: Gaussian) -> Gaussian:
        if self.means is not None:
            share, each = self.by_component(r)
            return merged(share, each.mean, each.var)
        joint, gain, var, energy = self._components(r)
        share = _shares(joint)
        mean_gain = (share * gain).sum(-1)
        spread = (share * (gain - mean_gain[..., None]).square()).sum(-1) * energy[..., 0]
        return Gaussian(mean_gain * r.mean, ((share * var).sum(-1) + spread).expand(r.mean.shape))

    def by_component(self, r: Gaussian) -> tuple[Tensor, Gaussian]:
        """P(component | r), and the belief on x that each component gives; components are the last axis."""
        joint, gain, var, _ = self._components(r)
        mean = gain * r.mean[..., None]
        if self.means is not None:
            mean = mean + (1 - gain) * self.means
        return _shares(joint), Gaussian(mean, var.expand(mean.shape))

    def log_evidence(self, r: Gaussian) -> Tensor:
        return self._components(r)[0].logsumexp(-1).sum(self.event_axes())

    def learn(self, r: Gaussian) -> "Mixture":
        joint, gain, var, energy = self._components(r)
        share = _shares(joint)
        axes = tuple(a - 1 for a in self.tied())
        mass = share.mean(axes, keepdim=True) if axes else share
        second = share * (gain.square() * energy + var)
        second = second.mean(axes, keepdim=True) if axes else second
        # an empty component keeps its variance: 0/0 says nothing
        fresh = second / mass.clamp_min(1e-12)
        variances = torch.where(mass > 1e-9, fresh, self.variances.expand(mass.shape))
        return replace(self, weights=mass / mass.sum(-1, keepdim=True), variances=variances)

    def sample(self, shape: Shape, gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
        cumulative = self.weights.cumsum(-1)
        pick = torch.rand(shape, generator=gen, dtype=cumulative.dtype)[..., None]
        index = (pick > cumulative[..., :-1]).sum(-1)
        variances = self.variances.expand(*shape, self.variances.shape[-1])
        draw = complex_normal(shape, gen, dtype) * variances.gather(-1, index[..., None])[..., 0].sqrt()
        if self.means is None:
            return draw
        means = self.means.expand(*shape, self.means.shape[-1])
        return (draw + means.gather(-1, index[..., None])[..., 0]).to(dtype)

    def scaled(self, c: Tensor | float) -> "Mixture":
        c = torch.as_tensor(c)
        c = c[..., None] if c.ndim else c
        means = None if self.means is None else self.means * c
        return replace(self, variances=self.variances * squared(c), means=means)

    def params(self) -> dict[str, Tensor]:
        means = {} if self.means is None else {"means": self.means}
        return {"weights": self.weights, "variances": self.variances, **means}

    def with_params(self, params: dict[str, Tensor]) -> "Mixture":
        return replace(self, weights=params["weights"], variances=params["variances"], means=params.get("means"))

    def tail(self, name: str) -> int:
        return 1

    @classmethod
    def example(cls, gen: torch.Generator) -> "Mixture":
        return cls(torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.0, 0.5, 4.0]))


def _shares(joint: Tensor) -> Tensor:
    """Softmax over the few components: torch's own is five times slower on a short last axis."""
    weight = (joint - joint.amax(-1, keepdim=True)).exp()
    return weight / weight.sum(-1, keepdim=True)


def merged(share: Tensor, mean: Tensor, var: Tensor) -> Gaussian:
    """Moments of a mixture; components are the last axis."""
    centre = (share * mean).sum(-1)
    spread = (share * squared(mean - centre[..., None])).sum(-1)
    return Gaussian(centre, (share * var).sum(-1) + spread)


def bernoulli_gauss(
    active: float = 0.1,
    var: float | None = None,
    basis: LinearOp | None = None,
    tied_axes: tuple[int, ...] | None = None,
    learnable: bool = True,
) -> Mixture:
    """x is 0 with probability 1 - active, else CN(0, var); var defaults to 1/active, so that E|x|^2 = 1."""
    if not 0 < active < 1:
        raise ValueError(f"bernoulli-gauss: active: expected 0 < active < 1, got {active}")
    var = 1 / active if var is None else var
    return Mixture(torch.tensor([1 - active, active]), torch.tensor([0.0, float(var)]), basis, tied_axes, learnable)


def gauss_mixture(
    variances: Sequence[float] = (0.0, 0.01, 0.3, 3.0, 20.0),
    weights: Sequence[float] | None = None,
    basis: LinearOp | None = None,
    tied_axes: tuple[int, ...] | None = None,
    learnable: bool = True,
) -> Mixture:
    """A zero and K zero-mean Gaussians (Vila & Schniter's form); default variances span 33 dB, equal weights."""
    weights = [1 / len(variances)] * len(variances) if weights is None else weights
    return Mixture(torch.tensor(weights), torch.tensor([float(v) for v in variances]), basis, tied_axes, learnable)
