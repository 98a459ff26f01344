"""`gauss` and `covariance`: complex Gaussian coefficients in any basis. A covariance is unit variance in the basis
of its square root, so that every solver takes it and the posterior sees its Kronecker structure."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.dense import Dense
from hhat.ops.linalg import eigh, squared
from hhat.ops.structured import Kron
from hhat.priors.base import Prior
from hhat.random import complex_normal
from hhat.types import Gaussian, Shape


@dataclass(frozen=True, eq=False)
class Gauss(Prior):
    """x ~ CN(mean, var), entry by entry; h = basis(x).

    var and mean: numbers or tensors that broadcast to x. learnable: EM of the variance, tied over `tied_axes`.
    Raises ValueError for a negative or non-finite variance.
    Source: any textbook; EM of tied variances as in Wipf & Rao, IEEE TSP 2007.
    """

    var: Tensor
    mean: Tensor
    basis: LinearOp | None
    tied_axes: tuple[int, ...] | None
    learnable: bool
    ndim: int

    def __init__(
        self,
        var: Tensor | float | int = 1.0,
        mean: Tensor | complex | float | int = 0.0,
        basis: LinearOp | None = None,
        tied_axes: tuple[int, ...] | None = None,
        learnable: bool = False,
        ndim: int = 1,
    ):
        var = torch.as_tensor(var)
        if var.is_complex() or bool((var < 0).any() | torch.isinf(var).any()) or (var.ndim == 0 and bool(var.isnan())):
            raise ValueError("gauss: var: expected finite real values >= 0")
        var = var if var.is_floating_point() else var.float()
        mean = torch.as_tensor(mean)
        object.__setattr__(self, "var", var)
        object.__setattr__(self, "mean", mean if mean.is_complex() else mean.to(var.dtype.to_complex()))
        object.__setattr__(self, "basis", basis)
        object.__setattr__(self, "tied_axes", tied_axes)
        object.__setattr__(self, "learnable", learnable)
        object.__setattr__(self, "ndim", ndim if basis is None else len(basis.in_shape))

    def moments(self) -> Gaussian:
        return Gaussian(self.mean, self.var)

    def denoise(self, r: Gaussian) -> Gaussian:
        # (v r + vr m)/(v + vr) written so that v or vr may be 0 or infinite
        tiny = torch.finfo(self.var.dtype).tiny
        keep = torch.where(torch.isinf(r.var), 0.0, self.var / (self.var + r.var).clamp_min(tiny))
        var = torch.where(torch.isinf(r.var), self.var, keep * r.var)
        return Gaussian(self.mean + keep * (r.mean - self.mean), var.expand(r.mean.shape))

    def sample(self, shape: Shape, gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
        return self.mean + complex_normal(shape, gen, dtype, self.var)

    def scaled(self, c: Tensor | float) -> "Gauss":
        c = torch.as_tensor(c)
        return replace(self, var=self.var * squared(c), mean=self.mean * c)

    def log_evidence(self, r: Gaussian) -> Tensor:
        total = self.var + r.var
        log = -math.log(math.pi) - total.log() - squared(r.mean - self.mean) / total
        return log.expand(r.mean.shape).sum(self.event_axes())

    def learn(self, r: Gaussian) -> "Gauss":
        x = self.denoise(r)
        second = squared(x.mean - self.mean) + x.var
        tied = self.tied()
        return replace(self, var=second.mean(tied, keepdim=True) if tied else second)

    def params(self) -> dict[str, Tensor]:
        return {"var": self.var, "mean": self.mean}

    def with_params(self, params: dict[str, Tensor]) -> "Gauss":
        return replace(self, var=params["var"], mean=params["mean"])

    @classmethod
    def example(cls, gen: torch.Generator) -> "Gauss":
        return cls(var=1.3, mean=0.2 + 0.1j)


def covariance(
    matrix: Tensor | None = None,
    factors: tuple[Tensor, ...] | None = None,
    samples: Tensor | None = None,
    shrinkage: float = 0.0,
    shape: Shape | None = None,
) -> Gauss:
    """h ~ CN(0, C), as unit-variance coefficients in the basis C^1/2.

    matrix:    C = E vec(h) vec(h)^H, row-major over the channel's axes `shape` (default: one axis)
    factors:   one matrix per channel axis, C = C_1 kron C_2 ...: stays factored
    samples:   channels (num, *shape): their sample covariance
    shrinkage: C <- (1 - s) C + s tr(C)/N I, 0 <= s <= 1, per factor (Ledoit & Wolf 2004 form). As rules of thumb
               1e-4 for 10 samples per dimension and 0.02 for one.
    Exactly one of matrix, factors, samples is given; else ValueError, as for matrices that are not square.
    """
    if sum(x is not None for x in (matrix, factors, samples)) != 1:
        raise ValueError("covariance: expected exactly one of matrix, factors, samples")
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"covariance: shrinkage: expected 0..1, got {shrinkage}")
    if samples is not None:
        shape = tuple(samples.shape[1:]) if shape is None else shape
        flat = samples.reshape(samples.shape[0], -1)
        matrix = flat.mT @ flat.conj() / flat.shape[0]
    parts = (matrix,) if matrix is not None else tuple(factors or ())
    roots = [Dense(_root(part, shrinkage)) for part in parts]
    if matrix is not None:
        root: LinearOp = Dense(roots[0].matrix, in_shape=shape, out_shape=shape)
        dtype = root.matrix.dtype  # type: ignore[attr-defined]
    else:
        dtype = roots[0].matrix.dtype
        root = roots[-1]
        for left in reversed(roots[:-1]):
            root = Kron(left, root)
    return Gauss(var=torch.ones((), dtype=dtype.to_real()), basis=root)


def _root(matrix: Tensor, shrinkage: float) -> Tensor:
    """U sqrt(lambda) of the shrunk matrix."""
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"covariance: expected a square matrix, got {tuple(matrix.shape)}")
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("covariance: expected finite entries, got NaN or infinity")
    matrix = matrix if matrix.is_complex() else matrix.to(matrix.dtype.to_complex())
    largest = matrix.abs().amax()
    if bool((matrix - matrix.mH).abs().amax() > 1e-3 * largest):
        raise ValueError("covariance: expected a Hermitian matrix")
    if bool((torch.linalg.eigvalsh(matrix)[..., 0] < -1e-3 * largest).any()):
        raise ValueError("covariance: expected a positive semidefinite matrix")
    size = matrix.shape[-1]
    scale = matrix.diagonal(dim1=-2, dim2=-1).real.mean(-1)[..., None, None]
    eye = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    values, vectors = eigh((1 - shrinkage) * matrix + shrinkage * scale * eye)
    return vectors * values.sqrt()[..., None, :]
