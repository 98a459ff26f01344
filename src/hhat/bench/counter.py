"""Counts the multiply-adds that torch carries out, operator by operator, by the sizes that each is called with."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hhat.bench.operations import REAL, Number, fft

Sizes = tuple[Any, ...]


def _product(a: Tensor, b: Tensor) -> Number:
    return a.numel() * b.shape[-1]


def _lines(x: Tensor, dims: list[int]) -> Number:
    return sum(fft(x.shape[dim], x.numel() // x.shape[dim]) for dim in dims)


def _convolution(weight: Tensor, out: Tensor) -> Number:
    return out.numel() * weight[0].numel()


aten = torch.ops.aten
FORMULAS: dict[Any, Callable[[Sizes, Any], Number]] = {
    aten.mm: lambda args, out: _product(args[0], args[1]),
    aten.bmm: lambda args, out: _product(args[0], args[1]),
    aten.addmm: lambda args, out: _product(args[1], args[2]),
    aten.baddbmm: lambda args, out: _product(args[1], args[2]),
    aten.linalg_cholesky_ex: lambda args, out: args[0].numel() * args[0].shape[-1] / 6,
    aten.linalg_solve_triangular: lambda args, out: out.numel() * args[0].shape[-1] / 2,
    aten.linalg_inv_ex: lambda args, out: args[0].numel() * args[0].shape[-1],
    aten._fft_c2c: lambda args, out: _lines(args[0], args[1]),
    aten.convolution: lambda args, out: _convolution(args[1], out),
    aten.relu: lambda args, out: out.numel(),
    aten.sort: lambda args, out: out[0].numel() * math.log2(out[0].shape[args[1] if len(args) > 1 else -1]),
}
"""Textbook counts: n^3 / 6 for Cholesky, half of a product for a triangular system, n^3 for an inverse. What is not
here counts for nothing."""


class _Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found: dict[str, Number] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sizes = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            first, name = out[0] if isinstance(out, tuple) else out, str(func._overloadpacket).removeprefix("aten.")
            share = 1.0 if first.is_complex() else REAL
            self.found[name] = self.found.get(name, 0) + share * formula(args, out)
        return out


def multiply_adds(run: Callable[[], object]) -> dict[str, Number]:
    """Complex multiply-adds of one call, by operator; call once before, so that what is made once is not in it."""
    with _Counting() as counting:
        run()
    return counting.found
