"""Who runs the cells: this process, local worker processes, or a Ray cluster. Numbers do not depend on it.

Each lane runs one cell at a time on its own `Worker`. A worker that dies loses the cell it was in; that cell is run
again on a new one, and given up after MAX_TRIES deaths.
"""

import abc
import contextlib
import ctypes
import multiprocessing
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle
import torch

from hhat.bench.experiment import Experiment
from hhat.bench.worker import Failed, Outcome, Task, Worker

MAX_TRIES = 3
"""Deaths of workers over one cell before it is given up: more is a cell that kills, not an accident"""
STOP_S = 5.0
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""

Take = Callable[[int], Task | None]
"""lane -> its next task, or None where there is nothing to hand out now"""


class Lanes(abc.ABC):
    """A fixed number of places where cells run."""

    @abc.abstractmethod
    def outcomes(self, experiment: Experiment, device: str, take: Take) -> Iterator[Outcome]:
        """What became of each task that `take` hands out, as it ends; the next `take` comes after it was used."""


class Serial(Lanes):
    """This process, one cell after the other."""

    def outcomes(self, experiment: Experiment, device: str, take: Take) -> Iterator[Outcome]:
        worker = Worker(experiment, device)
        while (task := take(0)) is not None:
            yield worker.attempt(task)


class Remote(Lanes):
    """Lanes whose workers live elsewhere and may die."""

    size: int

    def outcomes(self, experiment: Experiment, device: str, take: Take) -> Iterator[Outcome]:
        try:
            # by value: an experiment may hold functions that only the caller's module or notebook knows
            payload = cloudpickle.dumps((experiment, device))
        except Exception as trouble:  # TypeError, PicklingError, or what an object of the user raises
            raise ValueError(f"{experiment.name}: cannot be sent to workers: {trouble}") from trouble
        busy: dict[int, Task] = {}
        again: list[Task] = []
        deaths: Counter[str] = Counter()
        with self.started(payload):
            while True:
                for lane in range(self.size):
                    task = None if lane in busy else again.pop() if again else take(lane)
                    if task is not None:
                        self.send(lane, task)
                        busy[lane] = task
                if not busy:
                    return
                for lane, outcome in self.ended(sorted(busy)):
                    task = busy.pop(lane)
                    if isinstance(outcome, str):
                        self.revive(lane)
                        deaths[task.key] += 1
                        if deaths[task.key] < MAX_TRIES:
                            again.append(task)
                            continue
                        words = f"{experiment.name}: {task.method} at {task.point}: its worker died {MAX_TRIES} times"
                        outcome = Failed(task, f"{words}: {outcome}")
                    yield outcome

    @abc.abstractmethod
    def started(self, payload: bytes) -> contextlib.AbstractContextManager[None]:
        """All lanes up inside, none of them left after."""

    @abc.abstractmethod
    def send(self, lane: int, task: Task) -> None:
        """Give an idle lane its task; a lane that is dead says so in `ended`."""

    @abc.abstractmethod
    def ended(self, busy: Sequence[int]) -> list[tuple[int, Outcome | str]]:
        """Wait for at least one busy lane: its outcome, or in words how its worker died."""

    @abc.abstractmethod
    def revive(self, lane: int) -> None:
        """A new worker in place of a dead one."""


class Processes(Remote):
    """Worker processes on this machine; they end with the process that started them, however it ends."""

    def __init__(self, size: int):
        if size < 1:
            raise ValueError(f"workers: expected at least 1, got {size}")
        self.size = size
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._payload = b""

    @contextlib.contextmanager
    def started(self, payload: bytes) -> Iterator[None]:
        self._payload = payload
        try:
            for lane in range(self.size):
                self._processes.append(None)
                self._pipes.append(self._start(lane))
            for lane in range(self.size):
                self._ready(lane)
            yield
        finally:
            for lane in range(len(self._pipes)):
                self._stop(lane)
            self._pipes.clear()
            self._processes.clear()

    def send(self, lane: int, task: Task) -> None:
        with contextlib.suppress(OSError):  # dead: `ended` finds its pipe at its end
            self._pipes[lane].send(task)

    def ended(self, busy: Sequence[int]) -> list[tuple[int, Outcome | str]]:
        pipes = {self._pipes[lane]: lane for lane in busy}
        found: list[tuple[int, Outcome | str]] = []
        for pipe in wait(list(pipes)):
            lane = pipes[pipe]  # type: ignore[index]
            try:
                answer = cloudpickle.loads(self._pipes[lane].recv_bytes())
            except (EOFError, OSError):
                self._processes[lane].join(STOP_S)
                answer = f"exit code {self._processes[lane].exitcode}"
            if isinstance(answer, Exception):
                raise answer
            found.append((lane, answer))
        return found

    def revive(self, lane: int) -> None:
        self._stop(lane)
        self._pipes[lane] = self._start(lane)
        self._ready(lane)

    def _ready(self, lane: int) -> None:
        """Wait for a worker's first word. One that cannot start will not start the next time either."""
        try:
            said = cloudpickle.loads(self._pipes[lane].recv_bytes())
        except (EOFError, OSError):
            said = "it ended at once; a script that starts workers needs `if __name__ == '__main__':` around its run"
        if said:
            raise ValueError(f"a worker cannot start: {said}")

    def _start(self, lane: int) -> Connection:
        # spawned, not forked: a fork would copy torch's threads in whatever state they are
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._payload), daemon=True)
        with _uninterrupted():
            process.start()
        theirs.close()
        self._processes[lane] = process
        return mine

    def _stop(self, lane: int) -> None:
        self._pipes[lane].close()
        process = self._processes[lane]
        process.terminate()
        process.join(STOP_S)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A process started inside never sees Ctrl-C: the one that started it does, and ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection, payload: bytes) -> None:
    """The worker process: "" or why it cannot start, then tasks in, outcomes out, until its parent ends."""
    _die_with_parent()
    torch.set_num_threads(1)
    try:
        experiment, device = cloudpickle.loads(payload)
    except Exception as broken:  # whatever a user's module raises as it is imported
        pipe.send_bytes(cloudpickle.dumps(f"{type(broken).__name__}: {broken}"))
        return
    worker = Worker(experiment, device)
    pipe.send_bytes(cloudpickle.dumps(""))
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            task = pipe.recv()
            try:
                answer = worker.attempt(task)
            except Exception as broken:  # handed over and raised there, as it would be in a serial run
                answer = broken
            # as bytes: the pipe's own way shares a tensor's memory, which is lost with the worker
            pipe.send_bytes(cloudpickle.dumps(answer))


def _die_with_parent() -> None:
    """Linux ends this process with its parent, in the middle of a cell as well; elsewhere the pipe's end does, after
    the cell."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
