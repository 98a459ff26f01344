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
from hhat.io.errors import InputError
from hhat.io.fields import MAX_BYTES
from hhat.io.layout import layout_of
from hhat.methods.defaults import choice_for
from hhat.types import Estimate, Slot

BLOCK = 20
"""Snapshots, or draws of added noise, that are estimated together"""
QUICK_BLOCKS = 3
SLOW = ("omp", "off-grid", "uamp")
"""Left to `full` where no experiment names them"""
SHORT = 6
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
            slot = io.read(self.path, **self._where(start, n), max_bytes=self.max_bytes)
            self._energetic("truth/h", slot.truth.h, len(slot.obs.op.in_shape), start)
            return slot
        if self.score == "holdout":
            pair = io.repeats(self.path, **self._where(start, n), max_bytes=self.max_bytes)
            assert pair is not None
            self._energetic("y_repeat", pair[1].obs.y, len(pair[1].obs.op.out_shape), start)
            return Slot(Reference(pair[1].obs.y, noise_floor(pair)), pair[0].obs, pair[0].about)
        first = start % self._rows
        rows = min(n, self._rows - first)
        copies = max(1, n // self._rows)  # of a file shorter than a block, as many draws as make one
        slot = io.read(self.path, **self._where(first, rows), max_bytes=self.max_bytes)
        self._energetic("y", slot.obs.y, len(slot.obs.op.out_shape), first)
        return Slot(Reference(slot.obs.y, None), renoised(slot.obs, self.snr_db, gen, copies), slot.about)

    def _energetic(self, name: str, x: Tensor, events: int, start: int) -> None:
        """An error is measured relative to the energy of this: InputError where a snapshot has none."""
        energy = x.abs().square().sum(tuple(range(-events, 0))).flatten()
        if not bool((energy > 0).all()):
            first = start + int((energy <= 0).nonzero()[0])
            raise InputError(self.path, f"snapshot {first} has no energy; an NMSE is not defined for it", name)

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
    methods, left_out = _methods(slot, declared)
    quick = [label for label in methods if declared is not None or label not in SLOW]
    name = Path(path).name
    if not methods:
        raise ValueError(f"{name}: no method of {declared.name if declared else 'the library'} can be run on a file")
    points: dict[str, Point] = {repr(point): point for point, _ in scenes}
    by_point: Mapping[str, CaptureFile] = {repr(point): scene for point, scene in scenes}
    rows = max(scene.count for _, scene in scenes)
    truth = slot.truth is not None
    metrics = ["nmse_db", "nmse_median_db", "variance_ratio"] if truth else ["renoise_nmse_db"]
    if any(scene.score == "holdout" for _, scene in scenes):
        metrics += ["holdout_nmse_db", "holdout_floor_db"]
    blocks = -(-rows // BLOCK)
    note = "Every method with the prior and the basis that fit the file's axes."
    if left_out:
        note += f" Left out: {'; '.join(f'{label} ({why})' for label, why in left_out.items())}."
    return Experiment(
        # two files of one name, and two choices of methods, are two experiments
        name=f"user/{Path(path).stem}-{scenes[0][1].content[:SHORT]}{f'/{declared.name}' if declared else ''}",
        title=f"Methods compared on {name}",
        scenario=functools.partial(_at, by_point),
        methods={label: functools.partial(_given, method) for label, method in methods.items()},
        profiles={
            "quick": Profile(tuple(points.values()), min(blocks, QUICK_BLOCKS), BLOCK, quick or None),
            "full": Profile(tuple(points.values()), blocks, BLOCK),
        },
        metrics=metrics,
        score=score_file,
        note=note,
        example=truth,
    )


def _at(scenes: Mapping[str, CaptureFile], point: Point) -> CaptureFile:
    return scenes[repr(dict(point))]


def _given(method: Any, scene: CaptureFile) -> Any:
    """What fits the file's axes fits every part of it."""
    return method


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


def _methods(slot: Slot, declared: Experiment | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The methods that take this file, by label, and why the others are left out."""
    methods: dict[str, Any] = {}
    left_out: dict[str, str] = {}
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
            methods[label] = method
    return methods, left_out


def _digest(path: Path) -> str:
    content = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            content.update(piece)
    return content.hexdigest()
