"""Captures of pilots through receive chains that distort: `DistortedPilots` to and from named arrays.

A file holds them where its root says receiver = "distorted" (capture.py: "linear" is what others are).

    y           "batch pilot rx_ant": symbols in time, then chains; kind "slots": "slot batch pilot rx_ant"
    pilots      "pilot" or "batch pilot"          noise_var    E|n|^2 before the distortion, any of y's axes
    truth/*     h "batch rx_ant"; y "batch pilot rx_ant", undistorted; coupling, phase_rad "batch rx_ant" or "rx_ant";
                coefficients "batch rx_ant order term" or without batch; all optional but h (`ImpairedTruth`)
"""

from typing import Any

import torch
from torch import Tensor

from hhat.distortion.record import DistortedPilots, ImpairedTruth
from hhat.io.fields import Contents
from hhat.io.layout import Layout, aligned, layout_of, noise_var_of, rows_of, tensor_of
from hhat.io.root import parse_root, text_of
from hhat.types import Slot

EVENT = ("pilot", "rx_ant")
TRUTH = {
    "h": ("rx_ant",),
    "y": EVENT,
    "coupling": ("rx_ant",),
    "phase_rad": ("rx_ant",),
    "coefficients": ("rx_ant", "order", "term"),
}
"""Axes of each truth behind the batch."""
COMPLEX = ("h", "y", "coefficients")
Arrays = dict[str, tuple[Tensor, tuple[str, ...]]]


def holds_distorted(contents: Contents) -> bool:
    return text_of(contents.root.get("receiver")) == "distorted"


def arrays_of(obs: DistortedPilots, truth: Any) -> Arrays:
    """Values and axes by dataset. ValueError where the truth is no `ImpairedTruth`."""
    count = len(obs.batch_shape)
    batch = ("batch",) if count == 1 else tuple(f"batch_{i}" for i in range(count))
    found: Arrays = {
        "y": (obs.y, (*batch, *EVENT)),
        "pilots": (obs.pilots, (*batch[: obs.pilots.ndim - 1], "pilot")),
        "noise_var": (obs.noise_var, (*batch, *EVENT)[count + 2 - obs.noise_var.ndim :]),
    }
    if truth is None:
        return found
    if not isinstance(truth, ImpairedTruth):
        raise ValueError(f"truth: expected an ImpairedTruth, got {type(truth).__name__}")
    for name, value in truth._asdict().items():
        if value is not None:
            found[f"truth/{name}"] = (value, (*batch[: value.ndim - len(TRUTH[name])], *TRUTH[name]))
    return found


def slot_of(contents: Contents, start: int = 0, count: int | None = None) -> Slot:
    """Snapshots start : start + count as a Slot whose `obs` is a `DistortedPilots`. InputError names the dataset."""
    layout = layout_of(contents)
    if layout.event != EVENT:
        names = " ".join(layout.batch + layout.event)
        raise contents.wrong(f'axes ({names}), expected "batch pilot rx_ant" of a distorting receiver', "y")
    root = parse_root(contents.path, contents.root, loose=contents.format != "hhat.capture/1")
    rows = rows_of(contents, layout, start, count)
    y = tensor_of(contents, "y", rows)
    for name, why in (("pilots", "known symbols, axes pilot or batch pilot"), ("noise_var", "E|n|^2 per sample")):
        if name not in contents.fields:
            raise contents.wrong(f"missing; expected {why}", name)
    noise_var = noise_var_of(contents, layout, rows)
    assert noise_var is not None
    try:
        obs = DistortedPilots(y, _pilots(contents, layout, rows, y), noise_var)
    except ValueError as error:
        raise contents.wrong(str(error)) from error
    return Slot(_truth(contents, layout, rows, y), obs, root.about())


def _pilots(contents: Contents, layout: Layout, rows: tuple[int, int] | None, y: Tensor) -> Tensor:
    axes = contents.fields["pilots"].axes or (*layout.batch, "pilot")[-len(contents.fields["pilots"].shape) :]
    if axes[-1:] != ("pilot",):
        raise contents.wrong(f"axes ({' '.join(axes)}), expected pilot as the last", "pilots")
    value = aligned(contents, "pilots", axes, (*layout.batch, "pilot"), layout, rows)
    if not value.is_complex():
        raise contents.wrong(f"expected complex numbers, got {contents.fields['pilots'].dtype}", "pilots")
    return value if value.ndim == 1 else value.expand(y.shape[:-1])


def _truth(contents: Contents, layout: Layout, rows: tuple[int, int] | None, y: Tensor) -> ImpairedTruth | None:
    names = [name.removeprefix("truth/") for name in contents.fields if name.startswith("truth/")]
    if not names:
        return None
    strangers = sorted(set(names) - set(TRUTH))
    if strangers or "h" not in names:
        wrong, what = (strangers[0], "unknown") if strangers else ("h", "missing")
        raise contents.wrong(f"{what}, expected h and some of {' '.join(TRUTH)}", f"truth/{wrong}")
    values: dict[str, Tensor] = {}
    for name in names:
        entry, event = contents.fields[f"truth/{name}"], TRUTH[name]
        axes = entry.axes or (*layout.batch, *event)[-len(entry.shape) :]
        if axes[len(axes) - len(event) :] != event:
            raise contents.wrong(f"axes ({' '.join(axes)}), expected {' '.join(event)} as the last", f"truth/{name}")
        values[name] = aligned(contents, f"truth/{name}", axes, layout.batch, layout, rows)
    lead, count = y.shape[:-2], y.shape[-1]
    for name, value in values.items():
        places = [count if axis == "rx_ant" else y.shape[-2] for axis in TRUTH[name][:2] if axis in EVENT]
        got = value.shape[value.ndim - len(TRUTH[name]) :][: len(places)]
        if tuple(got) != tuple(places) or value.is_complex() != (name in COMPLEX):
            kind = "complex" if name in COMPLEX else "real"
            problem = f"expected {kind} numbers (*batch, {' '.join(TRUTH[name])}) that fit y {tuple(y.shape)}"
            raise contents.wrong(f"{problem}, got {value.dtype} {tuple(value.shape)}", f"truth/{name}")
    if values["h"].shape[:-1] not in (lead, torch.Size()):
        raise contents.wrong(f"expected {(*lead, count)}, got {tuple(values['h'].shape)}", "truth/h")
    return ImpairedTruth(**values | {"h": values["h"].to(y.dtype).expand(*lead, count)})
