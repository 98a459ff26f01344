"""The closed-form rivals of the figures on experts: covariances of the profiles, mixed by evidence or pooled."""

import functools
from typing import Any

import hhat
from hhat.experiments import experts
from hhat.experiments.start_demo import angles, known_covariance
from hhat.priors.experts import Experts
from hhat.priors.fit_gauss import fit_mixture, fit_variances, pooled
from hhat.random import generator
from hhat.scenarios.cdl import Cdl
from hhat.scenarios.cdl_rays import cluster_rays

TRAINED = 3000
"""Channels of each profile that the fitted mixtures have seen, generator("experts", "fit", profile)"""
COMPONENTS = 16


@functools.lru_cache(maxsize=4)
def covariances(num_rx_ant: int, num_tx_ant: int, axis: str, geometry: str) -> Experts:
    """One expert per profile, its exact covariance."""
    given = [_covariance(name, num_rx_ant, num_tx_ant, axis, geometry) for name in experts.PROFILES]
    return Experts(given, names=experts.PROFILES)


def _covariance(profile: str, num_rx_ant: int, num_tx_ant: int, axis: str, geometry: str) -> Any:
    scene = Cdl(profile=profile, num_rx_ant=num_rx_ant, num_tx_ant=num_tx_ant, axis=axis, geometry=geometry)
    return hhat.prior("covariance", matrix=scene.covariance(), shape=(num_rx_ant, num_tx_ant))


@functools.lru_cache(maxsize=4)
def _pooled(num_rx_ant: int, num_tx_ant: int, axis: str, geometry: str) -> Any:
    return pooled(covariances(num_rx_ant, num_tx_ant, axis, geometry).experts)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=8)
def _fitted(num_rx_ant: int, num_tx_ant: int, axis: str, geometry: str, components: int) -> Experts:
    """Angular-diagonal experts of each profile: one, or a mixture by EM."""
    basis = angles(num_rx_ant, num_tx_ant)
    found: list[Any] = []
    for profile in experts.PROFILES:
        scene = Cdl(profile=profile, num_rx_ant=num_rx_ant, num_tx_ant=num_tx_ant, axis=axis, geometry=geometry)
        gen = generator("experts", "fit", profile)
        h = scene.channels(TRAINED, gen)
        found.append(fit_variances(h, basis) if components == 1 else fit_mixture(h, components, gen, basis))
    return Experts(found, names=experts.PROFILES)


def _key(scene: Cdl) -> tuple[int, int, str, str]:
    return scene.num_rx_ant, scene.num_tx_ant, scene.axis, scene.geometry


def covariance_mixture(scene: Cdl) -> Any:
    """Knows the four profiles, not which one holds."""
    return hhat.method("covariance-mixture", prior=covariances(*_key(scene)))


def pooled_lmmse(scene: Cdl) -> Any:
    """The mean of the four covariances: the linear counterpart of one model for all."""
    return hhat.method("lmmse", prior=_pooled(*_key(scene)))


def angular_mixture(scene: Cdl) -> Any:
    """One angular-diagonal Gaussian per profile."""
    return hhat.method("covariance-mixture", prior=_fitted(*_key(scene), 1))


def angular_em_mixture(scene: Cdl) -> Any:
    """COMPONENTS angular-diagonal Gaussians per profile, by EM."""
    return hhat.method("covariance-mixture", prior=_fitted(*_key(scene), COMPONENTS))


def lmmse(scene: Cdl) -> Any:
    """Knows the profile and its exact covariance."""
    return hhat.method("lmmse", prior=known_covariance(scene.profile, *_key(scene)))


@functools.lru_cache(maxsize=4)
def _rays(profile: str, num_rx_ant: int, num_tx_ant: int, axis: str) -> Any:
    return cluster_rays(Cdl(profile=profile, num_rx_ant=num_rx_ant, num_tx_ant=num_tx_ant, axis=axis))


def ray_coupling(scene: Cdl) -> Any:
    """Knows the profile's table of rays; finds their coupling from y."""
    return hhat.method("ray-coupling", rays=_rays(scene.profile, scene.num_rx_ant, scene.num_tx_ant, scene.axis))


METHODS = {
    "covariance-mixture": covariance_mixture,
    "pooled-lmmse": pooled_lmmse,
    "angular-mixture": angular_mixture,
}
