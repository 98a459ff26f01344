"""`hhat runs`: stores of runs brought together, exported, checked and salvaged."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hhat.cli.common import FAILED, Device, Json, Seed, Threads, complain, prepare, print_json, print_pairs, print_table

SHOWN = 10
"""Problems and keys of which people see a line each; all are in --json"""

Runs = Annotated[Path, typer.Argument(help="Folder that `hhat bench` filled, or the cells.sqlite in it.")]

app = typer.Typer(help="Stores of runs: merge those of several machines, export, check and salvage them.")


@app.command()
def merge(
    into: Annotated[Path, typer.Argument(help="Folder that takes in the others; made where it is missing.")],
    sources: Annotated[list[Path], typer.Argument(metavar="FROM", help="Folders of runs, or their cells.sqlite.")],
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Bring the cells of other machines into one folder, each source whole or not at all.

    A cell that is in both stays as it was; cells of one recipe whose numbers differ by more than 1e-5 are reported.
    """
    from hhat.bench.store.transfer import merge as merge_stores

    prepare(device, threads)
    found = merge_stores(into, sources)
    if as_json:
        names = ("source", "cells", "runs", "equal", "close", "differ")
        print_json({"into": str(into), "sources": [{name: getattr(one, name) for name in names} for one in found]})
    else:
        print_table(
            f"Merged into {into}",
            ("from", "new cells", "new runs", "in both, equal", "within 1e-5", "different"),
            [(m.source, *map(str, (m.cells, m.runs, m.equal, m.close, len(m.differ)))) for m in found],
        )
    for one in found:
        if one.differ:
            both = one.equal + one.close + len(one.differ)
            complain(f"{one.source}: {len(one.differ)} of {both} cells that are in both differ; kept those of {into}")


@app.command()
def export(
    runs: Runs,
    out: Annotated[Path, typer.Option("-o", "--out", help="FILE.csv or FILE.parquet.")],
    rows: Annotated[
        bool, typer.Option("--rows", help="The summarised numbers of each profile's latest run instead.")
    ] = False,
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Write all cells as one table: a line per realisation, with its point, seed, errors, times, versions and machine.

    Written whole or not at all; needs no more memory for a larger folder.
    """
    from hhat.bench.store.table import export as export_table

    prepare(device, threads)
    found = export_table(runs, out, rows)
    if as_json:
        document = {"runs": str(runs), "file": str(out), "lines": found.lines, "columns": list(found.columns)}
        print_json(document)
    else:
        print_pairs([("wrote", str(out)), ("lines", str(found.lines)), ("columns", " ".join(found.columns))])


@app.command()
def check(
    runs: Runs,
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Verify the checksum of every cell and the structure of the file. Exits with 3 where damage is found."""
    from hhat.bench.store.salvage import check as check_store

    prepare(device, threads)
    found = check_store(runs)
    if as_json:
        document = {"cells": found.cells, "runs": found.runs, "damaged": found.damaged, "problems": found.problems}
        print_json({"file": str(runs), "sound": found.sound, **document})
    else:
        lines = [("right", f"{found.cells} cells, {found.runs} runs"), ("damaged", str(len(found.damaged)))]
        print_pairs([*lines, *(("problem", text) for text in found.problems[:SHOWN])])
    if not found.sound:
        complain(f"{runs}: damage found; `hhat runs salvage {shlex.quote(str(runs))} -o NEW` saves what is left")
        raise typer.Exit(FAILED)


@app.command()
def salvage(
    runs: Runs,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NEW", help="New folder of runs for what is saved.")],
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Copy every cell of a damaged store that can be read and whose checksum holds into a new folder.

    `hhat bench` with `--runs NEW` then runs only what was lost. The damaged store stays as it is.
    """
    from hhat.bench.store.salvage import salvage as salvage_store

    prepare(device, threads)
    found = salvage_store(runs, out)
    if as_json:
        counts = {"cells": found.cells, "runs": found.runs, "lost": found.lost, "absent": found.absent}
        print_json({"from": str(runs), "into": str(out), **counts})
    else:
        print_pairs(
            [
                ("saved", f"{found.cells} cells, {found.runs} runs into {out}"),
                ("lost", f"{len(found.lost)} that are known"),
                ("not there", f"{found.absent} that the runs name: not run yet, or lost without a trace"),
            ]
        )
