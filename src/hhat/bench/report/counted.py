"""Whether a stored run is finished: a row that met its stopping rule needs no more."""

from collections.abc import Sequence

from hhat.bench.report.words import count
from hhat.bench.stopping import counted_groups, rule_of
from hhat.bench.store import Run
from hhat.bench.summary import Group


def unfinished(run: Run, groups: Sequence[Group]) -> str:
    """What is missing in words, e.g. "13 of 18 cells"; empty for a finished run.

    groups: all stored cells of the run, as they are
    """
    labels = list(run.recipe["methods"])
    place = {key: at for at, key in enumerate(run.cells)}
    # cells are listed point by point, of each point block by block, of each block method by method
    starts = sorted({place[cell.key] // len(labels) - cell.block for cells in groups for cell in cells.cells})
    ends = [*starts[1:], len(run.cells) // len(labels)]
    blocks = {start: min(run.recipe["blocks"], end - start) for start, end in zip(starts, ends, strict=True)}
    rule = rule_of(run.recipe)
    ended = 0
    for cells in groups:
        start = place[cells.cells[0].key] // len(labels) - cells.cells[0].block
        whole = len(cells.cells) >= blocks[start]
        ended += whole or bool(rule and any(rule.met(head) for head in counted_groups([cells], rule)))
    left = len(run.cells) // len(labels) - sum(blocks.values())
    points = len(starts) + -(-left // run.recipe["blocks"])
    if ended == points * len(labels):
        return ""
    there = sum(len(cells.cells) for cells in groups)
    if rule is None:
        return f"{there} of {len(run.cells)} cells"
    rows = count(points * len(labels), "row")
    return f"{ended} of {rows} (a row is one method at one point), {there} of at most {len(run.cells)} cells"
