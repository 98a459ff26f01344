"""Where a calibrator starts: gains and the common shift of angles from the sectors alone, without a search.

A target is uniform over its sector, hence, with t_i the waves' turn back from the sector's centre,

    E[ sum_i t_i Y_i Y_i^H t_i^H ]_nm = sum_i |gamma_i|^2 |x|^2 kappa_n kappa_m^* T_nm + noise,
    T_nm = mean over snapshots and over targets of exp(j 2 pi (p_n - p_m)(u - u_centre))

and the dominant eigenvector of the sum, entry by entry times T^* and without its diagonal, has kappa's phases: each lag
counts by what it keeps, and lags far beyond one over the sector's width keep nothing. No phase has to be small and no
target to stand out of its snapshot. Source: hhat; isac calibration B9 has the products of adjacent antennas alone.
"""

import math

import torch
from jaxtyping import Complex
from torch import Tensor

from hhat.ops.linalg import eigh
from hhat.sensing.angle_delay import sector
from hhat.sensing.echoes import Echoes, matched, ones_like_gains
from hhat.sensing.scatter import normalised
from hhat.sensing.views import ROWS, line_of

ROUNDS = 200
"""Rounds k <- phases of M k after the eigenvector, each N^2"""
POINTS = 16
"""Midpoints of the sector over which the mean wave is taken"""


def ones(echoes: Echoes) -> Complex[Tensor, " rx"]:
    """k = 1: the paper's start."""
    return ones_like_gains(echoes)


def sector_start(echoes: Echoes) -> Complex[Tensor, " rx"]:
    """The eigenvector described above, |k|^2 = N."""
    second, coherence = sector_moments(echoes)
    return sector_gains(second, coherence)


def sector_gains(second: Complex[Tensor, "rx rx"], coherence: Complex[Tensor, "rx rx"]) -> Complex[Tensor, " rx"]:
    """Phases of the eigenvector of M, from the two sums of `sector_moments`, then k_n <- M k / |M k| entry by entry.

    M is a band: on a long array its first eigenvalues nearly agree, chance mixes their vectors, which differ by slow
    turns of phase, and the rounds take these out. Gains of size 1: the eigenvector of a band of lags tapers towards the
    array's ends whatever the gains are."""
    both = second * coherence.conj()
    both = both - torch.diag(both.diagonal())
    k = _phases(eigh(both)[1][:, -1])
    for _ in range(ROUNDS):
        k = _phases(both @ k)
    return normalised(k)


def _phases(vector: Complex[Tensor, " rx"]) -> Complex[Tensor, " rx"]:
    return torch.polar(torch.ones_like(vector.real), vector.angle())


def sector_moments(echoes: Echoes) -> tuple[Complex[Tensor, "rx rx"], Complex[Tensor, "rx rx"]]:
    """sum_i t_i Y_i Y_i^H t_i^H and sum_i of the mean wave's T, over the snapshots."""
    flat, positions = echoes.flat(), line_of(echoes)
    second = torch.zeros(2, len(positions), len(positions), dtype=echoes.y.dtype, device=echoes.y.device)
    middle = (torch.arange(POINTS, device=positions.device) + 0.5) / POINTS
    for first in range(0, len(flat.y), ROWS):
        part = flat.rows(slice(first, first + ROWS))
        low, high = sector(part)[0].asin().unbind(-1)
        centre = (low.sin() + high.sin()) / 2
        where = (low[:, None] + (high - low)[:, None] * middle).sin() - centre[:, None]
        angle = -2 * math.pi * positions * centre[:, None]
        z = matched(part) * torch.complex(angle.cos(), angle.sin())[..., None]
        rows = z.movedim(-2, -1).flatten(0, -2)
        second[0] += rows.mT @ rows.conj()
        angle = 2 * math.pi * positions * where.reshape(-1, 1)
        waves = torch.complex(angle.cos(), angle.sin())
        second[1] += waves.mT @ waves.conj() / POINTS
    return second[0], second[1]
