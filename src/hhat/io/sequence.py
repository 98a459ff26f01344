"""The slots of an open file, each read when it is asked for."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from hhat.io.assemble import at_slot, hops_between_slots, pair_of, slot_of
from hhat.io.factors import HOPPING
from hhat.io.fields import Contents
from hhat.io.layout import layout_of
from hhat.ops import Hops, Identity, Kron, Select
from hhat.types import Channel, Observation, Slot


@dataclass(frozen=True, eq=False)
class Sequence:
    """Slots 0 .. count - 1 of an open file.

    whole: of a file whose slots are the symbols of one record (kind `srs`): that record, and where it was received
           twice both receptions; it is in memory, as `read` would have it. Else a slot is read when asked for.
    """

    contents: Contents
    count: int
    whole: tuple[Slot, ...] = ()

    @property
    def hops(self) -> bool:
        """Does every slot see tones of its own?"""
        if not self.whole:
            return hops_between_slots(self.contents)
        index = self.whole[0].obs.op.right.index  # type: ignore[union-attr]
        return bool((index != index[0]).any())

    def slot(self, index: int) -> Slot:
        return _symbol(self.whole[0], index) if self.whole else slot_of(at_slot(self.contents, index))

    def pair(self, index: int) -> tuple[Slot, Slot] | None:
        """Both receptions of a slot's pilots, None where the file holds one: as `hhat.io.repeats`."""
        if "y_repeat" not in self.contents.fields:
            return None
        if self.whole:
            return _symbol(self.whole[1], index), _symbol(self.whole[2], index)
        return pair_of(at_slot(self.contents, index))

    def digest(self, index: int) -> str:
        """A hash of all that the file holds of a slot: equal for copies, and for a file that has since grown.

        Symbols of one record all have that of the record.
        """
        return self._record_digest if self.whole else _digest(at_slot(self.contents, index))

    @cached_property
    def _record_digest(self) -> str:
        return _digest(self.contents)


def sequence_of(contents: Contents) -> Sequence:
    """The slots along y's first axis, which must be `slot`; of hopping pilots without such an axis, the symbols.

    Raises InputError for other files.
    """
    layout = layout_of(contents)
    if layout.batch[:1] == ("slot",):
        return Sequence(contents, layout.shape[0])
    if layout.event[1:] != HOPPING:
        held = " ".join(layout.batch + layout.event)
        raise contents.wrong(f"expected slot as its first axis, or symbols of hopping pilots, got ({held})", "y")
    return Sequence(contents, layout.event_shape[1], (slot_of(contents), *(pair_of(contents) or ())))


def _symbol(slot: Slot, index: int) -> Slot:
    """One symbol of hopping pilots as a slot: Kron(Identity, Select), axes (rx_ant, subcarrier); of a truth, h."""
    obs = slot.obs
    op, axes = obs.op, obs.axes
    assert isinstance(op, Kron) and isinstance(op.left, Identity) and isinstance(op.right, Hops) and axes is not None
    one = Kron(op.left, Select(op.right.index[index], op.right.size))
    noise = obs.noise_var
    if noise is not None and noise.ndim > 1:
        noise = _at(noise, index)
    truth = None if slot.truth is None else Channel(_at(slot.truth.h, index))
    return replace(slot, truth=truth, obs=Observation(_at(obs.y, index), one, noise, (axes[0], axes[2])))


def _at(value: Tensor, index: int) -> Tensor:
    """A symbol of what has them on its last axis but one; of size 1: the same for all."""
    return value[..., index if value.shape[-2] > 1 else 0, :]


def _digest(contents: Contents) -> str:
    found = hashlib.sha256()
    for name, field in sorted(contents.fields.items()):
        array = np.ascontiguousarray(contents.array(name))
        found.update(f"{name} {field.axes} {array.shape} {array.dtype}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()
