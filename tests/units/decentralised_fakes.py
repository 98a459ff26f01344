"""Units that break on purpose, importable by worker processes and actors."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import torch

import hhat
from hhat.decentralized import Decentralised, DecentralisedOamp
from hhat.decentralized.units import Job
from hhat.scenarios.near_field import NearField

SMALL = NearField(num_rx_ant=16, num_unit=4, num_subcarriers=4, num_slots=2, num_paths=2)
LATE_S = 3.0


@dataclasses.dataclass(frozen=True, eq=False)
class Broken(Job):
    """Breaks as `how` says; with a `fuse` only while that file is missing, which it lays first."""

    job: Job
    how: str
    fuse: str = ""

    def answer(self, obs, request):
        if self.fuse and Path(self.fuse).exists():
            return self.job.answer(obs, request)
        if self.fuse:
            Path(self.fuse).touch()
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "late":
            time.sleep(LATE_S)
        if self.how == "raise":
            raise RuntimeError("out of order")
        if self.how == "wrong call":
            raise ValueError("no such thing")
        answer = self.job.answer(obs, request)
        if self.how == "not finite":
            answer["var"] = torch.full_like(answer["var"], torch.nan)
        if self.how == "wrong shape":
            answer["codes"] = answer["codes"][..., :1]
        if self.how.startswith("out of range: "):
            name = self.how.removeprefix("out of range: ")
            answer[name] = answer[name] - 2**20
        if self.how == "a part missing":
            del answer["codes"]
        return answer

    def shapes(self, obs):
        return self.job.shapes(obs)

    def fault(self, obs, answer):
        return self.job.fault(obs, answer)


def broken(units, method):
    """The units with the methods' `broken` ones replaced; the same objects for the same units."""
    made = vars(units[0]).setdefault("_broken", {})
    if id(method) not in made:
        made[id(method)] = (
            method,
            tuple(
                dataclasses.replace(unit, job=Broken(unit.job, method.how, method.fuse)) if i in method.broken else unit
                for i, unit in enumerate(units)
            ),
        )
    return made[id(method)][1]


@dataclasses.dataclass(frozen=True, eq=False)
class BrokenMethod(Decentralised):
    broken: tuple[int, ...] = (1,)
    how: str = "raise"
    fuse: str = ""

    def _units(self, obs, num_unit, upload):
        return broken(super()._units(obs, num_unit, upload), self)


@dataclasses.dataclass(frozen=True, eq=False)
class BrokenOamp(DecentralisedOamp):
    broken: tuple[int, ...] = (1,)
    how: str = "raise"
    fuse: str = ""

    def _units(self, obs, views, v_shape):
        return broken(super()._units(obs, views, v_shape), self)


def drawn(n=3, scene=SMALL, label="decentralised"):
    return scene.draw(n, hhat.generator(label))


def pattern(scene=SMALL):
    return hhat.prior("pattern-coupled", basis=scene.basis())


def local(scene=SMALL, steps=5):
    return hhat.method("sbl", prior=hhat.prior("gauss", basis=scene.local_basis()), max_steps=steps)
