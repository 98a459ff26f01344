"""`hybrid`: paths first, then a sparse estimate of what they leave, where they leave something."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hhat.methods.auto import Auto
from hhat.methods.base import Method, noise_info
from hhat.methods.nomp import Nomp
from hhat.methods.rows import Rows
from hhat.methods.solve import solve
from hhat.ops.base import LinearOp
from hhat.ops.linalg import per_axis
from hhat.types import Estimate, Gaussian, Observation, State, Status

GATE = 1.15
"""Residual power over noise power above which a sparse estimate of the residual is added: five standard deviations of
1024 samples of noise, two and a half of 256."""


@dataclass(frozen=True, eq=False)
class Hybrid(Method):
    """h = sum_g alpha_g s(theta_g) + B x: `paths` on y; where |residual|^2 > gate * noise, `rest` on the residual.

      mean = mean_paths + mean_rest,   var = var_paths + var_rest

    The two errors are added as if independent: `rest` takes the paths for exact, and a part of their error for channel.
    Where the gate stays shut the estimate is that of `paths`, which a sparse estimate of mere noise would only spoil.

    paths: None: `nomp` with what fits the axes; where no path model does, this is `rest` alone, and info says so
    rest:  any method, with the basis in which the residual is sparse; None: `auto`, for an array `oamp` with the
           pattern-coupled prior on angles and delays
    gate:  residual power over noise power, paths' unknowns counted, above which `rest` runs. Where the noise is not
           given: where the search for paths did not end by itself (all max_paths taken); `rest` learns the noise then.
    info:  of `paths` (paths, num_paths, residual_ratio) and gated: where `rest` was added; these end as it did.
    Source: hhat; the gate is the prototype's.
    """

    variance: ClassVar[str] = "posterior"
    paths: Nomp | None = None
    rest: Method | None = None
    gate: float = GATE
    max_steps: int = 1
    tol: float | None = 0.5

    def __post_init__(self):
        if not self.gate >= 1:
            raise ValueError(f"hybrid: gate: expected at least 1, got {self.gate}")

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        paths, words = (self.paths or Nomp()).resolve(obs)
        rest = self._rest
        if not isinstance(paths, Nomp):
            method, said = rest.resolve(obs)
            why = (
                f"{words['why'].replace('nomp', 'hybrid')}; what is left of it: {said.get('why', type(rest).__name__)}"
            )
            return method, {"method": said.get("method", "hybrid without paths"), "why": why}
        return replace(self, paths=paths, rest=rest), {}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        mean = obs.y.new_zeros(*obs.batch_shape, *obs.op.in_shape)
        precision = torch.zeros_like(mean.real)  # 0 for an infinite variance: a state is finite
        return {"mean": mean, "precision": precision, "change": obs.y.real.new_ones(obs.batch_shape)}

    def step(self, state: State, obs: Observation) -> State:
        found = solve(self._paths, obs)
        batch, lift = obs.batch_shape, (..., *(None,) * len(obs.op.in_shape))
        mean, var = found.belief.mean, found.belief.var.expand(found.belief.mean.shape)
        ended, ratio, noise = found.status, found.info["residual_ratio"], found.info["noise_var"]
        gated = ratio > self.gate if obs.noise_var is not None else ended == Status.MAX_STEPS
        gated = gated & (ended != Status.NONFINITE)
        if bool(gated.any()):
            op: LinearOp = obs.op.like(mean)  # type: ignore[attr-defined]
            rows = Rows.all(op, batch).of(gated)
            given = None if obs.noise_var is None else rows.take(_full(obs.noise_var, op.out_shape, batch))
            more = solve(
                self._rest,
                Observation(rows.take(obs.y.expand(*batch, *op.out_shape) - op.apply(mean)), op, given, obs.axes),
            )
            # the paths' own variance holds what they left, which `rest` now accounts for
            own = (var - found.info["remainder_var"][lift].to(var.dtype)).clamp_min(0)
            mean = torch.where(gated[lift], mean + rows.put(torch.zeros_like(mean), more.belief.mean), mean)
            var = torch.where(gated[lift], own + rows.put(own, more.belief.var.expand(more.belief.mean.shape)), var)
            ended = torch.where(gated, rows.put(ended, more.status), ended)
            if obs.noise_var is None:
                noise = rows.put(noise, _full(more.info["noise_var"], op.out_shape, more.status.shape).to(noise.dtype))
        new: State = {f"paths.{name}": value for name, value in found.info["paths"].items()}
        new |= {name: found.info[name] for name in ("num_paths", "residual_ratio")}
        if obs.noise_var is None:
            new["noise_var"] = noise
        # what has no estimate is no finite state either: `solve` marks it
        lost = (ended == Status.NONFINITE)[lift]
        precision = 1 / var.clamp_min(torch.finfo(var.dtype).tiny)
        change = (ended != Status.OK).to(state["change"].dtype)
        return {
            **new,
            "mean": mean.masked_fill(lost, torch.nan),
            "precision": precision,
            "gated": gated,
            "change": change,
        }

    def read(self, state: State, obs: Observation) -> Estimate:
        info = {name: state[name] for name in ("num_paths", "residual_ratio", "gated") if name in state}
        info["paths"] = {name[6:]: value for name, value in state.items() if name.startswith("paths.")}
        return Estimate(Gaussian(state["mean"], 1 / state["precision"]), {**info, **noise_info(state, obs)})

    @property
    def _paths(self) -> Nomp:
        return replace(self.paths or Nomp(), remainder=False)

    @property
    def _rest(self) -> Method:
        return self.rest or Auto()


def _full(noise: Tensor, shape: tuple[int, ...], batch: tuple[int, ...] | torch.Size) -> Tensor:
    """Noise variances with all batch axes; event axes of size 1 stay shared."""
    noise = per_axis(noise, len(shape), tuple(shape))
    return noise.expand(*batch, *noise.shape[noise.ndim - len(shape) :])
