"""The project's own capture file: HDF5, schema hhat.capture/1.

Root attributes: schema, kind, snr_definition, normalisation, source, created, subcarriers, geometry_<axis> (element
positions in wavelengths) and physical constants with their unit in the name. Datasets carry `axes`, batch first:

    y          complex, "batch rx_ant pilot"          noise_var  E|n|^2, any of y's axes, optional
    pilots     "tx_ant pilot" or "subcarrier"         combiner   "beam rx_ant", optional
    selection  indices of the seen subcarriers, attribute `size`: number of all, optional; "symbol subcarrier" of
               pilots that hop
    y_repeat   the same pilots received once more, optional: gives a hold-out score and the noise
    truth/h    the channel, optional; truth/* what else is known
    receiver   root attribute, "distorted": pilots of `DistortedPilots`, see distorted.py; "linear" or absent: others
    operator/  any other operator as a tree of groups (class name, tensors, numbers)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py

from hhat.io import hdf5
from hhat.io.assemble import at_slot, layout_of, slot_of
from hhat.io.errors import InputError, PathType
from hhat.io.fields import ARRAYS, MAX_BYTES, Contents, Field
from hhat.io.root import SCHEMA, axes_of, text_of
from hhat.types import Slot


@contextmanager
def opened(path: PathType, max_bytes: float | int = MAX_BYTES) -> Iterator[Contents]:
    """The file's contents; values are read while it is open. InputError where it is not a capture of this schema."""
    with hdf5.opened(path) as file:
        root = hdf5.attributes(path, file, "/")
        schema = text_of(root.get("schema"))
        if schema is None:
            raise InputError(path, f"missing; an HDF5 capture says '{SCHEMA}' there", "attribute schema")
        if schema != SCHEMA:
            raise InputError(path, f"'{schema}' is unknown, expected '{SCHEMA}'", "attribute schema")
        fields: dict[str, Field] = {}
        groups: dict[str, dict[str, Any]] = {}
        for count, (name, item) in enumerate(hdf5.members(path, file)):
            if count >= hdf5.MAX_OBJECTS:
                raise InputError(path, f"holds more than {hdf5.MAX_OBJECTS} objects")
            if isinstance(item, h5py.Group):
                groups[name] = hdf5.attributes(path, item, name)
            elif isinstance(item, h5py.Dataset) and _known(name):
                own = hdf5.attributes(path, item, name)
                fields[name] = hdf5.field_of(path, name, item, axes_of(path, name, own.get("axes")))
        yield Contents(path, SCHEMA, root, fields, groups, max_bytes)


def read(path: PathType, start: int = 0, count: int | None = None, max_bytes: float | int = MAX_BYTES) -> Slot:
    """Snapshots start : start + count of a capture of this schema. Raises InputError."""
    with opened(path, max_bytes) as contents:
        return slot_of(contents, start, count)


def read_slots(path: PathType, max_bytes: float | int = MAX_BYTES) -> Iterator[Slot]:
    """The slots of a file of kind `slots`, one after the other. Raises InputError."""
    with opened(path, max_bytes) as contents:
        layout = layout_of(contents)
        if layout.batch[:1] != ("slot",):
            raise InputError(
                path, f"expected slot as its first axis, got ({' '.join(layout.batch + layout.event)})", "y"
            )
        for index in range(layout.shape[0]):
            yield slot_of(at_slot(contents, index))


def _known(name: str) -> bool:
    first = name.split("/")[0]
    return name in ARRAYS or first in ("truth", "operator")
