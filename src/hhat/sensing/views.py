"""Snapshots as a calibrator sees them: turned onto the place where their target would be, noise of variance 1.

    z = a(u, R)^* * Y (b(R) * x)^* / sqrt(|x|^2 noise_var)          gamma' kappa + CN(0, I),  E|gamma'|^2 = SNR / N

so that the map's value there is |k^H z|^2 / |k|^2.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.ops.linalg import squared
from hhat.sensing.angle_delay import search
from hhat.sensing.beam import climbed
from hhat.sensing.echoes import Echoes, aligned, noise_level, positions_of

SIZE = (100, 100)
"""Angles and ranges of the searched grid, the paper's"""
COARSE = (4, 3)
"""Steps of the coarse search: while gains are learned a near-tie missed costs nothing"""
ROWS = 8192
"""Snapshots searched and turned at a time"""


@dataclass(frozen=True, eq=False)
class Views:
    """Places in snapshots, one row each.

    z as above; weight: what each counts; statistic: the map's value; u and the limits low, high of the sector
    energy: |Y|^2 / noise_var of the snapshot, where it is known; snapshots: how many were looked at
    """

    z: Complex[Tensor, "view rx"]
    weight: Float[Tensor, " view"]
    statistic: Float[Tensor, " view"]
    u: Float[Tensor, " view"]
    low: Float[Tensor, " view"]
    high: Float[Tensor, " view"]
    energy: Float[Tensor, " view"] | None
    snapshots: int

    def at(self, keep: Tensor) -> "Views":
        """Some of the views."""
        names = ("z", "weight", "statistic", "u", "low", "high", "energy")
        cut = {name: value[keep] for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **cut)


def peaks(
    echoes: Echoes,
    k: Complex[Tensor, " rx"],
    gate: float = 0.0,
    margin_u: float = 0.0,
    size: tuple[int, int] = SIZE,
    coarse: tuple[int, int] = COARSE,
) -> Views:
    """The largest value of each snapshot's map under gains k, where it is above the gate, in chunks of snapshots.

    margin_u: by how much u may lie outside the sector on either side.
    """
    flat = replace(echoes.flat(), noise_var=noise_level(echoes))
    parts = [_none(flat)]
    for first in range(0, len(flat.y), ROWS):
        rows = slice(first, first + ROWS)
        part = flat.rows(rows)
        found = search(part, k, size, coarse, margin_u)
        keep = found.statistic > gate
        if not bool(keep.any()):
            continue
        views = aligned_views(part.rows(keep), found.u[keep], found.range_m[keep])
        parts.append(replace(views, statistic=found.statistic[keep]))
    names = ("z", "weight", "statistic", "u", "low", "high")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    energies = [part.energy for part in parts if part.energy is not None]
    energy = torch.cat(energies) if len(energies) == len(parts) else None
    return Views(**joined, energy=energy, snapshots=len(flat.y))


def aligned_views(echoes: Echoes, u: Float[Tensor, " view"], range_m: Float[Tensor, " view"]) -> Views:
    """Each snapshot at a place of its own; the statistic is left at 0."""
    noise = noise_level(echoes)
    scale = (echoes.symbol_energy.to(u) * noise).rsqrt()
    z = aligned(echoes, u, range_m) * scale.reshape(-1, 1)
    energy = None if echoes.energy is None else echoes.energy / noise
    low, high = echoes.u_limits.to(u).expand(len(u), 2).unbind(-1)
    return Views(z, torch.ones_like(u), torch.zeros_like(u), u, low, high, energy, len(u))


def _none(echoes: Echoes) -> Views:
    """No view at all of these echoes."""
    empty = echoes.y.real.new_zeros(0)
    energy = None if echoes.energy is None else empty
    return Views(echoes.y.new_zeros(0, echoes.num_rx_ant), empty, empty, empty, empty, empty, energy, 0)


def recentred(
    views: Views, k: Complex[Tensor, " rx"], positions: Float[Tensor, " rx"], limit: float, margin_u: float
) -> Views:
    """The views turned to the continuous maximum over u nearby (at most `limit` away, within the sector and margin).

    Over so short a way a spherical wave turns as a plane one does.
    """
    d = climbed(views.z * k.conj(), positions, torch.zeros_like(views.u), limit)
    u = torch.minimum(torch.maximum(views.u + d, views.low - margin_u), views.high + margin_u)
    return turned(views, u - views.u, k, positions)


def turned(views: Views, d: Tensor, k: Complex[Tensor, " rx"], positions: Float[Tensor, " rx"]) -> Views:
    """The views with all angles larger by d."""
    angle = -2 * math.pi * positions * d[:, None]
    z = views.z * torch.complex(angle.cos(), angle.sin())
    return replace(views, z=z, u=views.u + d, statistic=squared(z @ k.conj()) / squared(k).sum())


def cell_of(positions: Float[Tensor, " rx"]) -> float:
    """The array's resolution in u, 1 / aperture. ValueError for one antenna, whose gain no echo tells."""
    aperture = float(positions.max() - positions.min())
    if not aperture > 0:
        raise ValueError(f"calibrate: expected at least two antennas apart from each other, got {len(positions)}")
    return 1 / aperture


def line_of(echoes: Echoes) -> Float[Tensor, " rx"]:
    """The antennas' positions in wavelengths, in the real precision of y."""
    return positions_of(echoes).to(echoes.y.real)
