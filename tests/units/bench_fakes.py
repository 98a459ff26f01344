"""A tiny scenario, methods with known error and variance, and an experiment of them, for the tests of the bench."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment, Point, Profile, grid
from hhat.methods.base import Method
from hhat.ops import Identity
from hhat.random import complex_normal
from hhat.types import About, Channel, Estimate, Gaussian, Observation, Slot, State

RX, TX = 2, 8


@dataclass(frozen=True)
class White:
    """h ~ CN(0, 1) entry by entry, seen in white noise."""

    snr_db: float = 10.0

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        h = complex_normal((n, RX, TX), gen)
        noise_var = 10 ** (-self.snr_db / 10)
        y = h + complex_normal((n, RX, TX), gen, var=noise_var)
        obs = Observation(y, Identity((RX, TX)), noise_var, ("rx_ant", "tx_ant"))
        return Slot(Channel(h), obs, About(snr_definition="1 / noise_var", source="white"))


@dataclass(frozen=True)
class Scaled(Method):
    """h_hat = gain y; its expected squared error per entry under `White` is (1 - gain)^2 + gain^2 noise_var.

    claimed: the reported variance is that, times this; infinity for a method without a variance
    """

    variance: ClassVar[str] = "posterior"
    max_steps: int = 1
    tol: float | None = None
    gain: float | None = None
    claimed: float = 1.0

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        return {"mean": torch.zeros_like(obs.y)}

    def step(self, state: State, obs: Observation) -> State:
        return {"mean": self._gain(obs) * obs.y}

    def read(self, state: State, obs: Observation) -> Estimate:
        gain = self._gain(obs)
        var = self.claimed * ((1 - gain).square() + gain.square() * obs.noise_var)
        return Estimate(Gaussian(state["mean"], var.expand(obs.y.shape)))

    def _gain(self, obs: Observation) -> torch.Tensor:
        noise_var = obs.noise_var
        return 1 / (1 + noise_var) if self.gain is None else torch.full_like(noise_var, self.gain)


def scenario(point: Point) -> White:
    return White(float(point["snr_db"]))


def plain(scene: Any) -> Scaled:
    return Scaled(gain=1.0)


def best(scene: Any) -> Scaled:
    return Scaled()


def boastful(scene: Any) -> Scaled:
    return Scaled(gain=1.0, claimed=0.25)


def silent(scene: Any) -> Scaled:
    return Scaled(gain=1.0, claimed=float("inf"))


def genie(scene: White) -> Scaled:
    """Uses what only the scenario knows."""
    return Scaled(gain=1 / (1 + 10 ** (-scene.snr_db / 10)))


EXPERIMENT = Experiment(
    name="test/white",
    title="White channels <seen> in white noise",
    claims=(Ordering("shrinking wins", "nobody 2000, Fig. 1", methods=("best", "ls")),),
    note="genie knows the SNR",
    scenario=scenario,
    methods={"ls": plain, "best": best, "boastful": boastful, "silent": silent, "genie": genie},
    profiles={
        "quick": Profile(grid({"snr_db": (0.0, 10.0)}), blocks=3, block_size=40, methods=("ls", "best", "boastful")),
        "full": Profile(grid({"snr_db": (0.0, 5.0, 10.0)}), blocks=4, block_size=40),
    },
    metrics=("nmse_db", "variance_ratio", "nmse_pooled_db", "nmse_median_db"),
)
