"""MATLAB v5 files (MAT-File Format, The MathWorks, chapter 1): numeric and character arrays, nothing else.

Read here and not by `scipy.io.loadmat`, because that one trusts the file: a wrong type code ends the process. Here
every length is checked against what is there, and sizes against the limit before anything is unpacked.
"""

import math
import mmap
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hhat.io.errors import InputError, PathType, foreign_reader
from hhat.io.fields import check_size

HEADER = 128
"""Bytes of text, version and byte order before the first element."""
PEEK = 1 << 16
"""Bytes of a compressed element that are unpacked to see its name and size."""

# table 1-1: data types of elements
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
# table 1-3: array classes
_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 6: "f8", 7: "f4", 8: "i1", 9: "u1"}
_CLASSES |= {10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8", 16: "function", 17: "opaque"}
_COMPLEX = 0x800


class Element(NamedTuple):
    """One tagged element: its type, its bytes, and where the next one starts."""

    kind: int
    body: memoryview
    end: int


class Variable(NamedTuple):
    """Name, class and shape of a variable; `body` holds its values (unpacked up to PEEK bytes), `packed` all of it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    is_complex: bool
    body: memoryview
    packed: memoryview | None

    @property
    def is_numeric(self) -> bool:
        return self.kind[1:].isdigit()

    @property
    def itemsize(self) -> int:
        return int(self.kind[1:]) * (1 + self.is_complex) if self.is_numeric else 2


class Reader:
    """The variables of one file; InputError where the bytes make no sense."""

    def __init__(self, path: PathType, max_bytes: float | int):
        self.path = path
        self.max_bytes = max_bytes
        with foreign_reader(path, "opening"), open(path, "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        marks = {b"IM": "<", b"MI": ">"}
        self.order = marks.get(self.data[HEADER - 2 : HEADER], "")
        if not self.order:
            raise InputError(path, "broken MATLAB file: no byte order in its header")

    def variables(self) -> Iterator[Variable]:
        """What the file holds, in order, sizes checked but values not yet read."""
        at = HEADER
        while at < len(self.data):
            element = self._element(memoryview(self.data), at, pad=False)
            packed = None
            if element.kind == _COMPRESSED:
                packed = element.body
                with foreign_reader(self.path, "unpacking the MATLAB file"):
                    head = zlib.decompressobj().decompress(packed, PEEK)
                element = element._replace(kind=self._word(memoryview(head), 0), body=memoryview(head)[8:])
            if element.kind != _MATRIX:
                raise InputError(self.path, f"broken MATLAB file: element type {element.kind} at byte {at}")
            yield self._variable(element.body, packed)
            at = element.end

    def values(self, variable: Variable) -> np.ndarray:
        """An array of numbers, or a text of no axes."""
        check_size(self.path, variable.name, variable.shape, variable.itemsize, self.max_bytes)
        body = variable.body
        if variable.packed is not None:
            # name, sizes and tags take less than PEEK bytes more; a stream that is longer has lied
            limit = PEEK + math.prod(variable.shape) * max(variable.itemsize, 16)
            with foreign_reader(self.path, "unpacking", variable.name):
                body = memoryview(zlib.decompressobj().decompress(variable.packed, limit))[8:]
            for _ in range(3):
                body = body[self._element(body, 0).end :]
        if variable.kind == "char":
            part = self._element(body, 0)
            encoding = _ENCODINGS.get(part.kind, "ascii")
            encoding += {"<": "-le", ">": "-be"}[self.order] if encoding in ("utf-16", "utf-32") else ""
            with foreign_reader(self.path, "reading the text", variable.name):
                return np.asarray(bytes(part.body).decode(encoding))
        real, body = self._numbers(variable, body)
        if not variable.is_complex:
            return real
        return real + 1j * self._numbers(variable, body)[0]

    def _numbers(self, variable: Variable, body: memoryview) -> tuple[np.ndarray, memoryview]:
        part = self._element(body, 0)
        stored = np.dtype(self.order + _STORED[part.kind]) if part.kind in _STORED else None
        count = math.prod(variable.shape)
        if stored is None or len(part.body) != count * stored.itemsize:
            problem = f"shape {variable.shape} needs {count} numbers, its part of type {part.kind} has"
            raise InputError(self.path, f"{problem} {len(part.body)} bytes", variable.name)
        flat = np.frombuffer(part.body, stored).astype(variable.kind)
        return flat.reshape(variable.shape, order="F"), body[part.end :]

    def _variable(self, body: memoryview, packed: memoryview | None) -> Variable:
        flags = self._element(body, 0)
        shape = self._element(body, flags.end)
        name = self._element(body, shape.end)
        if len(flags.body) != 8 or len(shape.body) < 8 or len(shape.body) % 4:
            raise InputError(self.path, "broken MATLAB file: a variable without class or shape")
        text = bytes(name.body).decode("ascii", "replace")
        sizes = tuple(int(size) for size in np.frombuffer(shape.body, self.order + "i4"))
        word = self._word(flags.body, 0)
        kind = _CLASSES.get(word & 0xFF)
        if kind is None or min(sizes) < 0:
            raise InputError(self.path, f"broken MATLAB file: class {word & 0xFF}, shape {sizes}", text)
        return Variable(text, kind, sizes, bool(word & _COMPLEX), body[name.end :], packed)

    def _element(self, data: memoryview, at: int, pad: bool = True) -> Element:
        """The element at this byte. Up to 4 bytes may share the tag; elements inside others are padded to 8."""
        if at + 8 > len(data):
            raise InputError(self.path, f"truncated MATLAB file: {len(data) - at} bytes where a tag of 8 should be")
        kind, size = self._word(data, at), self._word(data, at + 4)
        start, small = at + 8, kind >> 16
        if small:
            kind, size, start = kind & 0xFFFF, small, at + 4
        if start + size > len(data) or small > 4:
            raise InputError(self.path, f"truncated MATLAB file: {size} bytes declared, {len(data) - start} are there")
        end = at + 8 if small else start + size
        return Element(kind, data[start : start + size], min(len(data), end + (-end % 8 if pad else 0)))

    def _word(self, data: memoryview, at: int) -> int:
        return int.from_bytes(data[at : at + 4], "little" if self.order == "<" else "big")
