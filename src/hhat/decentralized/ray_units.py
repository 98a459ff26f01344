"""Units as Ray actors, on this machine or a cluster."""

import contextlib
from typing import Any

import torch

from hhat.decentralized.execute import BUSY, Keeper, Order, Remote
from hhat.decentralized.units import Lost

try:
    import ray
    from ray.exceptions import RayActorError, RayError, RayTaskError
except ImportError as missing:
    raise ValueError("RayUnits needs Ray, which is not installed: pip install hhat[ray]") from missing


class LPUActor:
    """Keeps a unit: combiner, factorisations, weights. `answer` depends on its order alone."""

    def __init__(self, threads: int):
        torch.set_num_threads(threads)
        self._keeper = Keeper()

    def answer(self, order: Order) -> Any:
        return self._keeper(order)

    def ready(self) -> bool:
        return True


class RayUnits(Remote):
    """One actor per unit. Joins the Ray session there is, or starts a local one and ends it on `close`.

    Actors are started with max_restarts=0 and no retries: a lost unit is lost for that request, and a new actor takes
    its place at the next. A running call cannot be interrupted: its late answer is never fetched.
    """

    def __init__(self, deadline_s: float | int | None = None):
        super().__init__(deadline_s)
        self._actors: list[Any] = []
        self._dead: set[int] = set()
        self._answers: dict[int, Any] = {}
        self._asked: dict[int, Any] = {}
        self._busy: set[int] = set()
        self._mine = False

    def actor(self, place: int) -> Any:
        """The handle of the actor that keeps a unit."""
        return self._actors[place]

    def _start(self, count: int) -> None:
        if not ray.is_initialized():
            # as many slots as units: on fewer cores they take turns, where a missing slot would wait for ever
            quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
            ray.init(num_cpus=count, include_dashboard=False, **quiet)
            self._mine = True
        for place in sorted(self._dead):
            with contextlib.suppress(RayError):
                ray.kill(self._actors[place])
            self._actors[place] = self._actor()
            self._answers.pop(place, None)
            self._has.pop(place, None)
        self._dead.clear()
        fresh = [self._actor() for _ in range(len(self._actors), count)]
        self._actors += fresh
        ray.get([actor.ready.remote() for actor in fresh])  # starting takes seconds: not on the first deadline
        self._asked, self._busy = {}, set()

    def _actor(self) -> Any:
        return ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(LPUActor).remote(torch.get_num_threads())

    def _send(self, place: int, order: Order) -> bool:
        earlier = self._answers.get(place)
        if earlier is not None and not ray.wait([earlier], timeout=0)[0]:
            self._busy.add(place)
            return False
        self._answers[place] = self._asked[place] = self._actors[place].answer.remote(order)
        return True

    def _collect(self, timeout_s: float | None) -> dict[int, Any]:
        found: dict[int, Any] = {place: Lost(BUSY) for place in self._busy}
        places = {answer: place for place, answer in self._asked.items()}
        ready = ray.wait(list(places), num_returns=len(places), timeout=timeout_s)[0] if places else []
        for answer in ready:
            place = places[answer]
            try:  # a failed call is ready as well
                found[place] = ray.get(answer)
            except RayActorError:
                self._dead.add(place)
                found[place] = Lost("its actor died")
            except RayTaskError as broken:
                found[place] = broken.cause if isinstance(broken.cause, Exception) else broken
            except RayError as broken:
                found[place] = Lost(f"{type(broken).__name__}: {broken}")
        return found

    def close(self) -> None:
        if ray.is_initialized():
            for actor in self._actors:
                with contextlib.suppress(RayError):
                    ray.kill(actor)
            if self._mine:
                ray.shutdown()
        self._actors.clear()
        self._answers.clear()
        self._asked.clear()
        self._has.clear()
        self._dead.clear()
        self._mine = False
