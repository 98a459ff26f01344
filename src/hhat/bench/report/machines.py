"""On which machines and with which versions the cells of a run were made, and what that forbids to compare."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hhat.bench.report.words import count, listed
from hhat.bench.summary import Group

NOT_KEPT = "not kept"


def made_with(groups: Sequence[Group], fallback: Mapping[str, str]) -> list[tuple[dict[str, Any], int]]:
    """Each distinct machine, versions, device and threads, with how many cells it made, the most first.

    fallback: the machine of the run, for cells stored before every cell kept its own
    """
    found: Counter[str] = Counter()
    for cells in groups:
        for cell in cells.cells:
            own = getattr(cell, "machine", {}) or dict(fallback)
            made = {**own, **cell.versions, "device": cell.device, "torch threads": str(cell.threads)}
            found[json.dumps(made, sort_keys=True)] += 1
    return [(json.loads(made), number) for made, number in found.most_common()]


def warnings(made: Sequence[tuple[Mapping[str, Any], int]]) -> list[str]:
    """What a reader has to know before comparing rows; empty where all cells were made alike."""
    machines = _distinct(made, ("cpu", "cores", "gpu", "system", "device"))
    found = []
    if len(machines) > 1:
        found.append(
            f"The cells of this run were made on {len(machines)} machines or devices: "
            "times of different machines are not comparable."
        )
    for name, what in (("hhat", "the code"), ("torch", "PyTorch")):
        versions = [str(each[0]) for each in _distinct(made, (name,))]
        if len(versions) > 1:
            mixed = f"This run mixes {len(versions)} versions of {what}: {listed(versions)}."
            found.append(f"{mixed} Its rows may differ for that reason alone.")
    return found


def table_of(made: Sequence[tuple[Mapping[str, Any], int]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one row per distinct set."""
    keys = list(dict.fromkeys(key for each, _ in made for key in each))
    order = ["cpu", "cores", "gpu", "system", "device", "torch threads", "hhat", "torch", "python"]
    keys.sort(key=lambda key: (order.index(key) if key in order else len(order), key))
    body = [[*(str(each.get(key, NOT_KEPT)) for key in keys), f"{number:,}"] for each, number in made]
    return [*keys, "cells"], body


def summary(made: Sequence[tuple[Mapping[str, Any], int]]) -> str:
    return f"{count(len(made), 'set')} of machine, versions, device and threads"


def _distinct(made: Sequence[tuple[Mapping[str, Any], int]], keys: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(dict.fromkeys(tuple(each.get(key, NOT_KEPT) for key in keys) for each, _ in made))
