"""Which axes of x an operator mixes: along the others y falls apart into independent problems."""

from hhat.ops.base import LinearOp
from hhat.ops.compose import Compose
from hhat.ops.elementary import Diagonal
from hhat.ops.structured import BlockDiag, Kron


def coupled_axes(op: LinearOp) -> tuple[int, ...]:
    """Event axes of x (negative) whose entries share samples of y in white noise.

    A unitary factor mixes nothing, since it moves onto y; neither does a diagonal; blocks are apart.
    """
    count = len(op.in_shape)
    if op.is_unitary or isinstance(op, Diagonal):
        return ()
    if isinstance(op, Kron):
        right = len(op.right.in_shape)
        return tuple(axis - right for axis in coupled_axes(op.left)) + coupled_axes(op.right)
    if isinstance(op, BlockDiag):
        return coupled_axes(op.op)
    if isinstance(op, Compose) and op.outer.is_unitary:
        return coupled_axes(op.inner)
    return tuple(range(-count, 0))
