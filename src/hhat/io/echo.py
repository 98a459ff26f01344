"""Echo captures: `Echoes` to and from named arrays. A file holds echoes where it has `u_limits`.

    y               "batch rx_ant subcarrier" with symbols, or "batch rx_ant column" with delay_basis
    symbols         "subcarrier" or "batch subcarrier"       delay_basis  "subcarrier column"
    u_limits        "batch limit" or "limit": least and largest sin(angle) of the sector; range_limits_m likewise
    energy          "batch", |Y|^2 over all subcarriers, optional        noise_var    one number, optional
    truth/*         kappa, present, u, range_m, gain, optional (`EchoTruth`)
Root: subcarrier_spacing_hz and carrier_hz; geometry_rx_ant (a straight line; absent: half-wavelength), wavefront
("plane" or "spherical"), assumed_snr_db, optional.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hhat.io.fields import Contents
from hhat.io.layout import Layout, aligned, layout_of, rows_of, tensor_of
from hhat.io.root import parse_root
from hhat.sensing.echoes import Echoes, EchoTruth
from hhat.types import About, Slot

MARK = "u_limits"
"""The dataset that tells echoes from pilots, whatever the kind is called."""
STRAIGHT = 1e-6
"""Largest distance of an element from the line, as a share of the line's length."""
SNR = "assumed_snr_db"
Arrays = dict[str, tuple[Tensor, tuple[str, ...]]]


def holds_echoes(contents: Contents) -> bool:
    return MARK in contents.fields


def arrays_of(obs: Echoes, truth: Any) -> Arrays:
    """Values and axes by dataset. ValueError where the truth is no `EchoTruth`."""
    count = len(obs.batch_shape)
    batch = ("batch",) if count == 1 else tuple(f"batch_{i}" for i in range(count))
    last = "subcarrier" if obs.delay_basis is None else "column"
    found: Arrays = {"y": (obs.y, (*batch, "rx_ant", last))}
    for name, axis in (("u_limits", "limit"), ("range_limits_m", "limit"), ("symbols", "subcarrier")):
        value = getattr(obs, name)
        if value is not None:
            found[name] = (value, (*batch[: value.ndim - 1], axis))
    if obs.delay_basis is not None:
        found["delay_basis"] = (obs.delay_basis, ("subcarrier", "column"))
    if obs.energy is not None:
        found["energy"] = (obs.energy, batch)
    if obs.noise_var is not None:
        found["noise_var"] = (torch.tensor(obs.noise_var, dtype=torch.float64), ())
    if truth is None:
        return found
    if not isinstance(truth, EchoTruth):
        raise ValueError(f"truth: expected an EchoTruth, got {type(truth).__name__}")
    for name, value in truth._asdict().items():
        if value is not None:
            axis = "rx_ant" if name == "kappa" else "target"
            found[f"truth/{name}"] = (value, (*batch[: value.ndim - 1], axis))
    return found


def about_of(obs: Echoes, about: About) -> tuple[About, dict[str, Any]]:
    """What the file says of itself, with what the record knows put in; and attributes that no `About` holds."""
    constants = {
        **about.constants,
        "carrier_hz": obs.carrier_hz,
        "subcarrier_spacing_hz": obs.subcarrier_spacing_hz,
    }
    if obs.snr is not None:
        constants[SNR] = 10 * math.log10(obs.snr)
    places = torch.arange(obs.num_rx_ant) / 2 if obs.positions is None else obs.positions
    geometry = {**about.geometry, "rx_ant": [[0.0, float(place), 0.0] for place in places]}
    kind = about.kind if about.kind == "slots" else "echo"
    more = {"wavefront": "spherical"} if obs.spherical else {}
    return replace(about, kind=kind, geometry=geometry, constants=constants), more


def slot_of(contents: Contents, start: int = 0, count: int | None = None) -> Slot:
    """Snapshots start : start + count as a Slot whose `obs` is an `Echoes`. InputError names the dataset."""
    layout = layout_of(contents)
    if len(layout.event) != 2 or layout.event[0] != "rx_ant":
        names = " ".join(layout.batch + layout.event)
        raise contents.wrong(f'axes ({names}), expected "batch rx_ant subcarrier" or "batch rx_ant column"', "y")
    root = parse_root(contents.path, contents.root, loose=contents.format != "hhat.capture/1")
    rows = rows_of(contents, layout, start, count)
    for name in ("carrier_hz", "subcarrier_spacing_hz"):
        if name not in root.constants:
            raise contents.wrong("missing; echoes need it for ranges and angles", f"attribute {name}")
    y = tensor_of(contents, "y", rows)
    parts = {
        name: _batched(contents, name, layout, rows, axis)
        for name, axis in (("u_limits", "limit"), ("range_limits_m", "limit"), ("symbols", "subcarrier"))
    }
    if parts["range_limits_m"] is None or parts["u_limits"] is None:
        raise contents.wrong("missing; expected least and largest range of the sector in metres", "range_limits_m")
    basis = tensor_of(contents, "delay_basis", None).to(y.dtype) if "delay_basis" in contents.fields else None
    energy = (
        aligned(contents, "energy", layout.batch, layout.batch, layout, rows) if "energy" in contents.fields else None
    )
    snr = root.constants.pop(SNR, None)
    try:
        echoes = Echoes(
            y,
            parts["u_limits"],
            parts["range_limits_m"],
            root.constants["subcarrier_spacing_hz"],
            root.constants["carrier_hz"],
            _noise_var(contents),
            None if parts["symbols"] is None else parts["symbols"].to(y.dtype),
            basis,
            energy,
            _positions(contents, root.geometry.get("rx_ant"), layout.event_shape[0]),
            root.wavefront == "spherical",
            None if snr is None else 10 ** (snr / 10),
        )
    except ValueError as error:
        raise contents.wrong(str(error)) from error
    return Slot(_truth(contents, layout, rows), echoes, root.about())


def _batched(contents: Contents, name: str, layout: Layout, rows: tuple[int, int] | None, axis: str) -> Tensor | None:
    if name not in contents.fields:
        return None
    entry = contents.fields[name]
    axes = entry.axes or (*layout.batch, axis)[-len(entry.shape) :]
    if axes[-1:] != (axis,):
        raise contents.wrong(f"axes ({' '.join(axes)}), expected {axis} as the last", name)
    return aligned(contents, name, axes, layout.batch, layout, rows)


def _noise_var(contents: Contents) -> float | None:
    if "noise_var" not in contents.fields:
        return None
    value = tensor_of(contents, "noise_var", None)
    if value.is_complex() or value.numel() != 1:
        raise contents.wrong(f"expected one number for all echoes, got shape {tuple(value.shape)}", "noise_var")
    return float(value)


def _positions(contents: Contents, points: list[list[float]] | None, num: int) -> Tensor | None:
    """Places along the line from its first element; None for the half-wavelength line."""
    if points is None or num == 1:
        return None
    if len(points) != num:
        raise contents.wrong(f"{len(points)} element positions, y has {num} antennas", "attribute geometry_rx_ant")
    away = torch.tensor(points, dtype=torch.float64)
    away = away - away[0]
    length = away.norm(dim=-1).max()
    along = away @ (away[-1] / away[-1].norm().clamp_min(1e-300))
    if float(along.abs().max()) == 0 or float((away.norm(dim=-1) - along.abs()).abs().max()) > STRAIGHT * float(length):
        raise contents.wrong("expected a straight line of elements, the last away from the first", "geometry_rx_ant")
    half = torch.arange(num, dtype=torch.float64) / 2
    return None if torch.allclose(along, half, rtol=0, atol=1e-9) else along


def _truth(contents: Contents, layout: Layout, rows: tuple[int, int] | None) -> EchoTruth | None:
    names = [name for name in contents.fields if name.startswith("truth/")]
    if not names:
        return None
    known = {f"truth/{name}" for name in EchoTruth._fields}
    strangers = sorted(set(names) - known)
    if strangers:
        raise contents.wrong(f"unknown, echoes may hold {' '.join(sorted(known))}", strangers[0])
    values = {}
    for name in names:
        axis = "rx_ant" if name == "truth/kappa" else "target"
        values[name.removeprefix("truth/")] = _batched(contents, name, layout, rows, axis)
    if "present" in values:
        values["present"] = values["present"].bool()
    return EchoTruth(**values)
