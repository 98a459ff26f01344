"""`hhat bench` and `hhat report`: experiments run into a folder, and the page made of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hhat.cli.common import (
    FAILED,
    Device,
    Json,
    Seed,
    Threads,
    complain,
    digits,
    duration,
    interval,
    prepare,
    print_json,
    print_pairs,
    print_table,
)


def bench(
    experiment: Annotated[str, typer.Argument(help="An experiment's name; `hhat list experiments` shows them.")],
    profile: Annotated[str, typer.Option("--profile", help="quick: a minute or two; full: the whole scale.")] = "quick",
    runs: Annotated[Path, typer.Option("--runs", help="Folder that keeps what is done.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is missing and run nothing.")] = False,
    as_json: Json = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Another seed than the experiment's own.")] = None,
    device: Device = "cpu",
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads between cells; each cell sets its own (one).")
    ] = 1,
) -> None:
    """Run the missing cells of an experiment, storing each as it ends; a second run does nothing.

    Exits with 3 where estimates were not finite; those that only ran out of steps are counted in the report.
    """
    from dataclasses import replace

    from hhat import registry
    from hhat.bench.run import missing, run

    chosen = registry.load("experiments", experiment)
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    chosen.profile(profile)
    prepare(device, threads)
    if dry_run:
        tasks = missing(chosen, profile, runs, device)
        _show_missing(experiment, profile, tasks, as_json)
        return
    rows = run(chosen, profile, runs, device=device)
    status = _status(chosen, profile, runs, device)
    if as_json:
        print_json({"experiment": experiment, "profile": profile, "rows": rows, "status": status})
    else:
        print_table(
            f"{chosen.title} ({experiment}, {profile})",
            ("method", "point", "metric", "value", "95 %", "n", "time per estimate"),
            [
                (
                    row["method"],
                    _point(row["point"]),
                    row["metric"],
                    digits(row["value"]),
                    interval(row),
                    str(row["n"]),
                    duration(row["seconds"]),
                )
                for row in rows
            ],
            words=3,
        )
        print_pairs([("status", ", ".join(f"{n} {name}" for name, n in status.items())), ("stored in", str(runs))])
    if status.get("NONFINITE"):
        complain(f"{experiment}: {status['NONFINITE']} estimates were not finite; `hhat report {runs}` shows where")
        raise typer.Exit(FAILED)


def report(
    runs: Annotated[Path, typer.Argument(help="Folder that `hhat bench` filled.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path("report.html"),
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Write one self-contained HTML page of all runs in a folder."""
    from hhat.bench.report import write_report

    prepare(device, threads)
    write_report(runs, out)
    if as_json:
        print_json({"runs": str(runs), "report": str(out)})
    else:
        print_pairs([("wrote", str(out))])


def _show_missing(experiment: str, profile: str, tasks: list[Any], as_json: bool) -> None:
    cells = [{"method": task.method, "point": task.point, "block": task.block, "items": task.items} for task in tasks]
    if as_json:
        print_json({"experiment": experiment, "profile": profile, "rows": [], "missing": cells})
        return
    counts: dict[tuple[str, str], int] = {}
    for cell in cells:
        name = (cell["method"], _point(cell["point"]))
        counts[name] = counts.get(name, 0) + 1
    title = f"{experiment} {profile}: {len(cells)} cells are missing"
    print_table(title, ("method", "point", "cells"), [(*name, str(count)) for name, count in counts.items()], words=2)


def _status(experiment: Any, profile: str, runs: Path, device: str) -> dict[str, int]:
    """How many estimates of the profile ended how."""
    from hhat.bench.run import plan
    from hhat.bench.store import Store

    total: dict[str, int] = {}
    with Store(runs, create=False) as store:
        for cell in store.cells(plan(experiment, profile, device)[0].cells):
            for name, count in cell.status.items():
                total[name] = total.get(name, 0) + count
    return total


def _point(point: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in point.items()) or "-"
