"""Wi-Fi channel-state logs: Intel 5300 (Linux 802.11n CSI Tool) and Atheros (Atheros CSI Tool), through `csiread`.

The card reports the channel itself, so the operator is the identity and y is the noisy channel:

    y (packet, rx_ant, tx_ant, subcarrier)

always with both antenna axes. What the card did stays in: automatic gain, random phase and timing of each packet.
Packets with other antennas or tones than most are left out and counted in `source`.

`csiread` 1.4 trusts lengths in the file (a long frame overruns its buffer), so the records are checked here first
and it is given a clean copy of the channel-state records alone.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from hhat.io.arrays import contents_of
from hhat.io.errors import InputError, PathType, foreign_reader
from hhat.io.fields import MAX_BYTES, Contents, check_size

SUBCARRIER_SPACING_HZ = 312.5e3
LONGEST_RECORD = 1 << 17
"""Bytes that surely hold a first whole record: lengths have 16 bits, and a frame may come before the channel."""
MOST_ANTENNAS = 3

INTEL_CHANNEL, INTEL_FRAME = 0xBB, 0xC1
"""Record codes of the Intel tool: channel state, and the received frame."""
INTEL_TONES = 30
INTEL_HEADER = 21
"""Bytes of a channel-state record before the channel itself, record code included."""
INTEL_40_MHZ = 0x800
"""Bit of the rate word that marks a 40 MHz packet."""

ATHEROS_HEADER = 25
ATHEROS_TONES = (56, 114)

ByteOrder = Literal["big", "little"]


class Packet(NamedTuple):
    """What the header of a channel-state record says of its sizes."""

    antennas: tuple[int, ...]
    """Receive antennas that the tones belong to"""
    tx: int
    tones: int
    bandwidth: int
    """in MHz"""


class Log(NamedTuple):
    """The channel-state records of a log, before any bits are unpacked."""

    form: str
    byte_order: ByteOrder
    records: list[tuple[Packet | None, bytes]]
    """Sizes (None: the header contradicts itself) and the record without frame, its length in front"""
    broken_at: int | None = None
    """First byte of a record that makes no sense; a last record that is merely cut off is none"""


def scan(data: bytes) -> Log | None:
    """Walk the record headers; None where the bytes do not begin like a log."""
    logs = (_scan(data, "Intel 5300", "big"), _scan(data, "Atheros", "little"), _scan(data, "Atheros", "big"))
    return max((log for log in logs if log.records), key=lambda log: len(log.records), default=None)


@contextmanager
def opened(path: PathType, max_bytes: float | int = MAX_BYTES) -> Iterator[Contents]:
    """A log as contents. InputError where it is no log, or `csiread` is not installed."""
    check_size(path, "log", (Path(path).stat().st_size,), 1, max_bytes)
    log = scan(Path(path).read_bytes())
    if log is None:
        raise InputError(path, "no record of an Intel 5300 or Atheros log found")
    if log.broken_at is not None:
        raise InputError(path, f"the record at byte {log.broken_at} is broken ({len(log.records)} good ones before it)")
    counts = Counter(packet for packet, _ in log.records if packet is not None)
    if not counts:
        raise InputError(path, f"none of the {len(log.records)} channel-state records has sensible sizes")
    packet, kept = counts.most_common(1)[0]
    shape = (kept, len(packet.antennas), packet.tx, packet.tones)
    check_size(path, "y", shape, np.dtype(np.complex128).itemsize, max_bytes)
    records = [record for mine, record in log.records if mine == packet]
    channel, extra = _unpack(path, log, packet, records)
    dropped = len(log.records) - kept
    left_out = f"; {dropped} packets of other sizes left out" if dropped else ""
    variables = {
        "y": channel.astype(np.complex64).reshape(shape),
        "y_axes": np.asarray("packet rx_ant tx_ant subcarrier"),
        "subcarriers": subcarriers(packet.tones, packet.bandwidth),
        "subcarrier_spacing_hz": np.asarray(SUBCARRIER_SPACING_HZ),
        "snr_definition": np.asarray("not stated: noise unknown"),
        "normalisation": np.asarray("none: the card's integers; gain control and phase of each packet stay in"),
        "source": np.asarray(f"{log.form} log, {packet.bandwidth} MHz{left_out}"),
    }
    yield contents_of(path, "csi", variables | extra, max_bytes)


def subcarriers(tones: int, bandwidth: int) -> np.ndarray:
    """Signed indices of the reported tones (IEEE 802.11-2016 table 9-54): 30 (Intel), 56 or 114 (Atheros)."""
    if tones == INTEL_TONES and bandwidth == 20:  # grouped by 2, the last of each half is kept
        return np.r_[np.arange(-28, -1, 2), -1, np.arange(1, 28, 2), 28]
    if tones == INTEL_TONES:  # grouped by 4
        return np.r_[np.arange(-58, -1, 4), np.arange(2, 59, 4)]
    first = {56: 1, 114: 2}[tones]
    half = np.arange(first, first + tones // 2)
    return np.r_[-half[::-1], half]


def _unpack(path: PathType, log: Log, packet: Packet, records: list[bytes]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Channels (packet, rx, tx, tone) of equal records, and what else the log says of the radio."""
    csiread = _csiread(path)
    rx, tx = len(packet.antennas), packet.tx
    sizes = {"nrxnum": MOST_ANTENNAS, "ntxnum": tx, "if_report": False, "bufsize": len(records)}
    with tempfile.TemporaryDirectory() as folder, foreign_reader(path, f"reading the {log.form} log"):
        copy = Path(folder) / "log.dat"
        copy.write_bytes(b"".join(records))
        if log.form == "Intel 5300":
            reader = csiread.Intel(str(copy), **sizes)
            reader.read()
            return np.asarray(reader.csi)[:, :, packet.antennas].transpose(0, 2, 3, 1), {}
        reader = csiread.Atheros(str(copy), tones=packet.tones, **(sizes | {"nrxnum": rx}))
        reader.read(endian=log.byte_order)
        # the card sends, per tone, all receive antennas of the first transmit antenna, then of the second (as the
        # tool's own reader has it); csiread fills (rx, tx) in that order as if tx ran fastest
        stream = np.asarray(reader.csi).reshape(len(records), packet.tones, tx, rx)
        carrier_hz = float(np.asarray(reader.tx_channel)[0]) * 1e6
        return stream.transpose(0, 3, 2, 1), {"carrier_hz": np.asarray(carrier_hz)}


def _scan(data: bytes, form: str, byte_order: ByteOrder) -> Log:
    records: list[tuple[Packet | None, bytes]] = []
    record_of = _intel_record if form == "Intel 5300" else _atheros_record
    at = 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], byte_order)
        record = data[at + 2 : at + 2 + size]
        if size and len(record) < size:
            break
        try:
            records += record_of(record, byte_order)
        except ValueError:
            return Log(form, byte_order, records, at)
        at += 2 + size
    return Log(form, byte_order, records)


def _intel_record(record: bytes, byte_order: ByteOrder) -> list[tuple[Packet | None, bytes]]:
    """The channel-state record, nothing where it holds a frame; ValueError where it is no record."""
    if not record or record[0] not in (INTEL_CHANNEL, INTEL_FRAME):
        raise ValueError("code")
    if record[0] == INTEL_FRAME:
        return []
    if len(record) < INTEL_HEADER:
        raise ValueError("header")
    rx, tx = record[9], record[10]
    # 30 tones of 8 + 8 bits per antenna pair, 3 bits of padding each; the header repeats the length
    expected = (INTEL_TONES * (rx * tx * 16 + 3) + 7) // 8
    lengths = (int.from_bytes(record[17:19], "little"), len(record) - INTEL_HEADER)
    if not (1 <= rx <= MOST_ANTENNAS and 1 <= tx <= MOST_ANTENNAS) or lengths != (expected, expected):
        raise ValueError("sizes")
    wide = int.from_bytes(record[19:21], "little") & INTEL_40_MHZ
    antennas = tuple(sorted({record[16] >> shift & 3 for shift in (0, 2, 4)[:rx]}))
    good = len(antennas) == rx and antennas[-1] < MOST_ANTENNAS
    packet = Packet(antennas, tx, INTEL_TONES, 40 if wide else 20) if good else None
    return [(packet, len(record).to_bytes(2, byte_order) + record)]


def _atheros_record(record: bytes, byte_order: ByteOrder) -> list[tuple[Packet | None, bytes]]:
    """The record without its frame, nothing where it carries no channel; ValueError where it is no record."""
    if len(record) < ATHEROS_HEADER:
        raise ValueError("header")
    length, frame = (int.from_bytes(record[at : at + 2], byte_order) for at in (8, 23))
    if len(record) != ATHEROS_HEADER + length + frame:
        raise ValueError("length")
    if not length:
        return []
    wide, tones, rx, tx = record[15:19]
    # 10 + 10 bits per tone and antenna pair
    if length != (tones * rx * tx * 20 + 7) // 8 or not (1 <= rx <= MOST_ANTENNAS and 1 <= tx <= MOST_ANTENNAS):
        raise ValueError("sizes")
    packet = Packet(tuple(range(rx)), tx, tones, 40 if wide else 20) if tones in ATHEROS_TONES else None
    clean = record[:23] + bytes(2) + record[ATHEROS_HEADER : ATHEROS_HEADER + length]
    return [(packet, len(clean).to_bytes(2, byte_order) + clean)]


def _csiread(path: PathType) -> Any:
    try:
        import csiread
    except ImportError as error:
        problem = "is a Wi-Fi channel-state log, which needs the package csiread: pip install 'hhat[captures]'"
        raise InputError(path, problem) from error
    return csiread
