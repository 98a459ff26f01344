"""Taking an array apart into the units that share it, and putting it together again."""

import math

import torch
from torch import Tensor

from hhat.ops.base import LinearOp, cached
from hhat.ops.dense import Dense
from hhat.ops.elementary import Identity, Select
from hhat.ops.structured import Kron
from hhat.types import Observation, Shape


def matrix_blocks(matrix: Tensor, num_unit: int) -> Tensor | None:
    """(*batch, rows, ant) as the diagonal blocks (*batch, unit, rows / unit, ant / unit); None where anything is not
    zero outside of them: units would share an antenna."""
    rows, ant = matrix.shape[-2:]
    cut = matrix.unflatten(-1, (num_unit, ant // num_unit)).unflatten(-3, (num_unit, rows // num_unit))
    blocks = cut.diagonal(dim1=-4, dim2=-2).movedim(-1, -3).contiguous()
    return blocks if int(torch.count_nonzero(blocks)) == int(torch.count_nonzero(matrix)) else None


def unit_count(op: LinearOp) -> int:
    """Units that the operator shows: the most diagonal blocks of several antennas that its first factor falls into;
    1 where nothing tells units apart."""

    def make() -> int:
        left = op.left if isinstance(op, Kron) else op
        if not isinstance(left, Dense) or len(left.in_shape) != 1 or len(left.out_shape) != 1:
            return 1
        rows, ant = left.matrix.shape[-2:]
        for count in range(math.gcd(rows, ant), 1, -1):
            if math.gcd(rows, ant) % count == 0 and ant // count > 1 and matrix_blocks(left.matrix, count) is not None:
                return count
        return 1

    return cached(op, ("unit count",), make)


def unit_operators(op: LinearOp, num_unit: int) -> tuple[LinearOp, ...]:
    """What each unit sees of its own run of antennas: y = (y_1, .., y_M) along the first axis of y, y_m = A_m h_m.

    op: `Dense` or `Identity` over the antennas, alone or as the first factor of a `Kron`; with one unit any operator.
    Raises ValueError for other operators, sizes that `num_unit` does not divide, and units that share an antenna.
    """
    if num_unit == 1:
        return (op,)
    return cached(op, ("unit operators", num_unit), lambda: _unit_operators(op, num_unit))


def _unit_operators(op: LinearOp, num_unit: int) -> tuple[LinearOp, ...]:
    if isinstance(op, Identity) and len(op.shape) > 1:
        op = Kron(Identity(op.shape[:1]), Identity(op.shape[1:]))
    left = op.left if isinstance(op, Kron) else op
    wanted = f"decentralised: expected Kron(Dense, ..) of {num_unit} diagonal blocks"
    if num_unit < 1 or not isinstance(left, Dense | Identity) or len(left.in_shape) * len(left.out_shape) != 1:
        raise ValueError(f"{wanted}, got {type(op).__name__} with {type(left).__name__} over the antennas")
    sizes = (left.out_shape[0], left.in_shape[0])
    if any(size % num_unit for size in sizes):
        raise ValueError(f"{wanted}, got {sizes[0]} rows and {sizes[1]} antennas, which {num_unit} does not divide")
    if isinstance(left, Identity):
        lefts: tuple[LinearOp, ...] = (Identity((sizes[1] // num_unit,)),) * num_unit
    else:
        blocks = matrix_blocks(left.matrix, num_unit)
        if blocks is None:
            raise ValueError(f"{wanted}, got entries that are not zero outside of them: units share an antenna")
        lefts = tuple(Dense(blocks.select(-3, unit).contiguous()) for unit in range(num_unit))
    return tuple(Kron(part, op.right) if isinstance(op, Kron) else part for part in lefts)


def without_units(op: LinearOp, num_unit: int, kept: tuple[int, ...]) -> LinearOp:
    """The operator with the rows of these units alone; all antennas stay."""
    if len(kept) == num_unit:
        return op

    def make() -> LinearOp:
        rows = Select(_run(kept, num_unit, op.out_shape[0]), op.out_shape[0])
        rest = op.out_shape[1:]
        return (Kron(rows, Identity(rest)) if rest else rows) @ op

    return cached(op, ("without", num_unit, kept), make)


def antennas_of(kept: tuple[int, ...], num_unit: int, shape: Shape) -> LinearOp:
    """From the whole channel to the antennas of these units."""
    if len(kept) == num_unit:
        return Identity(shape)
    pick = Select(_run(kept, num_unit, shape[0]), shape[0])
    return Kron(pick, Identity(shape[1:])) if shape[1:] else pick


def _run(kept: tuple[int, ...], num_unit: int, size: int) -> Tensor:
    return torch.arange(size).unflatten(0, (num_unit, -1))[list(kept)].flatten()


def pieces(x: Tensor, num_unit: int, num_event: int) -> tuple[Tensor, ...]:
    """Each unit's run along the first event axis, in memory of its own; shared by all where that axis has size 1."""
    if x.ndim < num_event or x.shape[-num_event] == 1:
        return (x,) * num_unit
    return tuple(part.clone(memory_format=torch.contiguous_format) for part in x.chunk(num_unit, -num_event))


def joined(parts: list[Tensor], num_event: int) -> Tensor:
    """The units' runs along the first event axis as one: no averaging, since no antenna is seen twice."""
    return torch.cat(parts, -num_event)


def split(obs: Observation, num_unit: int) -> tuple[Observation, ...]:
    """What each unit observes; ValueError as `unit_operators`."""
    count = len(obs.op.out_shape)
    ops = unit_operators(obs.op, num_unit)  # type: ignore[arg-type]
    y = pieces(obs.y, num_unit, count)
    noise = (None,) * num_unit if obs.noise_var is None else pieces(obs.noise_var, num_unit, count)
    return tuple(Observation(*item, obs.axes) for item in zip(y, ops, noise, strict=True))
