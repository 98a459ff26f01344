"""`pattern-coupled`, `markov-gamma`, `sparse-bayes`: x ~ CN(0, v), where an M-step says how the v_n hang together."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.elementary import Identity
from hhat.ops.linalg import squared
from hhat.priors.base import Prior
from hhat.priors.gamma_field import chained, chained_as_printed, mrf
from hhat.priors.gauss import Gauss
from hhat.priors.learned import cnn
from hhat.priors.m_step import SMALLEST, Em, GammaShape, Memory, Moments, MStep, PatternCoupling, Sight
from hhat.types import Gaussian, Shape


@dataclass(frozen=True, eq=False)
class Hierarchical(Prior):
    """x_n ~ CN(0, v_n); v <- m_step(posterior of x) whenever the prior learns; h = basis(x).

    Given v it is the Gaussian prior, which everything but `learn` is left to. `learn` is EM only where the M-step is.
    var: start of v. Hyperparameters are relative to the mean power of r.
    In `gamp` with the pattern-coupled M-step: PCSBL-GAMP; in `uamp` with GammaShape: UAMP-SBL.
    """

    m_step: MStep
    basis: LinearOp | None
    var: Tensor
    memory: Memory
    ndim: int
    learnable: bool = True
    tied_axes: tuple[int, ...] | None = ()

    def __init__(
        self,
        m_step: MStep,
        basis: LinearOp | None = None,
        var: Tensor | float | int = 1.0,
        memory: Memory | None = None,
        ndim: int = 1,
        learnable: bool = True,
        tied_axes: tuple[int, ...] | None = (),
    ):
        plain = Gauss(var, basis=basis, ndim=ndim)  # checks the variance
        object.__setattr__(self, "m_step", m_step)
        object.__setattr__(self, "basis", basis)
        object.__setattr__(self, "var", plain.var)
        object.__setattr__(self, "memory", m_step.memory() if memory is None else memory)
        object.__setattr__(self, "ndim", plain.ndim)
        object.__setattr__(self, "learnable", learnable)
        object.__setattr__(self, "tied_axes", tied_axes)

    def _given(self) -> Gauss:
        return Gauss(self.var, ndim=self.ndim)

    def moments(self) -> Gaussian:
        return self._given().moments()

    def denoise(self, r: Gaussian) -> Gaussian:
        return self._given().denoise(r)

    def log_evidence(self, r: Gaussian) -> Tensor:
        """log p(r) given the variances."""
        return self._given().log_evidence(r)

    def sample(self, shape: Shape, gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
        """x given the variances."""
        return self._given().sample(shape, gen, dtype)

    def scaled(self, c: Tensor | float) -> "Hierarchical":
        return replace(self, var=self._given().scaled(c).var)

    def learn(self, r: Gaussian) -> "Hierarchical":
        x = self.denoise(r)
        unit = squared(r.mean).mean(self.event_axes(), keepdim=True)
        unit = torch.where(unit == 0, 1.0, unit)
        seen = Sight(Identity(tuple(r.mean.shape[-self.ndim :])), r.mean, r.var, 1.0)
        now = Moments(squared(x.mean), x.var, self.var, unit, self.ndim, seen)
        v, memory = self.m_step(now, self.memory)
        return replace(self, var=torch.maximum(v, SMALLEST * unit), memory=memory)

    @property
    def exact_em(self) -> bool:
        return isinstance(self.m_step, Em)

    def params(self) -> dict[str, Tensor]:
        return {"var": self.var, **self.memory}

    def with_params(self, params: dict[str, Tensor]) -> "Hierarchical":
        memory = {name: params[name] for name in self.memory}
        return replace(self, var=params["var"], memory=memory)

    def tail(self, name: str) -> int:
        return self.m_step.tail(name)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Hierarchical":
        return cls(PatternCoupling(), var=1.3)


def pattern_coupled(
    coupling: float = 1.0, axes: tuple[int, ...] | None = None, basis: LinearOp | None = None
) -> Hierarchical:
    """Clusters of unknown shape: a coefficient is as large as its neighbours let it be (see `PatternCoupling`)."""
    return Hierarchical(PatternCoupling(coupling, axes), basis)


def markov_gamma(
    appear: float = 0.02,
    vanish: float = 0.2,
    axis: int = -1,
    idle_rate: float = 0.02,
    learn: bool = False,
    basis: LinearOp | None = None,
) -> Hierarchical:
    """Gamma precisions whose state is a Markov chain along `axis`, corrected form (see `GammaField`).

    With y = x + noise (an `Identity` operator) the steps of `oamp` are the refinement of A. Tang et al. 2025,
    Algorithm 2, with the noise level given.
    """
    return Hierarchical(chained(appear, vanish, axis, learn, idle_rate), basis)


def markov_gamma_printed(
    appear: float = 0.02, vanish: float = 0.2, axis: int = -1, basis: LinearOp | None = None
) -> Hierarchical:
    """`markov-gamma` with eqs. (47) and (53) as printed."""
    return Hierarchical(chained_as_printed(appear, vanish, axis), basis)


def markov_random_field(
    coupling: float = 0.35, field: float = 0.0, axes: tuple[int, ...] | None = None, basis: LinearOp | None = None
) -> Hierarchical:
    """Gamma precisions whose state is an Ising field: UAMP-MRF in `uamp`, MRF-SBL's M-step (see `GammaField`)."""
    return Hierarchical(mrf(coupling, field, axes), basis)


def sparse_bayes(basis: LinearOp | None = None) -> Hierarchical:
    """One precision per coefficient, Gamma(eps, 0) with eps learned: the prior of UAMP-SBL (see `GammaShape`)."""
    return Hierarchical(GammaShape(), basis)


def convolutional(weights: str | None = None, basis: LinearOp | None = None) -> Hierarchical:
    """Variances by the M-step of `sbl-cnn`: trained, a layer per step, so that it wants as many steps as it has layers
    (5 in the package's weights) and `max_steps` said: its last layer repeated makes the estimate worse.

    weights: a file, or those of the package, which know angles and delays on two axes.
    """
    return Hierarchical(cnn(weights), basis)
