"""What `ray-coupling` needs to know of a CDL profile: the angles of its table, no draw."""

import math

import torch
from torch import Tensor

from hhat.priors.cluster_rays import ClusterRays
from hhat.scenarios import cdl_law
from hhat.scenarios.cdl import Cdl


def cluster_rays(scene: Cdl, bins: tuple[int, int] = (2, 4)) -> ClusterRays:
    """The profile between fixed arrays, the zeniths of a cluster in `bins` groups of equal size at receiver and
    transmitter, ordered by sin(zenith): all that a horizontal array sees of them.

    A vertical array sees zeniths alone: they take the azimuths' place, in one bin.
    Raises ValueError for rotated geometry, whose yaw is unknown, and bins that do not divide the rays.
    """
    if scene.geometry != "fixed":
        raise ValueError(f"cluster rays: expected geometry 'fixed', got '{scene.geometry}'")
    rx, tx = cdl_law.ends(scene.profile, scene.axis, scene.geometry)
    clusters, los = cdl_law.powers(scene.profile)
    left, los_left = _lags(rx, scene.num_rx_ant, bins[0])
    right, los_right = _lags(tx, scene.num_tx_ant, bins[1])
    fixed = None
    if len(los):
        both = torch.cat([los_right[..., 1:].flip(-1).conj(), los_right], -1)
        fixed = (los[:, None, None] * los_left[:, :, None] * both[:, None, :]).sum(0)
    return ClusterRays(clusters, left, right, rx.azimuth.shape[1], fixed)


def _lags(end: cdl_law.End, num_ant: int, bins: int) -> tuple[Tensor, Tensor]:
    """E exp(j pi k u) of the candidates (clusters, rays * bins, k), and of the specular path (1 or 0, k)."""
    rays = end.azimuth.shape[1]
    if bins < 1 or rays % bins:
        raise ValueError(f"cluster rays: bins: expected divisors of {rays}, got {bins}")
    facing = torch.tensor(end.facing, dtype=torch.float64)
    if end.axis == "vertical":
        u = cdl_law.direction_cosine(end.azimuth, end.zenith, facing, end.axis)[..., None, None]
    else:
        zenith = end.zenith.gather(-1, end.zenith.sin().argsort(-1)).unflatten(-1, (bins, -1))
        u = cdl_law.direction_cosine(end.azimuth[..., None, None], zenith[:, None], facing, end.axis)
    k = torch.arange(num_ant, dtype=torch.float64)
    phase = math.pi * u[..., None] * k
    los = math.pi * cdl_law.direction_cosine(end.los_azimuth, end.los_zenith, facing, end.axis)[:, None] * k
    return torch.polar(torch.ones_like(phase), phase).mean(-2).flatten(1, 2), torch.polar(torch.ones_like(los), los)
