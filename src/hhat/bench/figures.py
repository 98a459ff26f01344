"""Drawings of rows and groups, by plotly. Every method keeps its colour, mark and dash in all of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hhat.bench.summary import Group, Row

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
except ImportError as missing:
    raise ValueError("reports need plotly, which is not installed: pip install hhat[report]") from missing

# Okabe and Ito 2008 without its yellow, then two more that stay apart in grey; told apart by mark and dash as well
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C510A", "#7F7F7F", "#5E3C99")
MARKS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "pentagon", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot")
TITLES = {
    "snr_db": "SNR in dB",
    "nmse_db": "NMSE in dB",
    "nmse_pooled_db": "pooled NMSE in dB",
    "nmse_median_db": "median NMSE in dB",
    "variance_ratio": "squared error / reported variance",
    "channels_per_s": "channels per second",
    "batch": "channels per call",
    "threads": "threads",
}
LOGARITHMIC = ("variance_ratio", "channels_per_s", "batch")
HEIGHT, MAP_HEIGHT = 430, 330
FLOOR_DB = 40.0
"""Depth of the colour scale of a channel picture below its strongest coefficient"""

Names = Mapping[str, int]
"""Method label -> its place in the order of declaration, which fixes its style"""


def script() -> str:
    """The drawing library's source."""
    return get_plotlyjs()


def html(figure: go.Figure, name: str) -> str:
    """The drawing as a piece of a page that holds `script()` already. name: unique on the page."""
    config = {"responsive": True, "displayModeBar": False}
    return figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=name)


def title_of(name: str) -> str:
    return TITLES.get(name, name.replace("_", " "))


def curve(rows: Sequence[Row], metric: str, x: str, names: Names) -> go.Figure:
    """A metric over one key of the points, a line per method and per value of the other keys, bars for 95 %."""
    figure = go.Figure()
    lines: dict[tuple[str, str], list[Row]] = {}
    shown = [row for row in rows if row["metric"] == metric and row["value"] is not None and x in row["point"]]
    varying = _varying(shown) - {x}
    for row in shown:
        others = " ".join(f"{key}={row['point'][key]}" for key in sorted(varying) if key in row["point"])
        lines.setdefault((row["method"], others), []).append(row)
    variants = sorted({others for _, others in lines})
    for (method, others), line in lines.items():
        line.sort(key=lambda row: row["point"][x])
        style = _style(names[method], variants.index(others) if len(variants) > 1 else None)
        xs, ys = [row["point"][x] for row in line], [row["value"] for row in line]
        label = f"{method} {others}".strip()
        figure.add_trace(go.Scatter(x=xs, y=ys, name=label, mode="lines+markers", error_y=_bars(line), **style))
    if metric == "variance_ratio":
        figure.add_hline(y=1, line={"color": "#1b1f24", "width": 1})
    _dress(figure, title_of(x), title_of(metric))
    if x in LOGARITHMIC:
        # a sweep over sizes has few values: name these, not the decades
        figure.update_xaxes(type="log", tickvals=sorted({row["point"][x] for row in shown}))
    if metric in LOGARITHMIC:
        values = [row["value"] for row in shown if row["value"] > 0]
        many = bool(values) and max(values) > 10 * min(values)
        figure.update_yaxes(type="log", dtick=1 if many else None)
    return figure


def bars(rows: Sequence[Row], metric: str, names: Names) -> go.Figure:
    """A metric per method at one point, as dots with their intervals."""
    shown = [row for row in rows if row["metric"] == metric and row["value"] is not None]
    figure = go.Figure()
    for row in shown:
        style = _style(names[row["method"]])
        dot = {"x": [row["value"]], "y": [row["method"]], "error_x": _bars([row]), "marker": style["marker"]}
        figure.add_trace(go.Scatter(name=row["method"], mode="markers", showlegend=False, **dot))
    if metric == "variance_ratio":
        figure.add_vline(x=1, line={"color": "#1b1f24", "width": 1})
    _dress(figure, title_of(metric), "")
    figure.update_xaxes(type="log" if metric in LOGARITHMIC else "linear")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def time_bars(seconds: Mapping[str, float], names: Names) -> go.Figure:
    """Wall time of one estimate per method, in milliseconds on a logarithmic axis."""
    figure = go.Figure()
    spelled = [f"{1e3 * value:.3g}" for value in seconds.values()]
    colours = [COLOURS[names[method] % len(COLOURS)] for method in seconds]
    drawn = {"x": [1e3 * value for value in seconds.values()], "y": list(seconds), "marker_color": colours}
    figure.add_trace(go.Bar(orientation="h", text=spelled, textposition="outside", cliponaxis=False, **drawn))
    _dress(figure, "time per estimate in ms, one channel of a block", "")
    span = [math.log10(value) for value in drawn["x"]]
    figure.update_xaxes(type="log", range=[math.floor(min(span) - 0.2), max(span) + 0.4], dtick=1)
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def deciles(groups: Sequence[Group], names: Names) -> go.Figure:
    """Squared error against reported variance, per tenth of the entries; honest is the diagonal."""
    figure, ends = go.Figure(), []
    for cells in groups:
        if not cells.has("deciles"):
            continue
        pair = cells.array("deciles").double().mean(0)
        ends += pair[pair > 0].tolist()
        line = {"x": pair[0].tolist(), "y": pair[1].tolist(), **_style(names[cells.method])}
        figure.add_trace(go.Scatter(name=cells.method, mode="lines+markers", **line))
    if ends:
        span = [min(ends) / 2, max(ends) * 2]
        diagonal = {"color": "#1b1f24", "width": 1}
        figure.add_trace(go.Scatter(x=span, y=span, mode="lines", line=diagonal, showlegend=False, hoverinfo="skip"))
    _dress(figure, "reported variance / mean |h|²", "squared error / mean |h|²")
    figure.update_xaxes(type="log", exponentformat="power", dtick=1)
    figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    return figure


def channel_map(power_db: Tensor, strongest_db: float, x: Sequence[float], x_title: str, y_title: str) -> go.Figure:
    """One channel as powers in dB over (antenna, angle or delay); all maps of a page share one colour scale."""
    figure = go.Figure(
        go.Heatmap(
            z=[[round(value, 1) for value in line] for line in power_db.tolist()],
            x=list(x),
            zmin=strongest_db - FLOOR_DB,
            zmax=strongest_db,
            colorscale="Cividis",
            colorbar={"title": "dB", "thickness": 10},
        )
    )
    _dress(figure, x_title, y_title)
    figure.update_layout(height=MAP_HEIGHT)
    return figure


def spectrum(h: Tensor, axes: Sequence[str], subcarriers: Sequence[int] = ()) -> tuple[Tensor, list[float], str, str]:
    """Power in dB (antenna, angle or delay) of a channel, its abscissa, and the names of both axes.

    The last two axes are drawn, the first of any before. Along `subcarrier` it is the delay in samples,
    sum_k h_k exp(+j 2 pi k d / N) / sqrt(K); along antennas the angle, sum_n h_n exp(-j pi n u) / sqrt(N).
    """
    h = h.to(torch.complex128)
    while h.ndim > 2:
        h = h[0]
    h = h.reshape(-1, h.shape[-1])
    count = h.shape[-1]
    along, across = (axes[-1], axes[-2] if len(axes) > 1 else "") if axes else ("tx_ant", "rx_ant")
    if along == "subcarrier":
        index = torch.tensor(subcarriers if len(subcarriers) == count else range(count), dtype=torch.float64)
        size = int(index.max() - index.min()) + 1
        grid = torch.arange(size, dtype=torch.float64) - size // 4
        phases = 2 * math.pi * index[:, None] * grid / size
        x, title = grid.tolist(), "delay in samples of the occupied band"
    else:
        grid = 2 * torch.arange(count, dtype=torch.float64) / count - 1
        phases = -math.pi * torch.arange(count, dtype=torch.float64)[:, None] * grid
        x, title = grid.tolist(), f"u = sin(angle) at {along.replace('_', ' ')}"
    power = (h @ torch.polar(torch.ones_like(phases), phases)).abs().square() / count
    return 10 * torch.log10(power + torch.finfo(torch.float32).tiny), x, title, across.replace("_", " ")


def _style(place: int, variant: int | None = None) -> dict[str, Any]:
    dash = DASHES[(place // 3 if variant is None else variant) % len(DASHES)]
    colour = COLOURS[place % len(COLOURS)]
    return {
        "marker": {"symbol": MARKS[place % len(MARKS)], "color": colour, "size": 8},
        "line": {"color": colour, "dash": dash, "width": 2},
    }


def _bars(line: Sequence[Row]) -> dict[str, Any] | None:
    if any(row["low"] is None or row["high"] is None for row in line):
        return None
    up = [row["high"] - row["value"] for row in line]
    down = [row["value"] - row["low"] for row in line]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.2, "width": 4}


def _varying(rows: Sequence[Row]) -> set[str]:
    values: dict[str, set[Any]] = {}
    for row in rows:
        for key, value in row["point"].items():
            values.setdefault(key, set()).add(value)
    return {key for key, seen in values.items() if len(seen) > 1}


def _dress(figure: go.Figure, x_title: str, y_title: str) -> None:
    figure.update_layout(
        template="plotly_white",
        height=HEIGHT,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        xaxis={"title": x_title, "automargin": True, "linecolor": "#5b6570", "ticks": "outside"},
        yaxis={"title": y_title, "automargin": True, "linecolor": "#5b6570", "ticks": "outside"},
    )
