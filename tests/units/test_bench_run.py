"""The runner: right numbers, same channels for all, nothing done twice, nothing lost but the running cell."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hhat.bench import plan as planning
from hhat.bench import run as runner
from hhat.bench import worker as working
from hhat.bench.experiment import Experiment, Profile, grid, score_nothing
from hhat.bench.store import Store
from tests.units import bench_fakes
from tests.units.bench_fakes import EXPERIMENT

KEYS = {"method", "point", "metric", "value", "low", "high", "n", "seconds", "seed"}


def find(rows, method, metric, **point):
    (row,) = [r for r in rows if r["method"] == method and r["metric"] == metric and r["point"] == point]
    return row


def blobs(runs_dir):
    """Everything a cell holds but its times, by key."""
    with Store(runs_dir, create=False) as store:
        cells = list(store.cells(sorted(store.keys())))
    bits = {}
    for cell in cells:
        arrays = {name: value.numpy().tobytes() for name, value in cell.arrays.items()}
        bits[cell.key] = (cell.method, cell.point, cell.block, cell.status, arrays)
    return bits


def executed(monkeypatch):
    """Counts the cells that are really run."""
    seen, execute = [], working.Worker.execute
    monkeypatch.setattr(working.Worker, "execute", lambda self, task: (seen.append(task), execute(self, task))[1])
    return seen


def test_rows_hold_the_expected_numbers(tmp_path):
    rows = runner.run(EXPERIMENT, "full", tmp_path, progress=False)
    assert all(set(row) == KEYS for row in rows)
    ls, best = (find(rows, name, "nmse_db", snr_db=10.0) for name in ("ls", "best"))
    # expected errors per entry: 0.1 and 0.1/1.1; pooled, since the mean of ratios sits a little above
    pooled = find(rows, "ls", "nmse_pooled_db", snr_db=10.0)
    assert pooled["low"] - 0.1 < -10 < pooled["high"] + 0.1
    assert best["value"] < ls["value"] and ls["n"] == 160 and ls["seed"] == 0 and ls["seconds"] > 0
    honest = find(rows, "best", "variance_ratio", snr_db=0.0)
    assert honest["low"] < honest["value"] < honest["high"] and honest["value"] == pytest.approx(1, abs=0.1)
    assert find(rows, "boastful", "variance_ratio", snr_db=0.0)["value"] == pytest.approx(4, abs=0.4)
    assert not [r for r in rows if r["method"] == "silent" and r["metric"] == "variance_ratio"]
    assert find(rows, "genie", "nmse_db", snr_db=5.0)["value"] == pytest.approx(
        find(rows, "best", "nmse_db", snr_db=5.0)["value"], abs=1e-5
    )
    assert runner.rows(EXPERIMENT, "full", tmp_path) == rows


def test_all_methods_and_all_points_see_the_same_channels(tmp_path):
    seen = {}

    @dataclasses.dataclass(frozen=True)
    class Spy(bench_fakes.Scaled):
        name: str = ""

        def init(self, obs, gen):
            seen.setdefault((self.name, float(obs.noise_var.max())), []).append((obs.y.clone(), gen.initial_seed()))
            return super().init(obs, gen)

    experiment = dataclasses.replace(
        EXPERIMENT,
        methods={name: lambda scene, name=name: Spy(gain=1.0, name=name) for name in ("one", "two")},
        profiles={"quick": Profile(grid({"snr_db": (0.0, 10.0)}), blocks=2, block_size=3)},
    )
    runner.run(experiment, "quick", tmp_path, progress=False)
    one, two = ([v for (n, _), v in seen.items() if n == name] for name in ("one", "two"))
    for (y1, g1), (y2, g2) in zip(one[0][-2:] + one[1], two[0][-2:] + two[1], strict=True):
        assert torch.equal(y1, y2) and g1 == g2
    with Store(tmp_path) as store:
        energy = {}
        for cell in store.cells(store.keys()):
            energy.setdefault(cell.block, set()).add(tuple(cell.arrays["energy"].tolist()))
    assert len(energy) == 2 and all(len(kinds) == 1 for kinds in energy.values())
    assert energy[0] != energy[1]


def test_a_second_run_does_nothing_and_profiles_share_blocks(tmp_path, monkeypatch):
    seen = executed(monkeypatch)
    assert len(runner.missing(EXPERIMENT, "quick", tmp_path / "runs")) == 18 and not (tmp_path / "runs").exists()
    first = runner.run(EXPERIMENT, "quick", tmp_path, progress=False)
    assert len(seen) == 2 * 3 * 3
    assert runner.run(EXPERIMENT, "quick", tmp_path, progress=False) == first and len(seen) == 18
    assert runner.missing(EXPERIMENT, "quick", tmp_path) == []
    # full: 3 points x 4 blocks x 5 methods, of which quick has 18
    assert len(runner.missing(EXPERIMENT, "full", tmp_path)) == 60 - 18


def test_a_deleted_cell_comes_back_equal_to_the_bit(tmp_path):
    runner.run(EXPERIMENT, "quick", tmp_path, progress=False)
    before = blobs(tmp_path)
    gone = sorted(before)[::4]
    with Store(tmp_path) as store:
        store.delete(gone)
    assert {task.key for task in runner.missing(EXPERIMENT, "quick", tmp_path)} == set(gone)
    runner.run(EXPERIMENT, "quick", tmp_path, progress=False)
    assert blobs(tmp_path) == before


def test_a_changed_recipe_makes_new_cells(tmp_path, monkeypatch):
    runner.run(EXPERIMENT, "quick", tmp_path, progress=False)
    quick = EXPERIMENT.profiles["quick"]
    methods = {**EXPERIMENT.methods, "ls": lambda scene: bench_fakes.Scaled(gain=0.99)}
    changes = {
        6: dataclasses.replace(EXPERIMENT, methods=methods),
        18: dataclasses.replace(EXPERIMENT, seed=1),
        17: dataclasses.replace(EXPERIMENT, profiles={"quick": dataclasses.replace(quick, block_size=20)}),
    }
    assert len(runner.missing(changes[6], "quick", tmp_path)) == 6
    assert len(runner.missing(changes[18], "quick", tmp_path)) == 18
    assert len(runner.missing(changes[17], "quick", tmp_path)) == 18
    again = runner.run(changes[18], "quick", tmp_path, progress=False)
    first = runner.rows(EXPERIMENT, "quick", tmp_path)
    assert {row["seed"] for row in again} == {1} and {row["seed"] for row in first} == {0}
    assert again[0]["value"] != first[0]["value"]
    monkeypatch.setattr(planning, "code_version", lambda: "0.1.0+other")
    assert len(runner.missing(EXPERIMENT, "quick", tmp_path)) == 18


SLOW = """
import sys, time
from tests.units import bench_fakes
from hhat.bench import run as runner
from hhat.bench.worker import Worker
execute = Worker.execute
def slowly(self, task):
    print(task.key, flush=True)
    time.sleep(0.05)
    return execute(self, task)
Worker.execute = slowly
runner.run(bench_fakes.EXPERIMENT, "quick", sys.argv[1], progress=False)
"""


def test_a_killed_process_loses_only_the_running_cell(tmp_path, monkeypatch):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path / "broken")], env=env, stdout=subprocess.PIPE, text=True
    )
    started = [process.stdout.readline() for _ in range(6)]
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    started += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    kept = set(blobs(tmp_path / "broken"))
    assert len(started) >= 6 and {line.strip() for line in started[:-1]} <= kept and len(kept) < 18
    seen = executed(monkeypatch)
    runner.run(EXPERIMENT, "quick", tmp_path / "broken", progress=False)
    assert {task.key for task in seen}.isdisjoint(kept) and len(seen) == 18 - len(kept)
    runner.run(EXPERIMENT, "quick", tmp_path / "whole", progress=False)
    assert blobs(tmp_path / "broken") == blobs(tmp_path / "whole")


SHOWN = """
import sys
from tests.units import bench_fakes
from hhat.bench import run as runner
runner.run(bench_fakes.EXPERIMENT, "quick", sys.argv[1])
"""


def test_progress_goes_to_no_pipe(tmp_path, capfd):
    runner.run(EXPERIMENT, "quick", tmp_path)
    assert capfd.readouterr() == ("", "")


def test_progress_goes_to_stderr_of_a_terminal(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "TERM": "xterm"}
    reader, writer = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", SHOWN, str(tmp_path)], env=env, stdout=subprocess.PIPE, stderr=writer, check=True
    )
    os.set_blocking(reader, False)
    seen = b""
    with contextlib.suppress(BlockingIOError):  # a terminal hands out some thousand bytes at a time
        while part := os.read(reader, 10**6):
            seen += part
    os.close(writer)
    os.close(reader)
    assert done.stdout == b"" and b"test/white quick" in seen and b"18/18" in seen


def test_throughput_is_an_experiment_like_any_other(tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr(working.torch, "set_num_threads", threads.append)
    experiment = Experiment(
        name="test/throughput",
        title="Throughput",
        scenario=lambda point: bench_fakes.White(),
        methods={"ls": bench_fakes.plain},
        profiles={"quick": Profile(grid({"batch": (1, 64), "threads": (1, 2)}), blocks=3)},
        metrics=("channels_per_s",),
        score=score_nothing,
        example=False,
    )
    rows = runner.run(experiment, "quick", tmp_path, progress=False)
    assert [row["point"] for row in rows] == list(grid({"batch": (1, 64), "threads": (1, 2)}))
    assert 2 in threads
    for row in rows:
        assert row["n"] == 3 and 0 < row["low"] < row["value"] < row["high"]
        assert row["seconds"] == pytest.approx(1 / row["value"], rel=0.9)
    with Store(tmp_path) as store:
        assert {(cell.items, cell.threads) for cell in store.cells(store.keys())} == {(1, 1), (1, 2), (64, 1), (64, 2)}


def test_threads_are_the_callers_again_after_a_run(tmp_path):
    before = torch.get_num_threads()
    experiment = dataclasses.replace(
        EXPERIMENT, profiles={"quick": Profile(({"snr_db": 0.0, "threads": before + 1},), blocks=1)}
    )
    runner.run(experiment, "quick", tmp_path, progress=False)
    assert torch.get_num_threads() == before


def test_trouble_is_said_with_its_place(tmp_path):
    with pytest.raises(ValueError, match="unknown profile 'huge'; there are: quick full"):
        runner.run(EXPERIMENT, "huge", tmp_path, progress=False)
    with pytest.raises(ValueError, match="names method 'lss'; there are: ls best"):
        profile = dataclasses.replace(EXPERIMENT.profiles["quick"], methods=("lss",))
        dataclasses.replace(EXPERIMENT, profiles={"quick": profile})
    with pytest.raises(ValueError, match="at least one point"):
        Profile((), blocks=1)
    with pytest.raises(ValueError, match="every point once"):  # its cells would count twice
        Profile(({"snr_db": 0.0, "a": 1}, {"a": 1, "snr_db": 0.0}), blocks=1)

    @dataclasses.dataclass(frozen=True)
    class Refuses(bench_fakes.Scaled):
        def init(self, obs, gen):
            raise ValueError("not for this")

    refusing = dataclasses.replace(
        EXPERIMENT, methods={"no": lambda s: Refuses()}, profiles={"quick": Profile(({"snr_db": 0.0},), 1)}
    )
    with pytest.raises(ValueError, match=r"test/white: no at \{'snr_db': 0.0\}: not for this"):
        runner.run(refusing, "quick", tmp_path, progress=False)
    unknown = dataclasses.replace(EXPERIMENT, metrics=("nmse",))
    with pytest.raises(ValueError, match="unknown metric 'nmse'"):
        runner.run(unknown, "quick", tmp_path, progress=False)


def test_two_labels_of_equal_settings_are_two_rows(tmp_path):
    experiment = dataclasses.replace(
        EXPERIMENT,
        methods={"one": bench_fakes.plain, "two": bench_fakes.plain},
        profiles={"quick": Profile(({"snr_db": 0.0},), blocks=1, block_size=5)},
        metrics=("nmse_db",),
    )
    one, two = runner.run(experiment, "quick", tmp_path, progress=False)
    assert (one["method"], two["method"]) == ("one", "two") and one["value"] == two["value"]


def test_an_array_kept_by_score_is_a_metric_of_its_name(tmp_path):
    experiment = dataclasses.replace(
        EXPERIMENT, score=lambda e, s: {"gain": e.belief.mean.abs().mean((1, 2))}, metrics=("gain",)
    )
    row = runner.run(experiment, "quick", tmp_path, progress=False)[0]
    assert row["metric"] == "gain" and row["n"] == 120 and row["low"] < row["value"] < row["high"]
