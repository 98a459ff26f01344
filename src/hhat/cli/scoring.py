"""The rows that `hhat estimate` reports: NMSE against the truth, or hold-out and re-noise scores without one."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hhat.cli.task import Tally, Task

if TYPE_CHECKING:
    from torch import Tensor

    from hhat.methods.auto import Choice
    from hhat.types import Estimate, Slot

DRAWS = 20
"""Noise draws of a re-noise score"""


LARGEST_SNR_DB = 300.0
"""10^(30) still fits single precision."""


def parse_score(text: str | None) -> str | None:
    """None, "holdout" or the SNR in dB of a re-noise score as text."""
    if text is None or text == "holdout":
        return text
    name, _, value = text.partition(":")
    try:
        if name == "renoise" and abs(float(value)) <= LARGEST_SNR_DB:
            return value
    except ValueError:
        pass
    raise ValueError(f"--score: expected holdout or renoise:SNR_DB, got '{text}'")


def score_rows(
    wanted: str | None, task: Task, choice: "Choice", tally: Tally, batch: tuple[str, ...], size: int
) -> tuple[list[dict[str, Any]], dict[str, int] | None]:
    """Rows, and how the estimates ended that were made for the score alone (None: there were none).

    wanted: "holdout", the SNR of a re-noise score, or None: NMSE where the tally has it, else nothing
    batch:  names of the file's batch axes; size: snapshots that are estimated at a time
    """
    if wanted == "holdout":
        return _holdout_rows(task, choice, batch)
    if wanted is not None:
        return _renoise_rows(task, choice, batch, float(wanted), size)
    return (_truth_rows(tally, batch) if tally.ratios else []), None


def squared_ratios(found: "Estimate", slot: "Slot", file: Path) -> "Tensor":
    from hhat.bench.metrics import squared_ratio

    try:
        return squared_ratio(found, slot.truth)
    except ValueError as wrong:
        raise ValueError(f"{file}: {wrong}") from None


def _truth_rows(tally: Tally, batch: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row; one per user where an axis has that name."""
    from hhat.bench.metrics import mean_interval_db

    rows = []
    for user, ratios in enumerate(_by_user(tally.ratios, batch, whole=True)):
        value = mean_interval_db(ratios)
        rows.append({"user": user, "metric": "nmse_db", **value._asdict()})
    return rows


def _holdout_rows(task: Task, choice: "Choice", batch: tuple[str, ...]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    from hhat import io
    from hhat.bench.scores import holdout

    tally = Tally()
    pair = io.repeats(task.file, max_bytes=task.max_bytes)
    assert pair is not None
    pair = task.calibrated(pair[0]), task.calibrated(pair[1])
    found = holdout(pair, lambda obs: task.solve(choice, obs, tally, "holdout"))
    values = [_by_user([10 ** (part / 10)], batch, whole=False) for part in found]
    rows = [
        {"user": user, "metric": "holdout_nmse_db", "value": _db(nmse), "floor_db": _db(floor), "n": nmse.numel()}
        for user, (nmse, floor) in enumerate(zip(*values, strict=True))
    ]
    return rows, tally.status


def _renoise_rows(
    task: Task, choice: "Choice", batch: tuple[str, ...], snr_db: float, size: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    from hhat import io
    from hhat.bench.scores import renoise
    from hhat.random import generator

    tally, ratios = Tally(), []
    for number, slot in enumerate(io.batches(task.file, max(1, size // DRAWS), max_bytes=task.max_bytes)):
        gen = generator("renoise", task.seed, number)
        slot = task.calibrated(slot)
        db = renoise(slot, snr_db, gen, lambda obs, n=number: task.solve(choice, obs, tally, "renoise", n), DRAWS)
        ratios.append(10 ** (db / 10))
    rows = [
        {"user": user, "metric": "renoise_nmse_db", "value": _db(mine), "n": mine.numel() * DRAWS, "snr_db": snr_db}
        for user, mine in enumerate(_by_user(ratios, batch, whole=False))
    ]
    return rows, tally.status


def _by_user(parts: "list[Tensor]", batch: tuple[str, ...], whole: bool) -> "list[Tensor]":
    """Values per snapshot, (*batch), cut along the axis `user`.

    A file without such an axis is one user's where `whole`; else each snapshot of its first axis counts as a user.
    """
    import torch

    values = torch.cat(parts) if batch else parts[0].reshape(1)
    if "user" in batch:
        values = values.movedim(batch.index("user"), 0)
    elif whole:
        return [values.flatten()]
    return [part.reshape(-1) for part in values]


def _db(ratios: "Tensor") -> float:
    mean = float(ratios.double().mean())
    return 10 * math.log10(mean) if mean > 0 else -math.inf
