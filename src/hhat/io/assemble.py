"""Named fields of any format to a Slot: every check of a user's file that concerns its numbers is here."""

from collections import namedtuple
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hhat.io import distorted, echo, factors
from hhat.io.fields import Contents, Field
from hhat.io.layout import Layout, aligned, layout_of, noise_var_of, rows_of, tensor_of
from hhat.io.operators import rebuild
from hhat.io.root import Root, axes_of, parse_root
from hhat.ops import LinearOp
from hhat.types import About, Channel, Observation, Slot

ESTIMATED = "noise_var estimated from the difference of the repeated symbols"


def slot_of(contents: Contents, start: int = 0, count: int | None = None) -> Slot:
    """Snapshots start : start + count of the first batch axis as a Slot (all of them by default).

    Where the file holds `y_repeat` (the same pilots sent twice), y is the average of both, the second turned by the
    common phase between them, and noise_var that of the average. Raises InputError naming the dataset.
    """
    first, second = _both(contents, start, count)
    if second is None:
        return first
    noise = first.obs.noise_var
    obs = Observation(
        (first.obs.y + second.obs.y) / 2, first.obs.op, None if noise is None else noise / 2, first.obs.axes
    )
    return Slot(first.truth, obs, first.about)


def pair_of(contents: Contents, start: int = 0, count: int | None = None) -> tuple[Slot, Slot] | None:
    """The two repeats as Slots, the second one's common phase removed; None where the file holds no repeats."""
    first, second = _both(contents, start, count)
    return None if second is None else (first, second)


def snapshots(contents: Contents) -> int | None:
    """Size of y's first batch axis; None where y is one snapshot without a batch axis."""
    layout = layout_of(contents)
    return layout.shape[0] if layout.batch else None


def at_slot(contents: Contents, index: int) -> Contents:
    """The same fields without their `slot` axis, at one slot."""
    return replace(contents, fields={name: _at_slot(field, index) for name, field in contents.fields.items()})


def hops_between_slots(contents: Contents) -> bool:
    """Does every slot see tones of its own? Such slots are read one by one (`at_slot`), not as a batch."""
    return "selection" in contents.fields and (contents.fields["selection"].axes or ("",))[0] == "slot"


def complex_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.complex64 if dtype.itemsize <= 8 else torch.complex128


def _at_slot(field: Field, index: int) -> Field:
    if not field.axes or field.axes[0] != "slot":
        return field

    def load(first: int | None, last: int | None) -> np.ndarray:
        row = field.load(index, index + 1)[0]
        return row[first:last] if row.ndim else row

    return replace(field, shape=field.shape[1:], axes=field.axes[1:], load=load)


def _both(contents: Contents, start: int, count: int | None) -> tuple[Slot, Slot | None]:
    if echo.holds_echoes(contents):
        return echo.slot_of(contents, start, count), None
    if distorted.holds_distorted(contents):
        return distorted.slot_of(contents, start, count), None
    layout = layout_of(contents)
    root = parse_root(contents.path, contents.root, loose=contents.format != "hhat.capture/1")
    rows = rows_of(contents, layout, start, count)
    dtype = complex_dtype(contents.fields["y"].dtype)
    y = tensor_of(contents, "y", rows).to(dtype)
    op, axes = _operator(contents, layout, rows, dtype)
    about = _about(contents, root, axes, op)
    noise = noise_var_of(contents, layout, rows)
    truth = _truth(contents, layout, rows, dtype, y, op)
    second = None
    if "y_repeat" in contents.fields:
        if contents.fields["y_repeat"].shape != layout.shape or contents.fields["y_repeat"].dtype.kind != "c":
            problem = f"expected complex numbers of y's shape {layout.shape}, got {contents.fields['y_repeat'].shape}"
            raise contents.wrong(problem, "y_repeat")
        second = align(y, tensor_of(contents, "y_repeat", rows).to(dtype), len(layout.event))
        if noise is None:
            events = tuple(range(-len(layout.event), 0))
            noise = (second - y).abs().square().mean(events, keepdim=True) / 2
            said = about.snr_definition if ESTIMATED in about.snr_definition else f"{about.snr_definition}; {ESTIMATED}"
            about = _with_definition(about, said.removeprefix("not stated; "))
    try:
        pair = [Observation(seen, op, noise, axes) for seen in ((y,) if second is None else (y, second))]
    except ValueError as error:
        raise contents.wrong(str(error)) from error
    return Slot(truth, pair[0], about), Slot(truth, pair[1], about) if second is not None else None


def align(first: Tensor, second: Tensor, event_ndim: int) -> Tensor:
    """The second of two equal symbols turned back by the common phase between them, one per batch item.

    phase = angle(sum over the event axes of conj(first) second): a frequency offset turns all antennas alike.
    """
    events = tuple(range(-event_ndim, 0))
    inner = (first.conj() * second).sum(events, keepdim=True)
    return second * torch.polar(torch.ones_like(inner.real), -inner.angle())


def _operator(
    contents: Contents, layout: Layout, rows: tuple[int, int] | None, dtype: torch.dtype
) -> tuple[LinearOp, tuple[str, ...] | None]:
    if "operator" in contents.groups:
        op = rebuild(contents, "operator", lambda path: _factor(contents, path, layout, rows))
        if op.out_shape != layout.event_shape:
            problem = f"gives {op.out_shape} per snapshot, y holds {layout.event_shape} ({' '.join(layout.event)})"
            raise contents.wrong(problem, "operator")
        return op, axes_of(contents.path, "operator", contents.groups["operator"].get("axes"))
    event_ndim = 2 if "pilot" in layout.event else 1
    pilots = _named(contents, "pilots", layout, rows, event_ndim, dtype)
    combiner = _named(contents, "combiner", layout, rows, 2, dtype)
    selection = _selection(contents)
    try:
        return factors.build(layout.event, layout.event_shape, pilots, combiner, selection)
    except ValueError as error:
        raise contents.wrong(str(error)) from error


def _named(
    contents: Contents, name: str, layout: Layout, rows: tuple[int, int] | None, event_ndim: int, dtype: torch.dtype
) -> Tensor | None:
    if name not in contents.fields:
        return None
    shape = contents.fields[name].shape
    names = {"combiner": ("beam", "rx_ant")}.get(name, ("tx_ant", "pilot") if event_ndim == 2 else ("subcarrier",))
    have = contents.fields[name].axes or (*layout.batch[: len(shape) - event_ndim], *names)
    if have[len(have) - event_ndim :] != names or len(have) != len(shape):
        raise contents.wrong(f"shape {shape} with axes ({' '.join(have)}), expected ({' '.join(names)})", name)
    return _factor(contents, name, layout, rows, have).to(dtype)


def _factor(
    contents: Contents, name: str, layout: Layout, rows: tuple[int, int] | None, axes: tuple[str, ...] | None = None
) -> Tensor:
    """A factor of the operator, the batch axes it has brought in line with y's."""
    axes = axes or contents.fields[name].axes or tuple(f"dim_{i}" for i in range(len(contents.fields[name].shape)))
    return aligned(contents, name, axes, layout.batch, layout, rows)


def _selection(contents: Contents) -> tuple[Tensor, int] | None:
    if "selection" not in contents.fields:
        return None
    entry = contents.fields["selection"]
    if hops_between_slots(contents):
        raise contents.wrong("differs between slots, which are read one by one: `hhat track`, read_slots", "selection")
    if entry.dtype.kind not in "iu" and not (contents.format == "matlab" and entry.dtype.kind == "f"):
        raise contents.wrong(f"expected integers (indices from 0), got {entry.dtype}", "selection")
    size = entry.attributes.get("size")
    size = size.reshape(-1)[0].item() if isinstance(size, np.ndarray | np.generic) and size.size == 1 else size
    if not isinstance(size, int | float) or size < 1 or size != int(size):
        raise contents.wrong(f"expected the attribute size (number of all subcarriers), got {size!r}", "selection")
    index = tensor_of(contents, "selection", None)
    if bool((index != index.to(torch.int64)).any()):
        raise contents.wrong("expected integers (indices from 0), got fractions", "selection")
    index = index.to(torch.int64)
    return (index if entry.axes == factors.HOPPING else index.reshape(-1)), int(size)


def _truth(
    contents: Contents, layout: Layout, rows: tuple[int, int] | None, dtype: torch.dtype, y: Tensor, op: LinearOp
) -> tuple | None:
    names = sorted((n for n in contents.fields if n.startswith("truth/")), key=lambda n: (n != "truth/h", n))
    if not names:
        return None
    if names[0] != "truth/h":
        raise contents.wrong(f"missing, the file holds {' '.join(names)}; expected the channel", "truth/h")
    values = {}
    for name in names:
        entry = contents.fields[name]
        axes = entry.axes or (*layout.batch[: len(entry.shape)], *(f"dim_{i}" for i in range(len(entry.shape))))
        values[name] = aligned(contents, name, axes[: len(entry.shape)], layout.batch, layout, rows)
    h = values["truth/h"]
    if not h.is_complex():
        raise contents.wrong(f"expected complex numbers, got {contents.fields['truth/h'].dtype}", "truth/h")
    batch = y.shape[: len(layout.batch)]
    if tuple(h.shape[-len(op.in_shape) :]) != op.in_shape or h.shape[: -len(op.in_shape)] not in (batch, ()):
        problem = f"shape {tuple(h.shape)}, expected {(*batch, *op.in_shape)} to fit y and the operator"
        raise contents.wrong(problem, "truth/h")
    values["truth/h"] = h.to(dtype)
    if len(names) == 1:
        return Channel(values["truth/h"])
    keys = [name.removeprefix("truth/") for name in names]
    try:
        record = namedtuple("Truth", keys)
    except ValueError as error:
        raise contents.wrong(f"these names make no record: {error}", "truth") from error
    return record(*values.values())


def _about(contents: Contents, root: Root, axes: tuple[str, ...] | None, op: LinearOp) -> About:
    sizes = dict(zip(axes or (), op.in_shape, strict=False))
    for axis, points in root.geometry.items():
        if sizes.get(axis, len(points)) != len(points):
            problem = f"{len(points)} element positions, the channel has {sizes[axis]}"
            raise contents.wrong(problem, f"attribute geometry_{axis}")
    if root.subcarriers is not None and sizes.get("subcarrier", len(root.subcarriers)) != len(root.subcarriers):
        problem = f"{len(root.subcarriers)} indices, the channel has {sizes['subcarrier']} subcarriers"
        raise contents.wrong(problem, "attribute subcarriers")
    return root.about()


def _with_definition(about: About, text: str) -> About:
    return About(
        about.kind, text, about.normalisation, about.source, about.geometry, about.constants, about.subcarriers
    )
