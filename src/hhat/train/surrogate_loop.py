"""The loop that moves the weights of a surrogate: epochs over pairs of sequences, resumable, the same bits by seed."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hhat.methods.state import load_state, save_state
from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights
from hhat.random import generator
from hhat.train.loop import CHECKPOINT, Progress, to_db
from hhat.train.surrogate_steps import NAMES, Rule, Sequences

TEST_BLOCK = 500
"""Sequences that are judged at once, for memory"""


@dataclass(frozen=True)
class SurrogateRecipe:
    """sequences: pairs of num_pilots symbols to learn from, each seen `epochs` times, `batch` at a time, shuffled anew
    in every epoch; test: pairs apart, on which the fit is judged after every epoch; seed: of pairs and weights
    check_every: batches between checkpoints"""

    sequences: int
    epochs: int
    batch: int = 100
    test: int = 2000
    num_pilots: int = 10
    seed: int = 0
    check_every: int = 100

    def __post_init__(self):
        for name in ("sequences", "epochs", "batch", "test", "num_pilots", "check_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"surrogate: {name}: expected at least 1, got {getattr(self, name)}")
        if self.sequences % self.batch:
            raise ValueError(f"surrogate: batch: expected a divisor of {self.sequences} sequences, got {self.batch}")

    @property
    def steps_of_epoch(self) -> int:
        return self.sequences // self.batch

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_of_epoch


@dataclass(frozen=True, eq=False)
class Learned:
    """weights after the last batch; nmse: (epoch, net) on the test pairs, |error|^2 over |wanted|^2; curve: the same
    over all networks and the training's own, in dB; seconds: of CPU, without the judging."""

    weights: RecurrentWeights
    nmse: Tensor
    curve: list[dict[str, Any]]
    seconds: float


@dataclass
class _Run:
    """What a checkpoint holds; recent, energy: error and number of the batches of this epoch."""

    step: int
    weights: RecurrentWeights
    state: dict[str, Tensor]
    nmse: Tensor
    curve: list[dict[str, Any]]
    seconds: float
    recent: float


def learn(
    rule: Rule,
    mask: RecurrentWeights,
    train: Sequences,
    test: Sequences,
    recipe: SurrogateRecipe,
    folder: Path | None = None,
    label: str = "",
    progress: Progress | None = None,
) -> Learned:
    """Weights of as many networks as `mask` has, each from its own pairs.

    folder: where a checkpoint lies; a run that was killed goes on from its last one and ends with the same bits (one
    thread, one kind of machine). label: what is trained; a checkpoint of another label or recipe is refused.
    progress: called with the step and the test's dB, after each epoch and at each checkpoint.
    """
    path = None if folder is None else folder / CHECKPOINT
    mark = json.dumps({"label": label, "rule": repr(rule), **asdict(recipe)}, sort_keys=True)
    run = _load(path, mark) if path is not None and path.is_file() else _fresh(rule, mask, recipe)
    energy = train.wanted.square().sum(-1).mean()
    order, of_epoch = torch.empty(0, dtype=torch.long), -1
    last_db = None
    while run.step < recipe.steps:
        began = time.process_time()
        epoch, place = divmod(run.step, recipe.steps_of_epoch)
        if epoch != of_epoch:
            gen = generator("surrogate", "order", recipe.seed, epoch)
            order, of_epoch = torch.randperm(recipe.sequences, generator=gen), epoch
        some = order[place * recipe.batch : (place + 1) * recipe.batch]
        batch = Sequences(*(part.index_select(2, some.to(part.device)) for part in train))
        run.weights, run.state, error = rule.update(run.weights, run.state, batch, run.step)
        run.step += 1
        run.recent += float(error.mean() / energy)
        run.seconds += time.process_time() - began
        ended = place + 1 == recipe.steps_of_epoch
        if ended:
            last_db = _judge(run, test, recipe, epoch)
        if ended or run.step % recipe.check_every == 0:
            if path is not None:
                _save(path, run, mark)
            if progress is not None:
                progress(run.step, last_db)
    return Learned(run.weights, run.nmse, run.curve, run.seconds)


def fitting_nmse(weights: RecurrentWeights, pairs: Sequences) -> tuple[Tensor, Tensor]:
    """Squared errors and energies of every network and sequence, each (net, sequence)."""
    found = []
    for inputs, wanted in zip(pairs.inputs.split(TEST_BLOCK, 2), pairs.wanted.split(TEST_BLOCK, 2), strict=True):
        error = unit.forward(weights, inputs).output - wanted
        found.append(torch.stack([error.square().sum((1, 3)), wanted.square().sum((1, 3))]))
    error, energy = torch.cat(found, 2)
    return error, energy


def _judge(run: _Run, test: Sequences, recipe: SurrogateRecipe, epoch: int) -> float | None:
    error, energy = fitting_nmse(run.weights, test)
    run.nmse[epoch] = error.sum(1) / energy.sum(1)
    valid_db = to_db(float(error.sum() / energy.sum()))
    train_db = to_db(run.recent / recipe.steps_of_epoch)
    run.curve.append({"step": run.step, "epoch": epoch + 1, "train_db": train_db, "valid_db": valid_db})
    run.recent = 0.0
    return valid_db


def _fresh(rule: Rule, mask: RecurrentWeights, recipe: SurrogateRecipe) -> _Run:
    weights = unit.start(mask, generator("surrogate", "start", recipe.seed))
    nmse = torch.full((recipe.epochs, mask.num_net), torch.nan)
    return _Run(0, weights, rule.start(weights), nmse, [], 0.0, 0.0)


def _save(path: Path, run: _Run, mark: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"weights/{n}": part for n, part in zip(NAMES, run.weights, strict=True)}
    tensors |= {f"state/{n}": part for n, part in run.state.items()}
    numbers = {n: getattr(run, n) for n in ("step", "nmse", "seconds", "recent")}
    save_state(path, {**tensors, **numbers, "curve": json.dumps(run.curve), "mark": mark})


def _load(path: Path, mark: str) -> _Run:
    state = load_state(path)
    if state.get("mark") != mark:
        raise ValueError(f"{path}: a checkpoint of another model, recipe or data; train into another folder")
    rest = {name.removeprefix("state/"): part for name, part in state.items() if name.startswith("state/")}
    weights = RecurrentWeights(*(state[f"weights/{n}"] for n in NAMES))
    numbers = {n: state[n] for n in ("step", "nmse", "seconds", "recent")}
    return _Run(weights=weights, state=rest, curve=json.loads(state["curve"]), **numbers)
