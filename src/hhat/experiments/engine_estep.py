"""engine/estep: one E-step by structure and without it: mean, all variances and log evidence under given variances.

x_n ~ CN(0, v_n),  y = Phi x + n,  Phi = A kron F_D: a line array in angle and delay, 16 tones, 16 beams per 32
antennas. By structure: at 32 antennas 16 systems of 16 x 16, at 128 antennas 16 of 64 x 64
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hhat.bench.experiment import Experiment, Point, Profile
from hhat.methods.base import Method
from hhat.ops import Dense, LinearOp, posterior
from hhat.ops.base import cached
from hhat.ops.linalg import cholesky, squared
from hhat.random import generator
from hhat.scenarios.near_field import NearField
from hhat.types import Channel, Estimate, Gaussian, Observation, Slot, State

NUM_UNIT_ANT = 32


@dataclass(frozen=True)
class AngleDelay:
    """`NearField` in its angle-delay coefficients, one combiner for all draws, so that what belongs to the operator is
    computed once, as in use: Observation(y, Phi), truth the coefficients."""

    num_rx_ant: int
    snr_db: float = 10.0

    @property
    def near(self) -> NearField:
        return NearField(num_rx_ant=self.num_rx_ant, num_unit=self.num_rx_ant // NUM_UNIT_ANT, snr_db=self.snr_db)

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        slot, basis, phi = self.near.draw(n, gen), self.near.basis(), _operator(self)
        x = basis.adjoint(slot.truth.h)
        noise = slot.obs.y - slot.obs.op.apply(slot.truth.h)
        obs = Observation(phi.apply(x) + noise, phi, slot.obs.noise_var, ("angle", "delay"))
        return Slot(Channel(x), obs, slot.about)


@functools.lru_cache(maxsize=4)
def _operator(scene: AngleDelay) -> LinearOp:
    op: Any = scene.near.draw(1, generator("engine/estep", scene.num_rx_ant)).obs.op
    return op @ scene.near.basis()


@dataclass(frozen=True, eq=False)
class EStep(Method):
    """One exact posterior under the variances |Phi^H y|^2 + s2, by structure. info: them and the log evidence."""

    variance: ClassVar[str] = "posterior"
    max_steps: int = 1
    tol: float | None = None

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        v = squared(obs.op.adjoint(obs.y)) + torch.as_tensor(obs.noise_var)
        zero = v.new_zeros(v.shape[0])
        return {"v": v, "mean": torch.zeros_like(v, dtype=obs.y.dtype), "var": v, "log_evidence": zero, "change": zero}

    def step(self, state: State, obs: Observation) -> State:
        (mean, var), evidence = self.given(obs, state["v"])
        return {**state, "mean": mean, "var": var, "log_evidence": evidence}

    def given(self, obs: Observation, v: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """((mean, variances), log evidence)."""
        return _posterior(obs.op, obs, v)

    def read(self, state: State, obs: Observation) -> Estimate:
        info = {"prior_var": state["v"], "log_evidence": state["log_evidence"]}
        return Estimate(Gaussian(state["mean"], state["var"]), info)


def _posterior(op: Any, obs: Observation, v: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    found = posterior(op, obs.y, Gaussian(obs.y.new_zeros(()), v), torch.as_tensor(obs.noise_var))
    return (found.belief.mean, found.belief.var), found.log_evidence


@dataclass(frozen=True, eq=False)
class DenseEStep(EStep):
    """The same with Phi as one matrix: data space, one Cholesky of (Q K) x (Q K) per item."""

    def given(self, obs: Observation, v: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        return _posterior(flat(obs.op), obs, v)


@dataclass(frozen=True, eq=False)
class PrintedEStep(EStep):
    """The form that papers print, Sigma = (zeta Phi^H Phi + diag(1 / v))^-1 of (N K) x (N K), mu = zeta Sigma Phi^H y,
    with Phi^H Phi at hand and the inverse by Cholesky, the cheaper way, which gives the evidence too."""

    def given(self, obs: Observation, v: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        return printed(obs, v, inverse_by_cholesky)


def flat(op: Any) -> Dense:
    """Phi as a matrix, formed once."""
    return cached(op, ("flat",), lambda: Dense(op.dense(), op.in_shape, op.out_shape))


def inverse_by_cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(inverse, log det) of Hermitian positive definite matrices."""
    lower, _ = cholesky(matrix)
    return torch.cholesky_inverse(lower), 2 * lower.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)


def inverse_by_elimination(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(inverse, log det) as for any matrix."""
    return torch.linalg.inv(matrix), torch.linalg.slogdet(matrix)[1]


def printed(
    obs: Observation, v: Tensor, inverse: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """log p(y) = -M log(pi s2) - log det(Sigma^-1) - sum log v - y^H (y - Phi mu) / s2."""
    op = flat(obs.op)
    phi, shape, samples = op.matrix, op.in_shape, math.prod(op.out_shape)
    gram = cached(op, ("gram",), lambda: phi.mH @ phi)
    y, v, s2 = obs.y.flatten(-2), v.flatten(-2), torch.as_tensor(obs.noise_var).flatten(-2)
    sigma, log_det = inverse(gram / s2[..., None] + torch.diag_embed(1 / v))
    mean = (sigma @ (y @ phi.conj() / s2)[..., None])[..., 0]
    misfit = (y.conj() * (y - mean @ phi.mT)).real.sum(-1) / s2[..., 0]
    evidence = -samples * (math.pi * s2[..., 0]).log() - log_det - v.log().sum(-1) - misfit
    var = sigma.diagonal(dim1=-2, dim2=-1).real
    return (mean.unflatten(-1, shape), var.unflatten(-1, shape)), evidence


def score(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    """(n,) deviation from the structured result in double precision: the largest of |mean - exact| / |exact|, the same
    of the vector of variances, and the log evidence per sample of y."""
    obs, belief, op = slot.obs, estimate.belief, slot.obs.op
    exact_op = op.to(torch.complex128)  # type: ignore[attr-defined]
    noise_var = torch.as_tensor(obs.noise_var).double()
    double = Observation(obs.y.to(torch.complex128), exact_op, noise_var)
    (mean, var), evidence = _posterior(exact_op, double, estimate.info["prior_var"].double())
    parts = (
        (belief.mean - mean).flatten(1).norm(dim=1) / mean.flatten(1).norm(dim=1),
        (belief.var - var).flatten(1).norm(dim=1) / var.flatten(1).norm(dim=1),
        (estimate.info["log_evidence"] - evidence).abs() / math.prod(obs.op.out_shape),
    )
    return {"deviation": torch.stack(parts).amax(0)}


def scenario(point: Point) -> AngleDelay:
    return AngleDelay(int(point["num_rx_ant"]))


LOCAL = ({"num_rx_ant": 32, "batch": 1}, {"num_rx_ant": 32, "batch": 32})
CENTRAL = ({"num_rx_ant": 128, "batch": 1},)

EXPERIMENT = Experiment(
    name="engine/estep",
    title="One E-step: 16 systems of 16 x 16 (32 antennas) or 64 x 64 (128 antennas) against one dense system",
    scenario=scenario,
    methods={
        "structured": lambda scene: EStep(),
        "dense": lambda scene: DenseEStep(),
        "dense-printed": lambda scene: PrintedEStep(),
    },
    profiles={
        "quick": Profile((*LOCAL, *CENTRAL), blocks=5),
        "full": Profile((*LOCAL, *CENTRAL, {"num_rx_ant": 128, "batch": 4}), blocks=20),
    },
    metrics=("channels_per_s", "deviation"),
    score=score,
    example=False,
    note="channels_per_s includes what the loop around a step costs (start and checks); "
    "benchmarks/estep.py times the E-step alone, in pairs.",
)
