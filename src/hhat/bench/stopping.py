"""When a row has blocks enough: sequential stopping by the width of its interval.

A row is one method at one point. The rule looks at blocks 0, 1, 2 ... in order and stops at the first one at which the
interval is narrow enough, so that what counts depends neither on the order in which cells ended nor on further blocks
that another run left in the store.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hhat.bench.summary import Group, summarise, unfolded


@dataclass(frozen=True)
class Stopping:
    """Run blocks until the 95 % interval of `metric` is at most +-half_width.

    half_width: (high - low) / 2 in the metric's unit, e.g. 0.1 for +-0.1 dB
    min_blocks: blocks before the first look. Looking early and often makes the interval too short. With 3 blocks of 20
                channels a nominal 95 % is 93 to 95 % where the error's power is spread by a chi-square or by up to
                2.6 dB (log-normal). A spread of 4.3 dB leaves 91 % at +-1 dB and 93 % at +-0.5 dB, one of 6 dB 88 and
                93 %: the large errors have not come yet (tests/statistical/test_stopping.py)
    Raises ValueError for a half_width that is not above 0.
    """

    half_width: float
    metric: str = "nmse_db"
    min_blocks: int = 3

    def __post_init__(self) -> None:
        if not self.half_width > 0 or self.min_blocks < 1:
            got = (self.half_width, self.min_blocks)
            raise ValueError(f"stopping: expected half_width > 0 and min_blocks >= 1, got {got}")

    def met(self, cells: Group) -> bool:
        """Is the interval of these blocks narrow enough?"""
        if len(cells.cells) < self.min_blocks:
            return False
        value = summarise(self.metric, cells)
        # what does not apply to a row, or is not a number, never ends it: all its blocks are run
        return value is not None and value.high - value.low <= 2 * self.half_width

    def counted(self, cells: Group) -> Group:
        """The row cut where the rule stops it: the first blocks at which it is met, else all."""
        ordered = sorted(cells.cells, key=lambda cell: cell.block)
        # the rule looks at blocks in order: behind a gap it has not looked yet
        ordered = [cell for place, cell in enumerate(ordered) if cell.block == place]
        for count in range(self.min_blocks, len(ordered)):
            head = replace(cells, cells=ordered[:count])
            if self.met(head):
                return head
        return replace(cells, cells=ordered)


def rule_of(recipe: Mapping[str, Any]) -> Stopping | None:
    """The stopping rule of a stored run; None where all blocks were to be run."""
    stored = recipe.get("until")
    return Stopping(**{key: value for key, value in stored.items() if key != "class"}) if stored else None


def counted_groups(groups: Iterable[Group], rule: Stopping | None) -> list[Group]:
    """Each row up to where the rule ends it, `unfolded`; blocks that another run added behind do not count. All of them
    without a rule."""
    cut = [cells if rule is None else rule.counted(cells) for cells in groups]
    return [part for cells in cut if cells.cells for part in unfolded(cells)]
