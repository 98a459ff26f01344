"""What a file holds, in words and numbers that go into JSON; problems are listed, not raised."""

from typing import Any

import numpy as np

from hhat.distortion.record import DistortedPilots
from hhat.io import opened
from hhat.io.assemble import ESTIMATED, Layout, at_slot, hops_between_slots, layout_of, slot_of
from hhat.io.errors import InputError, PathType
from hhat.io.fields import MAX_BYTES, Contents
from hhat.io.operators import words
from hhat.io.root import UNITS, Root, has_unit, parse_root
from hhat.ops import LinearOp
from hhat.sensing.echoes import Echoes
from hhat.types import Slot

CHECKED_BYTES = 500e6
"""About this much of y is read and checked at a time."""


def describe(path: PathType, *, max_bytes: float | int = MAX_BYTES) -> dict[str, Any]:
    """What the file holds, JSON-able: format, kind, axes and sizes, units, geometry, SNR definition, operator in words.

    Everything is read once, in batches, so that `problems` (one line each) covers the whole file.
    Raises InputError only where the file cannot be opened as any known format.
    """
    with opened(path, max_bytes) as contents:
        found: dict[str, Any] = {"file": str(path), "format": contents.format}
        problems: list[str] = []
        try:
            root = parse_root(path, contents.root, loose=contents.format != "hhat.capture/1")
            found |= _root(root)
            problems += _unitless(root)
        except InputError as error:
            problems.append(str(error))
        found["datasets"] = {
            name: {"axes": list(field.axes or ()), "shape": list(field.shape), "dtype": str(field.dtype)}
            for name, field in contents.fields.items()
        }
        found["noise_var"] = "given" if "noise_var" in contents.fields else "not given: estimated"
        found["truth"] = [n.removeprefix("truth/") for n in contents.fields if n.startswith("truth/")]
        found["repeated"] = "y_repeat" in contents.fields
        try:
            layout = layout_of(contents)
            found["axes"] = dict(zip(layout.batch + layout.event, layout.shape, strict=True))
            found["batch_axes"] = list(layout.batch)
            found |= _checked(contents, layout)
        except InputError as error:
            problems.append(str(error))
        return found | {"problems": problems}


def _root(root: Root) -> dict[str, Any]:
    geometry = {}
    for axis, points in root.geometry.items():
        values = np.asarray(points)
        extent = (values.max(0) - values.min(0)).tolist()
        geometry[axis] = {"elements": len(points), "extent_wavelengths": extent}
    return {
        "kind": root.kind,
        "snr_definition": root.snr_definition,
        "normalisation": root.normalisation,
        "source": root.source,
        "created": root.created,
        "constants": root.constants,
        "subcarriers": root.subcarriers,
        "geometry": geometry,
        "units": {"y": "receiver units", "noise_var": "E|n|^2 per complex sample", "geometry": "wavelengths"},
    }


def _unitless(root: Root) -> list[str]:
    ends = " ".join("_" + unit for unit in UNITS[:4])
    return [
        f"attribute {name}: a physical constant without its unit in the name, expected an end like {ends}"
        for name in root.constants
        if not has_unit(name)
    ]


def _checked(contents: Contents, layout: Layout) -> dict[str, Any]:
    """Read the whole file piece by piece; the first problem ends it (as an InputError)."""
    if not layout.batch:
        slot = slot_of(contents)
        return _of_slot(slot)
    per_snapshot = contents.fields["y"].dtype.itemsize * int(np.prod(layout.shape[1:]))
    step = max(1, int(min(CHECKED_BYTES, contents.max_bytes) // per_snapshot))
    if hops_between_slots(contents):
        slots = (slot_of(at_slot(contents, index)) for index in range(layout.shape[0]))
    else:
        slots = (slot_of(contents, first, step) for first in range(0, layout.shape[0], step))
    found: dict[str, Any] = {}
    for slot in slots:
        found = found or _of_slot(slot)
    return found


def _of_slot(slot: Slot) -> dict[str, Any]:
    obs = slot.obs
    if isinstance(obs, Echoes):
        return _of_echoes(obs)
    if isinstance(obs, DistortedPilots):
        return {
            "channel_axes": {"rx_ant": obs.num_rx_ant},
            "operator": "known pilots through receive chains that distort, noise before them",
            "mean_power": float(obs.y.abs().square().mean()),
            "mean_noise_var": float(obs.noise_var.mean()),
        }
    assert isinstance(obs.op, LinearOp)
    found: dict[str, Any] = {
        "channel_axes": dict(zip(obs.axes, obs.op.in_shape, strict=True)) if obs.axes else list(obs.op.in_shape),
        "operator": words(obs.op),
        "mean_power": float(obs.y.abs().square().mean()),
    }
    if obs.noise_var is not None:
        found["mean_noise_var"] = float(obs.noise_var.mean())
    if ESTIMATED in slot.about.snr_definition:
        found["noise_var"] = f"not given: {ESTIMATED.removeprefix('noise_var ')}"
    return found


def _of_echoes(echoes: Echoes) -> dict[str, Any]:
    held = "delay-compressed" if echoes.symbols is None else "per subcarrier, with symbols"
    limits = echoes.u_limits.min().item(), echoes.u_limits.max().item()
    found: dict[str, Any] = {
        "channel_axes": {"rx_ant": echoes.num_rx_ant, "subcarrier": echoes.num_subcarriers},
        "operator": f"echoes of targets in known sectors, {held}, {'spherical' if echoes.spherical else 'plane'} waves",
        "mean_power": float(echoes.y.abs().square().mean()),
        "sectors": {
            "sin_angle": list(limits),
            "range_m": [float(echoes.range_limits_m.min()), float(echoes.range_limits_m.max())],
        },
    }
    if echoes.noise_var is not None:
        found["mean_noise_var"] = echoes.noise_var
    return found
