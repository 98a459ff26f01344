"""Scenario `impaired-uplink`: its channel, its drift, its files."""

import json
import math
from dataclasses import replace

import h5py
import pytest
import torch

import hhat
from hhat import io
from hhat.cli import main
from hhat.distortion import DistortedPilots, ImpairedTruth
from hhat.impairments.drift import Drift
from hhat.random import generator
from hhat.scenarios.impaired_uplink import ImpairedUplink


def power(x):
    return float(x.abs().square().mean())


def test_slots_hold_pilots_noise_and_the_distorted_signal():
    scene = ImpairedUplink(num_rx_ant=16, snr_db=10.0)
    slot = scene.draw(3000, generator("uplink"))
    truth, obs = slot.truth, slot.obs
    assert isinstance(truth, ImpairedTruth) and isinstance(obs, DistortedPilots)
    assert obs.y.shape == truth.y.shape == (3000, 4, 16) and obs.pilots.shape == (3000, 4)
    torch.testing.assert_close(obs.pilots.abs(), torch.ones(3000, 4))
    assert power(truth.h) == pytest.approx(1.0, abs=0.03)
    assert power(truth.y - truth.h[:, None] * obs.pilots[..., None]) == pytest.approx(0.1, rel=0.01)
    assert float(obs.noise_var) == pytest.approx(0.1)
    again = scene.receiver(scene.matched())(truth.y)
    torch.testing.assert_close(obs.y, again, rtol=1e-5, atol=1e-5)
    assert -10 < 10 * math.log10(power(obs.y - truth.y) / power(truth.y)) < -6


def test_angles_are_two_clusters():
    """The covariance over drops: rays of 1 degree around centres that are uniform over +-60, at least 10 apart."""
    scene = ImpairedUplink(num_rx_ant=64)
    h = scene.draw(200, generator("angles")).truth.h.to(torch.complex128)
    beams = torch.fft.fft(h, dim=-1).abs().square() / 64
    share = beams.sort(-1, descending=True).values.cumsum(-1) / beams.sum(-1, keepdim=True)
    assert float(share[:, 15].mean()) > 0.9  # a quarter of the beams holds nearly all
    outside = beams.roll(32, -1)[:, :3].sum() / beams.sum()  # sin(angle) near -1: beyond 60 degrees
    assert float(outside) < 0.01


def test_the_channel_turns_with_its_doppler_shifts():
    scene = ImpairedUplink(num_rx_ant=2, speed_m_per_s=5.0)
    h = torch.stack([slot.truth.h for slot in scene.slots(8, generator("time"), links=4000)]).to(torch.complex128)
    found = (h[0].conj() * h).mean((1, 2)).real
    wanted = torch.special.bessel_j0(2 * math.pi * scene.doppler_hz * 1e-3 * torch.arange(8, dtype=torch.float64))
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0)


def test_pilots_are_new_in_each_slot_and_the_drift_goes_its_way():
    scene = ImpairedUplink(num_rx_ant=8, drift="per_chain")
    slots = list(scene.slots(30, generator("drift"), links=2))
    assert not torch.equal(slots[0].obs.pilots, slots[1].obs.pilots)
    law = Drift()
    begin = law.begin(scene.learned, (2, 8))
    torch.testing.assert_close(slots[0].truth.coefficients, begin.coefficients.to(torch.complex64))
    # the linear tap walks by about 0.01 |c|^2 a slot
    taps = torch.stack([slot.truth.coefficients[..., 0, 0] for slot in slots])
    step = taps.diff(dim=0).abs().square().mean().sqrt()
    assert float(step) == pytest.approx(0.01 * 0.948**2, rel=0.1)
    # pilots and noise are the same without drift
    still = list(replace(scene, drift="off").slots(2, generator("drift"), links=2))
    assert torch.equal(still[1].truth.y, slots[1].truth.y) and not torch.equal(still[1].obs.y, slots[1].obs.y)
    # what is written as the truth is what distorted
    last = slots[-1]
    theta = begin._replace(**{k: getattr(last.truth, k) for k in ("coupling", "phase_rad", "coefficients")})
    torch.testing.assert_close(scene.receiver(theta)(last.truth.y), last.obs.y, rtol=1e-4, atol=1e-4)


def test_severity_zero_and_converters():
    scene = ImpairedUplink(num_rx_ant=4)
    none = replace(scene, severity=0.0).draw(3, generator("none"))
    assert torch.equal(none.obs.y, none.truth.y)
    coarse = replace(scene, severity=1.0, adc_bits=3).draw(50, generator("none"))
    assert len(torch.view_as_real(coarse.obs.y).unique()) <= 7


def test_measured_amplifiers_and_training_pairs():
    scene = ImpairedUplink(num_rx_ant=4, amplifier="apa-200mhz")
    clean, dirty = scene.pairs(300, generator("pairs"))
    assert clean.shape == dirty.shape == (300, 10, 4)
    assert power(clean) == pytest.approx(1.0, abs=0.05)
    assert -13 < 10 * math.log10(power(dirty - clean)) < -7
    assert "OpenDPD" in scene.draw(1, generator("pairs")).about.source


@pytest.mark.slow
def test_urban_macro_channels_have_unit_power_and_move():
    scene = ImpairedUplink(num_rx_ant=4, channel="uma", speed_m_per_s=20.0)
    h = torch.stack([slot.truth.h for slot in scene.slots(5, generator("uma"), links=3)])
    torch.testing.assert_close(h.abs().square().mean((0, 2)), torch.ones(3))
    assert power(h[4] - h[0]) > 0.05


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_pilots": 0}, "num_pilots"),
        ({"channel": "rays"}, "channel is one of"),
        ({"drift": "own"}, "drift is one of"),
        ({"amplifier": "none such"}, "expected one of warp"),
        ({"back_off": 0.0}, "back_off"),
        ({"adc_bits": 1}, "adc_bits"),
        ({"drift": "shared", "severity": 0.5}, "severity"),
        ({"snr_db": math.nan}, "snr_db"),
    ],
)
def test_settings_outside_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        ImpairedUplink(**settings)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_file_gives_back_what_was_drawn(tmp_path):
    scene = ImpairedUplink(num_rx_ant=4, drift="shared")
    slot = scene.draw(3, generator("file"))
    io.write(tmp_path / "one.h5", slot)
    back = io.read(tmp_path / "one.h5")
    assert isinstance(back.obs, DistortedPilots) and isinstance(back.truth, ImpairedTruth)
    for name in ("y", "pilots", "noise_var"):
        same(getattr(back.obs, name), getattr(slot.obs, name))
    for one, other in zip(back.truth, slot.truth, strict=True):
        same(one, other)
    assert back.about == slot.about
    part = io.read(tmp_path / "one.h5", start=1, count=1)
    same(part.obs.pilots, slot.obs.pilots[1:2])
    same(part.truth.coefficients, slot.truth.coefficients[1:2])


def test_slots_come_back_one_by_one_and_as_a_batch(tmp_path):
    scene = ImpairedUplink(num_rx_ant=4, drift="off")
    slots = list(scene.slots(5, generator("file"), links=2))
    io.write_slots(tmp_path / "run.h5", slots)
    back = list(io.read_slots(tmp_path / "run.h5"))
    assert len(back) == 5 and back[0].about.kind == "slots"
    for one, other in zip(back, slots, strict=True):
        for name in ("y", "pilots", "noise_var"):
            same(getattr(one.obs, name), getattr(other.obs, name))
        same(one.truth.h, other.truth.h)
        same(one.truth.coefficients, other.truth.coefficients)
    whole = io.read(tmp_path / "run.h5")
    assert whole.obs.y.shape == (5, 2, 4, 4) and whole.obs.pilots.shape == (5, 2, 4)
    same(whole.truth.h[3], slots[3].truth.h)


def test_the_command_line_writes_and_tells(tmp_path, capsys):
    path = tmp_path / "uplink.h5"
    call = ["simulate", "impaired-uplink", "-o", str(path), "--slots", "3", "-n", "2"]
    assert main([*call, "--set", "num_rx_ant=4", "--set", "drift=per_chain", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["y_shape"] == [3, 2, 4, 4] and told["channel_shape"] == [4]
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == [] and found["kind"] == "slots" and "distort" in found["operator"]
    assert main(["estimate", str(path)]) == 2
    assert "distort" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.__delitem__("pilots"), "pilots: missing"),
        (lambda file: file.__delitem__("noise_var"), "noise_var: missing"),
        (lambda file: file.__delitem__("truth/h"), "truth/h: missing"),
        (lambda file: file.move("truth/y", "truth/clean"), "truth/clean: unknown"),
        (lambda file: file["pilots"].attrs.__setitem__("axes", "pilot batch"), "pilots"),
        (lambda file: file["truth/h"].attrs.__setitem__("axes", "batch tx_ant"), "truth/h"),
        (lambda file: file["y"].attrs.__setitem__("axes", "batch rx_ant pilot"), "batch pilot rx_ant"),
        (lambda file: file.attrs.__setitem__("receiver", "odd"), "receiver"),
    ],
)
def test_a_spoilt_file_is_refused_in_one_line(tmp_path, spoil, words):
    path = tmp_path / "spoilt.h5"
    io.write(path, ImpairedUplink(num_rx_ant=3).draw(2, generator("file")))
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(ValueError, match=words) as caught:
        io.read(path)
    assert "\n" not in str(caught.value)


def test_factories_know_it():
    assert isinstance(hhat.scenario("impaired-uplink", snr_db=5), ImpairedUplink)
    assert hhat.impairment("amplifier", model="ding", back_off=0.2).back_off == 0.2
