"""The runner: what an experiment lacks is run cell by cell and stored as it ends, by one writer.

A cell is one block of one method at one point on one torch thread (or as many as the point's `threads` says),
so that its numbers are equal to the bit wherever the kind of CPU is the same.
"""

from dataclasses import dataclass
from pathlib import Path

from hhat.bench.execute import Lanes, Serial
from hhat.bench.experiment import Experiment
from hhat.bench.forecast import Forecast, forecast
from hhat.bench.plan import Plan, plan
from hhat.bench.progress import shown
from hhat.bench.recipe import versions
from hhat.bench.schedule import Schedule
from hhat.bench.store import FILE, Cell, Store
from hhat.bench.summary import Group, Row
from hhat.bench.summary import rows as summarise_rows
from hhat.bench.worker import Failed, Task, Worker


@dataclass(frozen=True)
class Result:
    """What is stored of a profile after a run.

    groups: per method and point its blocks, cut where the stopping rule ends them
    failed: tasks that gave no cell in this run, with why; a next run tries them again
    """

    plan: Plan
    groups: list[Group]
    failed: tuple[Failed, ...] = ()

    def rows(self) -> list[Row]:
        return summarise_rows(self.groups, self.plan.experiment.metrics)

    def status(self) -> dict[str, int]:
        """How many realisations ended how."""
        total: dict[str, int] = {}
        for cells in self.groups:
            for name, count in cells.status().items():
                total[name] = total.get(name, 0) + count
        return total


def complete(
    experiment: Experiment,
    profile: str = "quick",
    runs_dir: Path | str = "runs",
    progress: bool = True,
    device: str = "cpu",
    lanes: Lanes | None = None,
) -> Result:
    """Run the cells of a profile that the folder lacks and store each as it ends.

    progress: a live table on stderr, shown only to a terminal
    lanes:    who runs them: `Serial()` (default), `Processes(n)`, or `RayLanes(address)`; same numbers from all
    Raises ValueError for an unknown profile, an unusable or full store, or workers that run another version of hhat.
    A method that refuses its scenario ends its row alone and is in `failed`.
    """
    with Store(runs_dir) as store:
        planned = plan(experiment, profile, device)
        store.put_run(planned.run)
        schedule = Schedule(planned.tasks, planned.profile.until, store.cells(planned.run.cells))
        failed: list[Failed] = []
        title = f"{experiment.name} {profile}"
        with shown(title, experiment.metrics[0], schedule, progress) as watcher:
            for outcome in (lanes or Serial()).outcomes(experiment, device, schedule.take):
                if isinstance(outcome, Failed):
                    row = (outcome.task.method, outcome.task.point)
                    # several blocks of one row may have been on their way
                    if all((task.method, task.point) != row for task, _ in failed):
                        failed.append(outcome)
                else:
                    _same_version(outcome)
                    store.put(outcome)
                schedule.give(outcome)
                watcher.saw(outcome)
        return Result(planned, schedule.rows(), tuple(failed))


def run(
    experiment: Experiment,
    profile: str = "quick",
    runs_dir: Path | str = "runs",
    progress: bool = True,
    device: str = "cpu",
    lanes: Lanes | None = None,
) -> list[Row]:
    """`complete(...).rows()`; ValueError where a cell failed, after all the others were run and stored."""
    result = complete(experiment, profile, runs_dir, progress, device, lanes)
    if result.failed:
        raise ValueError(result.failed[0].why)
    return result.rows()


def missing(
    experiment: Experiment, profile: str = "quick", runs_dir: Path | str = "runs", device: str = "cpu"
) -> list[Task]:
    """The tasks that `run` would run now, at most; writes nothing."""
    planned = plan(experiment, profile, device)
    return _left(planned, runs_dir)[0]


def expected(
    experiment: Experiment, profile: str = "quick", runs_dir: Path | str = "runs", device: str = "cpu"
) -> tuple[list[Task], Forecast]:
    """`missing`, and how long it will take. Writes nothing."""
    planned = plan(experiment, profile, device)
    tasks, history = _left(planned, runs_dir)
    return tasks, forecast(Worker(experiment, device), tasks, history)


def _left(planned: Plan, runs_dir: Path | str) -> tuple[list[Task], list[Cell]]:
    """Tasks to be run, and the cells that were ever run of this experiment."""
    until = planned.profile.until
    if not (Path(runs_dir) / FILE).is_file():
        return Schedule(planned.tasks, until).left(), []
    with Store(runs_dir, create=False) as store:
        past = dict.fromkeys(
            key for run in store.runs() if run.experiment == planned.experiment.name for key in run.cells
        )
        stored = store.cells(planned.run.cells)
        return Schedule(planned.tasks, until, stored).left(), list(store.cells(past))


def rows(
    experiment: Experiment, profile: str = "quick", runs_dir: Path | str = "runs", device: str = "cpu"
) -> list[Row]:
    """Rows of what is stored of a profile; runs nothing."""
    planned = plan(experiment, profile, device)
    with Store(runs_dir, create=False) as store:
        groups = Schedule(planned.tasks, planned.profile.until, store.cells(planned.run.cells)).rows()
    return summarise_rows(groups, experiment.metrics)


def _same_version(cell: Cell) -> None:
    """A worker on another machine may have another hhat; its numbers would carry this one's name."""
    mine = versions()
    for name in ("hhat", "torch"):
        if cell.versions[name] != mine[name]:
            raise ValueError(f"a worker runs {name} {cell.versions[name]}, expected {mine[name]} on all machines")
