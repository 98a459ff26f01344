"""RENEW over-the-air uplink captures: users that send 802.11 long training symbols one after the other.

A file holds one matrix, antennas x samples. Each user sends a 32-sample prefix and the same 64-sample symbol twice;
nothing says where, so the symbols are found by correlation. Per user:

    Y = H diag(p) + N      H (rx_ant, subcarrier), p the +-1 training values on subcarriers -26..-1, 1..26

Both symbols are kept (y and y_repeat), so that one can predict the other.
"""

import numpy as np

from hhat.io.errors import InputError, PathType
from hhat.io.fields import ARRAYS

FFT_SIZE = 64
SAMPLE_RATE_HZ = 5e6
CARRIER_HZ = 3.55e9
"""Of the published captures; the files do not say."""

# IEEE 802.11-2020 equation (17-8), subcarriers -26..-1 then 1..26 (0 is not used)
_BELOW = [1, 1, -1, -1, 1, 1, -1, 1, -1, 1, 1, 1, 1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1, 1, 1, 1]
_ABOVE = [1, -1, -1, 1, 1, -1, 1, -1, 1, -1, -1, -1, -1, -1, 1, 1, -1, -1, 1, -1, 1, -1, 1, 1, 1, 1]
TRAINING = np.array([*_BELOW, *_ABOVE])
SUBCARRIERS = np.concatenate([np.arange(-26, 0), np.arange(1, 27)])

EARLY = 4
"""Samples by which both windows start before the correlation peak. The peak marks the strongest path; a window that
starts there runs past the symbol's end for every earlier path and takes in the next user's prefix (up to 11 dB lost).
Four samples are more than the echoes measured ahead of the peak and far less than the 32 samples of prefix."""

LEAST_MATCH = 0.2
"""A symbol pair is believed where at least this share of its energy is the training symbol (noise alone: 1/64 per
antenna; the published captures: 0.5 to 0.8 for the pairs, 0.1 elsewhere)."""

NEXT_PAIR = 96
"""Two pairs are at least this many samples apart: a half-matching prefix lies up to 64 + 32 samples off."""


def is_renew(variables: dict[str, np.ndarray]) -> bool:
    """One matrix of complex samples and nothing that has a name of the capture schema."""
    matrices = [v for v in variables.values() if v.ndim == 2 and min(v.shape) > 1]
    foreign = not any(name in ARRAYS or name.startswith("truth_") for name in variables)
    return foreign and len(matrices) == 1 and matrices[0].dtype.kind == "c"


def renew_variables(path: PathType, variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The samples as variables of the capture schema: y, y_repeat (user rx_ant subcarrier), pilots and attributes."""
    name, samples = next((k, v) for k, v in variables.items() if v.ndim == 2 and min(v.shape) > 1)
    if samples.shape[0] >= samples.shape[1] or samples.shape[1] < 2 * FFT_SIZE + EARLY:
        problem = f"shape {samples.shape}, expected antennas x samples with at least {2 * FFT_SIZE + EARLY} samples"
        raise InputError(path, problem, name)
    bad = samples.size - int(np.isfinite(samples).sum())
    if bad:
        raise InputError(path, f"{bad} of {samples.size} values are NaN or infinite", name)
    match = training_match(samples)
    starts = pair_starts(match)
    if not starts:
        problem = f"no pair of training symbols found (best match {match.max():.2f}, expected > {LEAST_MATCH})"
        raise InputError(path, problem, name)
    first = np.stack([subcarriers_of(samples, start) for start in starts])
    second = np.stack([subcarriers_of(samples, start + FFT_SIZE) for start in starts])
    found = ", ".join(f"{start} (match {match[start]:.2f})" for start in starts)
    return {
        "y": first.astype(np.complex64),
        "y_repeat": second.astype(np.complex64),
        "pilots": TRAINING.astype(np.complex64),
        "y_axes": np.asarray("user rx_ant subcarrier"),
        "y_repeat_axes": np.asarray("user rx_ant subcarrier"),
        "pilots_axes": np.asarray("subcarrier"),
        "subcarriers": SUBCARRIERS,
        "subcarrier_spacing_hz": np.asarray(SAMPLE_RATE_HZ / FFT_SIZE),
        "carrier_hz": np.asarray(CARRIER_HZ),
        "snr_definition": np.asarray("mean |y|^2 / noise_var per subcarrier and antenna"),
        "normalisation": np.asarray("none: receiver units, unitary 64-point FFT"),
        "source": np.asarray(f"RENEW over-the-air uplink; training symbols found at samples {found}"),
    }


def training_match(samples: np.ndarray) -> np.ndarray:
    """Share of the energy in samples n .. n+63 and n+64 .. n+127 that is the training symbol, in [0, 1], for each n.

    m_n = sum_ant |<t, r_n>|^2 / (|t|^2 sum_ant |r_n|^2); the geometric mean of m_n and m_(n+64).
    """
    bins = np.zeros(FFT_SIZE, complex)
    bins[SUBCARRIERS % FFT_SIZE] = TRAINING
    symbol = np.fft.ifft(bins, norm="ortho")
    power = np.stack([np.correlate(row, symbol, "valid") for row in samples])
    energy = np.stack([np.convolve(np.abs(row) ** 2, np.ones(FFT_SIZE), "valid") for row in samples]).sum(0)
    floor = max(float(energy.max()) * np.finfo(np.float32).eps, np.finfo(np.float64).tiny)
    match = (np.abs(power) ** 2).sum(0) / (np.maximum(energy, floor) * np.sum(np.abs(symbol) ** 2))
    return np.sqrt(match[:-FFT_SIZE] * match[FFT_SIZE:])


def pair_starts(match: np.ndarray) -> list[int]:
    """First samples of the symbol pairs, in time order: peaks of the match, strongest first, NEXT_PAIR apart."""
    left = match.copy()
    left[:EARLY] = 0
    starts = []
    while (peak := int(left.argmax())) >= 0 and left[peak] > LEAST_MATCH:
        starts.append(peak)
        left[max(0, peak - NEXT_PAIR + 1) : peak + NEXT_PAIR] = 0
    return sorted(starts)


def subcarriers_of(samples: np.ndarray, start: int) -> np.ndarray:
    """The used subcarriers of one symbol, (antennas, 52), its window EARLY samples before `start`."""
    window = samples[:, start - EARLY : start - EARLY + FFT_SIZE]
    return np.fft.fft(window, norm="ortho")[:, SUBCARRIERS % FFT_SIZE]
