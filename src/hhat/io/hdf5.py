"""Opening HDF5 that a stranger wrote: plain datasets inside the file only, and none larger than what is stored."""

import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from hhat.io.errors import InputError, PathType, foreign_reader
from hhat.io.fields import Field, size_text

MAX_OBJECTS = 20_000
"""Most groups and datasets that are looked at; a file with linked circles of groups never ends."""

MAX_DEPTH = 40
MAX_ATTRIBUTE_BYTES = 1 << 24
"""Larger attributes are left unread: positions of a million elements fit."""
MAX_TEXTS = 1000
"""Most strings in one attribute."""
_TEXT_OR_NUMBER = (h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM)
_HEAP = b"GCOL\x01\0\0\0"
_HEAP_HEADER = 16


HEAP_SCAN_BYTES = 1 << 28
"""Files up to this size are searched for broken string heaps before HDF5 sees them."""


@contextmanager
def opened(path: PathType) -> Iterator[h5py.File]:
    """The file, for reading; InputError where HDF5 cannot open it (truncated, not HDF5, locked)."""
    _check_heaps(path)
    with foreign_reader(path, "opening HDF5"):
        file = h5py.File(path, "r")
    with file:
        yield file


def members(path: PathType, group: h5py.Group, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(name, group or dataset) for everything below a group, depth first. Links are refused, not followed."""
    if depth > MAX_DEPTH:
        raise InputError(path, f"groups are nested more than {MAX_DEPTH} deep", prefix)
    with foreign_reader(path, "listing the group", prefix or "/"):
        keys = list(group.keys())
    for key in keys:
        if not isinstance(key, str):
            raise InputError(path, f"the name {key!r} is not text", prefix or "/")
        name = f"{prefix}/{key}" if prefix else key
        with foreign_reader(path, "reading the header", name):
            link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            problem = f"is a {type(link).__name__} to {getattr(link, 'path', '?')!r}; links are not followed"
            raise InputError(path, f"{problem}, expected a dataset in this file", name)
        with foreign_reader(path, "reading the header", name):
            item = group[key]
        yield name, item
        if isinstance(item, h5py.Group):
            yield from members(path, item, name, depth + 1)


def attributes(path: PathType, item: h5py.HLObject, name: str) -> dict[str, Any]:
    """The attributes that are text or numbers. Others (references, sequences, ...) are left out unread: HDF5 does
    not survive broken ones."""
    found: dict[str, Any] = {}
    with foreign_reader(path, "reading the attributes", name):
        for key in item.attrs:
            attribute = item.attrs.get_id(key)
            kind, shape = attribute.get_type(), attribute.shape
            if not isinstance(key, str) or shape is None or kind.get_class() not in _TEXT_OR_NUMBER:
                continue
            size = math.prod(shape)
            texts = size if kind.get_class() == h5py.h5t.STRING else 0
            if size * kind.get_size() <= MAX_ATTRIBUTE_BYTES and texts <= MAX_TEXTS:
                found[key] = item.attrs[key]
    return found


def field_of(
    path: PathType, name: str, dataset: h5py.Dataset, axes: tuple[str, ...] | None, flip: bool = False
) -> Field:
    """A dataset as a `Field`, its stored size checked first. flip: MATLAB v7.3 stores the axes in reverse."""
    with foreign_reader(path, "reading the header", name):
        shape, dtype = dataset.shape, number_type(dataset.dtype)
    if shape is None or dtype is None:
        raise InputError(
            path, f"expected numbers, got {dataset.dtype if shape is not None else 'an empty dataset'}", name
        )
    _check_stored(path, name, dataset, shape)
    pair = dataset.dtype.names is not None and dataset.dtype.kind != "c"

    def load(first: int | None, last: int | None) -> np.ndarray:
        with foreign_reader(path, "reading", name):
            rows = (slice(first, last),) if shape else ()
            value = np.asarray(dataset[(..., *rows)] if flip else dataset[(*rows, ...)])
            if pair:
                value = value["real"] + 1j * value["imag"]
            return value.T if flip else value

    own = attributes(path, dataset, name)
    return Field(shape[::-1] if flip else shape, dtype, load, axes, own)


def number_type(dtype: np.dtype) -> np.dtype | None:
    """Element type as NumPy sees it after reading; MATLAB's (real, imag) pairs are complex; None for the rest."""
    if dtype.names == ("real", "imag"):
        real = dtype["real"]
        good = real == dtype["imag"] and real.kind == "f"
        return np.dtype(np.complex64 if real.itemsize <= 4 else np.complex128) if good else None
    return dtype if dtype.kind in "fciub" else None


def _check_stored(path: PathType, name: str, dataset: h5py.Dataset, shape: tuple[int, ...]) -> None:
    """A dataset that was declared but never written would read as invented zeros: refuse it.

    Stored without filters, the bytes in the file must cover the declared ones; with compression every chunk must
    be there. Values that lie in other files (external storage, virtual datasets) are refused too.
    """
    with foreign_reader(path, "reading the layout", name):
        elsewhere = dataset.is_virtual or bool(dataset.external)
        declared = math.prod(shape) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        chunks = dataset.chunks
        filtered = dataset.id.get_create_plist().get_nfilters() > 0
        missing = 0
        if chunks is not None and filtered:
            expected = math.prod(-(-size // step) for size, step in zip(shape, chunks, strict=True))
            missing = expected - dataset.id.get_num_chunks()
    if elsewhere:
        raise InputError(path, "its values lie in another file, expected them in this one", name)
    if (stored < declared and not filtered) or missing > 0:
        problem = f"declares {size_text(declared)} of shape {shape}, the file holds {size_text(stored)} of it"
        raise InputError(path, problem, name)


def _check_heaps(path: PathType) -> None:
    """HDF5 (2.0 and before) walks a heap of strings for ever where an entry's size is broken: look before it does.

    A heap: "GCOL", version 1, 3 zeros, its size in 8 bytes; then entries of (index 2, count 2, zeros 4, size 8) and
    the bytes, padded to 8. Index 0 is the free rest and its size counts its own header.
    """
    with foreign_reader(path, "reading"), open(path, "rb") as file:
        if not 0 < os.fstat(file.fileno()).st_size <= HEAP_SCAN_BYTES:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = data.find(_HEAP)
            while at >= 0:
                end = at + int.from_bytes(data[at + 8 : at + 16], "little")
                if at % 8 == 0 and end <= len(data) and not _heap_ends(data, at + 16, end):
                    raise InputError(path, f"broken HDF5: the heap of strings at byte {at} makes no sense")
                at = data.find(_HEAP, at + 1)


def _heap_ends(data: mmap.mmap, at: int, end: int) -> bool:
    while at + _HEAP_HEADER <= end:
        index, size = (int.from_bytes(data[at + a : at + b], "little") for a, b in ((0, 2), (8, 16)))
        step = _HEAP_HEADER + -(-size // 8) * 8 if index else size
        if step < _HEAP_HEADER or at + step > end:
            return False
        at += step
    return True
