"""What is known of the coefficients alone, before any y."""

from hhat.priors.base import Prior, power
from hhat.priors.experts import Experts
from hhat.priors.field import SupportField, ising, markov
from hhat.priors.gauss import Gauss, covariance
from hhat.priors.hierarchical import Hierarchical, markov_gamma, pattern_coupled
from hhat.priors.mixture import Mixture, bernoulli_gauss, gauss_mixture

__all__ = [
    "Experts",
    "Gauss",
    "Hierarchical",
    "Mixture",
    "Prior",
    "SupportField",
    "bernoulli_gauss",
    "covariance",
    "gauss_mixture",
    "ising",
    "markov",
    "markov_gamma",
    "pattern_coupled",
    "power",
]
