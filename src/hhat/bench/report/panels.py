"""Small multiples: which points share a panel of a figure, and what each panel runs over."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hhat.bench.report.words import spell_point


@dataclass(frozen=True)
class Panel:
    """title: the settings its points share and other panels do not; x: the key they run over, or empty at one point."""

    title: str
    x: str
    points: tuple[Mapping[str, Any], ...]

    def holds(self, point: Mapping[str, Any]) -> bool:
        return point in self.points


def panels(points: Iterable[Mapping[str, Any]]) -> list[Panel]:
    """Points of the same keys share a sweep; of a sweep, points that differ in the abscissa alone share a panel."""
    distinct: list[Mapping[str, Any]] = []
    for point in points:
        if point not in distinct:
            distinct.append(point)
    sweeps: dict[frozenset[str], list[Mapping[str, Any]]] = {}
    for point in distinct:
        sweeps.setdefault(frozenset(point), []).append(point)
    found = []
    for sweep in sweeps.values():
        x, varying = abscissa(sweep), _varying(sweep)
        shared: dict[str, list[Mapping[str, Any]]] = {}
        for point in sweep:
            named = {key: value for key, value in point.items() if key != x and (key in varying or not x)}
            shared.setdefault(spell_point(named) if named else "", []).append(point)
        found += [Panel(title, x, tuple(mine)) for title, mine in shared.items()]
    return found


def abscissa(points: Sequence[Mapping[str, Any]]) -> str:
    """The key to draw curves over: SNR where it varies, else the number that takes most values; empty: none does."""
    varying = _varying(points)
    numeric = [key for key, seen in varying.items() if not any(isinstance(value, str | bool) for value in seen)]
    return "snr_db" if "snr_db" in numeric else max(numeric, key=lambda key: len(varying[key]), default="")


def _varying(points: Sequence[Mapping[str, Any]]) -> dict[str, set[Any]]:
    values: dict[str, set[Any]] = {}
    for point in points:
        for key, value in point.items():
            values.setdefault(key, set()).add(value)
    return {key: seen for key, seen in values.items() if len(seen) > 1}
