"""`GammaField`: precisions drawn from one of two Gamma laws, which one a random field says (chain or Ising)."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hhat.priors.chain import Chain
from hhat.priors.ising import Ising
from hhat.priors.m_step import Memory, Moments, MStep
from hhat.priors.support import Support

MOST_CERTAIN = 13.8
"""Log-odds of a state are kept within +-13.8 (a probability of 1e-6), as saturated states never turn again."""
Likelihood = Callable[[Tensor, "GammaField"], Tensor]
Weight = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class GammaField(MStep):
    """1/v = E[g]: g_n ~ Gamma(active_shape, active_rate) where s_n = 1, Gamma(idle_shape, idle_rate) where s_n = 0,

      llr = log p(e|1) - log p(e|0),  p(e|s) = E_g[ g exp(-g e) ],  e = |mu|^2 + Sigma
      1/v = w (a + 1)/(b + e) + (1 - w) (a_ + 1)/(b_ + e),        w = P(s = 1 | llr)

    with s from `support`, whose parameters stay as given (learn: also they follow). Rates are in units of the received
    power per coefficient. An idle rate far below the noise's share of that power makes every state active and the field
    inert without any warning.
    likelihood, weight: two steps that the source prints otherwise: `printed_likelihood`, `field_weight`.
    Source: A. Tang et al. 2025, Algorithm 2, eqs. (47)-(53), corrected: (47) drops factors, (53) weighs by the field
    alone. With an Ising field: MRF-SBL.
    """

    support: Support = field(default_factory=lambda: Ising(0.35, 0.0))
    active_shape: float = 0.5
    active_rate: float = 0.5
    idle_shape: float = 1.0
    idle_rate: float = 0.1
    learn: bool = False
    num_steps: int = 30
    likelihood: Likelihood = field(default_factory=lambda: exact_likelihood)
    weight: Weight = field(default_factory=lambda: posterior_weight)

    def __post_init__(self):
        rates = (self.active_shape, self.active_rate, self.idle_shape, self.idle_rate)
        if not all(value > 0 for value in rates):
            raise ValueError(f"gamma field: expected shapes and rates > 0, got {rates}")

    def memory(self) -> Memory:
        return self.support.params()

    def tail(self, name: str) -> int:
        return self.support.tail(name)

    def __call__(self, now: Moments, memory: Memory) -> tuple[Tensor, Memory]:
        e = (now.energy + now.var) / now.unit
        llr = self.likelihood(e, self).clamp(-MOST_CERTAIN, MOST_CERTAIN)
        support = self.support.with_params(memory)
        odds, kept = support.infer(llr, now.num_event)
        if self.learn:
            kept = kept.learn(llr, now.num_event)
        w = self.weight(odds, llr)
        active = (self.active_shape + 1) / (self.active_rate + e)
        idle = (self.idle_shape + 1) / (self.idle_rate + e)
        return now.unit / (w * active + (1 - w) * idle), kept.params()


def exact_likelihood(e: Tensor, law: GammaField) -> Tensor:
    """log of a b^a/(b + e)^(a+1), active over idle: eq. (47) with the factors it drops."""

    def log(shape: float, rate: float) -> Tensor:
        start = torch.tensor([shape, rate], dtype=torch.float64).log() @ torch.tensor([1, shape], dtype=torch.float64)
        return float(start) - (shape + 1) * (rate + e).log()

    return log(law.active_shape, law.active_rate) - log(law.idle_shape, law.idle_rate)


def printed_likelihood(e: Tensor, law: GammaField) -> Tensor:
    """Eq. (47) as printed: a (b_ + e) against a_ (b + e)."""
    ratio = law.active_shape * (law.idle_rate + e) / (law.idle_shape * (law.active_rate + e))
    return ratio.log()


def posterior_weight(odds: Tensor, llr: Tensor) -> Tensor:
    """P(s = 1) from the field and the coefficient's own evidence, as eq. (52) implies."""
    return torch.sigmoid(odds + llr)


def field_weight(odds: Tensor, llr: Tensor) -> Tensor:
    """Eq. (53) as printed: the field alone."""
    return torch.sigmoid(odds)


def mrf(coupling: float = 0.35, field: float = 0.0, axes: tuple[int, ...] | None = None) -> GammaField:
    """M-step of MRF-SBL: Gamma precisions on a 4-connected Ising torus."""
    return GammaField(support=Ising(coupling, field, axes))


def chained(
    appear: float = 0.02, vanish: float = 0.2, axis: int = -1, learn: bool = False, idle_rate: float = 0.02
) -> GammaField:
    """The refinement law, corrected: Gamma precisions along a Markov chain."""
    return GammaField(Chain(appear, vanish, axis=axis), 0.1, 0.1, 1.0, idle_rate, learn)


def chained_as_printed(appear: float = 0.02, vanish: float = 0.2, axis: int = -1) -> GammaField:
    """The refinement law with the printed eqs. (47) and (53) and the rates that keep it sane."""
    law = GammaField(Chain(appear, vanish, axis=axis), 1.0, 1.0, 1.0, 0.01)
    return replace(law, likelihood=printed_likelihood, weight=field_weight)
