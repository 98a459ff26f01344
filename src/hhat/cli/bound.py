"""`hhat bound`: what no estimate can do better than, for a scenario's draws or for a file that holds its paths."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hhat.cli.common import (
    FAILED,
    Device,
    Json,
    MaxBytes,
    Seed,
    Settings,
    Threads,
    complain,
    digits,
    interval,
    prepare,
    print_json,
    print_pairs,
    print_table,
)

if TYPE_CHECKING:
    from hhat.types import Slot


def bound(
    target: Annotated[str, typer.Argument(help="A scenario's name, or a capture that holds a channel's true paths.")],
    count: Annotated[int | None, typer.Option("-n", min=1, help="Channels (20); of a file all, or the first.")] = None,
    settings: Settings = [],  # noqa: B006 - the parser takes its default from here and never changes it
    max_bytes: MaxBytes = 8e9,
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Cramer-Rao bounds and genies: the NMSE that remains where the law, or a part of the truth, is known.

    A scenario is drawn as by `hhat simulate` with the same seed, and computed on the CPU. Exits with 3 where a bound
    is not finite.
    """
    import torch

    from hhat.bench.metrics import mean_interval_db
    from hhat.scenarios.bounds import bounds_of

    prepare(device, threads)
    scene, slot = _slot(target, count, settings, seed, max_bytes)
    known = bounds_of(scene, slot)
    began = time.perf_counter()
    rows, failed = [], False
    for name, entry in known.items():
        try:
            ratios = entry.ratios()
        except ValueError as wrong:
            raise ValueError(f"{target}: {wrong}") from None
        found = mean_interval_db(ratios)
        row = {"bound": name, "knows": entry.words, "metric": "nmse_db"}
        rows.append(row | found._asdict())
        bad = int((~torch.isfinite(ratios)).sum())
        if bad:
            complain(f"{target}: {name} is not finite for {bad} of {found.n} channels")
        failed = failed or bad > 0
    document = {
        "target": target,
        "seed": None if scene is None else seed,
        "snr_definition": slot.about.snr_definition,
        "rows": rows,
        "seconds": time.perf_counter() - began,
    }
    if as_json:
        print_json(document)
    else:
        print_pairs([("bounds of", target), ("SNR", slot.about.snr_definition)])
        table = [(row["bound"], row["knows"], digits(row["value"]), interval(row), str(row["n"])) for row in rows]
        print_table("", ("bound", "knows", "NMSE dB", "95 %", "n"), table, words=2)
    if failed:
        raise typer.Exit(FAILED)


def _slot(target: str, count: int | None, settings: list[str], seed: int, max_bytes: float) -> "tuple[Any, Slot]":
    """The scenario (None for a file) and what is drawn or read."""
    from hhat import io, random, registry
    from hhat.scenarios.bounds import BOUNDED
    from hhat.settings import pairs, typed

    if target in registry.SCENARIOS:
        if not issubclass(registry.load("scenarios", target), BOUNDED):
            having = (name for name in registry.SCENARIOS if issubclass(registry.load("scenarios", name), BOUNDED))
            raise ValueError(f"bound: {target} has none; there are bounds of {' '.join(having)}")
        scene = registry.build("scenarios", target, typed(registry.load("scenarios", target), pairs(settings)))
        return scene, scene.draw(count or 20, random.generator("simulate", target, seed))
    if settings:
        raise ValueError(f"--set: settings are of scenarios, {target} is none")
    if not Path(target).exists():
        names = " ".join(sorted(registry.SCENARIOS))
        raise ValueError(f"bound: no file and no scenario '{target}'; there are the scenarios: {names}")
    return None, io.read(target, count=count, max_bytes=max_bytes)
