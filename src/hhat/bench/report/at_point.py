"""All methods at one point: error against time, calibration of the variances, and time alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hhat.bench.report.figures import INK, SOFT, Drawing, Names, axis, bars, go, layouts, style
from hhat.bench.report.words import Number, digits, listed, measured, time_of, title_of
from hhat.bench.summary import Group, Row, has_number

MS = 1e3
BAR_ROW = 30


def front(rows: Sequence[Row], price: Callable[[Row], Number] = lambda row: row["seconds"]) -> list[Row]:
    """The rows that no other beats in both price (time) and error (Pareto), from the cheapest to the most accurate."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda row: (price(row), row["value"])):
        if not found or row["value"] < found[-1]["value"]:
            found.append(row)
    return found


def cost(rows: Sequence[Row], metric: str, names: Names) -> Drawing | None:
    """Error against time per estimate, a mark per method; the step line is the front that no other method beats."""
    shown = [row for row in rows if row["metric"] == metric and has_number(row) and row["seconds"]]
    if len(shown) < 2:
        return None
    figure, best = go.Figure(), front(shown)
    times = [MS * row["seconds"] for row in shown]
    edge = {
        "x": [MS * row["seconds"] for row in best] + [max(times) * 1.3],
        "y": [row["value"] for row in best] + [best[-1]["value"]],
    }
    line = {"color": SOFT, "width": 1, "shape": "hv"}
    figure.add_trace(go.Scatter(mode="lines", line=line, showlegend=False, hoverinfo="skip", name="front", **edge))
    for row in shown:
        interval = bars([row["value"]], [row["low"]], [row["high"]])
        look = style(names[row["method"]])["marker"] | {"size": 11}
        mark = {"x": [MS * row["seconds"]], "y": [row["value"]], "name": row["method"], "marker": look}
        figure.add_trace(go.Scatter(mode="markers", error_y=interval, hovertemplate="%{x} ms: %{y}", **mark))
    span = [math.log10(min(times)) - 0.15, math.log10(max(times)) + 0.15]
    across = axis("time per estimate in ms", True, [10**end for end in span]) | {"range": span}
    figure.update_layout(xaxis=across, yaxis=axis(title_of(metric)))
    steps = [f"{row['method']} ({time_of(row['seconds'])}, {measured(row)})" for row in best]
    says = f"{title_of(metric)} against time per estimate of {len(shown)} methods. Not beaten in both: {listed(steps)}."
    return Drawing(figure, says, layouts([row["method"] for row in shown]))


def tenths(groups: Sequence[Group]) -> dict[str, list[list[float]]]:
    """Method -> [reported variance, squared error], each of ten tenths, averaged over blocks."""
    return {cells.method: cells.array("deciles").double().mean(0).tolist() for cells in groups if cells.has("deciles")}


def deciles(groups: Sequence[Group], names: Names) -> Drawing | None:
    """Squared error against reported variance, per tenth of the entries; honest is the diagonal."""
    pairs = tenths(groups)
    if not pairs:
        return None
    figure, ends = go.Figure(), [value for pair in pairs.values() for side in pair for value in side if value > 0]
    for method, (reported, squared) in pairs.items():
        line = {"x": reported, "y": squared, "name": method, **style(names[method])}
        figure.add_trace(go.Scatter(mode="lines+markers", hovertemplate="%{x}: %{y}", **line))
    span = [min(ends) / 2, max(ends) * 2] if ends else []
    honest = {"color": INK, "width": 1, "dash": "dot"}
    figure.add_trace(
        go.Scatter(x=span, y=span, mode="lines", line=honest, showlegend=False, hoverinfo="skip", name="honest")
    )
    across, up = axis("reported variance / mean |h|²", True, span), axis("squared error / mean |h|²", True, span)
    figure.update_layout(xaxis=across, yaxis=up)
    off = {method: _furthest(*pair) for method, pair in pairs.items()}
    said = ", ".join(f"{method} {digits(factor)}" for method, factor in off.items() if factor)
    says = "Squared error against reported variance in tenths of the entries; equal on the diagonal. "
    says += f"Ratio of error to variance in the tenth that lies furthest off: {said}."
    return Drawing(figure, says, layouts(list(pairs)))


def times(seconds: Mapping[str, float], names: Names) -> Drawing:
    """Wall time of one estimate per method on a logarithmic axis."""
    figure, values = go.Figure(), [MS * value for value in seconds.values()]
    for method, value in seconds.items():
        dot: dict[str, Any] = {"x": [MS * value], "y": [method], "text": [time_of(value)], "name": method}
        look = style(names[method])["marker"] | {"size": 10}
        dot |= {"textposition": "middle right", "cliponaxis": False, "showlegend": False, "marker": look}
        figure.add_trace(go.Scatter(mode="markers+text", hoverinfo="skip", **dot))
    span = [math.log10(min(values)) - 0.2, math.log10(max(values)) + 0.2]
    span[1] += 0.25 * (span[1] - span[0])  # room for the last time in words
    across = axis("time per estimate in ms", True, [10**end for end in span]) | {"range": span}
    figure.update_layout(xaxis=across, yaxis=axis(""))
    order = {"type": "category", "categoryarray": list(seconds), "categoryorder": "array", "ticks": ""}
    figure.update_yaxes(**order, range=[len(seconds) - 0.5, -0.5])
    quickest = min(seconds, key=seconds.__getitem__)
    says = f"Time per estimate of {len(seconds)} methods. Least: {quickest}, {time_of(seconds[quickest])}."
    return Drawing(figure, says, layouts([], height=20 + BAR_ROW * len(seconds)))


def _furthest(reported: Sequence[float], squared: Sequence[float]) -> float:
    """The ratio that lies furthest from 1 on a logarithmic scale; 0 where none is defined."""
    ratios = [high / low for low, high in zip(reported, squared, strict=True) if low > 0 and high > 0]
    return max(ratios, key=lambda ratio: abs(math.log(ratio)), default=0.0)
