"""Claims, differences and the stopping rule on planted cells: every verdict is reached, and pairing means something."""

import dataclasses
import json
import math

import pytest
import torch

from hhat.bench.claims import (
    CONFIRMED,
    NOT_CONFIRMED,
    NOT_TESTABLE,
    Faster,
    LargerGain,
    Level,
    Ordering,
    Trend,
    Words,
    restored,
)
from hhat.bench.compare import common, difference
from hhat.bench.metrics import mean_interval, mean_interval_db
from hhat.bench.recipe import describe
from hhat.bench.stopping import Stopping
from hhat.bench.store import Cell
from hhat.bench.summary import Group
from hhat.random import generator

ITEMS = 20
SOURCE = "Nobody 2000, Fig. 1"


def cell(method: str, block: int, arrays: dict, point: dict, wall_s: float = 1.0) -> Cell:
    status = {"OK": ITEMS}
    key = f"{method} {point} {block}"
    return Cell(key, "x/y", method, point, block, 0, ITEMS, arrays, status, wall_s, wall_s, "cpu", 1, {"hhat": "0"})


def drawn(label: str, blocks: int, spread: float = 0.3) -> torch.Tensor:
    """(blocks, ITEMS) log-normal ratios of mean 1."""
    noise = torch.randn(blocks, ITEMS, generator=generator("claims", label), dtype=torch.float64)
    return (spread * noise - spread**2 / 2).exp()


def planted(method: str, level_db: float, ratios: torch.Tensor, wall_s: float = 1.0, **point) -> Group:
    """A group whose errors are `ratios` times a level, with channels of energy 1 to 2."""
    power = 10 ** (level_db / 10)
    energy = torch.linspace(1, 2, ITEMS, dtype=torch.float64)
    cells = [
        cell(method, block, {"ratio": power * row, "energy": energy}, point, wall_s) for block, row in enumerate(ratios)
    ]
    return Group(method, point, 0, cells)


def along_snr(method: str, levels: dict[float, float], blocks: int = 10, **rest) -> list[Group]:
    """One group per SNR, all with the same channels."""
    return [planted(method, level, drawn("channels", blocks), snr_db=snr, **rest) for snr, level in levels.items()]


FALLING = along_snr("a", {0.0: -5.0, 10.0: -10.0, 20.0: -15.0})
RISING_LEAD = along_snr("b", {0.0: -4.0, 10.0: -7.0, 20.0: -10.0})
SLOW = [planted("a", -5.0, drawn("slow", 3), wall_s=3.0), planted("b", -5.0, drawn("slow", 3), wall_s=1.0)]


def few(level_db: float) -> Group:
    """Two blocks of its own with a spread of several dB: nothing near its level can be told."""
    return planted("few", level_db, drawn(f"few {level_db}", 2, spread=1.5), snr_db=0.0)


CASES = [
    (Words("w", SOURCE), FALLING, NOT_TESTABLE),
    (Level("l", SOURCE, method="a", low=-16.0, high=-4.0), FALLING, CONFIRMED),
    (Level("l", SOURCE, method="a", high=-9.0), FALLING, NOT_CONFIRMED),
    (Level("l", SOURCE, method="a", high=-9.0, at={"snr_db": 10.0}), FALLING, CONFIRMED),
    (Level("l", SOURCE, method="a", low=-9.0, at={"snr_db": 10.0}), FALLING, NOT_CONFIRMED),
    (Level("l", SOURCE, method="few", high=-5.0), [few(-5.0)], NOT_TESTABLE),
    (Level("l", SOURCE, method="z", high=-9.0), FALLING, NOT_TESTABLE),
    (Level("l", SOURCE, method="a", high=-9.0, at={"snr_db": 15.0}), FALLING, NOT_TESTABLE),
    (Level("l", SOURCE, method="a", high=3.0, metric="rounds"), FALLING, NOT_TESTABLE),
    (Level("l", SOURCE, method="a", high=3.0, metric="variance_ratio"), FALLING, NOT_TESTABLE),
    (Ordering("o", SOURCE, methods=("a", "b")), FALLING + RISING_LEAD, CONFIRMED),
    (Ordering("o", SOURCE, methods=("b", "a")), FALLING + RISING_LEAD, NOT_CONFIRMED),
    (Ordering("o", SOURCE, methods=("b", "a"), higher_is_better=True), FALLING + RISING_LEAD, CONFIRMED),
    (Ordering("o", SOURCE, methods=("a", "b"), by=2.0), FALLING + RISING_LEAD, NOT_CONFIRMED),
    (Ordering("o", SOURCE, methods=("a", "b"), by=2.0, at={"snr_db": 10.0}), FALLING + RISING_LEAD, CONFIRMED),
    (Ordering("o", SOURCE, methods=("a", "b"), by=-math.inf, at_most=4.0), FALLING + RISING_LEAD, NOT_CONFIRMED),
    (Ordering("o", SOURCE, methods=("a", "b"), by=-math.inf, at_most=6.0), FALLING + RISING_LEAD, CONFIRMED),
    (Ordering("o", SOURCE, methods=("few", "b"), at={"snr_db": 0.0}), [few(-4.0), *RISING_LEAD], NOT_TESTABLE),
    (Ordering("o", SOURCE, methods=("a", "z")), FALLING, NOT_TESTABLE),
    (Ordering("o", SOURCE, methods=("a", "b")), [*FALLING[:1], *RISING_LEAD[1:]], NOT_TESTABLE),
    (Ordering("o", SOURCE, methods=("a", "b"), metric="rounds"), FALLING + RISING_LEAD, NOT_TESTABLE),
    (Trend("t", SOURCE, method="a"), FALLING, CONFIRMED),
    (Trend("t", SOURCE, method="a", rises=True), FALLING, NOT_CONFIRMED),
    (Trend("t", SOURCE, method="a"), FALLING[:1], NOT_TESTABLE),
    (Trend("t", SOURCE, method="a", over="slot"), FALLING, NOT_TESTABLE),
    (Trend("t", SOURCE, method="a", metric="rounds"), FALLING, NOT_TESTABLE),
    (Trend("t", SOURCE, method="a", against="b", rises=True), FALLING + RISING_LEAD, CONFIRMED),
    (Trend("t", SOURCE, method="a", against="b"), FALLING + RISING_LEAD, NOT_CONFIRMED),
    (Trend("t", SOURCE, method="a", against="z"), FALLING, NOT_TESTABLE),
    (Trend("t", SOURCE, method="few"), [few(-5.0), *along_snr("few", {10.0: -5.5}, 2)], NOT_TESTABLE),
    (Faster("f", SOURCE, method="b", than="a"), SLOW, CONFIRMED),
    (Faster("f", SOURCE, method="b", than="a", factor=2.5), SLOW, CONFIRMED),
    (Faster("f", SOURCE, method="b", than="a", factor=3.5), SLOW, NOT_CONFIRMED),
    (Faster("f", SOURCE, method="a", than="b"), SLOW, NOT_CONFIRMED),
    (Faster("f", SOURCE, method="a", than="z"), SLOW, NOT_TESTABLE),
    (Faster("f", SOURCE, method="a", than="b"), [*FALLING[:1], *RISING_LEAD[1:]], NOT_TESTABLE),
]


@pytest.mark.parametrize(("claim", "groups", "wanted"), CASES)
def test_verdict(claim, groups, wanted):
    verdict = claim.check(groups)
    assert verdict.verdict == wanted and verdict.measured


def test_each_kind_of_claim_that_can_be_judged_reaches_each_verdict():
    for kind in (Level, Ordering, Trend, Faster):
        assert {wanted for claim, _, wanted in CASES if isinstance(claim, kind)} == {
            CONFIRMED,
            NOT_CONFIRMED,
            NOT_TESTABLE,
        }


@pytest.mark.parametrize("claim", [case[0] for case in CASES])
def test_a_claim_survives_the_store(claim):
    stored = json.loads(json.dumps(describe(claim)))
    assert describe(restored(stored)) == describe(claim) and type(restored(stored)) is type(claim)
    groups = FALLING + RISING_LEAD + SLOW
    assert restored(stored).check(groups) == claim.check(groups)


def test_a_claim_of_no_known_kind_is_refused():
    with pytest.raises(ValueError, match="expected one of Words"):
        restored({"class": "Rumour", "text": "t", "source": "s"})


def test_what_is_missing_is_named():
    assert Ordering("o", SOURCE, methods=("a", "z", "y")).check(FALLING).measured == "not in this run: z, y"
    assert "not run at snr_db=15.0: a" in Level("l", SOURCE, method="a", at={"snr_db": 15.0}).check(FALLING).measured
    assert (
        "no number at snr_db=0.0" in Ordering("o", SOURCE, methods=("a", "b")).check(FALLING[:1] + RISING_LEAD[1:])[1]
    )


def test_the_point_that_contradicts_most_is_named():
    groups = [*FALLING[:1], *along_snr("a", {10.0: 1.0, 20.0: 4.0, 30.0: 2.0})]
    verdict = Level("l", SOURCE, method="a", high=0.0).check(groups)
    assert verdict.verdict == NOT_CONFIRMED
    assert "snr_db=20.0" in verdict.measured and "contradicted at 3 of 4" in verdict.measured
    nearest = Level("l", SOURCE, method="a", high=9.0).check(groups)
    assert nearest.verdict == CONFIRMED and "snr_db=20.0" in nearest.measured


def test_a_point_that_contradicts_is_named_before_one_that_is_in_doubt():
    doubtful = planted("a", 3.0, drawn("doubt", 2, 1.5), snr_db=20.0)
    value = mean_interval_db(doubtful.array("ratio"))
    assert value.low < 2.0 < value.value
    groups = [*along_snr("a", {0.0: -5.0, 10.0: 2.2}), doubtful]
    verdict = Level("l", SOURCE, method="a", high=2.0).check(groups)
    assert verdict.verdict == NOT_CONFIRMED and "snr_db=10.0" in verdict.measured


def test_a_trend_steps_only_between_points_that_differ_in_nothing_else():
    """Profile X falls from -20, profile Y from -5: sorted by SNR alone every other step would rise."""
    groups = along_snr("a", {0.0: -20.0, 10.0: -25.0}, profile="X") + along_snr(
        "a", {0.0: -5.0, 10.0: -8.0}, profile="Y"
    )
    assert Trend("t", SOURCE, method="a").check(groups).verdict == CONFIRMED
    assert Trend("t", SOURCE, method="a", rises=True).check(groups).verdict == NOT_CONFIRMED
    wrong = along_snr("a", {0.0: -20.0, 10.0: -25.0}, profile="X") + along_snr(
        "a", {0.0: -8.0, 10.0: -5.0}, profile="Y"
    )
    verdict = Trend("t", SOURCE, method="a").check(wrong)
    assert verdict.verdict == NOT_CONFIRMED and "profile=Y" in verdict.measured


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_an_error_that_has_no_decibels_confirms_nothing(value):
    broken = drawn("broken", 3)
    broken[1 if value else slice(None)] = value
    groups = [planted("a", 0.0, broken, snr_db=0.0), planted("b", -5.0, drawn("fine", 3), snr_db=0.0)]
    assert Level("l", SOURCE, method="a", high=0.0).check(groups).verdict == NOT_TESTABLE
    assert Ordering("o", SOURCE, methods=("a", "b")).check(groups).verdict == NOT_TESTABLE


def correlated(blocks: int) -> tuple[Group, Group]:
    """Two methods that find the same channels hard, `b` 1 dB behind, with a little of its own."""
    shared, own = drawn("shared", blocks, 1.0), drawn("own", blocks, 0.1)
    return planted("a", -10.0, shared, snr_db=0.0), planted("b", -9.0, shared * own, snr_db=0.0)


def test_a_difference_is_that_of_the_means_and_its_interval_that_of_the_delta_method():
    a, b = correlated(5)
    found = difference("nmse_db", b, a)
    x, y = b.array("ratio"), a.array("ratio")
    ratio = float(x.mean() / y.mean())
    assert found.value == pytest.approx(10 * math.log10(ratio), abs=1e-9) and found.n == 5 * ITEMS
    # by hand: log(mean x / mean y) has the variance of x / mean x - y / mean y, over n
    spread = float((x / x.mean() - y / y.mean()).std()) / math.sqrt(5 * ITEMS)
    student = 1.98422  # 97.5 % of Student's t with 99 degrees of freedom
    half = 10 / math.log(10) * student * spread
    assert found.high - found.value == pytest.approx(half, rel=1e-4)
    assert found.value - found.low == pytest.approx(half, rel=1e-4)


def test_its_interval_is_that_of_resampling_realisations():
    a, b = correlated(20)
    x, y = b.array("ratio"), a.array("ratio")
    pick = torch.randint(len(x), (2000, len(x)), generator=generator("bootstrap"))
    resampled = 10 * (x[pick].mean(1) / y[pick].mean(1)).log10()
    found = difference("nmse_db", b, a)
    assert float(resampled.std()) * 1.96 == pytest.approx((found.high - found.low) / 2, rel=0.15)


def test_pairing_sees_what_two_intervals_hide():
    a, b = correlated(5)
    found = difference("nmse_db", b, a)
    apart = [mean_interval_db(cells.array("ratio")) for cells in (a, b)]
    unpaired = math.hypot(*(value.high - value.low for value in apart))
    assert found.high - found.low < unpaired / 3
    assert apart[0].high > apart[1].low and found.low > 0
    assert Ordering("o", SOURCE, methods=("a", "b")).check([a, b]).verdict == CONFIRMED


def test_pooled_and_kept_arrays_are_paired_too():
    a, b = correlated(5)
    energy = a.array("energy")
    pooled = difference("nmse_pooled_db", b, a)
    ratio = float((b.array("ratio") * energy).sum() / (a.array("ratio") * energy).sum())
    assert pooled.value == pytest.approx(10 * math.log10(ratio), abs=1e-9)
    kept = difference("ratio", b, a)
    assert kept == mean_interval(b.array("ratio") - a.array("ratio"))
    median = difference("nmse_median_db", b, a)
    middle = [10 * math.log10(float(cells.array("ratio").quantile(0.5))) for cells in (b, a)]
    assert median.value == pytest.approx(middle[0] - middle[1], abs=1e-9)


def test_pooled_without_energies_does_not_apply():
    a, b = (dataclasses.replace(g, cells=[dataclasses.replace(c, arrays={"ratio": c.arrays["ratio"]}) for c in g.cells])
            for g in correlated(2))  # fmt: skip
    assert difference("nmse_pooled_db", a, b) is None and difference("nmse_db", a, b) is not None


def test_only_blocks_that_both_have_are_compared():
    """`a` stopped after 3 blocks; the later blocks of `b`, hard ones, are not held against it."""
    shared = drawn("shared", 8, 1.0)
    shared[3:] *= 100
    short, long = planted("a", -10.0, shared[:3], snr_db=0.0), planted("b", -11.0, shared, snr_db=0.0)
    assert mean_interval_db(long.array("ratio")).value > mean_interval_db(short.array("ratio")).value + 5
    assert difference("nmse_db", short, long).value == pytest.approx(1.0, abs=1e-6)
    assert [len(cells.cells) for cells in common([short, long])] == [3, 3]
    assert Ordering("o", SOURCE, methods=("b", "a")).check([short, long]).verdict == CONFIRMED
    assert [len(cells.cells) for cells in (short, long)] == [3, 8]


def test_no_common_block_no_difference():
    a, b = correlated(4)
    a.cells, b.cells = a.cells[:2], b.cells[2:]
    assert difference("nmse_db", a, b) is None and common([]) == []
    assert Ordering("o", SOURCE, methods=("a", "b")).check([a, b]).verdict == NOT_TESTABLE


def test_blocks_of_other_order_are_paired_by_number():
    a, b = correlated(6)
    expected = difference("nmse_db", b, a)
    a.cells.reverse()
    assert difference("nmse_db", b, a) == pytest.approx(expected, abs=1e-9)


def test_the_stopping_rule_takes_the_shortest_prefix_that_is_narrow_enough():
    rule, row = Stopping(0.2), planted("a", -10.0, drawn("stop", 40, 0.5), snr_db=0.0)
    heads = [dataclasses.replace(row, cells=row.cells[:count]) for count in range(3, 41)]
    widths = [value.high - value.low for value in (mean_interval_db(head.array("ratio")) for head in heads)]
    first = next(3 + index for index, width in enumerate(widths) if width <= 0.4)
    assert 3 < first < 40 and len(rule.counted(row).cells) == first
    assert rule.met(rule.counted(row)) and not rule.met(dataclasses.replace(row, cells=row.cells[: first - 1]))


def test_what_counts_depends_on_the_prefix_alone():
    rule, row = Stopping(0.2), planted("a", -10.0, drawn("stop", 40, 0.5), snr_db=0.0)
    kept = [one.block for one in rule.counted(row).cells]
    more = planted("a", -10.0, torch.cat([drawn("stop", 40, 0.5)[: len(kept)], 1e3 * drawn("after", 30)]), snr_db=0.0)
    shuffled = dataclasses.replace(more, cells=[more.cells[i] for i in torch.randperm(len(more.cells))])
    for other in (more, shuffled, dataclasses.replace(row, cells=row.cells[: len(kept)])):
        assert [one.block for one in rule.counted(other).cells] == kept == list(range(len(kept)))


def test_a_rule_never_met_counts_all_and_no_rule_looks_before_its_time():
    row = planted("a", -10.0, drawn("stop", 6, 0.5), snr_db=0.0)
    assert len(Stopping(1e-6).counted(row).cells) == 6 and not Stopping(1e-6).met(row)
    assert len(Stopping(100.0, min_blocks=4).counted(row).cells) == 4
    assert not Stopping(100.0, min_blocks=7).met(row)
    for wrong in ({"half_width": 0.0}, {"half_width": math.nan}, {"half_width": 1.0, "min_blocks": 0}):
        with pytest.raises(ValueError, match="half_width > 0 and min_blocks >= 1"):
            Stopping(**wrong)


def test_a_larger_gain_is_judged_by_the_difference_of_two_paired_leads():
    near = [cells for cells in FALLING if cells.method == "a"]
    far = [dataclasses.replace(c, method="far", cells=[louder(x, 4.0) for x in c.cells]) for c in near]
    further = [dataclasses.replace(c, method="further", cells=[louder(x, 9.0) for x in c.cells]) for c in near]
    groups = [*near, *far, *further]
    claim = LargerGain("g", SOURCE, first=("a", "further"), second=("a", "far"))
    assert claim.check(groups).verdict == CONFIRMED and "3.52" in claim.check(groups).measured  # 10 log10 (9 / 4)
    turned = dataclasses.replace(claim, first=claim.second, second=claim.first)
    assert turned.check(groups).verdict == NOT_CONFIRMED
    assert claim.check(near).verdict == NOT_TESTABLE and claim.check([*groups[:-1]]).verdict == NOT_TESTABLE


def louder(cell, factor):
    return dataclasses.replace(cell, arrays={**cell.arrays, "ratio": factor * cell.arrays["ratio"]})


def test_equal_methods_are_not_ahead_of_each_other():
    twin = [dataclasses.replace(cells, method="twin") for cells in FALLING if cells.method == "a"]
    for order in (("a", "twin"), ("twin", "a")):
        assert Ordering("o", SOURCE, methods=order).check([*FALLING, *twin]).verdict == NOT_CONFIRMED


def test_a_point_that_one_lacks_is_not_passed_over():
    verdict = Ordering("o", SOURCE, methods=("a", "b")).check([*FALLING, *RISING_LEAD[:1]])
    assert verdict.verdict != CONFIRMED


def test_a_number_that_is_none_hides_no_contradiction():
    cells = [cells for cells in FALLING if cells.method == "a"]
    broken = dataclasses.replace(cells[0], point={"snr_db": -5.0}, cells=[lost(cell) for cell in cells[0].cells])
    assert Level("l", SOURCE, method="a", high=-200.0).check([broken, *cells]).verdict == NOT_CONFIRMED


def lost(cell):
    return dataclasses.replace(cell, arrays={**cell.arrays, "ratio": torch.full_like(cell.arrays["ratio"], math.nan)})
