"""`ray-coupling`: a known cluster profile, of which each channel's coupling of rays is found from its pilots."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hhat.methods.base import Method, noise_info, noise_of, start_noise
from hhat.methods.linear import rls
from hhat.ops.base import LinearOp
from hhat.ops.cholesky import Factor, factor
from hhat.ops.dense import Dense
from hhat.ops.linalg import RELATIVE_FLOOR, per_axis, squared
from hhat.priors.cluster_rays import ClusterRays, correlated, gathered, spread
from hhat.types import Estimate, Gaussian, Observation, Shape, State

SLICE_ENTRIES = 1 << 23
"""Entries of covariances formed at a time (64 MB)."""
RELAXED = 2.0
"""Factor on a step's log where the data outweigh the entropy: the plain step takes twice as many."""
LARGEST = 4.0
"""Most that the log of a weight moves in one plain step."""
NEWTON_STEPS = 6


@dataclass(frozen=True, eq=False)
class RayCoupling(Method):
    """h ~ CN(0, C(pi)), C(pi) = fixed + sum_l P_l / M sum_ij pi_lij (R_li kron T_lj); pi from each item's own y.

      maximise log CN(y; 0, A C(pi) A^H + noise) - entropy * sum pi log(pi / pi_0)   over balanced pi

    The channel of fixed arrays is a mixture over couplings (permutations), of which a covariance is the average. pi are
    the doubly stochastic matrices between them: every azimuth and every zenith of a cluster belongs to one ray. The
    start pi_0 is the average, where the estimate is `lmmse` with the covariance of the profile. A step, with
    S = A C A^H + noise, w = S^-1 y, Q_lij = R_li kron T_lj:

      a = P_l / M tr(S^-1 A Q_lij A^H),  b = P_l / M w^H A Q_lij A^H w       (b - a: slope of the log density)
      x with a - b e^(-2x) + entropy (log(pi / pi_0) + x) = 0                (majorise-minimise, without the balance)
      pi <- balanced(pi e^(RELAXED x))

    The entropy keeps what y does not tell at the average: without it the fit takes noise for coupling, and is worse
    than `lmmse` where samples are few. The estimate is the posterior mean and variance under C(pi).

    rays: what is known of the profile (`cdl_rays.cluster_rays`). None: `rls`, and info says so.
    entropy: weight; 1: mean-field, variance calibrated; smaller: bolder, its variance too small
    Noise that is not given is learned with pi, by EM.
    info: log_evidence (of y under the last C(pi); no evidence of the model, since pi was fitted), noise_var
    Source: hhat; majorise-minimise steps of covariance fitting as in Stoica & Babu 2012 (LIKES), with Sinkhorn 1967.
    """

    variance: ClassVar[str] = "posterior"
    rays: ClusterRays | None = None
    entropy: float = 1.0
    max_steps: int = 8
    tol: float | None = None

    def __post_init__(self):
        if not self.entropy >= 0:
            raise ValueError(f"ray-coupling: entropy: expected at least 0, got {self.entropy}")

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        if self.rays is None:
            return rls().resolve(obs)[0], {"method": "rls", "why": "no cluster profile was given"}
        if self.rays.in_shape != tuple(obs.op.in_shape):
            raise ValueError(
                f"ray-coupling: rays: a profile for channels {self.rays.in_shape}, the observation's are "
                f"{tuple(obs.op.in_shape)}"
            )
        return self, {}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        pi = self._rays(obs).uniform()
        start = pi.expand(*obs.batch_shape, *pi.shape).clone()
        return {"pi": start, "change": obs.y.real.new_ones(obs.batch_shape), **start_noise(obs)}

    def step(self, state: State, obs: Observation) -> State:
        rays = self._rays(obs)
        fresh, noises = [], []
        for op, y, pi, noise in self._slices(state, obs):
            _, lower = _system(op, rays, pi, noise)
            out, event = len(op.out_shape), len(op.in_shape)
            inverse = lower.inverse
            inverse = inverse.mH @ inverse
            w = (inverse @ y.flatten(-out)[..., None])[..., 0]
            back = op.adjoint(w.unflatten(-1, op.out_shape))
            gain = _both_sides(op.adjoint, inverse, op.out_shape, event)[1]
            gain = gain.unflatten(-1, op.in_shape).unflatten(-1 - event, op.in_shape)
            trace, power = rays.match(gathered(gain).conj()), rays.match(correlated(back).conj())
            fresh.append(self._moved(rays, pi, trace, power))
            if obs.noise_var is None:
                # EM of white noise: s2 <- s2 + s2^2 (|w|^2 - tr S^-1) / M
                s2 = noise.flatten(-out)[..., 0]
                count = w.shape[-1]
                trend = (squared(w).sum(-1) - inverse.diagonal(dim1=-2, dim2=-1).real.sum(-1)) / count
                noises.append((s2 + s2.square() * trend).clamp_min(torch.finfo(s2.dtype).tiny))
        pi = torch.cat(fresh).reshape(state["pi"].shape)
        moved = (pi - state["pi"]).square().flatten(len(obs.batch_shape)).sum(-1)
        size = state["pi"].square().flatten(len(obs.batch_shape)).sum(-1)
        new = {**state, "pi": pi, "change": (moved / size).to(state["change"].dtype)}
        if obs.noise_var is None:
            new["noise_var"] = torch.cat(noises).reshape(state["noise_var"].shape)
        return new

    def _moved(self, rays: ClusterRays, pi: Tensor, trace: Tensor, power: Tensor) -> Tensor:
        """The weights after a step, from tr(S^-1 A Q A^H) and w^H A Q A^H w."""
        share = (rays.power / rays.rays)[:, None, None]
        a, b = share * trace, (share * power).clamp_min(0)
        tiny = torch.finfo(pi.dtype).tiny
        log = pi.clamp_min(tiny).log()
        apart = log - rays.uniform().log()
        x = torch.zeros_like(log)
        for _ in range(NEWTON_STEPS):
            drawn = b * (-2 * x).exp()
            slope = (2 * drawn + self.entropy).clamp_min(tiny)
            x = (x - (a - drawn + self.entropy * (apart + x)) / slope).clamp(-LARGEST, LARGEST)
        log = log + torch.where(a + b < self.entropy, x, RELAXED * x)
        return rays.balanced((log - log.amax((-2, -1), keepdim=True)).exp())

    def read(self, state: State, obs: Observation) -> Estimate:
        rays = self._rays(obs)
        means, vars_, logs = [], [], []
        for op, y, pi, noise in self._slices(state, obs):
            seen, lower = _system(op, rays, pi, noise)
            z = lower.solve_vector(y.flatten(-len(op.out_shape)))
            half = lower.solve(seen)
            means.append((half.mH @ z[..., None])[..., 0])
            prior = rays.lags(pi)[..., 0, rays.in_shape[1] - 1].real
            vars_.append((prior[..., None] - squared(half).sum(-2)).clamp_min(0))
            logs.append(-z.shape[-1] * math.log(math.pi) - lower.log_det - squared(z).sum(-1))
        shape = (*obs.batch_shape, *rays.in_shape)
        belief = Gaussian(torch.cat(means).reshape(shape), torch.cat(vars_).reshape(shape))
        info = {"log_evidence": torch.cat(logs).reshape(obs.batch_shape), **noise_info(state, obs)}
        return Estimate(belief, info)

    def _rays(self, obs: Observation) -> ClusterRays:
        assert self.rays is not None  # resolve() has seen to it
        return self.rays.to(obs.y)

    def _slices(self, state: State, obs: Observation) -> Iterator[tuple[LinearOp, Tensor, Tensor, Tensor]]:
        """Operator, y, pi and noise of some items at a time, with one batch axis."""
        batch, out = obs.batch_shape, tuple(obs.op.out_shape)
        op: LinearOp = obs.op.like(obs.y)  # type: ignore[attr-defined]
        y = obs.y.expand(*batch, *out).reshape(-1, *out)
        noise = per_axis(noise_of(state, obs), len(out), out)
        noise = noise.expand(*batch, *out).reshape(-1, *out)
        pi = state["pi"].flatten(0, len(batch) - 1) if batch else state["pi"][None]
        if op.batch_shape:
            matrix = op.dense().expand(*batch, *(math.prod(out), math.prod(op.in_shape))).flatten(0, len(batch) - 1)
            for i in range(len(y)):
                yield Dense(matrix[i], tuple(op.in_shape), out), y[i : i + 1], pi[i : i + 1], noise[i : i + 1]
            return
        size = max(1, SLICE_ENTRIES // math.prod(op.in_shape) ** 2)
        for start in range(0, len(y), size):
            some = slice(start, start + size)
            yield op, y[some], pi[some], noise[some]

    @classmethod
    def example(cls, gen: torch.Generator) -> "RayCoupling":
        u = 2 * torch.rand(2, 2, 3, generator=gen, dtype=torch.float64) - 1
        left, right = (torch.polar(torch.ones(1), math.pi * x[..., None].float() * torch.arange(10)) for x in u)
        return cls(ClusterRays(torch.tensor([0.7, 0.3]), left[..., :2], right, 3))


def _system(op: LinearOp, rays: ClusterRays, pi: Tensor, noise: Tensor) -> tuple[Tensor, Factor]:
    """A C(pi), (*batch, M, N), and the factor of A C(pi) A^H + noise."""
    count = math.prod(op.in_shape)
    c = spread(rays.lags(pi))
    seen, s = _both_sides(op.apply, c.reshape(*c.shape[:-4], count, count), op.in_shape, len(op.out_shape))
    noise = noise.flatten(-len(op.out_shape))
    floor = RELATIVE_FLOOR[s.dtype] * s.diagonal(dim1=-2, dim2=-1).real.mean(-1, keepdim=True)
    s.diagonal(dim1=-2, dim2=-1).real.add_(torch.maximum(noise, floor).clamp_min(torch.finfo(floor.dtype).tiny))
    return seen, factor(s)


def _both_sides(move: Callable[[Tensor], Tensor], x: Tensor, shape: Shape, num_out: int) -> tuple[Tensor, Tensor]:
    """B x and B x B^H of Hermitian matrices x (*batch, N, N), for a map B from `shape` that is applied to vectors."""
    first = move(x.mT.unflatten(-1, shape)).flatten(-num_out).mT
    return first, move(first.conj().unflatten(-1, shape)).flatten(-num_out).mT.contiguous()
