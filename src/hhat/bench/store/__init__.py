"""Where results are kept: one SQLite file per runs folder, in WAL mode, each cell committed as it ends.

A cell is one block of one method at one point, named by the hash of everything its numbers depend on; a killed
process therefore loses the cell it was in and nothing else, and a second run finds all of them.
"""

import datetime
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hhat.bench.store.database import (
    FILE,
    SCHEMA,
    DamagedStore,
    Record,
    checksum,
    damaged,
    insert,
    open_to_read,
    open_to_write,
    said,
    select,
    transaction,
    verified,
)


@dataclass(frozen=True, eq=False)
class Cell:
    """One stored block: what was run, what came out per realisation, what it took.

    arrays: float32 tensors by name, as the experiment's `score` made them
    """

    key: str
    experiment: str
    method: str
    point: dict[str, Any]
    block: int
    seed: int
    items: int
    arrays: dict[str, Tensor]
    status: dict[str, int]
    wall_s: float
    cpu_s: float
    device: str
    threads: int
    versions: dict[str, str]
    machine: dict[str, str] = field(default_factory=dict)
    """What its times depend on; no names of hosts, users or folders"""


@dataclass(frozen=True)
class Run:
    """What a call of `run` set out to do: the recipe for people, and the keys of all its cells."""

    key: str
    experiment: str
    profile: str
    recipe: dict[str, Any]
    machine: dict[str, str]
    cells: tuple[str, ...]
    started: str = ""


class Store:
    """The cells of a runs folder. Use as a context manager; ValueError says what is wrong with the file.

    create: make the folder and the file where they are missing and bring an older file to the newest schema, to write;
            otherwise for reading only: nothing is written, the medium may be read-only, a missing store is an error,
            and `runs_dir` may also be the file itself
    """

    def __init__(self, runs_dir: Path | str, create: bool = True):
        self.path = Path(runs_dir) / FILE
        if create:
            self._db, self._schema = open_to_write(self.path), SCHEMA
            return
        if Path(runs_dir).is_file():
            self.path = Path(runs_dir)
        if not self.path.is_file():
            raise ValueError(f"{runs_dir}: expected a folder of runs holding {FILE}, there is none")
        self._db, self._schema = open_to_read(self.path)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def keys(self, table: str = "cells") -> set[str]:
        """Names of all cells, or of all "runs"."""
        with self._said():
            return {key for (key,) in self._db.execute(f"SELECT key FROM {table}")}

    def put(self, cell: Cell) -> None:
        """Store and commit one cell; one that is there already stays as it is."""
        self.put_record("cells", cell_record(cell))

    def cells(self, keys: Iterable[str]) -> Iterator[Cell]:
        """The stored ones among these cells, in the order asked for."""
        for record in self.records("cells", keys):
            try:
                cell = cell_of(record)
            except (ValueError, TypeError, zlib.error) as trouble:  # a row of schema 1, which has no checksum
                raise damaged(self.path, f"cell {record[0]!r}: {trouble}") from trouble
            yield cell

    def delete(self, keys: Iterable[str]) -> None:
        with self._said():
            self._db.executemany("DELETE FROM cells WHERE key = ?", ((key,) for key in keys))

    def put_run(self, run: Run) -> None:
        """Note what a call set out to do; the same recipe again only renews its date."""
        row = (run.key, run.experiment, run.profile, _json(run.recipe), _json(run.machine), _json(run.cells), _now())
        with self._said():
            self._db.execute(insert("runs", "REPLACE"), (*row, checksum(row)))

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        with self._said():
            rows = self._db.execute(f"{select('runs', self._schema)} ORDER BY started, key").fetchall()
            return [run_of(verified(row, "runs", self.path)) for row in rows]

    def records(self, table: str, keys: Iterable[str]) -> Iterator[Record]:
        """The rows of "cells" or "runs" of these keys as they lie in the file, their checksums found right."""
        read = f"{select(table, self._schema)} WHERE key = ?"
        for key in keys:
            with self._said():
                row = self._db.execute(read, (key,)).fetchone()
                record = None if row is None else verified(row, table, self.path)
            # outside of the block: what goes wrong where the record is used is not the file's trouble
            if record is not None:
                yield record

    def put_record(self, table: str, record: Record) -> bool:
        """Store a row of "cells" or "runs" that another store gave; False where its key is there already."""
        with self._said():
            return self._db.execute(insert(table), (*record, checksum(record))).rowcount > 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything that is put inside the block is stored at its end, or nothing."""
        with self._said(), transaction(self._db):
            yield

    def readable_keys(self, table: str) -> set[str]:
        """Keys of "cells" or "runs" from both ends of the table as far as a damaged one can be read."""
        found = set()
        for order in ("ASC", "DESC"):
            try:
                with self._said():
                    for (key,) in self._db.execute(f"SELECT key FROM {table} ORDER BY key {order}"):
                        found.add(key)
                    return found
            except DamagedStore:
                continue
        return found

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with the structure of the file, in its words."""
        with self._said():
            found = [line for (text,) in self._db.execute("PRAGMA integrity_check") for line in text.splitlines()]
        return [line for line in found if line != "ok" and not line.startswith("***")]

    def _said(self) -> AbstractContextManager[None]:
        return said(self.path, self._db)


def cell_record(cell: Cell) -> Record:
    """The row of a cell, finished now."""
    shapes, blob = pack(cell.arrays)
    return (
        cell.key, cell.experiment, cell.method, _json(cell.point), cell.block, cell.seed, cell.items, _json(shapes),
        blob, _json(cell.status), cell.wall_s, cell.cpu_s, cell.device, cell.threads, _json(cell.versions), _now(),
        _json(cell.machine),
    )  # fmt: skip


def cell_of(record: Record) -> Cell:
    """Inverse of `cell_record`."""
    key, experiment, method, point, block, seed, items, shapes, blob, status, wall, cpu, *rest = record
    device, threads, made, _, machine = rest
    return Cell(
        key, experiment, method, json.loads(point), block, seed, items, unpack(json.loads(shapes), blob),
        json.loads(status), wall, cpu, device, threads, json.loads(made), json.loads(machine),
    )  # fmt: skip


def run_of(record: Record) -> Run:
    """The run in a row of "runs"."""
    key, name, profile, recipe, machine, cells, started = record
    return Run(key, name, profile, json.loads(recipe), json.loads(machine), tuple(json.loads(cells)), started)


def pack(arrays: dict[str, Tensor]) -> tuple[dict[str, list[int]], bytes]:
    """Shapes by name, and all values as one zlib blob of little-endian float32."""
    flat = {name: value.detach().cpu().to(torch.float32).contiguous() for name, value in arrays.items()}
    data = b"".join(value.numpy().astype("<f4").tobytes() for value in flat.values())
    return {name: list(value.shape) for name, value in flat.items()}, zlib.compress(data)


def unpack(shapes: dict[str, list[int]], blob: bytes) -> dict[str, Tensor]:
    """Inverse of `pack`; ValueError where shapes and length disagree."""
    values = torch.from_numpy(np.frombuffer(zlib.decompress(blob), dtype="<f4").astype(np.float32))
    counts = [math.prod(shape) for shape in shapes.values()]
    if sum(counts) != values.numel():
        raise ValueError(f"cell: expected {sum(counts)} stored values for {shapes}, got {values.numel()}")
    parts = values.split(counts)
    # copies: a part that begins at an odd place cannot be seen as complex numbers
    return {name: part.reshape(shape).clone() for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _json(thing: Any) -> str:
    return json.dumps(thing, separators=(",", ":"))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
