"""Where results are kept: one SQLite file per runs folder, in WAL mode, each cell committed as it ends.

A cell is one block of one method at one point, named by the hash of everything its numbers depend on; a killed
process therefore loses the cell it was in and nothing else, and a second run finds all of them.
"""

import contextlib
import json
import math
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FILE = "cells.sqlite"
SCHEMA = 1
BUSY_S = 30.0
COLUMNS = (
    "key, experiment, method, point, block, seed, items, arrays, blob, status, wall_s, cpu_s, device, threads, versions"
)
TABLES = f"""
CREATE TABLE cells ({COLUMNS.replace("key,", "key TEXT PRIMARY KEY,")}, finished TEXT DEFAULT CURRENT_TIMESTAMP)
  WITHOUT ROWID;
CREATE TABLE runs (key TEXT PRIMARY KEY, experiment, profile, recipe, machine, cells,
  started TEXT DEFAULT CURRENT_TIMESTAMP) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA};
"""


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

    create: make the folder and the file where they are missing; otherwise a missing store is an error
    """

    def __init__(self, runs_dir: Path | str, create: bool = True):
        self.path = Path(runs_dir) / FILE
        if not create and not self.path.is_file():
            raise ValueError(f"{runs_dir}: expected a folder of runs holding {FILE}, there is none")
        with self._said():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                # WAL with NORMAL survives a killed process whole; only a power cut may take the last cells
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._prepare()
            except (sqlite3.Error, ValueError):
                self._db.close()
                raise

    def _prepare(self) -> None:
        # two processes may open a new store at once: the second waits here and then finds the tables
        self._db.execute("BEGIN IMMEDIATE")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in TABLES.split(";"):
                self._db.execute(statement)
        self._db.execute("COMMIT")
        if version not in (0, SCHEMA):
            raise ValueError(f"{self.path}: expected a store of schema {SCHEMA}, got {version}")

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def keys(self) -> set[str]:
        """Names of all cells."""
        with self._said():
            return {key for (key,) in self._db.execute("SELECT key FROM cells")}

    def put(self, cell: Cell) -> None:
        """Store and commit one cell; one that is there already stays as it is."""
        shapes, blob = pack(cell.arrays)
        row = (cell.key, cell.experiment, cell.method, _json(cell.point), cell.block, cell.seed, cell.items)
        row += (_json(shapes), blob, _json(cell.status), cell.wall_s, cell.cpu_s, cell.device, cell.threads)
        marks = ", ".join("?" * (len(row) + 1))
        with self._said():
            self._db.execute(f"INSERT OR IGNORE INTO cells ({COLUMNS}) VALUES ({marks})", (*row, _json(cell.versions)))

    def cells(self, keys: Iterable[str]) -> Iterator[Cell]:
        """The stored ones among these cells, in the order asked for."""
        for key in keys:
            with self._said():
                row = self._db.execute(f"SELECT {COLUMNS} FROM cells WHERE key = ?", (key,)).fetchone()
                cell = None if row is None else _cell(row)
            if cell is not None:
                yield cell

    def delete(self, keys: Iterable[str]) -> None:
        with self._said():
            self._db.executemany("DELETE FROM cells WHERE key = ?", ((key,) for key in keys))

    def put_run(self, run: Run) -> None:
        """Note what a call set out to do; the same recipe again only renews its date."""
        row = (run.key, run.experiment, run.profile, _json(run.recipe), _json(run.machine), _json(run.cells))
        with self._said():
            self._db.execute(
                "INSERT OR REPLACE INTO runs (key, experiment, profile, recipe, machine, cells) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        wanted = "key, experiment, profile, recipe, machine, cells, started"
        with self._said():
            rows = self._db.execute(f"SELECT {wanted} FROM runs ORDER BY started, key").fetchall()
            return [
                Run(key, name, profile, json.loads(recipe), json.loads(box), tuple(json.loads(cells)), started)
                for key, name, profile, recipe, box, cells, started in rows
            ]

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Trouble with the file becomes one line that names it."""
        try:
            yield
        except (sqlite3.Error, OSError, zlib.error, json.JSONDecodeError) as trouble:
            raise ValueError(f"{self.path}: cannot use this store of runs: {trouble}") from trouble


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
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _cell(row: tuple[Any, ...]) -> Cell:
    key, experiment, method, point, block, seed, items, shapes, blob, status, wall, cpu, device, threads, made = row
    arrays = unpack(json.loads(shapes), blob)
    return Cell(
        key, experiment, method, json.loads(point), block, seed, items, arrays, json.loads(status), wall, cpu, device,
        threads, json.loads(made),
    )  # fmt: skip


def _json(thing: Any) -> str:
    return json.dumps(thing, separators=(",", ":"))
