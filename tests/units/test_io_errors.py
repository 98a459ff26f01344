"""Files that cannot be used: each ends in one line that names the file, the dataset and what was expected."""

import io
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io

from hhat.io import InputError, read, read_slots
from hhat.io.inspect import describe

RNG = np.random.default_rng(3)
Y = (RNG.normal(size=(5, 3, 6)) + 1j * RNG.normal(size=(5, 3, 6))).astype(np.complex64)
X = (RNG.normal(size=(4, 6)) + 1j * RNG.normal(size=(4, 6))).astype(np.complex64)
H = (RNG.normal(size=(5, 3, 4)) + 1j * RNG.normal(size=(5, 3, 4))).astype(np.complex64)
AXES = {"y": "batch rx_ant pilot", "pilots": "tx_ant pilot", "truth/h": "batch rx_ant tx_ant", "noise_var": ""}


def capture(path, attributes=None, **fields):
    """A good capture of pilots with some fields replaced; a field that is None is left out."""
    values = {"y": Y, "pilots": X, "noise_var": np.float32(0.1), "truth/h": H}
    values |= {name.replace("truth_", "truth/"): value for name, value in fields.items()}
    with h5py.File(path, "w") as file:
        file.attrs.update({"schema": "hhat.capture/1", "kind": "pilots", **(attributes or {})})
        for name, value in values.items():
            if value is not None:
                file.create_dataset(name, data=value).attrs["axes"] = AXES[name]
    return path


def refused(path, *words, reader=read, **settings):
    """One line, an InputError, naming the file and holding these words."""
    with pytest.raises(InputError) as caught:
        reader(path, **settings)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(str(path))
    for word in words:
        assert word in text
    return text


def spoiled(array, index, value):
    out = np.array(array)
    out[index] = value
    return out


def test_the_good_file_is_read(tmp_path):
    slot = read(capture(tmp_path / "x.h5"))
    assert slot.obs.y.shape == (5, 3, 6) and slot.truth.h.shape == (5, 3, 4)


def test_a_missing_file(tmp_path):
    refused(tmp_path / "none.h5", "no such file")


def test_a_folder(tmp_path):
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 100, b"\x00" * 4096, b"\x89HDF", b"\xff\xd8\xff\xe0" * 64])
def test_not_a_known_format(content, tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    refused(path, "expected HDF5")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_capture(share, tmp_path):
    path = capture(tmp_path / "x.h5")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "HDF5")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"y": None}, ("y: missing", "pilots")),
        ({"pilots": None}, ("pilots: missing",)),
        ({"y": Y[:, :, :5]}, ("pilots", "4", "6", "5 pilots")),
        ({"y": Y[0]}, ("y: shape (3, 6)", "batch rx_ant pilot")),
        ({"y": Y[:0], "truth_h": H[:0]}, ("y: 0 snapshots",)),
        ({"y": Y.real}, ("y: expected complex numbers, got float32",)),
        ({"y": np.ones((5, 3, 6), np.int16)}, ("y: expected complex numbers, got int16",)),
        ({"y": spoiled(Y, (1, 2), np.nan)}, ("y: 6 of 90 values are NaN or infinite",)),
        ({"pilots": spoiled(X, (0, 0), np.inf)}, ("pilots: 1 of 24 values",)),
        ({"pilots": X[:, :5]}, ("pilots",)),
        ({"noise_var": np.float32(-0.1)}, ("noise_var: 1 of 1 values are negative",)),
        ({"noise_var": np.float32(np.nan)}, ("noise_var: 1 of 1 values are NaN",)),
        ({"noise_var": np.complex64(1)}, ("noise_var: expected real",)),
        ({"truth_h": H[:4]}, ("truth/h: batch has size 4, in y it has 5",)),
        ({"truth_h": H[:, :2]}, ("truth/h: shape (5, 2, 4), expected (5, 3, 4)",)),
        ({"truth_h": H.real}, ("truth/h: expected complex",)),
        ({"truth_h": spoiled(H, 0, np.nan)}, ("truth/h: 12 of 60",)),
        ({"y": np.array([b"text"] * 5)}, ("y",)),
    ],
)
def test_wrong_fields(fields, words, tmp_path):
    path = capture(tmp_path / "x.h5", **fields)
    text = refused(path, *words)
    # inspect lists the same problem instead of raising it, unless the field cannot even be listed
    if "text" not in str(fields):
        assert text in describe(path)["problems"]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"schema": "hhat.capture/2"}, ("attribute schema", "'hhat.capture/2' is unknown", "hhat.capture/1")),
        ({"schema": 7}, ("attribute schema: missing",)),
        ({"kind": "soup"}, ("attribute kind", "'soup'")),
        ({"geometry_rx_ant": np.zeros((4, 3))}, ("geometry_rx_ant", "4 element positions, the channel has 3")),
        ({"carrier_hz": np.nan}, ("constants.carrier_hz",)),
        ({"subcarriers": np.array([0.5, 1.0])}, ("attribute subcarriers",)),
    ],
)
def test_wrong_attributes(attributes, words, tmp_path):
    refused(capture(tmp_path / "x.h5", attributes), *words)


def test_an_hdf5_file_of_another_kind(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = np.zeros(3)
    refused(tmp_path / "x.h5", "attribute schema: missing")


@pytest.mark.parametrize("layout", ["contiguous", "chunked", "compressed", "filled"])
def test_ten_declared_gigabytes_in_a_tiny_file(layout, tmp_path):
    settings = {
        "contiguous": {},
        "chunked": {"chunks": (1, 3, 6)},
        "compressed": {"chunks": (1, 3, 6), "compression": "gzip"},
        "filled": {"chunks": (1, 3, 6), "fillvalue": 1 + 1j},
    }[layout]
    path = capture(tmp_path / "x.h5", y=None, truth_h=None)
    with h5py.File(path, "a") as file:
        y = file.create_dataset("y", shape=(70_000_000, 3, 6), dtype=np.complex64, **settings)
        y.attrs["axes"] = AXES["y"]
    assert path.stat().st_size < 20_000
    for settings in ({}, {"max_bytes": 1e12}, {"start": 0, "count": 1}):
        refused(path, "y: declares 10.08 GB", "the file holds 0 bytes", **settings)


def test_a_compressed_dataset_beyond_the_limit_is_not_unpacked(tmp_path):
    path = capture(tmp_path / "x.h5", y=None, truth_h=None)
    with h5py.File(path, "a") as file:
        y = file.create_dataset("y", data=np.ones((4000, 3, 6), np.complex64), compression="gzip")
        y.attrs["axes"] = AXES["y"]
    refused(path, "y: declares 576 kB, more than the limit of 100 kB", max_bytes=100_000)
    assert read(path, max_bytes=1e6).obs.y.shape == (4000, 3, 6)


def test_a_chunk_that_was_never_written_is_not_invented(tmp_path):
    path = capture(tmp_path / "x.h5", y=None, truth_h=None)
    with h5py.File(path, "a") as file:
        y = file.create_dataset("y", (5, 3, 6), np.complex64, chunks=(1, 3, 6), compression="gzip")
        y[:4] = Y[:4]
        y.attrs["axes"] = AXES["y"]
    refused(path, "y: declares")


def test_values_in_other_files_are_refused(tmp_path):
    secret = capture(tmp_path / "secret.h5")
    path = capture(tmp_path / "x.h5", y=None)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(Y.tobytes())
    virtual = h5py.VirtualLayout(shape=Y.shape, dtype=Y.dtype)
    virtual[:] = h5py.VirtualSource(str(secret), "y", shape=Y.shape)
    makers = {
        "ExternalLink": lambda file: file.__setitem__("y", h5py.ExternalLink(str(secret), "/y")),
        "SoftLink": lambda file: file.__setitem__("y", h5py.SoftLink("/pilots")),
        "another file, expected": lambda file: file.create_virtual_dataset("y", virtual),
        "in another file": lambda file: file.create_dataset(
            "y", Y.shape, Y.dtype, external=[(str(raw), 0, h5py.h5f.UNLIMITED)]
        ),
    }
    for words, make in makers.items():
        with h5py.File(path, "a") as file:
            make(file)
        refused(path, "y: ", words)
        with h5py.File(path, "a") as file:
            del file["y"]


def test_a_linked_group_is_refused(tmp_path):
    secret = capture(tmp_path / "secret.h5")
    path = capture(tmp_path / "x.h5", truth_h=None)
    with h5py.File(path, "a") as file:
        file["truth"] = h5py.ExternalLink(str(secret), "/truth")
    refused(path, "truth: is a ExternalLink")


def test_a_circle_of_groups_ends(tmp_path):
    path = capture(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        group = file.create_group("operator")
        group.attrs["class"] = "Adjoint"
        group["op"] = group
    refused(path, "nested more than")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"class": "os.system"}, ("operator: class 'os.system' is unknown", "Kron")),
        ({}, ("operator: class None is unknown",)),
        ({"class": "Identity", "shape": [3, 7]}, ("operator: gives (3, 7) per snapshot, y holds (3, 6)",)),
        ({"class": "Identity"}, ("operator: does not make a Identity",)),
        ({"class": "Identity", "shape": "abc"}, ("operator",)),
        ({"class": "Fourier", "size": -4}, ("operator: does not make a Fourier",)),
        ({"class": "Kron", "left": 3, "right": 4}, ("operator: does not make a Kron",)),
        ({"class": "Identity", "shape": [3, 6], "axes": "one"}, ("axes: expected 2 names",)),
    ],
)
def test_wrong_operator_trees(attributes, words, tmp_path):
    path = capture(tmp_path / "x.h5", pilots=None, truth_h=None)
    with h5py.File(path, "a") as file:
        file.create_group("operator").attrs.update(attributes)
    refused(path, *words)


@pytest.mark.parametrize(
    ("index", "size", "words"),
    [
        ([0, 1, 2, 3, 4, 9], 8, "Select"),
        ([0, 1, 1, 3, 4, 5], 8, "repeats"),
        ([0, 1, 2], 8, "selection: lists (3,) subcarriers, y has 6"),
        ([0.5, 1, 2, 3, 4, 5], 8, "selection: expected integers"),
        ([0, 1, 2, 3, 4, 5], None, "selection: expected the attribute size"),
    ],
)
def test_wrong_selections(index, size, words, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["schema"] = "hhat.capture/1"
        file.create_dataset("y", data=Y).attrs["axes"] = "batch rx_ant subcarrier"
        selection = file.create_dataset("selection", data=np.array(index))
        if size is not None:
            selection.attrs["size"] = size
    refused(tmp_path / "x.h5", words)


@pytest.mark.parametrize(("start", "count"), [(5, None), (0, 0), (-1, 2), (2, -1)])
def test_rows_that_are_not_there(start, count, tmp_path):
    refused(capture(tmp_path / "x.h5"), "y: 0 snapshots: asked for", "the file holds 5", start=start, count=count)


def test_slots_are_asked_of_a_file_without(tmp_path):
    refused(capture(tmp_path / "x.h5"), "expected slot", reader=lambda path: list(read_slots(path)))


def test_a_pickled_npz(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, y=Y, pilots=np.array([{"code": "os.system"}], dtype=object))
    refused(path, "pilots: holds pickled objects", "nothing is unpickled")


def test_a_pickle_that_calls_itself_npz(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07os.name\x94.")
    refused(path, "not a known format")


def test_an_npz_that_declares_more_than_it_holds(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<c8", "fortran_order": False, "shape": (70_000_000, 3, 6)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("y.npy", header.getvalue() + b"\x00" * 100)
    refused(tmp_path / "x.npz", "y: declares 10.08 GB, more than the limit of 8 GB")
    refused(tmp_path / "x.npz", "y: declares 10.08 GB, the archive holds 100 bytes", max_bytes=1e12)


def test_an_npz_bomb_is_not_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", y=np.zeros((5000, 3, 6), np.complex64), pilots=X)
    assert (tmp_path / "x.npz").stat().st_size < 5000
    refused(tmp_path / "x.npz", "y: declares 720 kB, more than the limit of 100 kB", max_bytes=100_000)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"pilots": X}, "y: missing"),
        ({"y": Y.real, "pilots": X}, "y: expected complex numbers, got float"),
        ({"y": Y[:, :, :5], "pilots": X}, "pilots"),
        ({"y": spoiled(Y, (0, 0, 0), np.nan), "pilots": X}, "y: 1 of 90"),
        ({"y": Y}, "y: no axes given"),
        ({"y": Y, "pilots": X, "noise_var": -1.0}, "noise_var: 1 of 1 values are negative"),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "mat"])
def test_wrong_variables(suffix, variables, words, tmp_path):
    path = tmp_path / f"x.{suffix}"
    np.savez(path, **variables) if suffix == "npz" else scipy.io.savemat(path, variables)
    refused(path, words)


@pytest.mark.parametrize("odd", [{"a": 1.0}, np.array([[1], "x"], dtype=object), "text"])
def test_odd_matlab_content(odd, tmp_path):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"y": odd, "pilots": X})
    refused(path, "y: ")


def test_matlab_file_with_nothing_of_use(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"a": 3.0, "b": "text", "c": {"d": 1.0}})
    refused(tmp_path / "x.mat", "y: missing")


def test_a_truncated_matlab_file(tmp_path):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"y": Y, "pilots": X}, do_compression=True)
    path.write_bytes(path.read_bytes()[:400])
    refused(path, "MATLAB")


def test_a_matlab_matrix_beyond_the_limit(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"y": Y, "pilots": X})
    refused(tmp_path / "x.mat", "y: declares 720 bytes, more than the limit of 500 bytes", max_bytes=500)


def test_one_row_of_matlab_pilots_must_say_what_it_is(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"y": Y, "pilots": np.ones((1, 6)) + 0j})
    refused(tmp_path / "x.mat", "pilots: 1 x 6 may be", "y_axes")
