"""Root attributes of a capture: what the file says of itself, checked by one small model."""

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hhat.io.errors import InputError, PathType
from hhat.types import About

SCHEMA = "hhat.capture/1"
GEOMETRY = "geometry_"
"""geometry_rx_ant: positions of the elements along that axis, (elements, 1 to 3), in wavelengths."""

UNITS = ("hz", "s", "m", "rad", "deg", "db", "dbm", "dbi", "w", "v", "k", "m_per_s", "ppm", "samples")


class Root(BaseModel):
    """Root attributes of schema hhat.capture/1. Numeric attributes that are not listed are physical constants."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Literal["pilots", "hybrid", "srs", "slots", "echo"] = "pilots"
    snr_definition: str = "not stated"
    normalisation: str = "not stated"
    source: str = "not stated"
    created: str = "not stated"
    subcarriers: list[int] | None = None
    wavefront: Literal["plane", "spherical"] = "plane"
    receiver: Literal["linear", "distorted"] = "linear"
    geometry: dict[str, list[list[float]]] = Field(default_factory=dict)
    constants: dict[str, float] = Field(default_factory=dict)

    def about(self) -> About:
        return About(
            kind=self.kind,
            snr_definition=self.snr_definition,
            normalisation=self.normalisation,
            source=self.source,
            geometry=self.geometry,
            constants=self.constants,
            subcarriers=None if self.subcarriers is None else tuple(self.subcarriers),
        )


def parse_root(path: PathType, raw: dict[str, Any], loose: bool = False) -> Root:
    """Raw attributes (str, bytes, NumPy values) to a `Root`; InputError names the attribute that is wrong.

    loose: take as constants only numbers whose name ends in a unit, because npz and MATLAB files hold other numbers.
    """
    known: dict[str, Any] = {"geometry": {}, "constants": {}}
    for key, value in raw.items():
        value = _plain(value)
        if key in Root.model_fields and key not in ("geometry", "constants"):
            known[key] = np.ravel(value).tolist() if key == "subcarriers" else value
        elif key.startswith(GEOMETRY):
            known["geometry"][key.removeprefix(GEOMETRY)] = (
                np.asarray(value).reshape(len(np.atleast_1d(value)), -1).tolist()
            )
        elif isinstance(value, int | float) and not isinstance(value, bool) and (has_unit(key) or not loose):
            known["constants"][key] = float(value)
    try:
        return Root.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(path, f"{first['msg']}, got {str(first['input'])[:80]!r}", f"attribute {name}") from error


def raw_root(about: About, created: str) -> dict[str, Any]:
    """The attributes that `parse_root` reads back as this `About`."""
    taken = [key for key in about.constants if key in Root.model_fields or key == "schema" or key.startswith(GEOMETRY)]
    if taken:
        raise ValueError(f"constants: '{taken[0]}' is the name of an attribute of the capture schema")
    raw: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": about.kind,
        "snr_definition": about.snr_definition,
        "normalisation": about.normalisation,
        "source": about.source,
        "created": created,
        **about.constants,
    }
    raw |= {GEOMETRY + axis: np.asarray(points, dtype=np.float64) for axis, points in about.geometry.items()}
    if about.subcarriers is not None:
        raw["subcarriers"] = np.asarray(about.subcarriers, dtype=np.int64)
    parse_root("write", raw)
    return raw


def has_unit(name: str) -> bool:
    return any(name.endswith("_" + unit) for unit in UNITS)


def text_of(value: Any) -> str | None:
    """An attribute as text: str, bytes or a NumPy string of one element; None where it is something else."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    # HDF5 text that is not UTF-8 comes with lone surrogates, which cannot be printed
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def axes_of(path: PathType, name: str, value: Any) -> tuple[str, ...] | None:
    """Axis names from "batch rx_ant pilot" or a list of names; None where there are none."""
    if value is None:
        return None
    text = text_of(value)
    if text is None and isinstance(value, np.ndarray | list | tuple):
        text = " ".join(text_of(part) or "?" for part in np.ravel(np.asarray(value, dtype=object)))
    if text is None or "?" in text:
        raise InputError(path, f'expected axes like "batch rx_ant pilot", got {str(value)[:80]!r}', name)
    return tuple(text.replace(",", " ").split())


def _plain(value: Any) -> Any:
    text = text_of(value)
    if text is not None:
        return text
    if isinstance(value, np.ndarray) and value.size == 1:
        return value.reshape(-1)[0].item()
    return value.item() if isinstance(value, np.generic) else value
