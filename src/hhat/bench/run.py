"""The runner: works out which cells an experiment lacks, runs them one by one and stores each as it ends.

A cell is one block of one method at one point on one torch thread (or as many as the point's `threads` says),
so that its numbers are equal to the bit wherever the kind of CPU is the same.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hhat.bench.experiment import Experiment, Point, example_of
from hhat.bench.recipe import code_version, describe, digest, machine, versions
from hhat.bench.store import FILE, Cell, Run, Store
from hhat.bench.summary import Row, group
from hhat.bench.summary import rows as summarise_rows
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

    def execute(self, task: Task) -> Cell:
        """Draw, estimate (only this is timed), score."""
        with torch_threads(task.threads):
            method = self.method(task.method, task.point)
            if task.method not in self._warm:
                # the first call pays for imports and for factorisations that every later call at this point reuses
                self._estimate(method, self.draw(1, "warm-up"))
                self._warm.add(task.method)
            slot = self._block(task)
            wall, cpu = time.perf_counter(), time.process_time()
            estimate = self._estimate(method, slot, task.block)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            arrays = self.experiment.score(estimate, slot)
            if self.experiment.example and task.block == 0:
                arrays |= example_of(estimate, slot)
        return Cell(
            key=task.key,
            experiment=self.experiment.name,
            method=task.method,
            point=task.point,
            block=task.block,
            seed=self.experiment.seed,
            items=task.items,
            arrays=arrays,
            status=estimate.status_counts(),
            wall_s=wall,
            cpu_s=cpu,
            device=self.device,
            threads=task.threads,
            versions=versions(),
        )

    def _block(self, task: Task) -> Slot:
        wanted = (task.block, task.items)
        if self._slot is None or self._drawn != wanted:
            self._slot, self._drawn = self.draw(task.items, task.block), wanted
        return self._slot

    def draw(self, count: int, block: int | str) -> Slot:
        """Realisations of the current point; neither the point nor the method is in the seed."""
        slot = self._scenario.draw(count, generator("bench", self.experiment.name, self.experiment.seed, block))
        return replace(slot, obs=slot.obs.to(self.device))

    def _estimate(self, method: Any, slot: Slot, block: int | str = "warm-up") -> Estimate:
        gen = generator("bench", self.experiment.name, self.experiment.seed, block, "solver")
        estimate = solve(method, slot.obs, gen=gen)
        if self.device != "cpu":
            torch.cuda.synchronize()
        return estimate


def plan(experiment: Experiment, profile: str, device: str = "cpu") -> tuple[Run, list[Task]]:
    """Everything a profile consists of: the run's recipe and its tasks, in the order in which they are run."""
    chosen = experiment.profile(profile)
    labels = experiment.labels(profile)
    worker = Worker(experiment, device)
    tasks: list[Task] = []
    settings: dict[str, Any] = {}
    scenarios: list[Any] = []
    shared = [experiment.name, experiment.seed, describe(experiment.score), experiment.example, device, code_version()]
    with torch_threads(1):
        for point in map(dict, chosen.points):
            scenario = describe(worker.at(point))
            scenarios.append(scenario)
            recipes = {label: describe(worker.method(label, point)) for label in labels}
            settings |= {label: recipe for label, recipe in recipes.items() if label not in settings}
            size, threads = _block_shape(point, chosen.block_size)
            # the label too: two labels of equal settings are two rows
            names = {name: [*shared, name, scenario, recipes[name], point, size, threads] for name in labels}
            for block in range(chosen.blocks):
                for label in labels:
                    key = digest(names[label], block)
                    tasks.append(Task(key, label, point, block, size, threads))
        recipe = {
            "title": experiment.title,
            "claim": experiment.claim,
            "note": experiment.note,
            "seed": experiment.seed,
            "metrics": list(experiment.metrics),
            "blocks": chosen.blocks,
            "block_size": chosen.block_size,
            "scenario": scenarios[0],
            "methods": settings,
            "versions": versions(),
            **_about(worker),
        }
    keys = tuple(task.key for task in tasks)
    return Run(digest(profile, recipe, keys), experiment.name, profile, recipe, machine(), keys), tasks


def missing(
    experiment: Experiment, profile: str = "quick", runs_dir: Path | str = "runs", device: str = "cpu"
) -> list[Task]:
    """The tasks that `run` would run now; writes nothing."""
    tasks = plan(experiment, profile, device)[1]
    if not (Path(runs_dir) / FILE).is_file():
        return tasks
    with Store(runs_dir, create=False) as store:
        done = store.keys()
    return [task for task in tasks if task.key not in done]


def run(
    experiment: Experiment,
    profile: str = "quick",
    runs_dir: Path | str = "runs",
    progress: bool = True,
    device: str = "cpu",
) -> list[Row]:
    """Run the cells of a profile that the folder lacks, store each as it ends, and return the rows of all of them.

    progress: a bar on stderr, shown only to a terminal
    Raises ValueError for an unknown profile, an unusable store, or a method that refuses the scenario.
    """
    with Store(runs_dir) as store:
        planned, tasks = plan(experiment, profile, device)
        store.put_run(planned)
        done = store.keys()
        todo = [task for task in tasks if task.key not in done]
        worker = Worker(experiment, device)
        for task in _shown(todo, f"{experiment.name} {profile}", progress):
            try:
                store.put(worker.execute(task))
            except ValueError as refused:
                raise ValueError(f"{experiment.name}: {task.method} at {task.point}: {refused}") from refused
        return summarise_rows(group(store.cells(planned.cells)), experiment.metrics)


def rows(
    experiment: Experiment, profile: str = "quick", runs_dir: Path | str = "runs", device: str = "cpu"
) -> list[Row]:
    """Rows of what is stored of a profile; runs nothing."""
    planned, _ = plan(experiment, profile, device)
    with Store(runs_dir, create=False) as store:
        return summarise_rows(group(store.cells(planned.cells)), experiment.metrics)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """This many torch threads inside, the caller's number again after."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _block_shape(point: dict[str, Any], block_size: int) -> tuple[int, int]:
    size, threads = point.get("batch", block_size), point.get("threads", 1)
    for name, value in (("batch", size), ("threads", threads)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"point {point}: expected {name} to be a whole number >= 1, got {value}")
    return size, threads


def _about(worker: Worker) -> dict[str, Any]:
    slot = worker.draw(1, "about")
    about = slot.about
    return {
        "kind": about.kind,
        "snr_definition": about.snr_definition,
        "normalisation": about.normalisation,
        "source": about.source,
        "axes": list(slot.obs.axes or ()),
        "subcarriers": list(about.subcarriers or ()),
    }


def _shown(todo: list[Task], name: str, wanted: bool) -> Iterator[Task]:
    """The tasks one by one, with a bar on stderr where that is a terminal."""
    if not wanted or not sys.stderr.isatty() or not todo:
        yield from todo
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        line = bar.add_task(name, total=len(todo))
        for task in todo:
            point = " ".join(f"{key}={value}" for key, value in task.point.items())
            bar.update(line, description=f"{name}  {task.method} {point}")
            yield task
            bar.advance(line)
