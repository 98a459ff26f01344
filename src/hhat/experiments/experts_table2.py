"""experts/table2: size, operations and time of the estimators with and without networks."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

import hhat
from hhat.bench.claims import Faster, Words
from hhat.bench.counter import multiply_adds
from hhat.bench.experiment import Experiment, Profile, score_channel
from hhat.experiments import experts, experts_gauss, experts_nets
from hhat.experiments.engine_sparse_cdl import pcsbl_gamp
from hhat.experiments.start_demo import gamp
from hhat.experiments.xl_mimo_table2 import Counted
from hhat.methods.base import Method
from hhat.priors.experts import Experts
from hhat.scenarios.cdl import Cdl
from hhat.types import Estimate, Observation, Slot, State

SOURCE = f"{experts.PAPER}, Table II"
POINT = {"profile": "C", "snr_db": 10.0, "alpha": 0.6}


class Size(NamedTuple):
    """Trained numbers; complex multiply-adds of one channel."""

    parameters: int
    operations: float


def trained(thing: Any) -> int:
    """Numbers of all networks that a prior or method holds."""
    if isinstance(thing, Experts):
        return sum(trained(expert) for expert in thing.experts)
    for name in ("expert", "network", "prior"):
        inner = getattr(thing, name, None)
        if inner is not None:
            return trained(inner)
    held = getattr(thing, "weights", None)
    return sum(value.numel() for value in held.values()) if isinstance(held, dict) else 0


@dataclass(frozen=True, eq=False)
class Sized(Method):
    """A method and its size, which is counted when it is first run."""

    variance: ClassVar[str] = "posterior"
    method: Any = None
    build: Callable[[Cdl], Any] | None = None
    scene: Cdl = field(default_factory=Cdl)

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        assert self.build is not None
        return Counted(self.method, counted(self.build, self.scene)).resolve(obs)

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        return self.method.init(obs, gen)

    def step(self, state: State, obs: Observation) -> State:
        return self.method.step(state, obs)

    def read(self, state: State, obs: Observation) -> Estimate:
        return self.method.read(state, obs)


def sized(build: Callable[[Cdl], Any]) -> Callable[[Cdl], Sized]:
    return lambda scene: Sized(build(scene), build, scene)


@functools.lru_cache(maxsize=64)
def counted(build: Callable[[Cdl], Any], scene: Cdl) -> Size:
    """Operations as torch carries them out on one channel, the second time."""
    method, obs = build(scene), scene.draw(1, hhat.generator("experts/table2", "count")).obs
    hhat.solve(method, obs)
    return Size(trained(method.resolve(obs)[0]), sum(multiply_adds(lambda: hhat.solve(method, obs)).values()))


def score(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    size, kept = estimate.info["cost"], score_channel(estimate, slot)
    return {**kept, **{name: torch.full_like(kept["ratio"], value) for name, value in size._asdict().items()}}


def one_pass(scene: Cdl) -> Any:
    """What the paper's time stands for."""
    return replace(experts_nets.paper(scene), max_steps=1)


NETS = experts_nets.rows()
METHODS: dict[str, Callable[[Cdl], Any]] = {
    "experts-vb": experts_nets.default,
    experts.PROPOSED: NETS[experts.PROPOSED],
    "experts-vb-paper-one-pass": one_pass,
    "evidence-dmps": NETS["evidence-dmps"],
    "evidence-variance-map": NETS["evidence-variance-map"],
    "evidence-oamp": NETS["evidence-oamp"],
    experts.SINGLE: NETS[experts.SINGLE],
    "single-variance-map": NETS["single-variance-map"],
    **experts_nets.RIVALS,
    "em-gm-amp": gamp,
    "pcsbl-gamp": pcsbl_gamp,
    "covariance-mixture": experts_gauss.covariance_mixture,
    "lmmse": experts_gauss.lmmse,
}

EXPERIMENT = Experiment(
    name="experts/table2",
    title="Parameters, operations and time per channel: CDL-C, 64 x 16 antennas, 38 pilots",
    scenario=experts.scenario,
    methods={label: sized(build) for label, build in METHODS.items()},
    profiles={
        "quick": Profile((POINT,), blocks=1, block_size=experts.BLOCK),
        "full": Profile((POINT, {**POINT, "snr_db": 30.0}), blocks=5, block_size=experts.BLOCK),
    },
    metrics=("channels_per_s", "parameters", "operations", "nmse_db"),
    score=score,
    example=False,
    claims=(
        Faster(
            "a pass takes far less time than EM-GM-AMP", SOURCE, method="experts-vb-paper-one-pass", than="em-gm-amp"
        ),
        Faster("a pass takes far less time than WGAN", SOURCE, method="experts-vb-paper-one-pass", than="wgan"),
        Words("a pass takes about as long as one diffusion model", SOURCE, "'about' is not a number"),
    ),
    note="The paper's times are per outer pass: experts-vb-paper-one-pass, whose first pass runs all four networks. "
    "experts-vb-paper takes up to five, the later ones with those that have a share of 0.001 or more. parameters: of "
    "networks alone; covariances and tables of powers are not counted. operations: complex multiply-adds of products, "
    "factorisations, transforms and convolutions, as torch carries them out on one channel with the factors of pilots "
    "and covariances at hand. Time is of batches of 20. The package's experts have 15,211 numbers each, a quarter of "
    "the paper's 55,025, and the network for all profiles is no larger.",
)
