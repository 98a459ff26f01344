"""Where a run of `hhat track` goes on: its state file, and what that belongs to."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from hhat.cli.journal import SUFFIX, Journal
from hhat.cli.task import Task
from hhat.cli.tracked import Run
from hhat.io.sequence import Sequence
from hhat.methods.auto import Choice
from hhat.methods.state import load_state, save_state
from hhat.types import State

SCHEMA = "hhat.track/1"
MARK = "track."
"""In front of what is added to a method's state"""
FILES = ("weights", "samples")
"""Settings that name files: a state belongs to what these hold"""


def identity(task: Task, choice: Choice, slots: Sequence, given: dict[str, str]) -> dict[str, Any]:
    """What a state belongs to, as JSON: another run may go on with it where all of this is equal.

    given: the settings as they were written
    """
    held = {name: _hashes(text) for name, text in given.items() if name in FILES}
    return {
        "schema": SCHEMA,
        "method": choice.name,
        "prior": task.prior,
        "settings": {**given, **held},
        "seed": task.seed,
        "file": slots.digest(0),
    }


def save(path: Path, run: Run, of: dict[str, Any], slots: Sequence) -> None:
    """The state of a run and what it belongs to, in one file that is replaced at once."""
    kept = {f"{lead}{key}": value for lead, state in run.states.items() for key, value in (state or {}).items()}
    of = {**of, "last": slots.digest(run.done - 1)}
    about = {"of": json.dumps(of), "slots": run.done, "noise": run.noise, "record": str(run.journal.dtype)}
    save_state(path, kept | {MARK + key: value for key, value in about.items()})


class Saved:
    """What a state file holds, checked against the run that wants to go on with it."""

    def __init__(self, path: Path, of: dict[str, Any], slots: Sequence):
        self.path = path
        held = load_state(path)
        about = {key.removeprefix(MARK): held.pop(key) for key in list(held) if key.startswith(MARK)}
        if about.keys() != {"of", "slots", "noise", "record"}:
            raise ValueError(f"{path}: expected a state that `hhat track` wrote, got one without its place in a file")
        was = json.loads(about["of"])
        for name, now in of.items():
            if was.get(name) != now:
                got = "" if name == "file" else f" ({_short(was.get(name))}, asked for {_short(now)})"
                raise ValueError(f"{path}: belongs to another {name}{got}; name another state, or remove it")
        self.done, self.noise, self.record = about["slots"], about["noise"], about["record"]
        if self.done > slots.count:
            raise ValueError(f"{path}: {self.done} slots are done, {slots.contents.path} holds {slots.count}")
        if was["last"] != slots.digest(self.done - 1):
            raise ValueError(f"{path}: slot {self.done - 1} of {slots.contents.path} is another one than it was")
        self._held = held

    def states(self, leads: list[str], device: torch.device) -> dict[str, State | None]:
        """One state per fold, by what stands in front of its names."""
        moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in self._held.items()}
        found: dict[str, State | None] = {}
        for lead in sorted(leads, reverse=True):  # "" takes what the others leave
            found[lead] = {k.removeprefix(lead): moved.pop(k) for k in list(moved) if k.startswith(lead)}
        return found

    @property
    def estimates(self) -> bool:
        """Does its journal hold estimates?"""
        return "'mean'" in self.record

    def check(self, journal: Journal) -> None:
        """ValueError where the journal is not this state's."""
        beside = f"{self.path}{SUFFIX}"
        if self.record != str(journal.dtype):
            why = "records of another kind" if self.estimates else "no estimates, since the state was begun without -o"
            raise ValueError(f"{beside}: holds {why}; name another state, or remove it")
        if journal.count < self.done:
            raise ValueError(f"{beside}: holds {journal.count} slots, expected the {self.done} of its state")


def _hashes(names: str) -> str:
    """What files hold, in place of what they are called; names of no file stay."""
    parts = [Path(name.strip()) for name in names.split(",")]
    return ",".join(hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else str(p) for p in parts)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
