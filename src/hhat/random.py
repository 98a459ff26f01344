"""Seeded generators: a seed is a hash of labels, so that no two purposes share a stream and no order matters."""

import hashlib
import math

import torch
from torch import Tensor


def seed_of(*labels: str | int | float) -> int:
    """63-bit seed of a list of labels, the same on every machine: ("test", 7, "channel") -> int."""
    text = "\x1f".join(f"{type(x).__name__}:{x}" for x in labels)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*labels: str | int | float) -> torch.Generator:
    """A CPU generator for these labels. Draws are made on the CPU and moved, so that devices see equal numbers.

    The method under test is never one of the labels: all methods see the same channels.
    """
    return torch.Generator().manual_seed(seed_of(*labels))


def complex_normal(
    shape: tuple[int, ...], gen: torch.Generator, dtype: torch.dtype = torch.complex64, var: float | Tensor = 1.0
) -> Tensor:
    """CN(0, var): var is E|.|^2, half of it per real dimension."""
    real = torch.float64 if dtype == torch.complex128 else torch.float32
    pair = torch.randn((*shape, 2), generator=gen, dtype=real) * math.sqrt(0.5)
    draw = torch.view_as_complex(pair)
    return draw * (torch.as_tensor(var, dtype=real) ** 0.5)


def qpsk(shape: tuple[int, ...], gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Unit-modulus QPSK symbols (+-1 +-1j)/sqrt(2)."""
    bits = torch.randint(0, 2, (*shape, 2), generator=gen)
    real = torch.float64 if dtype == torch.complex128 else torch.float32
    return torch.view_as_complex((1 - 2 * bits).to(real) * math.sqrt(0.5))
