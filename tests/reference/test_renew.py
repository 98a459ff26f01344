"""RENEW over-the-air captures against the published scores of plain least squares, and a capture made by hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from hhat.bench.scores import holdout, renoise
from hhat.io import InputError, read, repeats, write
from hhat.io.inspect import describe
from hhat.io.renew import pair_starts, training_match
from hhat.random import generator
from hhat.types import Channel, Estimate, Gaussian, Observation, Slot

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("HHAT_DATA", ROOT / "../shared/data")) / "renew"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no captured data in {FOLDER} (set HHAT_DATA)")

# file -> (first samples of the pairs, hold-out of least squares and noise floor, user 1 and 2, in dB)
PUBLISHED = {
    "mimo_60_145_try_2.mat": ((110, 269), (-19.4, -23.5), (-22.4, -26.5)),
    "mimo_60_145_try_3.mat": ((110, 269), (-19.1, -22.0), (-22.1, -25.0)),
    "rx_mimo_data_08_02.mat": ((105, 265), (-17.9, -17.6), (-20.9, -20.7)),
}


def least_squares(obs):
    """Pilots of unit modulus: the adjoint is the inverse."""
    h = obs.op.adjoint(obs.y)
    return Estimate(Gaussian(h, torch.ones(1)))


def training_symbol():
    """The long training symbol from IEEE 802.11-2020 (17-8), written out by hand: L_-26 ... L_26."""
    text = "++--++-+-++++++--++-+-++++0+--++-+-+-----++--+-+-++++"
    bins = np.zeros(64, complex)
    for k, sign in zip(range(-26, 27), text, strict=True):
        bins[k % 64] = {"+": 1, "-": -1, "0": 0}[sign]
    return bins, np.fft.ifft(bins, norm="ortho")


def made_capture(gen, taps, starts, offset_hz=200.0, noise_var=1e-4, antennas=8, length=800):
    """Samples of users that send prefix + two training symbols through random channels; and the channels' taps."""
    _, symbol = training_symbol()
    burst = np.concatenate([symbol[-32:], symbol, symbol])
    channels = (
        gen.normal(size=(len(starts), antennas, taps)) + 1j * gen.normal(size=(len(starts), antennas, taps))
    ) / 2
    channels *= 0.4 ** np.arange(taps)
    samples = np.sqrt(noise_var / 2) * (gen.normal(size=(antennas, length)) + 1j * gen.normal(size=(antennas, length)))
    for user, start in enumerate(starts):
        for antenna in range(antennas):
            wave = np.convolve(channels[user, antenna], burst)
            samples[antenna, start - 32 : start - 32 + len(wave)] += wave
    return samples * np.exp(2j * np.pi * offset_hz * np.arange(length) / 5e6), channels


@needs_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_training_symbols_are_found(name):
    samples = next(v for k, v in scipy.io.loadmat(FOLDER / name).items() if not k.startswith("__"))
    assert tuple(pair_starts(training_match(samples))) == PUBLISHED[name][0]


@needs_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_least_squares_predicts_the_second_symbol_as_published(name):
    pair = repeats(FOLDER / name)
    assert pair is not None
    score = holdout(pair, least_squares)
    _, nmse, floor = PUBLISHED[name]
    assert torch.allclose(score.nmse_db, torch.tensor(nmse), atol=0.15)
    assert torch.allclose(score.floor_db, torch.tensor(floor), atol=0.15)


@needs_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_slot_says_what_it_is(name):
    slot = read(FOLDER / name)
    assert slot.truth is None and slot.obs.y.shape == (2, 8, 52)
    assert slot.obs.axes == ("rx_ant", "subcarrier")
    assert slot.about.subcarriers == (*range(-26, 0), *range(1, 27))
    assert slot.about.constants["subcarrier_spacing_hz"] == 5e6 / 64
    assert "estimated from the difference" in slot.about.snr_definition
    assert slot.obs.noise_var is not None and slot.obs.noise_var.shape == (2, 1, 1)


@needs_data
@pytest.mark.parametrize("snr_db", [0, 5, 10, 15])
def test_least_squares_keeps_the_noise_that_was_added(snr_db):
    score = renoise(read(FOLDER / "mimo_60_145_try_2.mat"), snr_db, generator("renoise", snr_db), least_squares)
    assert torch.allclose(score, torch.full((2,), -float(snr_db)), atol=0.15)


@needs_data
def test_a_copy_as_capture_file_keeps_both_symbols(tmp_path):
    pair = repeats(FOLDER / "mimo_60_145_try_2.mat")
    assert pair is not None
    write(tmp_path / "x.h5", pair[0], repeat=pair[1].obs.y)
    again = repeats(tmp_path / "x.h5")
    assert again is not None
    assert torch.equal(again[0].obs.y, pair[0].obs.y)
    assert torch.allclose(holdout(again, least_squares).nmse_db, holdout(pair, least_squares).nmse_db, atol=1e-3)
    assert torch.allclose(read(tmp_path / "x.h5").obs.y, read(FOLDER / "mimo_60_145_try_2.mat").obs.y, atol=1e-6)


@pytest.mark.parametrize("starts", [(100, 260), (77, 300, 460), (500,)])
def test_a_made_capture_gives_its_channels(starts, tmp_path):
    samples, taps = made_capture(np.random.default_rng(8), 5, starts)
    scipy.io.savemat(tmp_path / "x.mat", {"any_name": samples})
    slot = read(tmp_path / "x.mat")
    assert slot.obs.y.shape == (len(starts), 8, 52)
    k = np.concatenate([np.arange(-26, 0), np.arange(1, 27)])
    truth = np.fft.fft(taps, 64)[..., k % 64]
    # windows start at the found peak less 4 samples, and the oscillators differ by a common phase: remove both
    for user, start in enumerate(starts):
        h = slot.obs.op.adjoint(slot.obs.y)[user].numpy()
        found = [int(s.split()[0]) for s in slot.about.source.split("samples ")[1].split(", ")][user]
        h = h * np.exp(-2j * np.pi * k * (found - 4 - start) / 64)
        h = h * np.exp(-1j * np.angle(np.vdot(truth[user], h)))
        assert np.sum(np.abs(h - truth[user]) ** 2) / np.sum(np.abs(truth[user]) ** 2) < 10**-2.5
    noise = slot.obs.noise_var
    assert noise is not None
    # the offset turns the phase within a symbol too, which repeats in both and is no noise; average of two symbols
    assert torch.allclose(noise.flatten(), torch.tensor(0.5e-4), rtol=0.25)


def test_noise_without_training_symbols_is_refused(tmp_path):
    rng = np.random.default_rng(9)
    scipy.io.savemat(tmp_path / "x.mat", {"a": rng.normal(size=(8, 4000)) + 1j * rng.normal(size=(8, 4000))})
    with pytest.raises(InputError, match="a: no pair of training symbols found"):
        read(tmp_path / "x.mat")


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.ones((4000, 8)) + 1j, "expected antennas x samples"),
        (np.ones((8, 50)) + 1j, "at least 132 samples"),
        (np.full((8, 400), np.nan) + 1j, "3200 of 3200 values are NaN"),
        (np.zeros((8, 400), complex) + np.eye(8, 400) * 1e-300j, "no pair of training symbols"),
    ],
)
def test_matrices_that_are_no_capture(samples, words, tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"a": samples})
    with pytest.raises(InputError, match=words):
        read(tmp_path / "x.mat")


def test_a_perfect_estimate_scores_the_floor_and_least_squares_three_decibels_more():
    rng = np.random.default_rng(10)
    samples, _ = made_capture(rng, 3, (100, 260), offset_hz=0.0, noise_var=1e-3)
    clean, _ = made_capture(np.random.default_rng(10), 3, (100, 260), offset_hz=0.0, noise_var=0.0)
    with_noise, without = (_pair(values) for values in (samples, clean))

    def genie(obs: Observation) -> Estimate:
        return least_squares(without[0].obs)

    score, least = holdout(with_noise, genie), holdout(with_noise, least_squares)
    assert torch.allclose(score.nmse_db, score.floor_db, atol=0.5)
    assert torch.allclose(least.nmse_db, least.floor_db + 10 * np.log10(2), atol=1e-3)


def test_renoise_of_a_genie_has_no_error():
    slot = _pair(made_capture(np.random.default_rng(11), 3, (100, 260))[0])[0]
    reference = least_squares(slot.obs)
    known = renoise(slot, 5, generator("renoise"), lambda obs: reference, draws=2)
    assert bool((known < -100).all())
    seen = []

    def watch(obs: Observation) -> Estimate:
        seen.append(obs)
        return least_squares(obs)

    renoise(slot, 10, generator("renoise"), watch, draws=30)
    assert seen[0].y.shape == (30, 2, 8, 52)
    added = (seen[0].y - slot.obs.y).abs().square().mean((0, 2, 3))
    assert torch.allclose(added, seen[0].noise_var.flatten(), rtol=0.05)
    assert torch.allclose(slot.obs.y.abs().square().mean((1, 2)) / seen[0].noise_var.flatten(), torch.tensor(10.0))


@needs_data
def test_inspect_tells_the_capture_in_words():
    found = describe(FOLDER / "rx_mimo_data_08_02.mat")
    assert found["format"] == "renew" and found["problems"] == []
    assert found["axes"] == {"user": 2, "rx_ant": 8, "subcarrier": 52}
    assert found["repeated"] and "estimated from the difference" in found["noise_var"]


def _pair(samples: np.ndarray) -> tuple[Slot, Slot]:
    from hhat.io.arrays import contents_of
    from hhat.io.assemble import pair_of
    from hhat.io.renew import renew_variables

    pair = pair_of(contents_of("made", "renew", renew_variables("made", {"a": samples})))
    assert pair is not None
    return pair


def test_scores_follow_any_operator():
    """Fewer pilots than antennas: the score is that of the prediction, which least squares fits perfectly."""
    from hhat.ops import Dense, Identity, Kron
    from hhat.random import complex_normal

    gen = generator("scores")
    op = Kron(Identity((3,)), Dense(complex_normal((2, 4), gen)))
    h = complex_normal((5, 3, 4), gen)
    slot = Slot(Channel(h), Observation(op.apply(h), op, None))

    def smallest(obs: Observation) -> Estimate:
        matrix = op.dense()
        x = torch.linalg.pinv(matrix) @ obs.y.flatten(-2)[..., None]
        return Estimate(Gaussian(x.reshape(*obs.y.shape[:-2], 3, 4), torch.ones(1)))

    assert torch.allclose(renoise(slot, 10, gen, smallest, draws=400), torch.full((5,), -10.0), atol=0.5)
    assert bool((holdout((slot, slot), smallest).nmse_db < -100).all())
