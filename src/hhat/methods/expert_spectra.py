"""Gaussian experts in the eigenbases of what y sees of them: scales, evidence and a path none accounts for, with
nothing factored anew from item to item."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.base import LinearOp, cached
from hhat.ops.linalg import eigh, squared
from hhat.priors.experts import Experts
from hhat.types import Gaussian, Observation, Shape

LARGEST = (768, 2048)
"""Samples and channel entries up to which the eigenbases are formed: about 1 s an expert at 608 x 1024, once"""
STEP = 1.0
"""Most by which log scale moves in a step"""
REACH = 8.0
"""Most by which it moves from where the received power puts it"""
LEAST_SHARE = 1e-6
"""q below which an expert's estimate is not formed"""
ITEMS = 1024
"""Items whose directions are searched at a time (32 MB)"""
OVERSAMPLING = 2
"""Directions tried per antenna (or tone)"""
SLACK = 2.0
"""Times the expert's own variance that any direction may hold. 1 is exact for Gaussian channels; CDL between fixed
arrays is not Gaussian (the coupling of rays), and at 30 dB up to 83 % of its channels would be 'none of these'."""


@dataclass(frozen=True, eq=False)
class Spectra:
    """A C_k A^H = U_k diag(power_k) U_k^H for experts CN(0, C_k), k = 1..K, M samples, N channel entries."""

    roots: tuple[Tensor, ...]
    """C_k = root root^H, (N, rank)"""
    seen: tuple[Tensor, ...]
    """A root, (M, rank)"""
    shape: Shape
    """Of the channel"""
    power: Tensor
    """(K, M)"""
    vectors: Tensor
    """(K, M, M)"""

    @classmethod
    def of(cls, op: LinearOp, prior: Experts, like: Tensor) -> "Spectra":
        roots, seen, power, vectors = [], [], [], []
        for expert in prior.experts:
            now = expert.moments()
            shape = op.in_shape
            dense = torch.eye(math.prod(shape)) if expert.basis is None else expert.basis.dense(like.dtype)
            var = now.var.expand(shape if expert.basis is None else expert.basis.in_shape).flatten()
            root = dense.to(like) * var.to(like.real).sqrt()
            through = op.apply(root.mT.reshape(-1, *shape)).flatten(1).mT
            values, basis = eigh(through @ through.mH)
            roots.append(root)
            seen.append(through)
            power.append(values)
            vectors.append(basis)
        return cls(tuple(roots), tuple(seen), op.in_shape, torch.stack(power), torch.stack(vectors))

    def rotated(self, y: Tensor) -> Tensor:
        """U_k^H y of y (n, M): (n, K, M)."""
        return torch.einsum("kmj,nm->nkj", self.vectors.conj(), y)

    @functools.cached_property
    def _back(self) -> dict[int, Tensor]:
        return {}

    def back(self, k: int) -> Tensor:
        """C_k A^H U_k, (N, M); formed when some item wants it."""
        if k not in self._back:
            self._back[k] = self.roots[k] @ (self.seen[k].mH @ self.vectors[k])
        return self._back[k]

    def prior_var(self, k: int) -> Tensor:
        return squared(self.roots[k]).sum(-1)

    @functools.cached_property
    def _waves(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {}

    def waves(self, k: int, op: LinearOp) -> tuple[Tensor, Tensor]:
        """A^H U_k, (M, *shape), and |a^H A^H U_k|^2 of plane waves a on a grid, (M, cells)."""
        if k not in self._waves:
            through = op.adjoint(self.vectors[k].mT.reshape(-1, *op.out_shape))
            self._waves[k] = through, squared(plane_waves(through))
        return self._waves[k]

    def strongest(self, k: int, op: LinearOp, z: Tensor, total: Tensor) -> Tensor:
        """max over plane waves a of |a^H A^H S^-1 y|^2 / (a^H A^H S^-1 A a), S = U diag(total) U^H, z = U^H y: (n,).

        Each is Exp(1) if y came from the expert.
        """
        through, energy = self.waves(k, op)
        below = (1 / total) @ energy
        above = squared(plane_waves(torch.tensordot(z / total, through, dims=1)))
        return (above / below.clamp_min(torch.finfo(below.dtype).tiny)).amax(-1)

    @property
    def num_cells(self) -> int:
        return math.prod(_grid(self.shape))


def plane_waves(x: Tensor) -> Tensor:
    """x (n, *shape) against exp(j pi n u) on every axis, OVERSAMPLING directions an element: (n, cells)."""
    shape = tuple(x.shape[1:])
    return torch.fft.fftn(x, _grid(shape), tuple(range(1, x.ndim))).flatten(1)


def _grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if n == 1 else OVERSAMPLING * n for n in shape)


def spectra(obs: Observation, prior: Experts) -> Spectra | None:
    """Made once per operator, experts and precision; None where they do not apply."""
    if not spectral(obs, prior):
        return None
    op: LinearOp = obs.op.like(obs.y)  # type: ignore[attr-defined]
    return cached(op, ("spectra", id(prior)), lambda: (prior, Spectra.of(op, prior, obs.y)))[1]


def spectral(obs: Observation, prior: Experts) -> bool:
    """Are these experts without means or weights per item, behind one operator, in noise that is the same all over an
    item, no larger than LARGEST?"""
    if math.prod(obs.op.out_shape) > LARGEST[0] or math.prod(obs.op.in_shape) > LARGEST[1] or obs.op.batch_shape:
        return False
    if prior.weights.ndim > 1 or any(bool((expert.moments().mean != 0).any()) for expert in prior.experts):
        return False
    noise = obs.noise_var
    return noise is None or all(n == 1 for n in noise.shape[max(0, noise.ndim - len(obs.op.out_shape)) :])


def flat_noise(noise: Tensor, obs: Observation) -> Tensor:
    """White noise per item, (n, 1)."""
    count = len(obs.op.out_shape)
    noise = noise.reshape(*noise.shape[: max(0, noise.ndim - count)], 1)
    return noise.expand(*obs.batch_shape, 1).reshape(-1, 1)


def start_scale(energy: Tensor, power: Tensor, noise: Tensor) -> Tensor:
    """Scale of each expert that the received power suggests, log, (n, K): at least 1 % of what came is signal."""
    total = energy.sum(-1)
    signal = torch.maximum(total - noise * energy.shape[-1], 0.01 * total)
    tiny = torch.finfo(total.dtype).tiny
    return (signal.clamp_min(tiny) / power.sum(-1).clamp_min(tiny)).log()


def scale_step(log_scale: Tensor, start: Tensor, energy: Tensor, power: Tensor, noise: Tensor) -> Tensor:
    """A Fisher-scoring step of log p_k(y) in the log scale c of each expert, (n, K):

    d/dlog c = sum_m r_m (e_m / t_m - 1),  information = sum_m r_m^2,  t = c power + noise, r = c power / t
    """
    signal = log_scale.exp()[..., None] * power
    total = received(signal, noise[..., None])
    share = signal / total
    slope = (share * (energy / total - 1)).sum(-1)
    tiny = torch.finfo(slope.dtype).tiny
    moved = log_scale + (slope / share.square().sum(-1).clamp_min(tiny)).clamp(-STEP, STEP)
    return torch.minimum(torch.maximum(moved, start - REACH), start + REACH)


def received(signal: Tensor, noise: Tensor) -> Tensor:
    """Variances of U^H y, (..., M): signal + noise, at least the round-off of the largest. Without noise those of
    directions that an expert does not reach would be 0."""
    total = signal + noise
    least = torch.finfo(total.dtype).eps * total.amax(-1, keepdim=True)
    return torch.maximum(total, least.clamp_min(torch.finfo(total.dtype).tiny))


def log_evidence(energy: Tensor, total: Tensor) -> Tensor:
    """log CN(y; 0, U diag(total) U^H), (n, K)."""
    return -(total.log() + energy / total).sum(-1) - energy.shape[-1] * math.log(math.pi)


def noise_step(share: Tensor, energy: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """EM of a white noise variance under experts with probabilities `share` (n, K): (n, 1)."""
    total = signal + noise[..., None]
    kept = noise[..., None] / total
    expected = (kept.square() * energy + noise[..., None] * (signal / total)).mean(-1)
    return (share * expected).sum(-1, keepdim=True)


def estimates(spectrum: Spectra, share: Tensor, z: Tensor, scale: Tensor, total: Tensor) -> Gaussian:
    """Moments of h, (n, N), under the mixture with probabilities `share` (n, K); z (n, K, M) = U^H y."""
    wanted = [k for k in range(share.shape[-1]) if bool((share[:, k] > LEAST_SHARE).any())]
    means, vars_ = [], []
    for k in wanted:
        gain = scale[:, k, None] / total[:, k]
        back = spectrum.back(k)
        means.append((z[:, k] * gain) @ back.mT)
        vars_.append(scale[:, k, None] * (spectrum.prior_var(k) - gain @ squared(back).mT).clamp_min(0))
    weight = share[:, wanted] / share[:, wanted].sum(-1, keepdim=True)
    mean, var = torch.stack(means, 1), torch.stack(vars_, 1)
    centre = (weight[..., None] * mean).sum(1)
    return Gaussian(centre, (weight[..., None] * (var + squared(mean - centre[:, None]))).sum(1))


def path_p_value(spectrum: Spectra, op: LinearOp, y: Tensor, best: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """P(some plane wave holds as much beyond SLACK times its variance under the most probable expert), at most: the
    union over the grid of directions. (n,), float64; y (n, M), best (n,), its scale (n,), noise (n, 1)."""
    found = torch.zeros(len(best), dtype=torch.float64, device=y.device)
    for k in best.unique().tolist():
        for rows in (best == k).nonzero()[:, 0].split(ITEMS):
            total = received(scale[rows, None] * spectrum.power[k], noise[rows])
            found[rows] = spectrum.strongest(k, op, y[rows] @ spectrum.vectors[k].conj(), total).double()
    return (spectrum.num_cells * (-found / SLACK).exp()).clamp_max(1)
