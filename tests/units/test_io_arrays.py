"""NumPy and MATLAB files under the schema's names give the same Slot as the HDF5 capture."""

import numpy as np
import pytest
import scipy.io
import torch

from hhat.io import batches, read, repeats
from hhat.io.matlab5 import Reader
from tests.units.io_files import save_v73

RNG = np.random.default_rng(4)


def draw(*shape):
    return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(np.complex64)


H = draw(5, 3, 4)
X = draw(4, 6)
PILOTS = {
    "y": H @ X,
    "pilots": X,
    "noise_var": 0.25,
    "truth_h": H,
    "kind": "srs",
    "source": "a test",
    "carrier_hz": 3.5e9,
    "note": 17.0,
    "geometry_rx_ant": np.array([[0.0, 0, 0], [0.5, 0, 0], [1.0, 0, 0]]),
}
G, P = draw(5, 3, 8), draw(8)
TONES = {"y": G[..., 2:6] * P[2:6], "pilots": P[2:6], "selection": np.arange(2, 6), "selection_size": 8}
TONES |= {"y_axes": "user rx_ant subcarrier", "subcarriers": np.arange(-4, 4)}


def save(path, form, variables):
    if form == "npz":
        np.savez(path, **variables)
    elif form == "v5":
        scipy.io.savemat(path, variables)
    else:
        save_v73(path, variables)
    return path


FORMS = [("npz", "x.npz"), ("v5", "x.mat"), ("v7.3", "x.mat"), ("v7.3", "x.dat")]


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_pilots(form, name, tmp_path):
    slot = read(save(tmp_path / name, form, PILOTS))
    assert torch.equal(slot.obs.y, torch.from_numpy(PILOTS["y"]))
    assert torch.equal(slot.truth.h, torch.from_numpy(H))
    assert torch.allclose(slot.obs.op.apply(slot.truth.h), slot.obs.y, atol=1e-5)
    assert slot.obs.axes == ("rx_ant", "tx_ant")
    assert float(slot.obs.noise_var) == 0.25
    assert (slot.about.kind, slot.about.source) == ("srs", "a test")
    assert slot.about.constants == {"carrier_hz": 3.5e9}
    assert slot.about.geometry["rx_ant"][1] == [0.5, 0, 0]


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_some_subcarriers(form, name, tmp_path):
    slot = read(save(tmp_path / name, form, TONES))
    assert slot.obs.axes == ("rx_ant", "subcarrier") and slot.about.subcarriers == tuple(range(-4, 4))
    assert torch.allclose(slot.obs.op.apply(torch.from_numpy(G)), slot.obs.y)


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_rows_and_batches(form, name, tmp_path):
    path = save(tmp_path / name, form, PILOTS)
    assert torch.equal(read(path, start=1, count=2).truth.h, torch.from_numpy(H[1:3]))
    assert torch.equal(torch.cat([part.obs.y for part in batches(path, 2)]), torch.from_numpy(PILOTS["y"]))


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_one_snapshot_without_a_batch_axis(form, name, tmp_path):
    slot = read(save(tmp_path / name, form, {"y": H[0] @ X, "pilots": X}))
    assert slot.obs.batch_shape == () and slot.truth is None
    assert [part.obs.y.shape for part in batches(tmp_path / name, 3)] == [(3, 6)]


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_repeated_pilots(form, name, tmp_path):
    turned = PILOTS["y"] * np.exp(2j)
    pair = repeats(save(tmp_path / name, form, PILOTS | {"y_repeat": turned}))
    assert pair is not None
    assert torch.allclose(pair[1].obs.y, pair[0].obs.y, atol=1e-5)


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_noise_variance_per_snapshot(form, name, tmp_path):
    values = np.arange(1.0, 6.0)
    slot = read(save(tmp_path / name, form, PILOTS | {"noise_var": values}))
    assert slot.obs.noise_var.shape == (5, 1, 1)
    assert slot.obs.noise_var.flatten().tolist() == values.tolist()


def test_double_precision_and_byte_order_are_kept(tmp_path):
    np.savez(tmp_path / "x.npz", y=PILOTS["y"].astype(">c16"), pilots=X)
    obs = read(tmp_path / "x.npz").obs
    assert obs.y.dtype == torch.complex128 == obs.op.dtype
    assert torch.equal(obs.y, torch.from_numpy(PILOTS["y"]).to(torch.complex128))


def test_fortran_order(tmp_path):
    np.savez(tmp_path / "x.npz", y=np.asfortranarray(PILOTS["y"]), pilots=X)
    assert torch.equal(read(tmp_path / "x.npz").obs.y, torch.from_numpy(PILOTS["y"]))


def test_real_pilots_are_taken_as_complex(tmp_path):
    np.savez(tmp_path / "x.npz", y=PILOTS["y"], pilots=X.real)
    assert torch.equal(read(tmp_path / "x.npz").obs.op.right.matrix, torch.from_numpy(X.real.T + 0j))


def test_trailing_axes_of_size_one_come_back_where_matlab_drops_them(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"y": draw(5, 3), "pilots": np.ones((1, 1)), "y_axes": "batch rx_ant pilot"})
    assert read(tmp_path / "x.mat").obs.y.shape == (5, 3, 1)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<c8", "<c16", "<i2", "<u8", "<i4"])
def test_every_matlab_number_is_read_as_scipy_reads_it(dtype, compress, tmp_path):
    values = (np.arange(24).reshape(2, 3, 4) * (1 - 2j if "c" in dtype else 1)).astype(dtype)
    scipy.io.savemat(tmp_path / "x.mat", {"truth_x": values, "text": "abc"}, do_compression=compress)
    found = {
        v.name: Reader.values(reader, v) for reader in [Reader(tmp_path / "x.mat", 1e6)] for v in reader.variables()
    }
    expected = scipy.io.loadmat(tmp_path / "x.mat")
    assert np.array_equal(found["truth_x"], expected["truth_x"]) and found["truth_x"].dtype == expected["truth_x"].dtype
    assert str(found["text"]) == "abc"


def test_matlab_stores_small_whole_numbers_in_fewer_bytes(tmp_path):
    # by hand, as MATLAB does and SciPy does not: a big-endian file, class double, stored as uint8
    def element(kind, body):
        return kind.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body + bytes(-len(body) % 8)

    flags = element(6, (6 | 0x800).to_bytes(4, "big") + bytes(4))
    shape = element(5, b"".join(size.to_bytes(4, "big") for size in (2, 3)))
    name = (1 << 16 | 1).to_bytes(4, "big") + b"y\0\0\0"
    matrix = element(14, flags + shape + name + element(2, bytes([1, 2, 3, 4, 5, 6])) + element(2, bytes([7] * 6)))
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + matrix)
    (variable,) = Reader(tmp_path / "x.mat", 1e6).variables()
    y = Reader(tmp_path / "x.mat", 1e6).values(variable)
    assert np.array_equal(y, np.array([[1, 3, 5], [2, 4, 6]]) + 7j)
