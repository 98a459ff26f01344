"""Both arrays impaired: the virtual array, the eigenvector among products, and what echoes show of it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

import hhat
from hhat.random import complex_normal, generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.blocks import compacted
from hhat.sensing.calibration import load_calibration, save_calibration
from hhat.sensing.echoes import Echoes, delay_response, steering
from hhat.sensing.mimo import virtual_array
from hhat.sensing.scatter import covariance, dominant, normalised, scatter, second_moment, shifted, split

NUM_RX, NUM_TX, TONES = 6, 4, 32
RX, TX = torch.arange(NUM_RX) / 2, torch.arange(NUM_TX) * 1.5


def impaired(num, label):
    gen = generator("mimo gains", label)
    phase = 2 * math.pi * torch.rand(num, generator=gen)
    return normalised(torch.polar(0.9 + 0.2 * torch.rand(num, generator=gen), phase))


def observed(count=700, snr=60.0):
    """Raw receptions over four symbols with rows of a Fourier matrix as waveforms; sectors per snapshot."""
    gen = generator("mimo")
    kappa_r, kappa_t = impaired(NUM_RX, "rx"), impaired(NUM_TX, "tx")
    middle, half = 1.2 * torch.rand(count, generator=gen) - 0.6, 0.1 + 0.05 * torch.rand(count, generator=gen)
    u = middle + half * (2 * torch.rand(count, generator=gen) - 1)
    r = 12 + 20 * torch.rand(count, generator=gen)
    limits = torch.stack([middle - half, middle + half], -1)
    a_r, a_t = (torch.polar(torch.ones(count, len(p)), 2 * math.pi * u[:, None] * p) for p in (RX, TX))
    like = Echoes(torch.zeros(1, 2, TONES, dtype=torch.complex64), limits[:1], torch.tensor([10.0, 34.0]), 2e6, 60e9,
                  1.0, torch.ones(TONES, dtype=torch.complex64))  # fmt: skip
    b = delay_response(like, r)
    grid = torch.outer(torch.arange(NUM_TX), torch.arange(4)) / 4
    x = torch.polar(torch.ones(NUM_TX, 4), 2 * math.pi * grid)[:, None, :] * torch.polar(
        torch.ones(1, TONES, 1), 6 * torch.rand(1, TONES, 1, generator=gen)
    )
    # E|gamma|^2 P N_r N_t S / noise = snr, P = 4
    gamma = complex_normal((count,), gen, var=snr / (4 * NUM_RX * NUM_TX * TONES))
    sent = torch.einsum("it,tsm->ism", kappa_t * a_t, x)
    y = (gamma[:, None] * kappa_r * a_r)[:, :, None, None] * (b[:, :, None] * sent)[:, None]
    y = y + complex_normal(tuple(y.shape), gen)
    echoes = virtual_array(y, x, RX, TX, limits, torch.tensor([10.0, 34.0]), 2e6, 60e9, 1.0, snr)
    return compacted(echoes), kappa_r, kappa_t, x, y


@pytest.fixture(scope="module")
def seen():
    return observed()


def test_the_virtual_array_is_calibrated_and_taken_apart(seen, tmp_path):
    echoes, kappa_r, kappa_t, _, _ = seen
    truth = (kappa_r[:, None] * kappa_t).flatten()
    found, free = (
        hhat.calibrate(echoes, hhat.calibrator("eigenvector", first=700, factors=factors))
        for factors in ((NUM_RX, NUM_TX), None)
    )
    errors = [gain_errors(one.kappa, truth, found.positions) for one in (found, free)]
    assert float(errors[0].e1) < 3 * found.expected_e1 and float(errors[0].e0) < 6 * found.expected_e0
    # 8 free complex numbers, not 23
    assert float(errors[0].e1) < 0.7 * float(errors[1].e1) and found.expected_e1 < 0.6 * free.expected_e1
    first, last = split(found.kappa, (NUM_RX, NUM_TX))
    torch.testing.assert_close((first[:, None] * last).flatten(), found.kappa, rtol=1e-3, atol=1e-3)
    # the shift is common: what is left of it is the same at both ends, within what one end alone would show
    apart = gain_errors(first, kappa_r, RX), gain_errors(last, kappa_t, TX)
    assert max(float(one.e1) for one in apart) < 5e-3
    difference = float(apart[0].shift_u - apart[1].shift_u)
    assert math.remainder(difference, 2 / 3) == pytest.approx(0, abs=6e-3)  # 1.5 wavelengths repeat every 2/3

    save_calibration(tmp_path / "k.safetensors", found)
    again = load_calibration(tmp_path / "k.safetensors")
    h = complex_normal((3, NUM_RX, NUM_TX), generator("h"))
    want = found.kappa.reshape(NUM_RX, NUM_TX) * h
    torch.testing.assert_close(again.op((NUM_RX, NUM_TX)) @ h, want, rtol=1e-3, atol=1e-3)


def test_what_is_not_observable_and_what_is():
    kappa_r, kappa_t = impaired(NUM_RX, "rx"), impaired(NUM_TX, "tx")
    at = (RX[:, None] + TX).flatten()

    def product(a, b):
        return (a[:, None] * b).flatten()

    both = product(kappa_r, kappa_t)
    scaled = gain_errors(product(kappa_r * (2 - 1j), kappa_t / 3j), both, at)
    assert float(scaled.e0) < 1e-6
    common = gain_errors(product(shifted(kappa_r, RX, 0.02), shifted(kappa_t, TX, 0.02)), both, at)
    assert float(common.e1) < 1e-6 and float(common.shift_u) == pytest.approx(-0.02, abs=1e-5)
    opposite = gain_errors(product(shifted(kappa_r, RX, 0.08), shifted(kappa_t, TX, -0.08)), both, at)
    assert float(opposite.e1) > 0.1  # no shift of u undoes it


def test_the_product_eigenvector_against_random_products_and_its_covariance_against_draws():
    gen, count, repeats, snr = generator("products"), 80, 60, 15.0
    kappa = (impaired(NUM_RX, "rx")[:, None] * impaired(NUM_TX, "tx")).flatten().to(torch.complex128)
    n, factors, one = len(kappa), (NUM_RX, NUM_TX), torch.ones(count).double()
    g = complex_normal((repeats, count, 1), gen, torch.complex128, snr / n)
    z = g * kappa + complex_normal((repeats, count, n), gen, torch.complex128)
    second = second_moment(z[0], one)
    k = dominant(second, factors)
    a, b = (
        complex_normal((300, NUM_RX, 1), gen, torch.complex128),
        complex_normal((300, 1, NUM_TX), gen, torch.complex128),
    )
    first, last = split(k, factors)
    for pool in ((a * b), (first[:, None] + 0.01 * a) * (last + 0.01 * b)):
        pool = pool.flatten(1) * math.sqrt(n) / pool.flatten(1).norm(dim=1, keepdim=True)
        values = torch.einsum("ka,ab,kb->k", pool.conj(), second, pool).real
        assert float(values.max()) <= float((k.conj() @ second @ k).real) * (1 + 1e-9)
    actual, claimed = 0.0, 0.0
    for draw in z:
        k = dominant(second_moment(draw, one), factors)
        actual += float(gain_errors(k, kappa).e0)
        claimed += float(covariance(scatter(draw, one, k), factors)[0].diagonal().real.mean())
    assert actual / claimed == pytest.approx(1, abs=0.15)


def test_wrong_waveforms_and_factors_are_refused(seen):
    echoes, _, _, x, y = seen
    with pytest.raises(ValueError, match="orthogonal"):
        virtual_array(y, x + x.flip(0), RX, TX, torch.tensor([0.0, 0.2]), torch.tensor([10.0, 34.0]), 2e6, 60e9)
    with pytest.raises(ValueError, match="product of 24"):
        hhat.calibrate(echoes, hhat.calibrator("eigenvector", factors=(5, 5)))


BOTH = {"num_rx_ant": 8, "num_tx_ant": 4, "num_subcarriers": 32, "subcarrier_spacing_hz": 1.92e6, "snr_db": 25.0}


def test_receptions_matched_to_their_waveforms_are_the_virtual_echoes_in_white_noise():
    scene = EchoScene(**{**BOTH, "num_rx_ant": 3}, form="full", presence=1.0)
    slot = scene.draw(200, generator("both", "law"))
    obs, truth = slot.obs, slot.truth
    kappa_r, kappa_t = scene.array_gains()
    u, n = truth.u[:, 0].double(), torch.arange(3)
    a_r = torch.polar(torch.ones(200, 3).double(), math.pi * u[:, None] * n)
    a_t = torch.polar(torch.ones(200, 4).double(), math.pi * 3 * u[:, None] * torch.arange(4))  # spacing 3 / 2
    echo = ((kappa_r * a_r)[:, :, None] * (kappa_t * a_t)[:, None]).flatten(1) * truth.gain
    noise = obs.y - echo[:, :, None] * delay_response(obs, truth.range_m)
    rows = noise.transpose(1, 2).flatten(0, 1).to(torch.complex128)
    second = rows.mT @ rows.conj() / len(rows)
    torch.testing.assert_close(second, torch.eye(12).to(second), atol=5 / math.sqrt(len(rows)), rtol=0)
    snr = float((echo.abs().square().sum(-1) * 32).mean())
    assert snr == pytest.approx(10**2.5, rel=0.25) and obs.snr == pytest.approx(10**2.5)


def test_a_drawn_pair_of_arrays_is_calibrated_but_for_one_scale_and_one_common_shift():
    scene = EchoScene(**BOTH, presence=0.8)
    slot = scene.draw(600, generator("both", "calibrated"))
    calibrator = hhat.calibrator("eigenvector", factors=(8, 4), first=600)
    moved = 0.006  # of the sectors, which is all that tells the shift
    told = (slot.obs, replace(slot.obs, u_limits=slot.obs.u_limits + moved))
    shifts = []
    for echoes in told:
        found = hhat.calibrate(echoes, calibrator)
        assert found.status.name == "OK"
        assert float(gain_errors(found.kappa, slot.truth.kappa, found.positions).e1) < 2 * found.expected_e1 < 2e-3
        parts = zip(split(found.kappa, (8, 4)), scene.array_gains(), scene.array_positions(), strict=True)
        shifts.append([float(gain_errors(k, kappa, at).shift_u) for k, kappa, at in parts])
    for rx, tx in shifts:  # 4 wavelengths between transmitting antennas repeat every 1/4
        assert math.remainder(rx - tx, 0.25) == pytest.approx(0, abs=3e-3)
    common = math.remainder(shifts[1][1] - shifts[0][1], 0.25)
    assert abs(common) == pytest.approx(moved, abs=1e-3)
    # what is not observable: the same echoes follow from gains with a scale and a shift moved between or in common
    kappa_r, kappa_t = scene.array_gains()
    rx, tx = scene.array_positions()
    u, n = slot.truth.u[:, 0], scene.num_ant
    for scale, shift in ((2 - 1j, 0.0), (1.0, 0.03)):
        other = (shifted(kappa_r * scale, rx, shift)[:, None] * shifted(kappa_t / scale, tx, shift)).flatten()
        same = slot.truth.kappa * steering(slot.obs, u), other * steering(slot.obs, u + shift)
        overlap = (same[0].conj() * same[1]).sum(-1).abs() / n
        torch.testing.assert_close(overlap, torch.ones_like(overlap), atol=1e-4, rtol=0)


def test_the_command_line_simulates_and_calibrates_both_arrays(tmp_path):
    from hhat.cli import app

    run, file = CliRunner(), str(tmp_path / "both.h5")
    sets = [part for key, value in BOTH.items() for part in ("--set", f"{key}={value}")]
    made = run.invoke(app, ["simulate", "echoes", "-o", file, "-n", "300", "--json", "--set", "form=full", *sets])
    assert made.exit_code == 0, made.stderr
    done = run.invoke(app, ["calibrate", file, "--json", "--set", "factors=8,4"])
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["antennas"] == 32 and document["status"] == "OK"
    assert document["e1"] < 3 * document["expected_e1"] < 0.01 and document["e0_uncalibrated"] > 0.3
