"""`uamp`: AMP after a unitary rotation of y; UAMP-SBL with the prior `sparse-bayes`."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.methods.amp import Gamp, Seen, averaged
from hhat.methods.base import Problem, problem
from hhat.ops.linalg import squared
from hhat.ops.rotation import Rotation, rotation, whitened
from hhat.priors.base import Prior
from hhat.types import Observation, Shape, State

LEAST_SHRINKAGE = 1e-3
"""Where the denoiser takes off less of the variance than this share, the prior counts as having said nothing."""


@dataclass(frozen=True, eq=False)
class Uamp(Gamp):
    """GAMP on U^H y = S V^H x + U^H n, A = U S V^H: the same recursion, with one variance per block that A mixes.

    Factors of a Kronecker product are rotated one by one; unitary ones move onto y entirely. Noise that differs between
    samples that would be mixed is whitened first, which takes one dense matrix. Where y has more samples than the
    range of A, the energy outside counts for noise that is learned.
    Settings and info as `Gamp`.
    Raises ValueError where a matrix without structure is too large for a singular value decomposition.
    Source: Guo & Xi, "Approximate message passing with unitary transformation", 2015, algorithm 2; UAMP-SBL: Luo, Guo
    et al., IEEE TSP 2021.
    """

    prior: Prior | None = None
    average_axes: tuple[int, ...] | None = None

    def _noise(self, seen: Seen, noise: Tensor, old: State, new: State) -> Tensor:
        """EM with the exact posterior of A x in the singular basis, under the Gaussian that stands for the prior."""
        v, r_var = self._average(new["v"], seen.task), new["r_var"]
        apart = self._ahead(seen.task, v / (1 - v / r_var).clamp_min(LEAST_SHRINKAGE))
        z = new["p"] + new["v_p"] * new["s"]
        left = noise * apart / (apart + noise).clamp_min(torch.finfo(noise.dtype).tiny)
        return averaged(squared(seen.obs.y - z) + left, seen)

    def seen(self, obs: Observation, state: State | None) -> Seen:
        task, noise, num_out = problem(obs, self.prior), obs.noise_var, len(obs.op.out_shape)
        basis, y = rotation(task.op, obs.y), obs.y
        if noise is not None and not basis.mixes_alike(noise, num_out):
            weight, noise, basis = whitened(task.op, noise, obs.y)
            y = weight * y
        elif noise is not None:
            noise = basis.turned(noise, num_out)
        num, kept = math.prod(obs.op.out_shape), state
        if kept is None:
            kept = _turned(y, basis, obs.batch_shape)
        turned, rest = kept["turned_y"], kept["rest"]
        task = Problem(basis.op, None, turned, task.num_event)
        return Seen(Observation(turned, basis.op, noise), task, num, rest, {"turned_y": turned, "rest": rest})


def _turned(y: Tensor, basis: Rotation, batch: Shape) -> State:
    """y in the singular basis, and the energy that it has outside the range of A."""
    turned = basis.turn.apply(y)
    outside = _energy(y, len(basis.turn.in_shape)) - _energy(turned, len(basis.turn.out_shape))
    return {"turned_y": turned.expand(*batch, *basis.turn.out_shape), "rest": outside.clamp_min(0).expand(batch)}


def _energy(x: Tensor, num_event: int) -> Tensor:
    return squared(x).sum(tuple(range(-num_event, 0)))
