"""What `hhat bench` costs beside the estimates: trivial cells one by one, and a compute-bound sweep on two workers.

    python -m benchmarks.bench_overhead [--cells 1000] [--pairs 5]

Overhead: wall time of a serial run of trivial cells (2 x 8 channels, one product each) over their number, start of the
run included. Speed-up: wall time with one worker over that with two, alternating pairs, workers' start included.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hhat.bench.execute import Processes
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.bench.run import complete
from hhat.bench.store import Cell, Store
from hhat.bench.store.salvage import check
from hhat.bench.store.table import export
from hhat.experiments.start_demo import EXPERIMENT as DEMO
from hhat.methods.linear import LeastSquares
from hhat.ops import Identity
from hhat.random import complex_normal
from hhat.types import Channel, Observation, Slot


@dataclass(frozen=True)
class Trivial:
    """A few entries in noise."""

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        h = complex_normal((n, 2, 8), gen)
        return Slot(Channel(h), Observation(h + complex_normal((n, 2, 8), gen, var=0.1), Identity((2, 8)), 0.1))


def trivial(cells: int) -> Experiment:
    half: Any = {"one": lambda scene: LeastSquares(), "two": lambda scene: LeastSquares()}
    profile = Profile(grid({"run": tuple(range(10))}), blocks=max(1, cells // 20), block_size=1)
    return Experiment("overhead/trivial", "trivial cells", lambda point: Trivial(), half, {"quick": profile})


def busy(blocks: int) -> Experiment:
    """Sparse estimates of CDL-C at four SNRs: every cell takes about half a second of one core."""
    points = grid({"snr_db": (0, 10, 20, 30)})
    profile = Profile(points, blocks=blocks, block_size=20, methods=("gamp", "oamp", "sbl"))
    return replace(DEMO, profiles={"quick": profile})


def timed(experiment: Experiment, workers: int) -> float:
    with tempfile.TemporaryDirectory() as runs:
        began = time.perf_counter()
        complete(experiment, "quick", Path(runs), progress=False, lanes=Processes(workers) if workers else None)
        return time.perf_counter() - began


def store(count: int) -> str:
    """A store of `count` cells of 3 x 40 values: written cell by cell, read, checked, exported."""
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        arrays = {name: torch.rand(40) for name in ("ratio", "reported", "energy")}
        with Store(folder) as kept:
            with clock(spent, "put"):
                for number in range(count):
                    kept.put(Cell(f"{number:032x}", "a/b", "m", {}, number, 0, 40, arrays, {}, 1.0, 1.0, "cpu", 1, {}))
            with clock(spent, "read"):
                sum(1 for _ in kept.cells(kept.keys()))
        with clock(spent, "check"):
            check(folder)
        for suffix in ("csv", "parquet"):
            with clock(spent, suffix):
                export(folder, Path(folder) / f"cells.{suffix}")
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in spent.items())


@contextlib.contextmanager
def clock(spent: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    spent[name] = time.perf_counter() - began


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--cells", type=int, default=1000)
    asked.add_argument("--pairs", type=int, default=5)
    asked.add_argument("--blocks", type=int, default=8)
    given = asked.parse_args()
    torch.set_num_threads(1)
    timed(trivial(20), 0)  # imports
    costs = [1e3 * timed(trivial(given.cells), 0) / given.cells for _ in range(given.pairs)]
    print(f"store of 10,000 cells: {store(10_000)}")
    print(f"serial, {given.cells} trivial cells: {spelled(costs)} ms a cell")
    experiment = busy(given.blocks)
    ratios = []
    for pair in range(given.pairs):
        order = (1, 2) if pair % 2 == 0 else (2, 1)
        wall = {workers: timed(experiment, workers) for workers in order}
        ratios.append(wall[1] / wall[2])
        print(f"  one worker {wall[1]:.1f} s, two {wall[2]:.1f} s")
    print(f"two workers: {spelled(ratios)} times as fast as one")


def spelled(values: list[float]) -> str:
    return f"median {statistics.median(values):.2f} ({min(values):.2f} .. {max(values):.2f}, n = {len(values)})"


if __name__ == "__main__":
    main()
