"""`hhat runs`: merge, export, check and salvage from the command line."""

import csv
import json

import pytest

from hhat.bench.store import FILE, Store
from hhat.cli import main
from tests.units.store_files import cell, contents, fill, key_of, overwrite_page


@pytest.fixture
def run(capsys):
    """Call the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        capsys.readouterr()
        code = main(["runs", *map(str, arguments)])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call


def test_merge(tmp_path, run):
    fill(tmp_path / "a", range(3))
    fill(tmp_path / "b", range(2, 6), value=1.5, run="other")
    code, out, err = run("merge", tmp_path / "all", tmp_path / "a", tmp_path / "b" / FILE, "--json")
    found = json.loads(out)
    assert code == 0 and found["into"] == str(tmp_path / "all")
    assert [one["cells"] for one in found["sources"]] == [3, 3] and found["sources"][1]["differ"] == [key_of(2)]
    assert err.count("\n") == 1 and "1 of 1 cells that are in both differ; kept those of" in err
    code, out, err = run("merge", tmp_path / "all", tmp_path / "a")
    assert code == 0 and err == "" and "new cells" in out and len(contents(tmp_path / "all")) == 6


def test_export(tmp_path, run):
    fill(tmp_path / "runs", range(3))
    code, out, _ = run("export", tmp_path / "runs", "-o", tmp_path / "a.csv", "--json")
    found = json.loads(out)
    assert code == 0 and found["lines"] == 21 and found["file"] == str(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == found["columns"]
    code, out, _ = run("export", tmp_path / "runs", "-o", tmp_path / "rows.csv", "--rows")
    assert code == 0 and "lines" in out and (tmp_path / "rows.csv").read_text().startswith("experiment,profile,method")


def test_check_and_salvage(tmp_path, run):
    fill(tmp_path / "runs", range(60))
    code, out, err = run("check", tmp_path / "runs", "--json")
    assert code == 0 and json.loads(out)["sound"] and json.loads(out)["cells"] == 60 and err == ""
    assert run("check", tmp_path / "runs")[0] == 0
    overwrite_page(tmp_path / "runs", 5)
    code, out, err = run("check", tmp_path / "runs", "--json")
    found = json.loads(out)
    assert code == 3 and not found["sound"] and found["damaged"] and found["problems"]
    assert err.count("\n") == 1 and f"hhat runs salvage {tmp_path / 'runs'} -o NEW" in err
    code, out, err = run("check", tmp_path / "runs")
    assert code == 3 and "problem" in out and err.count("\n") == 1
    code, out, _ = run("salvage", tmp_path / "runs", "-o", tmp_path / "saved", "--json")
    found = json.loads(out)
    assert code == 0 and found["cells"] + len(found["lost"]) == 60 and 0 < len(found["lost"]) < 15
    assert len(contents(tmp_path / "saved")) == found["cells"] and run("check", tmp_path / "saved")[0] == 0
    code, out, _ = run("salvage", tmp_path / "runs", "-o", tmp_path / "again")
    assert code == 0 and "saved" in out and "lost" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["merge", "FOLDER/runs"], ("runs merge --help",)),
        (["merge", "FOLDER/runs", "FOLDER/runs"], ("cannot merge a store into itself",)),
        (["merge", "FOLDER/new", "FOLDER/none"], ("none: expected a folder of runs",)),
        (["export", "FOLDER/runs"], ("--out",)),
        (["export", "FOLDER/runs", "-o", "FOLDER/a.xlsx"], ("expected .csv or .parquet",)),
        (["export", "FOLDER/runs", "-o", "FOLDER/runs"], ("expected .csv or .parquet",)),
        (["export", "FOLDER/none", "-o", "FOLDER/a.csv"], ("none: expected a folder of runs",)),
        (["check", "FOLDER/none"], ("none: expected a folder of runs",)),
        (["check", "FOLDER/runs", "--device", "abacus"], ("no device 'abacus'",)),
        (["salvage", "FOLDER/runs", "-o", "FOLDER/runs"], ("expected a folder without a store",)),
        (["salvage", "FOLDER/none", "-o", "FOLDER/new"], ("none: expected a folder of runs",)),
        (["mend"], ("No such command 'mend'", "merge export check salvage")),
        ([], ("Missing command", "runs --help")),
    ],
)
def test_wrong_calls(arguments, words, tmp_path, run):
    with Store(tmp_path / "runs") as store:
        store.put(cell("a"))
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*(argument.replace("FOLDER", str(tmp_path)) for argument in arguments))
    assert code == 2 and out == "" and err.startswith("hhat: ") and err.count("\n") == 1
    assert all(word in err for word in words), err
    assert sorted(tmp_path.rglob("*")) == before
