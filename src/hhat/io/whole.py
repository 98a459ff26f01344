"""Files that appear whole or not at all, and text attributes that HDF5 reads back safely."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hhat.io.errors import InputError, PathType

SUFFIXES = (".h5", ".hdf5")


@contextmanager
def whole(path: PathType, suffixes: tuple[str, ...] = SUFFIXES) -> Iterator[Path]:
    """A scratch file beside `path` that takes its place at the end of the block, or vanishes where the block raises.

    suffixes: endings that the name may have. The mode of a file that is replaced is kept.
    Raises InputError where the place cannot be written.
    """
    target = place_of(path, suffixes)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=f".part{target.suffix}")
    except OSError as error:
        raise InputError(path, f"cannot write into {target.parent}: {error.strerror}") from error
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, _mode(target))
        os.replace(name, target)
    except OSError as error:
        raise InputError(path, f"writing failed: {error}") from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def place_of(path: PathType, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """Where a file of this name would be written. InputError for another ending, a folder, or one that is missing."""
    target = Path(os.path.realpath(path))
    if target.suffix not in suffixes:
        raise InputError(path, f"cannot write '{target.suffix}' files, expected {' or '.join(suffixes)}")
    if target.is_dir():
        raise InputError(path, "is a folder, expected a file name")
    if not target.parent.is_dir():
        raise InputError(path, f"cannot write into {target.parent}: no such folder")
    return target


def attributes(item: h5py.HLObject, values: Mapping[str, Any]) -> None:
    """Text is stored with a fixed length: HDF5 keeps other strings in a heap, which breaks badly (see hdf5.py)."""
    for name, value in values.items():
        if isinstance(value, str):
            text = value.encode()
            value = np.array(text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
        item.attrs[name] = value


def _mode(target: Path) -> int:
    """The mode of the file that is replaced, else what the process gives new files (mkstemp makes private ones)."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
