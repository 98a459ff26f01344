"""Methods compared on the user's own capture: the file takes the place of the scenario, block by block.

With truth: NMSE and calibration. Without: where the pilots were sent twice, how well the first reception predicts the
second (hold-out, beside the noise floor), and always the re-noise score: noise of known variance is added to what was
received, which is then the reference (`hhat.bench.scores`).
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hhat import io, registry
from hhat.bench.experiment import Experiment, Point, Profile, score_channel
from hhat.bench.scores import noise_floor, prediction_error, renoised
from hhat.io.fields import MAX_BYTES
from hhat.io.layout import layout_of
from hhat.methods.defaults import choice_for
from hhat.types import Estimate, Slot

BLOCK = 20
"""Snapshots, or draws of added noise, that are estimated together"""
QUICK_BLOCKS = 3
RENOISE_SNR_DB = (0.0, 5.0, 10.0, 15.0)
READ_BYTES = 2**20


class Reference(NamedTuple):
    """Stands where a truth would: what a prediction of the reception is held against.

    y:     the reference, of y's shape
    floor: the error that no prediction can beat, per batch item; None where the reference has no noise of its own
    """

    y: Tensor
    floor: Tensor | None


@dataclass(frozen=True)
class CaptureFile:
    """Snapshots of a file, as a scenario of recorded ones.

    name, content: what the file is called, and a hash of its bytes
    score:   "truth", "holdout" or "renoise"
    user:    row of the file's `user` axis; None where it has none
    snr_db:  of the noise that "renoise" adds
    """

    name: str
    content: str
    score: str
    snapshots: int | None
    user: int | None = None
    snr_db: float = 0.0
    path: Path = field(default=Path(), metadata={"recipe": False})
    max_bytes: float | int = field(default=MAX_BYTES, metadata={"recipe": False})

    @property
    def count(self) -> int:
        """How many there are to be cut into blocks; noise can be drawn without end."""
        if self.score == "renoise":
            return max(BLOCK * QUICK_BLOCKS, self._rows)
        return self._rows

    @property
    def _rows(self) -> int:
        return 1 if self.snapshots is None or self.user is not None else self.snapshots

    def part(self, start: int, n: int, gen: torch.Generator) -> Slot:
        """Snapshots start : start + n; where noise is added the file is gone through again and again."""
        if self.score == "truth":
            return io.read(self.path, **self._where(start, n), max_bytes=self.max_bytes)
        if self.score == "holdout":
            pair = io.repeats(self.path, **self._where(start, n), max_bytes=self.max_bytes)
            assert pair is not None
            return Slot(Reference(pair[1].obs.y, noise_floor(pair)), pair[0].obs, pair[0].about)
        first = start % self._rows
        rows = min(n, self._rows - first)
        copies = max(1, n // self._rows)  # of a file shorter than a block, as many draws as make one
        slot = io.read(self.path, **self._where(first, rows), max_bytes=self.max_bytes)
        return Slot(Reference(slot.obs.y, None), renoised(slot.obs, self.snr_db, gen, copies), slot.about)

    def _where(self, start: int, n: int) -> dict[str, int]:
        if self.snapshots is None:
            return {}
        return {"start": start, "count": n} if self.user is None else {"start": self.user, "count": 1}


def score_file(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    """Errors against the truth, or of the prediction over the reference's energy, per realisation."""
    if not isinstance(slot.truth, Reference):
        return score_channel(estimate, slot)
    reference = slot.truth.y.to(slot.obs.y.device)
    ratio = prediction_error(reference, slot.obs, estimate).flatten()
    if slot.truth.floor is None:
        return {"renoise_ratio": ratio}
    return {"holdout_ratio": ratio, "holdout_floor": slot.truth.floor.flatten()}


def user_experiment(path: Path, declared: Experiment | None = None, max_bytes: float | int = MAX_BYTES) -> Experiment:
    """The comparison of methods on a file.

    declared: an experiment whose labels that are registered methods are compared; None: every registered method that
              estimates snapshots and takes this file
    Raises InputError for a bad file, ValueError where no method is left.
    """
    slot, scenes = _scenes(Path(path), max_bytes)
    labels, left_out = _methods(slot, declared)
    name = Path(path).name
    if not labels:
        raise ValueError(f"{name}: no method of {declared.name if declared else 'the library'} can be run on a file")
    points: dict[str, Point] = {repr(point): point for point, _ in scenes}
    by_point: Mapping[str, CaptureFile] = {repr(point): scene for point, scene in scenes}
    rows = max(scene.count for _, scene in scenes)
    truth = slot.truth is not None
    metrics = ("nmse_db", "nmse_median_db", "variance_ratio") if truth else (
        "holdout_nmse_db", "holdout_floor_db", "renoise_nmse_db"
    )  # fmt: skip
    blocks = -(-rows // BLOCK)
    note = "Every method with the prior and the basis that fit the file's axes."
    if left_out:
        note += f" Left out: {'; '.join(f'{label} ({why})' for label, why in left_out.items())}."
    return Experiment(
        name=f"user/{Path(path).stem}",
        title=f"Methods compared on {name}",
        scenario=functools.partial(_at, by_point),
        methods={label: functools.partial(_method, label) for label in labels},
        profiles={
            "quick": Profile(tuple(points.values()), min(blocks, QUICK_BLOCKS), BLOCK),
            "full": Profile(tuple(points.values()), blocks, BLOCK),
        },
        metrics=metrics,
        score=score_file,
        note=note,
        example=truth,
    )


def _at(scenes: Mapping[str, CaptureFile], point: Point) -> CaptureFile:
    return scenes[repr(dict(point))]


def _method(label: str, scene: CaptureFile) -> Any:
    slot = scene.part(0, 1, torch.Generator())
    return choice_for(label, slot.obs, slot.about).method


def _scenes(path: Path, max_bytes: float | int) -> tuple[Slot, list[tuple[dict[str, Any], CaptureFile]]]:
    """The first snapshot, and one scenario per user and score."""
    with io.opened(path, max_bytes) as contents:
        layout = layout_of(contents)
        repeated = "y_repeat" in contents.fields
    batched = bool(layout.batch)
    first = io.read(path, start=0, count=1, max_bytes=max_bytes) if batched else io.read(path, max_bytes=max_bytes)
    snapshots = layout.shape[0] if batched else None
    users: list[int | None] = list(range(layout.shape[0])) if layout.batch[:1] == ("user",) else [None]
    shared = {"name": path.name, "content": _digest(path), "snapshots": snapshots, "path": path, "max_bytes": max_bytes}
    scenes: list[tuple[dict[str, Any], CaptureFile]] = []
    for user in users:
        place = {} if user is None else {"user": user}
        if first.truth is not None:
            scenes.append((place, CaptureFile(score="truth", user=user, **shared)))
            continue
        if repeated:
            scenes.append((place, CaptureFile(score="holdout", user=user, **shared)))
        for snr_db in RENOISE_SNR_DB:
            scene = CaptureFile(score="renoise", user=user, snr_db=snr_db, **shared)
            scenes.append(({**place, "snr_db": snr_db}, scene))
    return first, scenes


def _methods(slot: Slot, declared: Experiment | None) -> tuple[list[str], dict[str, str]]:
    """Labels that are methods which take this file, and why the others are left out."""
    labels, left_out = [], {}
    for label in registry.METHODS if declared is None else declared.methods:
        if label not in registry.METHODS:
            left_out[label] = "not a registered method"
            continue
        try:
            method = choice_for(label, slot.obs, slot.about).method
        except ValueError as refused:
            left_out[label] = str(refused)
            continue
        if method.tracks:
            left_out[label] = "a tracker over slots"
        else:
            labels.append(label)
    return labels, left_out


def _digest(path: Path) -> str:
    content = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            content.update(piece)
    return content.hexdigest()
