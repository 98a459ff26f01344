"""What is known of the coefficients alone, before any y."""

from hhat.priors.base import Prior, power
from hhat.priors.gauss import Gauss, covariance
from hhat.priors.mixture import Mixture, bernoulli_gauss, gauss_mixture

__all__ = ["Gauss", "Mixture", "Prior", "bernoulli_gauss", "covariance", "gauss_mixture", "power"]
