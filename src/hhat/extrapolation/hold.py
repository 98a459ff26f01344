"""`hold`: every symbol on its own, its band part kept until the hops come back. What tracking has to beat."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Complex, Int
from torch import Tensor

from hhat.extrapolation.model import Sounding, sounded
from hhat.extrapolation.search import noise_floor
from hhat.extrapolation.task import Task
from hhat.methods.base import Method, relative_change
from hhat.methods.oamp import Oamp
from hhat.methods.solve import solve
from hhat.ops import Fourier, Identity, Kron
from hhat.priors.hierarchical import pattern_coupled
from hhat.types import Estimate, Gaussian, Observation, State

STEPS = 40
"""Of `oamp` on a band part: the operator is the identity, and more change nothing that can be seen"""


@dataclass(frozen=True, eq=False)
class Hold(Method):
    """h[tone] = this symbol's estimate where tone is sounded now, that of its last visit elsewhere.

    inner: method for the sounded part, an Identity operator of shape (column, row, tone) with axes of these names
           (hhat's antenna a = column * rows + row). None: `oamp` with the pattern-coupled prior over angles and delays;
           `LeastSquares()`: the pilots as they are.
    Every symbol has a phase of its own, so that what is held is turned against what is now: held band parts are of no
    use unless the phase is constant, and no estimate of one visit can change that. The variance says so: that of the
    visit where a tone is sounded; elsewhere twice the power that was seen plus it, infinite for a tone never sounded.
    Noise that is not given is taken from the quieter half of delays and angles of each symbol (`noise_floor`).
    Raises ValueError without a model, and for other operators.
    Source: the comparison of Wan & Liu 2024, who track each band part by OAMP; here nothing goes from visit to visit.
    """

    tracks: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    model: Sounding | None = None
    inner: Method | None = None

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        sounded(self._model(), obs)
        h = obs.y.new_zeros(*obs.batch_shape, *obs.op.in_shape)
        noise = torch.ones_like(h[..., 0, 0].real)
        return {"h": h, "precision": torch.zeros_like(h[..., :1, :].real), "noise_var": noise, "change": noise}

    def step(self, state: State, obs: Observation) -> State:
        model = self._model()
        now = sounded(model, obs)
        y, index = now.y[..., 0, :], now.index[0]
        shape = (model.columns, model.rows, len(index))
        noise = now.noise_var
        if noise is None:
            floor = noise_floor(Task.make(model, now, torch.zeros(1, dtype=torch.float64)))
            noise = floor.reshape((*obs.batch_shape, 1, 1, 1)).to(y.real.dtype)
        part = Observation(y.unflatten(-2, shape[:2]), Identity(shape), noise, ("column", "row", "tone"))
        est = solve(self.inner or oamp_part(shape), part)
        seen = est.belief.mean.flatten(-3, -2)
        var = est.belief.var.expand(est.belief.mean.shape).flatten(-3, -2).mean(-2, keepdim=True)
        # least squares claims nothing: its error is the noise
        var = torch.where(torch.isinf(var), noise if noise.ndim == 0 else noise[..., 0, :], var)
        tiny = torch.finfo(var.dtype).tiny
        # a held tone has kept its size and lost its phase: E|h e^{j phi} - h|^2 = 2 |h|^2
        power = seen.abs().square().mean((-2, -1), keepdim=True)
        held = torch.where(state["precision"] > 0, 1 / (2 * power), 0)
        h = state["h"].index_copy(-1, index, seen.to(state["h"].dtype))
        return {
            "h": h,
            "precision": held.index_copy(-1, index, 1 / var.clamp_min(tiny).expand(*held.shape[:-1], len(index))),
            "noise_var": noise.to(y.real.dtype).expand((*obs.batch_shape, 1, 1, 1))[..., 0, 0, 0],
            "change": relative_change(h, state["h"], 2),
        }

    def read(self, state: State, obs: Observation) -> Estimate:
        given = {"noise_var": obs.noise_var, "noise_var_source": "given"}
        found = {"noise_var": state["noise_var"], "noise_var_source": "estimated"}
        info = found if obs.noise_var is None else given
        return Estimate(Gaussian(state["h"], 1 / state["precision"]), info)

    def _model(self) -> Sounding:
        if self.model is None:
            raise ValueError("hold: model: expected a Sounding, got None; Sounding.of(about, num_rx_ant) gives it")
        return self.model

    @classmethod
    def example(cls, gen: torch.Generator) -> "Hold":
        return cls(Sounding(2, 2, tuple(120e3 * n for n in range(24))))


def oamp_part(shape: tuple[int, int, int]) -> Oamp:
    """OAMP over the angles (column, row) and delays of one band part."""
    columns, rows, tones = (Fourier(size) for size in shape)
    return Oamp(pattern_coupled(basis=Kron(columns, Kron(rows, tones))), max_steps=STEPS, tol=1e-4)


def genie_hold(
    h: Complex[Tensor, "*batch rx_ant symbol subcarrier"], index: Int[Tensor, "symbol tone"]
) -> Complex[Tensor, "*batch rx_ant symbol subcarrier"]:
    """The true channel of each tone's last visit, 0 before the first: the limit of any hold."""
    held = torch.zeros_like(h)
    now = torch.zeros_like(h[..., 0, :])
    for symbol, tones in enumerate(index):
        now = now.index_copy(-1, tones, h[..., symbol, :].index_select(-1, tones))
        held[..., symbol, :] = now
    return held
