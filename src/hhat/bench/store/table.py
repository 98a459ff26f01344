"""The store as one flat table, for pandas, R, Julia or a spreadsheet: CSV or Parquet, written cell by cell.

Long form: a line per realisation, or a line per summarised number. Memory holds a few cells at a time.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hhat.bench.stopping import counted_groups, rule_of
from hhat.bench.store import Cell, Store
from hhat.bench.summary import group
from hhat.bench.summary import rows as summarise_rows
from hhat.io.whole import whole

SUFFIXES = (".csv", ".parquet")
LINES_AT_A_TIME = 2**16
"""Lines of a Parquet row group"""
TEXT, WHOLE, REAL, SINGLE, TRUTH = "text", "whole", "real", "single", "truth"
"""Kinds of a column: str, int64, float64, float32, bool"""
HEAD = {"experiment": TEXT, "method": TEXT}
PLACE = {"seed": WHOLE, "block": WHOLE, "realisation": WHOLE}
TAIL = {
    "status": TEXT,
    "wall_s_per_estimate": REAL,
    "cpu_s_per_estimate": REAL,
    "device": TEXT,
    "threads": WHOLE,
    "hhat": TEXT,
    "torch": TEXT,
    "cpu": TEXT,
    "gpu": TEXT,
    "key": TEXT,
}
ROW_HEAD = {"experiment": TEXT, "profile": TEXT, "method": TEXT}
ROW_TAIL = {"metric": TEXT, "value": REAL, "low": REAL, "high": REAL, "n": WHOLE, "seconds": REAL, "seed": WHOLE}
FIRST = "ratio"
"""The array whose length says how many realisations a cell has, where it is kept"""


@dataclass(frozen=True)
class Part:
    """Lines that are written together; a value is one for all of them, or an array with one for each."""

    lines: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Exported:
    """What was written."""

    lines: int
    columns: tuple[str, ...]


def export(runs_dir: Path | str, out: Path | str, rows: bool = False) -> Exported:
    """Write all cells of a folder of runs, or with `rows` the numbers of the latest run of each profile.

    Whole or not at all. Raises ValueError where there are no cells, the name ends in neither .csv nor .parquet, the
    place cannot be written, or Parquet is asked for without pyarrow.
    """
    with whole(out, SUFFIXES) as scratch, Store(runs_dir, create=False) as store:
        columns, parts = _rows(store) if rows else _cells(store)
        if not columns:
            raise ValueError(f"{runs_dir}: expected finished cells, there are none; run `hhat bench` first")
        write = _write_csv if scratch.suffix == ".csv" else _write_parquet
        return Exported(write(scratch, columns, parts), tuple(columns))


def realisations(shapes: Mapping[str, list[int]]) -> int:
    """How many realisations a cell has, from the shapes of its arrays: the length of `ratio`, else the greatest of
    those with one axis; 0 where nothing was kept but the time."""
    lengths = {name: shape[0] for name, shape in shapes.items() if len(shape) == 1}
    return lengths.get(FIRST, max(lengths.values(), default=0))


def _cells(store: Store) -> tuple[dict[str, str], Iterator[Part]]:
    """Columns and lines of the long form; a cell without realisations is one line, for its time."""
    points: list[Mapping[str, Any]] = []
    arrays: dict[str, None] = {}
    # in the order in which the runs name them: point by point, block by block
    named = dict.fromkeys(key for run in store.runs() for key in run.cells)
    every = store.keys()
    keys = [key for key in named if key in every] + sorted(every - named.keys())
    for cell in store.cells(keys):
        shapes = {name: list(value.shape) for name, value in cell.arrays.items()}
        count = realisations(shapes)
        arrays |= {name: None for name, shape in shapes.items() if shape == [count]}
        points.append(cell.point)
    if not keys:
        return {}, iter(())
    kinds = _point_kinds(points)
    columns = HEAD | kinds | PLACE | {_free_name(name): SINGLE for name in sorted(arrays)} | TAIL
    return columns, (_cell_part(cell, kinds) for cell in store.cells(keys))


def _cell_part(cell: Cell, kinds: Mapping[str, str]) -> Part:
    count = realisations({name: list(value.shape) for name, value in cell.arrays.items()})
    kept = {_free_name(name): value.numpy() for name, value in cell.arrays.items() if list(value.shape) == [count]}
    values = {
        "experiment": cell.experiment,
        "method": cell.method,
        **_point_values(cell.point, kinds),
        "seed": cell.seed,
        "block": cell.block,
        "realisation": np.arange(count) if count else None,
        **(kept if count else {}),
        "status": json.dumps(cell.status, sort_keys=True),
        "wall_s_per_estimate": cell.wall_s / cell.items,
        "cpu_s_per_estimate": cell.cpu_s / cell.items,
        "device": cell.device,
        "threads": cell.threads,
        "key": cell.key,
    }
    values |= {name: cell.versions.get(name) for name in ("hhat", "torch")}
    values |= {name: cell.machine.get(name) for name in ("cpu", "gpu")}
    return Part(max(count, 1), values)


def _rows(store: Store) -> tuple[dict[str, str], Iterator[Part]]:
    latest = {(run.experiment, run.profile): run for run in store.runs()}
    found = []
    for (experiment, profile), run in sorted(latest.items()):
        groups = counted_groups(group(store.cells(run.cells)), rule_of(run.recipe))
        rows = summarise_rows(groups, run.recipe["metrics"])
        found += [{"experiment": experiment, "profile": profile, **row} for row in rows]
    if not found:
        return {}, iter(())
    kinds = _point_kinds([row["point"] for row in found])
    return ROW_HEAD | kinds | ROW_TAIL, (Part(1, row | _point_values(row["point"], kinds)) for row in found)


def _free_name(name: str) -> str:
    """An array's column: its name, or where another column has that, with a prefix."""
    return f"array.{name}" if name in HEAD | PLACE | TAIL else name


def _point_kinds(points: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A column for each setting of the sweep, of the narrowest kind that holds all its values."""
    seen: dict[str, set[type]] = {}
    for point in points:
        for name, value in point.items():
            seen.setdefault(name, set()).add(type(value))
    kinds = {}
    for name, types in sorted(seen.items()):
        if types == {bool}:
            kind = TRUTH
        elif types == {int}:
            kind = WHOLE
        else:
            kind = REAL if types <= {int, float} else TEXT
        kinds[f"point.{name}"] = kind
    return kinds


def _point_values(point: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for name, value in point.items():
        kind = kinds[f"point.{name}"]
        if kind == TEXT and not isinstance(value, str):
            value = json.dumps(value)
        found[f"point.{name}"] = float(value) if kind == REAL else value
    return found


def _write_csv(path: Path, columns: Mapping[str, str], parts: Iterable[Part]) -> int:
    """Numbers with as many digits as it takes to get the same one back; a value that is not there is left empty."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for part in parts:
            cells = [_spelled(part.values.get(name), part.lines) for name in columns]
            writer.writerows(zip(*cells, strict=True))
            count += part.lines
    return count


def _spelled(value: Any, lines: int) -> list[str]:
    values = value.tolist() if isinstance(value, np.ndarray) else [value]
    words = [json.dumps(one) if isinstance(one, bool) else "" if one is None else str(one) for one in values]
    return words if isinstance(value, np.ndarray) else words * lines


def _write_parquet(path: Path, columns: Mapping[str, str], parts: Iterable[Part]) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as missing:
        raise ValueError(
            "Parquet needs pyarrow: pip install 'hhat[report]'; a name ending in .csv needs nothing"
        ) from missing
    types = {
        TEXT: pyarrow.string(),
        WHOLE: pyarrow.int64(),
        REAL: pyarrow.float64(),
        SINGLE: pyarrow.float32(),
        TRUTH: pyarrow.bool_(),
    }
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    count, waiting, held = 0, [], 0
    with path.open("wb") as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for part in parts:
            arrays = []
            for name, kind in columns.items():
                value = part.values.get(name)
                if isinstance(value, np.ndarray):
                    arrays.append(pyarrow.array(value, types[kind]))
                else:
                    arrays.append(pyarrow.repeat(pyarrow.scalar(value, types[kind]), part.lines))
            waiting.append(pyarrow.RecordBatch.from_arrays(arrays, schema=schema))
            held += part.lines
            if held >= LINES_AT_A_TIME:
                writer.write_table(pyarrow.Table.from_batches(waiting, schema))
                count, waiting, held = count + held, [], 0
        writer.write_table(pyarrow.Table.from_batches(waiting, schema))
    return count + held
