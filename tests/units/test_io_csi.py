"""Wi-Fi channel-state logs, against a decoder written from the cards' published bit layout."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hhat.io import InputError, batches, csi, read, write

pytest.importorskip("csiread", reason="the extra [captures] is not installed")
ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("HHAT_DATA", ROOT / "../shared/data")) / "csi"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no captured data in {FOLDER} (set HHAT_DATA)")


def intel_record(channel, wide=False, permutation=(0, 1, 2)):
    """One channel-state record of the Linux 802.11n CSI Tool; channel (30, rx, tx) of int8 pairs in RF-chain order."""
    rx, tx = channel.shape[1:]
    bits = ""
    for tone in channel:
        bits = "000" + bits
        for value in tone.reshape(-1):
            for part in (int(value.real), int(value.imag)):
                bits = format(part & 0xFF, "08b") + bits
    payload = int(bits, 2).to_bytes((len(bits) + 7) // 8, "little")
    head = bytes(8) + bytes([rx, tx, 40, 41, 42, 171, 30])
    head += bytes([sum(antenna << 2 * chain for chain, antenna in enumerate(permutation))])
    head += len(payload).to_bytes(2, "little") + (0x0800 * wide + 0x100).to_bytes(2, "little")
    body = b"\xbb" + head + payload
    return len(body).to_bytes(2, "big") + body


def atheros_record(channel, order="little", frame=b""):
    """One record of the Atheros CSI Tool; channel (tones, rx, tx) of 10-bit pairs, imaginary part first."""
    tones, rx, tx = channel.shape
    bits = ""
    for tone in channel:
        for column in tone.T:
            for value in column:
                for part in (int(value.imag), int(value.real)):
                    bits = format(part & 0x3FF, "010b") + bits
    payload = int(bits, 2).to_bytes((len(bits) + 7) // 8, "little")
    head = bytes(8) + len(payload).to_bytes(2, order) + (2437).to_bytes(2, order)
    head += bytes([0, 0, 0x8F, int(tones == 114), tones, rx, tx, 50, 40, 41, 42]) + len(frame).to_bytes(2, order)
    body = head + payload + frame
    return len(body).to_bytes(2, order) + body


def draw(low, high, *shape):
    rng = np.random.default_rng(len(shape) + shape[0])
    return rng.integers(low, high, shape) + 1j * rng.integers(low, high, shape)


@pytest.mark.parametrize("tx", [1, 2, 3])
@pytest.mark.parametrize("wide", [False, True])
def test_intel_bits(tx, wide, tmp_path):
    channel = draw(-128, 128, 4, 30, 3, tx)
    (tmp_path / "x.dat").write_bytes(b"".join(intel_record(c, wide) for c in channel))
    slot = read(tmp_path / "x.dat")
    assert slot.obs.axes == ("rx_ant", "tx_ant", "subcarrier") and slot.truth is None
    assert np.array_equal(slot.obs.y.numpy(), channel.transpose(0, 2, 3, 1).astype(np.complex64))
    assert slot.about.subcarriers is not None
    assert (slot.about.subcarriers[0], slot.about.subcarriers[-1]) == ((-58, 58) if wide else (-28, 28))
    assert slot.obs.noise_var is None


def test_intel_antennas_are_put_in_order(tmp_path):
    channel = draw(-128, 128, 30, 3, 2)
    (tmp_path / "x.dat").write_bytes(intel_record(channel, permutation=(1, 2, 0)))
    y = read(tmp_path / "x.dat").obs.y[0].numpy()
    for chain, antenna in enumerate((1, 2, 0)):
        assert np.array_equal(y[antenna], channel[:, chain].T)


@pytest.mark.parametrize("permutation", [(0, 0, 1), (3, 1, 0)])
def test_impossible_permutations_are_left_out(permutation, tmp_path):
    good, bad = intel_record(draw(-9, 9, 30, 3, 2)), intel_record(draw(-9, 9, 30, 3, 2), permutation=permutation)
    (tmp_path / "x.dat").write_bytes(good + bad)
    assert read(tmp_path / "x.dat").obs.y.shape == (1, 3, 2, 30)
    (tmp_path / "x.dat").write_bytes(bad)
    with pytest.raises(InputError, match="none of the 1 channel-state records has sensible sizes"):
        read(tmp_path / "x.dat")


def test_long_frames_do_no_harm(tmp_path):
    # longer than the buffers of the package that unpacks the bits
    channel = draw(-128, 128, 30, 3, 2)
    frame = b"\xc1" + bytes(60000)
    (tmp_path / "x.dat").write_bytes((len(frame).to_bytes(2, "big") + frame + intel_record(channel)) * 2)
    assert np.array_equal(read(tmp_path / "x.dat").obs.y[1].numpy(), channel.transpose(1, 2, 0).astype(np.complex64))
    channel = draw(-512, 512, 56, 1, 1)
    (tmp_path / "x.dat").write_bytes(atheros_record(channel, frame=bytes(60000)) * 3)
    assert np.array_equal(read(tmp_path / "x.dat").obs.y[2].numpy(), channel.transpose(1, 2, 0).astype(np.complex64))


def test_many_short_records(tmp_path):
    channel = draw(-512, 512, 50, 56, 1, 1)
    (tmp_path / "x.dat").write_bytes(b"".join(atheros_record(c) for c in channel))
    assert np.array_equal(read(tmp_path / "x.dat").obs.y.numpy(), channel.transpose(0, 2, 3, 1).astype(np.complex64))


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("tones", [56, 114])
def test_atheros_bits(order, tones, tmp_path):
    channel = draw(-512, 512, 3, tones, 3, 2)
    (tmp_path / "x.dat").write_bytes(b"".join(atheros_record(c, order) for c in channel))
    slot = read(tmp_path / "x.dat")
    assert np.array_equal(slot.obs.y.numpy(), channel.transpose(0, 2, 3, 1).astype(np.complex64))
    assert slot.about.constants == {"subcarrier_spacing_hz": 312500.0, "carrier_hz": 2437e6}


def test_packets_of_other_sizes_are_left_out_and_said(tmp_path):
    records = [intel_record(c) for c in draw(-9, 9, 5, 30, 3, 2)]
    records.insert(2, intel_record(draw(-9, 9, 30, 2, 1)))
    (tmp_path / "x.dat").write_bytes(b"".join(records))
    slot = read(tmp_path / "x.dat")
    assert slot.obs.y.shape == (5, 3, 2, 30)
    assert "1 packets of other sizes left out" in slot.about.source


def test_a_cut_off_last_record_is_left_out(tmp_path):
    data = b"".join(intel_record(c) for c in draw(-9, 9, 4, 30, 3, 2))
    (tmp_path / "x.dat").write_bytes(data[:-7])
    assert len(read(tmp_path / "x.dat").obs.y) == 3


def test_a_broken_record_is_named(tmp_path):
    record = intel_record(draw(-9, 9, 30, 3, 2))
    (tmp_path / "x.dat").write_bytes(record + b"\x00\x09\xaa" + bytes(20))
    with pytest.raises(InputError, match=rf"the record at byte {len(record)} is broken \(1 good ones before it\)"):
        read(tmp_path / "x.dat")


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "x.dat").write_bytes(intel_record(draw(-9, 9, 30, 3, 2)))
    monkeypatch.setitem(sys.modules, "csiread", None)
    with pytest.raises(InputError, match=r"pip install 'hhat\[captures\]'"):
        read(tmp_path / "x.dat")


@pytest.mark.parametrize(("tones", "bandwidth", "grouping"), [(30, 20, 2), (30, 40, 4), (56, 20, 1), (114, 40, 1)])
def test_subcarriers_are_those_of_the_standard(tones, bandwidth, grouping):
    import csiread

    assert np.array_equal(csi.subcarriers(tones, bandwidth), csiread.scidx(bandwidth, grouping))


@needs_data
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("sample_0x5_64_3000.dat", (2998, 3, 1, 30)),
        ("sample_0x1_ap.dat", (540, 3, 2, 30)),
        ("ath_csi_1.dat", (401, 3, 2, 56)),
    ],
)
def test_recorded_logs(name, shape, tmp_path):
    slot = read(FOLDER / name)
    assert slot.obs.y.shape == shape
    # a real channel is smooth over neighbouring tones, wrongly unpacked bits are not
    y = slot.obs.y
    close = (y[..., 1:] * y[..., :-1].conj()).sum(-1).abs() / y.abs().square().sum(-1)
    assert close.median() > 0.8
    if name.startswith("ath"):
        # the card's own level per receive antenna: the second is the strongest by far
        assert int(y.abs().square().mean((0, 2, 3)).argmax()) == 1
    assert torch.equal(next(batches(FOLDER / name, 10)).obs.y, y[:10])
    write(tmp_path / "x.h5", slot)
    assert torch.equal(read(tmp_path / "x.h5", start=100, count=5).obs.y, y[100:105])
