"""`Calibrator`: frozen settings and three pure functions; `calibrate` owns the loop over steps, `follow` over blocks.

These are `Method`'s init, step and read. `hhat.solve` itself does not fit: its items each have an estimate of their own
and freeze one by one, whereas here all snapshots together have one.
"""

import abc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hhat.random import generator
from hhat.sensing.calibration import Calibration
from hhat.sensing.echoes import Echoes
from hhat.types import Slot, State, Status


class Calibrator(abc.ABC):
    """Gains from echo snapshots. Subclasses are frozen dataclasses whose defaults are the best we know.

    State is a flat dict of tensors, generators and JSON scalars (`hhat.save_state`); state["kappa"] are the gains,
    state["change"] their e0 against those of the step before.
    max_steps, tol: of `calibrate`; tol None: exactly max_steps steps.
    """

    max_steps: int = 1
    tol: float | None = None

    @abc.abstractmethod
    def init(self, echoes: Echoes, gen: torch.Generator) -> State:
        """State before the first step."""

    @abc.abstractmethod
    def step(self, state: State, echoes: Echoes) -> State:
        """The next state; neither argument is changed."""

    @abc.abstractmethod
    def read(self, state: State, echoes: Echoes) -> Calibration:
        """Gains and their uncertainty as a state holds them."""

    @classmethod
    def example(cls, gen: torch.Generator) -> "Calibrator":
        return cls()


def calibrate(
    echoes: Echoes,
    calibrator: Calibrator | None = None,
    max_steps: int | None = None,
    tol: float | None = None,
    gen: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Calibration:
    """Antenna gains and phases from unlabelled echoes: init, steps until the gains settle, read.

    calibrator:     None: `Eigenvector()`
    max_steps, tol: override the calibrator's own; gen: for calibrators that draw (default: a fixed labelled generator)
    progress:       called after each step with its number and the change it made
    """
    if calibrator is None:
        from hhat.sensing.eigenvector import Eigenvector

        calibrator = Eigenvector()
    limit = calibrator.max_steps if max_steps is None else max_steps
    tol = calibrator.tol if tol is None else tol
    if limit < 1:
        raise ValueError(f"max_steps: expected at least 1, got {limit}")
    state = calibrator.init(echoes, gen if gen is not None else generator("calibrate"))
    ended = tol is None
    for number in range(1, limit + 1):
        new = calibrator.step(state, echoes)
        if not bool(torch.isfinite(torch.view_as_real(new["kappa"])).all()):
            return replace(calibrator.read(state, echoes), status=Status.NONFINITE)
        state = new
        if progress is not None:
            progress(number, float(state["change"]))
        if tol is not None and float(state["change"]) <= tol:
            ended = True
            break
    found = calibrator.read(state, echoes)
    found = replace(found, info={**found.info, "steps": number})
    return found if ended or found.status != Status.OK else replace(found, status=Status.MAX_STEPS)


def follow(
    calibrator: Calibrator, blocks: Iterable[Slot | Echoes], state: State | None = None
) -> Iterator[tuple[State, Calibration]]:
    """Fold a calibrator over blocks of snapshots, one step each: yields (state, calibration). A saved state resumes."""
    for block in blocks:
        echoes: Any = block.obs if isinstance(block, Slot) else block
        state = calibrator.init(echoes, generator("follow")) if state is None else state
        state = calibrator.step(state, echoes)
        yield state, calibrator.read(state, echoes)


def moved(new: Tensor, old: Tensor) -> Tensor:
    """e0 between the gains of two steps, float64 of no axes."""
    a, b = new.to(torch.complex128), old.to(torch.complex128)
    inner = (a.conj() * b).sum().abs().square()
    return (1 - inner / (a.abs().square().sum() * b.abs().square().sum()).clamp_min(1e-300)).clamp_min(0)
