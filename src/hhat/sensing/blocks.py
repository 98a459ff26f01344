"""Echo snapshots put together and made small: what lets a file larger than memory be calibrated from."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hhat.ops.linalg import squared
from hhat.sensing.echoes import UNIT_MODULUS, Echoes, compress

ROWS = 1024
"""Snapshots compressed at a time"""
BATCHED = {"y": 2, "symbols": 1, "u_limits": 1, "range_limits_m": 1, "energy": 0}
"""Event axes of what may have batch axes"""


def joined(blocks: Sequence[Echoes]) -> Echoes:
    """The blocks' snapshots under one batch axis. ValueError where there are none or their waves differ."""
    if not blocks:
        raise ValueError("echoes: expected at least one block")
    blocks = [block.flat() for block in blocks]
    first = blocks[0]
    for block in blocks[1:]:
        same = block.y.shape[1:] == first.y.shape[1:] and block.spherical == first.spherical
        if not same or (block.delay_basis is None) != (first.delay_basis is None):
            shapes = tuple(first.y.shape[1:]), tuple(block.y.shape[1:])
            raise ValueError(f"echoes: expected blocks of one form, got {shapes[0]} and {shapes[1]}")
    if len(blocks) == 1:
        return first
    parts = {name: _joined([getattr(block, name) for block in blocks], blocks, ndim) for name, ndim in BATCHED.items()}
    return replace(first, **parts)


def moved_to(echoes: Echoes, device: torch.device | str) -> Echoes:
    """The echoes with their tensors on another device."""
    if echoes.y.device == torch.device(device):
        return echoes
    return replace(echoes, **{name: v.to(device) for name, v in vars(echoes).items() if isinstance(v, Tensor)})


def compacted(echoes: Echoes) -> Echoes:
    """The echoes delay-compressed where that is exact, in chunks; else as they are (symbols not of unit modulus,
    compressed already)."""
    if echoes.symbols is None or float((squared(echoes.symbols) - 1).abs().max()) > UNIT_MODULUS:
        return echoes
    flat = echoes.flat()
    limits = flat.range_limits_m
    if limits.ndim > 1 and not bool((limits == limits[:1]).all()):
        return compress(flat)  # one basis for the widest sector
    return joined([compress(flat.rows(slice(first, first + ROWS))) for first in range(0, len(flat.y), ROWS)])


def _joined(values: list[Tensor | None], blocks: list[Echoes], ndim: int) -> Tensor | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    if all(value.ndim == ndim and torch.equal(value, known[0]) for value in known):
        return known[0]
    return torch.cat([v.expand(len(b.y), *v.shape[v.ndim - ndim :]) for v, b in zip(known, blocks, strict=True)])
