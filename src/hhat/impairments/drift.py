"""How a receiver's imperfections drift from slot to slot."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.impairments.amplifier import Amplifier
from hhat.impairments.chain import Chain
from hhat.impairments.crosstalk import Crosstalk
from hhat.impairments.iq_imbalance import IqImbalance
from hhat.ops.linalg import squared
from hhat.random import complex_normal

AMPLIFIER_NOISE = ("per_chain", "shared", "none")


class Theta(NamedTuple):
    """What drifts: coupling and phase_rad float64 (*batch, rx_ant), coefficients complex128 (*batch, rx_ant, order,
    term)."""

    coupling: Tensor
    phase_rad: Tensor
    coefficients: Tensor

    @classmethod
    def alike(
        cls,
        amplifier: Amplifier,
        shape: tuple[int, ...],
        coupling: float | int = 0.1778,
        phase_rad: float | int = 0.1778,
    ) -> "Theta":
        """Chains of `shape` (*batch, rx_ant), all with the same values."""
        ones = torch.ones(shape, dtype=torch.float64)
        same = amplifier.taps.to(torch.complex128).expand(*shape, *amplifier.taps.shape[-2:])
        return cls(coupling * ones, phase_rad * ones, same)

    def chain(self, amplifier: Amplifier) -> Chain:
        """The receiver with these values; the amplifier gives orders, delays and the amplitude where it is cut."""
        own = replace(amplifier, coefficients=self.coefficients)
        return Chain((Crosstalk(self.coupling), own, IqImbalance(self.phase_rad)))


@dataclass(frozen=True)
class Drift:
    """theta(t) = (1 - rate) theta(t-1) + rate theta* + noise |theta(t-1)|^2 xi(t),   one step per slot

    xi ~ N(0, 1) for coupling and phase, CN(0, 1) for coefficients. Where the amplifier was learned at c, it starts at
    c times `start_gain` of its order and is pulled to that times `target_gain`; the last of each holds for all higher
    orders. Coupling and phase start at `start` and are pulled to `target`.

    amplifier_noise: xi of the coefficients: "per_chain", "shared" by all chains, or "none"
    Taken literally per chain, the walk of the linear tap (|c| = 0.95 of "warp") ends at a standard deviation of 0.097
    of the tap (measured; -20 dB) and is almost a gain of each antenna, which pilots cannot tell from the channel: say
    which law a figure has. c are the coefficients for inputs of unit power, so that the noise of high orders hardly
    counts.
    Source: Xu & Liu 2026, section on drift; which noise is complex, and whether chains share it, is not stated there.
    Raises ValueError for settings outside these.
    """

    rate: float | int = 0.005
    noise: float | int = 0.01
    amplifier_noise: str = "per_chain"
    start: float | int = 0.2239
    target: float | int = 0.2512
    start_gain: tuple[float | int, ...] = (1.02, 1.05, 1.10)
    target_gain: tuple[float | int, ...] = (1.0, 1.02, 1.05)

    def __post_init__(self):
        if self.amplifier_noise not in AMPLIFIER_NOISE:
            raise ValueError(
                f"drift: amplifier_noise is one of {', '.join(AMPLIFIER_NOISE)}; got {self.amplifier_noise!r}"
            )
        if not 0 <= self.rate <= 1 or not self.noise >= 0:
            raise ValueError(f"drift: expected rate in 0..1 and noise >= 0, got {self.rate}, {self.noise}")
        if not self.start_gain or not self.target_gain:
            raise ValueError(
                "drift: start_gain, target_gain: expected a factor for each of orders 1, 3, 5, ..., got none"
            )

    def begin(self, amplifier: Amplifier, shape: tuple[int, ...]) -> Theta:
        """theta(0) of chains `shape` (*batch, rx_ant) whose amplifier was learned as `amplifier`."""
        return Theta.alike(self._with(amplifier, self.start_gain), shape, self.start, self.start)

    def towards(self, amplifier: Amplifier, shape: tuple[int, ...]) -> Theta:
        """theta*."""
        started = self._with(amplifier, self.start_gain)
        return Theta.alike(self._with(started, self.target_gain), shape, self.target, self.target)

    def step(self, now: Theta, target: Theta, gen: torch.Generator) -> Theta:
        """theta of the next slot. Every noise is drawn whether or not it counts, so that others see equal numbers."""
        walks = [torch.randn(now.coupling.shape, generator=gen, dtype=torch.float64) for _ in range(2)]
        own = complex_normal(tuple(now.coefficients.shape), gen, torch.complex128)
        common = complex_normal((*now.coefficients.shape[:-3], 1, *now.coefficients.shape[-2:]), gen, torch.complex128)
        walks.append({"per_chain": own, "shared": common, "none": torch.zeros_like(common)}[self.amplifier_noise])
        moved = []
        for old, aim, xi in zip(now, target, walks, strict=True):
            size = squared(old) if old.is_complex() else old.square()
            moved.append((1 - self.rate) * old + self.rate * aim + self.noise * size * xi)
        return Theta(*moved)

    def _with(self, amplifier: Amplifier, gains: tuple[float | int, ...]) -> Amplifier:
        """Factors are of orders 1, 3, 5, ...; an even order takes that of the odd one above it."""
        own = [gains[min(order // 2, len(gains) - 1)] for order in amplifier.polynomial.orders]
        return replace(amplifier, coefficients=amplifier.taps * torch.tensor(own, dtype=torch.float64)[:, None])
