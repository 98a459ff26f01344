"""Where each stream of a Sionna resource grid sounds the channel, and the operator that this makes.

Reads of Sionna only the resource grid it is handed (`pilot_pattern.mask`, `.pilots`), so that `hhat.sionna` imports
without importing Sionna.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hhat.ops import Dense, Kron, LinearOp, Select
from hhat.ops.linalg import eigh

SAME_POWER = 1e-4
"""Pilots whose powers differ by less (relative) count as equally strong; above float32 rounding."""

WEAKEST_MODE = 1e-4
"""Power relative to the strongest mode: weaker ones are left out where no prior holds them down. At 10 dB least
squares loses 3 dB with 1e-2 and nothing with 1e-3 (TDL-C, 300 ns, 10 m/s); at 30 dB 1e-3 still loses 9 dB."""


class Comb(NamedTuple):
    """Pilots at every crossing of some symbols and some tones, all of one power."""

    symbols: Tensor
    tones: Tensor


class Modes(NamedTuple):
    """Of a channel's covariance the part that pilots see.

    reach:   modes -> grid; its columns are orthonormal at the pilots
    outside: (symbol, subcarrier) variance of the channel that the modes do not carry
    """

    reach: LinearOp
    outside: Tensor


class Pilots(NamedTuple):
    """The non-zero pilots of one stream.

    where:  (P,) ascending places symbol * num_subcarriers + subcarrier among the effective subcarriers
    values: (P,) complex pilot symbols
    comb:   the pattern as a product of symbols and tones, None where it is none
    shape:  (num_ofdm_symbols, num_effective_subcarriers)
    """

    where: Tensor
    values: Tensor
    comb: Comb | None
    shape: tuple[int, int]

    def sounding(self) -> LinearOp:
        """One antenna's channel (symbol, subcarrier) -> what `derotated` makes of its received grid.

        A comb selects symbols and tones one after the other, so that Kronecker structure survives; any other
        pattern is one matrix holding the pilots' magnitudes.
        """
        if self.comb is not None:
            return Kron(Select(self.comb.symbols, self.shape[0]), Select(self.comb.tones, self.shape[1]))
        count = self.where.numel()
        matrix = self.values.new_zeros(count, self.shape[0] * self.shape[1])
        matrix[torch.arange(count), self.where] = self.values.abs().to(matrix.dtype)
        return Dense(matrix, in_shape=self.shape)

    def derotated(self, grid: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """Received (*batch, num_ofdm_symbols * num_subcarriers) and its noise -> y and noise_var for `sounding`.

        The pilots of a comb are divided out. Otherwise only their phases are, so that the noise stays white.
        """
        values = self.values.to(grid.device, grid.dtype)
        y = grid.index_select(-1, self.where.to(grid.device))
        if self.comb is None:
            return y * values.conj() / values.abs(), noise_var
        power = values.abs().square().mean()
        y = (y * values.conj() / power).unflatten(-1, (self.comb.symbols.numel(), self.comb.tones.numel()))
        return y, noise_var / power

    def covariance(self, time: Tensor, frequency: Tensor) -> tuple[Tensor, ...]:
        """Covariance of y without noise, from those of the grid's axes: a factor per axis of y."""
        if self.comb is not None:
            symbols, tones = self.comb
            return time[symbols][:, symbols], frequency[tones][:, tones]
        symbols, tones = self.where // self.shape[1], self.where % self.shape[1]
        magnitude = self.values.abs().to(time.dtype)
        both = time[symbols][:, symbols] * frequency[tones][:, tones]
        return (magnitude[:, None] * both * magnitude,)

    def modes(self, time: Tensor, frequency: Tensor, like: Tensor) -> Modes:
        """The strong modes of a channel with these covariances of the grid's axes, in the precision of `like`."""
        symbols, tones = self.where // self.shape[1], self.where % self.shape[1]
        if self.comb is not None:
            crosses = (time[:, self.comb.symbols], frequency[:, self.comb.tones])
        else:
            both = time[:, None, symbols] * frequency[None, :, tones]
            crosses = (both.flatten(0, 1) * self.values.abs().to(time.dtype),)
        columns, shares = [], []
        for cross, own in zip(crosses, self.covariance(time, frequency), strict=True):
            values, vectors = eigh(own)
            strong = values > WEAKEST_MODE * values[-1]
            column = (cross @ vectors[:, strong]) / values[strong]
            shares.append((column.abs().square() * values[strong]).sum(-1))
            columns.append(Dense(column))
        power = time.diagonal().real[:, None] * frequency.diagonal().real
        if self.comb is not None:
            reach, inside = Kron(*columns), shares[0][:, None] * shares[1]
        else:
            reach, inside = Dense(columns[0].matrix, out_shape=self.shape), shares[0].unflatten(0, self.shape)
        return Modes(reach.like(like), (power - inside).clamp_min(0).to(like.device, like.real.dtype))


def read_pilots(resource_grid: Any) -> list[list[Pilots]]:
    """The pilots of [tx][stream].

    Raises ValueError where a stream has no non-zero pilot, or where two streams sound the same resource element:
    their channels cannot be told apart there.
    """
    pattern = resource_grid.pilot_pattern
    mask, values = pattern.mask.detach().cpu().bool(), pattern.pilots.detach().cpu()
    num_tx, num_streams, num_symbols, num_subcarriers = mask.shape
    users = torch.zeros(num_symbols * num_subcarriers, dtype=torch.int64)
    found: list[list[Pilots]] = []
    for tx in range(num_tx):
        found.append([])
        for stream in range(num_streams):
            sent = values[tx, stream]
            where = mask[tx, stream].flatten().nonzero()[:, 0][sent.abs() > 0]
            sent = sent[sent.abs() > 0]
            if where.numel() == 0:
                raise ValueError(f"resource_grid: expected pilots for every stream; tx {tx} stream {stream} has none")
            users[where] += 1
            comb = _comb(where, sent, num_subcarriers)
            found[-1].append(Pilots(where, sent, comb, (num_symbols, num_subcarriers)))
    if bool((users > 1).any()):
        symbol, tone = divmod(int((users > 1).nonzero()[0, 0]), num_subcarriers)
        raise ValueError(
            f"resource_grid: expected streams with pilots of their own; {int(users.max())} streams share "
            f"symbol {symbol}, subcarrier {tone}"
        )
    return found


def _comb(where: Tensor, values: Tensor, num_subcarriers: int) -> Comb | None:
    symbols, tones = (where // num_subcarriers).unique(), (where % num_subcarriers).unique()
    power = values.abs().square()
    even = bool((power - power.mean()).abs().max() <= SAME_POWER * power.mean())
    return Comb(symbols, tones) if even and symbols.numel() * tones.numel() == where.numel() else None
