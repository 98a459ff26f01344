"""Antennas that no unit reported: what those of the others say of them, and how sure that is."""

import math

import torch
from torch import Tensor

from hhat.decentralized.split import antennas_of
from hhat.ops.base import LinearOp
from hhat.ops.dense import Dense
from hhat.ops.elementary import Adjoint, Fourier
from hhat.ops.posterior import posterior
from hhat.ops.structured import Kron
from hhat.types import Gaussian

FINER = 2
"""Angles per DFT bin. With 2 the two ends of the array are uncorrelated, with 4 nothing changes any more."""


def beyond(
    heard: Gaussian,
    kept: tuple[int, ...],
    num_unit: int,
    prior_var: Tensor,
    seen: LinearOp,
    basis: LinearOp | None = None,
) -> Gaussian:
    """Belief on h = basis(x), all antennas, from z = seen(x) on those of the units in `kept`, z = mean + CN(0, var).

    heard: mean (item, antennas of the kept units, ..), var broadcasts to it; prior_var (item, *coefficients) of
    x ~ CN(0, prior_var); seen, basis: antennas first, by the same operator; no basis: h = z

    Where that operator is a DFT, two things that it pretends are undone. It joins the array to a ring, and would have
    the antennas of one end tell of the other: the variance of a bin is spread evenly over the angles within,
    FINER to a bin. And it takes the array for stationary, which near waves are not: nothing is claimed of antennas
    with heard ones on one side only, whose variance stays what it was without pilots.
    Cost: one system per delay, as large as the antennas that are left.
    """
    shape, num = tuple(seen.out_shape), len(seen.in_shape)
    there, view = antennas_of(kept, num_unit, shape), basis or seen
    prior_var = prior_var.expand(len(heard.mean), *seen.in_shape)
    is_line = _is_dft(seen)
    if is_line:
        seen, view = _finer(seen, heard.mean), _finer(view, heard.mean)
        prior_var = prior_var.repeat_interleave(FINER, -num)
    zero = Gaussian(heard.mean.new_zeros(()), prior_var)
    found = posterior(there @ seen, heard.mean, zero, heard.var, view).belief
    var = found.var.expand(found.mean.shape)
    if is_line:
        outside = _outside(kept, num_unit, shape[0]).to(var.device)[(..., *(None,) * (len(shape) - 1))]
        var = torch.where(outside, view.squares.apply(prior_var), var)
    return Gaussian(found.mean, var)


def with_unheard(
    belief: Gaussian,
    silent: Tensor,
    heard: Gaussian,
    prior_var: Tensor,
    mix: LinearOp,
    basis: LinearOp | None,
) -> Gaussian:
    """`belief` (*batch, *event) with `beyond` in its place where a unit was never heard, batch item by item's pattern.

    silent (*batch, unit): in every round; heard: what each unit said last, mean (*batch, *z), var (*batch, unit, 1, ..)
    """
    batch, num_unit, shape = silent.shape[:-1], silent.shape[-1], tuple(mix.out_shape)
    flat, some = silent.reshape(-1, num_unit), (silent.any(-1) & ~silent.all(-1)).reshape(-1)
    if not bool(some.any()):
        return belief
    event = belief.mean.shape[len(batch) :]
    mean, var = (
        belief.mean.reshape(-1, *event).clone(),
        belief.var.expand(belief.mean.shape).reshape(-1, *event).clone(),
    )
    z, noise = heard.mean.reshape(-1, *shape), heard.var.reshape(len(flat), *heard.var.shape[len(batch) :])
    # one run of antennas per unit
    noise = noise.squeeze(2).repeat_interleave(shape[0] // num_unit, 1)
    prior_var = prior_var.expand(*batch, *mix.in_shape).reshape(-1, *mix.in_shape)
    for pattern in flat[some].unique(dim=0):
        rows = ((flat == pattern).all(-1) & some).nonzero()[:, 0]
        kept = tuple((~pattern).nonzero()[:, 0].tolist())
        pick = antennas_of(kept, num_unit, shape)
        there = Gaussian(pick.apply(z[rows]), pick.apply(noise[rows].expand(len(rows), *shape)))
        found = beyond(there, kept, num_unit, prior_var[rows], mix, basis)
        mean[rows], var[rows] = found.mean, found.var
    return Gaussian(mean.reshape(belief.mean.shape), var.reshape(belief.mean.shape))


def _left(op: LinearOp) -> LinearOp:
    return op.left if isinstance(op, Kron) else op


def _is_dft(op: LinearOp) -> bool:
    left = _left(op)
    return isinstance(left.op if isinstance(left, Adjoint) else left, Fourier)


def _finer(op: LinearOp, like: Tensor) -> LinearOp:
    """FINER directions in place of each of the DFT's, of as much power together."""
    left = _left(op)
    size = left.in_shape[0]
    waves = left.apply(torch.eye(size, dtype=torch.complex128)).mT
    offset = (torch.arange(FINER, dtype=torch.float64) + 0.5) / FINER - 0.5
    cycles = torch.arange(size, dtype=torch.float64)[:, None] * offset / size
    ramps = torch.polar(torch.full_like(cycles, 1 / math.sqrt(FINER)), 2 * math.pi * cycles)
    dense = Dense((waves[:, :, None] * ramps[:, None]).flatten(1).to(like))
    return Kron(dense, op.right) if isinstance(op, Kron) else dense


def _outside(kept: tuple[int, ...], num_unit: int, num_ant: int) -> Tensor:
    """Antennas before the first heard one and behind the last, (ant,) bool."""
    unit = torch.arange(num_ant) // (num_ant // num_unit)
    return (unit < min(kept)) | (unit > max(kept))
