"""Thresholds for the largest value of an angle-delay map: in closed form, and from snapshots known to be empty; and
what a threshold lets through of targets."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hhat.methods.polar import LIGHT_M_PER_S
from hhat.sensing.angle_delay import sector
from hhat.sensing.echoes import Echoes, positions_of

BISECTIONS = 60
HIGHEST = 700.0
"""Largest threshold: exp(-700) is the smallest false-alarm probability that double precision holds."""


def expected_excursions(echoes: Echoes, threshold: Float[Tensor, "..."] | float) -> Float[Tensor, "*batch"]:
    """Expected Euler characteristic of {statistic >= eta} over each sector without targets, float64:

        E = exp(-eta) [ 1 + (T1 s1 + T2 s2) sqrt(eta / pi) + T1 T2 s1 s2 (eta - 1/2) / pi ]

    T1 = 2 pi (u_high - u_low), s1 = standard deviation of the element positions (wavelengths);
    T2 = 4 pi spacing (R_high - R_low) / c, s2 = that of the subcarrier indices, sqrt((S^2 - 1) / 12).
    The field c / sqrt(E|c|^2) is stationary, circular and Gaussian of unit variance; its gradient along u has variance
    s1^2 per radian of T1. Source: Adler & Taylor, Random Fields and Geometry, 2007, chapter 15 (chi-square with two
    degrees of freedom); constants derived here.
    """
    u, range_m = (limits.double() for limits in sector(echoes))
    spread = positions_of(echoes).std(correction=0)
    tones = math.sqrt((echoes.num_subcarriers**2 - 1) / 12)
    across = 2 * math.pi * (u[..., 1] - u[..., 0]) * spread
    along = 4 * math.pi * echoes.subcarrier_spacing_hz / LIGHT_M_PER_S * (range_m[..., 1] - range_m[..., 0]) * tones
    eta = torch.as_tensor(threshold, dtype=torch.float64, device=u.device)
    edges = (across + along) * (eta.clamp_min(0) / math.pi).sqrt()
    return (-eta).exp() * (1 + edges + across * along * (eta - 0.5) / math.pi)


def false_alarm(echoes: Echoes, threshold: Float[Tensor, "..."] | float) -> Float[Tensor, "*batch"]:
    """Probability that an empty snapshot's largest value reaches the threshold, 1 - exp(-E) (excursions are nearly a
    Poisson count); within 5 % of itself below 0.1 for a continuous search, slightly high for a grid."""
    return -torch.expm1(-expected_excursions(echoes, threshold))


def closed_form_threshold(echoes: Echoes, probability: float) -> Float[Tensor, "*batch"]:
    """eta per snapshot so that `false_alarm` is `probability`; wide sectors get a higher one.

    ValueError outside 0 < probability <= 0.5: above that the law of the maximum is another.
    """
    if not 0 < probability <= 0.5:
        raise ValueError(f"false alarm: expected a probability above 0 and at most 0.5, got {probability}")
    wanted = -math.log1p(-probability)
    low = torch.ones(echoes.batch_shape, dtype=torch.float64, device=echoes.y.device)
    high = torch.full_like(low, HIGHEST)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = expected_excursions(echoes, middle) > wanted
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return high.to(echoes.y.real.dtype)


def empirical_threshold(statistic: Float[Tensor, "..."], probability: float) -> float:
    """eta from the statistics of n snapshots that are known to be empty, for any calibration and any statistic.

    The value that k of them do not exceed, k = ceil((n + 1)(1 - probability)): a new empty snapshot exceeds it with
    probability (n + 1 - k) / (n + 1) <= `probability`, exactly, averaged over the n. ValueError where n is too small
    (below 1 / probability - 1) or a statistic is not finite.
    """
    ordered = statistic.detach().flatten().double().sort().values
    count = ordered.numel()
    rank = math.ceil((count + 1) * (1 - probability) - 1e-9)
    if not 0 < probability < 1 or rank > count or rank < 1:
        raise ValueError(f"threshold: {count} empty snapshots do not settle a false-alarm probability {probability}")
    if not bool(torch.isfinite(ordered).all()):
        raise ValueError("threshold: expected finite statistics of empty snapshots")
    return float(ordered[rank - 1])


def detection_probability(
    threshold: Float[Tensor, "..."] | float, snr: float, loss: float = 0.0, probability: float = 0.0
) -> Float[Tensor, "..."]:
    """P_d of one target with gamma ~ CN: 1 - (1 - exp(-(eta - 1) / (1 + (1 - loss) SNR))) (1 - P_fa).

    loss: what the calibration loses, e0 = 1 - |kappa_hat^H kappa|^2 / N^2 (the slope-free e1 for one with a slope).
    The 1 is what fitting angle and range gains, the last factor a noise peak elsewhere. Derived here; holds within
    0.003 for known kappa at 15 dB.
    """
    eta = torch.as_tensor(threshold, dtype=torch.float64)
    missed = -torch.expm1(-(eta - 1).clamp_min(0) / (1 + (1 - loss) * snr))
    return 1 - missed * (1 - probability)


def snr_of(statistic: Float[Tensor, "..."], gate: float = 25.0) -> tuple[float, float]:
    """SNR that targets show after integration, from the largest values of snapshots without labels, and its standard
    error: mean(statistic - gate | statistic > gate) - 1.

    Above a gate that noise does not reach, the statistic of a Rayleigh target has no memory: Exp(1 + SNR) beyond it,
    whatever the share of snapshots with a target. With an imperfect kappa it is (1 - e0) SNR. Several targets in a
    snapshot show their strongest, which is more. (nan, inf) where nothing passes the gate.
    """
    beyond = statistic.detach().double().flatten()
    beyond = beyond[beyond > gate] - gate
    if not beyond.numel():
        return math.nan, math.inf
    return float(beyond.mean()) - 1, float(beyond.mean()) / math.sqrt(beyond.numel())


def resolution(echoes: Echoes, strength: Float[Tensor, "..."]) -> tuple[Tensor, Tensor]:
    """Cramer-Rao bounds on u and on the range in m^2 of one target of post-integration SNR `strength`:

    var(u) = 1 / (8 pi^2 s1^2 L),    var(R) = (c / (4 pi spacing))^2 / (2 s2^2 L),    s1, s2 as above
    """
    strength = strength.clamp_min(torch.finfo(strength.dtype).tiny)
    spread = positions_of(echoes).var(correction=0).to(strength)
    tones = (echoes.num_subcarriers**2 - 1) / 12
    turn = LIGHT_M_PER_S / (4 * math.pi * echoes.subcarrier_spacing_hz)
    return 1 / (8 * math.pi**2 * spread * strength), turn**2 / (2 * tones * strength)
