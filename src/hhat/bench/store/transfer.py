"""Cells of several machines brought into one store."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hhat.bench.store import FILE, Store, cell_of

CLOSE = 1e-5
"""Largest difference of an array over its largest value that another kind of machine may make"""


@dataclass(frozen=True)
class Merged:
    """What a source gave.

    cells, runs: rows that were new
    equal:       cells that were in both with the same values to the bit
    close:       in both, within CLOSE
    differ:      keys of cells in both whose values differ by more: the same recipe gave other numbers
    """

    source: str
    cells: int
    runs: int
    equal: int
    close: int
    differ: tuple[str, ...]


def merge(into_dir: Path | str, sources: Sequence[Path | str]) -> list[Merged]:
    """Import the cells and runs of other stores (folders or files), each source whole or not at all.

    A key that is in both keeps what was there. Sources are only read.
    Raises ValueError for a source that is no sound store or the target itself. Those before it stay merged.
    """
    target = Path(into_dir)
    for source in sources:
        # before anything is made: a mistyped name must not leave a new and empty store behind
        with Store(source, create=False) as there:
            if (target / FILE).exists() and os.path.samefile(there.path, target / FILE):
                raise ValueError(f"{source}: cannot merge a store into itself")
    with Store(target) as into:
        return [_import(into, source) for source in sources]


def alike(mine: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """ "equal": the same names, shapes and bits; "close": within CLOSE of each array's largest value; else "differ"."""
    if mine.keys() != other.keys() or any(mine[name].shape != other[name].shape for name in mine):
        return "differ"
    if all(torch.equal(mine[name].view(torch.int32), other[name].view(torch.int32)) for name in mine):
        return "equal"
    return "close" if all(_close(mine[name], other[name]) for name in mine) else "differ"


def _import(into: Store, source: Path | str) -> Merged:
    counts = {"cells": 0, "runs": 0, "equal": 0, "close": 0}
    differ: list[str] = []
    with Store(source, create=False) as store, into.transaction():
        for table in ("cells", "runs"):
            for record in store.records(table, sorted(store.keys(table))):
                if into.put_record(table, record):
                    counts[table] += 1
                elif table == "cells":
                    kind = alike(next(into.cells([record[0]])).arrays, cell_of(record).arrays)
                    if kind == "differ":
                        differ.append(record[0])
                    else:
                        counts[kind] += 1
    return Merged(str(source), counts["cells"], counts["runs"], counts["equal"], counts["close"], tuple(differ))


def _close(mine: Tensor, other: Tensor) -> bool:
    finite = mine.isfinite() & other.isfinite()
    if not bool((finite | (mine == other) | (mine.isnan() & other.isnan())).all()):
        return False
    if not bool(finite.any()):
        return True
    difference = (mine[finite].double() - other[finite].double()).abs().max()
    return bool(difference <= CLOSE * mine[finite].abs().max())
