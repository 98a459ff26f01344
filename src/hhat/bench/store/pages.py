"""Rows read from the pages of a database file themselves, for a file that SQLite can no longer find its way through.

A table WITHOUT ROWID is a B-tree whose every page holds whole rows, so that a row is lost only with its own page or
with one of the pages its long columns run over into, wherever else the file is damaged. What is found has to be
verified by its checksum: pages that were freed still hold what was deleted, and garbage may look like a row.
Format: https://www.sqlite.org/fileformat2.html, sections 1.6 and 2.1.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

INTERIOR, LEAF = 2, 10
"""First byte of an index B-tree's pages"""
FILE_HEADER = 100
PAGE_SIZE = 4096
"""Where the file's own header does not say"""
MOST_COLUMNS = 32


def records(path: Path) -> Iterator[tuple[Any, ...]]:
    """Everything in the file that reads as a row of a table WITHOUT ROWID, damaged ones left out."""
    with path.open("rb") as file:
        size = path.stat().st_size
        page_size = _page_size(file.read(FILE_HEADER))
        for number in range(1, size // page_size + 1):
            page = _page(file, number, page_size)
            start = FILE_HEADER if number == 1 else 0
            kind = page[start]
            if kind not in (INTERIOR, LEAF):
                continue
            count = int.from_bytes(page[start + 3 : start + 5], "big")
            first = start + (12 if kind == INTERIOR else 8)
            for at in range(first, min(first + 2 * count, page_size - 1), 2):
                where = int.from_bytes(page[at : at + 2], "big") + (4 if kind == INTERIOR else 0)
                try:
                    yield _record(_payload(file, page, where, size))
                except (ValueError, IndexError, struct.error):
                    continue


def _page_size(header: bytes) -> int:
    told = int.from_bytes(header[16:18], "big")
    told = 65536 if told == 1 else told
    return told if 512 <= told <= 65536 and told & (told - 1) == 0 else PAGE_SIZE


def _page(file: BinaryIO, number: int, page_size: int) -> bytes:
    file.seek((number - 1) * page_size)
    page = file.read(page_size)
    if number < 1 or len(page) < page_size:
        raise ValueError(f"no page {number}")
    return page


def _payload(file: BinaryIO, page: bytes, where: int, file_size: int) -> bytes:
    """The bytes of a row: those on its page, and those on the chain of pages it runs over into."""
    length, where = _varint(page, where)
    if length > file_size:
        raise ValueError("longer than the file")
    usable = len(page)
    most, least = (usable - 12) * 64 // 255 - 23, (usable - 12) * 32 // 255 - 23
    if length <= most:
        return page[where : where + length]
    here = least + (length - least) % (usable - 4)
    here = here if here <= most else least
    parts, left = [page[where : where + here]], length - here
    number = int.from_bytes(page[where + here : where + here + 4], "big")
    while left > 0:
        more = _page(file, number, usable)
        number = int.from_bytes(more[:4], "big")
        parts.append(more[4 : 4 + left])
        left -= len(parts[-1])
    return b"".join(parts)


def _record(payload: bytes) -> tuple[Any, ...]:
    """The values of a row. Raises ValueError, IndexError or struct.error where these bytes are none."""
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
        if len(kinds) > MOST_COLUMNS:
            raise ValueError("too many columns")
    values, at = [], end
    for kind in kinds:
        size = _SIZES[kind] if kind < len(_SIZES) else (kind - 12) // 2
        part = payload[at : at + size]
        if len(part) < size:
            raise ValueError("too short")
        values.append(_value(kind, part))
        at += size
    if at != len(payload):
        raise ValueError("too long")
    return tuple(values)


_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)
"""Bytes of the kinds that are neither text nor blob: null, six integers, a float, 0 and 1, two that are not used"""
_FLOAT, _ZERO, _ONE, _BLOB = 7, 8, 9, 12


def _value(kind: int, part: bytes) -> Any:
    if kind == 0:
        return None
    if kind == _FLOAT:
        return struct.unpack(">d", part)[0]
    if kind in (_ZERO, _ONE):
        return kind - _ZERO
    if kind < _FLOAT:
        return int.from_bytes(part, "big", signed=True)
    if kind < _BLOB:
        raise ValueError("no such kind of value")
    return part if kind % 2 == 0 else part.decode("utf-8")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number of 1 to 9 bytes, and where what follows begins."""
    value = 0
    for count in range(9):
        byte = data[at + count]
        if count == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    raise ValueError("unreachable")
