"""One self-contained HTML page from a folder of runs, or from the estimates of one capture file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hhat.bench import figures, page
from hhat.bench.capture import file_groups, metrics_of
from hhat.bench.recipe import machine, spell, versions
from hhat.bench.store import Run, Store
from hhat.bench.summary import Group, Row, group, rows
from hhat.types import Estimate, Slot

REFERENCE_SNR_DB = 10.0
"""Where a sweep over SNR is read for its table, bars and pictures, or the nearest point to it"""

DEFINITIONS = {
    "nmse_db": "NMSE: 10 log10 of the mean over realisations of ‖ĥ − h‖² / ‖h‖²; interval: 95 %, delta method",
    "nmse_pooled_db": "pooled NMSE: 10 log10 of Σ‖ĥ − h‖² / Σ‖h‖²; interval: 95 %, delta method",
    "nmse_median_db": "median NMSE: 10 log10 of the median of ‖ĥ − h‖² / ‖h‖²; interval: 95 %, order statistics",
    "variance_ratio": "squared error / reported variance, both summed: 1 is honest, above 1 is too sure of itself",
    "channels_per_s": "channels per second: geometric mean over calls; interval: 95 %, Student's t on the logarithm",
}
CAPTIONS = {
    "nmse_db": "Error against the truth; bars hold 95 %.",
    "variance_ratio": "Calibration of the reported variance; 1 is honest, above 1 too sure of itself.",
    "channels_per_s": "Throughput; bars hold 95 %.",
}


def write_report(runs_dir: Path | str, out_html: Path | str) -> None:
    """Write the page of all experiments in a folder of runs: of each profile its latest run.

    Raises ValueError where there is no store, nothing in it, no plotly, or the page cannot be written.
    """
    sections, shown, latest = [], set(), {}
    with Store(runs_dir, create=False) as store:
        for run in store.runs():
            latest[run.experiment, run.profile] = run
        for number, run in enumerate(latest.values()):
            groups = group(store.cells(run.cells))
            if groups:
                sections.append(_experiment(run, groups, f"run{number}"))
                shown.add(run.experiment)
    if not sections:
        raise ValueError(f"{runs_dir}: expected finished cells, there are none; run `hhat bench` first")
    lead = f"{len(sections)} {'run' if len(sections) == 1 else 'runs'}: {', '.join(sorted(shown))}"
    _write(out_html, "hhat report", lead, sections)


def file_report(
    slot: Slot, results: Mapping[str, Estimate], seconds: Mapping[str, float], out_html: Path | str
) -> None:
    """Write the page of one capture file estimated by several methods.

    slot:    the file; scores need its truth, without it there are times, statuses and pictures
    results: method label -> estimate of the whole file
    seconds: method label -> wall time per estimate
    """
    groups = file_groups(slot, results, seconds)
    about = slot.about
    recipe = {
        "metrics": metrics_of(slot),
        "axes": slot.obs.axes or (),
        "subcarriers": about.subcarriers or (),
        **{name: getattr(about, name) for name in ("kind", "source", "snr_definition", "normalisation")},
    }
    table = rows(groups, recipe["metrics"])
    names = {label: i for i, label in enumerate(results)}
    count = groups[0].cells[0].items
    parts = [
        _table(table, groups, recipe["metrics"], "Every channel of the file, estimated by each method."),
        *_figures(table, groups, groups, recipe, names, "file"),
        page.fold("Definitions and file", [_definitions(recipe)]),
        page.fold("Machine", [_machine(groups, machine(), versions())]),
    ]
    channels = f"{count} {'channel' if count == 1 else 'channels'} of {' x '.join(map(str, slot.obs.op.in_shape))}"
    sections = [page.section("Methods compared", f"SNR: {about.snr_definition}", parts)]
    _write(out_html, "hhat: channel estimates of a capture", f"{about.kind}, {channels}; {about.source}", sections)


def _experiment(run: Run, groups: Sequence[Group], name: str) -> str:
    recipe = run.recipe
    table = rows(groups, recipe["metrics"])
    names = {label: i for i, label in enumerate(recipe["methods"])}
    point = _reference(groups)
    here = [cells for cells in groups if cells.point == point]
    done = sum(len(cells.cells) for cells in groups)
    lead = f"{run.experiment}, profile {run.profile}, seed {recipe['seed']}, run of {run.started} UTC"
    if done < len(run.cells):
        lead += f"; unfinished: {done} of {len(run.cells)} cells"
    parts = [page.paragraph(recipe["note"])] if recipe["note"] else []
    parts += [page.quote(f"Claim: {recipe['claim']}")] if recipe["claim"] else []
    at = _spell_point(point)
    parts.append(_table([row for row in table if row["point"] == point], here, recipe["metrics"], f"At {at}."))
    parts += _figures(table, groups, here, recipe, names, name, at)
    parts.append(page.fold("All points", [_all_points(table)]))
    parts.append(page.fold("Recipe", [_recipe(run)]))
    parts.append(page.fold("Machine", [_machine(groups, run.machine, recipe["versions"])]))
    return page.section(recipe["title"], lead, parts)


def _figures(
    table: Sequence[Row],
    groups: Sequence[Group],
    here: Sequence[Group],
    recipe: Mapping[str, Any],
    names: Mapping[str, int],
    prefix: str,
    at: str = "",
) -> list[str]:
    x, drawn = _abscissa(groups), []
    where = f" At {at}." if at else ""
    for metric in recipe["metrics"]:
        mine = [row for row in table if row["metric"] == metric]
        if mine:
            figure = figures.curve(mine, metric, x, names) if x else figures.bars(mine, metric, names)
            drawn.append((figures.html(figure, f"{prefix}-{metric}"), CAPTIONS.get(metric, "Bars hold 95 %.")))
    if any(cells.has("deciles") for cells in here):
        caption = "Entries sorted by reported variance, in tenths: squared error of each; honest lies on the line."
        drawn.append((figures.html(figures.deciles(here, names), f"{prefix}-deciles"), caption + where))
    times = {cells.method: cells.seconds() for cells in here}
    caption = f"Wall time of one estimate in a block of {here[0].cells[0].items}.{where}"
    if at:
        caption += " What can be set up once for all blocks of a point is not counted."
    drawn.append((figures.html(figures.time_bars(times, names), f"{prefix}-time"), caption))
    return [page.figures(drawn), *_pictures(here, recipe, prefix, where)]


def _pictures(here: Sequence[Group], recipe: Mapping[str, Any], prefix: str, where: str) -> list[str]:
    """One channel: the truth, least squares, and the method of the least error; three methods without a truth."""
    examples = {c.method: c.cells[0].arrays["example"] for c in here if "example" in c.cells[0].arrays}
    scored = {c.method: float(c.array("ratio").mean()) for c in here if c.has("ratio")}
    if not examples:
        return []
    best = min(scored, key=scored.__getitem__) if scored else ""
    chosen = ("ls", best) if scored else ("ls", *list(examples)[-2:])
    wanted = dict.fromkeys(name for name in chosen if name in examples)
    truth = torch.view_as_complex(next(iter(examples.values())).contiguous())[0]
    channels = {"truth": truth} if scored else {}
    channels |= {name: torch.view_as_complex(examples[name].contiguous())[1] for name in wanted}
    spectra = {name: figures.spectrum(h, recipe["axes"], recipe["subcarriers"]) for name, h in channels.items()}
    strongest = float(next(iter(spectra.values()))[0].max())
    drawn = []
    for name, (power, x, x_title, y_title) in spectra.items():
        figure = figures.channel_map(power, strongest, x, x_title, y_title)
        caption = f"{name} (least error here)" if name == best else name
        drawn.append((figures.html(figure, f"{prefix}-map-{name}"), caption))
    title = next(iter(spectra.values()))[2].split(" ")[0]
    kind = "delay" if title == "delay" else "angle"
    return [page.heading(f"One channel, {kind} x antenna.{where}"), page.figures(drawn, thirds=True)]


def _table(table: Sequence[Row], groups: Sequence[Group], metrics: Sequence[str], caption: str) -> str:
    best = {
        metric: min(
            (row["value"] for row in table if row["metric"] == metric and row["value"] is not None), default=None
        )
        for metric in metrics
    }
    body = []
    for cells in groups:
        line = [cells.method]
        for metric in metrics:
            found = [row for row in table if row["method"] == cells.method and row["metric"] == metric]
            wins = bool(found) and metric.startswith("nmse") and found[0]["value"] == best[metric]
            line.append(_number(found[0], wins) if found else "none")
        bad = {name: count for name, count in cells.status().items() if name != "OK"}
        status = ", ".join(f"{count} {name}" for name, count in bad.items()) or "all OK"
        line += [_time(cells.seconds()), str(sum(cell.items for cell in cells.cells)), status]
        body.append(line)
    return page.table(["method", *map(figures.title_of, metrics), "time per estimate", "n", "status"], body, caption)


def _all_points(table: Sequence[Row]) -> str:
    body = [
        [
            row["method"],
            _spell_point(row["point"]),
            figures.title_of(row["metric"]),
            _number(row),
            _seconds(row),
            str(row["n"]),
        ]
        for row in table
    ]
    return page.table(["method", "point", "metric", "value", "time per estimate", "n"], body, words=(0, 1, 2))


def _recipe(run: Run) -> str:
    recipe = run.recipe
    about = f"{recipe['blocks']} x {recipe['block_size']} channels at each point, or as the point's batch says"
    seeds = f"seed {recipe['seed']}; a draw hashes (experiment, seed, block): methods and points see the same channels"
    head = [("blocks", about), ("seeds", seeds), ("scenario", f"{spell(recipe['scenario'])}, here at the first point")]
    methods = page.table(["method", "settings"], [[m, spell(s)] for m, s in recipe["methods"].items()], words=(0, 1))
    return page.pairs(head) + _definitions(recipe) + methods


def _definitions(recipe: Mapping[str, Any]) -> str:
    names = {"snr_definition": "SNR", "normalisation": "normalisation", "source": "source", "kind": "kind"}
    about = [(label, str(recipe[name])) for name, label in names.items()]
    return page.pairs([*about, *((m, DEFINITIONS[m]) for m in recipe["metrics"] if m in DEFINITIONS)])


def _machine(groups: Sequence[Group], box: Mapping[str, str], made: Mapping[str, str]) -> str:
    threads = sorted({cell.threads for cells in groups for cell in cells.cells})
    devices = sorted({cell.device for cells in groups for cell in cells.cells})
    used = [("device", ", ".join(devices)), ("torch threads", ", ".join(map(str, threads)))]
    return page.pairs([*box.items(), *made.items(), *used])


def _reference(groups: Sequence[Group]) -> dict[str, Any]:
    points = [cells.point for cells in groups]
    if all("snr_db" in point for point in points):
        return min(points, key=lambda point: abs(point["snr_db"] - REFERENCE_SNR_DB))
    return points[len(points) // 2]


def _abscissa(groups: Sequence[Group]) -> str:
    """The key to draw curves over: SNR where it varies, else the first number that does."""
    seen: dict[str, set[Any]] = {}
    for cells in groups:
        for key, value in cells.point.items():
            seen.setdefault(key, set()).add(value)
    numeric = [key for key, values in seen.items() if len(values) > 1 and not any(isinstance(v, str) for v in values)]
    return "snr_db" if "snr_db" in numeric else (numeric[0] if numeric else "")


def _number(row: Row, best: bool = False) -> str:
    if row["value"] is None:
        return "exact" if row["metric"].endswith("_db") else "none"
    low, high = row["low"], row["high"]
    interval = "" if low is None or high is None else f"[{_digits(low)}, {_digits(high)}]"
    return page.measured(_digits(row["value"]), interval, best)


def _digits(value: float) -> str:
    spelled = f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return spelled.replace("-", "−")


def _seconds(row: Row) -> str:
    return "" if row["seconds"] is None else _time(row["seconds"])


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _spell_point(point: Mapping[str, Any]) -> str:
    words = [
        f"{key.removesuffix('_db').replace('snr', 'SNR')} {value:g} dB" if key.endswith("_db") else f"{key} {value}"
        for key, value in point.items()
    ]
    return ", ".join(words) or "the only point"


def _write(out_html: Path | str, title: str, lead: str, sections: Sequence[str]) -> None:
    page.write(out_html, page.page(title, lead, sections, figures.script()))
