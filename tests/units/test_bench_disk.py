"""The store on disks as they are: written by two at once, read-only, full, damaged. Nothing stored is lost by it."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hhat.bench import run as runner
from hhat.bench.experiment import Profile, grid
from hhat.bench.store import FILE, Run, Store
from hhat.bench.store.salvage import check, salvage
from hhat.bench.store.table import export
from hhat.bench.store.transfer import merge
from tests.units.bench_fakes import EXPERIMENT
from tests.units.store_files import cell, contents, fill, key_of, overwrite_page, read_only, small_disk

WRITER = """
import sys
from hhat.bench.store import Store
from tests.units.store_files import cell, key_of
folder, start = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
with Store(folder) as store:
    for number in range(start, start + 100):
        store.put(cell(key_of(number)))
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}


def pages(runs_dir):
    data = (runs_dir / FILE).read_bytes()
    return [data[at : at + 4096] for at in range(0, len(data), 4096)]


def test_two_processes_fill_one_new_store_at_once(tmp_path):
    def start(first):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "runs"), str(first)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=ENVIRONMENT, text=True, **pipes)

    # 50 cells are written by both
    jobs = [start(0), start(50)]
    assert [job.stdout.readline() for job in jobs] == ["ready\n"] * 2
    for job in jobs:
        job.stdin.write("go\n")
        job.stdin.flush()
    assert [job.communicate(timeout=60)[1] for job in jobs] == ["", ""]
    assert contents(tmp_path / "runs").keys() == {key_of(number) for number in range(150)}
    assert check(tmp_path / "runs").sound


def test_a_reader_sees_what_is_committed_while_another_writes_and_leaves_nothing_behind(tmp_path):
    keys = fill(tmp_path, range(5))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    before = (tmp_path / FILE).read_bytes()
    with Store(tmp_path, create=False) as reader:
        with Store(tmp_path) as writer:
            writer.put(cell("new"))
            assert reader.keys() == {*keys, "new"}
        with pytest.raises(ValueError, match="cannot write into"):
            reader.put(cell("other"))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    with Store(tmp_path) as writer:
        writer.delete(["new"])
    with Store(tmp_path, create=False) as reader:
        assert reader.keys() == set(keys)
    assert len(before) == len((tmp_path / FILE).read_bytes())


def test_a_store_on_a_read_only_medium_is_read(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        keys = fill(disk / "runs", range(20))
        before = contents(disk / "runs")
        with read_only(disk):
            assert contents(disk / "runs") == before and check(disk / "runs").sound
            assert export(disk / "runs", tmp_path / "a.csv").lines == 20 * 7
            assert merge(tmp_path / "copy", [disk / "runs"])[0].cells == 20
            with pytest.raises(ValueError, match=r"disk/runs: cannot write into this folder") as refused:
                Store(disk / "runs")
            assert "\n" not in str(refused.value)
            with pytest.raises(ValueError, match=r"disk/new: cannot write into this folder"):
                Store(disk / "new")
            with pytest.raises(ValueError, match="cannot write"):
                export(disk / "runs", disk / "a.csv")
            assert sorted(path.name for path in disk.rglob("*")) == [FILE, "runs"]
        assert contents(tmp_path / "copy") == before and before.keys() == set(keys)


def test_a_folder_without_write_permission_is_read(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    fill(tmp_path / "runs", range(20))
    before = contents(tmp_path / "runs")
    with read_only(tmp_path / "runs"):
        assert contents(tmp_path / "runs") == before
        with pytest.raises(ValueError, match="cannot write into this folder"):
            Store(tmp_path / "runs")


def test_cells_still_in_the_log_of_a_read_only_medium_are_not_passed_over(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        with Store(tmp_path / "runs") as store:  # copied while it is open, as after a kill
            store.put(cell("a"))
            shutil.copytree(tmp_path / "runs", disk / "runs")
        (disk / "runs" / f"{FILE}-shm").unlink()
        with read_only(disk), pytest.raises(ValueError, match=f"still in {FILE}-wal.*copy the folder") as refused:
            Store(disk / "runs", create=False)
        assert "\n" not in str(refused.value)
        assert contents(disk / "runs").keys() == {"a"}


def test_a_full_disk_keeps_what_is_stored_and_the_run_goes_on_after(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "filler").write_bytes(bytes(200_000))
        stored = []
        with pytest.raises(ValueError, match="disk is full: ") as full, Store(disk / "runs") as store:
            for number in range(1000):
                store.put(cell(key_of(number), count=1000))
                stored.append(key_of(number))
        assert f" {len(stored)} cells are stored and kept; free some space" in str(full.value)
        assert "\n" not in str(full.value) and len(stored) > 20
        assert contents(disk / "runs").keys() == set(stored) and check(disk / "runs").sound
        with pytest.raises(ValueError, match="disk is full"):
            Store(disk / "other")
        (disk / "filler").unlink()
        with Store(disk / "runs") as store:
            store.put(cell("one more"))
        assert contents(disk / "runs").keys() == {*stored, "one more"} and check(disk / "runs").sound


def test_a_run_on_a_full_disk_goes_on_where_it_stopped(tmp_path):
    experiment = many_blocks(30, size=300)
    runner.run(experiment, "quick", tmp_path / "whole", progress=False)
    with small_disk(tmp_path / "disk", "4m") as disk:
        (disk / "filler").write_bytes(bytes(4 * 2**20 - 200_000))
        with pytest.raises(ValueError, match="disk is full"):
            runner.run(experiment, "quick", disk / "runs", progress=False)
        kept = contents(disk / "runs")
        assert 0 < len(kept) < 60
        (disk / "filler").unlink()
        runner.run(experiment, "quick", disk / "runs", progress=False)
        assert kept.items() <= contents(disk / "runs").items()
        assert contents(disk / "runs") == contents(tmp_path / "whole")


def test_what_is_made_of_a_store_on_a_full_disk_is_whole_or_not_there(tmp_path):
    keys = fill(tmp_path / "runs", range(300), count=100)
    with small_disk(tmp_path / "disk", "300k") as disk:
        (disk / "filler").write_bytes(bytes(260_000))
        for name in ("a.csv", "a.parquet"):
            with pytest.raises(ValueError, match="No space left"):
                export(tmp_path / "runs", disk / name)
        with pytest.raises(ValueError, match="disk is full"):
            salvage(tmp_path / "runs", disk / "saved")
        assert [path.name for path in disk.iterdir()] == ["filler"]
        (disk / "filler").write_bytes(bytes(100_000))
        fill(disk / "runs", range(1000, 1005), run="other")
        before = contents(disk / "runs")
        with pytest.raises(ValueError, match="disk is full: 5 cells are stored and kept"):
            merge(disk / "runs", [tmp_path / "runs"])
        assert contents(disk / "runs") == before and len(keys) == 300


def many_blocks(blocks, size):
    quick = Profile(grid({"snr_db": (0.0,)}), blocks=blocks, block_size=size, methods=("ls", "best"))
    return dataclasses.replace(EXPERIMENT, profiles={"quick": quick}, example=False)


def test_a_damaged_page_costs_its_cells_and_nothing_else(tmp_path):
    experiment = many_blocks(120, size=2)
    runs, saved = tmp_path / "runs", tmp_path / "saved"
    runner.run(experiment, "quick", runs, progress=False)
    before = contents(runs)
    assert len(before) == 240 and check(runs).sound
    number, hit = next(
        (number, {key for key in before if key.encode() in page})
        for number, page in enumerate(pages(runs), 1)
        if number > 20 and page[0] == 10 and b"test/white" in page
    )
    assert 1 <= len(hit) <= 10
    overwrite_page(runs, number)
    with pytest.raises(ValueError, match=rf"{FILE}: damaged: .*`hhat runs salvage {runs} -o NEW`") as told:
        runner.run(experiment, "quick", runs, progress=False)
    assert "\n" not in str(told.value)
    found = check(runs)
    assert not found.sound and hit <= set(found.damaged) and found.problems
    # a row that SQLite can only get at by way of that page is there all the same
    assert found.cells == 240 - len(found.damaged) >= 240 - len(hit) - 2
    result = salvage(runs, saved)
    assert set(result.lost) == hit and result.cells == 240 - len(hit) and result.runs == 1 and result.absent == 0
    assert contents(saved).keys() == before.keys() - hit and check(saved).sound
    assert {task.key for task in runner.missing(experiment, "quick", saved)} == hit
    runner.run(experiment, "quick", saved, progress=False)
    assert contents(saved) == before


@pytest.mark.parametrize("garbage", [None, bytes(4096)], ids=["noise", "zeros"])
def test_whichever_page_is_damaged_all_cells_on_the_others_are_saved(garbage, tmp_path):
    fill(tmp_path / "runs", range(240))
    before, clean = contents(tmp_path / "runs"), pages(tmp_path / "runs")
    assert len(clean) > 30
    # the header, the roots of both tables, and some of the rest
    for number in (1, 2, 3, *range(4, len(clean) + 1, 3)):
        overwrite_page(tmp_path / "runs", number, garbage)
        out = tmp_path / f"saved{number}"
        salvage(tmp_path / "runs", out)
        after = contents(out)
        lost = before.keys() - after.keys()
        assert lost <= {key for key in before if key.encode() in clean[number - 1]}, number
        assert after.items() <= before.items()
        assert not check(tmp_path / "runs").sound, number
        overwrite_page(tmp_path / "runs", number, clean[number - 1])
    assert check(tmp_path / "runs").sound


def test_long_columns_are_saved_from_the_pages_they_run_over_into(tmp_path):
    with Store(tmp_path / "runs") as store:
        for number in range(6):
            store.put(cell(key_of(number), count=5000))
        store.put_run(Run("r", "x/y", "quick", {}, {}, tuple(map(key_of, range(6)))))
    before = contents(tmp_path / "runs")
    overwrite_page(tmp_path / "runs", 1)
    with pytest.raises(ValueError, match="damaged"):
        Store(tmp_path / "runs", create=False)
    assert not check(tmp_path / "runs").sound
    assert salvage(tmp_path / "runs", tmp_path / "saved").cells == 6
    assert contents(tmp_path / "saved") == before
