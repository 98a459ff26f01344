"""The usual operators as what a radio engineer calls them: pilots, combiner, selection.

    Y = W H X + N        combiner W (beam rx_ant), pilots X (tx_ant pilot)
    Y = W H diag(p) + N  pilots p (subcarrier); with a selection only the subcarriers it lists are seen
    hopping pilots, taken off: y (rx_ant symbol subcarrier), a selection (symbol subcarrier) of other tones per symbol

Either side may be absent: without a combiner every antenna is seen, without an antenna axis there is one antenna.
Whatever does not fit these names is stored as a tree of operators (operators.py).
"""

from torch import Tensor

from hhat.io.operators import Arrays
from hhat.ops import Compose, Dense, Diagonal, Hops, Identity, Kron, LinearOp, Select

Named = tuple[Arrays, tuple[str, ...]]
"""Arrays by name and the names of y's event axes."""

ANTENNA_AXES = ("rx_ant", "beam")
CHANNEL_AXES = ("rx_ant", "tx_ant", "subcarrier")
HOPPING = ("symbol", "subcarrier")


def named_factors(op: LinearOp, axes: tuple[str, ...], batch: tuple[str, ...]) -> Named | None:
    """Named arrays that rebuild exactly this operator, or None where its structure has no such names."""
    if len(axes) == 1:
        return _right(op, axes[0], batch)
    if axes == ("rx_ant", *HOPPING):
        if isinstance(op, Kron) and isinstance(op.left, Identity) and isinstance(op.right, Hops):
            return {"selection": (op.right.index, HOPPING)}, axes
        return None
    if not isinstance(op, Kron) or axes not in (("rx_ant", "tx_ant"), ("rx_ant", "subcarrier")):
        return None
    right = _right(op.right, axes[1], batch)
    if right is None:
        return None
    if isinstance(op.left, Identity) and len(op.left.shape) == 1:
        return right[0], ("rx_ant", *right[1])
    if _plain_matrix(op.left):
        return right[0] | {"combiner": (_matrix(op.left), (*_names(op.left, batch), "beam", "rx_ant"))}, (
            "beam",
            *right[1],
        )
    return None


def _right(op: LinearOp, axis: str, batch: tuple[str, ...]) -> Named | None:
    lead = _names(op, batch)
    if axis == "tx_ant" and _plain_matrix(op):
        return {"pilots": (_matrix(op).mT, (*lead, "tx_ant", "pilot"))}, ("pilot",)
    if axis != "subcarrier":
        return None
    if isinstance(op, Diagonal) and op.ndim == 1:
        return {"pilots": (op.values, (*lead, "subcarrier"))}, ("subcarrier",)
    if isinstance(op, Select):
        return {"selection": (op.index, ("subcarrier",))}, ("subcarrier",)
    if isinstance(op, Compose) and isinstance(op.inner, Select) and isinstance(op.outer, Diagonal):
        pilots = _right(op.outer, axis, batch)
        return pilots and (pilots[0] | {"selection": (op.inner.index, ("subcarrier",))}, ("subcarrier",))
    return None


def build(
    event: tuple[str, ...],
    shape: tuple[int, ...],
    pilots: Tensor | None,
    combiner: Tensor | None,
    selection: tuple[Tensor, int] | None,
) -> tuple[LinearOp, tuple[str, ...]]:
    """The operator of named factors and the names of the channel's axes.

    event, shape: names and sizes of y's event axes; the other arguments as read, batch axes first.
    ValueError (one line, naming the factor) where they do not fit together.
    """
    if pilots is None and combiner is None and selection is None:
        unknown = [name for name in event if name not in CHANNEL_AXES]
        if unknown:
            raise ValueError(f"pilots: missing; y has the axis '{unknown[0]}', which is not one of the channel's")
        return Identity(shape), event
    antenna = event[0] if event[0] in ANTENNA_AXES else None
    rest, sizes = (event[1:], shape[1:]) if antenna else (event, shape)
    if rest == HOPPING:
        return _hopping(event, shape, pilots, selection), event
    if len(rest) != 1:
        raise ValueError(f"y: expected the axes (rx_ant or beam, pilot or subcarrier), got {' '.join(event)}")
    right, name = _right_side(rest[0], sizes[0], pilots, selection)
    if antenna is None:
        if combiner is not None:
            raise ValueError("combiner: y has no beam axis")
        return right, (name,)
    if (combiner is not None) != (antenna == "beam"):
        raise ValueError("combiner: a combiner and a beam axis of y go together, one of them is missing")
    if combiner is None:
        return Kron(Identity((shape[0],)), right), ("rx_ant", name)
    if combiner.shape[-2] != shape[0]:
        raise ValueError(f"combiner: has {combiner.shape[-2]} beams, y has {shape[0]}")
    return Kron(Dense(combiner), right), ("rx_ant", name)


def _hopping(
    event: tuple[str, ...], shape: tuple[int, ...], pilots: Tensor | None, selection: tuple[Tensor, int] | None
) -> LinearOp:
    if event[0] != "rx_ant" or pilots is not None:
        got = "pilots" if event[0] == "rx_ant" else " ".join(event)
        raise ValueError(f"y: expected the axes (rx_ant symbol subcarrier) with the pilots taken off, got {got}")
    if selection is None or selection[0].shape != shape[1:]:
        got = "none" if selection is None else f"shape {tuple(selection[0].shape)}"
        raise ValueError(
            f"selection: expected the tones of each symbol, shape {shape[1:]} (symbol subcarrier), got {got}"
        )
    return Kron(Identity(shape[:1]), Hops(*selection))


def _right_side(
    axis: str, size: int, pilots: Tensor | None, selection: tuple[Tensor, int] | None
) -> tuple[LinearOp, str]:
    if axis == "pilot":
        if pilots is None:
            raise ValueError("pilots: missing; y has a pilot axis")
        if selection is not None:
            raise ValueError("selection: chooses subcarriers, y has a pilot axis")
        if pilots.shape[-1] != size:
            raise ValueError(
                f"pilots: shape (tx_ant {pilots.shape[-2]}, pilot {pilots.shape[-1]}), y has {size} pilots"
            )
        return Dense(pilots.mT), "tx_ant"
    if axis not in ("subcarrier", "tx_ant"):
        raise ValueError(f"y: expected the axis pilot or subcarrier behind the antennas, got {axis}")
    if pilots is not None and pilots.shape[-1] != size:
        raise ValueError(f"pilots: {pilots.shape[-1]} subcarriers, y has {size}")
    if selection is None:
        return (Identity((size,)) if pilots is None else Diagonal(pilots)), axis
    index, total = selection
    if index.shape != (size,):
        raise ValueError(f"selection: lists {tuple(index.shape)} subcarriers, y has {size}")
    select = Select(index, total)
    return (select if pilots is None else Compose(Diagonal(pilots), select)), axis


def _names(op: LinearOp, batch: tuple[str, ...]) -> tuple[str, ...]:
    return batch[len(batch) - len(op.batch_shape) :]


def _plain_matrix(op: LinearOp) -> bool:
    return type(op) is Dense and len(op.in_shape) == len(op.out_shape) == 1 and not op.unitary


def _matrix(op: LinearOp) -> Tensor:
    assert isinstance(op, Dense)
    return op.matrix
