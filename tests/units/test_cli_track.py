"""`hhat track`: the fold of the library, killed and resumed at any instant to the same bits, and what it refuses."""

import contextlib
import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import hhat
from hhat import io
from hhat.cli import journal, main, resume
from hhat.methods.defaults import method_for

SLOTS = 5
STEPS = ("--set", "inner_steps=1")
SCENE = {"columns": 2, "rows": 2, "num_tones": 16, "num_paths": 1}


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """Slots of two links, 2 antennas x 16 subcarriers."""
    path = tmp_path_factory.mktemp("track") / "slots.h5"
    small = ("--set", "num_rx_ant=2", "--set", "num_subcarriers=16")
    assert main(["simulate", "ofdm", "-o", str(path), "--slots", str(SLOTS), "-n", "2", *small]) == 0
    return path


@pytest.fixture
def call(capsys):
    def run(*arguments, expect=0):
        capsys.readouterr()
        code = main(["track", *map(str, arguments), "--json"])
        seen = capsys.readouterr()
        assert code == expect, seen.err
        return json.loads(seen.out) if code in (0, 3) else seen.err

    return run


@pytest.fixture
def unbroken(capture, call, tmp_path):
    """What one run without a stop prints and writes."""
    found = call(capture, *STEPS, "-o", tmp_path / "unbroken.h5")
    return numbers(found), estimates(tmp_path / "unbroken.h5")


def numbers(document):
    """What must not differ between a broken and an unbroken run."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in document["rows"]]
    other = ("resumed_at", "seconds_per_slot", "state", "out", "rows")
    return {k: v for k, v in document.items() if k not in other} | {"rows": rows}


def estimates(path):
    with h5py.File(path) as file:
        return {name: file[f"estimate/{name}"][()].tobytes() for name in ("mean", "var", "status")}


def test_estimates_and_scores_are_those_of_the_fold(capture, call, tmp_path):
    found = call(capture, *STEPS, "-o", tmp_path / "out.h5")
    slots = list(io.read_slots(capture))
    tracker = method_for("sparse-tracking", slots[0].obs, slots[0].about, settings={"inner_steps": 1})
    with h5py.File(tmp_path / "out.h5") as file:
        mean, var, status = (torch.from_numpy(file[f"estimate/{name}"][()]) for name in ("mean", "var", "status"))
        axes = file["estimate/mean"].attrs["axes"].decode()
    assert axes == "slot batch rx_ant subcarrier" and status.shape == (SLOTS, 2)
    for index, (slot, (_, est)) in enumerate(zip(slots, hhat.track(tracker, slots), strict=True)):
        assert torch.equal(mean[index], est.belief.mean) and torch.equal(var[index], est.belief.var.expand(2, 2, 16))
        row = found["rows"][index]
        assert row["value"] == pytest.approx(hhat.nmse_db(est, slot.truth), abs=1e-9)
        assert row["slot"] == index and row["n"] == 2 and row["status"] == {"OK": 2} and row["seconds"] > 0
    assert io.read(tmp_path / "out.h5").truth is not None  # still the capture
    keys = "file kind method why slots resumed_at noise_var rows score seconds_per_slot status out"
    assert found.keys() == set(keys.split())
    assert found["method"] == "sparse-tracking" and "subcarriers" in found["why"] and found["noise_var"] == "given"
    mean_db = 10 * np.log10(np.mean([10 ** (row["value"] / 10) for row in found["rows"]]))
    assert found["score"]["value"] == pytest.approx(mean_db) and found["score"]["n"] == 2
    assert found["score"]["low"] < mean_db < found["score"]["high"]


@pytest.mark.parametrize("where", ["before the record", "within the record", "before the state"])
def test_stopped_at_any_instant_the_same_command_ends_at_the_same_bits(
    where, capture, call, unbroken, tmp_path, monkeypatch
):
    """Two stops at random slots; a run that is through says the same once more."""
    state, out = tmp_path / "s.safetensors", tmp_path / "out.h5"
    draw = random.Random(where)
    first, second = draw.randrange(SLOTS - 1), draw.randrange(SLOTS)
    append, save = journal.Journal.append, resume.save_state
    for stop in sorted((first, max(second, first + 1))):
        left = [stop - (resume.load_state(state)["track.slots"] if state.exists() else 0)]

        def broken(self, record, left=left):
            left[0] -= 1
            if left[0] >= 0 or where == "before the state":
                return append(self, record)
            if where == "within the record":
                self.file.write(record.tobytes()[: record.nbytes // 2])
                self.file.flush()
            raise KeyboardInterrupt

        def unsaved(path, held, left=left):
            if left[0] < 0:
                raise KeyboardInterrupt
            save(path, held)

        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "append", broken)
            patch.setattr(resume, "save_state", unsaved)
            assert call(capture, *STEPS, "--state", state, "-o", out, expect=130) == "hhat: interrupted\n"
        assert not out.exists()
        done = resume.load_state(state)["track.slots"] if state.exists() else 0
        assert done == stop
    for resumed_at in (stop, SLOTS):
        found = call(capture, *STEPS, "--state", state, "-o", out)
        assert found["resumed_at"] == resumed_at and numbers(found) == unbroken[0]
        assert estimates(out) == unbroken[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5", state.name, state.name + ".slots", "unbroken.h5"]


def test_a_killed_process_goes_on_to_the_same_bits(capture, call, unbroken, tmp_path, monkeypatch):
    """SIGKILL from outside, wherever the process is once its journal has grown to a random length beyond two slots."""
    state, out = tmp_path / "s.safetensors", tmp_path / "out.h5"
    beside, append = Path(f"{state}{journal.SUFFIX}"), journal.Journal.append

    def slowly(self, record):
        if self.count == SLOTS - 1:  # a late killer still finds the process at work
            time.sleep(60)
        append(self, record)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(journal.Journal, "append", slowly)
        with contextlib.suppress(BaseException), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            main(["track", str(capture), *STEPS, "--state", str(state), "-o", str(out)])
        os._exit(0)
    size, until = random.Random(7).randrange(1700, 3200), time.monotonic() + 60
    while (not beside.exists() or beside.stat().st_size < size) and time.monotonic() < until:
        time.sleep(1e-4)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]) and not out.exists()
    found = call(capture, *STEPS, "--state", state, "-o", out)
    assert 1 < found["resumed_at"] < SLOTS and numbers(found) == unbroken[0] and estimates(out) == unbroken[1]


def test_a_file_that_has_grown_goes_on(capture, call, unbroken, tmp_path):
    state, short = tmp_path / "s.safetensors", tmp_path / "short.h5"
    slots = list(io.read_slots(capture))
    io.write_slots(short, slots[:2])
    assert call(short, *STEPS, "--state", state)["slots"] == 2
    tracker = method_for("sparse-tracking", slots[0].obs, slots[0].about, settings={"inner_steps": 1})
    *_, (_, whole) = hhat.track(tracker, slots)
    *_, (_, later) = hhat.track(tracker, slots[2:], hhat.load_state(state))  # it is a state as any other
    assert torch.equal(later.belief.mean, whole.belief.mean)
    found = call(capture, *STEPS, "--state", state)
    assert found["resumed_at"] == 2 and numbers(found) == unbroken[0]
    assert "5 slots are done" in call(short, *STEPS, "--state", state, expect=2)
    io.write_slots(short, [*slots[:4], slots[0]])
    assert "slot 4" in call(short, *STEPS, "--state", state, expect=2)
    io.write_slots(short, slots[::-1])
    assert "another file" in call(short, *STEPS, "--state", state, expect=2)


def test_a_state_of_anything_else_is_refused(capture, call, tmp_path):
    state, out = tmp_path / "s.safetensors", tmp_path / "out.h5"
    call(capture, *STEPS, "--state", state)
    before = state.read_bytes()
    for other, words in (
        (("--method", "ls"), ("another method", "sparse-tracking", "ls")),
        (("--set", "inner_steps=3"), ("another settings", "inner_steps")),
        ((*STEPS, "--seed", 1), ("another seed",)),
        ((*STEPS, "-o", out), ("no estimates", "begun without -o")),
    ):
        text = call(capture, *other, "--state", state, expect=2)
        assert text.count("\n") == 1 and all(word in text for word in words), text
    assert state.read_bytes() == before and not out.exists()
    beside = Path(f"{state}{journal.SUFFIX}")
    beside.write_bytes(beside.read_bytes()[:100])
    assert "expected the 5 of its state" in call(capture, *STEPS, "--state", state, expect=2)
    hhat.save_state(state, {"slots": 2})
    assert "`hhat track` wrote" in call(capture, *STEPS, "--state", state, expect=2)
    state.write_bytes(before[:-10])
    assert "not a readable state" in call(capture, *STEPS, "--state", state, expect=2)


def test_two_runs_do_not_share_a_state(capture, call, tmp_path):
    state = tmp_path / "s.safetensors"
    with journal.journal_file(state, None):
        assert "another run is at work" in call(capture, *STEPS, "--state", state, expect=2)
    assert not list(tmp_path.iterdir())  # nothing was begun


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--state", "s.h5"), "ends in .safetensors"),
        (("--state", "no/folder/s.safetensors"), "in a folder that exists"),
        (("-o", "out.npz"), "expected .h5"),
        (("-o", "no/folder/out.h5"), "cannot write into"),
        (("-o", "FILE"), "is the input itself"),
        (("--method", "nonesuch"), "unknown method"),
        (("--set", "nonesuch=1"), "unknown setting 'nonesuch'"),
        (("--method", "lmmse", "--prior", "nonesuch"), "unknown prior"),
    ],
    ids=str,
)
def test_a_wrong_call_is_refused_before_anything_is_tracked(more, words, capture, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = call(capture, *(capture if word == "FILE" else word for word in more), expect=2)
    assert words in text and text.count("\n") == 1 and not list(tmp_path.iterdir())


def test_files_without_slots_are_refused(call, tmp_path):
    for scenario, more, words in (
        ("ofdm", (), "expected slot as its first axis"),
        ("echoes", ("--slots", "2", "--set", "num_rx_ant=4"), "holds echoes"),
    ):
        assert main(["simulate", scenario, "-o", str(tmp_path / "x.h5"), "-n", "2", *more]) == 0
        text = call(tmp_path / "x.h5", "--state", tmp_path / "s.safetensors", expect=2)
        assert words in text and [p.name for p in tmp_path.iterdir()] == ["x.h5"]


def test_numbers_that_fail_are_3_marked_and_written(capture, call, tmp_path):
    """One link of one slot overflows single precision; the other link, and later slots, go on."""
    path, out = tmp_path / "slots.h5", tmp_path / "out.h5"
    shutil.copy(capture, path)
    with h5py.File(path, "r+") as file:
        file["y"][2, 1] *= 1e30
    found = call(path, *STEPS, "-o", out, expect=3)
    assert found["status"] == {"OK": 2 * SLOTS - 1, "NONFINITE": 1}
    assert found["rows"][2]["status"] == {"OK": 1, "NONFINITE": 1}
    with h5py.File(out) as file:
        assert np.argwhere(file["estimate/status"][()] == int(hhat.Status.NONFINITE)).tolist() == [[2, 1]]


def test_a_slot_is_read_at_a_time(capture, call):
    with h5py.File(capture) as file:
        whole = file["y"].nbytes
    assert call(capture, *STEPS, "--max-bytes", whole // 2)["slots"] == SLOTS
    assert "max_bytes" in call(capture, *STEPS, "--max-bytes", whole // SLOTS - 1, expect=2)


def test_slots_that_hop_in_an_archive_are_written_as_a_capture_of_slots(call, tmp_path):
    """The same numbers as of the HDF5 capture of the same slots."""
    slots = list(hhat.scenario("srs-paths", **SCENE).slots(2, hhat.generator("archive")))
    io.write_slots(tmp_path / "x.h5", slots)
    with h5py.File(tmp_path / "x.h5") as file:
        held = {name: file[name][()] for name in ("y", "selection", "noise_var")}
        held["subcarriers"] = file.attrs["subcarriers"]
        axes = {f"{name}_axes": file[name].attrs["axes"].decode() for name in ("y", "selection")}
    np.savez(tmp_path / "x.npz", **held, **axes, selection_size=SCENE["num_tones"])
    for name in ("x.h5", "x.npz"):
        call(tmp_path / name, "--method", "sparse-tracking", *STEPS, "-o", tmp_path / f"{name}.out.h5")
    assert estimates(tmp_path / "x.h5.out.h5") == estimates(tmp_path / "x.npz.out.h5")
    assert len(list(io.read_slots(tmp_path / "x.npz.out.h5"))) == 2


def test_repeated_pilots_give_a_holdout_score(call, tmp_path):
    """Least squares returns y_1, so that the error is |y_2 - y_1|^2 / |y_2|^2, 3 dB above the floor; so it
    stays when it is called again."""
    path, state = tmp_path / "x.h5", tmp_path / "s.safetensors"
    pair = torch.randn(2, 3, 2, 8, generator=hhat.generator("pair"), dtype=torch.complex64)
    with h5py.File(path, "w") as file:
        file.attrs.update({"schema": "hhat.capture/1", "kind": "slots"})
        for name, y in zip(("y", "y_repeat"), pair, strict=True):
            file[name] = y.numpy()
            file[name].attrs["axes"] = "slot rx_ant subcarrier"
    found = call(path, "--method", "ls", "--state", state)
    assert call(path, "--method", "ls", "--state", state)["rows"] == found["rows"]
    for row, (first, second) in zip(found["rows"], pair.movedim(1, 0), strict=True):
        turned = second * torch.polar(torch.tensor(1.0), -(first.conj() * second).sum().angle())
        want = 10 * ((turned - first).abs().square().sum() / turned.abs().square().sum()).log10()
        assert row["metric"] == "holdout_nmse_db" and row["value"] == pytest.approx(float(want), abs=1e-3)
        assert row["floor_db"] == pytest.approx(row["value"] - 10 * np.log10(2), abs=1e-6)
    assert found["score"]["metric"] == "holdout_nmse_db"


def test_hopping_slots_are_extrapolated_from_the_first_on(call, tmp_path):
    """Three slots warm the tracker up, which is a failure only where there are no more; it goes on from amid that."""
    path, state = tmp_path / "x.h5", tmp_path / "s.safetensors"
    scene = hhat.scenario("srs-paths", **SCENE)
    slots = list(scene.slots(5, hhat.generator("hops")))
    io.write_slots(path, slots[:3])
    found = call(path, "--state", state, expect=3)
    assert found["method"] == "srs-extrapolation" and "other tones" in found["why"]
    assert found["status"] == {"WARMING_UP": 3} and found["score"] is None
    io.write_slots(path, slots)
    resumed, unbroken = call(path, "--state", state), call(path)
    assert resumed["resumed_at"] == 3 and numbers(resumed) == numbers(unbroken)
    assert unbroken["status"] == {"WARMING_UP": 3, "OK": 2} and unbroken["rows"][2]["value"] == 0
    past = [10 ** (row["value"] / 10) for row in unbroken["rows"][3:]]
    assert unbroken["score"]["value"] == pytest.approx(10 * np.log10(np.mean(past)))
    assert unbroken["score"]["value"] < -10


def test_without_the_law_of_the_hops_slots_are_tracked_sparsely(call, tmp_path):
    """The same slots without their period."""
    scene = hhat.scenario("srs-paths", **SCENE)
    slots = list(scene.slots(2, hhat.generator("hops")))
    told = {k: v for k, v in slots[0].about.constants.items() if k != "sounding_period_s"}
    io.write_slots(tmp_path / "x.h5", [replace(slot, about=replace(slot.about, constants=told)) for slot in slots])
    assert call(tmp_path / "x.h5", *STEPS)["method"] == "sparse-tracking"


def test_symbols_of_one_record_are_slots(call, tmp_path):
    """`draw` and `slots` of a scenario are one draw: the same estimates come of both files."""
    scene = hhat.scenario("srs-paths", **SCENE)
    io.write(tmp_path / "one.h5", scene.draw(2, hhat.generator("record")))
    io.write_slots(tmp_path / "many.h5", list(scene.slots(scene.symbols, hhat.generator("record"), links=2)))
    found = []
    for name in ("one", "many"):
        document = call(tmp_path / f"{name}.h5", "--method", "sparse-tracking", *STEPS, "-o", tmp_path / f"{name}-e.h5")
        found.append(([row["value"] for row in document["rows"]], estimates(tmp_path / f"{name}-e.h5")))
    assert found[0] == found[1] and len(found[0][0]) == scene.symbols
    with h5py.File(tmp_path / "one-e.h5") as file:
        assert file["estimate/mean"].attrs["axes"].decode() == "slot batch_0 rx_ant subcarrier"
