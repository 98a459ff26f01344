"""An experiment as declared data: scenario x methods x points x metrics, written down once."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hhat.bench.claims import Claim
from hhat.bench.metrics import errors, truth_of
from hhat.bench.stopping import Stopping
from hhat.types import Estimate, Slot

Scalar = float | int | str | bool
Point = Mapping[str, Scalar]
"""One place of the sweep, e.g. {"snr_db": 10.0}. Two keys belong to the runner: `batch` (channels per block in
place of the profile's) and `threads` (torch threads in place of one)."""

DECILES = 10
LARGEST_EXAMPLE = 2**14


@dataclass(frozen=True)
class Profile:
    """How much of an experiment is run: which points, how many blocks of how many channels, which methods.

    A block is the unit that is run, stored and resumed; its size is fixed, so that its numbers are too.
    Profiles that share points and block size share the blocks already run.
    blocks: how many; with `until` the most there may be
    """

    points: Sequence[Point]
    blocks: int
    block_size: int = 1
    methods: Sequence[str] | None = None
    """Labels to run; None: all of them"""
    until: Stopping | None = None
    """Ends each method at each point by itself once its interval is narrow enough; None: all blocks are run"""

    def __post_init__(self) -> None:
        if not self.points or self.blocks < 1 or self.block_size < 1:
            got = (len(self.points), self.blocks, self.block_size)
            raise ValueError(f"profile: expected at least one point, one block and one channel a block, got {got}")
        seen: set[str] = set()
        for point in self.points:
            name = repr(sorted(point.items()))
            if name in seen:
                raise ValueError(f"profile: expected every point once, got {dict(point)} again")
            seen.add(name)


def score_channel(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    """What is kept of each realisation: error and reported variance over the channel's energy, and the energy.

    ratio:    (n,) ||e||^2 / ||h||^2
    reported: (n,) sum of variances / ||h||^2
    energy:   (n,) ||h||^2
    deciles:  (1, 2, 10) entries of the block sorted by reported variance, cut in ten: mean reported variance
              and mean squared error of each tenth, both over the block's mean |h|^2. Absent without a variance
    """
    e = errors(estimate, slot.truth)
    kept = {
        "ratio": (e.squared / e.energy).flatten(),
        "reported": (e.reported / e.energy).flatten(),
        "energy": e.energy.flatten(),
    }
    mean = estimate.belief.mean
    h = truth_of(slot.truth, mean)
    var = estimate.belief.var.expand(mean.shape).flatten()
    if bool(torch.isfinite(var).all()) and var.numel() >= DECILES:
        order = var.argsort(stable=True)
        squared = (mean - h).abs().square().flatten()
        pairs = torch.stack([var[order].double(), squared[order].double()]) / h.abs().double().square().mean()
        kept["deciles"] = torch.stack([part.mean(1) for part in pairs.tensor_split(DECILES, 1)], 1)[None]
    return kept


def example_of(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    """The first channel of a block, truth and estimate, for a picture: (2, *channel, 2), real and imaginary last.

    Without truth its place holds zeros; a channel of more than LARGEST_EXAMPLE entries is not kept.
    """
    mean = estimate.belief.mean
    first = mean.flatten(0, estimate.status.ndim - 1)[0] if estimate.status.ndim else mean
    if first.numel() > LARGEST_EXAMPLE:
        return {}
    truth = torch.zeros_like(first)
    if slot.truth is not None:
        truth = truth_of(slot.truth, mean).reshape(-1, *first.shape)[0].to(first)
    return {"example": torch.view_as_real(torch.stack([truth, first]).to(torch.complex64))}


@dataclass(frozen=True)
class Bound:
    """Stands in the place of a method where no estimator does: what a genie reaches, or a bound on all of them.

    ratio: slot, its truth included -> squared error over the channel's energy, axis 0 running over realisations; other
           axes (units, say) are averaged. ValueError where one is not finite: a bound has no status that would tell
    """

    ratio: Callable[[Slot], Tensor]

    def arrays(self, slot: Slot) -> dict[str, Tensor]:
        found = self.ratio(slot)
        if not bool(found.isfinite().all()):
            raise ValueError(f"bound: expected finite ratios, got {int((~found.isfinite()).sum())} that are not")
        return {"ratio": found.flatten(1).mean(1) if found.ndim > 1 else found}


@dataclass(frozen=True)
class Measurement:
    """Stands in the place of a method where what is compared is no estimate of a channel (sensing, say).

    measure: slot, its truth included -> arrays to keep, one entry per realisation, and how many of them ended how
    """

    measure: Callable[[Slot], tuple[dict[str, Tensor], dict[str, int]]]


def score_nothing(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    """For experiments that only measure time."""
    return {}


def undeclared(point: Point) -> Any:
    """Stands where an experiment has no scenario yet."""
    raise ValueError("no scenario is declared")


@dataclass(frozen=True)
class Experiment:
    """One comparison, declared once; `hhat.bench.run.run` fills what is missing of it.

    name:     as registered, e.g. "start/demo"
    title:    one line for people
    scenario: point -> scenario with draw(n, gen) -> Slot
    methods:  label -> (scenario -> method, `Bound` or `Measurement`); the scenario is given for what only a genie
              knows
    profiles: "quick" and "full"
    metrics:  names from `hhat.bench.summary.METRICS`, or of an array that `score` keeps (its mean is taken)
    score:    (estimate, slot) -> arrays to keep, axis 0 running over realisations or blocks
    seed:     every draw hashes (name, seed, block): neither the method nor the point is a label, so that all
              methods see the same channels, and at every point
    claims:   what a paper says of it, as data; the report holds each against the measurement
    note:     what a reader of the numbers has to know, e.g. which method is a bound
    over:     one of the metrics that is a price (bits, say): the report draws the first metric against it
    example:  keep the first channel of block 0 and its estimate, for a picture
    waits_for: what has to be there before it can be run, where its claims alone are declared (no methods, no profiles)
    """

    name: str
    title: str
    scenario: Callable[[Point], Any] = undeclared
    methods: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    metrics: Sequence[str] = ("nmse_db", "variance_ratio")
    score: Callable[[Estimate, Slot], dict[str, Tensor]] = score_channel
    seed: int = 0
    claims: Sequence[Claim] = ()
    note: str = ""
    example: bool = True
    waits_for: str = ""
    over: str = ""

    def __post_init__(self) -> None:
        runnable = self.scenario is not undeclared and bool(self.methods) and bool(self.profiles)
        if runnable == bool(self.waits_for):
            raise ValueError(f"{self.name}: expected scenario, methods and profiles, or what it waits for instead")
        if self.over and self.over not in self.metrics[1:]:
            raise ValueError(f"{self.name}: over: expected one of {self.metrics[1:]}, got '{self.over}'")
        for name, profile in self.profiles.items():
            strangers = [label for label in profile.methods or () if label not in self.methods]
            if strangers:
                known = " ".join(self.methods)
                raise ValueError(f"{self.name}: profile {name} names method '{strangers[0]}'; there are: {known}")

    def profile(self, name: str) -> Profile:
        if self.waits_for:
            raise ValueError(f"{self.name}: only its claims are declared so far; it waits for {self.waits_for}")
        if name not in self.profiles:
            raise ValueError(f"{self.name}: unknown profile '{name}'; there are: {' '.join(self.profiles)}")
        return self.profiles[name]

    def labels(self, profile: str) -> list[str]:
        """Methods of a profile, in the order of declaration."""
        chosen = self.profile(profile).methods
        return [label for label in self.methods if chosen is None or label in chosen]


def grid(axes: Mapping[str, Sequence[Scalar]]) -> tuple[dict[str, Scalar], ...]:
    """Every combination: {"snr_db": (0, 10), "profile": ("A", "B")} gives four points, the last axis fastest."""
    return tuple(dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
