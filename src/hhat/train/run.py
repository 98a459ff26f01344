"""One training from a model's name to its weights: data, recipe, checkpoint, and what the card says of them."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from hhat import registry
from hhat.io import read
from hhat.methods.sbl import Sbl
from hhat.priors.gauss import Gauss
from hhat.random import generator
from hhat.scenarios.near_field import NearField
from hhat.train.data import Batch, CaptureData, Data, UnitsData
from hhat.train.loop import Progress, Recipe, Trained, train
from hhat.train.models import Model

DEFAULT_DATA = "near-field"
SCENARIO_CHANNELS = 2000
"""Drawn once, with one set of pilots, where the scenario is not cut into units"""
TEST_SNRS_DB = (0.0, 5.0, 10.0, 15.0)


@dataclass(frozen=True, eq=False)
class Task:
    """A model, what it is trained on and how."""

    model: Model
    data: Data
    data_name: str
    recipe: Recipe

    def run(
        self, folder: Path | None = None, progress: Progress | None = None, device: torch.device | str = "cpu"
    ) -> Trained:
        start = self.model.start(self.recipe.seed)
        label = f"{self.model.name} {dict(self.model.settings)} on {self.data_name}"
        return train(self.model.build, start, self.data, self.recipe, folder, label, progress, device)

    def method(self, trained: Trained, batch: Batch) -> Sbl:
        return self.model.build(trained.weights, Gauss(basis=batch.basis))

    def card(self, trained: Trained) -> dict[str, Any]:
        """What is known of the weights without measuring them."""
        return {
            "settings": dict(self.model.settings),
            "data": self.data_name,
            "recipe": asdict(self.recipe),
            "best_step": trained.best_step,
            "curve": trained.curve,
            "cpu_seconds": round(trained.seconds, 1),
        }


def task_for(model: str, data: str = DEFAULT_DATA, profile: str = "full", seed: int = 0) -> Task:
    """By names as a user writes them; data: a scenario or a file that carries truth. ValueError says what is wrong."""
    found: Model = registry.load("models", model)
    recipe = found.recipe(profile, seed)
    if data not in registry.SCENARIOS:
        if not Path(data).is_file():
            there = " ".join(sorted(registry.SCENARIOS))
            raise ValueError(f"--data: '{data}' is neither a file nor a scenario; there are: {there}")
        slot = read(data)
        return Task(found, CaptureData(slot, data), f"capture {Path(data).name}", recipe)
    scene = registry.build("scenarios", data, {})
    if isinstance(scene, NearField):
        told = {f.name: getattr(scene, f.name) for f in fields(scene) if f.name != "snr_db"}
        return Task(found, UnitsData(scene), f"units of {data} {told}", recipe)
    slot = scene.draw(SCENARIO_CHANNELS, generator("train", "scenario", seed))
    return Task(found, CaptureData(slot, data), f"{SCENARIO_CHANNELS} channels of {data}, seed {seed}", recipe)
