"""`markov` and `ising`: Bernoulli-Gauss coefficients whose support is a random field (a chain, or an Ising grid)."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hhat.ops.base import LinearOp
from hhat.ops.linalg import squared
from hhat.priors.base import Prior
from hhat.priors.chain import Chain
from hhat.priors.gauss import Gauss
from hhat.priors.ising import Ising
from hhat.priors.mixture import WIDEST, Mixture
from hhat.priors.support import Support
from hhat.random import complex_normal
from hhat.types import Gaussian, Shape


@dataclass(frozen=True, eq=False)
class SupportField(Prior):
    """x_n = s_n CN(0, var), s ~ support; h = basis(x).

    Given what the field says of s_n without x_n, each coefficient is Bernoulli-Gauss; the field in turn sees
    llr_n = log p(r_n | s_n = 1) - log p(r_n | s_n = 0). learnable: EM of the variance and of the field's parameters.
    Exact with a chain; with an Ising grid as good as its belief propagation.
    In `oamp`: Turbo-OAMP. Source: Schniter, CISS 2010 (turbo reconstruction); Som & Schniter, IEEE TSP 2012.
    """

    support: Support
    var: Tensor
    basis: LinearOp | None = None
    tied_axes: tuple[int, ...] | None = None
    learnable: bool = True
    ndim: int = 1

    def __post_init__(self):
        if bool((self.var < 0).any()):
            raise ValueError("support field: var: expected values >= 0")
        if self.basis is not None:
            object.__setattr__(self, "ndim", len(self.basis.in_shape))

    def _apart(self, r: Gaussian, odds: Tensor) -> Mixture:
        """The coefficients on their own, each active with these log-odds."""
        weights = torch.stack([logsigmoid(-odds), logsigmoid(odds)], -1).exp()
        return Mixture(weights, torch.stack([torch.zeros_like(self.var), self.var], -1), ndim=self.ndim)

    def _ratio(self, r: Gaussian) -> Tensor:
        """llr: log p(r|active) - log p(r|idle)."""
        floor = (1e-10 * self.var).clamp_min(1e3 * torch.finfo(self.var.dtype).tiny)
        noise = torch.maximum(r.var, floor).clamp_max(WIDEST)
        return squared(r.mean) * (self.var / (noise * (self.var + noise))) - (self.var / noise).log1p()

    @property
    def exact_em(self) -> bool:
        return isinstance(self.support, Chain)

    def moments(self) -> Gaussian:
        var = self.support.marginals(self.ndim) * self.var
        return Gaussian(torch.zeros((), dtype=var.dtype.to_complex(), device=var.device), var)

    def denoise(self, r: Gaussian) -> Gaussian:
        odds, _ = self.support.infer(self._ratio(r), self.ndim)
        return self._apart(r, odds).denoise(r)

    def log_evidence(self, r: Gaussian) -> Tensor:
        even = self._apart(r, torch.zeros_like(r.mean.real)).log_evidence(r)
        num = math.prod(r.mean.shape[r.mean.ndim - self.ndim :])
        return even + num * math.log(2) + self.support.log_evidence(self._ratio(r), self.ndim)

    def learn(self, r: Gaussian) -> "SupportField":
        llr = self._ratio(r)
        odds, kept = self.support.infer(llr, self.ndim)
        tied = replace(self._apart(r, odds), tied_axes=self.tied_axes)
        return replace(self, var=tied.learn(r).variances[..., 1], support=kept.learn(llr, self.ndim))

    def sample(self, shape: Shape, gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
        return self.support.sample(shape, gen, self.ndim) * complex_normal(shape, gen, dtype, self.var)

    def scaled(self, c: Tensor | float) -> "SupportField":
        return replace(self, var=Gauss(self.var).scaled(c).var)

    def params(self) -> dict[str, Tensor]:
        return {"var": self.var, **self.support.params()}

    def with_params(self, params: dict[str, Tensor]) -> "SupportField":
        return replace(self, var=params["var"], support=self.support.with_params(params))

    def tail(self, name: str) -> int:
        return self.support.tail(name)

    @classmethod
    def example(cls, gen: torch.Generator) -> "SupportField":
        return markov(0.1, 0.3)


def markov(
    appear: float = 0.05,
    vanish: float = 0.3,
    var: float | None = None,
    axis: int = -1,
    basis: LinearOp | None = None,
    learnable: bool = True,
) -> SupportField:
    """Active coefficients come in runs along `axis` (`Chain`); var None: E|x|^2 = 1."""
    chain = Chain(appear, vanish, axis=axis)
    var = float(1 / chain.marginals(1)) if var is None else float(var)
    return SupportField(chain, torch.tensor(var), basis, learnable=learnable)


def ising(
    coupling: float = 0.2,
    field: float = 0.3,
    var: float | None = None,
    axes: tuple[int, ...] | None = None,
    basis: LinearOp | None = None,
    learnable: bool = True,
) -> SupportField:
    """Active coefficients cluster on a 4-connected torus (`Ising`); var None: E|x|^2 = 1 on a grid."""
    support = Ising(coupling, field, axes, sweeps=6)
    var = float(1 / support.marginals(2)) if var is None else float(var)
    return SupportField(support, torch.tensor(var), basis, learnable=learnable)
