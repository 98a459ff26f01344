"""From stored cells to rows: one number with its interval per method, point and metric."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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


def summarise(name: str, cells: Group) -> Value | None:
    """One metric of a group; a name that is not in METRICS is the mean of the kept array of that name, or the root of
    the mean of the kept array `<name>_squared`."""
    if name in METRICS:
        return METRICS[name](cells)
    if cells.has(name + SQUARED):
        return root_interval(cells.array(name + SQUARED))
    if not cells.has(name):
        if cells.is_bound:  # it keeps its ratio alone
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
