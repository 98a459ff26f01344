"""Sequences of 3GPP TS 38.211: pseudo-random bits and the low-PAPR sequences that sounding sends."""

import math
from functools import lru_cache

import torch
from jaxtyping import Complex
from torch import Tensor

from hhat.nr.tables import PHASE

NUM_GROUPS = 30
NUM_SKIPPED = 1600
"""N_C of 5.2.1: bits dropped before the first."""

TWO_IN_A_GROUP = 72
"""Length from which a group has a second base sequence, v = 1: 6 resource blocks."""


@lru_cache(maxsize=64)
def gold(c_init: int, length: int) -> tuple[int, ...]:
    """Pseudo-random bits c(0), ..., c(length - 1), initialised with c_init.

      x1(n + 31) = x1(n + 3) + x1(n),   x2(n + 31) = x2(n + 3) + x2(n + 2) + x2(n + 1) + x2(n)   modulo 2
      c(n) = x1(n + 1600) + x2(n + 1600)

    Raises ValueError for c_init outside of 31 bits.
    Source: 3GPP TS 38.211, 5.2.1.
    """
    if not 0 <= c_init < 1 << 31:
        raise ValueError(f"gold: c_init: expected 0..2^31 - 1, got {c_init}")
    one, two, bits = 1, c_init, []
    for n in range(NUM_SKIPPED + length):
        if n >= NUM_SKIPPED:
            bits.append((one ^ two) & 1)
        # the registers hold x(n), ..., x(n + 30), bit 0 first
        one = one >> 1 | ((one >> 3 ^ one) & 1) << 30
        two = two >> 1 | ((two >> 3 ^ two >> 2 ^ two >> 1 ^ two) & 1) << 30
    return tuple(bits)


def base_sequence(length: int, group: int, number: int = 0) -> Complex[Tensor, " tone"]:
    """r_uv(n), u = group, v = number: unit modulus, complex128.

      36 and longer   exp(-j pi q m (m + 1) / N), m = n mod N, N the largest prime below length (Zadoff-Chu), where
                      q = floor(s + 1/2) + v (-1)^floor(2 s),  s = N (u + 1) / 31
      30              exp(-j pi (u + 1) (n + 1) (n + 2) / 31)
      6, 12, 18, 24   exp(j pi phi(n) / 4), tables

    Raises ValueError for other lengths, groups outside of 0..29 and number 1 below 72.
    Source: 3GPP TS 38.211, 5.2.2.1 and 5.2.2.2.
    """
    if not 0 <= group < NUM_GROUPS:
        raise ValueError(f"base_sequence: group: expected 0..{NUM_GROUPS - 1}, got {group}")
    if number not in (0, 1) or (number and length < TWO_IN_A_GROUP):
        raise ValueError(f"base_sequence: number: expected 0, from length {TWO_IN_A_GROUP} on 0 or 1, got {number}")
    n = torch.arange(length)
    if length in PHASE:
        return _turned(torch.tensor(PHASE[length][group]), 8)
    if length == 30:
        return _turned(-(group + 1) * (n + 1) * (n + 2), 62)
    if length < 36:
        raise ValueError(f"base_sequence: length: expected 6, 12, 18, 24, 30 or at least 36, got {length}")
    prime = _prime_below(length)
    # s = prime (group + 1) / 31 and its roundings, in whole numbers
    root = (2 * prime * (group + 1) + 31) // 62 + number * (-1) ** (2 * prime * (group + 1) // 31)
    m = n % prime
    return _turned(-root * m * (m + 1), 2 * prime)


def shifted(sequence: Complex[Tensor, "*any tone"], shift: int, shifts: int) -> Complex[Tensor, "*any tone"]:
    """exp(j 2 pi shift n / shifts) times the sequence: a cyclic shift, in delay by -shift / shifts of the period."""
    n = torch.arange(sequence.shape[-1], device=sequence.device)
    return sequence * _turned(shift * n, shifts).to(sequence.device)


def _turned(steps: Tensor, circle: int) -> Tensor:
    """exp(j 2 pi steps / circle), the turns cut off in whole numbers."""
    angle = (steps % circle).double() * (2 * math.pi / circle)
    return torch.polar(torch.ones_like(angle), angle)


def _prime_below(number: int) -> int:
    candidate = number - 1
    while any(candidate % d == 0 for d in range(2, math.isqrt(candidate) + 1)):
        candidate -= 1
    return candidate
