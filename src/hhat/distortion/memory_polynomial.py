"""Generalised memory polynomials over neighbouring chains, widely linear, fitted by least squares."""

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_TAPS, NUM_ORDERS = 4, 3
"""Symbols of memory, and powers |s|^0, |s|^2, |s|^4"""
CHAINS_AT_ONCE, SEQUENCES_AT_ONCE = 8, 500
RIDGE = 1e-6
"""Of columns of unit norm"""


@dataclass(frozen=True, eq=False)
class MemoryPolynomial:
    """out_pn = sum over functions of  a_f f(in)_pn + b_f conj(f(in)_pn)

    functions: for each of NUM_TAPS delays and each order k of NUM_ORDERS, with s the chain's own signal and s_j that of
    a neighbour: s |s|^2k, and per neighbour s_j |s|^2k and s |s_j|^2k (k = 0: s_j |s_j|^2, since s is there already)
    coefficients: (rx_ant, 2 functions, 2) real: of real and imaginary parts of f, towards those of the output, which
                  is the same as a and b. 240 per inner chain, 144 at an end: 15,168 for 64
    No cross-terms in time: signal and envelope have one delay. Source: Morgan et al. 2006, with the neighbours of Xu &
    Liu 2026.
    """

    coefficients: Tensor

    def __post_init__(self):
        wanted = (2 * NUM_TAPS * NUM_ORDERS * 5, 2)
        if self.coefficients.ndim != 3 or tuple(self.coefficients.shape[1:]) != wanted:
            have = tuple(self.coefficients.shape)
            raise ValueError(f"memory polynomial: coefficients: expected (rx_ant, {wanted[0]}, 2), got {have}")

    @property
    def num_net(self) -> int:
        return self.coefficients.shape[0]

    def take(self, index: Tensor) -> "MemoryPolynomial":
        return MemoryPolynomial(self.coefficients[index])

    def __call__(self, signal: Tensor) -> Tensor:
        """(*batch, pilot, rx_ant) -> the same."""
        if signal.ndim < 2 or not signal.is_complex() or signal.shape[-1] != self.num_net:
            have = f"{signal.dtype} {tuple(signal.shape)}"
            raise ValueError(f"memory polynomial: expected complex (*batch, pilot, {self.num_net}), got {have}")
        flat = signal.reshape(-1, *signal.shape[-2:])
        coefficients = self.coefficients.to(signal.real.dtype)
        found = []
        for some in flat.split(SEQUENCES_AT_ONCE):
            parts = [
                functions(some, chains) @ coefficients[chains]
                for chains in torch.arange(self.num_net).split(CHAINS_AT_ONCE)
            ]
            out = torch.view_as_complex(torch.cat(parts).contiguous())
            found.append(out.unflatten(1, some.shape[:2]).movedim(0, -1))
        return torch.cat(found).reshape(signal.shape)

    @classmethod
    def fit(cls, first: Tensor, last: Tensor, ridge: float = RIDGE) -> "MemoryPolynomial":
        """Least squares from `first` to `last`, (sequence, pilot, rx_ant), Gram matrices summed over blocks of
        sequences, in double precision."""
        num_rx_ant, solved = first.shape[-1], []
        for chains in torch.arange(num_rx_ant).split(CHAINS_AT_ONCE):
            gram, cross = torch.zeros(()), torch.zeros(())
            for x, y in zip(first.split(SEQUENCES_AT_ONCE), last.split(SEQUENCES_AT_ONCE), strict=True):
                f = functions(x.to(torch.complex128), chains)
                wanted = torch.view_as_real(y[..., chains].to(torch.complex128).movedim(-1, 0).flatten(1))
                gram, cross = gram + f.mT @ f, cross + f.mT @ wanted
            norm = gram.diagonal(dim1=1, dim2=2).sqrt()
            # functions of a neighbour that is not there are 0 everywhere, and so are their coefficients
            norm = torch.where(norm > 0, norm, 1.0)
            scaled = gram / norm[:, :, None] / norm[:, None, :]
            eye = torch.eye(gram.shape[-1], dtype=gram.dtype)
            solved.append(torch.linalg.solve(scaled + ridge * eye, cross / norm[:, :, None]) / norm[:, :, None])
        return cls(torch.cat(solved).to(first.real.dtype))


def functions(signal: Tensor, chains: Tensor) -> Tensor:
    """(sequence, pilot, rx_ant) -> (chain, sequence pilot, 2 functions): real parts, then imaginary parts."""
    padded = torch.nn.functional.pad(signal, (1, 1))
    own, sides = padded[..., chains + 1], (padded[..., chains], padded[..., chains + 2])
    found = []
    for order in range(NUM_ORDERS):
        loud = own.abs().square() ** order
        found.append(own * loud)
        for side in sides:
            other = side.abs().square()
            found += [side * loud, own * other**order if order else side * other]
    stacked = torch.stack(found, -1)
    pilots = signal.shape[-2]
    delayed = [torch.nn.functional.pad(stacked, (0, 0, 0, 0, tap, 0))[..., :pilots, :, :] for tap in range(NUM_TAPS)]
    whole = torch.cat(delayed, -1).movedim(-2, 0).flatten(1, 2)
    return torch.cat([whole.real, whole.imag], -1)
