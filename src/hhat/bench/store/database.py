"""The file behind a store: opened to be written or only to be read, brought to the schema, its rows checksummed.

What is wrong with a file is said in one line that names it and says what to do.
"""

import contextlib
import errno
import hashlib
import json
import shlex
import shutil
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FILE = "cells.sqlite"
SCHEMA = 2
BUSY_S = 30.0
"""How long another process may write before this one gives up"""
RETRY_S = 0.05

CELL = (
    "key", "experiment", "method", "point", "block", "seed", "items", "arrays", "blob", "status", "wall_s", "cpu_s",
    "device", "threads", "versions", "finished", "machine",
)  # fmt: skip
RUN = ("key", "experiment", "profile", "recipe", "machine", "cells", "started")
COLUMNS = {"cells": CELL, "runs": RUN}
"""Columns of each table in the order in which they are stored; its last one, `checksum`, is over these"""
ADDED = {"cells": ("machine", "checksum"), "runs": ("checksum",)}
"""What schema 2 has more than schema 1, with the values that old rows are read with"""
OLD_VALUES = {"machine": "{}", "checksum": None}
JSON_COLUMNS = {"point", "arrays", "status", "versions", "machine", "recipe", "cells"}

Record = tuple[Any, ...]
"""Values of a row without its checksum, in the order of COLUMNS"""


class DamagedStore(ValueError):
    """Bytes of the file are not those that were written."""


def open_to_write(path: Path) -> sqlite3.Connection:
    """Connect, make what is missing, migrate an older schema; ValueError in one line where that cannot be."""
    with contextlib.ExitStack() as undo:
        with said(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            undo.callback(db.close)
            schema = _schema(db, path)
            _to_wal(db)
            if schema != SCHEMA:
                _bring_up(db, path)
        undo.pop_all()
    return db


def open_to_read(path: Path) -> tuple[sqlite3.Connection, int]:
    """Connect to an existing file without changing what it holds, and its schema; also on a medium that is read-only.

    A file that was made but never filled reads as an empty store.
    """
    with said(path):
        try:
            # not mode=ro: it would leave the files beside a WAL store behind, where this one removes them
            db, schema = _reader(path, "mode=rw")
        except sqlite3.Error as trouble:
            if _primary(trouble) not in _NO_ACCESS:
                raise
            db, schema = _reader_as_it_lies(path, trouble)
    if schema == 0:
        db.close()
        db, schema = sqlite3.connect(":memory:", isolation_level=None), SCHEMA
        _make_tables(db)
    return db, schema


def select(table: str, schema: int) -> str:
    """SELECT of all columns and the checksum, whichever schema the file has."""
    names = [name for name in (*COLUMNS[table], "checksum") if schema >= SCHEMA or name not in ADDED[table]]
    return f"SELECT {', '.join(names)} FROM {table}"


def verified(row: Sequence[Any], table: str, path: Path) -> Record:
    """A row as `select` reads it without its checksum; DamagedStore where the two disagree.

    Rows of schema 1, and rows that a process of that version added later, have none: they are filled up, and what
    zlib and JSON find wrong with them has to do.
    """
    if len(row) != len(COLUMNS[table]) + 1:
        row = (*row, *(OLD_VALUES[name] for name in ADDED[table]))
    *values, found = row
    if found is not None:
        if found != checksum(values):
            raise damaged(path, f"the checksum of {table[:-1]} {str(values[0])[:64]!r} does not hold")
        return tuple(values)
    named = dict(zip(COLUMNS[table], values, strict=True))
    named["machine"] = named["machine"] or OLD_VALUES["machine"]
    try:
        if table == "cells":
            zlib.decompress(named["blob"])
        for name in JSON_COLUMNS & named.keys():
            json.loads(named[name])
    except (ValueError, TypeError, zlib.error) as trouble:
        raise damaged(path, f"{table[:-1]} {str(values[0])[:64]!r}: {trouble}") from trouble
    return tuple(named.values())


def insert(table: str, instead: str = "IGNORE") -> str:
    """INSERT of a record and its checksum; instead: what to do where the key is there."""
    names = (*COLUMNS[table], "checksum")
    return f"INSERT OR {instead} INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def checksum(values: Sequence[Any]) -> str:
    """Hash of a row's values and their types, blobs as they are."""
    plain = [len(value) if isinstance(value, bytes) else value for value in values]
    sum_ = hashlib.blake2b(json.dumps(plain).encode(), digest_size=8)
    for value in values:
        if isinstance(value, bytes):
            sum_.update(value)
    return sum_.hexdigest()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All of the block or nothing; waits for another process that is writing. DEFERRED: reads of one moment."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def said(path: Path, db: sqlite3.Connection | None = None) -> Iterator[None]:
    """Trouble with the file becomes one line that names it; db: open, to say what is kept where the disk is full."""
    try:
        yield
    except (zlib.error, json.JSONDecodeError, UnicodeDecodeError) as trouble:
        raise damaged(path, str(trouble)) from trouble
    except (sqlite3.Error, OSError, OverflowError) as trouble:
        raise _explained(path, trouble, db) from trouble


def damaged(path: Path, what: str) -> DamagedStore:
    return DamagedStore(
        f"{path}: damaged: {' '.join(what.split())}; `hhat runs salvage {shlex.quote(str(path.parent))} -o NEW` "
        "saves what is left, and `hhat bench` with --runs NEW runs only the rest"
    )


_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR)
_NO_ACCESS += (sqlite3.SQLITE_FULL,)
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LEAST_FREE_BYTES = 2**16
"""Below this a failed write or a failed lock table is laid to the disk being full"""


def _explained(path: Path, trouble: Exception, db: sqlite3.Connection | None) -> ValueError:
    code = _primary(trouble)
    if code in _BROKEN or (isinstance(trouble, sqlite3.OperationalError) and "decode to UTF-8" in str(trouble)):
        return damaged(path, str(trouble))
    full = code == sqlite3.SQLITE_FULL or getattr(trouble, "errno", None) == errno.ENOSPC
    if full or (code in _NO_ACCESS and _free(path) < _LEAST_FREE_BYTES):
        kept = "" if db is None else f"{_count(db)} are stored and kept; "
        return ValueError(f"{path}: the disk is full: {kept}free some space and run the same command again")
    if code in _NO_ACCESS or isinstance(trouble, OSError):
        return ValueError(f"{path.parent}: cannot write into this folder of runs: {trouble}; another --runs would do")
    if code == sqlite3.SQLITE_BUSY:
        return ValueError(f"{path}: another process has been writing for {BUSY_S:g} s; try again when it is done")
    return ValueError(f"{path}: cannot use this store of runs: {trouble}")


def _primary(trouble: Exception) -> int:
    """SQLite's error code without the details of its upper bits; -1 where it is none of SQLite's."""
    code = getattr(trouble, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF


def _count(db: sqlite3.Connection) -> str:
    if db.in_transaction:  # what is in it is not stored yet
        return "all cells from before"
    try:
        return f"{db.execute('SELECT count(*) FROM cells').fetchone()[0]} cells"
    except sqlite3.Error:
        return "all cells that ended"


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return _LEAST_FREE_BYTES


def _reader(path: Path, how: str) -> tuple[sqlite3.Connection, int]:
    with contextlib.ExitStack() as undo:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_S, isolation_level=None)
        undo.callback(db.close)
        db.execute("PRAGMA query_only=ON")
        schema = _schema(db, path)
        undo.pop_all()
    return db, schema


def _reader_as_it_lies(path: Path, trouble: sqlite3.Error) -> tuple[sqlite3.Connection, int]:
    """Where nothing can be written: what is not in the write-ahead log is in the file."""
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size > 0:
        raise ValueError(
            f"{path}: its last cells are still in {log.name}, and {path.parent} cannot be written, so that they "
            "cannot be read; copy the folder to where it can be written and use the copy"
        ) from trouble
    try:
        return _reader(path, "mode=ro&immutable=1")
    except sqlite3.Error as still:
        if _primary(still) in _NO_ACCESS:
            raise ValueError(f"{path}: cannot read this file: {still}") from still
        raise


def _schema(db: sqlite3.Connection, path: Path) -> int:
    """The file's schema, 0 for an empty file; ValueError for one that is not ours or newer than this version."""
    # both of one moment: another process may be making the tables just now
    with contextlib.nullcontext() if db.in_transaction else transaction(db, "DEFERRED"):
        schema = db.execute("PRAGMA user_version").fetchone()[0]
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if schema not in range(SCHEMA + 1):
        raise ValueError(
            f"{path}: written by a newer hhat: expected a store of schema {SCHEMA} or older, got {schema}; update hhat"
        )
    if (schema > 0 and not tables >= set(COLUMNS)) or (schema == 0 and tables):
        raise ValueError(f"{path}: expected a store of runs, got a database of {' '.join(sorted(tables)) or 'nothing'}")
    return schema


def _to_wal(db: sqlite3.Connection) -> None:
    # WAL with NORMAL survives a killed process whole; only a power cut may take the last cells
    db.execute("PRAGMA synchronous=NORMAL")
    give_up = time.monotonic() + BUSY_S
    while db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            db.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as trouble:
            # SQLite does not wait here by itself while another process makes the same change
            if _primary(trouble) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(RETRY_S)


def _bring_up(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables or add the columns of schema 2 in one transaction."""
    with transaction(db):
        # two processes may get here at once: the second waits above and then finds the work done
        schema = _schema(db, path)
        if schema == 0:
            _make_tables(db)
        elif schema < SCHEMA:
            for table in COLUMNS:
                _migrate(db, table, path)
            db.execute(f"PRAGMA user_version = {SCHEMA}")


def _make_tables(db: sqlite3.Connection) -> None:
    for table, names in COLUMNS.items():
        columns = [{"key": "key TEXT PRIMARY KEY"}.get(name, name) for name in (*names, "checksum")]
        db.execute(f"CREATE TABLE {table} ({', '.join(columns)}) WITHOUT ROWID")
    db.execute(f"PRAGMA user_version = {SCHEMA}")


def _migrate(db: sqlite3.Connection, table: str, path: Path) -> None:
    read = f"{select(table, SCHEMA - 1)} WHERE key = ?"
    keys = [key for (key,) in db.execute(f"SELECT key FROM {table}")]
    for name in ADDED[table]:
        db.execute(f"ALTER TABLE {table} ADD COLUMN {name}")
    changed = ", ".join(f"{name} = ?" for name in ADDED[table])
    for key in keys:
        record = verified(db.execute(read, (key,)).fetchone(), table, path)
        added = [checksum(record) if name == "checksum" else OLD_VALUES[name] for name in ADDED[table]]
        db.execute(f"UPDATE {table} SET {changed} WHERE key = ?", (*added, key))
