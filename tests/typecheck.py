"""jaxtyping and beartype on every function and dataclass of the package, each check made once.

jaxtyping's own decorator binds the signature with `inspect` at every call and checks the arguments twice, which was
more than half of the suite's time. Its import hook stays; what it decorates with is this:

- arrays in the signature: beartype inside a context of axis names, so that "n m" in one argument is "n m" in the others
  and in what is returned
- none: beartype alone, as there are no axes to bind

Both refuse the same calls (tests/units/test_typecheck.py).
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import FunctionType
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
    if any(isinstance(hint, str) for hint in what.__annotations__.values()):
        return late(what)
    return in_context(once(what)) if any(map(holds_arrays, what.__annotations__.values())) else once(what)


def in_context(inner: Callable) -> Callable:
    @functools.wraps(inner)
    def within(*args, **settings):
        with context("context"):
            return inner(*args, **settings)

    return within


def late(what: FunctionType) -> Callable:
    """Hints that are strings are read at the first call: a class is not there yet while its body is run. What is not
    there by then either was imported for a static checker alone."""
    inner = None

    @functools.wraps(what)
    def within(*args, **settings):
        nonlocal inner
        if inner is None:
            inner = once(readable(what))
        with context("context"):
            return inner(*args, **settings)

    return within


def readable(what: FunctionType) -> FunctionType:
    """The function with its strings read."""
    names = what.__code__, what.__globals__, what.__name__, what.__defaults__, what.__closure__
    found = functools.update_wrapper(FunctionType(*names), what)
    found.__kwdefaults__ = what.__kwdefaults__
    found.__annotations__ = dict(what.__annotations__)
    for name, hint in what.__annotations__.items():
        if isinstance(hint, str):
            try:
                found.__annotations__[name] = eval(hint, what.__globals__)
            except NameError:
                found.__annotations__[name] = Any
    return found


def holds_arrays(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts = (part for group in get_args(hint) for part in (group if isinstance(group, list) else [group]))
    return any(map(holds_arrays, parts))
