"""Lanes on a Ray cluster, local or existing: one actor per lane, which keeps its scenario and methods."""

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle

from hhat.bench.execute import Remote
from hhat.bench.worker import Outcome, Task, Worker

try:
    import ray
    from ray.exceptions import RayActorError, RayError
except ImportError as missing:
    raise ValueError("--ray needs Ray, which is not installed: pip install hhat[ray]") from missing

LOCAL = "local"
REACH_S = 5.0


class RayLanes(Remote):
    """One actor per CPU of the cluster, or `size` of them.

    address: "local" starts a cluster on this machine for this run; "auto" finds the one running here; else host:port
             or ray://host:port of an existing one, whose machines need the same version of hhat
    Raises ValueError where no cluster answers there.
    """

    def __init__(self, address: str = LOCAL, size: int | None = None):
        self.address = address
        self._wanted = size
        self.size = size or 1
        self._actors: list[Any] = []
        self._answers: dict[int, Any] = {}
        self._payload = b""

    @contextlib.contextmanager
    def started(self, payload: bytes) -> Iterator[None]:
        mine = not ray.is_initialized()
        if mine:
            self._connect()
        try:
            self._payload = payload
            self.size = self._wanted or max(1, int(ray.cluster_resources().get("CPU", 1)))
            self._actors = [self._actor() for _ in range(self.size)]
            yield
        finally:
            for actor in self._actors:
                ray.kill(actor)
            self._actors, self._answers = [], {}
            if mine:
                ray.shutdown()

    def send(self, lane: int, task: Task) -> None:
        self._answers[lane] = self._actors[lane].attempt.remote(task)

    def ended(self, busy: Sequence[int]) -> list[tuple[int, Outcome | str]]:
        lanes = {self._answers[lane]: lane for lane in busy}
        ready, _ = ray.wait(list(lanes), num_returns=1)
        found: list[tuple[int, Outcome | str]] = []
        for answer in ready:
            try:
                found.append((lanes[answer], ray.get(answer)))
            except RayError as dead:  # a dead actor answers as well, with an error
                words = str(dead).strip().splitlines() or [type(dead).__name__]
                if not isinstance(dead, RayActorError):
                    # the cell itself raised what is no refusal: as in a serial run it ends the run
                    raise
                found.append((lanes[answer], words[-1]))
        return found

    def revive(self, lane: int) -> None:
        with contextlib.suppress(RayError):
            ray.kill(self._actors[lane])
        self._actors[lane] = self._actor()

    def _actor(self) -> Any:
        gpus = 1 if cloudpickle.loads(self._payload)[1].startswith("cuda") else 0
        return ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(_Lane).remote(self._payload)

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self.address == LOCAL:
            ray.init(num_cpus=self._wanted or os.cpu_count(), include_dashboard=False, **quiet)
            return
        _reach(self.address)
        try:
            ray.init(address=self.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as trouble:
            words = str(trouble).strip().splitlines() or [type(trouble).__name__]
            raise ValueError(f"--ray {self.address}: no Ray cluster answers there: {words[0]}") from trouble


def _reach(address: str) -> None:
    """ValueError where nothing listens at host:port: Ray itself would go on asking for minutes."""
    host, sign, port = address.removeprefix("ray://").rpartition(":")
    if not sign:
        return
    try:
        socket.create_connection((host, int(port)), REACH_S).close()
    except (OSError, ValueError) as trouble:
        raise ValueError(f"--ray {address}: no Ray cluster answers there: {trouble}") from trouble


class _Lane:
    """The actor."""

    def __init__(self, payload: bytes):
        import torch

        torch.set_num_threads(1)
        experiment, device = cloudpickle.loads(payload)
        self._worker = Worker(experiment, device)

    def attempt(self, task: Task) -> Outcome:
        return self._worker.attempt(task)
