"""Calls and files that cannot be used: exit code 2, one line on stderr, nothing on stdout, nothing written."""

import os
import pickle
import sys

import h5py
import numpy as np
import pytest

from hhat.cli import main

RNG = np.random.default_rng(4)
PILOTS = (RNG.normal(size=(4, 6)) + 1j * RNG.normal(size=(4, 6))).astype(np.complex64)
Y = (RNG.normal(size=(5, 3, 6)) + 1j * RNG.normal(size=(5, 3, 6))).astype(np.complex64)


class Trap:
    """Unpickling this would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def capture(path, y=Y, noise_var=0.1):
    """A capture of 3 x 4 channels by 6 pilots, without truth."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"schema": "hhat.capture/1", "kind": "pilots"})
        file.create_dataset("y", data=y).attrs["axes"] = "batch rx_ant pilot"
        file.create_dataset("pilots", data=PILOTS).attrs["axes"] = "tx_ant pilot"
        file.create_dataset("noise_var", data=np.float32(noise_var)).attrs["axes"] = ""
    return path


@pytest.fixture
def refused(tmp_path, capsys):
    """Run a call that must fail, with and without --json; returns its one line."""

    def call(*arguments, words=()):
        before = sorted(tmp_path.rglob("*"))
        for extra in ([], ["--json"]):
            capsys.readouterr()
            code = main([*map(str, arguments), *extra])
            seen = capsys.readouterr()
            assert code == 2, seen.err
            assert seen.out == ""
            assert seen.err.startswith("hhat: ") and seen.err.count("\n") == 1 and "Traceback" not in seen.err
            for word in words:
                assert word in seen.err
        assert sorted(tmp_path.rglob("*")) == before
        return seen.err

    return call


def estimate(path, tmp_path, *more):
    return ("estimate", path, "-o", tmp_path / "out.h5", *more)


def test_the_good_file_is_estimated(tmp_path, capsys):
    assert main([str(a) for a in estimate(capture(tmp_path / "x.h5"), tmp_path)]) == 0
    assert (tmp_path / "out.h5").exists()


def test_a_missing_file(tmp_path, refused):
    refused(*estimate(tmp_path / "none.h5", tmp_path), words=("none.h5", "no such file"))


def test_a_truncated_file(tmp_path, refused):
    path = capture(tmp_path / "x.h5")
    path.write_bytes(path.read_bytes()[:3000])
    refused(*estimate(path, tmp_path), words=("x.h5", "HDF5"))


def test_a_wrong_shape(tmp_path, refused):
    path = capture(tmp_path / "x.h5", y=Y[..., :5])
    refused(*estimate(path, tmp_path), words=("pilots", "5 pilots"))


def test_nan(tmp_path, refused):
    y = Y.copy()
    y[1, 2, 3] = np.nan
    refused(*estimate(capture(tmp_path / "x.h5", y=y), tmp_path), words=("y: 1 of 90 values are NaN",))


def test_a_negative_noise_variance(tmp_path, refused):
    refused(*estimate(capture(tmp_path / "x.h5", noise_var=-0.1), tmp_path), words=("noise_var", "expected >= 0"))


def test_real_where_complex_is_due(tmp_path, refused):
    path = capture(tmp_path / "x.h5", y=Y.real)
    refused(*estimate(path, tmp_path), words=("y: expected complex numbers, got float32",))


def test_a_pickled_archive_is_not_unpickled(tmp_path, refused):
    path, trap = tmp_path / "x.npz", tmp_path / "sprung"
    boxed = np.empty(1, dtype=object)
    boxed[0] = Trap(trap)
    np.savez(path, y=boxed, pilots=PILOTS)
    refused(*estimate(path, tmp_path), words=("x.npz", "y"))
    assert not trap.exists()
    # the trap is a real one
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()


def test_no_snapshots(tmp_path, refused):
    refused(*estimate(capture(tmp_path / "x.h5", y=Y[:0]), tmp_path), words=("y: 0 snapshots",))


def test_an_unknown_method(tmp_path, refused):
    path = capture(tmp_path / "x.h5")
    refused(*estimate(path, tmp_path, "--method", "magic"), words=("unknown method 'magic'", "oamp", "sbl"))


def test_ten_declared_gigabytes(tmp_path, refused):
    path = capture(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        del file["y"]
        # never written: a few bytes on disk
        y = file.create_dataset("y", shape=(70_000_000, 3, 6), dtype=np.complex64, chunks=(1000, 3, 6))
        y.attrs["axes"] = "batch rx_ant pilot"
    assert path.stat().st_size < 1e6
    refused(*estimate(path, tmp_path), words=("y: declares 10.08 GB",))


def test_a_dataset_above_max_bytes(tmp_path, refused):
    path = capture(tmp_path / "x.h5")
    refused(*estimate(path, tmp_path, "--max-bytes", 100), words=("more than the limit of 100 bytes",))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["estimate", "FILE", "--prior", "magic"], ("unknown prior 'magic'", "bernoulli-gauss")),
        (["estimate", "FILE", "--method", "ls", "--prior", "gauss"], ("ls: takes no prior",)),
        (["estimate", "FILE", "--method", "lasso", "--set", "strength=strong"], ("strength: expected float",)),
        (["estimate", "FILE", "--method", "lasso", "--set", "strength=-1"], ("strength: expected > 0",)),
        (["estimate", "FILE", "--method", "lasso", "--set", "power=1"], ("unknown setting 'power'", "strength")),
        (["estimate", "FILE", "--set", "strength"], ("expected key=value",)),
        (["estimate", "FILE", "--method", "sbl", "--set", "tied_axes=user"], ("no axis 'user'", "rx_ant")),
        (["estimate", "FILE", "--prior", "covariance", "--set", "samples=FILE"], ("truth/h: missing",)),
        (["estimate", "FILE", "--score", "guess"], ("expected holdout or renoise:SNR_DB",)),
        (["estimate", "FILE", "--score", "renoise:loud"], ("expected holdout or renoise:SNR_DB",)),
        (["estimate", "FILE", "--score", "holdout"], ("y_repeat: missing",)),
        (["estimate", "FILE", "-o", "FILE"], ("is the input itself",)),
        (["estimate", "FILE", "-o", "out.txt"], ("expected .h5 or .hdf5",)),
        (["estimate", "FILE", "-o", "/no/such/folder/out.h5"], ("cannot write into /no/such/folder",)),
        (["estimate", "FILE", "--device", "abacus"], ("no device 'abacus'", "cpu")),
        (["estimate", "FILE", "--threads", "0"], ("--threads", "estimate --help")),
        (["estimate", "FILE", "--seed", "x"], ("--seed", "integer")),
        (["estimate", "FILE", "--magic"], ("--magic",)),
        (["estimate"], ("file", "estimate --help")),
        (["magic"], ("magic", "there are: list simulate")),
        (["simulate", "magic", "-o", "FOLDER/x.h5"], ("unknown scenario 'magic'", "cdl")),
        (["simulate", "cdl"], ("--out",)),
        (["simulate", "cdl", "-o", "FOLDER/x.txt", "-n", "1"], ("expected .h5 or .hdf5",)),
        (["simulate", "cdl", "-o", "FOLDER/x.h5", "-n", "0"], ("-n",)),
        (["simulate", "cdl", "-o", "FOLDER/x.h5", "--set", "profile=Z"], ("profile", "'Z'")),
        (["simulate", "cdl", "-o", "FOLDER/x.h5", "--set", "colour=red"], ("unknown setting 'colour'", "profile")),
        (["simulate", "cdl", "-o", "FOLDER/x.h5", "--set", "snr_db=loud"], ("snr_db: expected",)),
        (["simulate", "cdl", "-o", "FOLDER/x.h5", "-n", "9000000000000"], ("not enough memory",)),
        (["inspect", "FOLDER/none.h5"], ("no such file",)),
        (["bench", "magic", "--runs", "FOLDER/runs"], ("unknown experiment 'magic'", "start/demo")),
        (["bench", "start/demo", "--profile", "magic", "--runs", "FOLDER/runs"], ("unknown profile", "quick")),
        (["report", "FOLDER/none", "-o", "FOLDER/x.html"], ("cells.sqlite",)),
        (["list", "spells"], ("unknown kind 'spells'", "methods")),
    ],
)
def test_wrong_calls(arguments, words, tmp_path, refused):
    path = capture(tmp_path / "x.h5")
    refused(*(a.replace("FILE", str(path)).replace("FOLDER", str(tmp_path)) for a in arguments), words=words)


def test_inspect_of_a_wrong_file_shows_what_is_there_and_exits_with_two(tmp_path, capsys):
    path = capture(tmp_path / "x.h5", noise_var=-1.0)
    assert main(["inspect", str(path)]) == 2
    seen = capsys.readouterr()
    assert "rx_ant 3" in seen.out and "negative" in seen.out
    assert seen.err.count("\n") == 1 and "noise_var: 1 of 1 values are negative" in seen.err


def test_a_file_in_place_of_the_output_survives_a_failed_run(tmp_path, capsys):
    path, out = capture(tmp_path / "x.h5"), tmp_path / "out.h5"
    out.write_bytes(b"precious")
    assert main(["estimate", str(path), "-o", str(out), "--method", "magic"]) == 2
    assert out.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5", "x.h5"]


def test_the_process_itself_answers_with_one_line_and_two(tmp_path):
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", "hhat.cli", "estimate", str(tmp_path / "none.h5"), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"hhat: {tmp_path / 'none.h5'}: no such file\n"
