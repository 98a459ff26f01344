"""Gains over time: an array's stream of blocks, followed by a calibrator, and how far off its gains are after each."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.bench.experiment import Measurement
from hhat.random import generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.calibration import Calibration
from hhat.sensing.calibrator import Calibrator, follow
from hhat.types import Slot, Status

COURSES = 256
"""Courses remembered, so that a later point goes on where the point before it ended"""
ENDLESS = 1 << 20
METRICS = ("e0", "e1", "expected_e0", "cpu_s")
"""Kept of each array at each point"""
Contender = Callable[[Iterator[Slot]], Iterator[Calibration]]
"""From a stream of blocks to the gains that hold after each of them"""


class Seed(NamedTuple):
    """Of an array; its gains, their walk and all its echoes follow from it."""

    seed: int


@dataclass(frozen=True)
class Stream:
    """Echoes of one array in blocks of `block` snapshots, looked at after so many snapshots. A draw is the array's
    seed: its blocks are drawn by who follows them, and one snapshot stands for them in the record."""

    after: int = 16384
    block: int = 1024
    drift_deg: float = 0.0
    snr_db: float = 15.0
    label: str = "isac stream"
    """Of the draws of its echoes"""

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        seed = int(torch.randint(1 << 31, (), generator=gen))
        return replace(self.scene(seed).draw(1, gen), truth=Seed(seed))

    def scene(self, seed: int) -> EchoScene:
        return EchoScene(snr_db=self.snr_db, drift_deg=self.drift_deg, kappa_seed=seed)

    def blocks(self, seed: int) -> Iterator[Slot]:
        return self.scene(seed).slots(ENDLESS, generator(self.label, seed), self.block)


class Errors(NamedTuple):
    """After one block. cpu_s: of the calibrator since its first block, without what it took to draw them."""

    e0: float
    e1: float
    expected_e0: float
    cpu_s: float
    status: Status


def following(calibrator: Calibrator) -> Contender:
    """One step per block."""
    return lambda blocks: (found for _, found in follow(calibrator, blocks))


def course(stream: Stream, contender: Contender, seed: int) -> Iterator[Errors]:
    """Errors after each block of one array, against the gains that it had in that block."""
    truths: deque[Tensor] = deque()
    drawing = 0.0

    def seen() -> Iterator[Slot]:
        nonlocal drawing
        blocks = stream.blocks(seed)
        while True:
            began = time.process_time()
            slot = next(blocks)
            truths.append(slot.truth.kappa)
            drawing += time.process_time() - began
            yield slot

    spent, found = 0.0, contender(seen())
    while True:
        began, before = time.process_time(), drawing
        now = next(found)
        spent += time.process_time() - began - (drawing - before)
        off = gain_errors(now.kappa, truths.popleft())
        yield Errors(float(off.e0), float(off.e1), now.expected_e0, spent, now.status)


@lru_cache(maxsize=COURSES)
def begun(stream: Stream, contender: Contender, seed: int) -> tuple[Iterator[Errors], list[Errors]]:
    """A course, and what has been taken of it."""
    return course(stream, contender, seed), []


def errors_after(stream: Stream, contender: Contender, seed: int) -> Errors:
    """After `stream.after` snapshots. ValueError where these are no whole blocks."""
    count, rest = divmod(stream.after, stream.block)
    if rest or not count:
        raise ValueError(f"after: expected a multiple of {stream.block} snapshots, got {stream.after}")
    more, taken = begun(replace(stream, after=0), contender, seed)
    while len(taken) < count:
        taken.append(next(more))
    return taken[count - 1]


def tracked(errors: Callable[[Stream, int], Errors]) -> Callable[[Stream], Measurement]:
    """A method: what `errors` says of the stream of an array's seed."""

    def method(stream: Stream) -> Measurement:
        def measure(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
            found = errors(stream, slot.truth.seed)
            values = {name: torch.tensor([getattr(found, name)]) for name in METRICS}
            return values, {found.status.name: 1}

        return Measurement(measure)

    return method


def followed(contender: Contender) -> Callable[[Stream], Measurement]:
    return tracked(lambda stream, seed: errors_after(stream, contender, seed))
