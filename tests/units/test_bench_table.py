"""The table for other tools: CSV and Parquet hold the same numbers, and they are those of the store."""

import csv
import dataclasses
import json
import math
import sys

import pytest
import torch

from hhat.bench import run as runner
from hhat.bench.experiment import Experiment, Profile, grid, score_nothing
from hhat.bench.stopping import Stopping
from hhat.bench.store import Store
from hhat.bench.store.table import export, realisations
from tests.units import bench_fakes
from tests.units.bench_fakes import EXPERIMENT
from tests.units.store_files import cell, fill


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    runner.run(EXPERIMENT, "quick", folder, progress=False)
    return folder


def lines_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def parquet_lines(path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow: pip install hhat[report]")
    return parquet.read_table(path).to_pylist()


def same(text, value):
    if value is None:
        return text == ""
    if isinstance(value, float):
        return float(text) == value or (math.isnan(value) and math.isnan(float(text)))
    return text == (json.dumps(value) if isinstance(value, bool) else str(value))


@pytest.mark.parametrize("rows", [False, True])
def test_csv_and_parquet_hold_the_same(runs, rows, tmp_path):
    found = [export(runs, tmp_path / f"a.{ending}", rows) for ending in ("csv", "parquet")]
    assert found[0] == found[1]
    text, values = lines_of(tmp_path / "a.csv"), parquet_lines(tmp_path / "a.parquet")
    assert len(text) == len(values) == found[0].lines and tuple(text[0]) == tuple(values[0]) == found[0].columns
    for one, other in zip(text, values, strict=True):
        for name in one:
            assert same(one[name], other[name]), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.parquet"]


def test_every_realisation_has_a_line_with_all_that_belongs_to_it(runs, tmp_path):
    assert export(runs, tmp_path / "a.csv").lines == 2 * 3 * 3 * 40
    lines = lines_of(tmp_path / "a.csv")
    assert list(lines[0]) == [
        "experiment", "method", "point.snr_db", "seed", "block", "realisation", "energy", "ratio", "reported", "status",
        "wall_s_per_estimate", "cpu_s_per_estimate", "device", "threads", "hhat", "torch", "cpu", "gpu", "key",
    ]  # fmt: skip
    with Store(runs, create=False) as store:
        for one in store.cells(store.keys()):
            mine = [line for line in lines if line["key"] == one.key]
            assert [int(line["realisation"]) for line in mine] == list(range(40))
            for name in ("ratio", "reported", "energy"):
                assert [float(line[name]) for line in mine] == one.arrays[name].tolist()
            line = mine[0]
            assert line["method"] == one.method and float(line["point.snr_db"]) == one.point["snr_db"]
            assert float(line["wall_s_per_estimate"]) == one.wall_s / 40 and json.loads(line["status"]) == {"OK": 40}
            assert line["torch"] == one.versions["torch"] and line["hhat"] == one.versions["hhat"]


def test_means_of_the_lines_are_the_rows(runs, tmp_path):
    export(runs, tmp_path / "a.csv")
    export(runs, tmp_path / "rows.csv", rows=True)
    lines = lines_of(tmp_path / "a.csv")
    for row in lines_of(tmp_path / "rows.csv"):
        if row["metric"] == "nmse_db":
            mine = [line for line in lines if all(line[k] == row[k] for k in ("method", "point.snr_db", "experiment"))]
            ratios = [float(line["ratio"]) for line in mine]
            assert len(ratios) == int(row["n"]) == 120
            assert 10 * math.log10(math.fsum(ratios) / 120) == pytest.approx(float(row["value"]), abs=1e-6)


def test_rows_are_those_of_the_latest_run_of_each_profile_and_of_its_stopping_rule(tmp_path):
    runs = tmp_path / "runs"
    quick = dataclasses.replace(EXPERIMENT.profiles["quick"], blocks=6, until=Stopping(0.6, min_blocks=2))
    stopping = dataclasses.replace(EXPERIMENT, profiles={"quick": quick, "full": EXPERIMENT.profiles["quick"]})
    # full first: it leaves more blocks in the store than the rule asks for
    every = runner.run(stopping, "full", runs, progress=False)
    stopped = runner.run(stopping, "quick", runs, progress=False)
    export(runs, tmp_path / "rows.csv", rows=True)
    lines = lines_of(tmp_path / "rows.csv")
    assert {line["profile"] for line in lines} == {"quick", "full"}
    for profile, rows in (("quick", stopped), ("full", every)):
        mine = [line for line in lines if line["profile"] == profile]
        assert len(mine) == len(rows)
        for line, row in zip(mine, rows, strict=True):
            assert all(
                same(line[name], row[name]) for name in ("method", "metric", "value", "low", "high", "n", "seed")
            )
    assert {row["n"] for row in stopped} != {row["n"] for row in every}


def test_cells_of_different_kinds_share_a_table(tmp_path):
    fill(tmp_path / "runs", range(2))
    with Store(tmp_path / "runs") as store:  # these are in no run: they come last, by their keys
        extra = {"gain": torch.tensor([1.0, float("nan"), float("inf")]), "seed": torch.ones(3)}
        points = ({"snr_db": 5, "fast": True}, {"profile": "with, comma", "fast": False}, {"profile": 3})
        for number, point in enumerate(points):
            one = cell(f"{number}", 1.0)
            store.put(dataclasses.replace(one, experiment="z", point=point, arrays=extra, items=3, machine={}))
        store.put(dataclasses.replace(cell("3"), experiment="zz", arrays={}, items=10))
    columns = export(tmp_path / "runs", tmp_path / "a.parquet").columns
    export(tmp_path / "runs", tmp_path / "a.csv")
    assert {"point.snr_db", "point.fast", "point.profile", "ratio", "gain", "array.seed"} <= set(columns)
    text, values = lines_of(tmp_path / "a.csv"), parquet_lines(tmp_path / "a.parquet")
    assert all(same(one[name], other[name]) for one, other in zip(text, values, strict=True) for name in one)
    assert len(values) == 2 * 7 + 3 * 3 + 1
    first = values[14]
    assert (first["point.snr_db"], first["point.fast"], first["point.profile"]) == (5.0, True, None)
    assert (first["ratio"], first["gain"], first["seed"], first["array.seed"], first["cpu"]) == (
        None,
        1.0,
        7,
        1.0,
        None,
    )
    assert math.isnan(values[15]["gain"]) and values[16]["gain"] == math.inf
    assert values[17]["point.profile"] == "with, comma" and values[20]["point.profile"] == "3"
    last = values[-1]
    assert (last["experiment"], last["realisation"], last["wall_s_per_estimate"]) == ("zz", None, 0.05)


def test_a_channel_of_several_units_gives_a_line_per_unit(tmp_path):
    experiment = dataclasses.replace(
        EXPERIMENT, score=lambda e, s: {"gain": e.belief.mean.abs().mean(2).flatten()}, metrics=("gain",)
    )
    runner.run(experiment, "quick", tmp_path / "runs", progress=False)
    # 40 channels of two antennas each
    assert export(tmp_path / "runs", tmp_path / "a.csv").lines == 18 * 80


def test_realisations_are_counted_by_the_ratio_or_the_longest_axis():
    assert realisations({"ratio": [5], "gain": [7], "deciles": [1, 2, 10]}) == 5
    assert realisations({"gain": [7], "mean": [1]}) == 7 and realisations({"deciles": [1, 2, 10], "x": []}) == 0


def test_times_alone_are_exported_too(tmp_path):
    experiment = Experiment(
        name="test/throughput",
        title="Throughput",
        scenario=lambda point: bench_fakes.White(),
        methods={"ls": bench_fakes.plain},
        profiles={"quick": Profile(grid({"batch": (1, 8)}), blocks=2)},
        metrics=("channels_per_s",),
        score=score_nothing,
        example=False,
    )
    runner.run(experiment, "quick", tmp_path / "runs", progress=False)
    export(tmp_path / "runs", tmp_path / "a.csv")
    lines = lines_of(tmp_path / "a.csv")
    assert [line["point.batch"] for line in lines] == ["1", "1", "8", "8"]
    assert all(line["realisation"] == "" and float(line["wall_s_per_estimate"]) > 0 for line in lines)


def test_what_cannot_be_exported_is_said_and_leaves_nothing(runs, tmp_path, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    with Store(tmp_path / "empty"):
        pass
    before = sorted(tmp_path.rglob("*"))
    for folder, name, words in (
        (runs, "a.txt", "expected .csv or .parquet"),
        (runs, "folder.csv", "is a folder"),
        (runs, "nowhere/a.csv", "cannot write into"),
        (tmp_path / "none", "a.csv", "there is none"),
        (tmp_path / "empty", "a.csv", "expected finished cells"),
    ):
        for rows in (False, True):
            with pytest.raises(ValueError, match=words):
                export(folder, tmp_path / name, rows)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"Parquet needs pyarrow: pip install 'hhat\[report\]'"):
        export(runs, tmp_path / "a.parquet")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_table_in_its_place_survives_an_export_that_fails(runs, tmp_path):
    out = tmp_path / "a.csv"
    out.write_text("precious")
    with pytest.raises(ValueError, match="there is none"):
        export(tmp_path / "none", out)
    assert out.read_text() == "precious"
    assert export(runs, out).lines == len(lines_of(out))


def test_an_archive_needs_no_more_memory_than_a_few_cells(tmp_path, monkeypatch):
    """Parquet is written as it comes: row groups, not one table at the end."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow: pip install hhat[report]")
    monkeypatch.setattr("hhat.bench.store.table.LINES_AT_A_TIME", 50)
    fill(tmp_path / "runs", range(30))
    export(tmp_path / "runs", tmp_path / "a.parquet")
    groups = parquet.ParquetFile(tmp_path / "a.parquet")
    assert groups.num_row_groups == 4 and groups.metadata.num_rows == 210
    groups.close()
