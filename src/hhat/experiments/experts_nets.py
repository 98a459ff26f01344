"""`experts-vb` and the package's networks in the figures: one per profile or for all, by the sampler and in `oamp`."""

import functools
from collections.abc import Callable
from typing import Any

import hhat
from hhat.experiments import experts
from hhat.methods.expert_choice import Judgement
from hhat.priors.experts import Experts
from hhat.scenarios.cdl import Cdl

Build = Callable[[Cdl], Any]


@functools.lru_cache(maxsize=64)
def _network(name: str) -> Any:
    return hhat.prior("diffusion", weights=name)


@functools.lru_cache(maxsize=32)
def _mixture(names: tuple[str, ...]) -> Experts:
    return Experts([_network(name) for name in names], names=names, ndim=2)


def _names(scene: Cdl, scarce: bool) -> tuple[str, ...]:
    return tuple(experts.weights(scene, p, p if scarce and p == scene.profile else "") for p in experts.PROFILES)


def default(scene: Cdl) -> Any:
    """`experts-vb` without settings: the four covariances of fixed horizontal arrays, as `covariance-mixture` knows
    them; the evidence decides."""
    return hhat.method("experts-vb")


def networks(scene: Cdl, scarce: bool = False) -> Experts:
    """A network per profile; scarce: that of the scene's own profile has seen 1,000 channels."""
    return _mixture(_names(scene, scarce))


def single(scene: Cdl, scarce: bool = False) -> Any:
    """One network for all profiles; scarce: trained on 10,000 channels of each but 1,000 of the scene's own."""
    return _network(experts.weights(scene, "".join(experts.PROFILES), scene.profile if scarce else ""))


def paper(scene: Cdl, scarce: bool = False) -> Any:
    """Equal shares at first, weights as printed, the paper's sampler with "h0" residual."""
    return hhat.method(
        "experts-vb",
        prior=networks(scene, scarce),
        start="uniform",
        likelihood="dmps",
        judgement=Judgement(weights="printed"),
    )


def sampled(scene: Cdl, likelihood: str, scarce: bool = False) -> Any:
    """The expert that the evidence takes, by a sampler."""
    return hhat.method("experts-vb", prior=networks(scene, scarce), likelihood=likelihood)


def inside_oamp(scene: Cdl, scarce: bool = False) -> Any:
    """The experts that the evidence takes, each inside `oamp`."""
    return hhat.method("experts-vb", prior=networks(scene, scarce), inner="oamp")


def single_sampled(scene: Cdl, likelihood: str, scarce: bool = False) -> Any:
    return hhat.method("diffusion-posterior", prior=single(scene, scarce), likelihood=likelihood)


def single_oamp(scene: Cdl, scarce: bool = False) -> Any:
    return hhat.method("oamp", prior=single(scene, scarce))


def ldamp(scene: Cdl) -> Any:
    return hhat.method("ldamp")


def wgan(scene: Cdl) -> Any:
    return hhat.method("wgan")


def rows(scarce: bool = False) -> dict[str, Build]:
    """Labels and builders: the paper's two by its own sampler, then the same networks better used."""

    def of(build: Callable[..., Any], *settings: str) -> Build:
        return lambda scene: build(scene, *settings, scarce=scarce)

    return {
        experts.PROPOSED: of(paper),
        experts.SINGLE: of(single_sampled, "dmps"),
        "evidence-dmps": of(sampled, "dmps"),
        "evidence-variance-map": of(sampled, "variance-map"),
        "evidence-oamp": of(inside_oamp),
        "single-variance-map": of(single_sampled, "variance-map"),
        "single-oamp": of(single_oamp),
    }


EVIDENCE = ("evidence-dmps", "evidence-variance-map", "evidence-oamp")
RIVALS = {"ldamp": ldamp, "wgan": wgan}
"""The paper's learned rivals, of all profiles and fixed arrays"""
