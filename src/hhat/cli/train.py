"""`hhat train`: a network from a scenario or from the truth of a capture, with a card of what it reaches."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hhat.cli.common import (
    Device,
    Json,
    Seed,
    Threads,
    digits,
    duration,
    interval,
    prepare,
    print_json,
    print_pairs,
    print_table,
)

if TYPE_CHECKING:
    from hhat.train.gaussian import GaussTask
    from hhat.train.loop import Trained
    from hhat.train.models import Finished
    from hhat.train.run import Task
    from hhat.train.surrogate import SurrogateTask

HALF_LIMIT_DB = 0.05
"""Half precision is kept where it costs less than this at every SNR of the card"""


def train(
    model: Annotated[str, typer.Argument(help="`hhat list models`.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="A scenario, CDL profiles (cdl-c, cdl-abcd-rotated), or a capture."),
    ] = None,
    profile: Annotated[str, typer.Option("--profile", help="quick (a minute or two), shipped or full.")] = "quick",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Weights, card and checkpoint; default: MODEL/.")
    ] = None,
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Train a model and write its weights (safetensors) with a card: recipe, curve, NMSE, versions, machine, time.

    A covariance is also learned from a capture without truth, from its pilots.

    A run that was killed goes on from its checkpoint in DIR and ends with the same weights. `hhat estimate FILE
    --method METHOD --weights DIR/MODEL.safetensors` uses them, `--prior diffusion --weights ...` those of diffusion.
    """
    from hhat.train.files import write_weights
    from hhat.train.run import task_for

    place = prepare(device, threads)
    task = task_for(model, data, profile, seed)
    folder = out or Path(model)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file, expected a folder")
    began = time.perf_counter()
    with _bar(task.steps, f"training {model}") as advance:
        trained = task.run(folder, advance, place)
    seconds = time.perf_counter() - began
    finished = task.finished(trained)
    card, half = _card(task, trained, finished)
    path = write_weights(folder, model, finished.tensors, card, half)
    document = {"model": model, "data": task.data_name, "profile": profile, "weights": str(path), **card}
    if as_json:
        print_json(document)
        return
    print_pairs(
        [
            ("model", f"{model} on {task.data_name}"),
            ("steps", task.words(trained)),
            ("time", f"{duration(seconds)} now, {duration(trained.seconds)} of CPU in all"),
            ("wrote", str(path)),
        ]
    )
    # what a row is of comes first: an SNR, or which of several networks
    lines = [
        [
            digits(row["snr_db"]) if "snr_db" in row else row["network"],
            digits(row["value"]),
            interval(row),
            str(row["n"]),
        ]
        for row in card["measured"]
    ]
    if not lines:
        print_pairs(
            [("NMSE", "unknown: the capture carries no truth; the card tells the evidence on held-out snapshots")]
        )
        return
    head = "SNR dB" if "snr_db" in card["measured"][0] else "network"
    print_table("", (head, "NMSE dB", "95 %", "n"), lines)


def _card(
    task: "Task | GaussTask | SurrogateTask", trained: "Trained", finished: "Finished"
) -> tuple[dict[str, Any], bool]:
    """The card with measured numbers, of the weights as they are written, and whether that is in half precision."""
    from hhat.bench.recipe import machine, versions
    from hhat.train.files import EXACT, rounded

    whole, short, half = _measured(task, finished), [], False
    if finished.tensors.keys() - set(EXACT):
        short = _measured(task, finished._replace(tensors=rounded(finished.tensors)))
        half = all(b["value"] - a["value"] < HALF_LIMIT_DB for a, b in zip(whole, short, strict=True))
    there = machine()
    return {
        **task.card(trained, finished),
        "metric": task.metric,
        "measured": short if half else whole,
        "versions": versions(),
        "machine": {name: there[name] for name in ("cpu", "gpu")},
    }, half


def _measured(task: "Task | GaussTask | SurrogateTask", finished: "Finished") -> list[dict[str, Any]]:
    """NMSE at the card's SNRs; the interval counts channels: the units of one share its paths. Of a model of the
    distortion: NMSE of its fit."""
    import torch

    from hhat.bench.metrics import mean_interval_db, squared_ratio
    from hhat.methods.solve import solve
    from hhat.train.surrogate import SurrogateTask

    if isinstance(task, SurrogateTask):
        there = task.ratios(finished)
        return [{"network": name, **mean_interval_db(ratio)._asdict()} for name, ratio in there.items()]
    rows = []
    for snr_db in task.test_snrs_db:
        ratios = []
        for batch in task.tests(snr_db):
            estimate = solve(task.method(finished, batch), batch.obs)
            ratio = squared_ratio(estimate, batch.h, len(batch.obs.op.in_shape))
            ratios.append(ratio.reshape(len(ratio), -1).mean(-1))
        rows.append({"snr_db": snr_db, **mean_interval_db(torch.cat(ratios))._asdict()})
    return rows


@contextlib.contextmanager
def _bar(total: int, words: str) -> Iterator[Any]:
    """A progress bar on stderr where that is a terminal; yields a function of (step, validation NMSE in dB)."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(words, total=total)

        def advance(step: int, valid_db: float | None) -> None:
            progress.update(bar, completed=step, description=f"{words}, validation {digits(valid_db)} dB")

        yield advance
