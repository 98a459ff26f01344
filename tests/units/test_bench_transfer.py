"""Stores of several machines in one: nothing twice, nothing lost, and different numbers said."""

import dataclasses

import pytest
import torch

from hhat.bench import run as runner
from hhat.bench.store import FILE, Store
from hhat.bench.store.salvage import check
from hhat.bench.store.transfer import CLOSE, Merged, alike, merge
from tests.units.bench_fakes import EXPERIMENT
from tests.units.store_files import MACHINE, cell, contents, fill, key_of


def test_two_halves_equal_the_store_of_one_unbroken_run(tmp_path):
    whole, one, two, both = (tmp_path / name for name in ("whole", "one", "two", "both"))
    runner.run(EXPERIMENT, "quick", whole, progress=False)
    for half, first in ((one, 0), (two, 1)):
        runner.run(EXPERIMENT, "quick", half, progress=False)
        with Store(half) as store:
            store.delete(sorted(store.keys())[first::2])
    keys = {half: set(contents(half)) for half in (one, two)}
    found = merge(both, [one, two / FILE])
    assert [(m.cells, m.runs, m.equal, m.close, m.differ) for m in found] == [(9, 1, 0, 0, ()), (9, 0, 0, 0, ())]
    assert contents(both) == contents(whole) and keys[one] | keys[two] == set(contents(both))
    rows = [
        [{name: value for name, value in row.items() if name != "seconds"} for row in table]
        for table in (runner.rows(EXPERIMENT, "quick", both), runner.rows(EXPERIMENT, "quick", whole))
    ]
    assert rows[0] == rows[1] and runner.missing(EXPERIMENT, "quick", both) == []


def test_times_dates_and_machines_stay_with_their_cells(tmp_path):
    with Store(tmp_path / "a") as store:
        store.put(dataclasses.replace(cell("a"), wall_s=7.0, machine=MACHINE | {"cpu": "another"}))
        (before,) = store.records("cells", ["a"])
    fill(tmp_path / "b", range(3))
    merge(tmp_path / "b", [tmp_path / "a"])
    with Store(tmp_path / "b", create=False) as store:
        assert next(store.records("cells", ["a"])) == before
        assert {one.machine["cpu"] for one in store.cells(store.keys())} == {"a cpu", "another"}


def test_cells_in_both_are_kept_and_compared(tmp_path):
    fill(tmp_path / "a", range(4))
    with Store(tmp_path / "b") as store:
        for number, value in ((0, 1.0), (1, 1.0 + 5e-6), (2, 1.001), (9, 1.0)):
            store.put(cell(key_of(number), value))
    before = contents(tmp_path / "a")
    found = merge(tmp_path / "a", [tmp_path / "b", tmp_path / "b"])
    assert found[0] == Merged(str(tmp_path / "b"), 1, 0, 1, 1, (key_of(2),))
    assert (found[1].cells, found[1].equal) == (0, 2)
    assert before.items() <= contents(tmp_path / "a").items() and len(contents(tmp_path / "a")) == 5


def test_alike_looks_at_names_shapes_bits_and_what_is_not_finite():
    base = {"x": torch.tensor([1.0, 2.0, float("inf"), float("nan")])}

    def other(*values):
        return {"x": torch.tensor([*values])}

    inf, nan = float("inf"), float("nan")
    assert alike(base, other(1.0, 2.0, inf, nan)) == "equal"
    assert alike(base, other(1.0 + CLOSE, 2.0, inf, nan)) == "close"
    assert alike(base, other(1.0 + 3 * CLOSE, 2.0, inf, nan)) == "differ"
    assert alike(base, other(1.0, 2.0, -inf, nan)) == "differ"
    assert alike(base, other(1.0, 2.0, 0.0, nan)) == "differ"
    assert alike(base, other(1.0, 2.0, inf, 0.0)) == "differ"
    assert alike(base, {"x": base["x"][None]}) == "differ" and alike(base, {}) == "differ" and alike({}, {}) == "equal"
    assert alike({"x": torch.zeros(2)}, {"x": -torch.zeros(2)}) == "close"
    assert alike({"x": torch.tensor(3.0)}, {"x": torch.tensor(3.0)}) == "equal"


def test_a_source_is_whole_or_not_at_all_and_only_read(tmp_path):
    fill(tmp_path / "a", range(3))
    fill(tmp_path / "good", range(10, 13))
    keys = fill(tmp_path / "bad", range(20, 50))
    with Store(tmp_path / "bad") as store:
        store._db.execute("UPDATE cells SET wall_s = 3 WHERE key = ?", (sorted(keys)[-1],))
    before = {name: (tmp_path / name / FILE).read_bytes() for name in ("good", "bad")}
    with pytest.raises(ValueError, match=r"bad/cells.sqlite: damaged: .*salvage"):
        merge(tmp_path / "a", [tmp_path / "good", tmp_path / "bad"])
    assert len(contents(tmp_path / "a")) == 6 and check(tmp_path / "a").sound
    assert before == {name: (tmp_path / name / FILE).read_bytes() for name in before}


def test_a_wrong_source_is_refused_before_anything_is_made(tmp_path):
    fill(tmp_path / "a", range(3))
    with pytest.raises(ValueError, match="nowhere: expected a folder of runs"):
        merge(tmp_path / "new", [tmp_path / "a", tmp_path / "nowhere"])
    assert not (tmp_path / "new").exists()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for source in (tmp_path / "a", tmp_path / "a" / FILE, tmp_path / "link"):
        with pytest.raises(ValueError, match="cannot merge a store into itself"):
            merge(tmp_path / "a", [source])
