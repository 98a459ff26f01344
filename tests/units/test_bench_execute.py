"""Who runs the cells does not matter: same numbers from processes, dead workers replaced, refusals kept apart."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hhat.bench import execute
from hhat.bench import worker as working
from hhat.bench.execute import MAX_TRIES, Processes
from hhat.bench.experiment import Profile
from hhat.bench.run import complete, run
from tests.units.bench_fakes import EXPERIMENT, Scaled
from tests.units.test_bench_run import blobs

ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}


@dataclasses.dataclass(frozen=True)
class Deadly(Scaled):
    """Kills its process while the file `fuse` is missing; `once` lays it first."""

    fuse: str = ""
    once: bool = True

    def step(self, state, obs):
        if not Path(self.fuse).exists():
            if self.once:
                Path(self.fuse).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(state, obs)


def with_deadly(fuse: Path, once: bool):
    profile = Profile(({"snr_db": 0.0},), blocks=3, block_size=40)
    methods = {"ls": EXPERIMENT.methods["ls"], "deadly": lambda scene: Deadly(gain=1.0, fuse=str(fuse), once=once)}
    return dataclasses.replace(EXPERIMENT, methods=methods, profiles={"quick": profile})


def test_two_processes_give_the_serial_numbers_to_the_bit(tmp_path):
    rows = run(EXPERIMENT, "full", tmp_path / "serial", progress=False)
    spread = run(EXPERIMENT, "full", tmp_path / "two", progress=False, lanes=Processes(2))
    assert blobs(tmp_path / "serial") == blobs(tmp_path / "two")
    for row in (*rows, *spread):
        row["seconds"] = 0
    assert spread == rows


def test_a_dead_worker_is_replaced_and_its_cell_run_again(tmp_path):
    experiment = with_deadly(tmp_path / "fuse", once=True)
    # one worker: nobody else could do its cells
    result = complete(experiment, "quick", tmp_path / "runs", progress=False, lanes=Processes(1))
    assert (tmp_path / "fuse").exists() and result.failed == ()
    assert blobs(tmp_path / "runs").keys() == {task.key for task in result.plan.tasks}


def test_a_cell_that_always_kills_is_given_up_and_the_others_are_done(tmp_path, monkeypatch):
    assert MAX_TRIES == 3
    monkeypatch.setattr(execute, "MAX_TRIES", 2)  # each try starts a process
    experiment = with_deadly(tmp_path / "fuse", once=False)
    result = complete(experiment, "quick", tmp_path / "runs", progress=False, lanes=Processes(1))
    assert len(result.failed) == 1  # one row
    assert "died 2 times" in result.failed[0].why and "deadly at {'snr_db': 0.0}" in result.failed[0].why
    assert len(blobs(tmp_path / "runs")) == 3


def test_a_method_that_refuses_ends_its_row_alone(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Refuses(Scaled):
        def init(self, obs, gen):
            raise ValueError("not for this")

    experiment = dataclasses.replace(
        EXPERIMENT,
        methods={"no": lambda scene: Refuses(), "ls": EXPERIMENT.methods["ls"]},
        profiles={"quick": Profile(({"snr_db": 0.0},), blocks=3, block_size=5)},
    )
    for lanes in (None, Processes(1)):
        result = complete(experiment, "quick", tmp_path / str(lanes), progress=False, lanes=lanes)
        assert [why for _, why in result.failed] == ["test/white: no at {'snr_db': 0.0}: not for this"]
        assert {row["method"] for row in result.rows()} == {"ls"} and result.rows()[0]["n"] == 15
    with pytest.raises(ValueError, match="not for this"):
        run(experiment, "quick", tmp_path / "raises", progress=False)


def test_what_is_no_refusal_is_raised_as_in_a_serial_run(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Broken(Scaled):
        def init(self, obs, gen):
            raise KeyError("a defect")

    experiment = dataclasses.replace(
        EXPERIMENT, methods={"no": lambda scene: Broken()}, profiles={"quick": Profile(({"snr_db": 0.0},), 1)}
    )
    for lanes in (None, Processes(1)):
        with pytest.raises(KeyError, match="a defect"):
            complete(experiment, "quick", tmp_path / str(lanes), progress=False, lanes=lanes)


def test_numbers_of_another_version_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(working, "versions", lambda: {"hhat": "0.0.1", "torch": "1"})
    with pytest.raises(ValueError, match=r"a worker runs hhat 0\.0\.1, expected"):
        complete(EXPERIMENT, "quick", tmp_path, progress=False)
    assert blobs(tmp_path) == {}


def test_workers_end_with_a_killed_parent(tmp_path):
    command = [sys.executable, "-m", "tests.units.bench_sweep", str(tmp_path), "processes"]
    parent = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, text=True)
    parent.stdout.readline()
    children = children_of(parent.pid)
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not any(alive(pid) for pid in children):
            return
        time.sleep(0.05)
    raise AssertionError("workers outlive their parent")


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


GUARDS = {"True": (2, "__main__"), "__name__ == '__main__'": (1, "cannot load here")}
"""What the run stands behind in the script; how many workers it asks for, and what the error then has to say"""
SCRIPT = """
import sys
from dataclasses import replace
from hhat.bench.execute import Processes
from hhat.bench.run import complete
from tests.units.bench_fakes import EXPERIMENT

class Bad(str):
    def __reduce__(self):
        return (int, ("cannot load here",))

if {guard}:
    try:
        complete(replace(EXPERIMENT, note=Bad()), "quick", "runs", progress=False, lanes=Processes({workers}))
    except ValueError as wrong:
        print(wrong)
"""


@pytest.mark.parametrize("guard", GUARDS)
def test_workers_that_cannot_start_end_the_run_with_the_reason(tmp_path, guard):
    workers, word = GUARDS[guard]
    (tmp_path / "script.py").write_text(SCRIPT.format(guard=guard, workers=workers))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=120
    )
    assert "a worker cannot start: " in done.stdout and done.stdout.count("\n") == 1
    assert word in done.stdout


def test_what_cannot_be_sent_to_workers_is_said(tmp_path):
    locked = dataclasses.replace(EXPERIMENT, score=threading.Lock().__enter__)
    with pytest.raises(ValueError, match="test/white: cannot be sent to workers"):
        list(Processes(1).outcomes(locked, "cpu", lambda lane: None))


def test_at_least_one_worker_is_asked_for():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Processes(0)
