"""Broken copies of good files: bytes flipped and files cut, and nothing but InputError (or a Slot) comes out."""

import random
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from hhat.io import InputError, read, repeats, write
from hhat.io.inspect import describe
from hhat.ops import BlockDiag, Dense, Diagonal, Identity, Kron
from hhat.random import complex_normal, generator
from hhat.types import About, Channel, Observation, Slot
from tests.units.io_files import save_v73

ROUNDS = 150
GEN = generator("fuzz")


def capture(path, op, axes=None):
    h = complex_normal((3, *op.in_shape), GEN)
    about = About(geometry={"rx_ant": [[0.0, 0.0, 0.0]] * 2}, constants={"carrier_hz": 1e9})
    write(path, Slot(Channel(h), Observation(op.apply(h), op, 0.1, axes), about))


def pilots(path):
    capture(path, Kron(Identity((2,)), Diagonal(complex_normal((4,), GEN))), ("rx_ant", "subcarrier"))


def tree(path):
    capture(path, BlockDiag(Dense(complex_normal((2, 3, 3), GEN))))


def npz(path):
    np.savez_compressed(path, y=np.ones((3, 2, 4), complex), pilots=np.ones(4), kind="srs", carrier_hz=1e9)


def mat(path):
    y = np.exp(1j * np.arange(24.0)).reshape(3, 2, 4)
    scipy.io.savemat(path, {"y": y, "pilots": y[0], "y_axes": "batch rx_ant pilot"}, do_compression=False)


def mat_compressed(path):
    y = np.exp(1j * np.arange(24.0)).reshape(3, 2, 4)
    scipy.io.savemat(path, {"y": y, "pilots": y[0], "y_axes": "batch rx_ant pilot"}, do_compression=True)


def mat_73(path):
    y = np.exp(1j * np.arange(24.0)).reshape(3, 2, 4)
    save_v73(path, {"y": y, "pilots": y[0], "y_axes": "batch rx_ant pilot"})


def other_hdf5(path):
    """As a user's own program writes it: compressed, text in HDF5's heap."""
    y = np.exp(1j * np.arange(24.0)).reshape(3, 2, 4)
    with h5py.File(path, "w") as file:
        file.attrs["schema"], file.attrs["source"] = "hhat.capture/1", "a program"
        file.create_dataset("y", data=y, chunks=(1, 2, 4), compression="gzip").attrs["axes"] = "batch rx_ant pilot"
        file.create_dataset("pilots", data=y[0]).attrs["axes"] = ["tx_ant", "pilot"]


def log(path):
    pytest.importorskip("csiread", reason="the extra [captures] is not installed")
    head = bytes(8) + bytes([3, 2, 40, 41, 42, 171, 30, 36]) + (372).to_bytes(2, "little") + b"\x00\x01"
    record = b"\xbb" + head + bytes(range(256)) + bytes(116)
    path.write_bytes((len(record).to_bytes(2, "big") + record) * 4)


MAKERS = {
    "a.h5": pilots,
    "b.h5": tree,
    "c.npz": npz,
    "d.mat": mat,
    "e.mat": mat_compressed,
    "f.dat": log,
    "g.mat": mat_73,
    "h.h5": other_hdf5,
}


def spoil(data: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    broken = bytearray(data)
    # most of an HDF5 file's meaning lies near its start; flip there more often
    reach = len(data) if kind == 1 else min(len(data), 2048)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(reach)
        broken[at] = broken[at] ^ (1 << rng.randrange(8)) if kind < 3 else rng.choice([0, 0xFF, 0x7F, 0x80])
    return bytes(broken)


@pytest.mark.parametrize("name", MAKERS)
def test_only_input_errors_come_out(name, tmp_path):
    path: Path = tmp_path / name
    MAKERS[name](path)
    good = path.read_bytes()
    read(path)
    rng = random.Random(name)
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(spoil(good, rng))
        for reader in (read, repeats, describe):
            try:
                found = reader(path)
            except InputError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
                refused += 1
            else:
                if isinstance(found, Slot):
                    assert bool(torch.isfinite(found.obs.y).all())
    assert refused > 0
