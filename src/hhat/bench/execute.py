"""Who runs the cells: this process, local worker processes, or a Ray cluster. Numbers do not depend on it.

Each lane runs one cell at a time on its own `Worker`. A worker that dies loses the cell it was in; that cell is run
again on a new one, and given up after MAX_TRIES deaths.
"""

import abc
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import wait

import cloudpickle

from hhat.bench.experiment import Experiment
from hhat.bench.worker import Failed, Outcome, Task, Worker
from hhat.decentralized.child import Child

MAX_TRIES = 3
"""Deaths of workers over one cell before it is given up: more is a cell that kills, not an accident"""

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
        self._children: list[Child] = []
        self._payload = b""

    @contextlib.contextmanager
    def started(self, payload: bytes) -> Iterator[None]:
        self._payload = payload
        try:
            for _ in range(self.size):
                self._children.append(self._start())
            for child in self._children:
                child.ready()
            yield
        finally:
            for child in self._children:
                child.stop()
            self._children.clear()

    def send(self, lane: int, task: Task) -> None:
        with contextlib.suppress(OSError):  # dead: `ended` finds its pipe at its end
            self._children[lane].send(task)

    def ended(self, busy: Sequence[int]) -> list[tuple[int, Outcome | str]]:
        pipes = {self._children[lane].pipe: lane for lane in busy}
        found: list[tuple[int, Outcome | str]] = []
        for pipe in wait(list(pipes)):
            lane = pipes[pipe]  # type: ignore[index]
            try:
                answer = self._children[lane].receive()
            except (EOFError, OSError):
                answer = self._children[lane].death()
            if isinstance(answer, Exception):  # raised here, as it would be in a serial run
                raise answer
            found.append((lane, answer))
        return found

    def revive(self, lane: int) -> None:
        self._children[lane].stop()
        self._children[lane] = self._start()
        self._children[lane].ready()

    def _start(self) -> Child:
        return Child(cloudpickle.dumps(partial(_attempts, self._payload)))


def _attempts(payload: bytes) -> Callable[[Task], Outcome]:
    """What a worker process does with the tasks it is sent."""
    experiment, device = cloudpickle.loads(payload)
    return Worker(experiment, device).attempt
