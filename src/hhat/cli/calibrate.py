"""`hhat calibrate`: antenna gains and phases from a file of unlabelled echoes."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator
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
    duration,
    prepare,
    print_json,
    print_pairs,
)

if TYPE_CHECKING:
    from hhat.sensing.calibration import Calibration
    from hhat.sensing.echoes import Echoes

BLOCK_BYTES = 2**27
"""Received samples read, and compressed, at a time"""
DECIBEL, DEGREE = 20 / math.log(10), 180 / math.pi


def calibrate(
    file: Annotated[Path, typer.Argument(help="A capture of echoes (.h5, .npz, .mat).")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Write the gains, for `hhat estimate --calibration` (.safetensors)."),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="`hhat list calibrators`.")] = "eigenvector",
    settings: Settings = [],  # noqa: B006 - the parser takes its default from here and never changes it
    max_bytes: MaxBytes = 8e9,
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Gains and phases of a receiving array from echoes that nobody labelled, with their uncertainty.

    e0 is the share of its power that a beam loses by them; e1 the same without what a common shift of all angles costs.
    Both are expected values; where the file tells the true gains, the true ones stand beside. Exits with 3 where the
    echoes do not suffice: the file written says so, and what is missing stands on stderr.
    """
    from hhat import registry
    from hhat.random import generator
    from hhat.sensing.calibrator import calibrate as run
    from hhat.settings import pairs, typed

    place = prepare(device, threads)
    if out is not None and out.suffix != ".safetensors":
        raise ValueError(f"{out}: expected a name that ends in .safetensors")
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"{out.parent}: no such folder")
    target = registry.load("calibrators", method)
    calibrator = registry.build("calibrators", method, typed(target, pairs(settings)))
    echoes, kappa = _read(file, max_bytes, place)
    began = time.perf_counter()
    with _bar(calibrator.max_steps, f"calibrating from {file.name}") as advance:
        found = run(echoes, calibrator, gen=generator("calibrate", seed), progress=advance)
    seconds = time.perf_counter() - began
    document = {"file": str(file), "method": method, "seed": seed} | _document(found, kappa) | {"seconds": seconds}
    if out is not None:
        from hhat.sensing.calibration import save_calibration

        save_calibration(out, found, {k: v for k, v in document.items() if k not in ("log_gain_sd", "phase_sd_rad")})
        document["out"] = str(out)
    if as_json:
        print_json(document)
    else:
        _show(document)
    if found.status.name != "OK":
        complain(f"{file}: {found.status.name}: {found.text}")
        raise typer.Exit(FAILED)


def _read(file: Path, max_bytes: float, device: Any) -> "tuple[Echoes, Any]":
    """The file's echoes, compressed as they are read, and its true gains where it tells them."""
    from hhat import io
    from hhat.io.layout import layout_of
    from hhat.sensing.blocks import compacted, joined, moved_to
    from hhat.sensing.echoes import Echoes

    with io.opened(file, max_bytes) as contents:
        layout = layout_of(contents)
        per_snapshot = contents.fields["y"].dtype.itemsize
        for size in layout.shape[1:] if layout.batch else layout.shape:
            per_snapshot *= size
    blocks: list[Echoes] = []
    kappa = None
    for slot in io.batches(file, max(1, int(BLOCK_BYTES // max(1, per_snapshot))), max_bytes=max_bytes):
        if not isinstance(slot.obs, Echoes):
            raise ValueError(f"{file}: holds pilots, expected echoes (u_limits); `hhat estimate` takes pilots")
        blocks.append(compacted(slot.obs))
        kappa = kappa if slot.truth is None else slot.truth.kappa
    return moved_to(joined(blocks), device), kappa


def _document(found: "Calibration", kappa: Any) -> dict[str, Any]:
    import torch

    from hhat.sensing.accuracy import gain_errors

    document: dict[str, Any] = {"antennas": len(found.kappa), "status": found.status.name, **found.info}
    document["shift_sd_u"] = found.shift_var**0.5
    document["log_gain_sd"] = found.log_gain_var.sqrt().tolist()
    document["phase_sd_rad"] = found.phase_var.sqrt().tolist()
    if kappa is not None:
        truth = kappa.reshape(-1, kappa.shape[-1])[-1]
        at = found.positions.cpu()
        errors, before = (gain_errors(k, truth, at) for k in (found.kappa.cpu(), torch.ones_like(truth)))
        document |= {"e0": float(errors.e0), "e1": float(errors.e1), "shift_u": float(errors.shift_u)}
        document["e0_uncalibrated"] = float(before.e0)
    return document


def _show(document: dict[str, Any]) -> None:
    steps = f"{document['method']}, {document['steps']} steps in {duration(document['seconds'])}"
    pairs = [("file", document["file"]), ("method", steps), ("status", document["status"])]
    if "echoes_used" in document:
        pairs.append(("echoes", f"{document['echoes_used']} of {document['snapshots']} snapshots stand out"))
        snr_db = 10 * math.log10(max(document["snr"], 1e-9))
        pairs.append(("targets", f"at {_number(snr_db)} dB in a share {_number(document['presence'])} of snapshots"))
        pairs.append(("e0 expected", f"{_number(document['expected_e0'])} (e1 {_number(document['expected_e1'])})"))
    if "e0" in document:
        words = f"{_number(document['e0'])} (e1 {_number(document['e1'])})"
        pairs.append(("e0 true", f"{words}; without calibration {_number(document['e0_uncalibrated'])}"))
    gain, phase = (_rms(document[name]) for name in ("log_gain_sd", "phase_sd_rad"))
    pairs.append(("per antenna", f"gain {_number(DECIBEL * gain)} dB, phase {_number(DEGREE * phase)} degrees rms"))
    pairs += [("wrote", document["out"])] if "out" in document else []
    print_pairs(pairs)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    return f"{value:.2e}" if 0 < abs(value) < 0.01 else f"{value:.3g}"


def _rms(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))


@contextlib.contextmanager
def _bar(total: int, words: str) -> Iterator[Any]:
    """A progress bar on stderr where that is a terminal; yields a function of (step, change)."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(words, total=total)

        def advance(step: int, change: float) -> None:
            progress.update(bar, completed=step, description=f"{words}, gains moved by {change:.1e}")

        yield advance
