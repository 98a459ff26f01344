"""The store: what goes in comes out, nothing twice, and trouble with the file said in one line."""

import dataclasses
import sqlite3

import pytest
import torch

from hhat.bench.recipe import code_version, describe, digest, spell
from hhat.bench.store import FILE, Cell, Run, Store, pack, unpack
from hhat.ops import Dense
from hhat.random import complex_normal, generator
from hhat.types import Status


def cell(key: str, value: float = 1.0) -> Cell:
    arrays = {"ratio": torch.linspace(0, value, 7), "deciles": torch.rand(1, 2, 10, generator=generator("cell"))}
    return Cell(key, "x/y", "ls", {"snr_db": 10.0}, 0, 7, 7, arrays, {"OK": 7}, 0.5, 0.4, "cpu", 1, {"hhat": "0"})


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
        assert float(back.arrays["ratio"].max()) == 1.0
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
    with pytest.raises(ValueError, match="cannot use this store"):
        Store(tmp_path)
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ValueError, match="schema 1, got 99"):
        Store(tmp_path)


def test_a_damaged_cell_is_named_not_returned(tmp_path):
    with Store(tmp_path) as store:
        store.put(cell("a"))
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("UPDATE cells SET blob = x'00112233'")
    db.close()
    with Store(tmp_path) as store, pytest.raises(ValueError, match=FILE):
        list(store.cells(["a"]))


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
