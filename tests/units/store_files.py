"""Cells, stores and small file systems for the tests of the store."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from hhat.bench.store import FILE, Cell, Run, Store
from hhat.random import generator

MACHINE = {"cpu": "a cpu", "cores": "2", "gpu": "none", "system": "any"}


def key_of(number: int) -> str:
    return hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()


def cell(key: str, value: float = 1.0, count: int = 7, block: int = 0) -> Cell:
    """A cell whose values depend on its key and on `value`."""
    arrays = {
        "ratio": value * torch.rand(count, generator=generator("cell", key)),
        "deciles": torch.rand(1, 2, 10, generator=generator("deciles", key)),
    }
    return Cell(
        key, "x/y", "ls", {"snr_db": 10.0, "profile": "Å"}, block, 7, count, arrays, {"OK": count}, 0.5, 0.25, "cpu",
        1, {"hhat": "0.1.0+abc", "torch": "2"}, MACHINE,
    )  # fmt: skip


def fill(runs_dir: Path, numbers: range, value: float = 1.0, run: str = "run", count: int = 7) -> list[str]:
    """Store cells of these numbers and a run that names them; their keys."""
    keys = [key_of(number) for number in numbers]
    with Store(runs_dir) as store:
        for number, key in zip(numbers, keys, strict=True):
            store.put(cell(key, value, count, block=number))
        store.put_run(Run(run, "x/y", "quick", {"metrics": ["nmse_db"], "seed": 7}, MACHINE, tuple(keys)))
    return keys


def contents(runs_dir: Path) -> dict[str, tuple]:
    """Everything the cells of a store hold but their times, by key."""
    with Store(runs_dir, create=False) as store:
        cells = list(store.cells(sorted(store.keys())))
    found = {}
    for one in cells:
        arrays = {name: (tuple(value.shape), value.numpy().tobytes()) for name, value in one.arrays.items()}
        found[one.key] = (one.experiment, one.method, one.point, one.block, one.seed, one.items, one.status, arrays)
    return found


def overwrite_page(runs_dir: Path, number: int, garbage: bytes | None = None, size: int = 4096) -> None:
    """Put garbage in the place of a page of the file; pages count from 1."""
    with (runs_dir / FILE).open("r+b") as file:
        file.seek((number - 1) * size)
        file.write((bytes(range(1, 252)) * 17)[:size] if garbage is None else garbage)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size in memory; skips the test where it cannot be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here: only root may")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in the folder can be written inside the block: its mount, or where we are not root its mode, says so."""
    root = os.geteuid() == 0
    places = [folder, *folder.rglob("*")]
    modes = {place: place.stat().st_mode & 0o777 for place in places}
    if root:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        for place in places:
            place.chmod(modes[place] & 0o555)
    try:
        yield
    finally:
        if root:
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        else:
            for place in places:
                place.chmod(modes[place])
