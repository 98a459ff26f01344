"""The store: what goes in comes out, nothing twice, and trouble with the file said in one line."""

import dataclasses
import json
import sqlite3
import zlib

import pytest
import torch

from hhat.bench.recipe import code_version, describe, digest, spell
from hhat.bench.store import FILE, Cell, Run, Store, pack, unpack
from hhat.bench.store.database import CELL, SCHEMA, checksum
from hhat.bench.store.salvage import check, salvage
from hhat.ops import Dense
from hhat.random import complex_normal, generator
from hhat.types import Status
from tests.units.store_files import cell, contents, fill, key_of

OLD = """
CREATE TABLE cells (key TEXT PRIMARY KEY, experiment, method, point, block, seed, items, arrays, blob, status, wall_s,
  cpu_s, device, threads, versions, finished TEXT DEFAULT CURRENT_TIMESTAMP) WITHOUT ROWID;
CREATE TABLE runs (key TEXT PRIMARY KEY, experiment, profile, recipe, machine, cells,
  started TEXT DEFAULT CURRENT_TIMESTAMP) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
"""Schema 1, as it was"""


def old_store(folder, keys):
    """A store as the version before checksums wrote it."""
    folder.mkdir()
    db = sqlite3.connect(folder / FILE, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(OLD)
    columns = [name for name in CELL if name not in ("finished", "machine")]
    for key in keys:
        one = cell(key)
        shapes, blob = pack(one.arrays)
        values = [key, one.experiment, one.method, json.dumps(one.point), one.block, one.seed, one.items]
        values += [json.dumps(shapes), blob, json.dumps(one.status), one.wall_s, one.cpu_s, one.device, one.threads]
        marks = ", ".join("?" * len(columns))
        db.execute(f"INSERT INTO cells ({', '.join(columns)}) VALUES ({marks})", (*values, json.dumps(one.versions)))
    run = ("r", "x/y", "quick", "{}", "{}", json.dumps(keys))
    db.execute("INSERT INTO runs (key, experiment, profile, recipe, machine, cells) VALUES (?, ?, ?, ?, ?, ?)", run)
    db.close()


def change(folder, statement, *values):
    db = sqlite3.connect(folder / FILE, isolation_level=None)
    db.execute(statement, values)
    db.close()


def test_a_cell_comes_back_as_it_was(tmp_path):
    with Store(tmp_path / "new" / "runs") as store:
        store.put(cell("a"))
    with Store(tmp_path / "new" / "runs", create=False) as store:
        (back,) = store.cells(["missing", "a"])
    for field in dataclasses.fields(Cell):
        if field.name != "arrays":
            assert getattr(back, field.name) == getattr(cell("a"), field.name)
    for name, value in cell("a").arrays.items():
        assert torch.equal(back.arrays[name], value)


def test_a_key_is_written_once(tmp_path):
    with Store(tmp_path) as store:
        store.put(cell("a", 1.0))
        store.put(cell("a", 2.0))
        (back,) = store.cells(["a"])
        assert torch.equal(back.arrays["ratio"], cell("a", 1.0).arrays["ratio"])
        store.delete(["a"])
        assert store.keys() == set()


def test_each_cell_is_committed_at_once_and_in_wal_mode(tmp_path):
    with Store(tmp_path) as store:
        store.put(cell("a"))
        other = sqlite3.connect(tmp_path / FILE)
        assert other.execute("SELECT count(*) FROM cells").fetchone() == (1,)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.close()


def test_runs_come_back_and_the_same_run_is_one(tmp_path):
    run = Run("k", "x/y", "quick", {"title": "t"}, {"cpu": "c"}, ("a", "b"))
    with Store(tmp_path) as store:
        store.put_run(run)
        store.put_run(run)
        (back,) = store.runs()
    assert dataclasses.replace(back, started="") == run


def test_what_lies_behind_an_odd_number_of_values_can_be_seen_as_complex():
    """The picture of a report behind the errors of a block of 3."""
    example = complex_normal((2, 4), generator("odd"))
    found = unpack(*pack({"ratio": torch.zeros(3), "example": torch.view_as_real(example)}))
    torch.testing.assert_close(torch.view_as_complex(found["example"]), example, rtol=0, atol=0)


def test_functions_of_one_source_differ_in_the_recipe_by_what_they_hold():
    def scaled(by):
        return lambda x: by * x

    assert describe(scaled(2.0)) == describe(scaled(2.0)) != describe(scaled(3.0))
    assert describe(scaled(sum)) != describe(scaled(max))

    def again(x):
        return again(x - 1) if x else 0

    assert describe(again) == describe(again)


def test_pack_is_little_endian_float32_and_refuses_a_wrong_length():
    shapes, blob = pack({"a": torch.tensor([[1.0, 2.0]], dtype=torch.float64), "b": torch.tensor(3.0)})
    assert shapes == {"a": [1, 2], "b": []}
    back = unpack(shapes, blob)
    assert back["a"].tolist() == [[1.0, 2.0]] and float(back["b"]) == 3.0
    with pytest.raises(ValueError, match="expected 4 stored values"):
        unpack({"a": [4]}, blob)


def test_trouble_with_the_file_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="there is none"):
        Store(tmp_path / "nowhere", create=False)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / FILE).write_bytes(b"not a database, but long enough to be taken for one" * 40)
    for create in (True, False):
        with pytest.raises(ValueError, match="damaged: file is not a database; `hhat runs salvage"):
            Store(tmp_path, create)
    with pytest.raises(ValueError, match="nothing in it can be read"):
        salvage(tmp_path, tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    (tmp_path / FILE).unlink()
    change(tmp_path, "PRAGMA user_version = 99")
    for create in (True, False):
        with pytest.raises(ValueError, match=f"newer hhat: expected a store of schema {SCHEMA} or older, got 99"):
            Store(tmp_path, create)
    change(tmp_path, "PRAGMA user_version = 0")
    change(tmp_path, "CREATE TABLE letters (x)")
    with pytest.raises(ValueError, match="expected a store of runs, got a database of letters"):
        Store(tmp_path)


def test_a_file_that_was_never_filled_reads_as_an_empty_store(tmp_path):
    (tmp_path / FILE).touch()
    with Store(tmp_path, create=False) as store:
        assert store.keys() == set() and store.runs() == [] and list(store.cells(["a"])) == []
    with Store(tmp_path) as store:
        store.put(cell("a"))
    assert contents(tmp_path).keys() == {"a"}


def test_a_reader_may_be_given_the_file_itself(tmp_path):
    keys = fill(tmp_path, range(3))
    with Store(tmp_path / FILE, create=False) as store:
        assert store.keys() == set(keys)


@pytest.mark.parametrize("column", [*CELL, "checksum"])
def test_a_flipped_byte_in_any_column_is_noticed(column, tmp_path):
    good, bad = fill(tmp_path, range(2))
    db = sqlite3.connect(tmp_path / FILE)
    (value,) = db.execute(f"SELECT {column} FROM cells WHERE key = ?", (bad,)).fetchone()
    db.close()
    if isinstance(value, bytes):
        wrong = value[:30] + bytes([value[30] ^ 1]) + value[31:]
    elif isinstance(value, str):
        wrong = chr(ord(value[0]) ^ 1) + value[1:]
    else:
        wrong = value + 1
    change(tmp_path, f"UPDATE cells SET {column} = ? WHERE key = ?", wrong, bad)
    key = wrong if column == "key" else bad
    with Store(tmp_path) as store:
        with pytest.raises(ValueError, match=rf"{FILE}: damaged: the checksum of cell '{key}' does not hold; `hhat"):
            list(store.cells([key]))
        assert [one.key for one in store.cells([good])] == [good]
    assert check(tmp_path).damaged == (key,)
    assert salvage(tmp_path, tmp_path / "saved").cells == 1
    assert contents(tmp_path / "saved").keys() == {good}


def test_a_flipped_byte_anywhere_in_the_file_never_gives_another_number(tmp_path):
    keys = fill(tmp_path, range(12))
    before, data = contents(tmp_path), (tmp_path / FILE).read_bytes()
    places = torch.randint(len(data), (150,), generator=generator("flip")).tolist()
    noticed = 0
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        (tmp_path / FILE).write_bytes(flipped)
        try:
            with Store(tmp_path, create=False) as store:
                found = {one.key: one.arrays["ratio"].numpy().tobytes() for one in store.cells(keys)}
        except ValueError as trouble:
            noticed += 1
            assert "\n" not in str(trouble)
            continue
        # a cell whose name no longer reads is run again
        for key, value in found.items():
            assert value == before[key][-1]["ratio"][1]
    assert noticed > 20


def test_a_flipped_byte_in_a_run_is_noticed(tmp_path):
    fill(tmp_path, range(2))
    change(tmp_path, "UPDATE runs SET recipe = replace(recipe, 'nmse', 'nmsf')")
    with Store(tmp_path) as store, pytest.raises(ValueError, match="the checksum of run 'run' does not hold"):
        store.runs()
    assert check(tmp_path).damaged == ("run",)


def test_a_checksum_tells_types_and_places_apart():
    rows = [
        ("1", 2),
        (1, "2"),
        (1, 2),
        (1.0, 2),
        (12,),
        (b"1", 2),
        (None, 2),
        (2, 1),
        ("", "12"),
        (b"12",),
        (b"1", b"2"),
    ]
    assert len({checksum(row) for row in rows}) == len(rows)


def test_a_store_of_schema_1_is_read_as_it_is_and_migrated_when_it_is_written(tmp_path):
    old_store(tmp_path / "runs", ["a", "b"])
    before = (tmp_path / "runs" / FILE).read_bytes()
    found = contents(tmp_path / "runs")
    assert found.keys() == {"a", "b"} and check(tmp_path / "runs").sound
    assert (tmp_path / "runs" / FILE).read_bytes() == before
    with Store(tmp_path / "runs") as store:
        assert [run.cells for run in store.runs()] == [("a", "b")]
        store.put(cell("c"))
        machines = [one.machine for one in store.cells(["a", "c"])]
    assert machines == [{}, cell("c").machine]
    with Store(tmp_path / "new") as store:
        for key in "abc":
            store.put(cell(key))
    assert contents(tmp_path / "runs") == contents(tmp_path / "new")
    db = sqlite3.connect(tmp_path / "runs" / FILE)
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    assert db.execute("SELECT count(*) FROM cells WHERE checksum IS NULL").fetchone() == (0,)
    db.close()
    change(tmp_path / "runs", "UPDATE cells SET wall_s = 9 WHERE key = 'a'")
    assert check(tmp_path / "runs").damaged == ("a",)


def test_a_damaged_store_of_schema_1_is_not_given_checksums(tmp_path):
    old_store(tmp_path / "runs", ["a", "b"])
    change(tmp_path / "runs", "UPDATE cells SET blob = x'00112233' WHERE key = 'b'")
    before = (tmp_path / "runs" / FILE).read_bytes()
    with pytest.raises(ValueError, match=r"damaged: cell 'b': .*salvage"):
        Store(tmp_path / "runs")
    assert (tmp_path / "runs" / FILE).read_bytes() == before
    assert salvage(tmp_path / "runs", tmp_path / "saved").lost == ("b",)
    assert contents(tmp_path / "saved").keys() == {"a"} and check(tmp_path / "saved").sound


def test_rows_that_a_running_process_of_schema_1_adds_after_the_migration_are_read(tmp_path):
    fill(tmp_path, range(2))
    old_store(tmp_path / "old", ["a"])
    db = sqlite3.connect(tmp_path / "old" / FILE)
    row = db.execute("SELECT * FROM cells").fetchone()
    db.close()
    columns = ", ".join(name for name in CELL if name != "machine")
    change(tmp_path, f"INSERT INTO cells ({columns}) VALUES ({', '.join('?' * len(row))})", *row)
    assert contents(tmp_path)["a"] == contents(tmp_path / "old")["a"] and check(tmp_path).sound


def test_times_and_machine_are_kept(tmp_path):
    with Store(tmp_path) as store:
        store.put(cell(key_of(1)))
        (back,) = store.cells([key_of(1)])
    assert (back.wall_s, back.cpu_s, back.machine["cpu"], back.threads) == (0.5, 0.25, "a cpu", 1)


def test_a_transaction_is_whole_or_nothing(tmp_path):
    with Store(tmp_path) as store:
        with pytest.raises(KeyError), store.transaction():
            store.put(cell("a"))
            raise KeyError
        assert store.keys() == set()
        with store.transaction():
            store.put(cell("a"))
        assert store.keys() == {"a"}


def test_a_number_that_sqlite_cannot_hold_is_said(tmp_path):
    with Store(tmp_path) as store, pytest.raises(ValueError, match="too large"):
        store.put(dataclasses.replace(cell("a"), seed=2**70))


def test_the_blob_is_zlib_of_the_values(tmp_path):
    shapes, blob = pack({"a": torch.ones(100)})
    assert len(zlib.decompress(blob)) == 400 > 4 * len(blob) and shapes == {"a": [100]}


@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    gain: float = 1.0
    op: Dense | None = None
    stop: Status = Status.OK


def test_description_holds_every_setting_and_every_value_of_a_tensor():
    matrix = complex_normal((4, 3), generator("describe"))
    base = digest(describe(Settings(op=Dense(matrix))))
    assert digest(describe(Settings(op=Dense(matrix.clone())))) == base
    changed = matrix.clone()
    changed[1, 2] = torch.view_as_complex(torch.nextafter(torch.view_as_real(changed[1, 2]), torch.tensor(9.0)))
    others = [
        Settings(op=Dense(changed)),
        Settings(2.0, Dense(matrix)),
        Settings(op=Dense(matrix), stop=Status.RUNNING),
    ]
    assert len({base, *(digest(describe(other)) for other in others)}) == 4
    assert digest(describe(matrix)) != digest(describe(matrix.conj()))
    assert describe(matrix) != describe(matrix.reshape(3, 4)) and describe(matrix).startswith("complex64[4, 3]#")
    assert describe(torch.tensor([0.5, 2.0])) == "float32 [0.5, 2.0]"
    assert spell(describe(Settings())) == "Settings(gain=1.0, stop=Status.OK)"


def test_functions_are_told_apart_by_their_source_and_strange_settings_refused():
    assert describe(test_a_key_is_written_once) != describe(test_runs_come_back_and_the_same_run_is_one)
    assert describe(len).startswith("builtins.len")
    with pytest.raises(ValueError, match="got object"):
        describe({"a": [object()]})
    assert code_version().startswith("0.1.0+")
