"""The items that `solve` still works on: freezing what has converged, setting aside what has ended."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hhat.types import Observation, State, Status

WORTHWHILE = 0.5
"""Share of items still running below which the others are set aside."""


@dataclass(frozen=True, eq=False)
class Work:
    """Items that are iterated together; with `whole`, those of them at `rows` of its first batch axis."""

    obs: Observation
    state: State
    status: Tensor
    steps: Tensor
    whole: Any = None
    rows: Tensor | None = None

    def ended(self) -> bool:
        return not bool((self.status == Status.RUNNING).any())

    def stepped(self, method: Any, tol: float | None, last: bool) -> "Work":
        """One step of the running items; what has converged, or broken, is frozen. Without a tolerance the last step
        is what ends an item."""
        running = self.status == Status.RUNNING
        new = settled(method.step(self.state, self.obs))
        broken = running & ~finite_state(new, tuple(self.status.shape))
        live = running & ~broken
        state = new if bool(live.all()) else merge(self.state, new, live)
        status = self.status.masked_fill(broken, int(Status.NONFINITE))
        if tol is not None:
            status = status.masked_fill(live & (state["change"] <= tol), int(Status.OK))
        elif last:
            status = status.masked_fill(live, int(Status.OK))
        return replace(self, state=state, status=status, steps=self.steps + running.int())

    def narrowed(self) -> "Work":
        """Once most items have ended, the others alone: the slowest item then does not hold up the batch.

        Only where rows of the first batch axis can be taken apart: y has it and the operator has not.
        """
        running = self.status == Status.RUNNING
        if running.ndim == 0:
            return self
        keep = running.flatten(1).any(1) if running.ndim > 1 else running
        if int(keep.sum()) > WORTHWHILE * keep.numel() or not _separable(self.obs):
            return self
        rows = keep.nonzero()[:, 0]
        noise = self.obs.noise_var
        if noise is not None and noise.ndim == self.obs.y.ndim and noise.shape[0] > 1:
            noise = noise[rows]
        obs = Observation(self.obs.y[rows], self.obs.op, noise, self.obs.axes)
        state = {k: v[rows] if isinstance(v, Tensor) else v for k, v in self.state.items()}
        whole = self if self.whole is None else self.whole
        if self.rows is not None:
            whole, rows = self.restored(), self.rows[rows]
        return Work(obs, settled(state), self.status[keep], self.steps[keep], whole, rows)

    def restored(self) -> "Work":
        """All items, with what these have become."""
        if self.whole is None or self.rows is None:
            return self
        old, rows = self.whole, self.rows
        state = {k: _placed(old.state[k], rows, v) if isinstance(v, Tensor) else v for k, v in self.state.items()}
        status, steps = _placed(old.status, rows, self.status), _placed(old.steps, rows, self.steps)
        return Work(old.obs, state, status, steps)


def _separable(obs: Observation) -> bool:
    own, batch = obs.y.ndim - len(obs.op.out_shape), obs.batch_shape
    return own == len(batch) and (len(obs.op.batch_shape) < own or obs.op.batch_shape[0] == 1)


def _placed(whole: Tensor, rows: Tensor, part: Tensor) -> Tensor:
    return whole.index_copy(0, rows, part.expand(part.shape[0], *whole.shape[1:]))


def finite(x: Tensor, batch: tuple[int, ...] | torch.Size) -> Tensor:
    """Per batch item: are all entries finite? x has the batch axes in front (they broadcast to `batch`).

    A finite sum settles it at a third of the cost; one that is not may still be an overflow, so then all are looked at.
    """
    flat = x.flatten(len(batch)) if x.ndim > len(batch) else x[..., None]
    good = torch.isfinite(flat.sum(-1))
    if not bool(good.all()):
        good = torch.isfinite(flat).all(-1)
    return good.expand(batch)


def finite_state(state: State, batch: tuple[int, ...]) -> Tensor:
    good: Tensor | None = None
    for value in state.values():
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            now = finite(value, batch)
            good = now if good is None else good & now
    return torch.ones(batch, dtype=torch.bool) if good is None else good


def settled(state: State) -> State:
    """Tensors in one memory layout: a state from a file and one from the last step then give equal bits."""
    return {k: v.contiguous() if isinstance(v, Tensor) else v for k, v in state.items()}


def merge(old: State, new: State, live: Tensor) -> State:
    merged = {}
    for name, value in new.items():
        if isinstance(value, Tensor) and isinstance(old.get(name), Tensor):
            mask = live.reshape((*live.shape, *(1,) * (value.ndim - live.ndim)))
            value = torch.where(mask, value, old[name])
        merged[name] = value
    return merged
