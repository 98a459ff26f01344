"""`Schedule`: how much noise a diffusion model has added by time t."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

LAST_BETA = {5: 0.95, 10: 0.7, 50: 0.2, 100: 0.1, 300: 0.035, 500: 0.02, 1000: 0.01}
"""beta at t = T by T: each ends at about -22.5 dB. Source: the public code of Fesl et al. 2024"""
FIRST_BETA = 1e-4


@dataclass(frozen=True)
class Schedule:
    """h_t = sqrt(abar_t) h_0 + sqrt(1 - abar_t) eps,   abar_t = prod_(s<=t) (1 - beta_s),   t = 1..num_steps,

    beta linear from FIRST_BETA to `last_beta` (None: the one of LAST_BETA). h_t / sqrt(abar_t) is the
    pseudo-observation h_0 + CN(0, var_t) with var_t = (1 - abar_t) / abar_t: so the rest of the library sees it.
    Between whole t, log var is linear. Raises ValueError for a num_steps that has no last_beta.
    """

    num_steps: int = 100
    last_beta: float | None = None

    def __post_init__(self):
        if self.last_beta is None and self.num_steps not in LAST_BETA:
            raise ValueError(f"schedule: num_steps: expected {sorted(LAST_BETA)} or a last_beta, got {self.num_steps}")

    @functools.cached_property
    def kept(self) -> Tensor:
        """abar_t, t = 1..num_steps, double precision."""
        last = LAST_BETA[self.num_steps] if self.last_beta is None else self.last_beta
        return torch.linspace(FIRST_BETA, last, self.num_steps, dtype=torch.float64).neg().add(1).cumprod(0)

    @functools.cached_property
    def log_vars(self) -> Tensor:
        return ((1 - self.kept) / self.kept).log()

    def var(self, time: Tensor) -> Tensor:
        """Noise variance relative to the signal at times in 1..num_steps (clamped to that)."""
        table = self.log_vars.to(time.device, time.dtype)
        place = time.clamp(1, self.num_steps) - 1
        low = place.floor().long().clamp_max(self.num_steps - 2)
        share = place - low
        return ((1 - share) * table[low] + share * table[low + 1]).exp()

    def time(self, var: Tensor) -> Tensor:
        """The time at which the noise has this variance; 1 below all, num_steps above all."""
        table = self.log_vars.to(var.device, var.dtype)
        wanted = var.clamp(self.log_vars[0].exp().item(), self.log_vars[-1].exp().item()).log()
        low = torch.searchsorted(table, wanted.contiguous(), right=True).clamp(1, self.num_steps - 1) - 1
        return 1 + low + ((wanted - table[low]) / (table[low + 1] - table[low])).clamp(0, 1)

    def times(self, count: int) -> Tensor:
        """`count` whole times from num_steps down to 1, as even as may be; ValueError where there are not as many."""
        if not 1 <= count <= self.num_steps:
            raise ValueError(f"schedule: expected 1..{self.num_steps} steps, got {count}")
        if count == 1:
            return self.kept.new_tensor([self.num_steps])
        return torch.linspace(self.num_steps, 1, count, dtype=torch.float64).round()
