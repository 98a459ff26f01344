"""`hhat estimate`: a capture file in, one estimate per snapshot out, with its variance, status and score."""

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hhat.cli.common import (
    Device,
    Json,
    MaxBytes,
    Seed,
    Settings,
    Threads,
    complain,
    digits,
    duration,
    interval,
    judge,
    prepare,
    print_json,
    print_pairs,
    print_table,
    progress_bar,
)
from hhat.cli.scoring import parse_score, score_rows, squared_ratios
from hhat.cli.task import Tally, Task, file_settings, noise_words

if TYPE_CHECKING:
    from hhat.methods.auto import Choice

BATCH_ENTRIES = 2**15
"""Received samples estimated at a time: keeps the working set of the hungriest method below 0.5 GB."""
SHOWN = 20
"""Users of which the table for people has a line each; all are in --json"""


def estimate(
    file: Annotated[Path, typer.Argument(help="A capture: .h5, .npz, .mat or a Wi-Fi log.")],
    method: Annotated[str, typer.Option("--method", help="`hhat list methods`; auto chooses and says why.")] = "auto",
    prior: Annotated[
        str | None,
        typer.Option(
            "--prior", help="`hhat list priors`; by default what fits the axes. covariance: --set samples=FILE"
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="For a learned method or prior: a file that `hhat train` wrote.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="Gains of the receiving antennas, from `hhat calibrate`.")
    ] = None,
    settings: Settings = [],  # noqa: B006 - the parser takes its default from here and never changes it
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the capture with estimate/mean, var, status (.h5).")
    ] = None,
    score: Annotated[
        str | None, typer.Option("--score", help="holdout, or renoise:SNR_DB; for files without truth.")
    ] = None,
    max_bytes: MaxBytes = 8e9,
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Estimate every snapshot of a file, with its variance.

    Scores: NMSE where the file carries truth; else, where the pilots were sent twice, how well the first reception
    predicts the second (hold-out), beside the noise floor. Exits with 3 where a status is not OK.
    """
    from hhat import io
    from hhat.io.layout import layout_of
    from hhat.settings import pairs

    wanted = parse_score(score)
    given = file_settings(pairs(settings)) | ({} if weights is None else {"weights": str(weights)})
    task = Task(file, method, prior, given, seed, prepare(device, threads), max_bytes, _gains(calibration))
    with io.opened(file, max_bytes) as contents:
        layout = layout_of(contents)
        repeated = "y_repeat" in contents.fields
    if wanted == "holdout" and not repeated:
        raise ValueError(f"{file}: y_repeat: missing; a hold-out score needs the same pilots received twice")
    per_snapshot = math.prod(layout.shape[1:] if layout.batch else layout.shape)
    size = max(1, BATCH_ENTRIES // per_snapshot)
    total = layout.shape[0] if layout.batch else 1

    tally = Tally()
    document: dict[str, Any] = {"file": str(file)}
    choice: Choice | None = None
    with _sink(out, file, max_bytes) as sink, progress_bar(total, f"estimating {file.name}") as advance:
        for number, slot in enumerate(io.batches(file, size, max_bytes=max_bytes)):
            slot = task.calibrated(slot)
            choice = choice or task.choice(slot)
            found = task.solve(choice, slot.obs, tally, number)
            if number == 0:
                document |= {"kind": slot.about.kind, "method": choice.name, "why": choice.why}
                document |= {name: found.info[name] for name in ("method", "why") if name in found.info}
                document["noise_var"] = noise_words(found, slot)
                if sink is not None:
                    sink.describe(document["method"], document["why"])
            if sink is not None:
                sink.append(found, slot.obs.axes)
            if slot.truth is not None and wanted is None:
                tally.ratios.append(squared_ratios(found, slot, file))
            advance(slot.obs.y.shape[0] if layout.batch else 1)
    assert choice is not None
    wanted = wanted or ("holdout" if repeated and not tally.ratios else None)
    rows, score_status = score_rows(wanted, task, choice, tally, layout.batch, size)
    document |= {"rows": rows, "seconds_per_estimate": tally.seconds / tally.items, "status": tally.status}
    if score_status is not None:
        document["score_status"] = score_status
    if calibration is not None:
        document["calibration"] = str(calibration)
    if out is not None:
        document["out"] = str(out)
    if as_json:
        print_json(document)
    else:
        _show(document)
    judge(tally.status, file)


def _gains(path: Path | None) -> Any:
    """What `hhat calibrate` wrote; one that did not end well is used, and complained about."""
    if path is None:
        return None
    from hhat.sensing.calibration import load_calibration

    found = load_calibration(path)
    if found.status.name != "OK":
        complain(f"{path}: {found.status.name}: {found.status.text}")
    return found


def _show(document: dict[str, Any]) -> None:
    pairs = [("file", f"{document['file']} ({document['kind']})"), ("method", document["method"])]
    pairs += [("why", document["why"]), ("noise_var", document["noise_var"])]
    pairs.append(("status", ", ".join(f"{count} {name}" for name, count in document["status"].items())))
    pairs.append(("time", f"{duration(document['seconds_per_estimate'])} per estimate"))
    pairs += [("calibration", document["calibration"])] if "calibration" in document else []
    pairs += [("wrote", document["out"])] if "out" in document else []
    print_pairs(pairs)
    rows = document["rows"]
    if not rows:
        words = (
            "none: the file holds neither truth nor repeated pilots; --score renoise:SNR_DB scores it against itself"
        )
        print_pairs([("score", words)])
        return
    holdout = rows[0]["metric"] == "holdout_nmse_db"
    title = {"nmse_db": "NMSE dB", "holdout_nmse_db": "hold-out NMSE dB"}.get(
        rows[0]["metric"], f"re-noise NMSE dB at {rows[0].get('snr_db', 0):g} dB"
    )
    lines = [
        [str(row["user"]), digits(row["value"]), digits(row["floor_db"]) if holdout else interval(row), str(row["n"])]
        for row in rows[:SHOWN]
    ]
    print_table("", ("user", title, "noise floor dB" if holdout else "95 %", "n"), lines)
    if len(rows) > SHOWN:
        print_pairs([("", f"and {len(rows) - SHOWN} more; --json has all")])


def _sink(out: Path | None, file: Path, max_bytes: float) -> Any:
    if out is None:
        return contextlib.nullcontext()
    from hhat.io.estimates import estimates_file

    return estimates_file(out, file, max_bytes)
