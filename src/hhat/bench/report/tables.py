"""Tables of the page: all methods at one point, and the numbers behind each figure."""

from collections.abc import Mapping, Sequence
from typing import Any

from hhat.bench.compare import PAIRED_DB, difference
from hhat.bench.metrics import Value
from hhat.bench.report import page
from hhat.bench.report.at_point import MS, front
from hhat.bench.report.panels import Panel
from hhat.bench.report.words import (
    best_of,
    count,
    digits,
    interval,
    measured,
    spell_point,
    spell_value,
    time_of,
    title_of,
)
from hhat.bench.summary import Group, Row, has_number

STRONGEST = 5


def at_point(rows: Sequence[Row], groups: Sequence[Group], metrics: Sequence[str], caption: str) -> str:
    """One line per method at one point: its metrics, its lead over the best, time, counts and statuses."""
    best = {metric: best_of(rows, metric) for metric in metrics}
    against, leads = _leads(rows, groups, metrics)
    several = len({len(cells.cells) for cells in groups}) > 1
    head = ["method", *map(title_of, metrics)]
    if leads:
        head.append(f"against {against}{' in dB' if metrics[0].endswith('_db') else ''}")
    head += ["time per estimate", *(["blocks"] if several else []), "n", "status"]
    body = []
    for cells in groups:
        line: list[str] = [cells.method]
        for metric in metrics:
            found = [row for row in rows if row["method"] == cells.method and row["metric"] == metric]
            line.append(_number(found[0], _equals(found[0], best[metric])) if found else "none")
        if leads:
            line.append(_lead(cells.method, against, leads.get(cells.method), metrics[0]))
        bad = {name: number for name, number in cells.status().items() if name != "OK"}
        status = ", ".join(f"{number} {name}" for name, number in bad.items()) or "all OK"
        time = time_of(cells.seconds())
        if cells.is_bound:
            status, time = "a bound", "none"
        line += [time, *([str(len(cells.cells))] if several else [])]
        mine = [row["n"] for row in rows if row["method"] == cells.method]
        body.append([*line, str(mine[0] if mine else sum(cell.items for cell in cells.cells)), status])
    said = [caption, "In brackets: 95 % intervals."]
    if any(best.values()):
        said.append("Bold: the best of a column.")
    if leads:
        paired = metrics[0] in PAIRED_DB or all(cells.has(metrics[0]) for cells in groups)
        how = "realisation by realisation" if paired else "with an interval as if both were independent"
        what = title_of(metrics[0]).removesuffix(" in dB")
        said.append(f"Against {against}: {what} minus that of {against}, on the blocks that both have, {how}.")
    return page.table(head, body, " ".join(said))


def stopped_apart(groups: Sequence[Group]) -> str:
    """A sentence where rows at this point ended at different numbers of blocks; else empty."""
    blocks = [len(cells.cells) for cells in groups]
    if len(set(blocks)) < 2:
        return ""
    return (
        f"Methods ended at different numbers of blocks here, {min(blocks)} to {max(blocks)}: each number stands on the "
        "method's own blocks, the column of differences on the blocks that both methods have."
    )


def of_metric(rows: Sequence[Row], metric: str, panels: Sequence[Panel]) -> str:
    """The numbers behind a figure of one metric: a table per panel, or one for all single points."""
    mine = [row for row in rows if row["metric"] == metric]
    swept = [panel for panel in panels if panel.x]
    tables = [_swept(mine, metric, panel) for panel in swept]
    single = [point for panel in panels if not panel.x for point in panel.points]
    if single:
        tables.append(_grid(mine, metric, single, [spell_point(point) for point in single], title_of(metric)))
    return "\n".join(filter(None, tables))


def of_cost(rows: Sequence[Row], metric: str) -> str:
    shown = [row for row in rows if row["metric"] == metric and has_number(row) and row["seconds"]]
    unbeaten = [row["method"] for row in front(shown)]
    shown.sort(key=lambda row: row["seconds"])
    body = [
        [row["method"], f"{MS * row['seconds']:.3g}", _number(row), "yes" if row["method"] in unbeaten else "no"]
        for row in shown
    ]
    head = ["method", "time per estimate in ms", title_of(metric), "on the line"]
    return page.table(head, body, "Error and time, the fastest first. On the line: no other method beats it in both.")


def of_tenths(pairs: Mapping[str, Sequence[Sequence[float]]]) -> str:
    body = []
    for method, (reported, squared) in pairs.items():
        ratios = [high / low if low > 0 else None for low, high in zip(reported, squared, strict=True)]
        body.append([method, *("none" if ratio is None else digits(ratio) for ratio in ratios)])
    head = ["method", *(str(tenth) for tenth in range(1, 11))]
    caption = "Squared error / reported variance in each tenth of the entries, from the least to the largest variance."
    return page.table(head, body, caption)


def of_times(seconds: Mapping[str, float]) -> str:
    return page.table(["method", "time per estimate"], [[m, time_of(s)] for m, s in seconds.items()], "Time.")


def of_map(power: Any, strongest: float, x: Sequence[float], x_title: str, y_title: str) -> str:
    """The strongest coefficients of a picture, against the strongest of the first."""
    flat = power.flatten()
    places = flat.argsort(descending=True)[:STRONGEST].tolist()
    body = []
    for place in places:
        row, column = divmod(place, power.shape[1])
        level = digits(float(flat[place]) - strongest, "_db")
        body.append([str(row), f"{x[column]:.3g}".replace("-", "−"), level])
    head = [y_title or "row", x_title, "dB"]
    return page.table(head, body, f"The {count(len(body), 'strongest coefficient')}.", words=())


def counts(groups: Sequence[Group]) -> str:
    """Blocks, realisations and time of every row of a run."""
    body = [
        [
            cells.method,
            spell_point(cells.point),
            str(len(cells.cells)),
            str(sum(cell.items for cell in cells.cells)),
            "none" if cells.is_bound else time_of(cells.seconds()),
        ]
        for cells in groups
    ]
    head = ["method", "point", "blocks", "draws", "time per estimate"]
    return page.table(
        head,
        body,
        "What stands behind every row; a draw may hold several realisations.",
        words=(0, 1),
    )


def _swept(rows: Sequence[Row], metric: str, panel: Panel) -> str:
    points = sorted(panel.points, key=lambda point: point[panel.x])
    heads = [spell_value(panel.x, point[panel.x]) for point in points]
    where = f"{panel.title}: " if panel.title else ""
    return _grid(rows, metric, points, heads, f"{where}{title_of(metric)} over {title_of(panel.x)}")


def _grid(
    rows: Sequence[Row], metric: str, points: Sequence[Mapping[str, Any]], heads: Sequence[str], caption: str
) -> str:
    here = {(row["method"], points.index(row["point"])): row for row in rows if row["point"] in points}
    methods = list(dict.fromkeys(method for method, _ in here))
    if not methods:
        return ""
    best = {at: best_of([row for (_, place), row in here.items() if place == at], metric) for at in range(len(points))}
    body = []
    for method in methods:
        line: list[str] = [method]
        for at in range(len(points)):
            row = here.get((method, at))
            line.append(_number(row, _equals(row, best[at])) if row is not None else "none")
        body.append(line)
    return page.table(["method", *heads], body, f"{caption}, with 95 % intervals.")


def _leads(
    rows: Sequence[Row], groups: Sequence[Group], metrics: Sequence[str]
) -> tuple[str, dict[str, Value]]:  # fmt: skip
    """The method with the best first metric, and how far each other's lies from it; nothing where none is the best."""
    best = best_of(rows, metrics[0]) if metrics else None
    if best is None or len(groups) < 2:
        return "", {}
    reference = next(cells for cells in groups if cells.method == best["method"])
    found = {}
    for cells in groups:
        value = difference(metrics[0], cells, reference) if cells is not reference else None
        if value is not None:
            found[cells.method] = value
    return best["method"], found


def _lead(method: str, against: str, value: Value | None, metric: str) -> str:
    if method == against:
        return "reference"
    if value is None:
        return "none"
    said = digits(value.value, metric)
    sign = "+" if value.value > 0 and said.strip("0.") else ""
    return page.measured(sign + said, interval(value.low, value.high, metric))


def _equals(row: Row, best: Row | None) -> bool:
    return best is not None and row["value"] == best["value"]


def _number(row: Row, best: bool = False) -> str:
    if row["value"] is None:
        return measured(row)
    metric = row["metric"]
    return page.measured(digits(row["value"], metric), interval(row["low"], row["high"], metric), best)
