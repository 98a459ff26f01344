"""xl-mimo/table2: operations of every method, by formula, beside measured time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hhat.bench import operations as count
from hhat.bench.claims import Words
from hhat.bench.experiment import Experiment, Profile, score_channel
from hhat.bench.operations import PRINTED_GRAPH, Sizes
from hhat.experiments import xl_mimo as xl
from hhat.experiments.xl_mimo_fig5 import scenario
from hhat.methods.base import Method
from hhat.scenarios.near_field import NearField
from hhat.types import Estimate, Observation, Slot, State

UAMP_STEPS, MRF_STEPS, ROUNDS = 150, 60, 30
"""Fixed, so that a formula can be held against the time: `uamp` otherwise ends each item by itself"""


class Cost(NamedTuple):
    """Complex multiply-adds of one channel, all units: as carried out here; in the paper's dense cost model; in that
    model with every pair of the graph counted."""

    operations: float | int
    printed: float | int
    dense: float | int


FREE = Cost(0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Counted(Method):
    """A method, and what it costs by formula, which its estimates then carry in `info`."""

    variance: ClassVar[str] = "posterior"
    method: Any = None
    cost: Cost = FREE
    max_steps: int | None = None
    tol: float | None = None

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        method, words = self.method.resolve(obs)
        return replace(self, method=method, max_steps=method.max_steps, tol=method.tol), words

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        return self.method.init(obs, gen)

    def step(self, state: State, obs: Observation) -> State:
        return self.method.step(state, obs)

    def read(self, state: State, obs: Observation) -> Estimate:
        est = self.method.read(state, obs)
        return replace(est, info={**est.info, "cost": self.cost})


def score(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    cost, kept = estimate.info["cost"], score_channel(estimate, slot)
    names = ("operations", "operations_printed", "operations_dense")
    return {**kept, **{name: torch.full_like(kept["ratio"], value) for name, value in zip(names, cost, strict=True)}}


Of = Callable[[Any, Sizes], Cost]
"""(method, sizes of one problem) -> its cost"""


def _sbl(method: Any, s: Sizes) -> Cost:
    steps = method.m_step.num_steps
    return Cost(count.sbl(s, steps), *2 * (count.sbl_printed(s, steps),))


def _cnn(method: Any, s: Sizes) -> Cost:
    steps, m_step = method.m_step.num_steps, count.conv_m_step(s, method.m_step.width)
    return Cost(count.sbl(s, steps, m_step), *2 * (count.sbl_printed(s, steps, m_step),))


def _gnn(method: Any, s: Sizes) -> Cost:
    """Dense: the paper's network, which is larger than the one that is trained here."""
    own, printed = method.m_step, PRINTED_GRAPH.num_layers
    return Cost(
        count.sbl(s, own.num_steps, count.graph_m_step(s, own.sizes)),
        count.sbl_printed(s, printed, count.graph_printed(PRINTED_GRAPH)),
        count.sbl_printed(s, printed, count.graph_dense(s, PRINTED_GRAPH)),
    )


def _uamp(method: Any, s: Sizes) -> Cost:
    return Cost(count.uamp(s, method.max_steps), *2 * (count.uamp_dense(s, method.max_steps),))


def sizes(scene: NearField) -> Sizes:
    """Of the whole array."""
    return Sizes(scene.num_rx_ant, scene.num_subcarriers, scene.num_beams * scene.num_unit)


def unit_sizes(scene: NearField) -> Sizes:
    return Sizes(scene.num_unit_ant, scene.num_subcarriers, scene.num_beams)


def _fused(build: xl.Build, of: Of, refine: bool = False) -> Callable[[NearField], Counted]:
    """All units, one after the other; refine: and the centre."""

    def make(scene: NearField) -> Counted:
        one = of(build(scene.local_basis()), unit_sizes(scene))
        cost = [scene.num_unit * value for value in one]
        if refine:
            printed = count.refinement_printed(sizes(scene), scene.num_unit)
            more = (count.refinement(sizes(scene)), printed, printed)
            cost = [a + b for a, b in zip(cost, more, strict=True)]
        return Counted((xl.refined if refine else xl.fused)(build)(scene), Cost(*cost))

    return make


def _central(build: xl.Build, of: Of) -> Callable[[NearField], Counted]:
    def make(scene: NearField) -> Counted:
        method = build(scene.basis())
        return Counted(method, of(method, sizes(scene)))

    return make


def _rounds(scene: NearField) -> Counted:
    method = replace(xl.oamp_decentralised(scene), max_steps=ROUNDS, tol=None)
    dense = count.oamp_dense(unit_sizes(scene), scene.num_unit, ROUNDS)
    return Counted(method, Cost(count.oamp_rounds(unit_sizes(scene), scene.num_unit, ROUNDS), dense, dense))


def uamp_sbl(basis: Any) -> Any:
    return replace(xl.uamp_sbl(basis), max_steps=UAMP_STEPS, tol=None)


def uamp_mrf(basis: Any) -> Any:
    return replace(xl.uamp_mrf(basis), max_steps=MRF_STEPS, tol=None)


UNITS: dict[str, tuple[xl.Build, Of]] = {
    "sbl-em": (xl.sbl_em, _sbl),
    "sbl-pattern-coupled": (xl.sbl_pattern_coupled, _sbl),
    "sbl-mrf": (xl.sbl_mrf, _sbl),
    "uamp-sbl": (uamp_sbl, _uamp),
    "uamp-mrf": (uamp_mrf, _uamp),
    "sbl-gnn": (xl.sbl_gnn, _gnn),
    "cnn-sbl": (xl.cnn_sbl, _cnn),
}
CENTRAL: dict[str, tuple[xl.Build, Of]] = {
    "uamp-sbl-central": (uamp_sbl, _uamp),
    "sbl-pattern-coupled-central": (xl.sbl_pattern_coupled, _sbl),
    "cnn-sbl-central": (xl.cnn_sbl, _cnn),
}
QUICK = (*UNITS, *(f"{label}-refined" for label in ("uamp-mrf", "sbl-gnn", "cnn-sbl")), "oamp-decentralised", *CENTRAL)
POINTS = tuple({"num_unit": units, "snr_db": 10.0} for units in (4, 8))

EXPERIMENT = Experiment(
    name="xl-mimo/table2",
    title="Operations of a channel, all units, beside measured time; 64 beams of 128 antennas in all, 10 dB",
    scenario=scenario,
    methods={
        **{label: _fused(*made) for label, made in UNITS.items()},
        **{f"{label}-refined": _fused(*made, refine=True) for label, made in UNITS.items()},
        "oamp-decentralised": _rounds,
        **{label: _central(*made) for label, made in CENTRAL.items()},
    },
    profiles={
        "quick": Profile(POINTS[:1], blocks=3, block_size=xl.BLOCK, methods=QUICK),
        "full": Profile(POINTS, blocks=20, block_size=xl.BLOCK),
    },
    metrics=("operations", "operations_printed", "operations_dense", "channels_per_s", "nmse_db"),
    score=score,
    example=False,
    claims=(
        Words(
            "lists how the operations of each method grow with antennas, tones, pilots and iterations",
            f"{xl.PAPER}, Table II",
            "formulas, not measurements: the rows hold them for these sizes, as printed and as carried out here, "
            "beside the time; docs/measured.md compares the rankings",
        ),
    ),
    note="Complex multiply-adds. operations: as carried out here, by structure; work entry by entry, without which no "
    "prior goes, is not counted. operations_printed: the paper's model, K^3 N^2 Q + (N K)^3 per E-step; its count of "
    "SBL-GNN leaves out that the graph has an edge for every pair of coefficients; of UAMP and the rounds, Phi as "
    "one matrix, with our count of its decomposition. operations_dense: the same with every pair of the graph. Steps "
    "are those run here (20 to 30 of SBL, 150 and 60 of UAMP, 30 rounds); the paper's SBL-GNN has 5 layers and larger "
    "messages. nomp and hybrid are not here: what they do depends on the draw.",
)
