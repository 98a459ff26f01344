"""Slots to capture files of the project's schema (capture.py says what it is): whole or not at all."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from hhat.distortion.record import DistortedPilots
from hhat.io import distorted, echo
from hhat.io.errors import PathType
from hhat.io.factors import named_factors
from hhat.io.fields import EVENT_AXES
from hhat.io.operators import Arrays, Groups, flatten
from hhat.io.root import raw_root
from hhat.io.whole import attributes, whole
from hhat.ops import LinearOp
from hhat.sensing.echoes import Echoes
from hhat.types import Slot

Stored = dict[str, tuple[np.ndarray, tuple[str, ...]]]
"""Values and axes by dataset."""


def write(path: PathType, slot: Slot, repeat: Tensor | None = None) -> None:
    """Write one Slot; the file appears whole or not at all, and one that stood there is replaced only then.

    repeat: the same pilots received once more (y_repeat), of y's shape.
    Raises ValueError where the slot holds what the schema cannot, InputError where the place cannot be written.
    """
    arrays, groups = _arrays(slot, repeat)
    _write(path, slot, {name: (_numpy(value), axes) for name, (value, axes) in arrays.items()}, groups)


def write_slots(path: PathType, slots: Sequence[Slot]) -> None:
    """Write a sequence of equally shaped Slots: what differs between them gets a leading `slot` axis, the rest is
    stored once. ValueError where their structure or shapes differ."""
    if not slots:
        raise ValueError("write_slots: expected at least one slot, got none")
    parts = [_arrays(slot, None) for slot in slots]
    if any(groups != parts[0][1] or list(arrays) != list(parts[0][0]) for arrays, groups in parts):
        raise ValueError("write_slots: expected slots of one structure, got different operators or records")
    merged: Stored = {}
    for name, (first, axes) in parts[0][0].items():
        values = [arrays[name][0] for arrays, _ in parts]
        if any(value.shape != first.shape or value.dtype != first.dtype for value in values):
            raise ValueError(f"write_slots: {name} has different shapes or precisions in different slots")
        varies = name == "y" or name.startswith("truth/") or any(not torch.equal(value, first) for value in values)
        merged[name] = (_numpy(torch.stack(values)), ("slot", *axes)) if varies else (_numpy(first), axes)
    _write(path, replace(slots[0], about=replace(slots[0].about, kind="slots")), merged, parts[0][1])


def _arrays(slot: Slot, repeat: Tensor | None) -> tuple[Arrays, Groups]:
    obs = slot.obs
    if isinstance(obs, Echoes):
        if repeat is not None:
            raise ValueError("repeat: echoes are received once")
        return echo.arrays_of(obs, slot.truth), {}
    if isinstance(obs, DistortedPilots):
        if repeat is not None:
            raise ValueError("repeat: distorted pilots are received once")
        return distorted.arrays_of(obs, slot.truth), {}
    if not isinstance(obs.op, LinearOp):
        raise ValueError(f"op: expected a hhat.ops.LinearOp, got {type(obs.op).__name__}")
    count = len(obs.batch_shape)
    batch = ("batch",) if count == 1 else tuple(f"batch_{i}" for i in range(count))
    named = named_factors(obs.op, obs.axes, batch) if obs.axes else None
    if named and all(v.dtype == obs.y.dtype for name, (v, _) in named[0].items() if name != "selection"):
        (arrays, event), groups = named, {}
    else:
        arrays, groups = flatten(obs.op, "operator", batch)
        same = obs.axes and obs.op.in_shape == obs.op.out_shape and set(obs.axes) <= set(EVENT_AXES)
        event = obs.axes if same and obs.axes else tuple(f"out_{i}" for i in range(len(obs.op.out_shape)))
        if obs.axes:
            groups["operator"]["axes"] = " ".join(obs.axes)
    shape = (*obs.batch_shape, *obs.op.out_shape)
    found: Arrays = {"y": (obs.y.expand(shape), (*batch, *event))}
    if repeat is not None:
        if repeat.shape != obs.y.shape or repeat.dtype != obs.y.dtype:
            raise ValueError(
                f"repeat: expected {obs.y.dtype} {tuple(obs.y.shape)}, got {repeat.dtype} {tuple(repeat.shape)}"
            )
        found["y_repeat"] = (repeat.expand(shape), (*batch, *event))
    if obs.noise_var is not None:
        found["noise_var"] = (obs.noise_var, (*batch, *event)[len(shape) - obs.noise_var.ndim :])
    found |= arrays
    for name, value in _record(slot.truth).items():
        lead = count if value.shape[:count] == obs.batch_shape else 0
        if name == "h" and not lead:
            value, lead = value.expand(*obs.batch_shape, *obs.op.in_shape), count
        rest = obs.axes if name == "h" and obs.axes else tuple(f"dim_{i}" for i in range(value.ndim - lead))
        found[f"truth/{name}"] = (value, (*batch[:lead], *rest))
    return found, groups


def _record(truth: Any) -> dict[str, Tensor]:
    if truth is None:
        return {}
    if not hasattr(truth, "_asdict") or "h" not in truth._fields:
        raise ValueError(f"truth: expected a named tuple with h, got {type(truth).__name__}")
    values = {name: value for name, value in truth._asdict().items() if value is not None}
    for name, value in values.items():
        if not isinstance(value, Tensor | int | float):
            raise ValueError(f"truth/{name}: expected a tensor or a number, got {type(value).__name__}")
    return {name: torch.as_tensor(value) for name, value in values.items()}


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().resolve_conj().resolve_neg().numpy()


def _write(path: PathType, slot: Slot, arrays: Stored, groups: Groups) -> None:
    about, more = echo.about_of(slot.obs, slot.about) if isinstance(slot.obs, Echoes) else (slot.about, {})
    if isinstance(slot.obs, DistortedPilots):
        more = {"receiver": "distorted"}
    root = raw_root(about, datetime.now(UTC).isoformat(timespec="seconds")) | more
    # large attributes (positions of thousands of elements) need the newer attribute storage
    with whole(path) as scratch, h5py.File(scratch, "w", libver=("v108", "latest")) as file:
        _fill(file, root, slot, arrays, groups)


def _fill(
    file: h5py.File,
    root: dict[str, Any],
    slot: Slot,
    arrays: Stored,
    groups: Groups,
) -> None:
    attributes(file, root)
    for name, words in groups.items():
        attributes(file.require_group(name), words)
    for name, (value, axes) in arrays.items():
        dataset = file.create_dataset(name, data=value)
        attributes(dataset, {"axes": " ".join(axes)})
        if name == "selection":
            dataset.attrs["size"] = slot.obs.op.in_shape[-1]
