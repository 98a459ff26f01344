"""`impairment-surrogate` and its kin for `hhat train`: networks that learn what receive chains do to a signal."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from hhat.distortion.surrogate import POOLED, Surrogate, fresh, surrogate_from
from hhat.impairments.amplifier import Amplifier
from hhat.impairments.base import Impairment
from hhat.impairments.drift import Theta
from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights
from hhat.priors.weights import Weights
from hhat.random import complex_normal, generator
from hhat.train.loop import Progress, Trained
from hhat.train.models import Finished
from hhat.train.surrogate_loop import Learned, SurrogateRecipe, fitting_nmse, learn
from hhat.train.surrogate_steps import MatrixNormal, Rule, Sequences

NETWORKS = ("left end", "inner chains", "right end")
CALIBRATION = 20000
"""Sequences from which the fit's variance is taken, at most"""
RECEIVER = "warp"


def receiver(model: str = RECEIVER, num_rx_ant: int = POOLED) -> Impairment:
    """Crosstalk of -15 dB, then the amplifier at its own back-off, then an IQ phase of 0.1778 rad, all chains alike.
    Three chains are a left end, an inner chain and a right end."""
    amplifier = Amplifier(model)
    return Theta.alike(amplifier, (num_rx_ant,)).chain(amplifier)


def pairs(impairment: Impairment, num_rx_ant: int, count: int, num_pilots: int, gen: torch.Generator) -> "Pairs":
    """CN(0, 1) symbols and what the receiver makes of them: (count, num_pilots, num_rx_ant), single precision."""
    signal = complex_normal((count, num_pilots, num_rx_ant), gen)
    return Pairs(signal, impairment(signal).to(signal.dtype))


@dataclass(frozen=True, eq=False)
class Pairs:
    """signal, distorted: complex (sequence, pilot, rx_ant), nothing before the first symbol."""

    signal: Tensor
    distorted: Tensor

    def sequences(self, inverse: bool = False) -> Sequences:
        """inverse: from the distorted signal to the undistorted."""
        first, last = (self.distorted, self.signal) if inverse else (self.signal, self.distorted)
        return Sequences(unit.neighbour_inputs(first), unit.own_parts(last))

    def some(self, count: int) -> "Pairs":
        return Pairs(self.signal[:count], self.distorted[:count])


def ends(num_net: int, hidden: int) -> RecurrentWeights:
    """The weights of an array of so many chains that exist."""
    return unit.present(num_net, (0,), (num_net - 1,), hidden)


@dataclass(frozen=True)
class SurrogateModel:
    """num_net: POOLED networks for arrays of any size, or one per chain; inverse: a compensator, from the distorted
    signal back; data: the amplifier of the receiver, `hhat.impairments.presets.preset`."""

    name: str
    rule: Rule
    profiles: Mapping[str, SurrogateRecipe]
    hidden: int = 32
    num_net: int = POOLED
    inverse: bool = False
    data: str = RECEIVER

    def recipe(self, profile: str, seed: int) -> SurrogateRecipe:
        if profile not in self.profiles:
            raise ValueError(f"--profile: expected {' or '.join(self.profiles)}, got '{profile}'")
        return replace(self.profiles[profile], seed=seed)


@dataclass(frozen=True, eq=False)
class SurrogateTask:
    """A model, the receiver that its pairs come from, and how it is trained."""

    model: SurrogateModel
    impairment: Impairment
    data_name: str
    recipe: SurrogateRecipe
    metric: ClassVar[str] = "fitting_nmse_db"

    @property
    def steps(self) -> int:
        return self.recipe.steps

    @cached_property
    def train_pairs(self) -> Pairs:
        return self._pairs("train", self.recipe.sequences)

    @cached_property
    def test_pairs(self) -> Pairs:
        return self._pairs("test", self.recipe.test)

    @cached_property
    def mask(self) -> RecurrentWeights:
        return ends(self.model.num_net, self.model.hidden)

    def words(self, trained: Trained) -> str:
        return f"{self.steps} batches of {self.recipe.batch}"

    def learned(self, folder: Path | None = None, progress: Progress | None = None) -> Learned:
        inverse = self.model.inverse
        train, test = self.train_pairs.sequences(inverse), self.test_pairs.sequences(inverse)
        label = f"{self.model.name} of {self.model.hidden} hidden states on {self.data_name}"
        return learn(self.model.rule, self.mask, train, test, self.recipe, folder, label, progress)

    def run(
        self, folder: Path | None = None, progress: Progress | None = None, device: torch.device | str = "cpu"
    ) -> Trained:
        """ValueError for another device than the CPU: the networks are too small for one."""
        if torch.device(device).type != "cpu":
            raise ValueError(f"--device: {self.model.name} trains on the CPU alone, got {device}")
        found = self.learned(folder, progress)
        return Trained(found.weights._asdict(), found.curve, found.seconds, self.steps)

    def surrogate(self, weights: Weights) -> Surrogate:
        """With its variances, from the pairs it was trained on; they are thousands of times as many as its weights'
        worth of data, and quiet ones are not those that training fits first."""
        mean = RecurrentWeights(*(weights[name] for name in RecurrentWeights._fields))
        known = self.train_pairs.some(CALIBRATION)
        first, last = (known.distorted, known.signal) if self.model.inverse else (known.signal, known.distorted)
        return fresh(mean).calibrate(first, last, known.signal)

    def finished(self, trained: Trained) -> Finished:
        found = self.surrogate(trained.weights)
        told = {"inverse": self.model.inverse, "receiver": self.data_name}
        return Finished({**found.settings(), **told}, found.tensors(), {})

    def ratios(self, finished: Finished) -> dict[str, Tensor]:
        """NMSE of the fit on the test pairs, sequence by sequence, (sequence,): of each pooled network, or over all
        chains."""
        found = surrogate_from(finished.settings, finished.tensors)
        error, energy = fitting_nmse(found.mean, self.test_pairs.sequences(self.model.inverse))
        ratio = error / energy.mean(1, keepdim=True)
        if self.model.num_net != POOLED:
            return {"all chains": ratio.mean(0)}
        return dict(zip(NETWORKS, ratio, strict=True))

    def card(self, trained: Trained, finished: Finished) -> dict[str, Any]:
        return {
            "settings": finished.settings,
            "data": self.data_name,
            "recipe": {**asdict(self.recipe), "rule": repr(self.model.rule)},
            "curve": trained.curve,
            "cpu_seconds": round(trained.seconds, 1),
        }

    def _pairs(self, purpose: str, count: int) -> Pairs:
        gen = generator("surrogate", "pairs", purpose, self.recipe.seed)
        return pairs(self.impairment, self.model.num_net, count, self.recipe.num_pilots, gen)


def surrogate_task(model: SurrogateModel, data: str | None, recipe: SurrogateRecipe) -> SurrogateTask:
    """data: an amplifier, a preset or a folder of its measurements; None: the model's own."""
    name = model.data if data is None else data
    words = f"CN(0, 1) symbols through crosstalk of -15 dB, amplifier {name}, IQ phase 0.1778 rad"
    return SurrogateTask(model, receiver(name, model.num_net), words, recipe)


PAPER = SurrogateRecipe(5000, 5, test=5000)
"""10,000 sequences of 10 symbols, half to learn from, 250 batches"""
_POOLED = {
    "quick": SurrogateRecipe(20000, 1),
    "shipped": SurrogateRecipe(150000, 2, test=5000),
    "full": SurrogateRecipe(300000, 5, test=5000),
}
SURROGATE = SurrogateModel("impairment-surrogate", MatrixNormal(), _POOLED)
COMPENSATOR = SurrogateModel("impairment-compensator", MatrixNormal(), _POOLED, inverse=True)
PER_CHAIN = SurrogateModel(
    "impairment-surrogate-per-chain",
    MatrixNormal(),
    {"quick": replace(PAPER, epochs=1), "shipped": PAPER, "full": PAPER},
    num_net=64,
)
