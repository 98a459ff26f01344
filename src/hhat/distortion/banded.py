"""Symmetric systems whose blocks couple along a line, factored once: solutions, and the inverse's blocks on the diagonal."""

from dataclasses import dataclass

import torch
from torch import Tensor

REACH = 2
"""Chains over which a block couples: each network sees both neighbours, so that two that share one are tied"""
GROUP = 2
"""Chains in one step of the recursion: with REACH of them the system is block tridiagonal, and small blocks cost least"""


@dataclass(frozen=True, eq=False)
class Banded:
    """H = L L^T by groups of GROUP chains:   S_i = D_i - W_i-1 E_i-1^T,   W_i = E_i S_i^-1

    D_i: the groups on the diagonal; E_i = H_{i+1, i}; S_i is positive definite exactly where H is.
    Cost: (chains) (size)^3, against (chains size)^3 of the dense system. Items that are not positive definite give NaN.
    Source: block Cholesky; the inverse's blocks by Takahashi, Fagan & Chin 1973 (selected inversion).
    """

    inverses: list[Tensor]
    steps: list[Tensor]
    chains: int

    @classmethod
    def factor(cls, bands: tuple[Tensor, Tensor, Tensor]) -> "Banded":
        """bands: H_{n, n}, H_{n, n+1}, H_{n, n+2}, each real (*batch, chain, size, size), of which the last one or two
        chains of the others are not looked at."""
        own, off = _grouped(bands)
        inverses, steps = [], []
        for i in range(own.shape[-3]):
            block = own[..., i, :, :]
            if i:
                before = off[..., i - 1, :, :]
                steps.append(before @ inverses[-1])
                block = block - steps[-1] @ before.mT
            root, wrong = torch.linalg.cholesky_ex(block)
            root = root.masked_fill((wrong != 0)[..., None, None], torch.nan)
            inverses.append(torch.cholesky_inverse(root))
        return cls(inverses, steps, bands[0].shape[-3])

    def solve(self, right: Tensor) -> Tensor:
        """H^-1 right, right (*batch, chain, size)."""
        size = right.shape[-1]
        groups = len(self.inverses)
        padded = torch.nn.functional.pad(right, (0, 0, 0, GROUP * groups - self.chains))
        parts = list(padded.unflatten(-2, (groups, GROUP)).flatten(-2).unbind(-2))
        for i, step in enumerate(self.steps):
            parts[i + 1] = parts[i + 1] - _times(step, parts[i])
        found = [_times(self.inverses[-1], parts[-1])]
        for i in reversed(range(groups - 1)):
            found.append(_times(self.inverses[i], parts[i]) - _times(self.steps[i].mT, found[-1]))
        return torch.stack(found[::-1], -2).unflatten(-1, (GROUP, size)).flatten(-3, -2)[..., : self.chains, :]

    def inverse_blocks(self) -> Tensor:
        """Blocks of H^-1 on the diagonal, (*batch, chain, size, size)."""
        found = [self.inverses[-1]]
        for i in reversed(range(len(self.steps))):
            found.append(self.inverses[i] + self.steps[i].mT @ found[-1] @ self.steps[i])
        size = found[0].shape[-1] // GROUP
        whole = torch.stack(found[::-1], -3).unflatten(-1, (GROUP, size)).unflatten(-3, (GROUP, size))
        own = torch.diagonal(whole, dim1=-4, dim2=-2).movedim(-1, -3)
        return own.flatten(-4, -3)[..., : self.chains, :, :]


def dense(bands: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The matrix itself, (*batch, chain size, chain size): what tests hold `Banded` against."""
    *batch, chains, size, _ = bands[0].shape
    found = bands[0].new_zeros(*batch, chains, size, chains, size)
    for apart, band in enumerate(bands):
        for n in range(chains - apart):
            found[..., n, :, n + apart, :] = band[..., n, :, :]
            found[..., n + apart, :, n, :] = band[..., n, :, :].mT
    return found.flatten(-2).flatten(-3, -2)


def _grouped(bands: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """D_i (*batch, group, 2 size, 2 size) and E_i (*batch, group - 1, ..); a chain that is missing is an identity."""
    own, one, two = bands
    *batch, chains, size, _ = own.shape
    groups = -(-chains // GROUP)
    more = GROUP * groups - chains
    if more:
        none = own.new_zeros(*batch, more, size, size)
        own = torch.cat([own, none + torch.eye(size, dtype=own.dtype, device=own.device)], -3)
        one = torch.cat([one[..., : chains - 1, :, :], none, none], -3)
        two = torch.cat([two[..., : max(chains - 2, 0), :, :], none, none, none], -3)[..., : GROUP * groups, :, :]
    first, second = own[..., 0::2, :, :], own[..., 1::2, :, :]
    tie = one[..., 0::2, :, :][..., :groups, :, :]
    whole = torch.cat([torch.cat([first, tie], -1), torch.cat([tie.mT, second], -1)], -2)
    left = groups - 1
    # rows: chains 2i + 2, 2i + 3; columns: 2i, 2i + 1
    near = one[..., 1::2, :, :][..., :left, :, :].mT
    far_first = two[..., 0::2, :, :][..., :left, :, :].mT
    far_second = two[..., 1::2, :, :][..., :left, :, :].mT
    below = torch.cat([torch.cat([far_first, near], -1), torch.cat([torch.zeros_like(near), far_second], -1)], -2)
    return whole, below


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x[..., None])[..., 0]
