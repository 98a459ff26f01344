"""The one error of this room: a file that cannot be used, in one line that says where and what was expected."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

PathType = str | PathLike[str]

_LONGEST = 300
"""Characters of a foreign library's message that are kept: enough to search for, still one line."""


class InputError(ValueError):
    """A file is missing, broken or wrong. The text is one line: file, dataset, what came, what was expected."""

    def __init__(self, path: PathType, problem: str, field: str | None = None):
        where = f"{path}: {field}" if field else f"{path}"
        text = " ".join(f"{where}: {problem}".split())
        super().__init__(text.encode("utf-8", "replace").decode())


@contextmanager
def foreign_reader(path: PathType, doing: str, field: str | None = None) -> Iterator[None]:
    """Turn whatever a third-party parser raises or warns on a broken file into an InputError.

    Parsers of hostile bytes raise nearly anything (OSError, KeyError, struct.error, MemoryError, ...), so this is
    the one place that catches `Exception`; it wraps calls into such parsers only, never this project's own code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except InputError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        raise InputError(path, f"{doing} failed: {text}", field) from error
