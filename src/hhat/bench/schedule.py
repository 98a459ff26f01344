"""Which cell comes next, on which lane, and when a row has enough: the same numbers whoever runs them.

A row is one method at one point; with a stopping rule its next block is handed out only once the blocks before it are
in and have not met the rule. A lane is a place where one cell at a time runs; it stays with its point and its draw as
long as there is work, so that what a point has to set up is set up once.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from hhat.bench.stopping import Stopping, counted_groups
from hhat.bench.store import Cell
from hhat.bench.summary import Group, summarise
from hhat.bench.worker import Failed, Outcome, Task

Row = tuple[int, str]
Draw = tuple[int, int]


class Schedule:
    """Hands out tasks and takes in what became of them.

    tasks:  all cells of a profile, in the order of a serial run
    until:  the stopping rule of its rows
    stored: the cells among them that are there already
    """

    def __init__(self, tasks: Iterable[Task], until: Stopping | None = None, stored: Iterable[Cell] = ()):
        self._until = until
        self._rows: dict[Row, list[Task]] = {}
        self._row_of: dict[str, Row] = {}
        points: dict[str, int] = {}
        for task in tasks:
            place = points.setdefault(repr(task.point), len(points))
            self._rows.setdefault((place, task.method), []).append(task)
            self._row_of[task.key] = (place, task.method)
        self._done: dict[str, Cell] = {cell.key: cell for cell in stored if cell.key in self._row_of}
        self._given: set[str] = set(self._done)
        self._lanes: dict[int, Draw] = {}
        self._open: dict[int, dict[int, list[Task]]] = {}
        self._ended: set[Row] = set()
        self._unmet: dict[Row, int] = {}
        self._labels = list(dict.fromkeys(label for _, label in self._rows))
        for row in self._rows:
            self._advance(row)

    def take(self, lane: int = 0) -> Task | None:
        """The next task for a lane; None: nothing to hand out until more is in, or ever."""
        draw = self._best(lane)
        if draw is None:
            self._lanes.pop(lane, None)
            return None
        self._lanes[lane] = draw
        place, block = draw
        tasks = self._open[place][block]
        task = tasks.pop(0)
        if not tasks:
            del self._open[place][block]
            if not self._open[place]:
                del self._open[place]
        return task

    def give(self, outcome: Outcome) -> None:
        """What became of a task. A row of which a cell failed is not gone on with."""
        key = outcome.task.key if isinstance(outcome, Failed) else outcome.key
        row = self._row_of[key]
        if isinstance(outcome, Failed):
            self._end(row)
            return
        self._done[key] = outcome
        if self._until is not None:
            self._advance(row)

    def rows(self) -> list[Group]:
        """What is in of each row that has anything, cut where the rule stops it."""
        found = [self._group(row) for row in self._rows]
        return counted_groups((cells for cells in found if cells.cells), self._until)

    def total(self) -> int:
        """Cells that are in or still to come, at most."""
        return len(self._done) + len(self.left())

    def left(self) -> list[Task]:
        """Tasks whose cells are not in; with a stopping rule those it may still ask for, by the width so far."""
        found = []
        for row, tasks in self._rows.items():
            if row in self._ended:
                continue
            found += [task for task in tasks[: self._needed(row)] if task.key not in self._done]
        return found

    def _best(self, lane: int) -> Draw | None:
        """Same draw, same point, a point no lane is at, the point of fewest lanes; of each the earliest."""
        if not self._open:
            return None
        here = self._lanes.get(lane)
        others = [draw for other, draw in self._lanes.items() if other != lane]
        if here is not None and here[1] in self._open.get(here[0], {}) and here not in others:
            return here
        crowd = {place: sum(draw[0] == place for draw in others) for place in self._open}
        stay = here[0] if here is not None and here[0] in self._open else None
        place = stay if stay is not None else min(self._open, key=lambda name: (crowd[name], name))
        block = min(self._open[place], key=lambda number: ((place, number) in others, number))
        return place, block

    def _group(self, row: Row) -> Group:
        tasks = self._rows[row]
        cells = [self._done[task.key] for task in tasks if task.key in self._done]
        return Group(tasks[0].method, tasks[0].point, cells[0].seed if cells else 0, cells)

    def _advance(self, row: Row) -> None:
        """Open the tasks of a row that may run now."""
        if row in self._ended:
            return
        tasks = self._rows[row]
        ready = tasks if self._until is None else tasks[: self._allowed(row, self._until)]
        place = row[0]
        for task in ready:
            if task.key not in self._given:
                self._given.add(task.key)
                waiting = self._open.setdefault(place, {}).setdefault(task.block, [])
                waiting.append(task)
                waiting.sort(key=lambda one: self._labels.index(one.method))

    def _allowed(self, row: Row, until: Stopping) -> int:
        """How many blocks of a row may have been handed out: one more than are in, none where the rule is met."""
        tasks, cells = self._rows[row], self._group(row)
        head = next((count for count, task in enumerate(tasks) if task.key not in self._done), len(tasks))
        for count in range(max(until.min_blocks, self._unmet.get(row, 0) + 1), head + 1):
            if until.met(replace(cells, cells=cells.cells[:count])):
                self._end(row)
                return 0
            self._unmet[row] = count
        return max(until.min_blocks, head + 1)

    def _end(self, row: Row) -> None:
        self._ended.add(row)
        mine = {task.key for task in self._rows[row]}
        for block, tasks in list(self._open.get(row[0], {}).items()):
            kept = [task for task in tasks if task.key not in mine]
            if kept:
                self._open[row[0]][block] = kept
            else:
                del self._open[row[0]][block]
        if not self._open.get(row[0], True):
            del self._open[row[0]]

    def _needed(self, row: Row) -> int:
        """Blocks a row will take: an interval narrows as one over the root of its blocks."""
        most = len(self._rows[row])
        if self._until is None:
            return most
        cells = self._group(row)
        count = len(cells.cells)
        if count < max(self._until.min_blocks, 2):
            return most
        value = summarise(self._until.metric, cells)
        if value is None or not math.isfinite(value.high - value.low):
            return most
        wanted = count * ((value.high - value.low) / (2 * self._until.half_width)) ** 2
        return min(most, max(count + 1, math.ceil(wanted)))
