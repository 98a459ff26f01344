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

MOST_SAID = 5
"""Failures that have a line each"""


def bench(
    experiment: Annotated[
        str | None, typer.Argument(help="An experiment's name; `hhat list experiments` shows them.")
    ] = None,
    profile: Annotated[str, typer.Option("--profile", help="quick: a minute or two; full: the whole scale.")] = "quick",
    runs: Annotated[Path, typer.Option("--runs", help="Folder that keeps what is done.")] = Path("runs"),
    user: Annotated[
        Path | None,
        typer.Option("--user", help="Your own capture in place of the scenario; compares methods on its snapshots."),
    ] = None,
    half_width: Annotated[
        float | None,
        typer.Option("--half-width", help="End a row once its 95 % interval is within +- this, e.g. 0.1 for 0.1 dB."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes on this machine.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="[ADDRESS]", help="A Ray cluster: its address, or none to start one here."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is missing and how long it takes, and run nothing.")
    ] = False,
    as_json: Json = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Another seed than the experiment's own.")] = None,
    device: Device = "cpu",
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads between cells; each cell sets its own (one).")
    ] = 1,
) -> None:
    """Run the missing cells of an experiment, storing each as it ends; a second run does nothing.

    A killed run loses the cell it was in; the same command goes on. Exits with 3 where estimates were not finite or a
    method refused (the others are run and stored); those that only ran out of steps are counted in the report.
    """
    from dataclasses import replace

    from hhat.bench.run import complete, expected

    prepare(device, threads)
    chosen = _experiment(experiment, user)
    name = chosen.name
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    if half_width is not None:
        chosen = _narrowed(chosen, profile, half_width)
    chosen.profile(profile)
    if dry_run:
        tasks, forecast = expected(chosen, profile, runs, device)
        _show_missing(name, profile, tasks, forecast, as_json)
        return
    result = complete(chosen, profile, runs, device=device, lanes=_lanes(workers, ray))
    rows, status = result.rows(), result.status()
    failed = [
        {"method": task.method, "point": task.point, "block": task.block, "why": why} for task, why in result.failed
    ]
    if as_json:
        print_json({"experiment": name, "profile": profile, "rows": rows, "status": status, "failed": failed})
    else:
        print_table(
            f"{chosen.title} ({name}, {profile})",
            ("method", "point", "metric", "value", "95 %", "n", "time per estimate"),
            [
                (
                    row["method"],
                    _point(row["point"]),
                    row["metric"],
                    digits(row["value"], row["metric"]),
                    interval(row),
                    str(row["n"]),
                    duration(row["seconds"]),
                )
                for row in rows
            ],
            words=3,
        )
        print_pairs([("status", ", ".join(f"{n} {word}" for word, n in status.items())), ("stored in", str(runs))])
    if status.get("NONFINITE"):
        complain(f"{name}: {status['NONFINITE']} estimates were not finite; `hhat report {runs}` shows where")
    for failure in failed[:MOST_SAID]:
        complain(failure["why"])
    if len(failed) > MOST_SAID:
        complain(f"{name}: and {len(failed) - MOST_SAID} more; --json has all")
    if failed or status.get("NONFINITE"):
        raise typer.Exit(FAILED)


def with_ray_address(arguments: list[str]) -> list[str]:
    """`--ray` without an address means a cluster started here: the parser knows no value that may be left out."""
    found = []
    for word, after in zip(arguments, [*arguments, ""][1:], strict=True):
        is_address = ":" in after or after in ("auto", "local")
        found.append("--ray=local" if word == "--ray" and not is_address else word)
    return found


def _experiment(name: str | None, user: Path | None) -> Any:
    from hhat import registry

    if name is None and user is None:
        raise ValueError("bench: expected an experiment (`hhat list experiments`), or --user FILE for your own capture")
    declared = None if name is None else registry.load("experiments", name)
    if user is None:
        return declared
    from hhat.bench.user import user_experiment

    return user_experiment(user, declared)


def _narrowed(experiment: Any, profile: str, half_width: float) -> Any:
    """The experiment with a stopping rule on its first metric in place of that profile's own."""
    from dataclasses import replace

    from hhat.bench.stopping import Stopping

    until = Stopping(half_width, experiment.metrics[0])
    chosen = replace(experiment.profile(profile), until=until)
    return replace(experiment, profiles={**experiment.profiles, profile: chosen})


def _lanes(workers: int, ray: str | None) -> Any:
    from hhat.bench.execute import Processes, Serial

    if ray is not None:
        from hhat.bench.ray_lanes import RayLanes

        return RayLanes(ray, workers if workers > 1 else None)
    return Processes(workers) if workers > 1 else Serial()


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


def _show_missing(experiment: str, profile: str, tasks: list[Any], forecast: Any, as_json: bool) -> None:
    cells = [{"method": task.method, "point": task.point, "block": task.block, "items": task.items} for task in tasks]
    if as_json:
        told = {"seconds": forecast.seconds, "probed": list(forecast.probed), "missing": cells}
        print_json({"experiment": experiment, "profile": profile, "rows": [], **told})
        return
    counts: dict[tuple[str, str], int] = {}
    for cell in cells:
        name = (cell["method"], _point(cell["point"]))
        counts[name] = counts.get(name, 0) + 1
    title = f"{experiment} {profile}: {len(cells)} cells are missing"
    print_table(title, ("method", "point", "cells"), [(*name, str(count)) for name, count in counts.items()], words=2)
    if cells:
        basis = "by the cells stored here"
        if forecast.probed:
            basis = f"at most: one channel each was timed of {', '.join(forecast.probed)}; batches are faster"
        print_pairs([("estimates take", f"{duration(forecast.seconds)} on one lane, {basis}")])


def _point(point: dict[str, Any]) -> str:
    from hhat.bench.summary import spell_point

    return spell_point(point)
