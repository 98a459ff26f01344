"""Laws beyond single specular paths: rays of a cluster, clusters of a CDL profile, and who on the array sees them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hhat.random import complex_normal
from hhat.scenarios import cdl_law
from hhat.scenarios.cdl_tables import PROFILES
from hhat.scenarios.near_field_parts import LIGHT_M_PER_S, Paths, paths_at, uniform

NEAREST_SHARE = 0.1
"""No ray comes nearer than this share of its cluster's range, however wide the spread."""


def rays_of(
    paths: Paths, num_rays: int, spread: tuple[float, float], carrier_hz: float | int, gen: torch.Generator
) -> Paths:
    """Every path as `num_rays` rays around it, (n, path num_rays), one cluster after the other.

    angle = that of the path + N(0, spread[0]^2) rad, range = its range + N(0, spread[1]^2) m, delay by the range.
    Gains are independent CN(0, power of the path / num_rays), drawn given that they add up to the path's: the law is
    that of independent rays, and without spread the channel is that of the path.
    """
    n, count = paths.gain.shape
    offset = torch.randn(2, n, count, num_rays, generator=gen, dtype=torch.float64)
    own = complex_normal((n, count, num_rays), gen, var=1 / (count * num_rays))
    gain = own - own.mean(-1, keepdim=True) + paths.gain[..., None] / num_rays
    angle = paths.angle_rad[..., None] + spread[0] * offset[0]
    distance = _apart(paths.range_m[..., None], spread[1] * offset[1])
    return paths_at(angle.flatten(1), distance.flatten(1), gain.flatten(1), carrier_hz)


def cdl_paths(
    n: int,
    profile: str,
    delay_spread_s: float | int,
    range_m: tuple[float | int, float | int],
    range_spread_m: float | int,
    carrier_hz: float | int,
    gen: torch.Generator,
) -> tuple[Paths, Tensor]:
    """The rays of a CDL profile on the line array, (n, path), and the cluster of each, (path).

    Powers, delays (times `delay_spread_s`), mean angles and their spreads are the table's; the array is the base
    station's end (departure angles; the uplink is its mirror), a horizontal line turned by U(-60, 60) degrees, so that
    cos(angle to the axis) = sin(zenith) sin(azimuth - yaw). Phases are uniform, azimuths and zeniths coupled at random.
    The table has no ranges. Here the user is at d ~ U(range_m); a cluster's way is d + c delay; the source of its
    wavefronts, the last scatterer, is uniform between the least range and the shorter of that way and the largest
    range; its rays have that range + N(0, range_spread_m^2). The specular path of D and E comes from d itself.
    Source: TR 38.901 tables 7.7.1-1 to -5; the law of the ranges is this project's.
    """
    table = PROFILES[profile]
    _, tx = cdl_law.ends(profile, "horizontal", "rotated")
    clusters, rays = tx.azimuth.shape
    num_los = tx.los_azimuth.numel()
    in_order = torch.arange(rays).expand(n, clusters, rays)
    coupling = torch.rand(n, clusters, rays, generator=gen).argsort(-1)
    turn = 2 * torch.rand(n, 1, generator=gen, dtype=torch.float64) - 1
    angle = tx.cosines(in_order, coupling, turn).clamp(-1, 1).acos()
    user = uniform((n, 1), range_m, gen)
    rows = (*table.clusters, *([table.los] if table.los else []))
    way = user + LIGHT_M_PER_S * delay_spread_s * torch.tensor([row.delay for row in rows], dtype=torch.float64)
    share = torch.rand(n, clusters, generator=gen, dtype=torch.float64)
    source = range_m[0] + share * (way[:, :clusters].clamp_max(range_m[1]) - range_m[0])
    offset = range_spread_m * torch.randn(n, clusters, rays, generator=gen, dtype=torch.float64)
    distance = torch.cat([_apart(source[..., None], offset).flatten(1), user.expand(n, num_los)], 1)
    cluster = torch.cat([torch.arange(clusters).repeat_interleave(rays), torch.arange(clusters, clusters + num_los)])
    phase = 2 * math.pi * torch.rand(n, len(cluster), generator=gen, dtype=torch.float64)
    gain = torch.polar(cdl_law.amplitudes(profile).expand(n, -1), phase).to(torch.complex64)
    return paths_at(angle, distance, gain, carrier_hz, way[:, cluster] / LIGHT_M_PER_S), cluster


def region_of(
    shape: tuple[int, int], num_ant: int, min_share: float | int, gen: torch.Generator
) -> tuple[Float[Tensor, "n cluster"], Float[Tensor, "n cluster"]]:
    """First and last antenna (not whole numbers) that see each cluster: a run whose share of the array is uniform from
    min_share to 1, anywhere on it. Nothing is drawn where all see all."""
    if min_share == 1:
        return torch.zeros(shape, dtype=torch.float64), torch.full(shape, float(num_ant), dtype=torch.float64)
    length = num_ant * uniform(shape, (min_share, 1.0), gen)
    first = (num_ant - length) * torch.rand(shape, generator=gen, dtype=torch.float64)
    return first, first + length


def hidden(paths: Paths, num_ant: int) -> bool:
    """Is there a path that some antenna does not see in full?"""
    if paths.first_ant is None or paths.last_ant is None:
        return False
    return bool((paths.first_ant > 0).any()) or bool((paths.last_ant < num_ant).any())


def visibility(
    paths: Paths, num_ant: int, edge_ant: float | int, hidden_loss_db: float | int
) -> Float[Tensor, "n path ant"]:
    """Amplitude with which each antenna sees each path: 1 on the path's run, falling as a raised cosine over `edge_ant`
    antennas beyond it to 10^(-hidden_loss_db / 20); scaled so that a path keeps its power, averaged over the array.

    Source: this project's, the simplest law with a run and a soft edge. TR 38.901 V19 clause 7.6.14 also attenuates
    paths antenna by antenna, from a visibility probability and a visibility region per cluster (Xu et al., arXiv
    2506.17887); its numbers are not used here.
    """
    if paths.first_ant is None or paths.last_ant is None:
        return torch.ones(*paths.gain.shape, num_ant)
    middle = torch.arange(num_ant, dtype=torch.float64) + 0.5
    outside = torch.maximum(paths.first_ant[..., None] - middle, middle - paths.last_ant[..., None]).clamp_min(0)
    far = outside / edge_ant if edge_ant else torch.where(outside > 0, 1.0, 0.0)
    floor = 10 ** (-hidden_loss_db / 20)
    amplitude = floor + (1 - floor) * (1 + (math.pi * far.clamp_max(1)).cos()) / 2
    return (amplitude * amplitude.square().mean(-1, keepdim=True).rsqrt()).to(torch.float32)


def _apart(centre: Tensor, offset: Tensor) -> Tensor:
    return torch.maximum(centre + offset, NEAREST_SHARE * centre)
