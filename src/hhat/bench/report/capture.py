"""The estimates of one capture file by several methods, as rows like an experiment's."""

from collections.abc import Mapping

import torch

from hhat.bench.experiment import example_of, score_channel
from hhat.bench.recipe import machine, versions
from hhat.bench.store import Cell
from hhat.bench.summary import Group, Row, rows
from hhat.types import Estimate, Slot


def metrics_of(slot: Slot) -> tuple[str, ...]:
    """What can be measured on a file: without truth nothing but time."""
    return ("nmse_db", "variance_ratio") if slot.truth is not None else ()


def file_rows(slot: Slot, results: Mapping[str, Estimate], seconds: Mapping[str, float]) -> list[Row]:
    """NMSE and variance ratio with their intervals per method; empty for a file without truth.

    results: method label -> estimate of the whole file
    seconds: method label -> wall time per estimate
    """
    return rows(file_groups(slot, results, seconds), metrics_of(slot))


def file_groups(slot: Slot, results: Mapping[str, Estimate], seconds: Mapping[str, float]) -> list[Group]:
    """One group per method, holding the whole file as its one block."""
    if not results:
        raise ValueError("results: expected at least one method's estimate, got none")
    groups = []
    for label, estimate in results.items():
        items = max(estimate.status.numel(), 1)
        scores = score_channel(estimate, slot) if slot.truth is not None else {}
        cell = Cell(
            key="",
            experiment="",
            method=label,
            point={},
            block=0,
            seed=0,
            items=items,
            arrays=scores | example_of(estimate, slot),
            status=estimate.status_counts(),
            wall_s=seconds[label] * items,
            cpu_s=seconds[label] * items,
            device=str(estimate.belief.mean.device),
            threads=torch.get_num_threads(),
            versions=versions(),
            machine=machine(),
        )
        groups.append(Group(label, {}, 0, [cell]))
    return groups
