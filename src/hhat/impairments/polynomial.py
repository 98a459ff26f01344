"""Generalised memory polynomials: the terms, their sum, and their fit to measured pairs.

    g(u)_p = sum_t sum_k c_kt  u_{p - s_t} |u_{p - e_t}|^(k-1)        t = (s_t, e_t): delays of signal and envelope

Delays s = e give the memory polynomial, e > s lagging and e < s leading cross-terms; both delays are at least 0, so
that no term looks ahead. What lies before the first symbol is zero.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.linalg import squared

Delays = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Polynomial:
    """One amplifier as it was published or fitted, for inputs of its own scale.

    coefficients:  c, complex128 (order, term)
    orders:        k of the rows, each at least 1
    delays:        (s, e) of the columns
    back_off:      what a signal of unit power is multiplied with unless the user says otherwise
    max_amplitude: |input| after the back-off up to which it holds; beyond, amplitudes are cut to it
    source:        where the numbers are from
    Raises ValueError where these do not fit.
    """

    coefficients: Tensor
    orders: tuple[int, ...]
    delays: Delays
    back_off: float = 1.0
    max_amplitude: float = math.inf
    source: str = "not stated"

    def __post_init__(self):
        check_terms("polynomial", self.orders, self.delays)
        if tuple(self.coefficients.shape) != (len(self.orders), len(self.delays)):
            have = tuple(self.coefficients.shape)
            raise ValueError(
                f"polynomial: coefficients: expected {(len(self.orders), len(self.delays))} (order, term), got {have}"
            )
        for name in ("back_off", "max_amplitude"):
            if not getattr(self, name) > 0:
                raise ValueError(f"polynomial: {name}: expected a number > 0, got {getattr(self, name)}")

    def scaled(self, back_off: float) -> Tensor:
        """c_kt back_off^(k-1): coefficients that take a signal before the back-off, and give it back undone."""
        power = torch.tensor(self.orders, dtype=torch.float64) - 1
        return self.coefficients.to(torch.complex128) * (back_off**power)[:, None]

    def identity(self) -> Tensor:
        """Coefficients of g(u) = u. ValueError where the terms cannot say it."""
        if 1 not in self.orders or (0, 0) not in self.delays:
            raise ValueError(f"polynomial: no linear term without delay in {self.orders}, {self.delays}")
        found = torch.zeros_like(self.coefficients, dtype=torch.complex128)
        found[self.orders.index(1), self.delays.index((0, 0))] = 1
        return found


def check_terms(where: str, orders: tuple[int, ...], delays: Delays) -> None:
    """ValueError unless there are orders of at least 1 and delays of at least 0, none twice."""
    if not orders or min(orders) < 1 or len(set(orders)) < len(orders):
        raise ValueError(f"{where}: orders: expected different whole numbers of at least 1, got {orders}")
    if not delays or min(min(pair) for pair in delays) < 0 or len(set(delays)) < len(delays):
        raise ValueError(f"{where}: delays: expected different pairs of whole numbers of at least 0, got {delays}")


def memory(taps: int) -> Delays:
    """Delays of a memory polynomial of so many taps."""
    return tuple((tap, tap) for tap in range(taps))


def delayed(x: Tensor, by: int) -> Tensor:
    """The symbols of axis -2 `by` later, zeros before them."""
    return x if by == 0 else torch.nn.functional.pad(x, (0, 0, by, 0))[..., : x.shape[-2], :]


def terms(u: Tensor, orders: tuple[int, ...], delay: tuple[int, int], stride: int = 1) -> Tensor:
    """u_{p - s} |u_{p - e}|^(k-1) of one pair of delays, (*batch, pilot, rx_ant, order). stride: symbols per delay."""
    envelope = squared(delayed(u, delay[1] * stride))
    powers = [envelope.sqrt() ** (k - 1) if k % 2 == 0 else envelope ** ((k - 1) // 2) for k in orders]
    return delayed(u, delay[0] * stride)[..., None] * torch.stack(powers, -1)


def evaluate(
    u: Tensor, coefficients: Tensor, orders: tuple[int, ...], delays: Delays, max_amplitude: float = math.inf
) -> Tensor:
    """g(u), u (*batch, pilot, rx_ant) cut to max_amplitude; coefficients (order, term), or of each chain (*batch,
    rx_ant, order, term)."""
    if not math.isinf(max_amplitude):
        size = u.abs()
        u = torch.where(size > max_amplitude, u * (max_amplitude / size), u)
    if coefficients.ndim > 2:
        coefficients = coefficients.unsqueeze(-4)
    coefficients = coefficients.to(u)
    total = torch.zeros_like(u)
    for place, delay in enumerate(delays):
        total = total + (terms(u, orders, delay) * coefficients[..., place]).sum(-1)
    return total


def fit(
    clean: Tensor, dirty: Tensor, orders: tuple[int, ...], delays: Delays, stride: int = 1, ridge: float = 1e-6
) -> Tensor:
    """Coefficients (order, term) that bring clean (sample) to dirty (sample): least squares.

      min_c  mean |dirty - B c|^2 + ridge mean |dirty|^2 sum_i |c_i|^2 mean |b_i|^2

    The columns b_i of B are the terms; of order 1 only those of s = e, the others being the same columns again.
    ridge: of columns of unit power. ValueError where there are fewer samples than coefficients.
    """
    check_terms("fit", orders, delays)
    wanted = torch.tensor([[k > 1 or s == e for s, e in delays] for k in orders])
    if clean.shape != dirty.shape or clean.ndim != 1 or clean.numel() < int(wanted.sum()):
        have = tuple(clean.shape), tuple(dirty.shape)
        raise ValueError(f"fit: expected two (sample) of more than {int(wanted.sum())} samples, got {have}")
    clean, dirty = clean.to(torch.complex128), dirty.to(torch.complex128)
    columns = torch.stack([terms(clean[:, None], orders, delay, stride)[:, 0] for delay in delays], -1)[:, wanted]
    size = squared(columns).mean(0).sqrt()
    columns = columns / size
    level = squared(dirty).mean().sqrt()
    gram = columns.mH @ columns / len(clean) + ridge * torch.eye(len(size), dtype=torch.complex128)
    right = columns.mH @ (dirty / level)[:, None] / len(clean)
    found = torch.zeros(wanted.shape, dtype=torch.complex128)
    found[wanted] = torch.linalg.solve(gram, right)[:, 0] * level / size
    return found
