"""`LinearOp`: a frozen complex-linear map from event axes to event axes, batched over leading axes."""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from hhat.ops.linalg import squared
from hhat.types import Shape

DENSE_LIMIT = 1 << 26
"""Most entries of a matrix that `dense()` forms (0.5 GB in complex64); beyond it structure must be used."""

CACHE_ENTRIES = 16
T = TypeVar("T")


class LinearOp(abc.ABC):
    """y = A x with x (*batch, *in_shape) and y (*batch, *out_shape); `batch_shape` broadcasts against x's batch.

    Subclasses are frozen dataclasses that give the three shapes, `apply`, `adjoint`, `lift` and `example`.
    """

    @property
    @abc.abstractmethod
    def in_shape(self) -> Shape: ...

    @property
    @abc.abstractmethod
    def out_shape(self) -> Shape: ...

    @property
    def batch_shape(self) -> Shape:
        return ()

    @abc.abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """A x."""

    @abc.abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^H y."""

    @abc.abstractmethod
    def lift(self, count: int) -> "LinearOp":
        """The same map with `count` axes of size 1 behind its batch axes, so that it broadcasts over event axes
        of a larger operator. An operator without batch axes returns itself."""

    @classmethod
    @abc.abstractmethod
    def example(cls, gen: torch.Generator) -> "LinearOp":
        """A tiny instance; the contract tests find every operator through it."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that define the map (for `.to`, caches and files)."""
        return {k: v for k, v in vars(self).items() if isinstance(v, Tensor) and not k.startswith("_")}

    @property
    def is_unitary(self) -> bool:
        """True where A^H A = A A^H = I is known from the structure; such factors move onto y."""
        return False

    def abs2(self) -> "LinearOp":
        """The map with entries |A_mn|^2: what carries variances of independent entries."""
        from hhat.ops.dense import Dense

        return Dense(squared(self.dense()), self.in_shape, self.out_shape)

    @property
    def squares(self) -> "LinearOp":
        """`abs2()`, made once."""
        return cached(self, ("abs2",), self.abs2)

    def dense(self, dtype: torch.dtype = torch.complex64) -> Tensor:
        """The matrix (*batch_shape, prod out_shape, prod in_shape); ValueError beyond DENSE_LIMIT entries."""
        rows, columns = math.prod(self.out_shape), math.prod(self.in_shape)
        if rows * columns * math.prod(self.batch_shape) > DENSE_LIMIT:
            raise ValueError(f"{type(self).__name__} {rows} x {columns} is too large to form; use its structure")
        dtype, device = self.dtype or dtype, self.device
        eye = torch.eye(columns, dtype=dtype, device=device).reshape(columns, *self.in_shape)
        eye = eye.reshape(columns, *(1,) * len(self.batch_shape), *self.in_shape)
        out = self.apply(eye).expand(columns, *self.batch_shape, *self.out_shape)
        return out.reshape(columns, *self.batch_shape, rows).movedim(0, -1).contiguous()

    def to(self, target: torch.dtype | torch.device | str) -> "LinearOp":
        """The operator with its tensors on another device or in another complex precision."""
        return cached(self, ("to", str(target)), lambda: _moved(self, target))

    def like(self, x: Tensor) -> "LinearOp":
        """The operator in the precision and on the device of x; itself where both fit."""
        return cached(self, ("like", x.dtype, x.device), lambda: self._like(x)) or self

    def _like(self, x: Tensor) -> "LinearOp | None":
        op = self if self.dtype in (None, x.dtype) else self.to(x.dtype)
        op = op if op.device in (None, x.device) else op.to(x.device)
        return None if op is self else op  # itself in its own cache would only be freed by the garbage collector

    @property
    def dtype(self) -> torch.dtype | None:
        """Dtype of the operator's tensors (real where all are); None where it has none and follows x."""
        tensors = [t for op in walk(self) for t in op.tensors.values() if t.is_complex() or t.is_floating_point()]
        if not tensors:
            return None
        found = tensors[0].dtype
        for tensor in tensors[1:]:
            found = torch.promote_types(found, tensor.dtype)
        return found

    @property
    def device(self) -> torch.device | None:
        found = [t.device for op in walk(self) for t in op.tensors.values()]
        return found[0] if found else None

    @property
    def H(self) -> "LinearOp":
        return Adjoint(self)

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Tensor):
            shape = tuple(other.shape[other.ndim - len(self.in_shape) :])
            if shape != self.in_shape:
                raise ValueError(f"{type(self).__name__}: expected x of shape (*batch, {self.in_shape}), got {shape}")
            return self.like(other).apply(other) if other.is_complex() else self.apply(other)
        from hhat.ops.compose import compose

        return cached(self, ("compose", id(other)), lambda: (other, compose(self, other)))[1]


def cached(op: LinearOp, key: tuple, make: Callable[[], T]) -> T:
    """`make()`, remembered on the operator: operators are frozen, so what follows from one is computed once.

    A key that holds an id must keep the object alive inside the value. The oldest entries go first.
    """
    store = vars(op).setdefault("_cache", {})
    if key not in store:
        while len(store) >= CACHE_ENTRIES:
            store.pop(next(iter(store)))
        store[key] = make()
    return store[key]


@dataclass(frozen=True, eq=False)
class Adjoint(LinearOp):
    """A^H of an operator that has no form of its own for it."""

    op: LinearOp

    @property
    def in_shape(self) -> Shape:
        return self.op.out_shape

    @property
    def out_shape(self) -> Shape:
        return self.op.in_shape

    @property
    def batch_shape(self) -> Shape:
        return self.op.batch_shape

    @property
    def is_unitary(self) -> bool:
        return self.op.is_unitary

    @property
    def H(self) -> LinearOp:
        return self.op

    def apply(self, x: Tensor) -> Tensor:
        return self.op.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.op.apply(y)

    def lift(self, count: int) -> LinearOp:
        return Adjoint(self.op.lift(count))

    def abs2(self) -> LinearOp:
        return Adjoint(self.op.abs2())

    @classmethod
    def example(cls, gen: torch.Generator) -> "Adjoint":
        from hhat.ops.dense import Dense

        return cls(Dense.example(gen))


def walk(op: LinearOp) -> list[LinearOp]:
    """The operator and all operators inside it."""
    found = [op]
    for value in vars(op).values():
        if isinstance(value, LinearOp):
            found += walk(value)
        elif isinstance(value, tuple):
            found += [inner for part in value if isinstance(part, LinearOp) for inner in walk(part)]
    return found


def _moved(op: LinearOp, target: torch.dtype | torch.device | str) -> LinearOp:
    new = object.__new__(type(op))
    for name, value in vars(op).items():
        if name.startswith("_"):
            continue  # caches belong to the old tensors
        if isinstance(value, LinearOp):
            value = _moved(value, target)
        elif isinstance(value, tuple) and value and isinstance(value[0], LinearOp):
            value = tuple(_moved(part, target) for part in value)
        elif isinstance(value, Tensor):
            value = _cast(value, target, name in ("matrix", "values"))
        object.__setattr__(new, name, value)
    return new


def _cast(value: Tensor, target: torch.dtype | torch.device | str, entries: bool) -> Tensor:
    if not isinstance(target, torch.dtype):
        return value.to(target)
    if value.is_complex() or (entries and value.is_floating_point()):
        return value.to(target)  # a real matrix becomes a complex one
    return value.to(target.to_real()) if value.is_floating_point() else value
