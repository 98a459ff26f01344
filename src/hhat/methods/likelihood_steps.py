"""What one step of `diffusion-posterior` does with y: three likelihood steps, each an object of its own.

All work on z_t = h_t / sqrt(abar_t), the pseudo-observation x + CN(0, v_t) that the state h_t of the diffusion is, with
v_t = (1 - abar_t)/abar_t. In it the deterministic reverse step of a diffusion is

  z_s = z_t + (1 - v_s/v_t) (x_0 - z_t),   x_0 = E[x | z_t],   (1 - alpha)/(1 - abar_t) = 1 - v_s/v_t

and a likelihood score S adds (1 - v_s/v_t) (1 - abar_t)/sqrt(abar_t) S.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from hhat.methods.base import Problem
from hhat.ops.posterior import posterior
from hhat.ops.rotation import rotation, whitened
from hhat.types import Gaussian

HIGH_SNR = 10**1.5
"""15 dB: where the steps that have to choose change sides (diffusion_experts sections 3.3 and 10.2)"""


class Now(NamedTuple):
    """task, noise_var: y = op(x) + n.  z: pseudo-observation, level v_t: its variance.  x: E and var of x given z.
    move: 1 - v_s/v_t, 1 in the last step.  snr: power of op(x) over that of n, (*batch, 1, ..)."""

    task: Problem
    noise_var: Tensor
    z: Tensor
    level: Tensor
    x: Gaussian
    move: float
    snr: Tensor


@runtime_checkable
class LikelihoodStep(Protocol):
    """(z of the next step, the best estimate of x so far); num_steps: how many the method takes by default."""

    num_steps: ClassVar[int]

    def __call__(self, now: Now) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class VarianceMap:
    """The posterior with the error of x_0 per bin, known from Tweedie's second moment: var[x|z] = diag V_t,

      x_+ = x_0 + V A^H (A V A^H + S)^-1 (y - A x_0);   z_s = z_t + w (x_+ - z_t)

    w = 1 - v_s/v_t is the reverse step with the score of y added (exact for independent Gaussian bins: it then ends at
    the LMMSE estimate); w = 1 takes x_+ itself (proximal), which keeps what y says at high SNR.
    whole: True is w = 1, False the score form; None: w = 1 from 15 dB on. No constant to tune.
    Source: diffusion_experts section 10.2.
    """

    num_steps: ClassVar[int] = 25
    whole: bool | None = None

    def __call__(self, now: Now) -> tuple[Tensor, Tensor]:
        best = conditioned(now, now.x.var)
        if self.whole is None:
            share = either(now, 1.0, now.move)
        else:
            share = torch.full_like(now.level, 1.0 if self.whole else now.move)
        return now.z + share * (best - now.z), best


@dataclass(frozen=True)
class Proximal:
    """The same with one variance for all bins, the mean of V_t times `widen`, and w = 1. Denoising anew what is clean
    shrinks too much below 15 dB: `widen` of 3 to 10 repairs that. Source: diffusion_experts section 10.1."""

    num_steps: ClassVar[int] = 100
    widen: float = 1.0

    def __post_init__(self):
        if not self.widen > 0:
            raise ValueError(f"proximal: widen: expected > 0, got {self.widen}")

    def __call__(self, now: Now) -> tuple[Tensor, Tensor]:
        best = conditioned(now, self.widen * now.x.var.mean(now.task.event(), keepdim=True))
        return best, best


@dataclass(frozen=True)
class Dmps:
    """The paper's step: the likelihood as if nothing were known of x but z_t,

      z_s = z_t + w [ x_0 - z_t + rho v A^H (v A A^H + s2 I)^-1 (y - A c) ],   w = 1 - v_s/v_t

    with c = z_t (residual "ht": what its (28) and (29) say) or c = x_0 ("h0": what the code that it builds on does, and
    0.6 to 4.8 dB better). One singular value decomposition of the pilots serves all steps. In each singular direction
    w rho v s^2/(v s^2 + s2) is held below 1: beyond 2 the recursion diverges.
    rho: weight of y; None: 2 below 15 dB, 4 from there on. It has to be tuned for each SNR and number of pilots.
    Source: Jiang et al. 2026, (24)-(29), reconstructed from Meng & Kabashima 2022; diffusion_experts section 3.3.
    """

    num_steps: ClassVar[int] = 100
    rho: float | None = None
    residual: str = "h0"

    def __post_init__(self):
        if self.residual not in ("h0", "ht"):
            raise ValueError(f"dmps: residual: expected 'h0' or 'ht', got '{self.residual}'")
        if self.rho is not None and not self.rho > 0:
            raise ValueError(f"dmps: rho: expected > 0, got {self.rho}")

    def __call__(self, now: Now) -> tuple[Tensor, Tensor]:
        rho = either(now, 4.0, 2.0) if self.rho is None else torch.full_like(now.level, self.rho)
        centre = now.x.mean if self.residual == "h0" else now.z
        push = self._push(now, centre, rho * now.move)
        moved = now.z + now.move * (now.x.mean - now.z) + push
        return moved, moved if now.move == 1 else now.x.mean + push

    def _push(self, now: Now, centre: Tensor, weight: Tensor) -> Tensor:
        """weight v A^H (v A A^H + s2)^-1 (y - A c), its gain per singular direction at most 1."""
        op, y, noise, num_out = now.task.op, now.task.y, now.noise_var, len(now.task.op.out_shape)
        noise = noise.reshape((1,) * max(num_out - noise.ndim, 0) + tuple(noise.shape))
        basis = rotation(op, y)
        rest = y - op.apply(centre)
        if basis.mixes_alike(noise, num_out):
            noise = basis.turned(noise, num_out)
        else:
            scale, noise, basis = whitened(op, noise, y)
            rest = scale * rest
        turned = basis.turn.apply(rest)
        count = len(basis.op.out_shape)
        lift = (1,) * count
        energy = basis.op.squares.apply(y.real.new_ones(op.in_shape))
        level, weight = (_outer(part, now.task.num_event, lift) for part in (now.level, weight))
        tiny = torch.finfo(energy.dtype).tiny
        energy = energy.clamp_min(tiny)
        gain = torch.minimum(weight * level / (level * energy + noise).clamp_min(tiny), 1 / energy)
        return basis.op.adjoint(torch.where(energy > 1e-12 * energy.amax(), gain, 0.0) * turned)


def either(now: Now, high: float, low: float) -> Tensor:
    """`high` from HIGH_SNR on, else `low`, in the precision of z."""
    return torch.where(now.snr >= HIGH_SNR, torch.full_like(now.level, high), torch.full_like(now.level, low))


def _outer(value: Tensor, num_event: int, lift: tuple[int, ...]) -> Tensor:
    """A number per item with other event axes of size 1."""
    return value.reshape(*value.shape[: max(value.ndim - num_event, 0)], *lift) if value.ndim else value


def conditioned(now: Now, var: Tensor) -> Tensor:
    """E[x | y] for x ~ CN(x_0, diag var)."""
    before = Gaussian(now.x.mean, shared(var, now.task.num_event))
    return posterior(now.task.op, now.task.y, before, now.noise_var).belief.mean


def shared(var: Tensor, num_event: int) -> Tensor:
    """Batch axes along which a variance is the same number in memory as axes of size 1: one factorisation for all."""
    for axis in range(var.ndim - num_event):
        if var.stride(axis) == 0:
            var = var.narrow(axis, 0, 1)
    return var


def signal_to_noise(task: Problem, power: Tensor, noise_var: Tensor) -> Tensor:
    """Power of A x over that of the noise, mean over y, power: E|x|^2 (*batch or 1, 1, ..)."""
    gain = task.op.squares.apply(task.y.real.new_ones(task.op.in_shape))
    ratio = gain / noise_var.clamp_min(torch.finfo(power.dtype).tiny)
    return power * ratio.mean(task.out_event())[(..., *(None,) * task.num_event)]
