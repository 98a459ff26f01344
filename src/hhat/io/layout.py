"""Where things lie in a file: the axes of y, which rows are wanted, and every other field brought in line with them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hhat.io.fields import EVENT_AXES, Contents


@dataclass(frozen=True)
class Layout:
    """y's axes: which count snapshots, which belong to one snapshot, and their sizes."""

    batch: tuple[str, ...]
    event: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.shape[len(self.batch) :]


def layout_of(contents: Contents) -> Layout:
    """Axes of y, from its `axes` attribute or, where that is missing, from the pilots."""
    if "y" not in contents.fields:
        held = " ".join(contents.fields) or "nothing"
        raise contents.wrong(f"missing; expected the received pilots, the file holds {held}", "y")
    y = contents.fields["y"]
    if 0 in y.shape:
        raise contents.wrong(f"0 snapshots: shape {y.shape}, expected at least one of everything", "y")
    if y.dtype.kind != "c":
        raise contents.wrong(f"expected complex numbers, got {y.dtype}", "y")
    axes = y.axes or _default_axes(contents)
    if len(axes) != len(y.shape) or len(set(axes)) != len(axes):
        problem = f"shape {y.shape} does not fit its axes ({' '.join(axes)})"
        raise contents.wrong(problem, "y")
    known = [i for i, name in enumerate(axes) if name in EVENT_AXES or name.startswith("out_")]
    if not known:
        raise contents.wrong(f"axes ({' '.join(axes)}) hold none of {' '.join(EVENT_AXES)}", "y")
    return Layout(axes[: known[0]], axes[known[0] :], y.shape)


def _default_axes(contents: Contents) -> tuple[str, ...]:
    """What y's axes must be, from the number of axes of the pilots: 1 per subcarrier, else (tx_ant pilot)."""
    pilots, y = contents.fields.get("pilots"), contents.fields["y"]
    if "u_limits" in contents.fields and len(y.shape) in (2, 3):  # echoes
        return ("batch", "rx_ant", "column" if "delay_basis" in contents.fields else "subcarrier")[-len(y.shape) :]
    if pilots is None or "operator" in contents.groups:
        raise contents.wrong('no axes given; expected for instance "batch rx_ant subcarrier"', "y")
    per_tone = pilots.axes[-1] == "subcarrier" if pilots.axes else len(pilots.shape) == 1
    event = ("beam" if "combiner" in contents.fields else "rx_ant", "subcarrier" if per_tone else "pilot")[
        -len(y.shape) :
    ]
    count = len(y.shape) - len(event)
    return (*(("batch",) if count == 1 else tuple(f"batch_{i}" for i in range(count))), *event)


def rows_of(contents: Contents, layout: Layout, start: int, count: int | None) -> tuple[int, int] | None:
    if not layout.batch:
        if start or count not in (None, 1):
            raise contents.wrong(f"holds one snapshot, asked for {count} from {start}", "y")
        return None
    total = layout.shape[0]
    stop = total if count is None else min(total, start + count)
    if not 0 <= start < stop:
        raise contents.wrong(f"0 snapshots: asked for {count} from {start}, the file holds {total}", "y")
    return start, stop


def aligned(
    contents: Contents,
    name: str,
    axes: tuple[str, ...],
    target: tuple[str, ...],
    layout: Layout,
    rows: tuple[int, int] | None,
) -> Tensor:
    """A field with axes of size 1 where it lacks one of `target`'s behind its first; others of its axes come last.

    Only the wanted rows are read where its first axis is y's first batch axis.
    """
    entry = contents.fields[name]
    shape = tuple(layout.shape[target.index(axis)] if axis in target else -1 for axis in axes)
    if len(axes) != len(entry.shape):
        raise contents.wrong(f"shape {entry.shape} does not fit its axes ({' '.join(axes)})", name)
    for axis, want, have in zip(axes, shape, entry.shape, strict=True):
        if want not in (-1, have) and have != 1:
            raise contents.wrong(f"{axis} has size {have}, in y it has {want}", name)
    sliced = bool(axes) and bool(layout.batch) and axes[0] == layout.batch[0] and entry.shape[0] != 1
    value = tensor_of(contents, name, rows if sliced else None)
    mine = [axis for axis in axes if axis in target]
    places = [target.index(axis) for axis in mine]
    if list(axes[: len(mine)]) != mine or places != sorted(set(places)):
        problem = f"axes ({' '.join(axes)}) are not in y's order ({' '.join(target)})"
        raise contents.wrong(problem, name)
    if not mine:
        return value
    sizes = dict(zip(mine, value.shape, strict=False))
    return value.reshape(*(sizes.get(axis, 1) for axis in target[places[0] :]), *value.shape[len(mine) :])


def noise_var_of(contents: Contents, layout: Layout, rows: tuple[int, int] | None) -> Tensor | None:
    """E|n|^2 per complex sample in axes that broadcast to y's; None where the file has none."""
    if "noise_var" not in contents.fields:
        return None
    entry = contents.fields["noise_var"]
    if entry.dtype.kind not in "fiu":
        raise contents.wrong(f"expected real E|n|^2 per complex sample, got {entry.dtype}", "noise_var")
    names = (*layout.batch, *layout.event)
    trailing = names[len(names) - len(entry.shape) :]
    per_snapshot = layout.batch[: len(entry.shape)]
    axes = entry.axes
    if axes is None and entry.shape and entry.shape == layout.shape[: len(per_snapshot)]:
        axes = per_snapshot
        if entry.shape == layout.shape[len(layout.shape) - len(entry.shape) :] and len(entry.shape) < len(names):
            raise contents.wrong(f"shape {entry.shape} fits two ways; name its axes", "noise_var")
    axes = trailing if axes is None else axes
    if len(axes) != len(entry.shape) or not set(axes) <= set(names):
        problem = f"shape {entry.shape} with axes ({' '.join(axes)}) does not fit y ({' '.join(names)})"
        raise contents.wrong(problem, "noise_var")
    value = aligned(contents, "noise_var", axes, names, layout, rows)
    wrong = int((value < 0).sum())
    if wrong:
        raise contents.wrong(f"{wrong} of {value.numel()} values are negative, expected >= 0", "noise_var")
    return value


def tensor_of(contents: Contents, name: str, rows: tuple[int, int] | None) -> Tensor:
    """Values as a tensor of their own precision, on the CPU; InputError where any is not finite."""
    dtype = contents.fields[name].dtype
    if dtype.kind not in "fciub":
        raise contents.wrong(f"expected numbers, got {dtype}", name)
    array = contents.array(name, rows)
    if array.dtype.kind in "fc":
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise contents.wrong(f"{bad} of {array.size} values are NaN or infinite", name)
    return torch.from_numpy(np.array(array, dtype=_torch_ready(array.dtype), order="C"))


def _torch_ready(dtype: np.dtype) -> np.dtype:
    """The nearest native type that a tensor can hold without loss (long double is cut to double)."""
    if dtype.kind == "c":
        return np.dtype(np.complex64 if dtype.itemsize <= 8 else np.complex128)
    if dtype.kind == "f":
        return np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)
    return np.dtype(bool) if dtype.kind == "b" else np.dtype(np.int64)
