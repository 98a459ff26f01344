"""From stored cells to rows: one number with its interval per method, point and metric."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from hhat.bench.metrics import (
    Value,
    mean_interval,
    mean_interval_db,
    median_interval_db,
    pooled_interval_db,
    ratio_interval,
    root_interval,
)
from hhat.bench.store import Cell

SQUARED = "_squared"
"""Ending of a kept array whose root of the mean is the metric of the name before it"""

Row = dict[str, Any]
"""{"method", "point", "metric", "value", "low", "high", "n", "seconds", "seed"}

value: None where it is not a number, -inf dB where there is no error at all; ends that are not finite are None
seconds: None for a bound"""


@dataclass
class Group:
    """All stored blocks of one method at one point."""

    method: str
    point: dict[str, Any]
    seed: int
    cells: list[Cell] = field(default_factory=list)
    along: bool = False
    """One of those that `unfolded` made: it has some of the metrics, others are its siblings'"""

    def array(self, name: str) -> Tensor:
        return torch.cat([cell.arrays[name] for cell in self.cells])

    def has(self, *names: str) -> bool:
        return all(name in cell.arrays for cell in self.cells for name in names)

    def status(self) -> dict[str, int]:
        """How many realisations ended how."""
        total: dict[str, int] = {}
        for cell in self.cells:
            for name, count in cell.status.items():
                total[name] = total.get(name, 0) + count
        return total

    @property
    def is_bound(self) -> bool:
        """Of a `Bound`, which no estimator reached: it has no status, and its time is nobody's."""
        return not any(cell.status for cell in self.cells)

    def seconds(self) -> float:
        """Wall time of one estimate: median over blocks of a block's time over its size."""
        return float(torch.tensor([cell.wall_s / cell.items for cell in self.cells]).quantile(0.5))


def has_number(row: Row) -> bool:
    """Is the value one that can be drawn and compared?"""
    return row["value"] is not None and math.isfinite(row["value"])


def spell_point(point: Mapping[str, Any]) -> str:
    """snr_db=10.0 profile=A"""
    return " ".join(f"{key}={value}" if key else str(value) for key, value in point.items()) or "the only point"


def group(cells: Iterable[Cell]) -> list[Group]:
    """Cells by method and point, in the order in which these appear."""
    found: dict[tuple[str, str], Group] = {}
    for cell in cells:
        name = (cell.method, repr(sorted(cell.point.items())))
        found.setdefault(name, Group(cell.method, cell.point, cell.seed)).cells.append(cell)
    for cells_of_one in found.values():
        cells_of_one.cells.sort(key=lambda cell: cell.block)
    return list(found.values())


def unfolded(cells: Group) -> list[Group]:
    """A group whose arrays run along an axis of the sweep, "ratio@symbol" (n, symbols), as one group per place of it.

    "ratio@slot:100" counts that axis in steps of 100, "ratio@epoch:1:1" in ones from 1. What is estimated once and
    looked at symbol by symbol is so kept in one cell; arrays without an axis stay with the group itself.
    """
    axes = dict.fromkeys(name.partition("@")[2] for cell in cells.cells for name in cell.arrays if "@" in name)
    if not axes:
        return [cells]
    plain = [{name: array for name, array in cell.arrays.items() if "@" not in name} for cell in cells.cells]
    found = [_with_arrays(cells, cells.point, plain)] if any(plain) else []
    for axis in axes:
        name, _, count = axis.partition(":")
        step, _, first = count.partition(":")
        along = [
            {key.partition("@")[0]: array for key, array in cell.arrays.items() if key.partition("@")[2] == axis}
            for cell in cells.cells
        ]
        for place in range(min(array.shape[1] for kept in along for array in kept.values())):
            here = [{key: array[:, place] for key, array in kept.items()} for kept in along]
            found.append(_with_arrays(cells, {**cells.point, name: int(first or 0) + place * int(step or 1)}, here))
    return found


def _with_arrays(cells: Group, point: dict[str, Any], arrays: Sequence[dict[str, Tensor]]) -> Group:
    kept = [replace(cell, point=point, arrays=found) for cell, found in zip(cells.cells, arrays, strict=True)]
    return replace(cells, point=point, cells=kept, along=True)


def _nmse(cells: Group) -> Value:
    return mean_interval_db(cells.array("ratio"))


def _ratio_of(name: str) -> Callable[[Group], Value | None]:
    """10 log10 of the mean of a kept array; None where a row does not have it."""
    return lambda cells: mean_interval_db(cells.array(name)) if cells.has(name) else None


def _nmse_pooled(cells: Group) -> Value | None:
    if not cells.has("energy"):  # of a bound
        return None
    energy = cells.array("energy")
    return pooled_interval_db(cells.array("ratio") * energy, energy)


def _nmse_median(cells: Group) -> Value:
    return median_interval_db(cells.array("ratio"))


def _variance_ratio(cells: Group) -> Value | None:
    if not cells.has("reported", "energy"):  # of a bound
        return None
    energy, reported = cells.array("energy"), cells.array("reported")
    if not bool(torch.isfinite(reported).all()):
        return None
    return ratio_interval(cells.array("ratio") * energy, reported * energy)


def _channels_per_s(cells: Group) -> Value | None:
    """Geometric mean over blocks; its interval is Student's t on the logarithm of the rates. None of a bound."""
    if cells.is_bound:
        return None
    log_rate = mean_interval(torch.tensor([math.log(cell.items / cell.wall_s) for cell in cells.cells]))
    low = 0.0 if len(cells.cells) < 2 else math.exp(log_rate.low)
    high = math.inf if len(cells.cells) < 2 else math.exp(log_rate.high)
    return Value(math.exp(log_rate.value), low, high, len(cells.cells))


METRICS: Mapping[str, Callable[[Group], Value | None]] = {
    "nmse_db": _nmse,
    "nmse_pooled_db": _nmse_pooled,
    "nmse_median_db": _nmse_median,
    "holdout_nmse_db": _ratio_of("holdout_ratio"),
    "holdout_floor_db": _ratio_of("holdout_floor"),
    "renoise_nmse_db": _ratio_of("renoise_ratio"),
    "variance_ratio": _variance_ratio,
    "channels_per_s": _channels_per_s,
}
"""None: the metric does not apply to this method (a variance it does not report, the time of a bound), and there is no
row."""


ENDINGS: Mapping[str, Callable[[Tensor], Value]] = {"_median_db": median_interval_db, "_db": mean_interval_db}
"""tracking_nmse_median_db and tracking_nmse_db are those of the kept array tracking_nmse_ratio."""


def summarise(name: str, cells: Group) -> Value | None:
    """One metric of a group. A name that is not in METRICS: with one of ENDINGS, of the array `<name>_ratio` where that
    is kept; the root of the mean of `<name>_squared`; else the mean of the kept array of that name."""
    if name in METRICS:
        try:
            return METRICS[name](cells)
        except KeyError:
            if cells.along:
                return None
            raise
    for ending, interval in ENDINGS.items():
        ratio = name.removesuffix(ending) + "_ratio"
        if name.endswith(ending) and cells.has(ratio):
            return interval(cells.array(ratio))
    if cells.has(name + SQUARED):
        return root_interval(cells.array(name + SQUARED))
    if not cells.has(name):
        if cells.is_bound or cells.along:  # a bound keeps its ratio alone
            return None
        raise ValueError(f"unknown metric '{name}'; there are: {' '.join(METRICS)} and arrays that `score` keeps")
    return mean_interval(cells.array(name))


def rows(groups: Iterable[Group], metrics: Sequence[str]) -> list[Row]:
    """One row per method, point and metric."""
    found = []
    for cells in groups:
        for metric in metrics:
            value = summarise(metric, cells)
            if value is not None:
                seconds = None if cells.is_bound else cells.seconds()
                found.append(row(cells.method, cells.point, metric, value, seconds, cells.seed))
    return found


def row(
    method: str, point: Mapping[str, Any], metric: str, value: Value, seconds: float | None, seed: int | None
) -> Row:
    ends = {name: end if math.isfinite(end) else None for name, end in (("low", value.low), ("high", value.high))}
    number = value.value if math.isfinite(value.value) or value.value == -math.inf else None
    head = {"method": method, "point": dict(point), "metric": metric, "value": number}
    return {**head, **ends, "n": value.n, "seconds": seconds, "seed": seed}
