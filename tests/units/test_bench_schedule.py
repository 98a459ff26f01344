"""The schedule: every cell once, the same cells counted in whatever order they end, lanes that stay where they are."""

import random

import pytest
import torch

from hhat.bench.schedule import Schedule
from hhat.bench.stopping import Stopping
from hhat.bench.store import Cell
from hhat.bench.worker import Failed, Task
from hhat.random import generator

POINTS, LABELS, BLOCKS, SIZE = ({"snr_db": 0.0}, {"snr_db": 10.0}, {"snr_db": 20.0}), ("a", "b"), 12, 20


def tasks() -> list[Task]:
    return [
        Task(f"{point['snr_db']}-{block}-{label}", label, dict(point), block, SIZE, 1)
        for point in POINTS
        for block in range(BLOCKS)
        for label in LABELS
    ]


def cell(task: Task) -> Cell:
    """Errors whose spread differs by method, so that their rows end at different counts."""
    spread = {"a": 0.3, "b": 1.5}[task.method]
    ratio = (spread * torch.randn(SIZE, generator=generator("schedule", task.key))).exp()
    arrays = {"ratio": ratio, "energy": torch.ones(SIZE)}
    return Cell(
        task.key, "t", task.method, task.point, task.block, 0, SIZE, arrays, {"OK": SIZE}, 0.1, 0.1, "cpu", 1, {}
    )


def drained(schedule: Schedule, lanes: int, order: random.Random) -> list[Task]:
    """Runs everything on so many lanes, which end in a random order."""
    busy, seen = {}, []
    while True:
        for lane in range(lanes):
            if lane not in busy and (task := schedule.take(lane)) is not None:
                busy[lane] = task
                seen.append(task)
        if not busy:
            return seen
        lane = order.choice(sorted(busy))
        schedule.give(cell(busy.pop(lane)))


def counted(schedule: Schedule) -> dict[tuple[str, float], list[int]]:
    return {(c.method, c.point["snr_db"]): [one.block for one in c.cells] for c in schedule.rows()}


def test_a_serial_run_takes_the_cells_in_the_order_of_the_plan():
    assert drained(Schedule(tasks()), 1, random.Random(0)) == tasks()


@pytest.mark.parametrize("lanes", [1, 2, 7])
def test_every_cell_is_handed_out_once(lanes):
    schedule = Schedule(tasks())
    seen = drained(schedule, lanes, random.Random(lanes))
    assert sorted(task.key for task in seen) == sorted(task.key for task in tasks())
    assert schedule.left() == [] and schedule.take(0) is None and schedule.total() == len(tasks())


@pytest.mark.parametrize("lanes", [2, 3, 7])
def test_a_stopping_rule_counts_the_same_blocks_on_any_lanes_in_any_order(lanes):
    rule = Stopping(half_width=0.5)
    serial = Schedule(tasks(), rule)
    drained(serial, 1, random.Random(0))
    expected = counted(serial)
    sizes = {label: [len(blocks) for (method, _), blocks in expected.items() if method == label] for label in LABELS}
    assert max(sizes["a"]) < max(sizes["b"]) and min(sizes["a"]) == rule.min_blocks  # the rule has work to do
    for seed in range(5):
        schedule = Schedule(tasks(), rule)
        drained(schedule, lanes, random.Random(seed))
        assert counted(schedule) == expected


def test_a_rule_hands_out_no_block_before_those_before_it_are_in():
    schedule = Schedule([task for task in tasks() if task.method == "b"][:BLOCKS], Stopping(half_width=0.1))
    first = [schedule.take(lane) for lane in range(5)]
    assert [task.block for task in first[:3]] == [0, 1, 2] and first[3:] == [None, None]
    schedule.give(cell(first[0]))
    assert schedule.take(0) is None
    for task in first[1:3]:
        schedule.give(cell(task))
    assert schedule.take(0).block == 3 and schedule.take(1) is None


def test_an_interrupted_rule_resumes_to_the_same_blocks():
    rule = Stopping(half_width=0.5)
    whole = Schedule(tasks(), rule)
    drained(whole, 1, random.Random(0))
    for count in (1, 7, 20):
        broken = Schedule(tasks(), rule)
        stored = []
        for _ in range(count):
            stored.append(cell(broken.take()))
            broken.give(stored[-1])
        resumed = Schedule(tasks(), rule, stored)
        again = drained(resumed, 3, random.Random(count))
        assert counted(resumed) == counted(whole)
        assert {task.key for task in again}.isdisjoint(one.key for one in stored)


def test_more_blocks_than_the_rule_asks_for_change_nothing():
    rule = Stopping(half_width=0.5)
    lean, full = Schedule(tasks(), rule), Schedule(tasks(), rule, [cell(task) for task in tasks()])
    drained(lean, 1, random.Random(0))
    assert counted(full) == counted(lean) and full.take() is None


def test_what_is_left_shrinks_to_what_the_width_so_far_asks_for():
    schedule = Schedule([task for task in tasks() if task.method == "a"][:BLOCKS], Stopping(half_width=0.2))
    assert len(schedule.left()) == BLOCKS
    for _ in range(3):
        schedule.give(cell(schedule.take()))
    (row,) = schedule.rows()
    assert len(row.cells) == 3 and 0 < len(schedule.left()) < BLOCKS - 3
    drained(schedule, 1, random.Random(0))
    assert schedule.left() == []


def test_a_lane_stays_with_its_draw_then_with_its_point():
    schedule = Schedule(tasks())
    first, second = schedule.take(0), schedule.take(1)
    assert first.point != second.point  # two lanes set up two points
    then = schedule.take(0)
    assert (then.point, then.block) == (first.point, first.block) and then.method != first.method
    assert schedule.take(0).point == first.point


def test_a_failed_cell_ends_its_row_and_no_other():
    schedule = Schedule(tasks())
    refused = schedule.take()
    schedule.give(Failed(refused, "no"))
    rest = drained(schedule, 2, random.Random(1))
    mine = [task for task in rest if (task.method, task.point) == (refused.method, refused.point)]
    assert mine == [] and len(rest) == len(tasks()) - BLOCKS
    assert schedule.left() == []
