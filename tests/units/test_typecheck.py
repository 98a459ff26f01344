"""The checker of the suite refuses what jaxtyping's own decorator refuses, and is on."""

import dataclasses
import os
from collections.abc import Callable

import beartype
import jaxtyping
import pytest
import torch
from jaxtyping import Complex, Float
from torch import Tensor

import hhat.ops.waves as waves
from hhat.random import generator
from hhat.types import Gaussian
from tests import typecheck


def product(a: Float[Tensor, "n m"], b: Float[Tensor, "m k"], scale: float = 1.0) -> Float[Tensor, "n k"]:
    return scale * a @ b if scale else a


def named(text: str, count: int | None = None) -> list[str]:
    return [text] * count if count else text


def read_late(a: "Held", b: "Console | None" = None) -> "Held":
    return a if b is None else b


def inner(a: Float[Tensor, "n m"]) -> Float[Tensor, "m n"]:
    return CHECKED[product](a.mT, a, 1.0) if a.shape[0] == a.shape[1] else a.mT


@dataclasses.dataclass
class Held:
    x: Complex[Tensor, "*batch n"]
    y: Complex[Tensor, "*batch n"] | None = None


ONES = torch.ones
HELD = Held(torch.ones(2, 3, dtype=torch.complex64))
CALLS: list[tuple[Callable, tuple, bool]] = [
    (product, (ONES(2, 3), ONES(3, 4)), True),
    (product, (ONES(2, 3), ONES(2, 4)), False),  # m twice
    (product, (ONES(2, 3), ONES(3, 4), 0.0), False),  # what is returned: n x m
    (product, (ONES(3, 3), ONES(3, 3), 0.0), True),
    (product, (ONES(2, 3, 1), ONES(3, 4)), False),
    (product, (ONES(2, 3).to(torch.complex64), ONES(3, 4)), False),
    (product, (ONES(2, 3), ONES(3, 4), "1"), False),
    (named, ("a", 2), True),
    (named, (2,), False),
    (named, ("a",), False),  # what is returned: no list
    (read_late, (HELD,), True),
    (read_late, (HELD, HELD), True),  # a name that a static checker alone has
    (read_late, (ONES(2),), False),
    (inner, (ONES(2, 3),), True),
    (inner, (ONES(3, 3),), True),  # the axes of one call are not those of the call inside it
]
CHECKED: dict[Callable, Callable] = {}


@pytest.mark.parametrize("decorate", [typecheck.checked, typecheck.context(typechecker=beartype.beartype)])
@pytest.mark.parametrize("number", range(len(CALLS)))
def test_both_refuse_the_same(monkeypatch, decorate, number):
    call, arguments, good = CALLS[number]
    monkeypatch.setitem(CHECKED, product, decorate(product))
    if good:
        decorate(call)(*arguments)
        return
    with pytest.raises(TypeError):
        decorate(call)(*arguments)


@pytest.mark.parametrize("decorate", [typecheck.checked, typecheck.context(typechecker=beartype.beartype)])
def test_fields_of_dataclasses_share_their_axes(decorate):
    kind = decorate(dataclasses.make_dataclass("Own", [], bases=(Held,)))
    z = torch.ones(2, 3, dtype=torch.complex64)
    assert kind(z, z).y is z and kind(z).y is None
    for wrong in ((z.real,), (z, z[:, :2]), (z, z[:1])):
        with pytest.raises(TypeError):
            kind(*wrong)


def test_the_package_is_checked():
    if os.environ.get("HHAT_TYPECHECK", "1") != "1":
        pytest.skip("switched off by HHAT_TYPECHECK")
    assert jaxtyping.jaxtyped is not typecheck.context
    with pytest.raises(TypeError):
        Gaussian([1.0], torch.ones(1))
    with pytest.raises(TypeError):
        waves.line_waves(torch.ones(2, dtype=torch.complex64), 4)
    with pytest.raises(TypeError):
        generator(None)
