"""Estimates beside the capture they were made from: a copy of the capture with a group `estimate`.

    estimate/mean    complex, (*batch, *channel axes)     the channel
    estimate/var     E|h - mean|^2, same shape            infinite where the method reports none
    estimate/status  int8, (*batch)                       attribute `meaning`: "OK=0 RUNNING=1 ..."

Attributes of the group: schema (hhat.estimate/1), method, why, created. The rest of the file is the capture as it
was, truth included, so that it is read as one; readers of captures pass the group by.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import h5py
import numpy as np
from torch import Tensor

from hhat.io import format_of, opened, read, repeats, writing
from hhat.io.errors import InputError, PathType
from hhat.io.fields import MAX_BYTES
from hhat.io.layout import layout_of
from hhat.io.root import SCHEMA as CAPTURE
from hhat.io.sequence import sequence_of
from hhat.io.whole import attributes, place_of, whole
from hhat.types import Estimate, Status

SCHEMA = "hhat.estimate/1"
GROUP = "estimate"


class Sink:
    """Takes the estimates of a file batch by batch, in the file's order."""

    def __init__(self, file: h5py.File, batch: tuple[str, ...]):
        self._batch = batch
        self._group = file.create_group(GROUP)
        attributes(self._group, {"schema": SCHEMA, "created": datetime.now(UTC).isoformat(timespec="seconds")})

    def describe(self, method: str, why: str) -> None:
        attributes(self._group, {"method": method, "why": why})

    def append(self, estimate: Estimate, axes: tuple[str, ...] | None) -> None:
        """axes: names of the channel's axes, where known."""
        mean, count = estimate.belief.mean, estimate.status.ndim
        names = axes or tuple(f"dim_{i}" for i in range(mean.ndim - count))
        self._put("mean", mean, (*self._batch, *names))
        self._put("var", estimate.belief.var.expand(mean.shape), (*self._batch, *names))
        self._put("status", estimate.status, self._batch)
        attributes(self._group["status"], {"meaning": " ".join(f"{s.name}={int(s)}" for s in Status)})

    def _put(self, name: str, value: Tensor, axes: tuple[str, ...]) -> None:
        array = value.detach().cpu().resolve_conj().resolve_neg().numpy()
        if name not in self._group:
            grows = (None, *array.shape[1:]) if self._batch else None
            chunks = array.shape if self._batch else None
            self._group.create_dataset(name, data=array, maxshape=grows, chunks=chunks)
            attributes(self._group[name], {"axes": " ".join(axes)})
            return
        stored = self._group[name]
        assert isinstance(stored, h5py.Dataset)
        first = stored.shape[0]
        stored.resize(first + len(array), axis=0)
        stored[first:] = np.ascontiguousarray(array)


def check_target(target: PathType, source: PathType) -> None:
    """InputError where estimates of `source` cannot be written to `target`, so far as can be told beforehand."""
    if os.path.realpath(target) == os.path.realpath(source):
        raise InputError(target, "is the input itself, expected another file name")
    place_of(target)


@contextmanager
def estimates_file(
    target: PathType, source: PathType, max_bytes: float | int = MAX_BYTES, lead: tuple[str, ...] | None = None
) -> Iterator[Sink]:
    """A file `target` (.h5 or .hdf5) that holds the capture `source` and the estimates given to the sink.

    It appears whole at the end of the block, or not at all where the block raises; other formats than the project's
    become captures. Raises InputError where the place cannot be written or is the source itself.
    lead: names of the estimates' batch axes; None: those of the capture's y
    """
    check_target(target, source)
    with whole(target) as scratch:
        _copy(source, scratch, max_bytes)
        with opened(scratch, max_bytes) as contents:
            batch = layout_of(contents).batch
        with h5py.File(scratch, "r+", libver=("v108", "latest")) as file:
            if GROUP in file:
                del file[GROUP]  # estimates of an earlier run
            yield Sink(file, batch if lead is None else lead)


def _copy(source: PathType, scratch: PathType, max_bytes: float | int) -> None:
    if format_of(source) == CAPTURE:
        shutil.copyfile(source, scratch)
        return
    with opened(source, max_bytes) as contents:
        if layout_of(contents).batch[:1] == ("slot",) and "y_repeat" not in contents.fields:
            slots = sequence_of(contents)
            writing.write_slots(scratch, [slots.slot(index) for index in range(slots.count)])
            return
    pair = repeats(source, max_bytes=max_bytes)
    if pair is None:
        writing.write(scratch, read(source, max_bytes=max_bytes))
    else:
        writing.write(scratch, pair[0], pair[1].obs.y)
