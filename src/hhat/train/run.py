"""One training from a model's name to its weights: data, recipe, checkpoint, and what the card says of them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from hhat import registry
from hhat.io import read
from hhat.methods.base import Method
from hhat.random import generator
from hhat.scenarios.near_field import NearField
from hhat.train.data import Batch, CaptureData, Data, PilotData, UnitsData, cdl_data, cdl_words
from hhat.train.gaussian import GaussModel, GaussTask
from hhat.train.loop import Fit, Progress, Recipe, Trained, train
from hhat.train.models import Finished, Model
from hhat.train.surrogate import SurrogateModel, SurrogateTask, surrogate_task

SCENARIO_CHANNELS = 2000
"""Drawn once, with one set of pilots, where the scenario is not cut into units"""


@dataclass(frozen=True, eq=False)
class Task:
    """A model, what it is trained on and how."""

    model: Model
    data: Data
    data_name: str
    recipe: Recipe
    metric: ClassVar[str] = "nmse_db"

    @cached_property
    def fit(self) -> Fit:
        return self.model.fit(self.data, self.recipe)

    @property
    def steps(self) -> int:
        return self.recipe.steps

    @property
    def test_snrs_db(self) -> tuple[float, ...]:
        return self.model.test_snrs_db

    def tests(self, snr_db: float) -> Iterator[Batch]:
        """Channels for the card's number at one SNR."""
        return self.model.tests(self.data, snr_db, self.recipe.seed)

    def words(self, trained: Trained) -> str:
        return f"{self.recipe.steps}, best validation at {trained.best_step}"

    def run(
        self, folder: Path | None = None, progress: Progress | None = None, device: torch.device | str = "cpu"
    ) -> Trained:
        label = f"{self.model.name} {dict(self.model.settings)} on {self.data_name}"
        return train(self.fit, self.recipe, folder, label, progress, device)

    def finished(self, trained: Trained) -> Finished:
        return self.model.finished(self.fit, trained.weights)

    def method(self, finished: Finished, batch: Batch) -> Method:
        return self.model.method(finished.settings, finished.tensors, batch)

    def card(self, trained: Trained, finished: Finished) -> dict[str, Any]:
        """What is known of the weights without measuring them."""
        return {
            "settings": finished.settings,
            "data": self.data_name,
            "recipe": asdict(self.recipe),
            "best_step": trained.best_step,
            "curve": trained.curve,
            "cpu_seconds": round(trained.seconds, 1),
            **finished.more,
        }


def task_for(
    model: str, data: str | None = None, profile: str = "full", seed: int = 0
) -> Task | GaussTask | SurrogateTask:
    """By names as a user writes them; data: a scenario, a name that `cdl_data` knows, or a file that carries truth
    (for a covariance also one that does not); None: the model's own. ValueError says what is wrong."""
    found: Model | GaussModel | SurrogateModel = registry.load("models", model)
    if isinstance(found, SurrogateModel):
        return surrogate_task(found, data, found.recipe(profile, seed))
    found.recipe(profile, seed)  # a wrong profile is told before data are drawn
    known, words = data_for(found.data if data is None else data, seed, isinstance(found, GaussModel))
    if isinstance(found, GaussModel):
        return GaussTask(found, known, words, found.recipe(profile, seed))
    assert not isinstance(known, PilotData)
    return Task(found, known, words, found.recipe(profile, seed))


def data_for(data: str, seed: int, gaussian: bool = False) -> tuple[Data | PilotData, str]:
    """What is learned from and what a card calls it; gaussian: captures without truth and channels of any shape as
    well."""
    cdl = cdl_data(data, seed)
    if cdl is not None:
        return cdl, cdl_words(data, seed)
    if data not in registry.SCENARIOS:
        if not Path(data).is_file():
            there = " ".join(sorted(registry.SCENARIOS))
            raise ValueError(f"--data: '{data}' is neither a file nor a scenario; there are: {there}")
        slot = read(data)
        words = f"capture {Path(data).name}"
        if gaussian and slot.truth is None:
            return PilotData(slot, data), f"{words}, its pilots alone"
        return CaptureData(slot, data, any_shape=gaussian), words
    scene = registry.build("scenarios", data, {})
    if isinstance(scene, NearField):
        told = {f.name: getattr(scene, f.name) for f in fields(scene) if f.name != "snr_db"}
        return UnitsData(scene), f"units of {data} {told}"
    slot = scene.draw(SCENARIO_CHANNELS, generator("train", "scenario", seed))
    return CaptureData(slot, data, any_shape=gaussian), f"{SCENARIO_CHANNELS} channels of {data}, seed {seed}"
