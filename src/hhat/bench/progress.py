"""What a terminal shows while a run goes on: cells done, rate, time left, and the current number of every method."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from hhat.bench.forecast import Pace
from hhat.bench.schedule import Schedule
from hhat.bench.summary import summarise
from hhat.bench.worker import Failed, Outcome

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import Progress

REFRESH_S = 0.25
SHOWN = 16
"""Methods that have a line each"""


class Shown(Protocol):
    """What takes part in a run only by looking."""

    def saw(self, outcome: Outcome) -> None: ...


class Quiet:
    """Shows nothing."""

    def saw(self, outcome: Outcome) -> None:
        pass


@contextmanager
def shown(name: str, metric: str, schedule: Schedule, wanted: bool) -> Iterator[Shown]:
    """A live table on stderr where that is a terminal and there is something to run; else nothing at all."""
    if not wanted or not sys.stderr.isatty() or not schedule.left():
        yield Quiet()
        return
    from rich.console import Console
    from rich.live import Live

    table = Table(name, metric, schedule)
    # drawn between cells and never beside one: a thread of its own would be in the time of what it shows
    with Live(console=Console(stderr=True), auto_refresh=False, get_renderable=table.drawn) as table.live:
        yield table


class Table:
    """The live table of one run."""

    def __init__(self, name: str, metric: str, schedule: Schedule):
        self._name, self._metric, self._schedule = name, metric, schedule
        self._pace = Pace()
        self._began = time.monotonic()
        self._before = schedule.total() - len(schedule.left())
        self._count, self._wall, self._failed = 0, 0.0, 0
        self._last: dict[str, dict[str, Any]] = {}
        self.live: "Live | None" = None
        self._drawn_at = 0.0

    def saw(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            self._failed += 1
            return
        self._count += 1
        self._wall += outcome.wall_s
        self._pace.add(outcome)
        self._last[outcome.method] = outcome.point
        # drawing asks for every interval again: not oftener than a person can read
        if self.live is not None and time.monotonic() - self._drawn_at > REFRESH_S:
            self.live.refresh()
            self._drawn_at = time.monotonic()

    def drawn(self) -> "Group":
        from rich import box
        from rich.console import Group
        from rich.table import Table as Lines
        from rich.text import Text

        groups = self._schedule.rows()
        done: dict[str, int] = {}
        for cells in groups:
            done[cells.method] = done.get(cells.method, 0) + len(cells.cells)
        lines = Lines(box=box.SIMPLE_HEAD, pad_edge=False)
        for title, side in (("method", "left"), ("cells", "right"), ("at", "left"), (self._metric, "right")):
            lines.add_column(title, justify=side)  # type: ignore[arg-type]
        for label, point in list(self._last.items())[:SHOWN]:
            (here,) = [cells for cells in groups if cells.method == label and cells.point == point] or [None]
            value = None if here is None else summarise(self._metric, here)
            shape = ".2f" if self._metric.endswith("_db") else ".3g"
            number = "-" if value is None else f"{value.value:{shape}} ±{(value.high - value.low) / 2:{shape}}"
            place = " ".join(f"{key}={setting}" for key, setting in point.items())
            lines.add_row(*map(Text, (label, str(done.get(label, 0)), place, number)))
        return Group(self._bar(), lines)

    def _bar(self) -> "Progress":
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        left = self._schedule.left()
        total, elapsed = self._schedule.total(), time.monotonic() - self._began
        words = self._name
        if self._count:
            # what a cell costs beside its estimate (draws, scores, waiting) is in the ratio of both clocks
            seconds = self._pace.of(left) * elapsed / max(self._wall, 1e-9)
            words += f"  {self._count / elapsed:.3g} cells/s  {clock(seconds)} left"
        if self._failed:
            words += f"  {self._failed} failed"
        bar = Progress(BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        bar.add_task(words, total=total, completed=self._before + self._count)
        return bar


def clock(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
