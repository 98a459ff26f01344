"""One self-contained HTML page from a folder of runs, or from the estimates of one capture file."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hhat.bench.recipe import machine, spell
from hhat.bench.report import at_point, channel, curves, figures, machines, page, tables, tradeoff, verdicts
from hhat.bench.report.capture import file_groups, metrics_of
from hhat.bench.report.counted import unfinished
from hhat.bench.report.figures import Drawing, Names
from hhat.bench.report.panels import Panel, panels
from hhat.bench.report.words import count, definition_of, listed, spell_point, title_of
from hhat.bench.stopping import counted_groups, rule_of
from hhat.bench.store import Run, Store
from hhat.bench.summary import Group, Row, group, rows
from hhat.types import Estimate, Slot

REFERENCE_SNR_DB = 10.0
"""Where a sweep over SNR is read for its table, bars and pictures, or the nearest point to it"""
COST_METRIC = "nmse_db"
MINUTES = len("2026-01-01 00:00")
MADE_BY = "Made by hhat; the page holds all it shows and needs no network."
CLICK = "A click on a name hides its curve or brings it back; a double click shows it alone."


class Section(NamedTuple):
    """A run on the page. cells: how many stand behind it; claims: verdicts by kind."""

    name: str
    title: str
    experiment: str
    claims: Counter[str]
    cells: int
    html: str


def write_report(runs_dir: Path | str, out_html: Path | str) -> None:
    """Write the page of all experiments in a folder of runs: of each profile its latest run.

    Raises ValueError where there is no store, nothing in it, no plotly, or the page cannot be written.
    """
    latest: dict[tuple[str, str], Run] = {}
    sections = []
    with Store(runs_dir, create=False) as store:
        for run in store.runs():
            latest[run.experiment, run.profile] = run
        for run in latest.values():
            groups = group(store.cells(run.cells))
            if groups:
                sections.append(_experiment(run, groups))
    if not sections:
        raise ValueError(f"{runs_dir}: expected finished cells, there are none; run `hhat bench` first")
    names = sorted({section.experiment for section in sections})
    lead = [f"{count(len(sections), 'run')} of {listed(names)}.", *_verdicts(sections)]
    contents = page.toc(
        (section.name, section.title, verdicts.tally_in_words(section.claims) if section.claims else "")
        for section in sections
    )
    _write(out_html, "hhat report", lead, contents if len(sections) > 1 else "", [each.html for each in sections])


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
    found = rows(groups, recipe["metrics"])
    names = {label: place for place, label in enumerate(results)}
    parts = [
        tables.at_point(found, groups, recipe["metrics"], "Every channel of the file, estimated by each method."),
        page.heading("Figures"),
        *_figures(found, groups, groups, recipe, names, "file"),
        page.fold("Definitions and file", [_definitions(recipe)]),
        _made(machines.made_with(groups, machine())),
    ]
    channels = f"{count(groups[0].cells[0].items, 'channel')} of {' x '.join(map(str, slot.obs.op.in_shape))}"
    whole = page.section("file", "Methods compared", f"SNR: {about.snr_definition}", parts)
    _write(out_html, "hhat: channel estimates of a capture", [f"{about.kind}, {channels}; {about.source}"], "", [whole])


def _experiment(run: Run, stored: Sequence[Group]) -> Section:
    recipe = run.recipe
    name = re.sub(r"[^a-z0-9]+", "-", f"run-{run.experiment}-{run.profile}".lower())
    groups = counted_groups(stored, rule_of(recipe))
    found = rows(groups, recipe["metrics"])
    names = {label: place for place, label in enumerate(recipe["methods"])}
    point = _reference(groups)
    here = [cells for cells in groups if cells.point == point]
    at = spell_point(point)
    claims = verdicts.judged(recipe, groups)
    made = machines.made_with(groups, run.machine)
    lead = f"{run.experiment}, profile {run.profile}, seed {recipe['seed']}, run of {run.started[:MINUTES]} UTC"
    lacking = unfinished(run, stored)
    notes = [f"unfinished: {lacking} are done. Figures and verdicts stand on what is there."] if lacking else []
    parts = [page.warning(words) for words in [*notes, *machines.warnings(made)]]
    parts += [page.paragraph(recipe["note"])] if recipe["note"] else []
    parts += [page.heading("Claims"), verdicts.table(claims)] if claims else []
    parts.append(page.heading("Methods compared" if not point else f"At {at}"))
    apart = tables.stopped_apart(here)
    parts += [page.paragraph(apart)] if apart else []
    mine = [row for row in found if row["point"] == point]
    parts.append(tables.at_point(mine, here, recipe["metrics"], f"All methods at {at}."))
    legends = COST_METRIC in recipe["metrics"] or any(panel.x for panel in panels(cells.point for cells in groups))
    parts += [page.heading("Figures"), page.hint(CLICK) if legends else ""]
    parts += _figures(found, groups, here, recipe, names, name, at)
    parts.append(page.fold("Blocks and time of every row", [tables.counts(groups)]))
    parts.append(page.fold("Recipe", [_recipe(run)]))
    parts.append(_made(made))
    html = page.section(name, recipe["title"], lead, parts)
    title = f"{run.experiment}, {run.profile}: {recipe['title']}"
    cells = sum(len(cells.cells) for cells in stored)
    return Section(name, title, run.experiment, verdicts.tally(claims), cells, html)


def _verdicts(sections: Sequence[Section]) -> list[str]:
    """How the claims of all experiments stand; of an experiment run in several profiles its largest run counts."""
    largest: dict[str, Section] = {}
    for section in sorted(sections, key=lambda section: section.cells):
        largest[section.experiment] = section
    total = sum((section.claims for section in largest.values()), Counter())
    if not total:
        return []
    said = verdicts.tally_in_words(total)
    several = len(largest) < len([section for section in sections if section.claims])
    return [f"{said}{'; of an experiment with several runs the largest counts' if several else ''}."]


def _figures(
    found: Sequence[Row], groups: Sequence[Group], here: Sequence[Group], recipe: Mapping[str, Any], names: Names,
    prefix: str, at: str = "",
) -> list[str]:  # fmt: skip
    """Each metric over the points, then what is drawn at the reference point alone."""
    split = panels(cells.point for cells in groups)
    where = f" At {at}." if at else ""
    over = recipe.get("over", "")
    drawn = [_against(found, recipe["metrics"][0], over, split, names, prefix)] if over else []
    drawn += [_metric(found, metric, split, names, prefix) for metric in recipe["metrics"] if metric != over]
    mine = [row for row in found if row["point"] == here[0].point]
    cost = at_point.cost(mine, COST_METRIC, names) if COST_METRIC in recipe["metrics"] else None
    timed = f"Time: of one estimate in a block of {here[0].cells[0].items}, median over blocks"
    timed += "; what can be set up once for all blocks of a point is not counted." if at else "."
    if cost is not None:
        caption = f"Error against time.{where} Left and low is good; no method lies below the line. {timed}"
        drawn.append(_figure(cost, f"{prefix}-cost", caption, tables.of_cost(mine, COST_METRIC)))
    elif seconds := {cells.method: cells.seconds() for cells in here if not cells.is_bound}:
        times = at_point.times(seconds, names)
        drawn.append(_figure(times, f"{prefix}-time", f"Time per estimate.{where} {timed}", tables.of_times(seconds)))
    calibration = at_point.deciles(here, names)
    if calibration is not None:
        caption = "Calibration: entries sorted by reported variance, in tenths, and the squared error of each tenth. "
        caption += f"Honest lies on the dotted line, above it is too sure of itself.{where}"
        table = tables.of_tenths(at_point.tenths(here))
        drawn.append(_figure(calibration, f"{prefix}-deciles", caption, table))
    return [page.figures(filter(None, drawn)), *_pictures(here, recipe, prefix, where)]


def _metric(found: Sequence[Row], metric: str, split: Sequence[Panel], names: Names, prefix: str) -> str:
    drawing = curves.drawing(found, metric, split, names)
    if drawing is None:
        return ""
    title = title_of(metric)
    caption = f"{title[0].upper()}{title[1:]}; bars hold 95 %."
    if metric == "variance_ratio":
        caption += " On the dotted line a variance is honest, above it too sure of itself."
    return _figure(drawing, f"{prefix}-{metric}", caption, tables.of_metric(found, metric, split), len(split) > 1)


def _against(found: Sequence[Row], metric: str, over: str, split: Sequence[Panel], names: Names, prefix: str) -> str:
    drawing = tradeoff.drawing(found, metric, over, split, names)
    if drawing is None:
        return ""
    caption = f"{title_of(metric)} against {title_of(over)}; bars hold 95 %. Left and low is good; nothing lies below "
    caption += "the thin line. A line joins the settings of a method."
    return _figure(drawing, f"{prefix}-against", caption, tradeoff.table(found, metric, over), broad=True)


def _figure(drawing: Drawing, name: str, caption: str, table: str, broad: bool = False) -> str:
    return page.figure(name, drawing.data(), drawing.says, caption, table, broad)


def _pictures(here: Sequence[Group], recipe: Mapping[str, Any], prefix: str, where: str) -> list[str]:
    """One channel: the truth, least squares, and the method of the least error; three methods without a truth."""
    examples = {c.method: c.cells[0].arrays["example"] for c in here if "example" in c.cells[0].arrays}
    scored = {c.method: float(c.array("ratio").mean()) for c in here if c.has("ratio") and c.method in examples}
    if not examples:
        return []
    best = min(scored, key=scored.__getitem__) if scored else ""
    chosen = ("ls", best) if scored else ("ls", *list(examples)[-2:])
    wanted = dict.fromkeys(name for name in chosen if name in examples)
    truth = torch.view_as_complex(next(iter(examples.values())).contiguous())[0]
    channels = {"truth": truth} if scored else {}
    channels |= {name: torch.view_as_complex(examples[name].contiguous())[1] for name in wanted}
    spectra = {name: channel.spectrum(h, recipe["axes"], recipe["subcarriers"]) for name, h in channels.items()}
    strongest = float(next(iter(spectra.values()))[0].max())
    drawn = []
    for number, (name, spectrum) in enumerate(spectra.items()):
        power, x, along, across = spectrum
        drawing = channel.channel_map(power, strongest, x, along, across)
        caption = f"{name} (least error here)" if name == best else name
        said = replace(drawing, says=f"{caption}: {drawing.says}")
        drawn.append(
            _figure(said, f"{prefix}-map-{number}", caption, tables.of_map(power, strongest, x, along, across))
        )
    kind = "delay" if next(iter(spectra.values()))[2].startswith("delay") else "angle"
    return [page.heading(f"One channel, {kind} x antenna.{where}"), page.figures(drawn, thirds=True)]


def _recipe(run: Run) -> str:
    recipe, rule = run.recipe, rule_of(run.recipe)
    about = f"{recipe['blocks']} x {recipe['block_size']} channels at each point, or as the point's batch says"
    if rule is not None:
        about = f"at most {about}; a row ends at the first block, from block {rule.min_blocks} on, at which the 95 % "
        about += f"interval of {title_of(rule.metric)} is within ±{rule.half_width:g}"
    seeds = f"seed {recipe['seed']}; a draw hashes (experiment, seed, block): methods and points see the same channels"
    head = [("blocks", about), ("seeds", seeds), ("scenario", f"{spell(recipe['scenario'])}, here at the first point")]
    body = [[method, spell(settings)] for method, settings in recipe["methods"].items()]
    methods = page.table(["method", "settings"], body, "Settings of every method, at the first point.", words=(0, 1))
    return page.pairs(head) + _definitions(recipe) + methods


def _definitions(recipe: Mapping[str, Any]) -> str:
    names = {"snr_definition": "SNR", "normalisation": "normalisation", "source": "source", "kind": "kind"}
    about = [(label, str(recipe[name])) for name, label in names.items()]
    return page.pairs([*about, *((title_of(metric), definition_of(metric)) for metric in recipe["metrics"])])


def _made(made: Sequence[tuple[Mapping[str, Any], int]]) -> str:
    head, body = machines.table_of(made)
    caption = f"What the cells were made with: {machines.summary(made)}."
    return page.fold("Machine and versions", [page.table(head, body, caption, words=range(len(head) - 1))])


def _reference(groups: Sequence[Group]) -> dict[str, Any]:
    points = [cells.point for cells in groups]
    if all("snr_db" in point for point in points):
        return min(points, key=lambda point: abs(point["snr_db"] - REFERENCE_SNR_DB))
    return points[len(points) // 2]


def _write(out_html: Path | str, title: str, lead: Sequence[str], contents: str, sections: Sequence[str]) -> None:
    page.write(
        out_html, page.page(title, lead, contents, sections, MADE_BY, figures.script(), json.dumps(figures.LOOK))
    )
