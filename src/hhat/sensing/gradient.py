"""`gradient`: the paper's calibration, stochastic gradients of loss (14) or (15) with Adam, projected or not."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Complex
from torch import Tensor

from hhat.random import generator
from hhat.sensing.calibration import Calibration
from hhat.sensing.calibrator import Calibrator, moved
from hhat.sensing.echoes import Echoes
from hhat.sensing.losses import Aligned, Loss, PeakLoss, tangent
from hhat.sensing.scatter import normalised
from hhat.sensing.start import ones
from hhat.sensing.threshold import snr_of
from hhat.sensing.views import COARSE, SIZE, Views, line_of, peaks
from hhat.types import State

SNR_GATE = 16.0
LEAST_SNR = 0.1


@dataclass(frozen=True, eq=False)
class Gradient(Calibrator):
    """Per step: the map's largest value in each of `batch` snapshots under k, the mean gradient of the loss with the
    place held, one step of Adam on real and imaginary parts, |k|^2 = N.

    loss:    `PeakLoss` (14) or `ResidualLoss` (15). Their `scale` is the published one where it is in watts
    project: the gradient is made tangent to |k|^2 = N first. The paper does not; see `losses.tangent`
    batch:   snapshots per step, drawn anew from all; None: all of them, in order, for blocks that `follow` brings
    snr:     assumed by loss (15), as a ratio; None: the echoes' own, else estimated from the batch's largest values
    start:   the paper's k = 1, or `start.sector_start`
    No uncertainty is known: it is infinite. info: loss (mean over the last batch).
    Source: Mateos-Ramos et al. 2025, Algorithm 1 (10,000 steps of 1,024 fresh snapshots, not projected, in watts).
    Departures: the search is outside of the derivative (equal by the envelope theorem); projection; 400 steps.
    """

    loss: Loss = field(default_factory=PeakLoss)
    project: bool = True
    batch: int | None = 512
    rate: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    snr: float | int | None = None
    start: Callable[[Echoes], Tensor] = ones
    size: tuple[int, int] = SIZE
    coarse: tuple[int, int] = COARSE
    max_steps: int = 400
    tol: float | None = None

    def init(self, echoes: Echoes, gen: torch.Generator) -> State:
        k = normalised(self.start(echoes))
        seed = int(torch.randint(1 << 62, (), generator=gen))
        none = torch.zeros_like(torch.view_as_real(k))
        change = torch.ones((), dtype=torch.float64)
        return {"kappa": k, "first": none, "second": none, "count": 0, "seed": seed, "change": change, "loss": math.nan}

    def step(self, state: State, echoes: Echoes) -> State:
        flat, k, count = echoes.flat(), state["kappa"], state["count"] + 1
        if self.batch is not None and self.batch < len(flat.y):
            gen = generator("gradient", state["seed"], count)
            flat = flat.rows(torch.randint(len(flat.y), (self.batch,), generator=gen).to(flat.y.device))
        seen = self._aligned(peaks(flat, k, 0.0, 0.0, self.size, self.coarse), echoes)
        gradient = self.loss.gradient(k, seen)
        gradient = torch.view_as_real(tangent(gradient, k) if self.project else gradient)
        first = self.betas[0] * state["first"] + (1 - self.betas[0]) * gradient
        second = self.betas[1] * state["second"] + (1 - self.betas[1]) * gradient.square()
        root = (second / (1 - self.betas[1] ** count)).sqrt() + self.eps
        step = self.rate / (1 - self.betas[0] ** count) * first / root
        new = scaled(torch.view_as_complex(torch.view_as_real(k) - step))
        return {
            **{"kappa": new, "first": first, "second": second, "count": count, "seed": state["seed"]},
            **{"change": moved(new, k), "loss": float(self.loss.value(k, seen).mean())},
        }

    def read(self, state: State, echoes: Echoes) -> Calibration:
        unknown = torch.full_like(state["kappa"].real, math.inf)
        k = normalised(state["kappa"])
        return Calibration(k, unknown, math.inf, line_of(echoes), {"loss": state["loss"]})

    def _aligned(self, views: Views, echoes: Echoes) -> Aligned:
        snr = self.snr if self.snr is not None else echoes.snr
        if snr is None:
            snr = max(LEAST_SNR, snr_of(views.statistic, SNR_GATE)[0])
        return Aligned(views.z, views.energy, None if snr != snr else snr)


def scaled(k: Complex[Tensor, " rx"]) -> Complex[Tensor, " rx"]:
    """|k|^2 = N, the phase as it is: Adam's memory of real and imaginary parts must not be turned away from."""
    return k * (math.sqrt(len(k)) / k.abs().square().sum().sqrt())
