"""jaxtyping and beartype on every function and dataclass of the package, each check made once.

jaxtyping's own decorator binds the signature with `inspect` at every call and checks the arguments twice, which was
more than half of the suite's time. Its import hook stays; what it decorates with is this:

- arrays in the signature: beartype inside a context of axis names, so that "n m" in one argument is "n m" in the others
  and in what is returned
- none: beartype alone, as there are no axes to bind
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

context = jaxtyping.jaxtyped
once = beartype(conf=BeartypeConf(violation_type=TypeError))


def install(package: str) -> None:
    """Every module of `package` that is imported from here on is checked."""
    jaxtyping.jaxtyped = lambda *, typechecker: checked
    jaxtyping.install_import_hook(package, "beartype.beartype")


def checked(what: Any) -> Any:
    """The function with its arguments and its return checked; of a dataclass, its `__init__`."""
    if inspect.isclass(what):
        init = what.__init__
        if dataclasses.is_dataclass(what) and not hasattr(init, "__checked__"):
            what.__init__ = checked(init)
            what.__init__.__checked__ = True
        return what
    if not any(map(holds_arrays, what.__annotations__.values())):
        return once(what)
    inner = once(what)

    @functools.wraps(what)
    def within(*args, **settings):
        with context("context"):
            return inner(*args, **settings)

    return within


def holds_arrays(hint: Any) -> bool:
    """Also one that cannot be read yet (a string): it may."""
    if isinstance(hint, str):
        return True
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts: tuple[Any, ...] | Callable = get_args(hint)
    return any(holds_arrays(part) for group in parts for part in (group if isinstance(group, list) else [group]))
