"""The closed-form rivals of the figures on experts: covariances of the profiles, mixed by evidence or pooled."""

import functools
from collections.abc import Callable
from typing import Any

import torch

import hhat
from hhat.experiments import experts
from hhat.experiments.experts_later import Later
from hhat.experiments.start_demo import angles, known_covariance
from hhat.ops import Dense
from hhat.priors.experts import Experts
from hhat.priors.fit_gauss import fit_covariance, fit_mixture, fit_variances, pooled
from hhat.random import generator
from hhat.scenarios.cdl import Cdl
from hhat.scenarios.cdl_rays import cluster_rays

TRAINED = 3000
"""Channels of each profile that the fitted mixtures have seen, generator("experts", "fit", profile)"""
COMPONENTS = 16
COUNTS = (1000, 4000, 10000)
"""Channels behind a sample covariance: as few as of the scarce profile, some, as many as of the others"""


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


def _mixture(prior: Callable[..., Experts], *settings: Any) -> Any:
    return hhat.method("covariance-mixture", prior=prior(*settings))


def _lmmse(prior: Callable[..., Any], *settings: Any) -> Any:
    return hhat.method("lmmse", prior=prior(*settings))


def _key(scene: Cdl) -> tuple[int, int, str, str]:
    return scene.num_rx_ant, scene.num_tx_ant, scene.axis, scene.geometry


def covariance_mixture(scene: Cdl) -> Any:
    """Knows the four profiles, not which one holds."""
    return Later(_mixture, (covariances, *_key(scene)))


def pooled_lmmse(scene: Cdl) -> Any:
    """The mean of the four covariances: the linear counterpart of one model for all."""
    return Later(_lmmse, (_pooled, *_key(scene)))


def angular_mixture(scene: Cdl) -> Any:
    """One angular-diagonal Gaussian per profile."""
    return Later(_mixture, (_fitted, *_key(scene), 1))


def angular_em_mixture(scene: Cdl) -> Any:
    """COMPONENTS angular-diagonal Gaussians per profile, by EM."""
    return Later(_mixture, (_fitted, *_key(scene), COMPONENTS))


def lmmse(scene: Cdl) -> Any:
    """Knows the profile and its exact covariance."""
    return Later(_lmmse, (known_covariance, scene.profile, *_key(scene)))


def known_mean(scene: Cdl) -> Any:
    """Knows the profile, and the specular path where its phase is constant: CN(m, C - m m^H), m = E h."""
    if scene.los_phase == "random":
        return lmmse(scene)
    return Later(_lmmse, (_centred, scene.profile, *_key(scene)))


@functools.lru_cache(maxsize=2)
def _centred(profile: str, num_rx_ant: int, num_tx_ant: int, axis: str, geometry: str) -> Any:
    """m stands as one coefficient more, of mean 1 and variance 0, in the basis [(C - m m^H)^1/2, m]."""
    scene = Cdl(
        profile=profile,
        num_rx_ant=num_rx_ant,
        num_tx_ant=num_tx_ant,
        axis=axis,
        geometry=geometry,
        los_phase="constant",
    )
    truth = scene.draw(1, generator("experts", "specular path")).truth
    left, right = scene.steering(truth.rx_cosine[:, -1:], truth.tx_cosine[:, -1:])
    m = (scene.path_amplitudes()[-1] * left[0].mT @ right[0]).flatten()
    rest = hhat.prior("covariance", matrix=scene.covariance() - m[:, None] * m.conj(), shape=(m.numel(),))
    basis = Dense(torch.cat([rest.basis.matrix, m[:, None]], 1), out_shape=(num_rx_ant, num_tx_ant))
    last = torch.zeros(m.numel() + 1)
    last[-1] = 1
    return hhat.prior("gauss", var=1 - last, mean=last, basis=basis)


@functools.lru_cache(maxsize=4)
def _rays(profile: str, num_rx_ant: int, num_tx_ant: int, axis: str) -> Any:
    return cluster_rays(Cdl(profile=profile, num_rx_ant=num_rx_ant, num_tx_ant=num_tx_ant, axis=axis))


def ray_coupling(scene: Cdl) -> Any:
    """Knows the profile's table of rays; finds their coupling from y."""
    return hhat.method("ray-coupling", rays=_rays(scene.profile, scene.num_rx_ant, scene.num_tx_ant, scene.axis))


@functools.lru_cache(maxsize=4)
def _drawn(profile: str, num_rx_ant: int, num_tx_ant: int, axis: str, geometry: str, count: int) -> Any:
    """The sample covariance of `count` channels, shrunk by the rule of thumb."""
    scene = Cdl(profile=profile, num_rx_ant=num_rx_ant, num_tx_ant=num_tx_ant, axis=axis, geometry=geometry)
    return fit_covariance(scene.channels(count, generator("experts", "fit", profile)))


@functools.lru_cache(maxsize=4)
def _sampled(key: tuple[int, int, str, str], counts: tuple[int, ...]) -> Experts:
    """One expert per profile: of a sample covariance, or of the exact one (count 0)."""
    exact = covariances(*key).experts
    pairs = zip(experts.PROFILES, counts, exact, strict=True)
    return Experts([_drawn(p, *key, n) if n else known for p, n, known in pairs], names=experts.PROFILES)


def sampled_mixture(count: int) -> Callable[[Cdl], Any]:
    """The four profiles, each by `count` channels."""
    return lambda scene: Later(_mixture, (_sampled, _key(scene), (count,) * len(experts.PROFILES)))


def scarce_mixture(count: int) -> Callable[[Cdl], Any]:
    """The scene's own profile by `count` channels, the others exactly."""

    def build(scene: Cdl) -> Any:
        counts = tuple(count if profile == scene.profile else 0 for profile in experts.PROFILES)
        return Later(_mixture, (_sampled, _key(scene), counts))

    return build


def scarce_angular(scene: Cdl) -> Any:
    """Angular powers: of 1,000 channels of the scene's own profile, 10,000 of each other."""
    return Later(_mixture, (_angular, _key(scene), scene.profile))


@functools.lru_cache(maxsize=8)
def _angular(key: tuple[int, int, str, str], scarce: str) -> Experts:
    found = []
    for profile in experts.PROFILES:
        scene = Cdl(profile=profile, num_rx_ant=key[0], num_tx_ant=key[1], axis=key[2], geometry=key[3])
        h = scene.channels(COUNTS[0] if profile == scarce else COUNTS[-1], generator("experts", "fit", profile))
        found.append(fit_variances(h, angles(*key[:2])))
    return Experts(found, names=experts.PROFILES)


METHODS = {
    "covariance-mixture": covariance_mixture,
    "pooled-lmmse": pooled_lmmse,
    "angular-mixture": angular_mixture,
}
SAMPLED = {f"covariance-mixture-{count}": sampled_mixture(count) for count in COUNTS}
SCARCE = {f"covariance-mixture-{count}": scarce_mixture(count) for count in COUNTS}
