"""One cell: draw a block, estimate it (only this is timed), score it. What runs here makes the numbers."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from hhat.bench.experiment import Bound, Experiment, Measurement, Point, example_of
from hhat.bench.recipe import machine, versions
from hhat.bench.store import Cell
from hhat.io.errors import InputError
from hhat.methods.solve import solve
from hhat.random import generator
from hhat.types import Estimate, Slot


@dataclass(frozen=True)
class Task:
    """A cell yet to be run; plain data, so that it can be sent to a worker."""

    key: str
    method: str
    point: dict[str, Any]
    block: int
    items: int
    threads: int
    start: int = 0
    """Realisations before this block, where they are recorded ones"""


class Failed(NamedTuple):
    """A task without a cell, and why; nothing is stored of it, so that the next run tries again."""

    task: Task
    why: str


Outcome = Cell | Failed


@runtime_checkable
class Recorded(Protocol):
    """A scenario whose snapshots were measured: a block is a part of them, in place of a fresh draw.

    count: how many snapshots there are; the last block holds what is left
    part:  snapshots start : start + n; gen for what is added to them
    """

    @property
    def count(self) -> int: ...

    def part(self, start: int, n: int, gen: torch.Generator) -> Slot: ...


class Worker:
    """Runs the tasks of one experiment; keeps the scenario, methods and draw of the last point and block."""

    def __init__(self, experiment: Experiment, device: str = "cpu"):
        self.experiment = experiment
        self.device = device
        self._point: Point | None = None
        self._scenario: Any = None
        self._methods: dict[str, Any] = {}
        self._drawn: tuple[int, int] | None = None
        self._slot: Slot | None = None
        self._warm: set[str] = set()

    def at(self, point: Point) -> Any:
        """The scenario of a point."""
        if point != self._point:
            self._scenario, self._point = self.experiment.scenario(point), dict(point)
            self._methods, self._drawn, self._warm = {}, None, set()
        return self._scenario

    def method(self, label: str, point: Point) -> Any:
        scenario = self.at(point)
        if label not in self._methods:
            self._methods[label] = self.experiment.methods[label](scenario)
        return self._methods[label]

    def attempt(self, task: Task) -> Outcome:
        """The cell, or in words what stands against it: one method that refuses does not end a sweep, a file that
        cannot be read does."""
        try:
            return self.execute(task)
        except InputError:
            raise
        except ValueError as refused:
            return Failed(task, f"{self.experiment.name}: {task.method} at {task.point}: {refused}")

    def execute(self, task: Task) -> Cell:
        """Draw, estimate (only this is timed), score."""
        with torch_threads(task.threads):
            method = self.method(task.method, task.point)
            if task.method not in self._warm and not isinstance(method, Bound | Measurement):
                # the first call pays for imports and for factorisations that every later call at this point reuses
                self._estimate(method, self.draw(1, "warm-up"))
                self._warm.add(task.method)
            slot = self._block(task)
            wall, cpu = time.perf_counter(), time.process_time()
            found: Any = (
                (method.arrays(slot), {})
                if isinstance(method, Bound)
                else method.measure(slot)
                if isinstance(method, Measurement)
                else self._estimate(method, slot, task.block)
            )
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            arrays, status = found if isinstance(found, tuple) else self._scored(found, slot, task.block == 0)
        return Cell(
            key=task.key,
            experiment=self.experiment.name,
            method=task.method,
            point=task.point,
            block=task.block,
            seed=self.experiment.seed,
            # of recorded snapshots what really was there; else what was asked for, whatever a draw makes of it
            items=max(1, math.prod(slot.obs.batch_shape)) if isinstance(self._scenario, Recorded) else task.items,
            # as the store keeps them: what is decided while a run goes on is what a later reader decides
            arrays={name: value.detach().cpu().float() for name, value in arrays.items()},
            status=status,
            wall_s=wall,
            cpu_s=cpu,
            device=self.device,
            threads=task.threads,
            versions=versions(),
            machine=machine(),
        )

    def _scored(self, estimate: Estimate, slot: Slot, first: bool) -> tuple[dict[str, Tensor], dict[str, int]]:
        """What is kept of a block, and how its realisations ended."""
        arrays = self.experiment.score(estimate, slot)
        if self.experiment.example and first:
            arrays |= example_of(estimate, slot)
        return arrays, estimate.status_counts()

    def _block(self, task: Task) -> Slot:
        wanted = (task.block, task.items)
        if self._slot is None or self._drawn != wanted:
            self._slot, self._drawn = self.draw(task.items, task.block, task.start), wanted
        return self._slot

    def draw(self, count: int, block: int | str, start: int = 0) -> Slot:
        """Realisations of the current point; neither the point nor the method is in the seed."""
        gen = generator("bench", self.experiment.name, self.experiment.seed, block)
        scene = self._scenario
        slot = scene.part(start, count, gen) if isinstance(scene, Recorded) else scene.draw(count, gen)
        return replace(slot, obs=slot.obs.to(self.device))

    def _estimate(self, method: Any, slot: Slot, block: int | str = "warm-up") -> Estimate:
        gen = generator("bench", self.experiment.name, self.experiment.seed, block, "solver")
        estimate = solve(method, slot.obs, gen=gen)
        if self.device != "cpu":
            torch.cuda.synchronize()
        return estimate


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """This many torch threads inside, the caller's number again after."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
