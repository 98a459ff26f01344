"""What a near-field channel's estimate can reach: with known geometry, and with five real unknowns per path."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from hhat.methods.nomp_fit import Whitened, normal_at
from hhat.methods.nomp_paths import LinePaths
from hhat.ops import Dense
from hhat.ops.linalg import per_axis, squared
from hhat.ops.posterior import posterior
from hhat.scenarios.near_field import NearField, NearFieldChannel
from hhat.scenarios.near_field_parts import LIGHT_M_PER_S, Paths
from hhat.types import Gaussian, Observation, Slot

CHUNK_ENTRIES = 1 << 22
"""Path derivatives formed at a time (64 MB in complex128)."""


def path_model(scene: NearField, local: bool = False, curved: bool = True) -> LinePaths:
    """What `nomp` needs to know of the scenario: array, tones, carrier and the nearest range; no path of a draw.

    local: the array is that of one unit, its antennas counted from 0. curved: False: as if in the far field.
    """
    nearest = LIGHT_M_PER_S / scene.carrier_hz / (8 * scene.min_range_m)
    tones = tuple(range(scene.num_subcarriers))
    spacing = scene.bandwidth_hz / scene.num_subcarriers
    num_ant = scene.num_unit_ant if local else scene.num_rx_ant
    return LinePaths(num_ant, tones, spacing, scene.carrier_hz, curved, nearest)


def geometry(paths: Paths) -> tuple[Float[Tensor, "n path 3"], Tensor]:
    """Paths as `LinePaths` has them, and their gains in complex128."""
    return torch.stack([paths.psi, paths.phi, paths.delay_s], -1), paths.gain.to(torch.complex128)


def unit_geometry(scene: NearField, paths: Paths) -> tuple[Float[Tensor, "n unit path 3"], Tensor]:
    """The same paths as each unit sees them, counting its own antennas from 0: no approximation.

    With j = j0 + i: psi -> psi - 2 phi j0, delay -> delay - c / f_c, gain -> gain exp(j 2 pi c), c = psi j0 - phi j0^2.
    """
    first = scene.num_unit_ant * torch.arange(scene.num_unit, dtype=torch.float64)[:, None]
    psi, phi, delay = (value[:, None] for value in (paths.psi, paths.phi, paths.delay_s))
    cycles = (psi - phi * first) * first
    here = torch.stack([psi - 2 * phi * first, phi.expand_as(cycles), delay - cycles / scene.carrier_hz], -1)
    turn = torch.polar(torch.ones_like(cycles), 2 * math.pi * torch.remainder(cycles, 1.0))
    return here, paths.gain[:, None].to(torch.complex128) * turn


def path_lmmse(scene: NearField, slot: Slot, local: bool = False) -> Gaussian:
    """Genie geometry: the posterior of h where all paths are known but for their gains, CN(0, 1 / path).

    No estimator that has to find its paths reaches it: it knows three of five real unknowns per path.
    slot: a draw of the scene. local: from each unit's pilots alone, h (n, unit, N, subcarrier).
    """
    paths, obs = _paths(slot), _observed(scene, slot, local)
    means, vars_ = [], []
    for some in _chunks(scene, paths):
        s = scene.responses(paths.items(some))
        s = s.unflatten(-2, (scene.num_unit, -1)).movedim(2, 1) if local else s
        here = obs.op.lift(1).apply(s)  # type: ignore[attr-defined]
        lead, out = s.shape[:-3], tuple(obs.op.out_shape)
        seen, view = Dense(here.flatten(-2).mT), Dense(s.flatten(-2).mT)
        noise = _all(obs, some).flatten(-2)
        prior = Gaussian(s.new_zeros(()), torch.full_like(s.real[..., 0, 0], 1 / s.shape[-3]))
        found = posterior(seen, obs.y[some].reshape(*lead, math.prod(out)), prior, noise, view).belief
        means.append(found.mean.unflatten(-1, s.shape[-2:]))
        vars_.append(found.var.expand(found.mean.shape).unflatten(-1, s.shape[-2:]))
    return Gaussian(torch.cat(means), torch.cat(vars_))


def cramer_rao(scene: NearField, slot: Slot, local: bool = False) -> Float[Tensor, "n ..."]:
    """Least E|h_hat - h|^2 over the channel of an unbiased estimate: tr(J F^-1 J^H), float64, (n) or (n, unit).

    Five real unknowns per path (psi, phi, delay, complex gain), their number known; F = 2 Re(D^H D) / noise_var, D the
    derivatives of y and J those of h. Divided by |h|^2 it compares with an NMSE. An estimate that merges paths the
    bound keeps apart is biased and may lie below it. Source: Kay 1993, eqs. (3.30) and (15.52).
    Raises ValueError for exact wavefronts, which these five do not describe.
    """
    if scene.wavefront != "fresnel":
        raise ValueError(f"cramer_rao: expected wavefront 'fresnel', got '{scene.wavefront}'")
    paths, obs, model = _paths(slot), _observed(scene, slot, local), path_model(scene, local)
    bounds = []
    for some in _chunks(scene, paths):
        few = paths.items(some)
        theta, gain = unit_geometry(scene, few) if local else geometry(few)
        y = obs.y[some].to(torch.complex128).flatten(-2)
        weight = _all(obs, some).double().flatten(-2).rsqrt()
        task = Whitened(model, obs.op.like(y), y * weight, weight)  # type: ignore[attr-defined]
        normal, tangent = normal_at(task, theta, torch.ones_like(gain.real, dtype=torch.bool), gain)
        bounds.append(normal.variance(tangent).sum(-1))
    return torch.cat(bounds)


def genie_nmse(scene: NearField, slot: Slot, local: bool = False) -> Float[Tensor, "n ..."]:
    """|h_lmmse - h|^2 / |h|^2 of `path_lmmse`, (n) or (n, unit)."""
    h = scene.local(slot).truth.h if local else slot.truth.h
    error = squared(path_lmmse(scene, slot, local).mean - h).sum((-2, -1))
    return error / squared(h).sum((-2, -1))


def genie_variances(scene: NearField, slot: Slot, local: bool = False) -> Float[Tensor, "n ..."]:
    """|h_hat - h|^2 / |h|^2, (n) or (n, unit), where every coefficient's variance is known to be |x|^2: what an M-step
    of independent Gaussian coefficients in the unitary basis may hope for."""
    here, basis = (scene.local(slot), scene.local_basis()) if local else (slot, scene.basis())
    obs, h = here.obs, here.truth.h  # type: ignore[union-attr]
    if obs.noise_var is None:
        raise ValueError("bounds: expected a known noise_var, got None")
    prior = Gaussian(h.new_zeros(()), squared(basis.adjoint(h)))
    found = posterior(obs.op @ basis, obs.y, prior, obs.noise_var, basis).belief  # type: ignore[operator]
    return squared(found.mean - h).sum((-2, -1)) / squared(h).sum((-2, -1))


def bound_nmse(scene: NearField, slot: Slot, local: bool = False) -> Float[Tensor, "n ..."]:
    """`cramer_rao` over the channel's energy, (n) or (n, unit)."""
    h = scene.local(slot).truth.h if local else slot.truth.h  # type: ignore[union-attr]
    return cramer_rao(scene, slot, local) / squared(h).sum((-2, -1))


def _paths(slot: Slot) -> Paths:
    if not isinstance(slot.truth, NearFieldChannel):
        raise ValueError(f"bounds: expected a draw with its paths (NearFieldChannel), got {type(slot.truth).__name__}")
    return slot.truth.paths


def _observed(scene: NearField, slot: Slot, local: bool) -> Observation:
    obs = scene.local(slot).obs if local else slot.obs
    if obs.noise_var is None:
        raise ValueError("bounds: expected a known noise_var, got None")
    return obs


def _all(obs: Observation, some: slice) -> Tensor:
    """Noise variance of every sample of these items."""
    assert obs.noise_var is not None
    return per_axis(obs.noise_var, len(obs.op.out_shape), tuple(obs.op.out_shape)).expand(obs.y.shape)[some]


def _chunks(scene: NearField, paths: Paths) -> Iterator[slice]:
    n, num_paths = paths.psi.shape
    size = max(1, CHUNK_ENTRIES // (4 * num_paths * scene.num_rx_ant * scene.num_subcarriers))
    for start in range(0, n, size):
        yield slice(start, start + size)
