"""What the priors share that a trained denoiser knows: a scale, and Gaussian stand-ins for what it cannot tell."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from hhat.ops.linalg import squared
from hhat.priors.base import Prior
from hhat.types import Gaussian


class DenoiserPrior(Prior):
    """x / scale is what the denoiser was trained on. Subclasses are frozen dataclasses with a complex `scale`.

    log_evidence: of independent Gaussian coefficients with the prior's mean and variances; a denoiser has no density.
    """

    scale: Tensor | complex | float

    def scaled(self, c: Tensor | complex | float) -> "DenoiserPrior":
        return replace(self, scale=self.scale * torch.as_tensor(c))  # type: ignore[type-var]

    def log_evidence(self, r: Gaussian) -> Tensor:
        total = self.moments().var + r.var
        log = -math.log(math.pi) - total.log() - squared(r.mean) / total
        return log.expand(r.mean.shape).sum(self.event_axes())

    def learn(self, r: Gaussian) -> "DenoiserPrior":
        return self

    def params(self) -> dict[str, Tensor]:
        return {"scale": torch.as_tensor(self.scale)}

    def with_params(self, params: dict[str, Tensor]) -> "DenoiserPrior":
        return replace(self, scale=params["scale"])  # type: ignore[type-var]
