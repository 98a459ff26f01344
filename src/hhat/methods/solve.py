"""`solve`, the only loop over iterations, and `track`, the only loop over slots."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hhat.methods.base import Method
from hhat.methods.working import Work, finite, finite_state, merge, settled
from hhat.random import generator
from hhat.types import Estimate, Gaussian, Observation, Slot, State, Status


def solve(
    method: Method,
    obs: Observation,
    max_steps: int | None = None,
    tol: float | None = None,
    gen: torch.Generator | None = None,
) -> Estimate:
    """Estimate the channel of every batch item: init, steps until each item converges, read.

    Converged items freeze, so that a batch gives what its items give alone. An item whose input or iteration is not
    finite keeps its last finite state, with status NONFINITE; an item whose y is not finite gets mean 0 and
    infinite variance.
    max_steps, tol: override the method's own; gen: for methods that draw (default: a fixed labelled generator).
    """
    method, chosen = method.resolve(obs)
    limit = max_steps if max_steps is not None else method.max_steps
    tol = method.tol if tol is None else tol
    if limit is None or limit < 1:
        raise ValueError(f"max_steps: expected at least 1, got {limit}")
    batch = obs.batch_shape
    obs, lost = _cleaned(obs)
    state = settled(method.init(obs, gen if gen is not None else generator("solve")))
    status = torch.full(batch, int(Status.RUNNING), dtype=torch.int8, device=obs.y.device)
    status = status.masked_fill(lost, int(Status.NONFINITE))
    work = Work(obs, state, status, torch.zeros(batch, dtype=torch.int32, device=obs.y.device))
    for count in range(1, limit + 1):
        work = work.stepped(method, tol, count == limit)
        if work.ended():
            break
        work = work.narrowed()
    work = work.restored()
    status = work.status.masked_fill(work.status == Status.RUNNING, int(Status.MAX_STEPS))
    est = _marked(method.read(work.state, obs), status, lost, work.steps)
    return replace(est, info={**est.info, **chosen})


def track(
    method: Method, slots: Iterable[Slot | Observation | Any], state: State | None = None
) -> Iterator[tuple[State, Estimate]]:
    """Fold a method over slots: yields (state, estimate). A saved state resumes where it stopped.

    A tracker (`method.tracks`) takes one step per slot and carries its state; any other method solves each slot on
    its own. An item whose y is not finite in some slot keeps its state through it and is marked NONFINITE there.
    Methods that see another record than `Observation` take slots of that (`hhat.distortion.DistortedPilots`).
    """
    for slot in slots:
        obs, lost = _cleaned(slot.obs if isinstance(slot, Slot) else slot)
        chosen, words = method.resolve(obs)
        if not chosen.tracks:
            state = {"slots": (state or {}).get("slots", 0) + 1}
            yield state, solve(method, slot.obs if isinstance(slot, Slot) else slot)
            continue
        state = settled(chosen.init(obs, generator("track")) if state is None else state)
        new = settled(chosen.step(state, obs))
        live = ~lost & finite_state(new, obs.batch_shape)
        state = new if bool(live.all()) else merge(state, new, live)
        status = torch.where(live, int(Status.OK), int(Status.NONFINITE)).to(torch.int8)
        est = _marked(chosen.read(state, obs), status, lost, torch.ones_like(status, dtype=torch.int32))
        yield state, replace(est, info={**est.info, **words})


def _cleaned(obs: Any) -> tuple[Any, Tensor]:
    """The observation with items that are not finite set to zero, and which those are. Another record than
    `Observation` does it itself."""
    if not isinstance(obs, Observation):
        return obs.cleaned()
    batch, shape = obs.batch_shape, tuple(obs.op.out_shape)
    lost = ~finite(obs.y.expand(*batch, *shape), batch)
    if bool(lost.any()):
        mask = lost.reshape(*batch, *(1,) * len(shape))
        obs = Observation(obs.y.expand(*batch, *shape).masked_fill(mask, 0), obs.op, obs.noise_var, obs.axes)
    return obs, lost


def _marked(est: Estimate, status: Tensor, lost: Tensor, steps: Tensor) -> Estimate:
    mean, var = est.belief.mean, est.belief.var
    bad = ~(finite(mean, status.shape))
    # that units were lost only the method knows
    degraded = (est.status == Status.DEGRADED) & (status != Status.NONFINITE)
    status = status.masked_fill(degraded, int(Status.DEGRADED)).masked_fill(bad, int(Status.NONFINITE))
    wipe = lost | bad
    if bool(wipe.any()):
        mask = wipe.reshape(*status.shape, *(1,) * (mean.ndim - status.ndim))
        var = var.expand(mean.shape).masked_fill(mask, torch.inf)
        mean = mean.masked_fill(mask, 0)
    return Estimate(Gaussian(mean, var), {**est.info, "steps": steps}, status)
