"""kill -9 at twenty random instants of a 200-cell sweep: all cells, none twice, equal to an unbroken run to the bit."""

import contextlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hhat.bench.run import complete
from hhat.bench.store import FILE, Store
from tests.units.bench_sweep import CELL_S, CELLS, EXPERIMENT
from tests.units.test_bench_run import blobs

KILLS = 20
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}


def stored(runs: Path) -> set[str]:
    if not (runs / FILE).is_file():
        return set()
    with Store(runs, create=False) as store:
        return store.keys()


def leg(runs: Path, lanes: str, delay_s: float | None) -> list[str]:
    """Runs the sweep until it ends, or for so long after its first cell; the keys it stored."""
    command = [sys.executable, "-m", "tests.units.bench_sweep", str(runs), lanes]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        told = [process.stdout.readline()]
        if delay_s is not None:
            time.sleep(delay_s)
            process.kill()
        told += process.stdout.readlines()
        code = process.wait()
    # in a reader's hands the sweep's own session would be left of a Ray cluster: its daemons end with their driver
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert code == (0 if delay_s is None else -signal.SIGKILL) or len(stored(runs)) == CELLS
    return [line.strip() for line in told if line.endswith("\n") and line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("lanes", ["serial", "processes", "ray"])
def test_a_sweep_killed_at_twenty_instants_ends_whole(tmp_path, lanes):
    if lanes == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install hhat[ray]")
    order, seen = random.Random(lanes), []
    width = 2 * CELLS / KILLS * CELL_S * 0.8 / (1 if lanes == "serial" else 2)
    for _ in range(KILLS):
        before = stored(tmp_path / "broken")
        now = leg(tmp_path / "broken", lanes, order.uniform(0, width))
        assert before.isdisjoint(now) and set(now) <= stored(tmp_path / "broken")
        seen.append(len(stored(tmp_path / "broken")) - len(before))
    assert sum(seen) < CELLS, "the sweep ended before its last kill"
    print(f"{lanes}: cells between kills {seen}")
    leg(tmp_path / "broken", lanes, None)
    complete(EXPERIMENT, "quick", tmp_path / "whole", progress=False)
    assert len(blobs(tmp_path / "whole")) == CELLS
    assert blobs(tmp_path / "broken") == blobs(tmp_path / "whole")
