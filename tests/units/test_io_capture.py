"""Capture files: what is written comes back, as factors and never as one matrix, whole or in pieces."""

import os
import stat

import h5py
import numpy as np
import pytest
import torch

from hhat import registry
from hhat.io import InputError, batches, read, read_slots, repeats, write, write_slots
from hhat.ops import Adjoint, BlockDiag, Compose, Dense, Diagonal, Fourier, Identity, Kron, Select, Stack, Steering
from hhat.ops.base import walk
from hhat.random import complex_normal, generator
from hhat.types import About, Channel, Observation, Slot


def same(op, other):
    """Equal structure and, to the bit, equal tensors and sizes."""
    mine, theirs = walk(op), walk(other)
    assert [type(part) for part in mine] == [type(part) for part in theirs]
    for part, match in zip(mine, theirs, strict=True):
        assert (part.in_shape, part.out_shape, part.batch_shape) == (match.in_shape, match.out_shape, match.batch_shape)
        assert list(part.tensors) == list(match.tensors)
        assert all(torch.equal(tensor, match.tensors[name]) for name, tensor in part.tensors.items())
        assert all(tensor.dtype == match.tensors[name].dtype for name, tensor in part.tensors.items())
    return True


def text(item, name):
    return item.attrs[name].decode()


def slot_with(op, gen, batch=None, axes=None, **about):
    h = complex_normal((*(op.batch_shape if batch is None else batch), *op.in_shape), gen)
    return Slot(Channel(h), Observation(op.apply(h), op, 0.1, axes), About(**about))


def nested(gen):
    """Operators inside operators, some with batch axes, some without."""
    dense = Dense(complex_normal((4, 3, 5), gen))
    return {
        "kron of fourier and batched dense": Kron(Fourier(6), dense),
        "kron three deep": Kron(
            Identity((2,)), Kron(Dense(complex_normal((3, 2), gen)), Select(torch.tensor([1, 3]), 4))
        ),
        "blocks with a batch axis": BlockDiag(Dense(complex_normal((2, 3, 4, 5), gen))),
        "blocks of compositions": BlockDiag(
            Compose(Diagonal(complex_normal((3, 4), gen)), Dense(complex_normal((4, 5), gen)))
        ),
        "adjoint": Adjoint(Stack((Fourier(4), Dense(complex_normal((2, 4), gen))))),
        "double precision": Compose(Fourier(4), Diagonal(complex_normal((4,), gen, torch.complex128))),
        "reshaping matrix": Dense(complex_normal((6, 4), gen), in_shape=(2, 2), out_shape=(3, 2)),
        "unitary flag": Dense(torch.eye(3, dtype=torch.complex64), unitary=True),
    }


def cases():
    gen = generator("io", "cases")
    found = {name: registry.load("operators", name).example(gen) for name in registry.OPERATORS}
    return found | nested(gen)


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_every_operator_comes_back_exactly(name, tmp_path):
    op = CASES[name]
    slot = slot_with(op, generator("io", name))
    write(tmp_path / "x.h5", slot)
    back = read(tmp_path / "x.h5")
    assert same(back.obs.op, op)
    assert torch.equal(back.obs.op.dense(), op.dense())
    assert back.obs.op.dense().dtype == op.dense().dtype
    assert torch.equal(back.obs.y, slot.obs.y)
    assert torch.equal(back.truth.h, slot.truth.h)
    assert back.obs.op.is_unitary == op.is_unitary


@pytest.mark.parametrize("name", CASES)
def test_no_operator_is_stored_as_a_matrix_of_its_own_making(name, tmp_path):
    op = CASES[name]
    write(tmp_path / "x.h5", slot_with(op, generator("io", name)))
    stored = 0
    with h5py.File(tmp_path / "x.h5") as file:
        if "operator" in file:
            names = []
            file["operator"].visit(names.append)
            stored = sum(file["operator"][n].size for n in names if isinstance(file["operator"][n], h5py.Dataset))
    given = [t for part in walk(op) for key, t in part.tensors.items() if (type(part), key) != (Steering, "matrix")]
    assert stored <= sum(t.numel() for t in given)


@pytest.mark.parametrize("name", [name for name, op in CASES.items() if op.batch_shape])
def test_rows_of_batched_operators_are_the_rows_in_memory(name, tmp_path):
    op = CASES[name]
    gen = generator("io", "rows", name)
    slot = slot_with(op, gen)
    write(tmp_path / "x.h5", slot)
    pieces = list(batches(tmp_path / "x.h5", 1))
    assert len(pieces) == op.batch_shape[0]
    for index, piece in enumerate(pieces):
        assert torch.equal(piece.obs.op.dense()[0], op.dense()[index])
        assert torch.allclose(piece.obs.op.apply(piece.truth.h), piece.obs.y, atol=1e-6)
        assert torch.equal(piece.obs.y[0], slot.obs.y[index])


def test_blocks_are_no_batch_axis(tmp_path):
    # 3 blocks and 3 snapshots: only the snapshots may be cut
    op = BlockDiag(Dense(complex_normal((3, 2, 4), generator("io", "blocks"))))
    slot = slot_with(op, generator("io", "b"), batch=(3,))
    write(tmp_path / "x.h5", slot)
    piece = read(tmp_path / "x.h5", start=1, count=1)
    assert torch.equal(piece.obs.op.dense(), op.dense())
    assert torch.equal(piece.obs.y, slot.obs.y[1:2])


def named_cases():
    gen = generator("io", "named")
    pilots = complex_normal((4, 6), gen)
    tones = complex_normal((7,), gen)
    index = torch.tensor([8, 0, 3, 4, 5, 6, 9])
    ant, sub = ("rx_ant", "tx_ant"), ("rx_ant", "subcarrier")
    matrix = Dense(pilots.mT.contiguous())
    return {
        "pilots": (Kron(Identity((3,)), matrix), ant, {"pilots": ("tx_ant", "pilot")}),
        "pilots per snapshot": (
            Kron(Identity((3,)), Dense(complex_normal((5, 6, 4), gen))),
            ant,
            {"pilots": ("batch", "tx_ant", "pilot")},
        ),
        "combiner": (
            Kron(complex_normal((2, 3), gen), matrix),
            ant,
            {"pilots": ("tx_ant", "pilot"), "combiner": ("beam", "rx_ant")},
        ),
        "tones": (Kron(Identity((3,)), Diagonal(tones)), sub, {"pilots": ("subcarrier",)}),
        "some tones": (
            Kron(Identity((3,)), Compose(Diagonal(tones), Select(index, 10))),
            sub,
            {"pilots": ("subcarrier",), "selection": ("subcarrier",)},
        ),
        "comb without pilots": (Kron(Identity((3,)), Select(index, 10)), sub, {"selection": ("subcarrier",)}),
        "one antenna": (Diagonal(tones), ("subcarrier",), {"pilots": ("subcarrier",)}),
    }


@pytest.mark.parametrize("name", named_cases())
def test_usual_operators_have_the_radio_engineers_names(name, tmp_path):
    op, axes, wanted = named_cases()[name]
    slot = slot_with(op, generator("io", name), batch=(5,), axes=axes)
    write(tmp_path / "x.h5", slot)
    with h5py.File(tmp_path / "x.h5") as file:
        assert "operator" not in file
        assert {n: tuple(text(file[n], "axes").split()) for n in wanted} == wanted
        assert text(file["y"], "axes").split()[0] == "batch"
    back = read(tmp_path / "x.h5")
    assert back.obs.axes == axes
    assert same(back.obs.op, op)
    assert torch.equal(back.obs.op.apply(slot.truth.h), slot.obs.y)


def test_pilots_mean_y_is_h_times_x(tmp_path):
    # written by hand, not by this library: Y = W H X
    rng = np.random.default_rng(0)
    h, x, w = (rng.normal(size=s) + 1j * rng.normal(size=s) for s in ((9, 3, 4), (4, 6), (2, 3)))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["schema"] = "hhat.capture/1"
        for name, value, axes in (
            ("y", w @ h @ x, "batch beam pilot"),
            ("pilots", x, "tx_ant pilot"),
            ("combiner", w, "beam rx_ant"),
        ):
            file.create_dataset(name, data=value).attrs["axes"] = axes
    slot = read(tmp_path / "x.h5")
    assert slot.truth is None and slot.obs.noise_var is None and slot.obs.axes == ("rx_ant", "tx_ant")
    assert torch.allclose(slot.obs.op.apply(torch.from_numpy(h)), slot.obs.y)


def test_selection_and_tones_written_by_hand(tmp_path):
    rng = np.random.default_rng(1)
    h = rng.normal(size=(2, 3, 8)) + 1j * rng.normal(size=(2, 3, 8))
    p, index = np.exp(1j * np.arange(4)), np.array([1, 3, 5, 6])
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["schema"] = "hhat.capture/1"
        file.create_dataset("y", data=h[:, :, index] * p).attrs["axes"] = "batch rx_ant subcarrier"
        file.create_dataset("pilots", data=p).attrs["axes"] = "subcarrier"
        file.create_dataset("selection", data=index).attrs["size"] = 8
    slot = read(tmp_path / "x.h5")
    assert torch.allclose(slot.obs.op.apply(torch.from_numpy(h)), slot.obs.y)


ABOUT = {
    "kind": "srs",
    "snr_definition": "per antenna",
    "normalisation": "E|h|^2 = 1",
    "source": "unit test",
    "geometry": {"rx_ant": [[0.0, 0.0, 0.0], [0.5, 0.0, 0.1], [1.0, 0.0, 0.2]]},
    "constants": {"carrier_hz": 3.5e9, "subcarrier_spacing_hz": 30e3},
    "subcarriers": (-3, -1, 1, 3, 5, 7, 9),
}


def test_about_comes_back_equal(tmp_path):
    op = Kron(Identity((3,)), Diagonal(torch.ones(7, dtype=torch.complex64)))
    slot = slot_with(op, generator("io", "about"), batch=(2,), axes=("rx_ant", "subcarrier"), **ABOUT)
    write(tmp_path / "x.h5", slot)
    assert read(tmp_path / "x.h5").about == slot.about


def test_positions_of_four_thousand_elements_fit(tmp_path):
    positions = [[0.5 * i, 0.0, 0.0] for i in range(4096)]
    op = Identity((4096,))
    slot = slot_with(op, generator("io", "xl"), axes=("rx_ant",), geometry={"rx_ant": positions})
    write(tmp_path / "x.h5", slot)
    assert read(tmp_path / "x.h5").about.geometry == {"rx_ant": positions}


@pytest.mark.parametrize("shape", [(), (5, 1, 1), (3, 6), (5, 3, 6), (1, 6), (6,)])
def test_noise_variance_keeps_its_shape_and_follows_the_rows(shape, tmp_path):
    gen = generator("io", "noise")
    slot = slot_with(
        Kron(Identity((3,)), Dense(complex_normal((6, 4), gen))), gen, batch=(5,), axes=("rx_ant", "tx_ant")
    )
    noise = torch.rand(shape, generator=gen)
    write(tmp_path / "x.h5", Slot(None, Observation(slot.obs.y, slot.obs.op, noise, slot.obs.axes)))
    assert torch.equal(read(tmp_path / "x.h5").obs.noise_var, noise)
    part = read(tmp_path / "x.h5", start=2, count=2).obs
    assert torch.equal(part.noise_var.expand(part.y.shape), noise.expand(slot.obs.y.shape)[2:4])


def test_noise_variance_per_snapshot_by_its_axis_name(tmp_path):
    noise = np.arange(1.0, 6.0)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["schema"] = "hhat.capture/1"
        file.create_dataset("y", data=np.ones((5, 2, 5), complex)).attrs["axes"] = "batch rx_ant subcarrier"
        file.create_dataset("noise_var", data=noise).attrs["axes"] = "batch"
    assert read(tmp_path / "x.h5").obs.noise_var.flatten().tolist() == noise.tolist()
    assert read(tmp_path / "x.h5").obs.noise_var.shape == (5, 1, 1)


def test_batches_join_to_the_whole(tmp_path):
    gen = generator("io", "batches")
    slot = slot_with(Kron(Identity((3,)), Dense(complex_normal((7, 6, 4), gen))), gen, axes=("rx_ant", "tx_ant"))
    write(tmp_path / "x.h5", slot)
    parts = list(batches(tmp_path / "x.h5", 3))
    assert [len(part.obs.y) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.obs.y for part in parts]), slot.obs.y)
    assert torch.equal(torch.cat([part.truth.h for part in parts]), slot.truth.h)
    assert torch.equal(torch.cat([part.obs.op.dense() for part in parts]), slot.obs.op.dense())


def test_a_file_above_the_limit_is_read_in_batches(tmp_path):
    slot = slot_with(
        Kron(Identity((4,)), Diagonal(torch.ones(8, dtype=torch.complex64))),
        generator("io"),
        (100,),
        ("rx_ant", "subcarrier"),
    )
    write(tmp_path / "x.h5", slot)
    with pytest.raises(InputError, match=r"y: declares 25.6 kB, more than the limit of 5 kB"):
        read(tmp_path / "x.h5", max_bytes=5e3)
    parts = list(batches(tmp_path / "x.h5", 10, max_bytes=5e3))
    assert torch.equal(torch.cat([part.obs.y for part in parts]), slot.obs.y)


def test_slots_with_changing_hops_share_what_does_not_change(tmp_path):
    gen = generator("io", "slots")
    hops = [torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])]
    slots = [
        slot_with(
            Kron(Identity((2,)), Compose(Diagonal(torch.ones(3, dtype=torch.complex64)), Select(hop, 6))),
            gen,
            (4,),
            ("rx_ant", "subcarrier"),
        )
        for hop in hops
    ]
    write_slots(tmp_path / "x.h5", slots)
    with h5py.File(tmp_path / "x.h5") as file:
        assert text(file, "kind") == "slots"
        assert text(file["y"], "axes") == "slot batch rx_ant subcarrier"
        assert file["selection"].shape == (2, 3) and file["pilots"].shape == (3,)
    for back, slot in zip(read_slots(tmp_path / "x.h5"), slots, strict=True):
        assert torch.equal(back.obs.y, slot.obs.y) and torch.equal(back.truth.h, slot.truth.h)
        assert same(back.obs.op, slot.obs.op)


def test_slots_read_whole_have_a_slot_axis_in_front(tmp_path):
    gen = generator("io", "slots whole")
    slots = [
        slot_with(Kron(Identity((2,)), Dense(complex_normal((3, 4), gen))), gen, (5,), ("rx_ant", "tx_ant"))
        for _ in range(3)
    ]
    write_slots(tmp_path / "x.h5", slots)
    whole = read(tmp_path / "x.h5")
    assert whole.obs.y.shape == (3, 5, 2, 3)
    assert torch.equal(whole.obs.op.apply(whole.truth.h), torch.stack([slot.obs.y for slot in slots]))


def test_slots_of_different_structure_are_refused(tmp_path):
    gen = generator("io", "unlike")
    one, other = slot_with(Fourier(4), gen), slot_with(Identity((4,)), gen)
    with pytest.raises(ValueError, match="one structure"):
        write_slots(tmp_path / "x.h5", [one, other])
    assert not os.listdir(tmp_path)


def test_a_repeat_gives_a_pair_its_average_and_the_noise(tmp_path):
    gen = generator("io", "repeat")
    op = Kron(Identity((8,)), Diagonal(torch.ones(50, dtype=torch.complex64)))
    h = complex_normal((2, 8, 50), gen)
    sent = op.apply(h)
    first, second = (sent + complex_normal(sent.shape, gen, var=0.01) for _ in range(2))
    phase = torch.polar(torch.ones(2), torch.tensor([0.7, -2.0]))[:, None, None]
    write(tmp_path / "x.h5", Slot(None, Observation(first, op, None, ("rx_ant", "subcarrier"))), repeat=second * phase)
    pair = repeats(tmp_path / "x.h5")
    assert pair is not None
    # removing the phase costs one of the 800 real numbers a user has; 5 standard deviations of its estimate
    assert (pair[1].obs.y - second).abs().square().mean() < 25 * 0.01 / 800
    assert torch.allclose(pair[0].obs.noise_var, torch.tensor(0.01), rtol=0.2)
    slot = read(tmp_path / "x.h5")
    assert torch.allclose(slot.obs.y, (pair[0].obs.y + pair[1].obs.y) / 2)
    assert torch.allclose(slot.obs.noise_var * 2, pair[0].obs.noise_var)
    assert "estimated from the difference" in slot.about.snr_definition


def test_a_given_noise_variance_is_that_of_one_reception(tmp_path):
    op = Identity((4,))
    y = complex_normal((3, 4), generator("io", "given"))
    write(tmp_path / "x.h5", Slot(None, Observation(y, op, 0.5, ("subcarrier",))), repeat=y)
    assert float(read(tmp_path / "x.h5").obs.noise_var) == 0.25
    assert "estimated" not in read(tmp_path / "x.h5").about.snr_definition


def test_a_file_without_repeats_has_none(tmp_path):
    write(tmp_path / "x.h5", slot_with(Identity((4,)), generator("io"), (2,)))
    assert repeats(tmp_path / "x.h5") is None


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "x.h5"
    write(target, slot_with(Identity((4,)), generator("io"), (2,)))
    before = target.read_bytes()

    def full(*_args, **_settings):
        raise OSError("No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    with pytest.raises(InputError, match="No space left"):
        write(target, slot_with(Fourier(4), generator("io"), (3,)))
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.h5"]


def test_writing_replaces_a_file_and_keeps_its_mode(tmp_path):
    target = tmp_path / "x.h5"
    write(target, slot_with(Identity((4,)), generator("io"), (2,)))
    os.chmod(target, 0o640)
    write(target, slot_with(Identity((5,)), generator("io"), (2,)))
    assert read(target).obs.y.shape == (2, 5)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.parametrize("where", ["x.csv", "missing/x.h5", "folder.h5"])
def test_places_that_cannot_be_written(where, tmp_path):
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(InputError):
        write(tmp_path / where, slot_with(Identity((4,)), generator("io"), (2,)))
    assert os.listdir(tmp_path) == ["folder.h5"]


def test_a_truth_of_several_fields_comes_back_by_name(tmp_path):
    from typing import NamedTuple

    class Truth(NamedTuple):
        h: torch.Tensor
        delays_s: torch.Tensor
        active: float

    h = complex_normal((3, 4), generator("io", "truth"))
    truth = Truth(h, torch.rand(3, 2, generator=generator("io")), 0.25)
    write(tmp_path / "x.h5", Slot(truth, Observation(h, Identity((4,)))))
    back = read(tmp_path / "x.h5", start=1, count=1).truth
    assert torch.equal(back.h, h[1:2]) and torch.equal(back.delays_s, truth.delays_s[1:2])
    assert float(back.active) == 0.25
