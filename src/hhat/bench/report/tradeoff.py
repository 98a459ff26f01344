"""One metric against another over all points of a run: error against the bits it took, say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hhat.bench.report import page
from hhat.bench.report.at_point import front
from hhat.bench.report.figures import SOFT, Drawing, Names, axis, bars, go, layouts, style
from hhat.bench.report.panels import Panel
from hhat.bench.report.words import LESS, Number, digits, good_end, listed, logarithmic, measured, spell_point, title_of
from hhat.bench.summary import Row, has_number

BESIDE = 0.08
"""Room left and right of the outermost values, in decades or as a share of the axis"""


@dataclass(frozen=True)
class Placed:
    """A row of the metric, and where it lies: the value of the other metric of this method at this point."""

    row: Row
    x: Number


def placed(rows: Sequence[Row], metric: str, over: str) -> list[Placed]:
    """The rows of `metric` that have a number, each with that of `over`; in their order."""
    at = {
        (row["method"], repr(sorted(row["point"].items()))): row["value"]
        for row in rows
        if row["metric"] == over and has_number(row)
    }
    found = []
    for row in rows:
        x = at.get((row["method"], repr(sorted(row["point"].items()))))
        if row["metric"] == metric and has_number(row) and x is not None:
            found.append(Placed(row, x))
    return found


def unbeaten(marks: Sequence[Placed]) -> list[Placed]:
    """Those that no other beats in both, less being better in both."""
    by_row = {id(mark.row): mark for mark in marks}
    return [by_row[id(row)] for row in front([mark.row for mark in marks], lambda row: by_row[id(row)].x)]


def drawing(rows: Sequence[Row], metric: str, over: str, split: Sequence[Panel], names: Names) -> Drawing | None:
    """A line per method and panel of points, all in one drawing; the step line is the front that nothing beats.

    None where fewer than two rows have both numbers, or where less of the metric is not better.
    """
    marks = placed(rows, metric, over)
    if len(marks) < 2 or good_end(metric) != LESS:
        return None
    figure, best, xs = go.Figure(), unbeaten(marks), [mark.x for mark in marks]
    log = logarithmic(over) and min(xs) > 0
    room = BESIDE * (1 if log else max(xs) - min(xs) or 1)
    low, high = (math.log10(min(xs)), math.log10(max(xs))) if log else (min(xs), max(xs))
    span = [low - room, high + room]
    edge = {
        "x": [mark.x for mark in best] + [10 ** span[1] if log else span[1]],
        "y": [mark.row["value"] for mark in best] + [best[-1].row["value"]],
    }
    line = {"color": SOFT, "width": 1, "shape": "hv"}
    figure.add_trace(go.Scatter(mode="lines", line=line, showlegend=False, hoverinfo="skip", name="front", **edge))
    labels = sorted({mark.row["method"] for mark in marks}, key=names.__getitem__)
    for label in labels:
        first = True
        for panel in split:
            mine = [mark for mark in marks if mark.row["method"] == label and panel.holds(mark.row["point"])]
            if mine:
                figure.add_trace(_line(sorted(mine, key=lambda mark: mark.x), label, names, first))
                first = False
    across = axis(title_of(over), log, xs) | {"range": span}
    figure.update_layout(xaxis=across, yaxis=axis(title_of(metric)))
    steps = [f"{_named(mark)} ({digits(mark.x)}, {measured(mark.row)})" for mark in best]
    says = f"{title_of(metric)} against {title_of(over)} of {', '.join(labels)}. Not beaten in both: {listed(steps)}."
    return Drawing(figure, says, layouts(labels))


def table(rows: Sequence[Row], metric: str, over: str) -> str:
    """The numbers behind the drawing, from the least of `over` on."""
    marks = sorted(placed(rows, metric, over), key=lambda mark: mark.x)
    on = {id(mark.row) for mark in unbeaten(marks)}
    body = [
        [
            mark.row["method"],
            spell_point(mark.row["point"]),
            digits(mark.x, over),
            measured(mark.row),
            "yes" if id(mark.row) in on else "no",
        ]
        for mark in marks
    ]
    head = ["method", "at", title_of(over), title_of(metric), "on the line"]
    caption = (
        f"{title_of(metric)} against {title_of(over)}, with 95 % intervals. On the line: nothing beats it in both."
    )
    return page.table(head, body, caption, words=(0, 1))


def _line(marks: Sequence[Placed], label: str, names: Names, first: bool) -> go.Scatter:
    rows = [mark.row for mark in marks]
    return go.Scatter(
        x=[mark.x for mark in marks],
        y=[row["value"] for row in rows],
        text=[spell_point(row["point"]) for row in rows],
        name=label,
        legendgroup=label,
        showlegend=first,
        mode="lines+markers" if len(marks) > 1 else "markers",
        error_y=bars(*([row[name] for row in rows] for name in ("value", "low", "high"))),
        hovertemplate="%{text}: %{x}, %{y}",
        **style(names[label]),
    )


def _named(mark: Placed) -> str:
    return f"{mark.row['method']} at {spell_point(mark.row['point'])}" if mark.row["point"] else mark.row["method"]
