"""The signal in front of receive chains that distort: exact for the linearised model, all correlations along chains kept.

Everything here is real: a chain's symbols are stacked as (re, im) symbol by symbol, (*batch, chain, 2 pilot).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.distortion.banded import Banded
from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights


class Linear(NamedTuple):
    """Distorted = output + sum_k blocks_k (signal of chain n - 1 + k, minus the one it was taken at)

    output (batch, chain, 2 pilot); blocks (batch, chain, 3, 2 pilot, 2 pilot): by the signal of the left neighbour, of
    the chain itself and of the right one; zero where there is none. trace: of the forward pass
    """

    output: Tensor
    blocks: Tensor
    trace: unit.Trace


class Factors(NamedTuple):
    """What is known of each chain's symbols apart from the distorted ones, chains apart, in information form:
    precision (batch, chain, 2 pilot, 2 pilot) and shift (batch, chain, 2 pilot); both 0 where nothing is."""

    precision: Tensor
    shift: Tensor


@dataclass(frozen=True, eq=False)
class Inverted:
    """Belief on the undistorted signal: mean (batch, chain, 2 pilot), covariance of each chain's symbols
    (batch, chain, 2 pilot, 2 pilot). signal: the mean as complex (batch, pilot, rx_ant)"""

    mean: Tensor
    covariance: Tensor

    @property
    def signal(self) -> Tensor:
        return unstacked(self.mean)

    @property
    def var(self) -> Tensor:
        """E|error|^2 per complex sample, (batch, pilot, rx_ant)."""
        parts = torch.diagonal(self.covariance, dim1=-2, dim2=-1)
        return parts.unflatten(-1, (-1, 2)).sum(-1).mT


def stacked(signal: Tensor) -> Tensor:
    """Complex (batch, pilot, rx_ant) -> (batch, chain, 2 pilot)."""
    return torch.view_as_real(signal.mT.resolve_conj().contiguous()).flatten(-2)


def unstacked(parts: Tensor) -> Tensor:
    """The inverse of `stacked`."""
    return torch.view_as_complex(parts.unflatten(-1, (-1, 2)).contiguous()).mT


def linearise(weights: RecurrentWeights, signal: Tensor) -> Linear:
    """Output and slopes of the networks at a signal (batch, pilot, rx_ant); exact slopes, by forward sensitivities.

    weights: one network per chain, shared by the batch; or, batch by batch for each chain (rx_ant x batch networks),
    one for each chain of each item.
    """
    batch, pilots, chains = signal.shape
    trace = trace_of(weights, signal)
    slopes = unit.input_jacobian(weights, trace).reshape(chains, batch, 2 * pilots, pilots, 2, 3)
    blocks = slopes.permute(1, 0, 5, 2, 3, 4).flatten(-2)
    real = signal.dtype.to_real()
    return Linear(output_of(trace, signal).to(real), blocks.to(real), trace)


def trace_of(weights: RecurrentWeights, signal: Tensor) -> unit.Trace:
    """The forward pass, with each item's own networks where there are as many."""
    batch, _, chains = signal.shape
    inputs = unit.neighbour_inputs(signal).to(weights.out.dtype)
    if weights.num_net == batch * chains and batch > 1:
        inputs = inputs.movedim(2, 1).flatten(0, 1)[:, :, None]
    elif weights.num_net != chains:
        raise ValueError(f"networks: expected {chains} or {batch * chains}, got {weights.num_net}")
    return unit.forward(weights, inputs)


def output_of(trace: unit.Trace, signal: Tensor) -> Tensor:
    """What the networks make of the signal, (batch, chain, 2 pilot)."""
    batch, pilots, chains = signal.shape
    found = trace.output
    if found.shape[0] != chains:
        found = found.reshape(chains, batch, pilots, 2).movedim(1, 2)
    return found.permute(2, 0, 1, 3).flatten(-2)


def normal_bands(blocks: Tensor, error_var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F^T D^-1 F by chains: blocks (n, n), (n, n + 1), (n, n + 2); error_var (batch, chain, 2 pilot), per real part."""
    batch, chains, _, size, _ = blocks.shape
    wide = (blocks / error_var.sqrt()[:, :, None, :, None]).transpose(2, 3).flatten(-2)
    gram = (wide.mT @ wide).unflatten(-1, (3, size)).unflatten(-3, (3, size)).transpose(-3, -2)
    own = gram[:, :, 1, 1].clone()
    own[:, :-1] += gram[:, 1:, 0, 0]
    own[:, 1:] += gram[:, :-1, 2, 2]
    one = blocks.new_zeros(batch, chains, size, size)
    one[:, :-1] = gram[:, :-1, 1, 2] + gram[:, 1:, 0, 1]
    two = blocks.new_zeros(batch, chains, size, size)
    if chains > 2:
        two[:, :-2] = gram[:, 1:-1, 0, 2]
    return own, one, two


def transposed(blocks: Tensor, x: Tensor) -> Tensor:
    """F^T x, x (batch, chain, 2 pilot)."""
    parts = (blocks.mT @ x[:, :, None, :, None])[..., 0]
    found = parts[:, :, 1].clone()
    found[:, :-1] += parts[:, 1:, 0]
    found[:, 1:] += parts[:, :-1, 2]
    return found


def forwards(blocks: Tensor, x: Tensor) -> Tensor:
    """F x."""
    none = torch.zeros_like(x[:, :1])
    beside = torch.stack([torch.cat([none, x[:, :-1]], 1), x, torch.cat([x[:, 1:], none], 1)], 2)
    return (blocks @ beside[..., None])[..., 0].sum(2)


def invert(
    weights: RecurrentWeights,
    distorted: Tensor,
    error_var: Tensor,
    known: Factors,
    start: Tensor,
    steps: int = 2,
) -> Inverted:
    """The signal y from distorted = f(y) + N(0, error_var) and what is known of y: `steps` Gauss-Newton steps from
    `start`, the belief at the last linearisation.

      H = F^T D^-1 F + V^-1,    mean = H^-1 [F^T D^-1 (distorted - f(y) + F y) + V^-1 mu],    covariance = H^-1

    distorted, start: complex (batch, pilot, rx_ant); error_var (batch, pilot, rx_ant) or what broadcasts to it, per
    real part, what the networks leave; known: V^-1 and V^-1 mu.
    The networks run in the precision of their weights, all else in that of `distorted`: single and double are right.
    Items without a positive definite H come out as NaN. Source: hhat (specified as the exact counterpart of Xu & Liu's
    message passing); F is banded, coupling chains at most 2 apart, so that it costs O(rx_ant pilot^3).
    """
    seen = stacked(distorted)
    spread = error_var.expand(distorted.shape).to(seen.dtype).mT.repeat_interleave(2, -1)
    now = start
    for _ in range(steps):
        local = linearise(weights, now)
        own, one, two = normal_bands(local.blocks, spread)
        system = Banded.factor((own + known.precision, one, two))
        residual = seen - local.output + forwards(local.blocks, stacked(now))
        mean = system.solve(transposed(local.blocks, residual / spread) + known.shift)
        now = unstacked(mean)
    return Inverted(mean, system.inverse_blocks())
