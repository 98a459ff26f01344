"""`Informed`: a prior and a Gaussian factor beside it, which something other than this observation told."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.linalg import squared
from hhat.priors.base import Prior
from hhat.types import Gaussian, Message, Shape

WIDE = 1e12
"""Variance at which a factor that says nothing is denoised"""


@dataclass(frozen=True, eq=False)
class Informed(Prior):
    """p(x) exp(-precision |x|^2 + 2 Re(shift* x)), normalised; entry by entry, precision 0 being no factor.

      denoise   prior.denoise of the product of r and the factor, which is one pseudo-observation

    prior, precision, shift: precision and shift broadcast to (*batch, *event). Not learned, and not drawn from.
    """

    prior: Prior
    precision: Tensor
    shift: Tensor
    basis: LinearOp | None = None
    ndim: int = 1
    learnable: bool = False
    tied_axes: tuple[int, ...] | None = None

    def __post_init__(self):
        object.__setattr__(self, "basis", self.prior.basis)

    def both(self, r: Gaussian) -> Gaussian:
        """r and the factor in one."""
        return (r.message() + self._factor).gaussian()

    def denoise(self, r: Gaussian) -> Gaussian:
        return self.prior.denoise(self.both(r))

    def moments(self) -> Gaussian:
        return self.prior.denoise(self._factor.gaussian(WIDE))

    def sample(self, shape: Shape, gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
        raise ValueError("informed: nothing is drawn from a prior with a factor beside it: draw from `prior`")

    def scaled(self, c: Tensor | float) -> "Informed":
        c = torch.as_tensor(c)
        return replace(
            self,
            prior=self.prior.scaled(c),
            precision=self.precision / squared(c),
            shift=self.shift * c / squared(c),
        )

    def log_evidence(self, r: Gaussian) -> Tensor:
        told = self._factor.gaussian(WIDE)
        total = told.var + r.var
        log = -math.log(math.pi) - total.log() - squared(r.mean - told.mean) / total
        log = log.expand(r.mean.shape).sum(self.event_axes())
        return log + self.prior.log_evidence(self.both(r)) - self.prior.log_evidence(told)

    def learn(self, r: Gaussian) -> "Informed":
        return self

    def params(self) -> dict[str, Tensor]:
        return {"told.precision": self.precision, "told.shift": self.shift, **self.prior.params()}

    def with_params(self, params: dict[str, Tensor]) -> "Informed":
        own = {name: value for name, value in params.items() if not name.startswith("told.")}
        prior = replace(self.prior, ndim=self.ndim).with_params(own)  # type: ignore[type-var]
        return replace(self, prior=prior, precision=params["told.precision"], shift=params["told.shift"])

    def tail(self, name: str) -> int:
        return 0 if name.startswith("told.") else self.prior.tail(name)

    @property
    def _factor(self) -> Message:
        return Message(self.precision, self.shift)

    @classmethod
    def example(cls, gen: torch.Generator) -> "Informed":
        from hhat.priors.gauss import Gauss

        return cls(Gauss.example(gen), torch.tensor(0.7), torch.tensor(0.4 - 0.3j))
