"""A method by its name, set up for a given observation: the prior and the basis that fit the channel's axes."""

import inspect
from collections.abc import Mapping
from typing import Any, get_args

import torch

from hhat import registry
from hhat.methods.auto import ARRAY, Auto, Choice, basis_for
from hhat.methods.base import Method, axis_numbers
from hhat.methods.hybrid import Hybrid
from hhat.methods.nomp import Nomp
from hhat.methods.nomp_paths import line_paths
from hhat.methods.sbl import Sbl
from hhat.ops import Hops, Kron
from hhat.priors.base import Prior
from hhat.priors.trained import trained
from hhat.settings import typed
from hhat.types import About, Observation

DEFAULT_PRIOR = {
    "lasso": "gauss",
    "omp": "gauss",
    "gamp": "pattern-coupled",
    "oamp": "pattern-coupled",
    "oamp-decentralised": "pattern-coupled",
    "sbl": "gauss",
    "sbl-cnn": "gauss",
    "sbl-gnn": "gauss",
    "uamp": "pattern-coupled",
    "off-grid": "gauss",
    "sparse-tracking": "gauss",
    "autoregressive-tracking": "gauss",
}
"""What a sparse method takes where no prior is named; lasso, omp and sbl use its basis alone."""
HALF_WAVE = 0.5
FROM_FILES = (None, "covariance", "experts")
"""Priors that `--weights` gives whole: the file says of what kind it is"""
EVEN = 1e-3
"""Wavelengths by which the elements of a line may be off"""
FITTED = ("prior", "basis", "ndim", "model", "paths", "rest")
"""Settings that are made here and cannot be given."""


def method_for(
    name: str,
    obs: Observation,
    about: About | None = None,
    prior_name: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Method:
    """`choice_for(...).method`: the registered method, set up for this observation."""
    return choice_for(name, obs, about, prior_name, settings).method


def choice_for(
    name: str,
    obs: Observation,
    about: About | None = None,
    prior_name: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Choice:
    """The registered method with the prior and basis that fit the observation's axes, and why these.

    Delays for subcarriers, angles for arrays (`basis_for`). Without `prior_name` a sparse method takes its
    DEFAULT_PRIOR; ls and rls take none, lmmse a white one of learned power, auto chooses itself.
    about:    gives the tones' indices, where they are not contiguous
    settings: of the method and of its prior, text or values; the method's name wins where both have it
    Raises ValueError for unknown names and settings, with the list of known ones.
    """
    if name == "auto" and prior_name is None and not settings:
        found = _hopping(obs, about) or _line_array(obs, about)
        if found is not None:
            return found
    target = registry.load("methods", name)
    takes = inspect.signature(target).parameters
    if prior_name is not None and "prior" not in takes:
        raise ValueError(f"{name}: takes no prior, got '{prior_name}'")
    if "prior" in takes and "weights" not in takes and "weights" in (settings or {}) and prior_name in FROM_FILES:
        return _from_files(name, target, dict(settings or {}))
    chosen = prior_name or DEFAULT_PRIOR.get(name)
    prior_target = None if chosen is None else registry.load("priors", chosen)
    theirs = () if prior_target is None else inspect.signature(prior_target).parameters
    given = dict(settings or {})
    used = getattr(target, "uses_prior", False)
    known = [key for key in dict.fromkeys([*takes, *(theirs if used else ())]) if key not in FITTED]
    for key in given:
        if key not in known:
            raise ValueError(f"{name}: unknown setting '{key}'; there are: {' '.join(known) or 'none'}")
    mine = {key: value for key, value in given.items() if key in takes}
    if isinstance(mine.get("m_step"), str):
        mine["m_step"] = registry.build("m-steps", mine["m_step"], {})
    tones = None if about is None else about.subcarriers
    if "profiles" in takes and about is not None and not _half_wave(about.geometry, obs.axes or ()):
        mine.setdefault("profiles", False)
    if "subcarriers" in takes:
        mine.setdefault("subcarriers", tones)
    why = "asked for"
    if "model" in takes or "paths" in takes:
        mine |= _with_paths(takes, obs, about)
    if chosen is not None:
        axes = obs.axes or ("ant",) * len(obs.op.in_shape)
        basis, tied, words = basis_for(tuple(obs.op.in_shape), axes, tones)
        defaults: dict[str, Any] = {"basis": basis} if "basis" in theirs else {}
        if chosen == "gauss":
            defaults |= {"learnable": True, "tied_axes": tied or None}
        rest = {key: value for key, value in given.items() if key not in takes}
        mine["prior"] = _prior(chosen, prior_target, obs, defaults | rest)
        if target is Sbl:
            mine.setdefault("tied_axes", tied)
        told = [f"prior {chosen}"] if used else []
        why = "; ".join(["asked for", *told, *([words] if "basis" in theirs else [])])
    return Choice(registry.build("methods", name, _named(name, target, mine)), name, why)


def _from_files(name: str, target: Any, settings: dict[str, Any]) -> Choice:
    """The method with the prior that files of weights hold; several, with commas between, are experts."""
    files = str(settings.pop("weights")).split(",")
    mine = _named(name, target, {**settings, "prior": trained([file.strip() for file in files])})
    return Choice(registry.build("methods", name, mine), name, f"asked for; prior of {', '.join(files)}")


def _with_paths(takes: Mapping[str, Any], obs: Observation, about: About | None) -> dict[str, Any]:
    """The path model that fits the axes, with the frequencies that the file tells, for `nomp` or the halves of
    `hybrid`.

    A setting `model` whose type has `of(about, num_rx_ant)` says itself how it is read off a capture (`Sounding`).
    """
    own = [kind for kind in get_args(getattr(takes.get("model"), "annotation", None)) if hasattr(kind, "of")]
    if own:
        return {"model": own[0].of(about or About(), obs.op.in_shape[0])}
    model = line_paths(tuple(obs.op.in_shape), obs.axes, about)
    if "model" in takes:
        return {"model": model}
    return {"paths": Nomp(model), "rest": Auto(subcarriers=None if about is None else about.subcarriers)}


def _hopping(obs: Observation, about: About | None) -> Choice | None:
    """`joint-ml` for pilots that hop over the band, where the file tells the law; nothing else goes beyond the tones
    that are seen."""
    if not (isinstance(obs.op, Kron) and isinstance(obs.op.right, Hops)):
        return None
    target = registry.load("methods", "joint-ml")
    told = _with_paths(inspect.signature(target).parameters, obs, about)
    if told["model"] is None:
        return None
    symbols, tones = obs.op.right.in_shape
    words = f"pilots hop over {tones} tones in {symbols} symbols: paths common to all symbols"
    return Choice(target(**told), "joint-ml", words)


def _line_array(obs: Observation, about: About | None) -> Choice | None:
    """`hybrid` for a long line array over tones whose frequencies the file tells: nowhere more than 0.2 dB behind
    coefficients alone, 1 to 16 dB ahead where paths stand out (`hhat bench xl-mimo/clusters`)."""
    if about is None or not {"carrier_hz", "subcarrier_spacing_hz"} <= about.constants.keys():
        return None
    axes = obs.axes or ()
    if len(axes) != 2 or axes[1] != "subcarrier" or not _is_line(about.geometry.get(axes[0]), obs.op.in_shape[0]):
        return None
    words = f"{obs.op.in_shape[0]} antennas in a line, {obs.op.in_shape[1]} subcarriers: paths, and what they leave"
    return Choice(Hybrid(**_with_paths({"paths": None}, obs, about)), "hybrid", words)


def _half_wave(geometry: Mapping[str, Any], axes: tuple[str, ...]) -> bool:
    """Are the axes whose elements are told lines of half-wavelength steps?"""
    told = [geometry[axis] for axis in axes if axis in geometry]
    steps = [torch.as_tensor(points).double().diff(dim=0)[:1].norm() for points in told]
    lines = all(_is_line(points, len(points)) for points in told)
    return lines and all(abs(float(step) - HALF_WAVE) < EVEN for step in steps)


def _is_line(positions: Any, size: int) -> bool:
    """Evenly spaced positions of an array long enough to resolve angles."""
    if positions is None or size < ARRAY:
        return False
    steps = torch.as_tensor(positions).double().diff(dim=0)
    if len(steps) != size - 1 or not bool(steps[0].norm() > EVEN):  # all in one place, or not told
        return False
    return bool(torch.allclose(steps, steps[:1].expand_as(steps), atol=EVEN))


def _prior(name: str, target: Any, obs: Observation, settings: dict[str, Any]) -> Prior:
    if isinstance(settings.get("tied_axes"), str):
        # priors know numbers alone, a user the names of axes
        named = typed(Sbl, {"tied_axes": settings["tied_axes"]})["tied_axes"]
        settings = settings | {"tied_axes": axis_numbers("tied_axes", named, obs.axes, len(obs.op.in_shape))}
    return registry.build("priors", name, _named(name, target, settings))


def _named(name: str, target: Any, settings: dict[str, Any]) -> dict[str, Any]:
    try:
        return typed(target, settings)
    except ValueError as wrong:
        raise ValueError(f"{name}: {wrong}") from None
