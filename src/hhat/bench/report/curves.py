"""One metric over the points of a run: curves, or dots and bars where there is nothing to run over."""

from collections.abc import Sequence
from typing import Any

from hhat.bench.report.figures import INK, SOFT, Drawing, Names, axis, bars, go, layouts, style
from hhat.bench.report.panels import Panel
from hhat.bench.report.words import Number, best_of, good_end, logarithmic, measured, spell_point, title_of
from hhat.bench.summary import Row, has_number

BAR_ROW, BAR_FRAME = 30, 20
"""Height in pixels of one method in a plot of dots or bars, and of what frames them"""
MOST_SAID = 6
"""Panels whose best method is named in the words for those who do not see the figure"""
LEADS = {"less": "least", "more": "greatest", "one": "nearest to 1"}


def drawing(rows: Sequence[Row], metric: str, panels: Sequence[Panel], names: Names) -> Drawing | None:
    """The metric in every panel; None where no method has a number.

    One line per method with its 95 % interval; a panel of a single point shows methods side by side. Where all panels
    are single points, methods stand one below the other instead: bars for a quantity that starts at 0, else dots.
    """
    shown = [row for row in rows if row["metric"] == metric and has_number(row)]
    kept = [panel for panel in panels if any(panel.holds(row["point"]) for row in shown)]
    if not kept:
        return None
    labels = sorted({row["method"] for row in shown}, key=names.__getitem__)
    flat = not any(panel.x for panel in kept)
    ends = _ends(shown)  # all panels share the axis of the metric
    figure = go.Figure()
    for number, panel in enumerate(kept):
        mine = [row for row in shown if panel.holds(row["point"])]
        place = "" if number == 0 else str(number + 1)
        if flat:
            _beside(figure, mine, metric, labels, names, place, ends)
        else:
            _curves(figure, mine, metric, panel, labels, names, place, ends)
        if len(kept) > 1:
            _head(figure, panel.title or f"over {title_of(panel.x)}", place)
        if metric == "variance_ratio":
            _honest(figure, place, upright=flat)
    if not flat:
        _legend_of(figure, labels, names)
    height = BAR_FRAME + BAR_ROW * len(labels) if flat else 0
    spaces = layouts([] if flat else labels, len(kept), height)
    if flat:
        spaces = tuple(_roomy(layout, max(map(len, labels))) for layout in spaces)
    return Drawing(figure, _says(shown, metric, kept, labels), spaces)


def _curves(
    figure: go.Figure, rows: Sequence[Row], metric: str, panel: Panel, labels: Sequence[str], names: Names,
    place: str, ends: Sequence[Number],
) -> None:  # fmt: skip
    xs = sorted({row["point"][panel.x] for row in rows}) if panel.x else []
    for label in labels:
        line = [row for row in rows if row["method"] == label]
        if panel.x:
            line.sort(key=lambda row: row["point"][panel.x])
        at = [row["point"][panel.x] for row in line] if panel.x else [labels.index(label)] * len(line)
        figure.add_trace(
            go.Scatter(
                x=at,
                y=[row["value"] for row in line],
                name=label,
                legendgroup=label,
                showlegend=False,
                mode="lines+markers" if len(line) > 1 else "markers",
                error_y=_bars(line),
                xaxis=f"x{place}",
                yaxis=f"y{place}",
                hovertemplate="%{x}: %{y}",
                **style(names[label]),
            )
        )
    across = axis(title_of(panel.x), logarithmic(panel.x, xs), xs) if panel.x else axis("methods, in this order")
    if not panel.x:
        across |= {"showticklabels": False, "ticks": "", "showgrid": False, "range": [-0.7, len(labels) - 0.3]}
    elif len(xs) <= 10 and logarithmic(panel.x, xs):
        # a sweep over sizes has few values: name these, not the decades
        across |= {"tickvals": xs, "ticktext": [f"{x:g}" for x in xs]}
    up = axis(title_of(metric), logarithmic(metric), ends) | {"anchor": f"x{place}"}
    if place:
        up |= {"matches": "y", "title": {"text": ""}}
    figure.update_layout({f"xaxis{place}": across | {"anchor": f"y{place}"}, f"yaxis{place}": up})


def _beside(
    figure: go.Figure, rows: Sequence[Row], metric: str, labels: Sequence[str], names: Names, place: str,
    ends: Sequence[Number],
) -> None:  # fmt: skip
    """Methods one below the other; in plotly the category axis runs upwards, so it is turned round."""
    from_zero = not metric.endswith("_db") and not logarithmic(metric)
    for row in rows:
        look = style(names[row["method"]])
        common = {"x": [row["value"]], "y": [row["method"]], "name": row["method"], "error_x": _bars([row])}
        common |= {"xaxis": f"x{place}", "yaxis": f"y{place}", "showlegend": False}
        common["hovertemplate"] = "%{y}: %{x}"
        if from_zero:
            figure.add_trace(go.Bar(orientation="h", marker={"color": look["marker"]["color"]}, width=0.55, **common))
        else:
            figure.add_trace(go.Scatter(mode="markers", marker=look["marker"] | {"size": 10}, **common))
    across = axis(title_of(metric), logarithmic(metric), ends)
    up = axis("") | {"type": "category", "categoryarray": list(labels), "categoryorder": "array", "ticks": ""}
    up |= {"range": [len(labels) - 0.5, -0.5], "anchor": f"x{place}"}
    across |= {"anchor": f"y{place}"} | ({"matches": "x"} if place else {})
    figure.update_layout({f"xaxis{place}": across, f"yaxis{place}": up})


def _ends(rows: Sequence[Row]) -> list[Number]:
    """All that an axis has to show: values and intervals."""
    return [row[name] for row in rows for name in ("value", "low", "high") if row[name] is not None]


def _roomy(layout: dict[str, Any], longest: int) -> dict[str, Any]:
    """The left margin that names of methods need, since every panel's share of the width is fixed."""
    margin = dict(layout["margin"])
    margin["l"] = max(margin["l"], round(7.5 * longest) + 16)
    return {**layout, "margin": margin}


def _legend_of(figure: go.Figure, labels: Sequence[str], names: Names) -> None:
    """The first curve of each method speaks for all of them: a click hides the method in every panel."""
    for label in labels:
        next(trace for trace in figure.data if trace.name == label).showlegend = True
    figure.data = sorted(figure.data, key=lambda trace: not trace.showlegend)


def _head(figure: go.Figure, words: str, place: str) -> None:
    figure.add_annotation(
        text=words,
        showarrow=False,
        xref=f"x{place} domain",
        yref=f"y{place} domain",
        x=0,
        xanchor="left",
        y=1,
        yanchor="bottom",
        yshift=3,
        font={"size": 13, "color": INK},
    )


def _honest(figure: go.Figure, place: str, upright: bool) -> None:
    ends = {"x0": 1, "x1": 1, "y0": 0, "y1": 1} if upright else {"x0": 0, "x1": 1, "y0": 1, "y1": 1}
    x, y = (f"x{place}", f"y{place} domain") if upright else (f"x{place} domain", f"y{place}")
    figure.add_shape(type="line", xref=x, yref=y, line={"color": SOFT, "width": 1, "dash": "dot"}, **ends)


def _bars(line: Sequence[Row]) -> dict[str, Any] | None:
    return bars(*([row[name] for row in line] for name in ("value", "low", "high")))


def _says(rows: Sequence[Row], metric: str, panels: Sequence[Panel], labels: Sequence[str]) -> str:
    over = sorted({title_of(panel.x) for panel in panels if panel.x})
    said = [f"{title_of(metric)}{' over ' + ' and '.join(over) if over else ''} of {', '.join(labels)}"]
    for panel in panels[:MOST_SAID]:
        mine = [row for row in rows if panel.holds(row["point"])]
        if panel.x:
            last = max(row["point"][panel.x] for row in mine)
            mine = [row for row in mine if row["point"][panel.x] == last]
        best = best_of(mine, metric)
        where = spell_point(mine[0]["point"])
        if best is not None:
            lead = LEADS[good_end(metric)]
            said.append(f"At {where} {lead}: {best['method']}, {measured(best)}")
        else:
            low, high = (end(mine, key=lambda row: row["value"]) for end in (min, max))
            said.append(f"At {where} from {measured(low)} ({low['method']}) to {measured(high)} ({high['method']})")
    if len(panels) > MOST_SAID:
        said.append(f"{len(panels) - MOST_SAID} more panels")
    return ". ".join(said) + "."
