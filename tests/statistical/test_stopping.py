"""What the 95 % interval of a row is worth after blocks were added until it was narrow enough.

Simulated rows of known mean; 3,000 rows a case, so that a coverage is known to +-0.8 % (two standard errors).
"""

import math

import pytest
import torch

from hhat.bench.stopping import Stopping
from hhat.bench.store import Cell
from hhat.bench.summary import Group, summarise
from hhat.random import generator

ROWS = 3000
LARGEST = 400
"""Blocks at most; the cases stop long before"""


def log_normal(spread: float):
    """Mean 1; `spread` is the standard deviation of the logarithm: 1 is 4.3 dB."""
    return lambda shape, gen: (spread * torch.randn(shape, generator=gen) - spread**2 / 2).exp()


def chi_square(degrees: int):
    """Mean 1: the energy of `degrees` / 2 complex Gaussian errors of one variance."""
    return lambda shape, gen: torch.randn(*shape, degrees, generator=gen).square().mean(-1)


def coverage(draw, rule: Stopping, block: int = 20) -> float:
    """Share of rows whose interval, as the rule leaves it, holds the true 0 dB."""
    gen = generator("stopping", str(rule), block)
    held = 0
    for _ in range(ROWS):
        row = Group("m", {}, 0, [])
        while len(row.cells) < LARGEST and not rule.met(row):
            ratio = {"ratio": draw((block,), gen)}
            row.cells.append(Cell("k", "x/y", "m", {}, len(row.cells), 0, block, ratio, {}, 1.0, 1.0, "cpu", 1, {}))
        value = summarise("nmse_db", rule.counted(row))
        held += value.low <= 0 <= value.high
    return held / ROWS


CASES = {
    "log-normal 1.3 dB": (log_normal(0.3), (0.5, 0.3, 0.2), 0.93),
    "log-normal 2.6 dB": (log_normal(0.6), (1.0, 0.5, 0.3), 0.92),
    "log-normal 4.3 dB": (log_normal(1.0), (1.0, 0.5), 0.90),
    "exponential": (chi_square(2), (1.0, 0.5, 0.3), 0.93),
    "chi-square of 8": (chi_square(8), (0.5, 0.3, 0.2), 0.93),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "half_width"), [(name, half) for name in CASES for half in CASES[name][1]])
def test_the_nominal_95_percent_after_stopping(name, half_width):
    draw, _, least = CASES[name]
    assert least <= coverage(draw, Stopping(half_width)) <= 0.97


@pytest.mark.slow
def test_heavy_tails_cost_coverage_where_few_blocks_are_enough():
    """A log-normal of 6 dB and a wide target: the rare large errors that widen the interval have not come yet."""
    assert 0.86 <= coverage(log_normal(6 * math.log(10) / 10), Stopping(1.0)) <= 0.90


@pytest.mark.slow
def test_looking_early_and_often_costs_coverage():
    """The simulation sees it: from 4 channels on with a look after every two the interval is too short."""
    assert 0.88 <= coverage(log_normal(0.6), Stopping(1.0, min_blocks=2), block=2) <= 0.91
