"""Any operator as named arrays and attributes, and back: class name, tensors and numbers, recursively.

An operator is stored by its constructor's arguments, which every `LinearOp` keeps as attributes of the same name;
so a new operator is stored without a line here. Nothing is pickled and no matrix is formed.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from hhat import registry
from hhat.io.fields import Contents
from hhat.io.root import text_of
from hhat.ops import Adjoint, BlockDiag, LinearOp

Arrays = dict[str, tuple[Tensor, tuple[str, ...]]]
Groups = dict[str, dict[str, Any]]

MAX_DEPTH = 16
"""Operators nested deeper than this are refused: a file's groups may be linked in a circle."""

MAX_PARTS = 4096
"""Most operators in one Stack that a file may hold."""


def flatten(op: LinearOp, name: str, batch: tuple[str, ...], blocks: int = 0) -> tuple[Arrays, Groups]:
    """Arrays (with axes) and group attributes of an operator, under `name`.

    batch:  names of the observation's batch axes; the operator's are the last of them
    blocks: how many of the operator's last batch axes an enclosing BlockDiag has turned into event axes
    """
    arrays: Arrays = {}
    attributes: dict[str, Any] = {"class": type(op).__name__}
    groups: Groups = {name: attributes}
    for key in inspect.signature(type(op)).parameters:
        if not hasattr(op, key):
            raise ValueError(
                f"{type(op).__name__} keeps no attribute '{key}' of its constructor; a file cannot hold it"
            )
        value = getattr(op, key)
        path = f"{name}/{key}"
        if isinstance(value, Tensor):
            arrays[path] = (value, _leaf_axes(op, value, batch, blocks))
        elif isinstance(value, LinearOp):
            _add(arrays, groups, flatten(value, path, batch, blocks + isinstance(op, BlockDiag)))
        elif isinstance(value, tuple) and value and isinstance(value[0], LinearOp):
            groups[path] = {"count": len(value)}
            for index, part in enumerate(value):
                _add(arrays, groups, flatten(part, f"{path}/{index}", batch, blocks))
        elif isinstance(value, bool | int | float) or (isinstance(value, tuple) and all(type(v) is int for v in value)):
            attributes[key] = value
        elif value is not None:
            raise ValueError(f"{type(op).__name__}.{key}: a file cannot hold a {type(value).__name__}")
    return arrays, groups


def rebuild(contents: Contents, name: str, leaf: Callable[[str], Tensor], depth: int = 0) -> LinearOp:
    """The operator stored under `name`; `leaf(path)` gives a stored tensor. InputError where it makes no sense."""
    attributes = contents.groups.get(name, {})
    kind = text_of(attributes.get("class"))
    if depth > MAX_DEPTH:
        raise contents.wrong(f"operators are nested more than {MAX_DEPTH} deep", name)
    if kind != Adjoint.__name__ and kind not in registry.OPERATORS:
        raise contents.wrong(f"class {kind!r} is unknown, expected one of {' '.join(registry.OPERATORS)} Adjoint", name)
    target = Adjoint if kind == Adjoint.__name__ else registry.load("operators", str(kind))
    settings: dict[str, Any] = {}
    for key in inspect.signature(target).parameters:
        path = f"{name}/{key}"
        if path in contents.fields:
            settings[key] = leaf(path)
        elif "count" in contents.groups.get(path, {}):
            count = contents.groups[path]["count"]
            if not isinstance(count, int | np.integer) or not 0 < count <= MAX_PARTS:
                raise contents.wrong(f"expected 1..{MAX_PARTS} operators, got count {count}", path)
            settings[key] = tuple(rebuild(contents, f"{path}/{i}", leaf, depth + 1) for i in range(int(count)))
        elif path in contents.groups:
            settings[key] = rebuild(contents, path, leaf, depth + 1)
        elif key in attributes:
            settings[key] = _plain(attributes[key])
    try:
        op = target(**settings)
        shapes = (*op.in_shape, *op.out_shape, *op.batch_shape)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, AttributeError, LookupError) as error:
        # constructors check the sense of their arguments, not their types: a file may hold any
        raise contents.wrong(f"does not make a {kind}: {error}", name) from error
    if not all(type(size) is int and size > 0 for size in shapes):
        raise contents.wrong(f"does not make a {kind}: sizes {shapes}, expected whole numbers > 0", name)
    return op


def words(op: LinearOp) -> str:
    """Structure in words, e.g. "Kron(Identity 8 -> 8, Diagonal 52 -> 52)"."""
    inner = [getattr(op, key, None) for key in inspect.signature(type(op)).parameters]
    parts = [v for value in inner for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, LinearOp)]
    name = type(op).__name__
    if parts:
        return f"{name}({', '.join(words(part) for part in parts)})"
    batch = f", {'x'.join(map(str, op.batch_shape))} of them" if op.batch_shape else ""
    return f"{name} {'x'.join(map(str, op.in_shape))} -> {'x'.join(map(str, op.out_shape))}{batch}"


def _leaf_axes(op: LinearOp, value: Tensor, batch: tuple[str, ...], blocks: int) -> tuple[str, ...]:
    rank = len(op.batch_shape)
    lead = max(0, rank - blocks) if tuple(value.shape[:rank]) == tuple(op.batch_shape) else 0
    return (*batch[len(batch) - lead :], *(f"dim_{i}" for i in range(value.ndim - lead)))


def _add(arrays: Arrays, groups: Groups, more: tuple[Arrays, Groups]) -> None:
    arrays.update(more[0])
    groups.update(more[1])


def _plain(value: Any) -> Any:
    """Attributes come back as NumPy values: bool, int, float, tuple of int as the constructors want them."""
    if isinstance(value, np.ndarray):
        return tuple(value.tolist()) if value.ndim == 1 else value.tolist()
    return value.item() if isinstance(value, np.generic) else value
