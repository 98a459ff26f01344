"""Files in, Slots out: HDF5 captures, NumPy and MATLAB arrays, RENEW and Wi-Fi captures. The content decides which.

Every problem with a file is an `InputError` (a ValueError) of one line: file, dataset, what came, what was expected.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

from torch import Tensor

from hhat.io import arrays, capture, csi, writing
from hhat.io.assemble import pair_of, slot_of, snapshots
from hhat.io.capture import read_slots
from hhat.io.errors import InputError, PathType
from hhat.io.fields import MAX_BYTES, Contents
from hhat.io.writing import write_slots
from hhat.types import Slot

__all__ = ["InputError", "batches", "format_of", "read", "read_slots", "repeats", "write", "write_slots"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MATLAB_HEADER = 512
"""Bytes that MATLAB puts before the HDF5 part of a v7.3 file."""
_OPENERS = {
    "hhat.capture/1": capture.opened,
    "matlab v7.3": arrays.opened_mat73,
    "matlab v5": arrays.opened_mat5,
    "npz": arrays.opened_npz,
    "csi": csi.opened,
}


def read(path: PathType, *, start: int = 0, count: int | None = None, max_bytes: float | int = MAX_BYTES) -> Slot:
    """Snapshots start : start + count of a file (all by default) as one Slot; `truth` is None where there is none.

    Where the same pilots were sent twice (RENEW captures, files with y_repeat) y is the average of both, the common
    phase between them removed, and noise_var, if not given, comes from their difference and `about` says so.
    max_bytes bounds each dataset as it is read; a larger file is read in `batches`.
    Raises InputError (a ValueError): one line naming the file, the dataset and what was expected.
    """
    with opened(path, max_bytes) as contents:
        return slot_of(contents, start, count)


def batches(path: PathType, size: int, *, start: int = 0, max_bytes: float | int = MAX_BYTES) -> Iterator[Slot]:
    """The file as Slots of at most `size` snapshots each, in order, from snapshot `start`; one without a batch axis
    comes whole. Only HDF5 captures are read piece by piece. Raises InputError as `read` does."""
    if size < 1:
        raise ValueError(f"batches: expected size >= 1, got {size}")
    with opened(path, max_bytes) as contents:
        total = snapshots(contents)
        if total is None:
            yield slot_of(contents)
            return
        for first in range(start, total, size):
            yield slot_of(contents, first, size)


def repeats(
    path: PathType, *, start: int = 0, count: int | None = None, max_bytes: float | int = MAX_BYTES
) -> tuple[Slot, Slot] | None:
    """The two receptions of the same pilots, each as a Slot, the second turned by the common phase between them;
    None where the file holds only one. With a noise_var per reception. start, count, errors: as `read`."""
    with opened(path, max_bytes) as contents:
        return pair_of(contents, start, count)


def write(path: PathType, slot: Slot, repeat: Tensor | None = None) -> None:
    """Write a Slot as a capture file (HDF5, schema hhat.capture/1, suffix .h5 or .hdf5), whole or not at all.

    repeat: the same pilots received once more, of y's shape (the y_repeat of the schema).
    Raises InputError where the place cannot be written, ValueError where the Slot holds what the schema cannot.
    """
    writing.write(path, slot, repeat)


def format_of(path: PathType) -> str:
    """Which format a file is, by its first bytes. InputError where it is missing, a folder or none of them."""
    try:
        with open(path, "rb") as file:
            head = file.read(csi.LONGEST_RECORD)
    except FileNotFoundError:
        raise InputError(path, "no such file") from None
    except IsADirectoryError:
        raise InputError(path, "is a folder, expected a file") from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from error
    suffix = os.path.splitext(path)[1].lower()
    if head.startswith(_HDF5):
        return "matlab v7.3" if suffix == ".mat" else "hhat.capture/1"
    if head.startswith(b"MATLAB 7.3") or (suffix == ".mat" and head[_MATLAB_HEADER:].startswith(_HDF5)):
        return "matlab v7.3"
    if head.startswith(b"MATLAB 5.0"):
        return "matlab v5"
    if head.startswith(b"PK"):
        return "npz"
    if csi.scan(head) is not None:
        return "csi"
    known = "HDF5 (hhat.capture/1), npz, MATLAB v5 or v7.3, Intel 5300 or Atheros log"
    raise InputError(path, f"{'empty file' if not head else 'not a known format'}, expected {known}")


def opened(path: PathType, max_bytes: float | int = MAX_BYTES) -> AbstractContextManager[Contents]:
    """The file's named fields, whatever its format, open for reading. InputError as `read`."""
    return _OPENERS[format_of(path)](path, max_bytes)
