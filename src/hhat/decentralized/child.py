"""A worker process behind a pipe; it ends with the process that started it, however that ends."""

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import torch

STOP_S = 5.0


class Child:
    """Runs `make()` in a process of its own, then handler(message) -> answer for every message, in order.

    make: `Callable[[], Callable[[Any], Any]]` as cloudpickle bytes, so that it may come from a notebook
    An exception of the handler is its answer. `send` and `receive` raise EOFError or OSError once the process is dead.
    """

    def __init__(self, make: bytes, threads: int = 1):
        # spawned, not forked: a fork would copy torch's threads in whatever state they are
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        self.pipe: Connection = mine
        self._process = context.Process(target=_serve, args=(theirs, make, threads), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, message: Any) -> None:
        # as bytes: the pipe's own way shares a tensor's memory, which is lost with the worker
        self.pipe.send_bytes(cloudpickle.dumps(message))

    def receive(self) -> Any:
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


def _serve(pipe: Connection, make: bytes, threads: int) -> None:
    torch.set_num_threads(threads)
    handler: Callable[[Any], Any] = cloudpickle.loads(make)()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            message = cloudpickle.loads(pipe.recv_bytes())
            try:
                answer = handler(message)
            except Exception as broken:  # handed over: whoever asked decides what it means
                answer = broken
            pipe.send_bytes(cloudpickle.dumps(answer))
