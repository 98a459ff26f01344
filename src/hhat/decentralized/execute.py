"""Where units run: in this process, in processes of their own, or on Ray (`ray_units`). Answers are equal to the bit.

A unit that raises, dies, answers nonsense or answers after the deadline is lost for that request: its place holds a
`Lost` with the reason. Nothing waits for it, and its late answer is dropped. A ValueError is a wrong call, not a loss,
and is raised here.
"""

import abc
import itertools
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cloudpickle
import torch

from hhat.decentralized.child import Child
from hhat.decentralized.units import Lost, Message, Unit

BUSY = "still busy with an earlier request"


class Order(NamedTuple):
    """What is sent to a remote unit: the unit itself where it has not got it yet, and the request as NumPy arrays."""

    number: int
    unit: bytes | None
    request: dict[str, Any]


class Executor(abc.ABC):
    """Asks units; a context manager where it holds anything."""

    def ask(self, units: Sequence[Unit], requests: Sequence[Message]) -> list[Message | Lost]:
        """One request per unit, all at once; what came back, unit by unit, checked."""
        answers = self._ask(units, requests)
        return [unit.checked(request, answer) for unit, request, answer in zip(units, requests, answers, strict=True)]

    @abc.abstractmethod
    def _ask(self, units: Sequence[Unit], requests: Sequence[Message]) -> list[Message | Lost]: ...

    def close(self) -> None:
        """Give back processes or actors, where it holds any."""
        return

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Serial(Executor):
    """One unit after the other in this process. A deadline has no meaning here."""

    def _ask(self, units: Sequence[Unit], requests: Sequence[Message]) -> list[Message | Lost]:
        return [attempt(unit, request) for unit, request in zip(units, requests, strict=True)]


def attempt(unit: Unit, request: Message) -> Message | Lost:
    """A unit's answer; whatever breaks in it, but for a wrong call, is a loss of this unit alone."""
    try:
        return unit.answer(request)
    except ValueError:
        raise
    except Exception as broken:
        return Lost(f"{type(broken).__name__}: {broken}")


class Keeper:
    """The far side: keeps the unit it was sent last, with its factorisations, and answers orders."""

    def __init__(self):
        self._number, self._unit = -1, None

    def __call__(self, order: Order) -> dict[str, Any] | Lost:
        if order.unit is not None:
            self._number, self._unit = order.number, cloudpickle.loads(order.unit)
        if self._unit is None or order.number != self._number:
            return Lost("has not got its unit")
        answer = attempt(self._unit, unpacked(order.request))
        return answer if isinstance(answer, Lost) else packed(answer)


def _bare(unit: Unit) -> Unit:
    """The unit without what was computed of its operator: the far side does that in its own memory."""
    return replace(unit, op=unit.op.to("cpu"))


def packed(message: Message) -> dict[str, Any]:
    return {name: value.detach().cpu().resolve_conj().contiguous().numpy() for name, value in message.items()}


def unpacked(message: dict[str, Any]) -> Message:
    # memory of torch's own: the last bit of a product depends on alignment
    return {name: torch.from_numpy(value.copy()).clone() for name, value in message.items()}


class Remote(Executor):
    """Places that each keep one unit and may die or be late. A dead one is started anew for the next request.

    deadline_s: how long a request may take, all units together; None: as long as it takes (a dead unit still ends it)
    """

    def __init__(self, deadline_s: float | int | None = None):
        if deadline_s is not None and not deadline_s > 0:
            raise ValueError(f"deadline_s: expected a time > 0 or none, got {deadline_s}")
        self.deadline_s = deadline_s
        self._numbers = itertools.count()
        self._number = -1
        self._units: tuple[Unit, ...] = ()
        self._has: dict[int, int] = {}
        """place -> number of the unit it was sent last"""

    def _ask(self, units: Sequence[Unit], requests: Sequence[Message]) -> list[Message | Lost]:
        if len(units) != len(self._units) or any(a is not b for a, b in zip(units, self._units, strict=True)):
            self._units, self._number = tuple(units), next(self._numbers)
        self._start(len(units))
        began = time.monotonic()
        for place, request in enumerate(requests):
            fresh = self._has.get(place) != self._number
            order = Order(self._number, cloudpickle.dumps(_bare(units[place])) if fresh else None, packed(request))
            if self._send(place, order):
                self._has[place] = self._number
        left = None if self.deadline_s is None else max(0.0, self.deadline_s - (time.monotonic() - began))
        found = self._collect(left)
        answers: list[Message | Lost] = []
        for place, request in enumerate(requests):
            answer = found.get(place, Lost(f"no answer within {self.deadline_s} s"))
            if isinstance(answer, ValueError):
                raise answer
            if isinstance(answer, Exception):
                answer = Lost(f"{type(answer).__name__}: {answer}")
            if not isinstance(answer, Lost):
                answer = {name: value.to(request["y"].device) for name, value in unpacked(answer).items()}
            answers.append(answer)
        return answers

    @abc.abstractmethod
    def _start(self, count: int) -> None:
        """Have places 0 .. count - 1 up, dead ones started anew (and struck off `_has`)."""

    @abc.abstractmethod
    def _send(self, place: int, order: Order) -> bool:
        """Hand over without waiting; False where the place is still busy, which `_collect` then reports."""

    @abc.abstractmethod
    def _collect(self, timeout_s: float | None) -> dict[int, Any]:
        """What came back in time, by place: arrays, a Lost, or an exception."""


class Processes(Remote):
    """One process per unit on this machine, started when first asked."""

    def __init__(self, deadline_s: float | int | None = None):
        super().__init__(deadline_s)
        self._children: list[Child] = []
        self._dead: set[int] = set()
        self._threads: dict[int, threading.Thread] = {}
        self._box: queue.Queue[tuple[int, Any]] = queue.Queue()
        self._asked: set[int] = set()
        self._busy: set[int] = set()

    def pid(self, place: int) -> int | None:
        """Of the process that keeps a unit."""
        return self._children[place].pid

    def _start(self, count: int) -> None:
        for place in sorted(self._dead):
            self._children[place].stop()
            self._children[place] = self._child()
            self._has.pop(place, None)
        self._dead.clear()
        fresh = [self._child() for _ in range(len(self._children), count)]
        self._children += fresh
        for child in fresh:  # importing takes seconds: the first deadline is not to pay for it
            child.ready()
        self._box, self._asked, self._busy = queue.Queue(), set(), set()

    def _child(self) -> Child:
        return Child(cloudpickle.dumps(Keeper), torch.get_num_threads())

    def _send(self, place: int, order: Order) -> bool:
        running = self._threads.get(place)
        if running is not None and running.is_alive():
            self._busy.add(place)
            return False
        # a thread per request: a process that does not even read its pipe blocks nobody
        thread = threading.Thread(target=self._exchange, args=(place, order, self._box), daemon=True)
        self._threads[place] = thread
        self._asked.add(place)
        thread.start()
        return True

    def _exchange(self, place: int, order: Order, box: "queue.Queue[tuple[int, Any]]") -> None:
        child = self._children[place]
        try:
            child.send(order)
            answer = child.receive()
        except (EOFError, OSError, ValueError):  # the last: killed before it was up
            self._dead.add(place)
            answer = Lost("its process died")
        box.put((place, answer))

    def _collect(self, timeout_s: float | None) -> dict[int, Any]:
        found: dict[int, Any] = {place: Lost(BUSY) for place in self._busy}
        end = None if timeout_s is None else time.monotonic() + timeout_s
        for _ in self._asked:
            try:
                left = None if end is None else max(0.0, end - time.monotonic())
                place, answer = self._box.get(timeout=left)
            except queue.Empty:
                break
            found[place] = answer
        return found

    def close(self) -> None:
        for child in self._children:
            child.stop()
        self._children.clear()
        self._has.clear()
        for thread in self._threads.values():
            thread.join(1.0)
        self._threads.clear()
        self._dead.clear()
