"""The law of a CDL profile seen by two half-wavelength uniform linear arrays: directions, powers, covariance."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hhat.priors.cdl_tables import PROFILES, RAY_OFFSETS_DEG, Cluster

TX_FACING_RAD = 0.0
RX_FACING_RAD = math.pi
"""Azimuth of each array's broadside in the fixed geometry: they face each other, as in Sionna's default."""
TX_YAW_RAD = math.pi / 3
RX_YAW_RAD = math.pi
"""Rotated geometry: each array is turned by U(-yaw, yaw) about the vertical (diffusion_experts section 2.1)."""


@dataclass(frozen=True, eq=False)
class End:
    """The angles (radians) under which one end of the link sees the rays, before the random coupling."""

    azimuth: Float[Tensor, "clusters rays"]
    zenith: Float[Tensor, "clusters rays"]
    los_azimuth: Float[Tensor, " los"]
    los_zenith: Float[Tensor, " los"]
    """One entry for the specular path of D and E, none for A, B, C"""
    facing: float
    yaw: float
    """Half the range of the random yaw; 0 in the fixed geometry"""
    axis: str

    def cosines(
        self,
        azimuth_order: Int[Tensor, "n clusters rays"],
        zenith_order: Int[Tensor, "n clusters rays"],
        turn: Float[Tensor, "n 1"],
    ) -> Float[Tensor, "n paths"]:
        """u of every path, the specular one last, for a coupling and a turn in -1..1 of the yaw's range."""
        yaw = self.facing + self.yaw * turn
        azimuth = self.azimuth.expand_as(azimuth_order).gather(-1, azimuth_order)
        zenith = self.zenith.expand_as(zenith_order).gather(-1, zenith_order)
        los = direction_cosine(self.los_azimuth, self.los_zenith, yaw, self.axis).expand(len(turn), -1)
        return torch.cat([direction_cosine(azimuth.flatten(1), zenith.flatten(1), yaw, self.axis), los], 1)


def direction_cosine(
    azimuth: Float[Tensor, "..."], zenith: Float[Tensor, "..."], yaw: Float[Tensor, "..."], axis: str
) -> Float[Tensor, "..."]:
    """u of exp(j pi n u): the ray's unit vector along the array, whose broadside has the azimuth `yaw`.

    horizontal (elements along +y of the array): u = sin(zenith) sin(azimuth - yaw); vertical (+z): u = cos(zenith).
    """
    return zenith.sin() * (azimuth - yaw).sin() if axis == "horizontal" else zenith.cos()


def ends(profile: str, axis: str, geometry: str, dtype: torch.dtype = torch.float64) -> tuple[End, End]:
    """(receiver, transmitter) of a profile."""
    table = PROFILES[profile]
    offsets = torch.tensor(RAY_OFFSETS_DEG, dtype=torch.float64)
    turn = geometry == "rotated"

    def rays(column: str, spread: float) -> Tensor:
        centre = torch.tensor([getattr(c, column) for c in table.clusters], dtype=torch.float64)
        return torch.deg2rad(centre[:, None] + spread * offsets).to(dtype)  # (7.7-0a)

    def specular(column: str) -> Tensor:
        angle = [getattr(table.los, column)] if table.los else []
        return torch.deg2rad(torch.tensor(angle, dtype=torch.float64)).to(dtype)

    rx = End(
        azimuth=rays("aoa_deg", table.spreads.asa),
        zenith=rays("zoa_deg", table.spreads.zsa),
        los_azimuth=specular("aoa_deg"),
        los_zenith=specular("zoa_deg"),
        facing=RX_FACING_RAD,
        yaw=RX_YAW_RAD * turn,
        axis=axis,
    )
    tx = End(
        azimuth=rays("aod_deg", table.spreads.asd),
        zenith=rays("zod_deg", table.spreads.zsd),
        los_azimuth=specular("aod_deg"),
        los_zenith=specular("zod_deg"),
        facing=TX_FACING_RAD,
        yaw=TX_YAW_RAD * turn,
        axis=axis,
    )
    return rx, tx


def powers(profile: str) -> tuple[Float[Tensor, " clusters"], Float[Tensor, " los"]]:
    """Linear powers of the clusters and of the specular path; together they are 1, so that E|h_ij|^2 = 1 exactly."""
    table = PROFILES[profile]

    def linear(rows: tuple[Cluster, ...]) -> Tensor:
        return 10 ** (torch.tensor([row.power_db for row in rows], dtype=torch.float64) / 10)

    clusters, los = linear(table.clusters), linear((table.los,) if table.los else ())
    total = clusters.sum() + los.sum()
    return clusters / total, los / total


def amplitudes(profile: str) -> Float[Tensor, " paths"]:
    """Modulus of every path's gain: the rays of a cluster share its power equally; the specular path is last."""
    clusters, los = powers(profile)
    rays = len(RAY_OFFSETS_DEG)
    return torch.cat([(clusters / rays).repeat_interleave(rays), los]).sqrt()


def covariance(
    profile: str, num_rx_ant: int, num_tx_ant: int, axis: str, geometry: str
) -> Complex[Tensor, "entries entries"]:
    """Exact C = E vec(H) vec(H)^H of a profile, vec(H) = h.reshape(rx * tx) (tx fastest), complex128.

    C = sum_l P_l (R_r,l kron R_t,l), R = E a a^H over the rays of cluster l at one end. The phases of the rays are
    independent, so rays do not mix; the coupling redraws which azimuth, zenith, departure and arrival belong together,
    so within a cluster all four are independent. The specular path is one more term (its phase cancels, random or
    not); a random yaw is averaged at each end by itself (diffusion_experts section 0.2).
    """
    rx, tx = ends(profile, axis, geometry)
    weights = torch.cat(powers(profile))
    left, right = _toeplitz(_lags(rx, num_rx_ant)), _toeplitz(_lags(tx, num_tx_ant))
    size = num_rx_ant * num_tx_ant
    return torch.einsum("lab,lcd->acbd", weights[:, None, None] * left, right).reshape(size, size)


def _lags(end: End, num_ant: int) -> Complex[Tensor, "terms lags"]:
    """E exp(j pi k u), k = 0..num_ant-1, of each cluster, and last of the specular path where there is one."""
    yaw, weight = _yaw_nodes(end, num_ant)
    clusters = zip(end.azimuth, end.zenith, strict=True)
    terms = [(a.repeat(z.numel()), z.repeat_interleave(a.numel())) for a, z in clusters]
    terms += [(end.los_azimuth, end.los_zenith)] * end.los_azimuth.numel()
    lags = torch.ones(len(terms), num_ant, dtype=torch.complex128)
    for row, (azimuth, zenith) in zip(lags, terms, strict=True):
        u = direction_cosine(azimuth, zenith, yaw[:, None], end.axis).expand(len(yaw), -1)
        step = torch.polar(torch.ones_like(u), math.pi * u)
        power = torch.ones_like(step)
        for lag in range(1, num_ant):
            power = power * step
            row[lag] = (weight * power.mean(-1)).sum()
    return lags


def _yaw_nodes(end: End, num_ant: int) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
    """Gauss-Legendre nodes and weights of the yaw's uniform law; one node where it is fixed."""
    if end.yaw == 0:
        return torch.tensor([end.facing], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    # exp(j pi (num_ant - 1) u) turns at most 2 num_ant times over a full circle; the rule needs pi nodes a turn
    nodes, weights = np.polynomial.legendre.leggauss(64 + 8 * num_ant)
    return end.facing + end.yaw * torch.from_numpy(nodes), torch.from_numpy(weights / 2)


def _toeplitz(lags: Complex[Tensor, "terms lags"]) -> Complex[Tensor, "terms lags lags"]:
    """R_nm = r(n - m), r(-k) = r(k)*."""
    num_ant = lags.shape[1]
    both = torch.cat([lags[:, 1:].flip(1).conj(), lags], 1)
    n = torch.arange(num_ant)
    return both[:, n[:, None] - n + num_ant - 1]
