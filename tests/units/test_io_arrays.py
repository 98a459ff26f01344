"""NumPy and MATLAB files under the schema's names give the same Slot as the HDF5 capture."""

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from hhat.io import batches, read, repeats

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


def save_v73(path, variables):
    """What MATLAB writes with -v7.3: a 512-byte header, axes reversed, complex as pairs, text as UTF-16 codes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            if isinstance(value, str):
                data = np.array([[ord(c)] for c in value], np.uint16)
                file.create_dataset(name, data=data).attrs["MATLAB_class"] = np.bytes_("char")
                continue
            array = np.atleast_2d(np.asarray(value)).T
            if array.dtype.kind == "c":
                pair = np.empty(array.shape, [("real", array.real.dtype), ("imag", array.real.dtype)])
                pair["real"], pair["imag"] = array.real, array.imag
                array = pair
            file.create_dataset(name, data=array).attrs["MATLAB_class"] = np.bytes_("double")
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))


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
