"""What the centre makes of the units' estimates: put together, and refined by what the whole array makes visible."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hhat.decentralized.split import antennas_of
from hhat.decentralized.unheard import beyond
from hhat.decentralized.uploads import UNKNOWN
from hhat.methods.auto import basis_for
from hhat.methods.sbl import Sbl
from hhat.methods.solve import solve
from hhat.ops.base import LinearOp
from hhat.ops.elementary import Identity
from hhat.ops.linalg import squared
from hhat.priors.gamma_field import chained, chained_as_printed
from hhat.priors.gauss import Gauss
from hhat.priors.m_step import MStep
from hhat.types import Gaussian, Observation, Shape


class Centre(abc.ABC):
    """From the estimates of the units that are there to the belief about the whole channel.

    shrinks: does it weigh the estimates against a prior? What does not has no use for extrinsics.
    """

    shrinks: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(
        self,
        h: Tensor,
        var: Tensor,
        kept: tuple[int, ...],
        num_unit: int,
        shape: Shape,
        axes: tuple[str, ...] | None,
        shrunk: bool = False,
    ) -> Gaussian:
        """h (item, antennas of the units in `kept`, ..) with mean variances var (item, kept); shape: of the channel.

        shrunk: are these posterior means, whose error is what a unit's prior took away and no independent noise?
        """


@dataclass(frozen=True)
class Concatenate(Centre):
    """Antennas side by side. Disjoint antennas have nothing to average and the step to angles of the whole array is
    unitary, so that this changes no error. Lost antennas: mean 0, variance infinite.

    Source: Tang et al. 2025, eqs. (13)-(14).
    """

    shrinks: ClassVar[bool] = False

    def __call__(
        self,
        h: Tensor,
        var: Tensor,
        kept: tuple[int, ...],
        num_unit: int,
        shape: Shape,
        axes: tuple[str, ...] | None,
        shrunk: bool = False,
    ) -> Gaussian:
        mean = antennas_of(kept, num_unit, shape).adjoint(h)
        told = var.new_full((len(h), num_unit), torch.inf)
        told[:, list(kept)] = torch.where(var >= UNKNOWN, torch.inf, var)
        per_antenna = told.repeat_interleave(shape[0] // num_unit, -1)
        return Gaussian(mean, per_antenna[(..., *(None,) * (len(shape) - 1))].expand(mean.shape))


@dataclass(frozen=True, eq=False)
class ReportedNoise(Centre):
    """h_fused = S h + CN(0, v), v the mean of the variances that the units report, S the antennas that are there:
    one more estimation problem, for `sbl` on the angles and delays of the whole array, or for any `method`.

    m_step: law of the variances. None: `chained`, precisions Gamma along a Markov chain over the antennas' angles:
    Algorithm 2 with kappa = 1/v given, eqs. (47) and (53) corrected. `PatternCoupling()` is ahead of it by 0.3 dB
    behind posteriors and by 1 dB behind extrinsics (near-field array).
    method: in place of all that, any method with a prior and basis of its own.
    Lost antennas are what the prior makes of the others (`beyond`). Variance: that of this problem, and behind
    posterior means at least what `_unshrunk` says. ValueError where a unit's method reports no variance.
    Source: Tang et al. 2025, Algorithm 2; v instead of a learned kappa, which may run away.
    """

    m_step: MStep | None = None
    method: Any = None

    def __call__(
        self,
        h: Tensor,
        var: Tensor,
        kept: tuple[int, ...],
        num_unit: int,
        shape: Shape,
        axes: tuple[str, ...] | None,
        shrunk: bool = False,
    ) -> Gaussian:
        if bool((var >= UNKNOWN).any()):
            raise ValueError("ReportedNoise: expected units that report a variance; Literal refines without one")
        noise = var.mean(-1)[(..., *(None,) * len(shape))]
        method = self.method or refiner(shape, axes, self.m_step or chained(axis=-len(shape)))
        found = _refined(method, h, noise, kept, num_unit, shape, axes)
        return _unshrunk(found, h, var, kept, num_unit, shape) if shrunk else found


@dataclass(frozen=True, eq=False)
class Literal(Centre):
    """The refinement as printed: kappa learned from the fused estimate alone, eqs. (47) and (53) as they stand.

      kappa = Nt K / sum(|r - x|^2 + tau)      (59), its count corrected from Nt: EM of the noise

    m_step, method: as `ReportedNoise`; None: `chained_as_printed`.
    Source: Tang et al. 2025, Algorithm 2. It starts at a tenth of the power and not at kappa = 1, and may still end
    where r is declared free of noise.
    """

    m_step: MStep | None = None
    method: Any = None

    def __call__(
        self,
        h: Tensor,
        var: Tensor,
        kept: tuple[int, ...],
        num_unit: int,
        shape: Shape,
        axes: tuple[str, ...] | None,
        shrunk: bool = False,
    ) -> Gaussian:
        method = self.method or refiner(shape, axes, self.m_step or chained_as_printed(axis=-len(shape)))
        found = _refined(method, h, None, kept, num_unit, shape, axes)
        return _unshrunk(found, h, var, kept, num_unit, shape) if shrunk else found


def _refined(
    method: Any,
    h: Tensor,
    noise: Tensor | None,
    kept: tuple[int, ...],
    num_unit: int,
    shape: Shape,
    axes: tuple[str, ...] | None,
) -> Gaussian:
    est = solve(method, Observation(h, antennas_of(kept, num_unit, shape), noise, axes))
    prior = getattr(method, "prior", None)
    if len(kept) < num_unit and "prior_var" in est.info and prior is not None and prior.basis is not None:
        heard = Gaussian(h, est.info["noise_var"] if noise is None else noise)
        return beyond(heard, kept, num_unit, est.info["prior_var"], prior.basis)
    return Gaussian(est.belief.mean, est.belief.var.expand(est.belief.mean.shape))


def _unshrunk(found: Gaussian, h: Tensor, var: Tensor, kept: tuple[int, ...], num_unit: int, shape: Shape) -> Gaussian:
    """The variance behind units' posterior means h: mean over the heard antennas at least

      v = s - mean |h - x|^2      s: what the units report, x: the refined estimate

    by orthogonality: where x is the conditional mean given h, |h - h_true|^2 splits into |x - h_true|^2 and |h - x|^2,
    whatever the law of the error. For white noise it is the posterior's own variance; a shrunk coefficient is no noise
    that a prior could take away, and refinement that changes nothing leaves s. What v exceeds the posterior's by goes
    to all antennas alike. No better than s: units that are too sure of themselves make v too small.
    """
    event = tuple(range(-len(shape), 0))
    there = antennas_of(kept, num_unit, shape)
    told = torch.where(var >= UNKNOWN, 0.0, var).mean(-1)[(..., *(None,) * len(shape))]
    removed = squared(h - there.apply(found.mean)).mean(event, keepdim=True)
    lacking = told - removed - there.apply(found.var).mean(event, keepdim=True)
    return Gaussian(found.mean, found.var + lacking.clamp_min(0))


def refiner(shape: Shape, axes: tuple[str, ...] | None, m_step: MStep) -> Sbl:
    """`sbl` on a fused estimate: Algorithm 2 where the M-step is its chain."""
    basis = array_basis(shape, axes)
    return Sbl(None if isinstance(basis, Identity) else Gauss(basis=basis), m_step=m_step)


def array_basis(shape: Shape, axes: tuple[str, ...] | None) -> LinearOp:
    """Unitary: angles and delays of the whole array -> its channel, where its size resolves any; else the identity."""
    basis = basis_for(shape, axes or ("ant",) * len(shape))[0]
    return basis if basis is not None and basis.is_unitary else Identity(shape)
