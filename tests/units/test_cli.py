"""The command line: instant help, clean stdout, exit codes, and what each verb writes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from hhat import registry
from hhat.cli import main

DATA = Path(os.environ.get("HHAT_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "renew"
VERBS = ("list", "simulate", "inspect", "estimate", "track", "calibrate", "bound", "train", "bench", "report", "doctor")
CALLS = [*([verb] for verb in VERBS), *(["runs", verb] for verb in ("merge", "export", "check", "salvage"))]
COMMON = ("--help", "--json", "--seed", "--device", "--threads")
HEAVY = ("torch", "sionna", "plotly", "h5py", "numpy")
SMALL = ("--set", "num_rx_ant=2", "--set", "num_tx_ant=4", "--set", "pilot_ratio=1.5")


def process(*arguments, code="from hhat.cli import main; sys.exit(main())", **settings):
    command = [sys.executable, "-c", f"import sys; {code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **settings)


@pytest.fixture
def run(capsys):
    """Call the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call


@pytest.fixture
def json_of(run):
    def call(*arguments, expect=0):
        code, out, err = run(*arguments, "--json")
        assert code == expect, err
        return json.loads(out)

    return call


@pytest.fixture
def ofdm(tmp_path, run):
    """Ten snapshots of 8 antennas x 52 subcarriers, unit-modulus pilots: least squares is y conj(p)."""
    path = tmp_path / "ofdm.h5"
    assert run("simulate", "ofdm", "-o", path, "-n", 10)[0] == 0
    return path


LIGHT = """
from hhat.cli import main
for call in {calls}:
    code = main(call)
    heavy = set({heavy}) & set(sys.modules)
    if code or heavy:
        sys.exit(f"{{call}}: {{code}} {{heavy}}")
"""


def test_help_and_list_import_nothing_heavy():
    """One process for all: what any of them imports stays imported."""
    calls = [["--help"], *([*call, "--help"] for call in CALLS), ["list"], ["--version"]]
    done = process(code=LIGHT.format(calls=calls, heavy=HEAVY))
    assert done.returncode == 0 and "simulate" in done.stdout, done.stderr


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_verb_has_the_common_options(call, run):
    code, out, _ = run(*call, "--help")
    assert code == 0
    for option in COMMON:
        assert option in out


def test_the_bare_command_lists_the_verbs(run):
    code, out, _ = run()
    assert code == 0 and all(verb in out for verb in VERBS)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_list_names_everything_registered(kind, run, json_of):
    code, out, _ = run("list", kind)
    assert code == 0 and all(name in out for name in registry.KINDS[kind])
    assert [entry["name"] for entry in json_of("list", kind)[kind]] == list(registry.KINDS[kind])


def test_doctor_tells_versions_devices_and_what_is_missing(run, json_of, monkeypatch):
    import torch

    from hhat.cli import about

    monkeypatch.setitem(about.OPTIONAL, "no-such-package", ("extra", "nothing"))
    found = json_of("doctor")
    assert found["packages"]["torch"] == torch.__version__
    assert found["devices"][0] == "cpu"
    missing = {part["name"]: part for part in found["optional"]}["no-such-package"]
    assert missing["version"] is None and missing["get"] == "pip install 'hhat[extra]'"
    assert "pip install 'hhat[extra]'" in run("doctor")[1]


def test_simulate_writes_what_was_asked_for_and_the_seed_decides(tmp_path, json_of):
    paths = [tmp_path / f"{name}.h5" for name in "abc"]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        json_of("simulate", "cdl", "-o", path, "-n", 3, "--seed", seed, "--set", "snr_db=20", *SMALL)
    values = []
    for path in paths:
        with h5py.File(path) as file:
            values.append(file["y"][:])
            assert file["y"].shape == (3, 2, 6) and file["truth/h"].shape == (3, 2, 4)
            assert float(file["noise_var"][()]) == pytest.approx(4 / 100)
    assert np.array_equal(values[0], values[1]) and not np.array_equal(values[0], values[2])


def test_simulate_slots_are_estimated_as_snapshots(tmp_path, json_of):
    path = tmp_path / "slots.h5"
    made = json_of("simulate", "ofdm", "-o", path, "--slots", 3, "-n", 2)
    assert made["y_shape"] == [3, 2, 8, 52]
    found = json_of("estimate", path, "--method", "ls", "-o", tmp_path / "out.h5")
    assert found["kind"] == "slots" and found["status"] == {"OK": 6} and found["rows"][0]["n"] == 6
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["estimate/mean"].shape == (3, 2, 8, 52) and file["estimate/status"].shape == (3, 2)


def test_inspect_agrees_with_the_file(ofdm, run, json_of):
    found = json_of("inspect", ofdm)
    assert found["axes"] == {"batch": 10, "rx_ant": 8, "subcarrier": 52} and found["problems"] == []
    code, out, _ = run("inspect", ofdm)
    assert code == 0 and "rx_ant 8" in out and "312500" in out


def test_estimate_writes_least_squares_and_its_error_and_leaves_the_capture_alone(ofdm, tmp_path, json_of):
    out = tmp_path / "out.h5"
    found = json_of("estimate", ofdm, "--method", "ls", "-o", out)
    with h5py.File(ofdm) as before, h5py.File(out) as after:
        for name in ("y", "pilots", "noise_var", "truth/h", "truth/delay_s"):
            assert np.array_equal(before[name][()], after[name][()])
        mean, h = after["estimate/mean"][:], after["truth/h"][:]
        assert np.allclose(mean, after["y"][:] * after["pilots"][:].conj(), atol=1e-5)
        assert np.allclose(after["estimate/var"][:], after["noise_var"][()], rtol=1e-4)
        assert after["estimate/status"][:].tolist() == [0] * 10
        assert after["estimate"].attrs["schema"] == b"hhat.estimate/1"
        assert after["estimate"].attrs["method"] == b"ls"
    error = 10 * np.log10(np.mean(np.sum(abs(mean - h) ** 2, (1, 2)) / np.sum(abs(h) ** 2, (1, 2))))
    row = found["rows"][0]
    assert (row["user"], row["metric"], row["n"]) == (0, "nmse_db", 10)
    assert row["value"] == pytest.approx(error, abs=1e-4) and row["low"] < error < row["high"]
    assert found["status"] == {"OK": 10} and found["seconds_per_estimate"] > 0
    assert {"file", "kind", "method", "why", "rows"} <= set(found)


def test_batches_of_a_large_file_give_what_one_pass_gives(ofdm, tmp_path, json_of, monkeypatch):
    from hhat.cli import estimate

    whole = json_of("estimate", ofdm, "--method", "sbl", "-o", tmp_path / "whole.h5")
    monkeypatch.setattr(estimate, "BATCH_ENTRIES", 3 * 8 * 52)
    parts = json_of("estimate", ofdm, "--method", "sbl", "-o", tmp_path / "parts.h5")
    assert parts["status"] == whole["status"] == {"OK": 10}
    assert parts["rows"][0]["value"] == pytest.approx(whole["rows"][0]["value"], abs=1e-4)
    with h5py.File(tmp_path / "whole.h5") as one, h5py.File(tmp_path / "parts.h5") as many:
        assert np.allclose(one["estimate/mean"][:], many["estimate/mean"][:], atol=1e-4)
        assert many["estimate/var"].shape == (10, 8, 52)


def test_an_estimated_file_can_be_estimated_again(ofdm, tmp_path, json_of):
    json_of("estimate", ofdm, "--method", "ls", "-o", tmp_path / "one.h5")
    json_of("estimate", tmp_path / "one.h5", "--method", "rls", "-o", tmp_path / "two.h5")
    with h5py.File(tmp_path / "two.h5") as file:
        assert file["estimate"].attrs["method"] == b"rls"


def test_without_a_method_it_chooses_by_the_axes_and_says_why(ofdm, json_of, run):
    found = json_of("estimate", ofdm)
    assert found["method"] == "sbl" and "52 subcarriers: delays" in found["why"]
    assert "52 subcarriers: delays" in run("estimate", ofdm)[1]
    # delays are worth about 10 dB here
    assert found["rows"][0]["value"] < json_of("estimate", ofdm, "--method", "ls")["rows"][0]["value"] - 6


def test_unknown_noise_is_estimated_and_said(ofdm, json_of):
    with h5py.File(ofdm, "r+") as file:
        del file["noise_var"]
    assert json_of("estimate", ofdm)["noise_var"] == "estimated"


def test_lmmse_with_the_covariance_of_another_capture(tmp_path, json_of):
    small, site = tmp_path / "x.h5", tmp_path / "site.h5"
    json_of("simulate", "cdl", "-o", small, "-n", 200, *SMALL)
    json_of("simulate", "cdl", "-o", site, "-n", 2000, "--seed", 5, *SMALL)
    found = json_of("estimate", small, "--method", "lmmse", "--prior", "covariance", "--set", f"samples={site}")
    with h5py.File(small) as file:
        y, x, h, noise = (file[name][()] for name in ("y", "pilots", "truth/h", "noise_var"))
    with h5py.File(site) as file:
        flat = file["truth/h"][:].reshape(2000, -1)
    c = flat.T @ flat.conj() / 2000
    a = np.kron(np.eye(2), x.T)
    gain = c @ a.conj().T @ np.linalg.inv(a @ c @ a.conj().T + noise * np.eye(len(a)))
    error = (y.reshape(200, -1) @ gain.T).reshape(h.shape) - h
    wanted = 10 * np.log10(np.mean(np.sum(abs(error) ** 2, (1, 2)) / np.sum(abs(h) ** 2, (1, 2))))
    assert found["rows"][0]["value"] == pytest.approx(wanted, abs=0.02)


def test_status_not_ok_is_exit_three_with_the_output_written_and_marked(ofdm, tmp_path, run):
    out = tmp_path / "out.h5"
    code, text, err = run("estimate", ofdm, "--method", "oamp", "--set", "max_steps=2", "-o", out, "--json")
    assert code == 3 and json.loads(text)["status"] == {"MAX_STEPS": 10}
    assert err.count("\n") == 1 and "10 of 10 estimates are not OK" in err
    with h5py.File(out) as file:
        assert file["estimate/status"][:].tolist() == [2] * 10
        assert np.isfinite(file["estimate/mean"][:]).all()


def test_renoise_of_least_squares_is_the_noise_that_was_added(ofdm, json_of):
    found = json_of("estimate", ofdm, "--method", "ls", "--score", "renoise:5")
    rows = found["rows"]
    assert [row["user"] for row in rows] == list(range(10)) and {row["n"] for row in rows} == {20}
    assert all(row["metric"] == "renoise_nmse_db" for row in rows)
    assert np.allclose([row["value"] for row in rows], -5, atol=0.3)
    assert found["score_status"] == {"OK": 200}


def test_a_file_without_truth_and_repeats_has_no_score_and_says_how_to_get_one(ofdm, run, json_of):
    with h5py.File(ofdm, "r+") as file:
        del file["truth"]
    assert json_of("estimate", ofdm, "--method", "ls")["rows"] == []
    assert "--score renoise:SNR_DB" in run("estimate", ofdm, "--method", "ls")[1]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no captured data in {DATA} (set HHAT_DATA)")
def test_renew_users_are_scored_by_hold_out_beside_the_floor(tmp_path, json_of, run):
    path, out = DATA / "mimo_60_145_try_2.mat", tmp_path / "out.h5"
    rows = json_of("estimate", path, "--method", "ls", "-o", out)["rows"]
    assert [row["user"] for row in rows] == [0, 1]
    assert np.allclose([row["value"] for row in rows], [-19.4, -23.5], atol=0.15)
    assert np.allclose([row["floor_db"] for row in rows], [-22.4, -26.5], atol=0.15)
    assert "noise floor" in run("estimate", path)[1]
    with h5py.File(out) as file:
        assert file["estimate/mean"].shape == (2, 8, 52) and file["y_repeat"].shape == (2, 8, 52)
    # the copy scores as the capture does
    again = json_of("estimate", out, "--method", "ls")["rows"]
    assert np.allclose([row["value"] for row in again], [row["value"] for row in rows], atol=1e-3)


def test_bench_runs_once_and_reports(tmp_path, run, json_of, monkeypatch):
    import hhat
    from hhat.bench.experiment import Experiment, Profile
    from hhat.experiments import start_demo
    from hhat.scenarios.cdl import Cdl

    tiny = Experiment(
        name="start/demo",
        title="tiny",
        scenario=lambda point: Cdl.example(hhat.generator("cli")),
        methods={"ls": start_demo.ls, "rls": start_demo.rls},
        profiles={"quick": Profile([{"snr_db": 10.0}], blocks=1, block_size=4)},
    )
    monkeypatch.setattr(start_demo, "EXPERIMENT", tiny)
    runs = tmp_path / "runs"
    waiting = json_of("bench", "start/demo", "--runs", runs, "--dry-run")
    assert len(waiting["missing"]) == 2 and not runs.exists()
    found = json_of("bench", "start/demo", "--runs", runs)
    assert found["experiment"] == "start/demo" and found["profile"] == "quick" and found["status"] == {"OK": 8}
    wanted = {"method", "point", "metric", "value", "low", "high", "n", "seconds", "seed"}
    assert all(wanted <= set(row) for row in found["rows"])
    assert {row["method"] for row in found["rows"] if row["metric"] == "nmse_db"} == {"ls", "rls"}
    assert json_of("bench", "start/demo", "--runs", runs, "--dry-run")["missing"] == []
    assert json_of("bench", "start/demo", "--runs", runs)["rows"] == found["rows"]
    other = json_of("bench", "start/demo", "--runs", runs, "--seed", 3)
    assert other["rows"][0]["seed"] == 3 and other["rows"][0]["value"] != found["rows"][0]["value"]
    page = tmp_path / "page.html"
    assert run("report", runs, "-o", page)[0] == 0
    assert "tiny" in page.read_text()


def test_bench_says_how_long_it_takes_and_ends_rows_that_are_narrow_enough(tmp_path, run, json_of):
    runs = tmp_path / "runs"
    # of that experiment's methods the three that a file can be given to
    call = ("bench", "engine/sparse-cdl", "--user", tmp_path / "ofdm.h5", "--runs", runs)
    assert run("simulate", "ofdm", "-o", tmp_path / "ofdm.h5", "-n", 100)[0] == 0
    waiting = json_of(*call, "--dry-run", "--profile", "full")
    assert waiting["seconds"] > 0 and waiting["probed"] == ["lmmse", "lasso", "auto"] and not runs.exists()
    found = json_of(*call, "--profile", "full", "--half-width", 0.5)
    counts = {row["method"]: row["n"] for row in found["rows"] if row["metric"] == "nmse_db"}
    assert counts == {"lmmse": 60, "lasso": 60, "auto": 60}  # three blocks, where the rule looks first
    again = json_of(*call, "--dry-run", "--profile", "full")
    assert again["probed"] == [] and 0 < again["seconds"] < waiting["seconds"]
    assert {cell["method"] for cell in again["missing"]} == set(counts)  # without the rule all blocks are due
    assert "one lane" in run(*call, "--dry-run", "--profile", "full")[1]


def test_bench_takes_a_ray_address_or_none():
    from hhat.cli.runs import with_ray_address

    assert with_ray_address(["bench", "x", "--ray"]) == ["bench", "x", "--ray=local"]
    assert with_ray_address(["bench", "--ray", "start/demo"]) == ["bench", "--ray=local", "start/demo"]
    assert with_ray_address(["bench", "--ray", "--json"]) == ["bench", "--ray=local", "--json"]
    for address in ("auto", "10.0.0.1:6379", "ray://head:10001"):
        assert with_ray_address(["bench", "x", "--ray", address]) == ["bench", "x", "--ray", address]
    assert with_ray_address(["bench", "--ray=auto"]) == ["bench", "--ray=auto"] and with_ray_address([]) == []


def test_a_refusing_method_is_told_and_the_others_are_there(tmp_path, run, json_of, monkeypatch):
    import hhat
    from hhat.bench.experiment import Experiment, Profile
    from hhat.experiments import start_demo
    from hhat.ops import Fourier
    from hhat.scenarios.cdl import Cdl

    mixed = Experiment(
        name="start/demo",
        title="one refuses",
        scenario=lambda point: Cdl.example(hhat.generator("cli")),
        methods={
            "ls": start_demo.ls,
            "no": lambda scene: hhat.method("lmmse", prior=hhat.prior("gauss", basis=Fourier(3))),
        },
        profiles={"quick": Profile([{"snr_db": 10.0}], blocks=2, block_size=4)},
    )
    monkeypatch.setattr(start_demo, "EXPERIMENT", mixed)
    found = json_of("bench", "start/demo", "--runs", tmp_path / "runs", expect=3)
    assert {row["method"] for row in found["rows"]} == {"ls"}
    assert [failure["method"] for failure in found["failed"]] == ["no"] and "basis" in found["failed"][0]["why"]
    code, _, err = run("bench", "start/demo", "--runs", tmp_path / "runs")
    assert code == 3 and err.count("\n") == 1 and "no at {'snr_db': 10.0}" in err


def test_numbers_that_json_cannot_hold_are_null():
    from hhat.cli.common import finite

    assert finite({"a": [float("inf"), 1.5, (float("nan"),)], 2: "x"}) == {"a": [None, 1.5, [None]], "2": "x"}


def test_interrupting_ends_with_130_and_leaves_no_file(tmp_path):
    out = tmp_path / "x.h5"
    code = (
        "import signal, os, time; from hhat.cli import main; import hhat.scenarios.cdl as c;"
        # a shell in the background hands on SIGINT ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "c.Cdl.draw = lambda *a: (os.kill(os.getpid(), signal.SIGINT), time.sleep(30)); sys.exit(main())"
    )
    done = process("simulate", "cdl", "-o", out, code=code)
    assert done.returncode == 130 and done.stdout == "" and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_running_estimate_stops_at_ctrl_c(tmp_path, run):
    path = tmp_path / "x.h5"
    assert run("simulate", "cdl", "-o", path, "-n", 2000, *SMALL)[0] == 0
    command = [sys.executable, "-m", "hhat.cli", "estimate", str(path), "--method", "omp", "-o", str(tmp_path / "o.h5")]
    with subprocess.Popen(
        [*command, "--set", "max_atoms=8"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        while job.poll() is None and not list(tmp_path.glob(".o.h5.*")):
            time.sleep(0.05)
        job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=60)
    if job.returncode != 0:  # it may have been done already
        assert job.returncode == 130 and err == "hhat: interrupted\n"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["x.h5"]
