"""What is wrong with a damaged store, and what can be saved of it into a new one."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hhat.bench.store import Store, run_of
from hhat.bench.store.database import ADDED, COLUMNS, FILE, DamagedStore, Record, verified
from hhat.bench.store.pages import records as page_records

TABLES = ("runs", "cells")
WIDTHS = {len(names) + 1: table for table, names in COLUMNS.items()}
WIDTHS |= {len(names) + 1 - len(ADDED[table]): table for table, names in COLUMNS.items()}
"""Columns of a row, of schema 2 and of schema 1 -> its table"""


@dataclass(frozen=True)
class Checked:
    """Of a store that was gone through from end to end.

    cells, runs: rows found right
    damaged:     keys of cells and runs that cannot be read or whose checksum does not hold
    problems:    what SQLite says of the structure of the file, a line each
    """

    cells: int
    runs: int
    damaged: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.damaged and not self.problems


@dataclass(frozen=True)
class Salvaged:
    """What went over into the new store.

    cells, runs: rows saved
    lost:        keys of cells and runs that were met, or looked for where the file is damaged, and not saved
    absent:      how many cells the saved runs name that are neither: not run yet, or lost without a trace
    """

    cells: int
    runs: int
    lost: tuple[str, ...]
    absent: int


@dataclass
class _Sifted:
    """Keys of rows found right and of others, by table; keys of cells that the runs name."""

    right: dict[str, set[str]] = field(default_factory=lambda: {table: set() for table in TABLES})
    bad: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)

    def add(self, table: str, record: Record) -> None:
        key = record[0]
        self.right[table].add(key)
        self.bad.discard(key)
        if table == "runs":
            self.named.update(run_of(record).cells)


def check(runs_dir: Path | str) -> Checked:
    """Go through all rows and the structure of the file; writes nothing. ValueError where there is no such store."""
    try:
        with Store(runs_dir, create=False) as store:
            found = _Sifted()
            for table, record in _by_key(store, found):
                found.add(table, record)
            problems = _structure(store)
    except DamagedStore as trouble:  # it cannot even be opened
        return Checked(0, 0, problems=(str(trouble),))
    return Checked(len(found.right["cells"]), len(found.right["runs"]), tuple(sorted(found.bad)), tuple(problems))


def salvage(runs_dir: Path | str, new_dir: Path | str) -> Salvaged:
    """Copy every cell and run that can be read and whose checksum holds into a new store, whole or not at all.

    Rows are looked up by their keys first, then taken from the pages of the file themselves. Cells that were deleted
    on purpose may come back by that. The damaged store is left as it is.
    Raises ValueError where there is nothing to read, or where `new_dir` has a store already.
    """
    target = Path(new_dir).absolute() / FILE
    if target.exists():
        raise ValueError(f"{new_dir}: expected a folder without a store, it holds {FILE}; choose another")
    source = Path(runs_dir) if Path(runs_dir).is_file() else Path(runs_dir) / FILE
    found = _Sifted()
    with ExitStack() as stack:
        anchor = next(folder for folder in target.parents if folder.is_dir())
        try:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=anchor, prefix=".salvage-"))
        except OSError as trouble:
            raise ValueError(f"{anchor}: cannot write into this folder: {trouble.strerror}") from trouble
        with Store(scratch) as new, new.transaction():
            for table, record in _readable(runs_dir, source, found):
                new.put_record(table, record)
                found.add(table, record)
        if not found.right["cells"] and not found.right["runs"]:
            raise ValueError(f"{source}: nothing in it can be read as a cell or a run")
        fresh = Path(scratch) / FILE
        if fresh.with_name(f"{FILE}-wal").exists():  # what closing could not bring into the file itself
            raise ValueError(f"{anchor}: the disk is full; free some space and run the same command again")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(fresh, target)
    saved = found.right["cells"]
    return Salvaged(
        len(saved), len(found.right["runs"]), tuple(sorted(found.bad)), len(found.named - saved - found.bad)
    )


def _readable(runs_dir: Path | str, source: Path, found: _Sifted) -> Iterator[tuple[str, Record]]:
    """Every row that can be read, by key and then from the pages."""
    try:
        with Store(runs_dir, create=False) as store:
            yield from _by_key(store, found)
    except DamagedStore:  # not even opened: the pages are all there is
        pass
    for row in page_records(source):
        table = WIDTHS.get(len(row))
        if table is not None and row[0] not in found.right[table]:
            try:
                record = verified(row, table, source)
            except DamagedStore:
                if isinstance(row[0], str) and row[0] in found.named:
                    found.bad.add(row[0])
                continue
            yield table, record


def _by_key(store: Store, found: _Sifted) -> Iterator[tuple[str, Record]]:
    """Rows looked up one by one, the runs first, since these name cells; keys of those that are bad are noted."""
    for table in TABLES:
        seen = store.readable_keys(table)
        for key in sorted(seen | (found.named if table == "cells" else set())):
            try:
                record = next(store.records(table, [key]), None)
            except DamagedStore:
                found.bad.add(key)
                continue
            if record is not None:
                yield table, record
            elif key in seen:  # there, and not where it belongs
                found.bad.add(key)


def _structure(store: Store) -> Iterable[str]:
    try:
        return store.integrity()
    except DamagedStore as trouble:
        return [str(trouble)]
