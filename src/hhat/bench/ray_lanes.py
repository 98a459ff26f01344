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
READY_S = 120.0


class RayLanes(Remote):
    """One actor per CPU of the cluster, or `size` of them.

    size: at most as many lanes as the cluster has CPUs (on CUDA: GPUs) that answer within READY_S
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
        self._payload, self._device = b"", "cpu"

    @contextlib.contextmanager
    def started(self, payload: bytes) -> Iterator[None]:
        mine = not ray.is_initialized()
        if mine:
            self._connect()
        try:
            self._payload, self._device = payload, cloudpickle.loads(payload)[1]
            self._actors = self._answering([self._actor() for _ in range(self._room())])
            self.size = len(self._actors)
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

    def _room(self) -> int:
        """How many lanes the cluster can hold at all, or as many as were asked for if that is less."""
        there = int(ray.cluster_resources().get("GPU" if self._gpus() else "CPU", 0))
        if there < 1:
            raise ValueError(f"--ray {self.address}: the cluster has no {'GPU' if self._gpus() else 'CPU'} to give")
        return min(self._wanted or there, there)

    def _answering(self, actors: list[Any]) -> list[Any]:
        """The actors that are up: one that waits for a place other work has taken would keep its cell for ever."""
        asked = {actor.ready.remote(): actor for actor in actors}
        up, late = ray.wait(list(asked), num_returns=len(asked), timeout=READY_S)
        for answer in late:
            ray.kill(asked[answer])
        if not up:
            raise ValueError(f"--ray {self.address}: no worker started within {READY_S:g} s; is the cluster busy?")
        try:
            ray.get(up)
        except RayError as trouble:
            words = str(trouble).strip().splitlines()[-1]
            raise ValueError(f"--ray {self.address}: a worker cannot start: {words}") from trouble
        return [asked[answer] for answer in up]

    def _gpus(self) -> int:
        return 1 if self._device.startswith("cuda") else 0

    def _actor(self) -> Any:
        gpus = self._gpus()
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

    def ready(self) -> None:
        """Answers once the actor is up."""

    def attempt(self, task: Task) -> Outcome:
        return self._worker.attempt(task)
