"""`Rows`: some items of a batch, taken out to be worked on and put back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.base import LinearOp


@dataclass(frozen=True, eq=False)
class Rows:
    """Entries along the first batch axis, chosen apart for each place on the other ones: (fewer, *other batch axes).

    Only where the operator is the same along that axis (`movable`), so that it serves whatever is taken; else all items
    stay. index None: all of them. Where places have different numbers of items, the shorter ones are filled up with
    items that were not asked for.
    """

    index: Tensor | None
    movable: bool

    @classmethod
    def all(cls, op: LinearOp, batch: tuple[int, ...] | torch.Size) -> "Rows":
        return cls(None, len(batch) > 0 and (len(op.batch_shape) < len(batch) or op.batch_shape[0] == 1))

    def of(self, wanted: Tensor) -> "Rows":
        """Those of the items at work that are wanted, a bool each (at least one per place), as rows of these."""
        if not self.movable:
            return Rows(None, False)
        most = max(1, int(wanted.sum(0).max()))
        if most == len(wanted):
            return Rows(None, True)
        return Rows(wanted.to(torch.int8).argsort(dim=0, descending=True, stable=True)[:most], True)

    def then(self, fewer: "Rows") -> "Rows":
        """The rows of `fewer`, which counts in these, counted in the whole batch."""
        if fewer.index is None:
            return self
        return fewer if self.index is None else Rows(fewer.take(self.index), True)

    def take(self, x: Tensor) -> Tensor:
        return x if self.index is None else x.gather(0, self._like(x))

    def put(self, whole: Tensor, part: Tensor) -> Tensor:
        """`whole` with the items at work replaced; it is not changed."""
        return part if self.index is None else whole.scatter(0, self._like(part), part)

    def _like(self, x: Tensor) -> Tensor:
        assert self.index is not None
        index = self.index.reshape(*self.index.shape, *(1,) * (x.ndim - self.index.ndim))
        return index.expand(len(self.index), *x.shape[1:])
