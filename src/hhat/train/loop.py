"""`train`: whatever has a loss, by Adam; resumable, the same bits by seed."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from hhat.methods.state import load_state, save_state
from hhat.priors.weights import Weights
from hhat.random import generator

CHECKPOINT = "checkpoint.safetensors"
CLIP = 1.0
"""Largest norm of a gradient"""
Progress = Callable[[int, float | None], None]


@runtime_checkable
class Movable(Protocol):
    """What a step learns from; draws are made on the CPU and moved."""

    def to(self, device: torch.device | str) -> Any: ...


@runtime_checkable
class Fit(Protocol):
    """What is trained. Pure: the same generator gives the same batch.

    loss: (what is minimised, what is shown), scalars; the second is a ratio of energies
    check: {"valid_db": of the validation, lower is better, and what else is known, rounded} for the curve
    """

    def start(self) -> Weights: ...

    def draw(self, n: int, gen: torch.Generator, held_out: bool = False) -> Movable: ...

    def loss(self, weights: Weights, batch: Any) -> tuple[Tensor, Tensor]: ...

    def check(self, weights: Weights, held_out: Any) -> dict[str, float | None]: ...


class Turn(NamedTuple):
    """The weights that move in a step, by the beginning of their names, and in how many steps they have before."""

    prefix: str
    count: int


@runtime_checkable
class Rivals(Fit, Protocol):
    """A fit whose weights move in turns: networks that play against each other, each with a loss of its own."""

    def turn(self, step: int) -> Turn: ...

    def turn_loss(self, turn: Turn, weights: Weights, batch: Any) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Recipe:
    """How long and on what: Adam, the rate falling as a cosine to 0.

    steps of `batch` channels (of which a scenario may make several problems each); rate: of Adam
    snr_db: of every channel uniform between these; seed: of weights and data
    check_every: steps between validations on `held_out` channels, where a checkpoint is written
    warm_up: steps in which the rate rises to its value
    average: what is kept is the mean of the weights over the past, w <- a w + (1 - a) new with a = min(average,
             (1 + step) / (10 + step)); 0 keeps the weights themselves
    betas: of Adam: what it keeps of the past mean slope and mean square
    """

    steps: int
    batch: int = 8
    rate: float = 2e-3
    snr_db: tuple[float, float] = (0.0, 15.0)
    seed: int = 0
    check_every: int = 50
    held_out: int = 24
    warm_up: int = 20
    average: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self):
        for name in ("steps", "batch", "check_every", "held_out", "warm_up"):
            if getattr(self, name) < 1:
                raise ValueError(f"train: {name}: expected at least 1, got {getattr(self, name)}")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise ValueError(f"train: rate: expected a number > 0, got {self.rate}")
        if not 0 <= self.average < 1:
            raise ValueError(f"train: average: expected 0 <= average < 1, got {self.average}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"train: betas: expected 0 <= beta < 1, got {self.betas}")
        if not self.snr_db[0] <= self.snr_db[1]:
            raise ValueError(f"train: snr_db: expected low, high, got {self.snr_db}")


@dataclass(frozen=True, eq=False)
class Trained:
    """weights: those of the best validation; curve: {step, train_db, valid_db, ...} at every check; seconds: of CPU."""

    weights: Weights
    curve: list[dict[str, Any]]
    seconds: float
    best_step: int


@dataclass
class _Run:
    """What a checkpoint holds."""

    step: int
    weights: Weights
    first: Weights
    second: Weights
    mean: Weights
    best: Weights
    best_db: float = 1e9
    best_step: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    recent: float = 0.0


def train(
    fit: Fit,
    recipe: Recipe,
    folder: Path | None = None,
    label: str = "",
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> Trained:
    """Minimise E[fit.loss] over the weights.

    folder: where a checkpoint lies; a run that was killed goes on from its last one and ends with the same bits (one
    thread, one kind of machine): the batch of a step depends on the seed and the step's number alone.
    label: what is trained; a checkpoint of another label or recipe is refused (ValueError).
    progress: called with the step and the validation in dB after each check.
    """
    path = None if folder is None else folder / CHECKPOINT
    mark = json.dumps({"label": label, **asdict(recipe)}, sort_keys=True)
    run = _fresh(fit.start()) if path is None or not path.is_file() else _load(path, mark)
    for part in PARTS:
        setattr(run, part, {name: value.to(device) for name, value in getattr(run, part).items()})
    gen = generator("train", "held out", recipe.seed)
    held_out = fit.draw(recipe.held_out, gen, held_out=True).to(device)
    began = time.process_time() - run.seconds
    while run.step < recipe.steps:
        batch = fit.draw(recipe.batch, generator("train", "batch", recipe.seed, run.step)).to(device)
        turn = fit.turn(run.step) if isinstance(fit, Rivals) else Turn("", run.step)
        loss, shown, gradient = _gradient(fit, run.weights, batch, turn)
        if math.isfinite(loss):
            _adam(run, gradient, _rate(recipe, run.step), turn.count, recipe.betas)
            _average(run, recipe)
        run.step += 1
        run.recent += shown
        if run.step % recipe.check_every and run.step < recipe.steps:
            continue
        _check(run, fit, held_out)
        run.seconds = time.process_time() - began
        if path is not None:
            _save(path, run, mark)
        if progress is not None:
            progress(run.step, run.curve[-1]["valid_db"])
    return Trained({name: value.cpu() for name, value in run.best.items()}, run.curve, run.seconds, run.best_step)


def _gradient(fit: Fit, weights: Weights, batch: Any, turn: Turn) -> tuple[float, float, Weights]:
    """The loss, what is shown of it, and the clipped gradient by the weights whose turn it is."""
    leaves = {n: value.detach().requires_grad_() for n, value in weights.items() if n.startswith(turn.prefix)}
    whole = {**weights, **leaves}
    total, shown = fit.turn_loss(turn, whole, batch) if isinstance(fit, Rivals) else fit.loss(whole, batch)
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    gradient = {n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(leaves.items(), found, strict=True)}
    norm = torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt()
    scale = (CLIP / norm.clamp_min(CLIP)).item() if bool(torch.isfinite(norm)) else math.nan
    return (
        float(total.detach()) * (scale / scale),
        float(shown.detach()),
        {n: g * scale for n, g in gradient.items()},
    )


def _adam(
    run: _Run, gradient: Weights, rate: float, before: int | None = None, betas: tuple[float, float] = (0.9, 0.999)
) -> None:
    """One step of Adam; before: steps that these weights have taken, None: all. Source: Kingma & Ba, ICLR 2015,
    algorithm 1."""
    (keep, keep_square), tiny = betas, 1e-8
    count = (run.step if before is None else before) + 1
    for name, g in gradient.items():
        run.first[name] = keep * run.first[name] + (1 - keep) * g
        run.second[name] = keep_square * run.second[name] + (1 - keep_square) * g.square()
        size = (run.second[name] / (1 - keep_square**count)).sqrt() + tiny
        run.weights[name] = run.weights[name] - rate * run.first[name] / (1 - keep**count) / size


def _average(run: _Run, recipe: Recipe) -> None:
    keep = min(recipe.average, (1 + run.step) / (10 + run.step))
    for name, value in run.weights.items():
        run.mean[name] = keep * run.mean[name] + (1 - keep) * value


def _rate(recipe: Recipe, step: int) -> float:
    falling = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.rate * falling * min(1.0, (step + 1) / recipe.warm_up)


def _check(run: _Run, fit: Fit, held_out: Any) -> None:
    since = run.step - (run.curve[-1]["step"] if run.curve else 0)
    with torch.no_grad():
        found = fit.check(run.mean, held_out)
    row = {"step": run.step, "train_db": to_db(run.recent / since), **found}
    run.curve.append(row)
    run.recent = 0.0
    if row["valid_db"] is not None and row["valid_db"] < run.best_db:
        run.best_db, run.best_step, run.best = row["valid_db"], run.step, dict(run.mean)


def to_db(ratio: float) -> float | None:
    """None where the numbers failed: JSON has no infinity."""
    return round(10 * math.log10(ratio), 4) if ratio > 0 and math.isfinite(ratio) else None


def _fresh(start: Weights) -> _Run:
    zero = {name: torch.zeros_like(value) for name, value in start.items()}
    return _Run(0, dict(start), zero, dict(zero), dict(start), dict(start))


PARTS = ("weights", "first", "second", "mean", "best")


def _save(path: Path, run: _Run, mark: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"{part}/{name}": value for part in PARTS for name, value in getattr(run, part).items()}
    numbers = {n: getattr(run, n) for n in ("step", "best_db", "best_step", "seconds", "recent")}
    save_state(path, {**tensors, **numbers, "curve": json.dumps(run.curve), "mark": mark})


def _load(path: Path, mark: str) -> _Run:
    state = load_state(path)
    if state.get("mark") != mark:
        raise ValueError(f"{path}: a checkpoint of another model, recipe or data; train into another folder")
    parts = {part: {} for part in PARTS}
    for name, value in state.items():
        part, _, rest = name.partition("/")
        if rest:
            parts[part][rest] = value
    numbers = {n: state[n] for n in ("step", "best_db", "best_step", "seconds", "recent")}
    return _Run(**parts, **numbers, curve=json.loads(state["curve"]))
