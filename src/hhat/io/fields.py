"""What every format is brought to before it becomes a Slot: named arrays with named axes, read when asked for."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hhat.io.errors import InputError, PathType

EVENT_AXES = ("rx_ant", "tx_ant", "beam", "pilot", "subcarrier")
"""Axis names with a meaning; any other leading axis (batch, user, packet, slot, ...) counts snapshots."""

ECHO_ARRAYS = ("u_limits", "range_limits_m", "symbols", "delay_basis", "energy")
"""Datasets of echoes only."""

ARRAYS = ("y", "y_repeat", "noise_var", "pilots", "combiner", "selection", *ECHO_ARRAYS)
"""Datasets of a capture, besides truth/* and operator/*."""

MAX_BYTES = 8e9
"""Largest dataset that is read in one piece unless the caller allows more."""


@dataclass(frozen=True, eq=False)
class Field:
    """One array of a file. `load(first, last)` reads rows first:last of axis 0, `load(None, None)` all of it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[int | None, int | None], np.ndarray]
    axes: tuple[str, ...] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Contents:
    """A file as named fields.

    root:   the schema's root attributes (kind, source, carrier_hz, subcarriers, geometry_rx_ant, ...)
    fields: by name: y, y_repeat, noise_var, pilots, combiner, selection, truth/h, operator/left/matrix, ...
    groups: attributes of the operator's groups, by name: {"operator": {"class": "Kron"}, ...}
    """

    path: PathType
    format: str
    root: dict[str, Any]
    fields: dict[str, Field]
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    max_bytes: float | int = MAX_BYTES

    def wrong(self, problem: str, field: str | None = None) -> InputError:
        """The error that names this file."""
        return InputError(self.path, problem, field)

    def array(self, name: str, rows: tuple[int, int] | None = None) -> np.ndarray:
        """A field's values, rows first:last of axis 0 or all; the declared size is checked before reading."""
        entry = self.fields[name]
        shape = entry.shape if rows is None else (rows[1] - rows[0], *entry.shape[1:])
        check_size(self.path, name, shape, entry.dtype.itemsize, self.max_bytes)
        return entry.load(None, None) if rows is None else entry.load(*rows)


def check_size(path: PathType, name: str, shape: tuple[int, ...], itemsize: int, max_bytes: float | int) -> None:
    """InputError where an array of this shape is larger than max_bytes."""
    declared = math.prod(shape) * itemsize
    if declared > max_bytes:
        problem = f"declares {size_text(declared)}, more than the limit of {size_text(max_bytes)} (max_bytes)"
        raise InputError(path, f"{problem}; read it in batches or raise the limit", name)


def size_text(count: float | int) -> str:
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count:.0f} bytes"


def in_memory(array: np.ndarray, axes: tuple[str, ...] | None = None, size: int | np.ndarray | None = None) -> Field:
    """A field whose values are here already; `size` is the total behind a selection."""
    attributes = {} if size is None else {"size": size}

    def load(first: int | None, last: int | None) -> np.ndarray:
        return array[first:last] if array.ndim else array

    return Field(array.shape, array.dtype, load, axes, attributes)
