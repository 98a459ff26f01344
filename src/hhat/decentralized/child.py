"""A worker process behind a pipe; it ends with the process that started it, however that ends."""

import contextlib
import ctypes
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import torch

STOP_S = 5.0
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


class Child:
    """Runs `make()` in a process of its own, then handler(message) -> answer for every message, in order.

    make: `Callable[[], Callable[[Any], Any]]` as cloudpickle bytes, so that it may come from a notebook
    An exception of the handler is its answer. `send` and `receive` raise EOFError or OSError once the process is dead,
    ValueError where it never came up.
    """

    def __init__(self, make: bytes, threads: int = 1):
        # spawned, not forked: a fork would copy torch's threads in whatever state they are
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        self.pipe: Connection = mine
        self._up = False
        # a process's death signal follows the thread that started it: of any but the first that may end early
        bound = threading.current_thread() is threading.main_thread()
        self._process = context.Process(target=_serve, args=(theirs, make, threads, bound), daemon=True)
        with _uninterrupted():
            self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def ready(self) -> None:
        """Wait until it is up. ValueError with the reason where it cannot start: it would not the next time either."""
        if self._up:
            return
        try:
            said = cloudpickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            said = "it ended at once; a script that starts workers needs `if __name__ == '__main__':` around its run"
        if said:
            raise ValueError(f"a worker cannot start: {said}")
        self._up = True

    def send(self, message: Any) -> None:
        # as bytes: the pipe's own way shares a tensor's memory, which is lost with the worker
        self.pipe.send_bytes(cloudpickle.dumps(message))

    def receive(self) -> Any:
        self.ready()
        return cloudpickle.loads(self.pipe.recv_bytes())

    def death(self) -> str:
        """In words, once the pipe has ended."""
        self._process.join(STOP_S)
        return f"exit code {self._process.exitcode}"

    def stop(self) -> None:
        self.pipe.close()
        self._process.terminate()
        self._process.join(STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


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


def _serve(pipe: Connection, make: bytes, threads: int, bound: bool) -> None:
    """The process: "" or why it cannot start, then an answer to every message, until its parent ends."""
    if bound and sys.platform == "linux":
        # in the middle of an answer as well; elsewhere the pipe's end does it, after the answer
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    torch.set_num_threads(threads)
    try:
        handler: Callable[[Any], Any] = cloudpickle.loads(make)()
    except Exception as broken:  # whatever a user's module raises as it is imported
        pipe.send_bytes(cloudpickle.dumps(f"{type(broken).__name__}: {broken}"))
        return
    pipe.send_bytes(cloudpickle.dumps(""))
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            message = cloudpickle.loads(pipe.recv_bytes())
            try:
                answer = handler(message)
            except Exception as broken:  # handed over: whoever asked decides what it means
                answer = broken
            pipe.send_bytes(cloudpickle.dumps(answer))
