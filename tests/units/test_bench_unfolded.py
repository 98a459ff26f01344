"""Curves kept in one cell: arrays along an axis of the sweep become a group per place of it."""

import pytest
import torch

from hhat.bench.claims import CONFIRMED, Ordering, Trend
from hhat.bench.stopping import counted_groups
from hhat.bench.summary import Group, rows, summarise
from tests.units.test_bench_claims import cell, drawn

POINT = {"hops": 4}


def curve(levels=(1.0, 2.0, 4.0), name="ratio@symbol", **more) -> Group:
    arrays = [{name: torch.tensor(levels) * block[:, None], **more} for block in drawn("curve", 3)]
    return Group("m", POINT, 0, [cell("m", number, kept, POINT) for number, kept in enumerate(arrays)])


def test_a_curve_is_a_row_per_place_on_it():
    found = rows(counted_groups([curve()], None), ["nmse_db"])
    assert [row["point"] for row in found] == [{**POINT, "symbol": place} for place in range(3)]
    assert found[2]["value"] - found[0]["value"] == pytest.approx(10 * torch.tensor(4.0).log10().item(), abs=1e-4)
    assert all(row["n"] == 60 for row in found)


def test_steps_are_counted_and_a_trend_sees_them():
    found = counted_groups([curve(name="e0@slot:100")], None)
    assert [cells.point["slot"] for cells in found] == [0, 100, 200]
    from_one = counted_groups([curve(name="e0@epoch:1:1")], None)
    assert [cells.point["epoch"] for cells in from_one] == [1, 2, 3]
    claim = Trend("grows", "nobody", method="m", over="slot", rises=True, metric="e0")
    assert claim.check(found).verdict == CONFIRMED


def test_what_runs_along_nothing_stays_with_the_point_itself():
    found = rows(
        counted_groups([curve(stage1_nmse_ratio=torch.full((20,), 0.01))], None), ["nmse_db", "stage1_nmse_db"]
    )
    assert found[0]["metric"] == "stage1_nmse_db" and found[0]["point"] == POINT
    assert found[0]["value"] == pytest.approx(-20) and len(found) == 4


def test_medians_of_kept_ratios_and_unknown_names():
    ratios = torch.cat([torch.full((15,), 0.1), torch.full((5,), 9.0)])
    group = Group("m", POINT, 0, [cell("m", 0, {"tracking_nmse_ratio": ratios}, POINT)])
    assert summarise("tracking_nmse_median_db", group).value == pytest.approx(-10)
    assert summarise("tracking_nmse_db", group).value == pytest.approx(
        10 * torch.tensor(2.325).log10().item(), abs=1e-4
    )
    with pytest.raises(ValueError, match="unknown metric 'stage_nmse_db'"):
        summarise("stage_nmse_db", group)


def test_curves_of_different_lengths_are_not_cut_to_the_shortest():
    with pytest.raises(ValueError, match=r"one length along 'symbol', got \[2, 3\]"):
        counted_groups([curve(**{"e0@symbol": torch.ones(20, 2)})], None)


def test_what_one_method_keeps_alone_is_its_row_and_what_none_keeps_is_refused():
    plain, more = (curve(name="ratio"), curve(name="ratio", gap_ratio=torch.full((20,), 0.5)))
    found = rows([plain, more], ["nmse_db", "gap_db"])
    assert [row["metric"] for row in found] == ["nmse_db", "nmse_db", "gap_db"]
    assert found[2]["value"] == pytest.approx(-3.0103, abs=1e-3)
    with pytest.raises(ValueError, match="unknown metric 'gap_db'"):
        rows([plain], ["gap_db"])


def test_a_claim_on_a_metric_of_the_point_is_not_held_against_the_places_of_its_curve():
    better, worse = (curve(stage1_nmse_ratio=level * torch.linspace(0.9, 1.1, 20)) for level in (0.01, 0.1))
    worse.method = "worse"
    found = counted_groups([better, worse], None)
    claim = Ordering("ahead", "nobody", methods=("m", "worse"), metric="stage1_nmse_db")
    assert claim.check(found).verdict == CONFIRMED
