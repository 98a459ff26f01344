"""Gains from aligned snapshots: the dominant eigenvector of their scatter, and how far it may be off.

    R = sum_i w_i (z_i z_i^H) * G_i,     k = sqrt(N) v_1(R)

Without G k maximises sum_i w_i |k^H z_i|^2 under |k|^2 = N. With noise of variance 1 per antenna R / sum_i w_i is near
(SNR / N) kappa kappa^H + I. G_i = 1 - 2 pi^2 (p_n - p_m)^2 s_i^2 takes out what fitting an angle to each snapshot, to
a variance s_i^2, puts in: noise that looks like a turn is turned away, E[z z^H] grows by (1 + 2 pi^2 (p_n - p_m)^2 s^2)
off its diagonal, and the gains of the outer antennas come out too large, however many snapshots there are. It is the
mean over the angle's posterior, to first order in s^2.

The error of the eigenvector is to first order P (R - E R) v_1, P = sum_{j > 1} v_j v_j^H / (l_1 - l_j), hence its
covariance

    C = P ( sum_i w_i^2 |v_1^H z_i|^2 z_i z_i^H ) P

without a law of the noise: only that snapshots are independent. The noise along p_n kappa_n has gone into the angles:
C says nothing of a common shift of angles, whose variance comes from `shift`.
Source: eigenvector of a spiked covariance (isac calibration, 3.5); G: hhat; C: the sandwich of M-estimators.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops.linalg import eigh, squared

FACTOR_STEPS = 10
"""Rounds over the two factors of a virtual array"""


class Scatter(NamedTuple):
    """Sums over views: R; the matrix in the brackets; the weight."""

    second: Complex[Tensor, "rx rx"]
    fourth: Complex[Tensor, "rx rx"]
    weight: Float[Tensor, ""]

    def decayed(self, keep: float) -> "Scatter":
        """The sums when each view counts `keep` times what it did."""
        return Scatter(keep * self.second, keep**2 * self.fourth, keep * self.weight)

    def plus(self, other: "Scatter") -> "Scatter":
        return Scatter(*(a + b for a, b in zip(self, other, strict=True)))

    def turned(self, wave: Complex[Tensor, " rx"]) -> "Scatter":
        """The sums of wave * z."""
        outer = wave[:, None] * wave.conj()
        return Scatter(self.second * outer, self.fourth * outer, self.weight)


def second_moment(
    z: Complex[Tensor, "view rx"],
    weight: Float[Tensor, " view"],
    angle_var: Float[Tensor, " view"] | None = None,
    positions: Float[Tensor, " rx"] | None = None,
) -> Complex[Tensor, "rx rx"]:
    """R; without the variance of the views' angles, G = 1."""
    whole = (weight[:, None] * z).mT @ z.conj()
    if angle_var is None or positions is None:
        return whole
    far = 2 * math.pi**2 * (positions[:, None] - positions).square()
    return whole - far * (((weight * angle_var)[:, None] * z).mT @ z.conj())


def scatter(
    z: Complex[Tensor, "view rx"],
    weight: Float[Tensor, " view"],
    k: Complex[Tensor, " rx"],
    angle_var: Float[Tensor, " view"] | None = None,
    positions: Float[Tensor, " rx"] | None = None,
) -> Scatter:
    """The sums over views, with k in the place of v_1 in the brackets."""
    along = squared(z @ k.conj()) / squared(k).sum()
    fourth = second_moment(z, weight.square() * along)
    return Scatter(second_moment(z, weight, angle_var, positions), fourth, weight.sum())


def dominant(second: Complex[Tensor, "rx rx"], factors: tuple[int, int] | None = None) -> Complex[Tensor, " rx"]:
    """sqrt(N) times the top eigenvector, its phase fixed.

    factors: (a, b) of a virtual array (`mimo`): the maximiser of k^H R k among k = k_a x k_b instead, by the
    eigenvector of either factor given the other, from the nearest to the top eigenvector.
    """
    top = eigh(second)[1][:, -1]
    if factors is None:
        return normalised(top)
    first, last = split(top, factors)
    block = second.reshape(*factors, *factors)
    for _ in range(FACTOR_STEPS):
        first = eigh(torch.einsum("atbs,t,s->ab", block, last.conj(), last))[1][:, -1]
        last = eigh(torch.einsum("atbs,a,b->ts", block, first.conj(), first))[1][:, -1]
    return normalised((first[:, None] * last).flatten())


def split(
    k: Complex[Tensor, " rx"], factors: tuple[int, int]
) -> tuple[Complex[Tensor, " first"], Complex[Tensor, " last"]]:
    """The nearest k_a x k_b, |k_a|^2 = a and |k_b|^2 = b; the sum of k_b is real, the common phase is with k_a."""
    u, _, vh = torch.linalg.svd(k.reshape(factors))
    last = normalised(vh[0])
    turn = (vh[0] * last.conj()).sum()
    return u[:, 0] * (turn / turn.abs() * math.sqrt(factors[0])), last


def normalised(k: Complex[Tensor, " rx"]) -> Complex[Tensor, " rx"]:
    """|k|^2 = N, and the phase by which the sum of k is real and positive."""
    total = k.sum()
    turn = torch.where(total.abs() > 0, total.conj() / total.abs().clamp_min(torch.finfo(k.real.dtype).tiny), 1.0)
    return k * turn * (len(k) ** 0.5 / squared(k).sum().sqrt().clamp_min(torch.finfo(k.real.dtype).tiny))


def shifted(k: Complex[Tensor, " rx"], positions: Float[Tensor, " rx"], d: float) -> Complex[Tensor, " rx"]:
    """Gains under which all angles come out larger by d: k_n exp(-j 2 pi p_n d)."""
    return normalised(k * torch.polar(torch.ones_like(positions), -2 * math.pi * positions * d))


def covariance(
    sums: Scatter, factors: tuple[int, int] | None = None
) -> tuple[Complex[Tensor, "rx rx"], Float[Tensor, ""]]:
    """C for k of squared norm N, across k, and by how much the first eigenvalue stands above the second, l_1 / l_2.

    factors: k moves within k_a x k_b only. P then is Q (l_1 - Q^H R Q)^-1 Q^H with Q a basis of these moves across k.
    """
    values, vectors = eigh(sums.second)
    ratio = values[-1] / values[-2].clamp_min(torch.finfo(values.dtype).tiny)
    if factors is None:
        top, gaps, moves = values[-1], values[-1] - values[:-1], vectors[:, :-1]
    else:
        k = dominant(sums.second, factors)
        top = (k.conj() @ sums.second @ k).real / len(k)
        basis = _moves(k, factors)
        inner, turn = eigh(basis.mH @ sums.second @ basis)
        gaps, moves = top - inner, basis @ turn
    p = (moves / gaps.clamp_min(torch.finfo(values.dtype).tiny)) @ moves.mH
    return len(values) * (p @ sums.fourth @ p), ratio


def _moves(k: Tensor, factors: tuple[int, int]) -> Tensor:
    """Orthonormal basis (N, a + b - 2) of the moves of k = k_a x k_b across k."""
    first, last = split(k, factors)
    a, b = (torch.eye(n, dtype=k.dtype, device=k.device) for n in factors)
    span = torch.cat([torch.kron(a, last[:, None]), torch.kron(first[:, None], b)], 1)
    unit = k / k.norm()
    u, _, _ = torch.linalg.svd(span - unit[:, None] * (unit.conj() @ span), full_matrices=False)
    return u[:, : sum(factors) - 2]
