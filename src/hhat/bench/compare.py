"""Two groups of cells held against each other: on the blocks that both have, realisation by realisation."""

import math
from collections.abc import Sequence

from torch import Tensor

from hhat.bench.metrics import Value, mean_interval, pooled_interval_db
from hhat.bench.summary import SQUARED, Group, summarise

PAIRED_DB = {
    "nmse_db": ("ratio",),
    "holdout_nmse_db": ("holdout_ratio",),
    "renoise_nmse_db": ("renoise_ratio",),
    "nmse_pooled_db": ("ratio", "energy"),
}
"""Compared realisation by realisation, and the kept arrays that this takes"""


def measured(metric: str, cells: Group) -> Value | None:
    """One metric of a group; None where it does not apply or where `score` did not keep what it is made of."""
    try:
        return summarise(metric, cells)
    except (KeyError, ValueError):
        return None


def common(groups: Sequence[Group]) -> list[Group]:
    """The groups cut down to the blocks that all of them have, e.g. where their rows stopped at different counts.

    Blocks come in the order of their numbers, so that realisations of two groups stand side by side.
    """
    shared = set.intersection(*({cell.block for cell in cells.cells} for cells in groups)) if groups else set()
    return [
        Group(
            cells.method,
            cells.point,
            cells.seed,
            sorted((cell for cell in cells.cells if cell.block in shared), key=lambda cell: cell.block),
        )
        for cells in groups
    ]


def difference(metric: str, first: Group, second: Group) -> Value | None:
    """metric(first) - metric(second) on their common blocks with its 95 % interval; None where it does not apply.

    nmse_db, nmse_pooled_db: 10 log10 of the ratio of mean errors, paired by realisation (delta method for a ratio),
    so that what both methods find hard cancels. Means of kept arrays, and roots of means: paired, Student's t (roots by
    the delta method). Everything else: the two intervals as if independent.
    """
    first, second = common([first, second])
    if not first.cells:
        return None
    if metric in PAIRED_DB and first.has(*PAIRED_DB[metric]) and second.has(*PAIRED_DB[metric]):
        above, below = _ratios(metric, first), _ratios(metric, second)
        if above.shape == below.shape:
            return pooled_interval_db(above, below)
    if first.has(metric) and second.has(metric):
        a, b = first.array(metric), second.array(metric)
        if a.shape == b.shape:
            return mean_interval(a - b)
    if first.has(metric + SQUARED) and second.has(metric + SQUARED):
        a, b = first.array(metric + SQUARED).double(), second.array(metric + SQUARED).double()
        if a.shape == b.shape:
            return mean_interval(_about_root(a) - _about_root(b))
    a, b = measured(metric, first), measured(metric, second)
    if a is None or b is None:
        return None
    half = math.hypot(a.high - a.low, b.high - b.low) / 2
    middle = a.value - b.value
    return Value(middle, middle - half, middle + half, min(a.n, b.n))


def _ratios(metric: str, cells: Group) -> Tensor:
    """Squared error over energy per realisation, or over nothing where strong realisations are to weigh more."""
    ratio = cells.array(PAIRED_DB[metric][0]).double()
    return ratio * cells.array("energy").double() if metric == "nmse_pooled_db" else ratio


def _about_root(squared: Tensor) -> Tensor:
    """Numbers whose mean is the root of the mean of `squared`, and whose spread is that of it to first order."""
    mean = squared.mean()
    return (mean + squared) / (2 * mean.sqrt())
