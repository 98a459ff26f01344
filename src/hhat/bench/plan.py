"""What a profile of an experiment consists of: its cells, each named by the hash of all that its numbers depend on."""

from dataclasses import dataclass
from typing import Any

import torch

from hhat.bench.experiment import Experiment, Profile
from hhat.bench.recipe import code_version, describe, digest, machine, versions
from hhat.bench.store import Run
from hhat.bench.worker import Recorded, Task, Worker, torch_threads


@dataclass(frozen=True)
class Plan:
    """A profile ready to be run: its record for the store, and its tasks in the order in which they are run."""

    experiment: Experiment
    profile: Profile
    run: Run
    tasks: tuple[Task, ...]
    device: str = "cpu"


def plan(experiment: Experiment, profile: str, device: str = "cpu") -> Plan:
    """Build every scenario and method once, hash their settings, and list the cells.

    Raises ValueError for an unknown profile, for an experiment that only declares its claims, and for settings that
    cannot be hashed.
    """
    chosen = experiment.profile(profile)
    labels = experiment.labels(profile)
    worker = Worker(experiment, device)
    tasks: list[Task] = []
    settings: dict[str, Any] = {}
    scenarios: list[Any] = []
    made = (code_version(), torch.__version__)
    shared = [experiment.name, experiment.seed, describe(experiment.score), experiment.example, device, *made]
    with torch_threads(1):
        for point in map(dict, chosen.points):
            scene = worker.at(point)
            scenario = describe(scene)
            scenarios.append(scenario)
            recipes = {label: describe(worker.method(label, point)) for label in labels}
            settings |= {label: recipe for label, recipe in recipes.items() if label not in settings}
            size, threads = _block_shape(point, chosen.block_size)
            # the label too: two labels of equal settings are two rows
            names = {name: [*shared, name, scenario, recipes[name], point, size, threads] for name in labels}
            for block in range(chosen.blocks):
                start = block * size
                items = min(size, scene.count - start) if isinstance(scene, Recorded) else size
                if items < 1:
                    break  # fewer snapshots were recorded than the profile would take
                for label in labels:
                    key = digest(names[label], block)
                    tasks.append(Task(key, label, point, block, items, threads, start))
        recipe = {
            "title": experiment.title,
            "claims": describe(experiment.claims),
            "until": describe(chosen.until),
            "note": experiment.note,
            "seed": experiment.seed,
            "metrics": list(experiment.metrics),
            "blocks": chosen.blocks,
            "block_size": chosen.block_size,
            "scenario": scenarios[0],
            "methods": settings,
            "versions": versions(),
            **_about(worker),
        }
        if experiment.over:
            recipe["over"] = experiment.over
    keys = tuple(task.key for task in tasks)
    run = Run(digest(profile, recipe, keys), experiment.name, profile, recipe, machine(), keys)
    return Plan(experiment, chosen, run, tuple(tasks), device)


def _block_shape(point: dict[str, Any], block_size: int) -> tuple[int, int]:
    size, threads = point.get("batch", block_size), point.get("threads", 1)
    for name, value in (("batch", size), ("threads", threads)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"point {point}: expected {name} to be a whole number >= 1, got {value}")
    return size, threads


def _about(worker: Worker) -> dict[str, Any]:
    slot = worker.draw(1, "about")
    about = slot.about
    return {
        "kind": about.kind,
        "snr_definition": about.snr_definition,
        "normalisation": about.normalisation,
        "source": about.source,
        "axes": list(getattr(slot.obs, "axes", None) or ()),  # echoes have none
        "subcarriers": list(about.subcarriers or ()),
    }
