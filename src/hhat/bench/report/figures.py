"""What all drawings share: the library, how a method looks in every one of them, and layouts by width."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hhat.bench.report.words import Number

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
except ImportError as missing:
    raise ValueError("reports need plotly, which is not installed: pip install hhat[report]") from missing

# Okabe and Ito 2008 without its yellow, then three more that stay apart in grey; told apart by mark and dash as well
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C510A", "#7F7F7F", "#5E3C99")
MARKS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "pentagon", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot")
INK, SOFT, LINE = "#1b1f24", "#4d5661", "#e3e7eb"
FONT = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
DIGITS = 5
"""Significant digits of drawn numbers: enough for the eye, and the page stays small"""

WIDTHS = (330, 520, 680, 1100)
"""Pixels for which every drawing is laid out: a phone, half a desktop, a sheet of paper, a desktop"""
PANEL_WIDTH, MOST_COLUMNS = 300, 4
PANEL_HEIGHT, SINGLE_HEIGHT = 250, 320
NARROW, FEW_TICKS = 4.0, 5
"""Values within a factor of 4 get evenly spaced ticks on a logarithmic axis, about 5 of them"""
DECADE = 10.0
LEGEND_ROW, LETTER, SWATCH = 21, 7.3, 48
TOP, BOTTOM, LEFT, RIGHT, GAP, TITLE = 12, 58, 66, 26, 20, 26

AXIS = {
    "automargin": True,
    "showline": True,
    "linecolor": SOFT,
    "gridcolor": LINE,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": SOFT,
    "tickangle": 0,
    "exponentformat": "power",
    "title": {"standoff": 8},
}
BAR = {"thickness": 1.2, "width": 4}
LOOK = {
    "layout": {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "hoverlabel": {"font": {"family": FONT, "size": 13}},
        "xaxis": AXIS,
        "yaxis": AXIS,
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "tracegroupgap": 0,
            "bgcolor": "rgba(255,255,255,0)",
            "entrywidthmode": "pixels",
        },
    },
    "data": {kind: [{"error_x": BAR, "error_y": BAR}] for kind in ("scatter", "bar")},
}
"""What all drawings look like: the template that the page gives to each of them, written into it once"""

Names = Mapping[str, int]
"""Method label -> its place in the order of declaration, which fixes its style"""


@dataclass(frozen=True)
class Drawing:
    """A figure, what it shows in words for those who do not see it, and its layout at each of WIDTHS."""

    figure: go.Figure
    says: str
    layouts: tuple[dict[str, Any], ...]

    def data(self) -> str:
        """JSON that may stand inside a script element: `</script>` cannot appear in it."""
        drawn = json.loads(self.figure.to_json())
        drawn["layout"].pop("template", None)
        layouts = [{"width": width, "set": each} for width, each in zip(WIDTHS, self.layouts, strict=True)]
        whole = {"data": drawn["data"], "layout": drawn["layout"], "layouts": layouts}
        return json.dumps(_rounded(whole), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def script() -> str:
    """The drawing library's source."""
    return get_plotlyjs()


def style(place: int) -> dict[str, Any]:
    """Mark and line of the method declared at this place; the second ten have open marks."""
    turn, at = divmod(place, len(COLOURS))
    colour = COLOURS[at]
    symbol = MARKS[at] + ("-open" if turn % 2 else "")
    dash = DASHES[(place // 3 + turn) % len(DASHES)]
    marker: dict[str, Any] = {"symbol": symbol, "color": colour, "size": 8}
    if turn % 2:
        marker["line"] = {"color": colour, "width": 1.5}
    return {"marker": marker, "line": {"color": colour, "dash": dash, "width": 2}}


def axis(title: str, log: bool = False, values: Sequence[Number] = ()) -> dict[str, Any]:
    """Settings of one axis beyond LOOK. values: what it shows; on a logarithmic axis they choose the ticks."""
    return {"title": {"text": title}} | ({"type": "log", **log_ticks(values)} if log else {})


def log_ticks(values: Sequence[Number]) -> dict[str, Any]:
    """Decades, with 2 and 5 between where there are few of them, written as plain numbers."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if not positive:
        return {}
    low, high = math.floor(math.log10(min(positive)) - 0.05), math.ceil(math.log10(max(positive)) + 0.05)
    steps = (1, 2, 5) if high - low <= 2 else (1,) if high - low > 3 else (1, 3)
    if max(positive) < NARROW * min(positive):
        return {"tickvals": (even := _even(min(positive), max(positive))), "ticktext": [f"{tick:g}" for tick in even]}
    if max(positive) < DECADE * min(positive):
        steps = (1, 1.5, 2, 3, 5, 7)
    every = max(1, (high - low) // 7)
    ticks = [step * 10.0**power for power in range(low, high + 1, every) for step in steps]
    plain = -4 <= low and high <= 4
    said = [f"{tick:g}" if plain else f"10<sup>{round(math.log10(tick))}</sup>" for tick in ticks]
    if not plain and len(steps) > 1:
        said = [f"{tick:.0e}".replace("e-0", "e−").replace("e+0", "e") for tick in ticks]
    return {"tickvals": ticks, "ticktext": said}


def bars(
    values: Sequence[Number], lows: Sequence[Number | None], highs: Sequence[Number | None]
) -> dict[str, Any] | None:
    """Intervals for plotly; a number without one gets no bar, and None is returned where none has one."""
    ends = list(zip(values, lows, highs, strict=True))
    if all(low is None or high is None for _, low, high in ends):
        return None
    up = [0.0 if low is None or high is None else float(high - value) for value, low, high in ends]
    down = [0.0 if low is None or high is None else float(value - low) for value, low, high in ends]
    even = all(math.isclose(a, b, rel_tol=10.0**-DIGITS) for a, b in zip(up, down, strict=True))
    return {"array": up} if even else {"array": up, "arrayminus": down}


def layouts(labels: Sequence[str], count: int = 1, height: int = 0) -> tuple[dict[str, Any], ...]:
    """The layout of `count` panels under a legend of these labels, for each of WIDTHS; keys are paths for plotly."""
    return tuple(_layout(width, labels, count, height) for width in WIDTHS)


def _layout(width: int, labels: Sequence[str], count: int, height: int) -> dict[str, Any]:
    inner = width - LEFT - RIGHT
    entry = SWATCH + LETTER * max(map(len, labels), default=0)
    legend = LEGEND_ROW * math.ceil(len(labels) / max(1, int(inner // entry))) if labels else 0
    columns = 1 if count == 1 else min(count, MOST_COLUMNS, max(1, width // PANEL_WIDTH))
    lines = math.ceil(count / columns)
    columns = math.ceil(count / lines)
    panel = height or (SINGLE_HEIGHT if count == 1 else PANEL_HEIGHT)
    title = TITLE if count > 1 else 0
    top, pitch = TOP + legend + title, panel + BOTTOM + title
    area = lines * pitch - BOTTOM - title
    found: dict[str, Any] = {"height": top + area + BOTTOM}
    found["margin"] = {"l": LEFT, "r": RIGHT, "t": top, "b": BOTTOM}
    if labels:
        found["legend.entrywidth"] = entry - SWATCH + 6
    if count == 1:
        return found
    share = (inner - (columns - 1) * GAP) / columns / inner
    for number in range(count):
        line, column = divmod(number, columns)
        name = "" if number == 0 else str(number + 1)
        left, ceiling = column * (share + GAP / inner), 1 - line * pitch / area
        found[f"xaxis{name}.domain"] = [left, min(1.0, left + share)]
        found[f"yaxis{name}.domain"] = [max(0.0, ceiling - panel / area), ceiling]
        found[f"yaxis{name}.showticklabels"] = column == 0
    return found


def _even(low: Number, high: Number) -> list[float]:
    """Round numbers from below the least value to above the greatest."""
    span = max(high - low, 0.02 * high)
    power = 10.0 ** math.floor(math.log10(span / FEW_TICKS))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each * FEW_TICKS >= span)
    first, last = math.floor(low / step) - 1, math.ceil(high / step) + 1
    return [round(step * place, 12) for place in range(max(first, 1), last + 1)]


def _rounded(thing: Any) -> Any:
    if isinstance(thing, float):
        return float(f"{thing:.{DIGITS}g}") if math.isfinite(thing) else None
    if isinstance(thing, list):
        return [_rounded(each) for each in thing]
    return {key: _rounded(value) for key, value in thing.items()} if isinstance(thing, dict) else thing
