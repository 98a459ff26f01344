"""What a paper says of a figure, as data: held against a run, each claim is confirmed, not confirmed or not testable.

A claim is judged by 95 % intervals at every point it speaks of: confirmed where the measurement and its whole interval
agree with it, not confirmed where the whole interval contradicts it at some point, not testable in between or where the
run lacks what it speaks of. Methods are compared on the blocks that all of them have.
"""

import abc
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hhat.bench.compare import difference, measured
from hhat.bench.metrics import Value
from hhat.bench.summary import Group, spell_point

CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE = "confirmed", "not confirmed", "not testable"


class Verdict(NamedTuple):
    """verdict: one of the three; measured: the numbers behind it, or what is missing."""

    verdict: str
    measured: str


@dataclass(frozen=True)
class Claim(abc.ABC):
    """One sentence of a paper. `check` never raises for what a run lacks: that makes it not testable.

    text:   what is claimed, in our words
    source: where, e.g. "Tang et al. 2025, Fig. 7(a)"
    """

    text: str
    source: str

    @abc.abstractmethod
    def check(self, groups: Sequence[Group]) -> Verdict:
        """The verdict on the groups of one run (a method at a point each)."""


@dataclass(frozen=True)
class Words(Claim):
    """A claim that no number of this run can decide; `why` says what stands in the way."""

    why: str = "needs methods that are not there yet"

    def check(self, groups: Sequence[Group]) -> Verdict:
        return Verdict(NOT_TESTABLE, self.why)


@dataclass(frozen=True)
class Level(Claim):
    """method's metric is low..high at every point that holds `at`."""

    method: str = ""
    low: float = -math.inf
    high: float = math.inf
    metric: str = "nmse_db"
    at: Mapping[str, Any] = field(default_factory=dict)

    def check(self, groups: Sequence[Group]) -> Verdict:
        groups = _telling(groups, self.metric)
        mine = _of(groups, self.method, self.at)
        if not mine:
            return _missing(groups, [self.method], self.at)
        found = [(cells.point, measured(self.metric, cells)) for cells in mine]
        return _judge(found, self.low, self.high)


@dataclass(frozen=True)
class Ordering(Claim):
    """methods stand from best to worst, each ahead of the next by `by` .. `at_most` in the metric, where `at` holds."""

    methods: Sequence[str] = ()
    metric: str = "nmse_db"
    by: float = 0.0
    at_most: float = math.inf
    higher_is_better: bool = False
    at: Mapping[str, Any] = field(default_factory=dict)

    def check(self, groups: Sequence[Group]) -> Verdict:
        groups = _telling(groups, self.metric)
        lacking = [label for label in self.methods if not _of(groups, label, self.at)]
        if lacking or len(self.methods) < 2:
            return _missing(groups, lacking, self.at)
        found = []
        for better, worse in itertools.pairwise(self.methods):
            there = {repr(sorted(cells.point.items())): cells for cells in _of(groups, worse, self.at)}
            for here in _of(groups, better, self.at):
                cells = there.pop(repr(sorted(here.point.items())), None)
                name = {**here.point, "": f"{better} ahead of {worse}"}
                pair = (here, cells) if self.higher_is_better else (cells, here)
                found.append((name, None if cells is None else difference(self.metric, *pair)))
            found += [({**cells.point, "": f"{better} ahead of {worse}"}, None) for cells in there.values()]
        return _judge(found, self.by, self.at_most, strict=True)


@dataclass(frozen=True)
class Trend(Claim):
    """method's metric (or its lead over `against`, worse minus better) rises or falls along `over`, step by step.

    A step is taken only between points that differ in `over` alone.
    """

    method: str = ""
    over: str = "snr_db"
    rises: bool = False
    against: str | None = None
    metric: str = "nmse_db"
    at: Mapping[str, Any] = field(default_factory=dict)

    def check(self, groups: Sequence[Group]) -> Verdict:
        groups = _telling(groups, self.metric)
        labels = [self.method] if self.against is None else [self.method, self.against]
        lacking = [label for label in labels if not _of(groups, label, self.at)]
        if lacking:
            return _missing(groups, lacking, self.at)
        lines: dict[str, list[tuple[Any, Value]]] = {}
        for cells in _of(groups, self.method, self.at):
            value = self._value(cells, groups) if self.over in cells.point else None
            if value is not None:
                rest = {key: here for key, here in cells.point.items() if key != self.over}
                lines.setdefault(spell_point(rest) if rest else "", []).append((cells.point[self.over], value))
        steps = []
        for rest, line in lines.items():
            line.sort(key=lambda pair: pair[0])
            for (here, low), (there, high) in itertools.pairwise(line):
                half = math.hypot(low.high - low.low, high.high - high.low) / 2
                step = high.value - low.value
                name = {self.over: f"{here} to {there}", **({"": rest} if rest else {})}
                steps.append((name, Value(step, step - half, step + half, min(low.n, high.n))))
        if not steps:
            return Verdict(NOT_TESTABLE, f"fewer than two points along {self.over}")
        low, high = (0.0, math.inf) if self.rises else (-math.inf, 0.0)
        return _judge(steps, low, high, strict=True)

    def _value(self, cells: Group, groups: Sequence[Group]) -> Value | None:
        if self.against is None:
            return measured(self.metric, cells)
        other = [c for c in _of(groups, self.against, self.at) if c.point == cells.point]
        return difference(self.metric, other[0], cells) if other else None


@dataclass(frozen=True)
class Faster(Claim):
    """method takes at most 1 / factor of the time per estimate of `than`, where `at` holds."""

    method: str = ""
    than: str = ""
    factor: float = 1.0
    at: Mapping[str, Any] = field(default_factory=dict)

    def check(self, groups: Sequence[Group]) -> Verdict:
        lacking = [label for label in (self.method, self.than) if not _of(groups, label, self.at)]
        if lacking:
            return _missing(groups, lacking, self.at)
        ratios = []
        for cells in _of(groups, self.method, self.at):
            other = [c for c in _of(groups, self.than, self.at) if c.point == cells.point]
            ratios += [(cells.point, c.seconds() / cells.seconds()) for c in other]
        if not ratios:
            return Verdict(NOT_TESTABLE, "no point that both were run at")
        point, ratio = min(ratios, key=lambda pair: pair[1])
        verdict = CONFIRMED if ratio >= self.factor else NOT_CONFIRMED
        return Verdict(verdict, f"{ratio:.3g} times as fast ({spell_point(point)}), claimed {self.factor:g}")


@dataclass(frozen=True)
class LargerGain(Claim):
    """What `first` gains over its base is more than what `second` gains over its own, at every point where `at` holds.

    first, second: (method, base) each; a gain is base minus method in the metric, paired
    """

    first: Sequence[str] = ()
    second: Sequence[str] = ()
    metric: str = "nmse_db"
    at: Mapping[str, Any] = field(default_factory=dict)

    def check(self, groups: Sequence[Group]) -> Verdict:
        labels = [*self.first, *self.second]
        lacking = [label for label in labels if not _of(groups, label, self.at)]
        if lacking or len(labels) != 4:
            return _missing(groups, lacking, self.at)
        found: list[tuple[Mapping[str, Any], Value | None]] = []
        for cells in _of(groups, self.first[0], self.at):
            here = [[c for c in _of(groups, label, self.at) if c.point == cells.point] for label in labels]
            gains = None
            if all(here):
                method, base, other, other_base = (one[0] for one in here)
                gains = (difference(self.metric, base, method), difference(self.metric, other_base, other))
            found.append((cells.point, None if gains is None else _lead(*gains)))
        return _judge(found, 0.0, math.inf, strict=True)


def _lead(one: Value | None, other: Value | None) -> Value | None:
    """one - other, as if independent."""
    if one is None or other is None:
        return None
    half = math.hypot(one.high - one.low, other.high - other.low) / 2
    middle = one.value - other.value
    return Value(middle, middle - half, middle + half, min(one.n, other.n))


KINDS: Mapping[str, type[Claim]] = {kind.__name__: kind for kind in (Words, Level, Ordering, LargerGain, Trend, Faster)}


def restored(description: Mapping[str, Any]) -> Claim:
    """The claim that `hhat.bench.recipe.describe` wrote into a stored run; ValueError for one of no known kind."""
    settings = dict(description)
    kind = settings.pop("class", None)
    if kind not in KINDS:
        raise ValueError(f"claim: expected one of {' '.join(KINDS)}, got {kind}")
    return KINDS[kind](**settings)


def _telling(groups: Sequence[Group], metric: str) -> list[Group]:
    """Without the places of a curve that do not have this metric: their siblings do."""
    return [cells for cells in groups if not cells.along or measured(metric, cells) is not None]


def _of(groups: Sequence[Group], method: str, at: Mapping[str, Any]) -> list[Group]:
    return [c for c in groups if c.method == method and all(c.point.get(key) == value for key, value in at.items())]


def _missing(groups: Sequence[Group], labels: Sequence[str], at: Mapping[str, Any]) -> Verdict:
    known = {cells.method for cells in groups}
    strangers = [label for label in labels if label not in known]
    if strangers:
        return Verdict(NOT_TESTABLE, f"not in this run: {', '.join(strangers)}")
    return Verdict(NOT_TESTABLE, f"not run at {spell_point(at)}: {', '.join(labels)}")


def _judge(
    found: Sequence[tuple[Mapping[str, Any], Value | None]], low: float, high: float, strict: bool = False
) -> Verdict:
    """All of the values against low .. high; the one that lies worst is named.

    strict: the ends themselves are outside: equal is not ahead. A value that is missing or not finite contradicts
    nothing, and confirms nothing either: the logarithm of no error at all would pass for the best.
    """
    there = [(point, value) for point, value in found if value is not None and math.isfinite(value.value)]
    lacking = [point for point, value in found if value is None or not math.isfinite(value.value)]
    if not there:
        return Verdict(NOT_TESTABLE, f"no number at {spell_point(lacking[0])}")

    def inside(value: float) -> bool:
        return low < value < high if strict else low <= value <= high

    doubtful = [pair for pair in there if not (inside(pair[1].low) and inside(pair[1].high))]
    outside = [pair for pair in doubtful if pair[1].high <= low or pair[1].low >= high]
    outside = [pair for pair in outside if strict or pair[1].high < low or pair[1].low > high]
    worst = max(outside or doubtful or there, key=lambda pair: max(low - pair[1].value, pair[1].value - high))
    point, value = worst
    spelled = f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}] at {spell_point(point)}"
    claimed = f"claimed {_range(low, high, strict)}"
    if outside:
        return Verdict(NOT_CONFIRMED, f"{spelled}, {claimed}; contradicted at {len(outside)} of {len(found)}")
    if doubtful:
        words = f"{spelled}, {claimed}; {len(doubtful)} of {len(found)} undecided with so few trials"
        return Verdict(NOT_TESTABLE, words)
    if lacking:
        words = f"no number at {len(lacking)} of {len(found)}, e.g. {spell_point(lacking[0])}; elsewhere {spelled}"
        return Verdict(NOT_TESTABLE, words)
    return Verdict(CONFIRMED, f"{spelled}, {claimed}; the nearest of {len(found)}")


def _range(low: float, high: float, strict: bool) -> str:
    if math.isinf(low):
        return f"{'below' if strict else 'at most'} {high:g}"
    if math.isinf(high):
        return f"{'above' if strict else 'at least'} {low:g}"
    return f"{low:g} to {high:g}"
