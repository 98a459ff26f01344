"""What all verbs share: their common options, and how they answer."""

import contextlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

WRONG, FAILED, INTERRUPTED = 2, 3, 130
PAPER_WIDTH = 140
"""Columns of a table that is not written to a terminal"""

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn.")]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1 ...")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Torch threads; small problems are fastest on one.")]
Settings = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting; repeat for more.")]
MaxBytes = Annotated[float, typer.Option("--max-bytes", help="Refuse datasets larger than this, as they are read.")]


def prepare(device: str, threads: int) -> Any:
    """Set the number of threads and return the torch device; ValueError where there is no such device."""
    import torch

    torch.set_num_threads(threads)
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if device not in there and not (device == "cuda" and len(there) > 1):
        raise ValueError(f"--device: no device '{device}'; there are: {' '.join(there)}")
    return torch.device(device)


def finite(value: Any) -> Any:
    """The same data with null for every number that JSON cannot write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def print_json(document: dict[str, Any]) -> None:
    print(json.dumps(finite(document), allow_nan=False))


def console() -> "Console":
    """stdout for people: as wide as the terminal, or PAPER_WIDTH."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PAPER_WIDTH, highlight=False)


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> None:
    """words: how many columns from the left hold text; the rest are numbers, set flush right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index < words else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    screen = console()
    if title:
        screen.print(Text(title, style="bold"))
    screen.print(table)


def print_pairs(items: Iterable[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in items:
        grid.add_row(Text(name, style="dim"), Text(value))
    console().print(grid)


def complain(words: str) -> None:
    """One line on stderr."""
    print("hhat: " + " ".join(words.split()), file=sys.stderr)


def digits(value: float | None, metric: str = "nmse_db") -> str:
    """Two decimals; below 0.1 three digits, of what is not in dB (an e0 of 4.75e-04)."""
    if value is None or not math.isfinite(value):
        return "-"
    if metric.endswith("_db") or value == 0 or abs(value) >= 0.1:
        return f"{value:.2f}"
    return f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.2e}"


def judge(status: dict[str, int], file: Any) -> None:
    """Exit code 3 and one line where an estimate did not end well. status: how many ended how."""
    from hhat.types import Status

    bad = {name: count for name, count in status.items() if name != "OK"}
    if bad:
        words = "; ".join(f"{count} {name} ({Status[name].text})" for name, count in bad.items())
        complain(f"{file}: {sum(bad.values())} of {sum(status.values())} estimates are not OK: {words}")
        raise typer.Exit(FAILED)


def interval(row: dict[str, Any]) -> str:
    low, high = row.get("low"), row.get("high")
    metric = row.get("metric", "nmse_db")
    return "" if low is None or high is None else f"[{digits(low, metric)}, {digits(high, metric)}]"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


@contextlib.contextmanager
def progress_bar(total: int, words: str, done: int = 0) -> Iterator[Any]:
    """A progress bar on stderr where that is a terminal; yields a function that takes what is done since."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task(words, total=total, completed=done)
        yield lambda count: bar.advance(line, count)
