"""How long cells will take, from cells that were run: for the time left, and for what would be run at all."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from hhat.bench.store import Cell
from hhat.bench.worker import Task, Worker


class Forecast(NamedTuple):
    """seconds: of computing on one lane; probed: methods of which one channel was timed for it, since no cell of them
    had been: batches are faster, so that their share is an upper bound."""

    seconds: float
    probed: tuple[str, ...] = ()


class Pace:
    """Wall time per realisation, by (method, point), else by method, else over all."""

    def __init__(self, cells: Iterable[Cell] = ()):
        self._sums: dict[tuple[str, ...], list[float]] = {}
        for cell in cells:
            self.add(cell)

    def add(self, cell: Cell) -> None:
        for name in ((cell.method, repr(cell.point)), (cell.method,), ()):
            total = self._sums.setdefault(name, [0.0, 0.0])
            total[0] += cell.wall_s
            total[1] += cell.items

    def knows(self, method: str) -> bool:
        return (method,) in self._sums

    def of(self, tasks: Sequence[Task]) -> float:
        """Seconds for these tasks; one of a method that was never timed takes as long as the average."""
        seconds = 0.0
        for task in tasks:
            names = ((task.method, repr(task.point)), (task.method,), ())
            found = next((self._sums[name] for name in names if name in self._sums), (0.0, 1.0))
            seconds += found[0] / found[1] * task.items
        return seconds


def forecast(worker: Worker, tasks: Sequence[Task], history: Iterable[Cell]) -> Forecast:
    """Time for these tasks by cells of the same methods, whatever their settings and versions were; of methods that
    have none, one channel is estimated now and not kept."""
    pace, probed = Pace(history), []
    for task in tasks:
        if not pace.knows(task.method) and task.method not in probed:
            probed.append(task.method)
            outcome = worker.attempt(replace(task, items=1))
            if isinstance(outcome, Cell):
                pace.add(outcome)
    return Forecast(pace.of(tasks), tuple(probed))
