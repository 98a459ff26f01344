"""NumPy archives and MATLAB files: the names of the HDF5 schema as plain variables.

y, pilots, noise_var, combiner, selection, y_repeat, truth_h, and next to them, as variables of their own, what HDF5
keeps as attributes: y_axes, pilots_axes, ..., selection_size, kind, source, subcarriers, geometry_rx_ant, carrier_hz.
Nothing is unpickled: object arrays, cells and structs are refused. Sizes are checked before anything is read.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from hhat.io import hdf5
from hhat.io.errors import InputError, PathType, foreign_reader
from hhat.io.fields import ARRAYS, MAX_BYTES, Contents, Field, check_size, in_memory, size_text
from hhat.io.matlab5 import Reader
from hhat.io.root import GEOMETRY, Root, axes_of, has_unit, text_of

TRUTH = "truth_"
LARGEST_CODE_POINT = 0x10FFFF


@contextmanager
def opened_npz(path: PathType, max_bytes: float | int = MAX_BYTES) -> Iterator[Contents]:
    """A NumPy archive as contents. InputError where it is broken, holds objects or declares more than it stores."""
    with foreign_reader(path, "opening the npz archive"):
        archive = zipfile.ZipFile(path)
    with archive:
        variables: dict[str, np.ndarray] = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename or not _wanted(name):
                continue
            with foreign_reader(path, "reading the header", name), archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = header[version](member)
                start = member.tell()
            if dtype.hasobject:
                raise InputError(path, "holds pickled objects, expected plain numbers; nothing is unpickled", name)
            check_size(path, name, shape, dtype.itemsize, max_bytes)
            declared, held = math.prod(shape) * dtype.itemsize, info.file_size - start
            if declared > held:
                raise InputError(path, f"declares {size_text(declared)}, the archive holds {size_text(held)}", name)
            with foreign_reader(path, "reading", name), archive.open(info) as member:
                variables[name] = np.lib.format.read_array(member, allow_pickle=False)
        yield contents_of(path, "npz", variables, max_bytes)


@contextmanager
def opened_mat5(path: PathType, max_bytes: float | int = MAX_BYTES) -> Iterator[Contents]:
    """A MATLAB v5 file as contents (also one of RENEW's captures, see renew.py)."""
    reader = Reader(path, max_bytes)
    held = {variable.name: variable for variable in reader.variables()}
    foreign = not any(_wanted(name) for name in held)
    variables: dict[str, np.ndarray] = {}
    for name, variable in held.items():
        if variable.is_numeric or variable.kind == "char":
            if _wanted(name) or (foreign and variable.is_numeric):
                variables[name] = reader.values(variable)
        elif _wanted(name):
            raise InputError(path, f"is a MATLAB {variable.kind}, expected numbers", name)
    yield _matlab(path, variables, max_bytes)


@contextmanager
def opened_mat73(path: PathType, max_bytes: float | int = MAX_BYTES) -> Iterator[Contents]:
    """A MATLAB v7.3 file (HDF5 with the axes reversed and complex numbers as pairs) as contents."""
    with hdf5.opened(path) as file:
        held = {name: item for name, item in hdf5.members(path, file) if "/" not in name and name[:1] != "#"}
        foreign = not any(_wanted(name) for name in held)
        variables: dict[str, np.ndarray] = {}
        for name, item in held.items():
            if not _wanted(name) and not foreign:
                continue
            with foreign_reader(path, "reading the header", name):
                is_number = isinstance(item, h5py.Dataset) and hdf5.number_type(item.dtype) is not None
            if not is_number:
                if foreign:
                    continue
                raise InputError(path, "is a MATLAB struct or cell, expected numbers", name)
            field = hdf5.field_of(path, name, item, None, flip=True)
            check_size(path, name, field.shape, field.dtype.itemsize, max_bytes)
            if field.attributes.get("MATLAB_empty"):
                raise InputError(path, "0 snapshots: MATLAB's empty array", name)
            value = field.load(None, None)
            variables[name] = _text(value) if text_of(field.attributes.get("MATLAB_class")) == "char" else value
        yield _matlab(path, variables, max_bytes)


def contents_of(
    path: PathType, form: str, variables: dict[str, np.ndarray], max_bytes: float | int = MAX_BYTES
) -> Contents:
    """Variables under the schema's names as contents; each `x_axes` becomes the axes of x."""
    axes = {k.removesuffix("_axes"): axes_of(path, k, v) for k, v in variables.items() if k.endswith("_axes")}
    fields: dict[str, Field] = {}
    for name, value in variables.items():
        if name in ARRAYS or (name.startswith(TRUTH) and not name.endswith("_axes")):
            if value.dtype.kind not in "fciub":
                raise InputError(path, f"expected numbers, got {value.dtype}", name)
            key = name.replace(TRUTH, "truth/", 1) if name.startswith(TRUTH) else name
            fields[key] = in_memory(value, axes.get(name), variables.get(f"{name}_size"))
    root: dict[str, Any] = {k: v for k, v in variables.items() if _attribute(k)}
    return Contents(path, form, root, fields, {}, max_bytes)


def _matlab(path: PathType, variables: dict[str, np.ndarray], max_bytes: float | int) -> Contents:
    """MATLAB knows neither vectors nor trailing axes of size 1: bring both back where the axes say so."""
    from hhat.io.renew import is_renew, renew_variables

    if is_renew(variables):
        return contents_of(path, "renew", renew_variables(path, variables), max_bytes)
    shaped = dict(variables)
    for name in (n for n in variables if n in ARRAYS or n.startswith(TRUTH)):
        value = variables[name]
        named = axes_of(path, name, variables.get(f"{name}_axes"))
        vector = value.ndim == 2 and 1 in value.shape
        if name == "pilots" and named is None and vector:
            y_axes = axes_of(path, "y", variables.get("y_axes"))
            if y_axes is None:
                problem = f"{value.shape[0]} x {value.shape[1]} may be pilots of one antenna or one per subcarrier"
                raise InputError(path, f'{problem}; say which: y_axes = "batch rx_ant subcarrier" or "... pilot"', name)
            named = y_axes[-1:] if y_axes[-1] == "subcarrier" else ("tx_ant", "pilot")
        if name == "noise_var" and value.size == 1:
            shaped[name] = value.reshape(())
        elif (name == "selection" and named is None) or (vector and named is not None and len(named) == 1):
            shaped[name] = value.reshape(-1)
        elif vector and name == "noise_var" and named is None:
            shaped[name] = value.reshape(-1)
        elif named is not None and len(named) > value.ndim:
            shaped[name] = value.reshape(*value.shape, *(1,) * (len(named) - value.ndim))
    return contents_of(path, "matlab", shaped, max_bytes)


def _attribute(name: str) -> bool:
    return name in Root.model_fields or name.startswith(GEOMETRY) or has_unit(name)


def _wanted(name: str) -> bool:
    return name in ARRAYS or name.startswith(TRUTH) or name.endswith(("_axes", "_size")) or _attribute(name)


def _text(codes: np.ndarray) -> np.ndarray:
    """MATLAB characters are stored as UTF-16 code units, one row."""
    return np.asarray("".join(chr(code) for code in codes.reshape(-1).tolist() if 0 < code <= LARGEST_CODE_POINT))
