"""What `hhat track` has found so far, slot by slot, in a file that survives the process."""

import contextlib
import fcntl
import glob
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

SUFFIX = ".slots"
"""The journal's name is that of the state file and this"""


@dataclass(frozen=True, eq=False)
class Journal:
    """Records of one size, one per slot, back to back. A record counts once the state file says that its slot is done:
    what a killed run wrote beyond that, a whole record or a piece of one, is overwritten."""

    file: BinaryIO
    dtype: np.dtype

    @property
    def count(self) -> int:
        """Whole records."""
        return os.fstat(self.file.fileno()).st_size // self.dtype.itemsize

    def keep(self, count: int) -> None:
        """Forget all records but the first `count`."""
        self.file.truncate(count * self.dtype.itemsize)

    def append(self, record: np.ndarray) -> None:
        self.file.seek(0, os.SEEK_END)
        self.file.write(record.tobytes())
        self.file.flush()

    def records(self) -> Iterator[np.ndarray]:
        """One after the other, each an array without axes of the journal's dtype."""
        for index in range(self.count):
            self.file.seek(index * self.dtype.itemsize)
            yield np.frombuffer(self.file.read(self.dtype.itemsize), self.dtype)[0]


@contextlib.contextmanager
def journal_file(state: Path | None, folder: Path | None) -> Iterator[BinaryIO]:
    """The journal beside a state file, open and held against other runs; without a state file one in `folder` (None:
    that for temporary files) that vanishes.

    ValueError where another run holds it. What a killed run left half-written beside it is removed.
    """
    if state is None:
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
        return
    with open(state.with_name(state.name + SUFFIX), "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{state}: another run is at work on it") from None
        for left in state.parent.glob(f"{glob.escape(state.name)}.*.part"):
            left.unlink()
        try:
            yield file
        finally:
            if os.fstat(file.fileno()).st_size == 0:  # nothing was begun
                os.unlink(file.name)


def record_type(batch: tuple[int, ...], channel: tuple[int, ...], like: np.dtype, estimates: bool) -> np.dtype:
    """The record of a slot, per item of the batch: how it ended, error over energy (NaN: not known), of a hold-out also
    the noise floor; the time it took; and, with `estimates`, mean and variance of the channel in the precision `like`.
    """
    fields = [("seconds", "f8", ()), ("status", "i1", batch), ("ratio", "f8", batch), ("floor", "f8", batch)]
    if estimates:
        real = np.finfo(like).dtype
        fields += [("mean", like.str, (*batch, *channel)), ("var", real.str, (*batch, *channel))]
    return np.dtype(fields)
