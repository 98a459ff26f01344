"""Scenarios of hopping pilots: law and offsets in closed form, Sionna's own response, symbol by symbol, files."""

import math

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.special import j0

import hhat
from hhat.extrapolation.model import Sounding, delay_steering
from hhat.io import InputError, read, read_slots, write, write_slots
from hhat.io.inspect import describe
from hhat.methods.defaults import choice_for, method_for
from hhat.nr.config import SoundingConfig
from hhat.scenarios import srs
from hhat.scenarios.srs_paths import SrsPaths
from hhat.scenarios.srs_sionna import ADDED_DELAY_S, SrsUma, SrsUmi

QUIET = {"random_phase": False, "timing_spread_s": 0.0}
SMALL = {"columns": 2, "rows": 2, "num_tones": 24}
KINDS = (SrsPaths, SrsUma, SrsUmi)


def gen(*labels):
    return hhat.generator("srs", *labels)


@pytest.mark.parametrize("kind", KINDS)
def test_power_and_snr_are_what_is_said(kind):
    slot = kind(**{**SMALL, "num_tones": 120}, snr_db=3.0).draw(6, gen("snr"))
    h, obs = slot.truth.h, slot.obs
    assert h.dtype == obs.y.dtype == torch.complex64 and h.shape == (6, 4, 4, 120) and obs.y.shape == (6, 4, 4, 60)
    torch.testing.assert_close(h.abs().square().mean((1, 2, 3)), torch.ones(6))
    noise = obs.y - obs.op.apply(h)
    assert float(noise.abs().square().mean()) == pytest.approx(10**-0.3, rel=0.06)  # 4 standard errors
    assert float(obs.noise_var) == pytest.approx(10**-0.3)
    assert abs(complex((noise.conj() * obs.op.apply(h)).mean())) < 0.04


@pytest.mark.parametrize("kind", KINDS)
def test_draws_depend_on_the_given_generator_alone(kind):
    scene, outside = kind(**SMALL), torch.get_rng_state()
    first, again, other = (scene.draw(2, gen("draw", k)) for k in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), outside)
    assert torch.equal(first.obs.y, again.obs.y) and not torch.equal(first.truth.h, other.truth.h)
    assert not torch.equal(first.truth.h[0], first.truth.h[1])


@pytest.mark.parametrize("kind", (SrsPaths, SrsUma))
def test_symbol_by_symbol_is_the_same_link(kind):
    scene = kind(**SMALL, hops=4, hop_order="nr", num_symbols=5, lags_s=(1e-3,))
    joint = scene.draw(2, gen("slots"))
    slots = list(scene.slots(5, gen("slots"), links=2))
    for m, slot in enumerate(slots):
        assert slot.obs.axes == ("rx_ant", "subcarrier") and slot.truth.h.shape == (2, 4, 24)
        assert torch.equal(slot.obs.y, joint.obs.y[:, :, m]) and torch.equal(slot.truth.h, joint.truth.h[:, :, m])
        assert torch.equal(slot.obs.op.right.index, joint.obs.op.right.index[m])
        assert torch.equal(slot.truth.h_at, joint.truth.h_at[:, :, :, m])
        if kind is SrsPaths:  # the slot's paths give its channel by themselves
            offsets = type(slot.truth.offsets)(*(value[:, None] for value in slot.truth.offsets))
            own = scene.model.channel(slot.truth.paths, offsets, torch.zeros(1, dtype=torch.float64))
            torch.testing.assert_close(own[:, :, 0].to(torch.complex64), slot.truth.h, atol=1e-5, rtol=1e-5)


def test_the_truth_tells_the_paths_that_make_the_channel():
    scene = SrsPaths(**SMALL, hops=4, speed_kmh=120.0, num_paths=3, lags_s=(2e-3, 7e-3), **{"snr_db": 300.0})
    truth = scene.draw(3, gen("paths")).truth
    times = scene.period_s * torch.arange(8, dtype=torch.float64)
    for h, lag in ((truth.h, 0.0), (truth.h_at[:, 0], 2e-3), (truth.h_at[:, 1], 7e-3)):
        made = scene.model.channel(truth.paths, truth.offsets, times + lag)
        torch.testing.assert_close(made.to(torch.complex64), h, atol=1e-5, rtol=1e-5)
    assert scene.model.doppler_hz == pytest.approx(120 / 3.6 * 3.5e9 / 299792458)


def test_channels_of_one_link_correlate_over_time_as_their_paths_do():
    """<h(0), h(t)> = sum_kl conj(g_l) g_k e^{j 2 pi f_k t} <a_l, a_k> <b_l, b_k>."""
    scene = SrsPaths(**SMALL, speed_kmh=30.0, num_symbols=6, **QUIET)
    truth = scene.draw(4, gen("correlation")).truth
    p, model = truth.paths, scene.model
    left, right = model.array_steering(p.cosine), delay_steering(model.tones_hz(), p.delay_s)
    gram = (left.conj() @ left.mT) * (right.mH @ right)
    turn = torch.exp(2j * math.pi * p.doppler_hz[:, None] * 5e-3 * torch.arange(6)[:, None])
    wanted = torch.einsum("nl,nlk,nsk->ns", p.gain.conj(), gram, turn * p.gain[:, None])
    found = torch.einsum("naf,nasf->ns", truth.h[:, :, 0].conj(), truth.h).to(wanted.dtype)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-5)
    fast = SrsPaths(speed_kmh=30.0)
    shifts = fast.drops(4000, gen("j0")).doppler_hz
    for lag in (1e-3, 5e-3, 9e-3):  # angles uniform: the law's correlation is Clarke's
        turned = (2 * math.pi * shifts * lag).cos()
        error = 5 * float(turned.std()) / math.sqrt(turned.numel())
        assert float(turned.mean()) == pytest.approx(j0(2 * math.pi * fast.doppler_hz * lag), abs=error)


def test_delays_keep_apart_and_within_their_span():
    p = SrsPaths(num_paths=7, separation_s=100e-9).drops(200, gen("delays"))
    assert float(p.delay_s.diff(dim=-1).min()) >= 100e-9 * (1 - 1e-9)
    assert float(p.delay_s.min()) >= 0.2e-6 and float(p.delay_s.max()) <= 2e-6
    # the k-th of seven uniform points sits at k / 8 of the room that is left
    assert float(p.delay_s[:, 3].mean()) == pytest.approx(0.2e-6 + 0.5 * 1.2e-6 + 0.3e-6, abs=0.06e-6)
    assert float(p.cosine[..., 0].abs().max()) < math.sin(math.radians(60)) + 1e-12
    assert float(p.cosine[..., 1].abs().max()) < math.sin(0.3) + 1e-12


def test_all_tones_are_sounded_equally_often_and_in_the_order_asked_for():
    for order, first in (("sequential", [0, 6, 12, 18]), ("nr", [0, 12, 6, 18])):
        index = SrsPaths(**SMALL, hops=4, hop_order=order).index()
        assert index.flatten().bincount(minlength=24).tolist() == [2] * 24
        assert index[:4, 0].tolist() == first and torch.equal(index[:4], index[4:])


@pytest.mark.parametrize(
    ("preset", "hops", "tones", "width_hz"),
    [("nr-30khz-272rb-4", 4, 816, 97.8e6), ("nr-15khz-264rb-6", 6, 792, 47.46e6)],
)
def test_a_preset_sounds_what_the_standard_sounds(preset, hops, tones, width_hz):
    scene = SrsPaths(preset=preset, columns=2, rows=1)
    assert (scene.hops, scene.num_tones, scene.period_s) == (hops, tones, 5e-3)
    f = scene.model.tones_hz()
    assert float(f[-1] - f[0]) == pytest.approx(width_hz) and float(f.diff().std()) < 1e-6
    assert torch.equal(scene.index()[:hops].flatten().sort().values, torch.arange(tones))
    config = scene.preset
    sounded = config.tones(hops + 1) - 6 * config.num_rb  # of the second symbol after a full cycle
    told = torch.tensor(scene.draw(1, gen("preset")).about.subcarriers)
    assert torch.equal(told[scene.index()[hops + 1]], sounded)
    assert SrsPaths(preset=SoundingConfig(b_srs=1)).index().tolist()[0][0] in (0, 408)
    with pytest.raises(ValueError, match="one symbol per slot"):
        SrsPaths(preset=SoundingConfig(num_symbols=2, l_offset=1))
    with pytest.raises(ValueError, match="preset is one of"):
        SrsPaths(preset="60khz")


def test_offsets_follow_their_laws_and_start_at_zero():
    def drawn(**settings):
        scene = SrsPaths(**SMALL, num_paths=1, num_symbols=40, **settings)
        return scene.draw(50, gen("offsets")).truth

    plain = drawn()
    assert float(plain.phase_rad[:, 0].abs().max()) == 0 and float(plain.timing_s[:, 0].abs().max()) == 0
    assert float(plain.timing_s[:, 1:].std()) == pytest.approx(1e-8, rel=0.06)
    circle = torch.exp(1j * plain.phase_rad[:, 1:])
    assert abs(complex(circle.mean())) < 0.08 and abs(complex((circle[:, 1:] * circle[:, :-1].conj()).mean())) < 0.08
    none = drawn(**QUIET)
    assert not bool(none.phase_rad.any()) and not bool(none.timing_s.any())
    assert torch.equal(none.delay_s, plain.delay_s)
    walk = drawn(random_phase=False, timing_spread_s=0.0, phase_drift_rad=0.1, timing_drift_s=1e-9)
    assert float(walk.phase_rad.diff(dim=-1).std()) == pytest.approx(0.1, rel=0.06)
    assert float(walk.timing_s[:, -1].std()) == pytest.approx(1e-9 * 39**0.5, rel=0.3)
    ramp = drawn(random_phase=False, frequency_offset_hz=2.0).phase_rad
    steps = torch.remainder(ramp.diff(dim=-1) + math.pi, 2 * math.pi) - math.pi
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))
    assert float(steps[:, 0].std()) == pytest.approx(2 * math.pi * 2.0 * 5e-3, rel=0.3)
    scene = SrsPaths(num_symbols=40, timing_spread_s=2e-9, timing_drift_s=1e-9)
    assert scene.model.timing_var == pytest.approx(4e-18 + 1e-18 * sum(range(40)) / 40)
    # slots of another length say their own
    few = next(SrsPaths(**SMALL, timing_spread_s=0.0, timing_drift_s=1e-9).slots(41, gen("walk")))
    assert few.about.constants["timing_spread_s"] == pytest.approx(1e-9 * 20**0.5)


def test_the_downlink_differs_by_one_gain_per_antenna():
    scene = SrsPaths(columns=8, rows=8, num_tones=4, reciprocity_error_db=-20.0)
    truth = scene.draw(30, gen("reciprocity")).truth
    ratio = truth.h_down / truth.h - 1
    assert float(ratio.abs().square().mean()) == pytest.approx(0.01, rel=0.1)
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio), atol=1e-4, rtol=0)
    perfect = SrsPaths(**SMALL).draw(1, gen("reciprocity")).truth
    assert perfect.h_down is perfect.h


def test_one_antenna_one_path_one_symbol():
    scene = SrsPaths(columns=1, rows=1, num_tones=1, hops=1, num_symbols=1, num_paths=1, speed_kmh=0.0)
    slot = scene.draw(3, gen("one"))
    torch.testing.assert_close(slot.truth.h.abs(), torch.ones(3, 1, 1, 1))
    assert slot.obs.y.shape == (3, 1, 1, 1) and scene.model.num_rx_ant == scene.model.num_subcarriers == 1
    wide = SrsPaths(**SMALL, num_paths=1, **QUIET).draw(2, gen("one")).truth
    torch.testing.assert_close(wide.h.abs(), torch.ones_like(wide.h.abs()), atol=1e-5, rtol=0)


def test_chunks_fill_every_channel(monkeypatch):
    scene = SrsPaths(**SMALL)
    whole = scene.draw(5, gen("chunks")).truth.h
    monkeypatch.setattr(srs, "CHUNK_ENTRIES", 2 * 4 * 4 * 24)
    assert torch.allclose(scene.draw(5, gen("chunks")).truth.h, whole, atol=1e-6)


@pytest.mark.parametrize("kind", (SrsUma, SrsUmi))
def test_sionna_agrees_on_the_frequency_response(kind):
    from sionna.phy.channel import cir_to_ofdm_channel

    scene = kind(**SMALL, speed_kmh=30.0, lags_s=(5e-3, 2e-3), **QUIET)
    drops = scene.drops(2, gen("sionna"))
    assert drops.delay_s.shape == (2, 24 if kind is SrsUma else 23)  # 20, 19 clusters, two split in three
    found = scene.response(drops, 4)
    a = drops.gain.flatten(3)[:, None, :, None, None]
    late = drops.delay_s[:, None, None] + ADDED_DELAY_S
    theirs = cir_to_ofdm_channel(scene.model.tones_hz().float(), a, late).squeeze((1, 3, 4))
    torch.testing.assert_close(found.flatten(2, 3), theirs, atol=3e-4, rtol=1e-3)
    # a lag of one period is the next symbol: times are what they should be
    torch.testing.assert_close(found[:, :, 1, :3], found[:, :, 0, 1:], atol=1e-4, rtol=1e-3)
    assert float((found[:, :, 2] - found[:, :, 0]).abs().mean()) > 0.05
    fewer = kind(**SMALL, speed_kmh=30.0, num_symbols=2, **QUIET).drops(2, gen("sionna"))
    torch.testing.assert_close(fewer.gain[..., 0, :], drops.gain[..., 0, :2], atol=1e-5, rtol=1e-4)


def test_sionna_in_the_houses_order_and_signs(monkeypatch):
    """A user 11 degrees below the horizon to the left, in line of sight, coming closer: its tap says so."""
    place, mast = torch.tensor([100.0, 60.0, 1.5]), torch.tensor([0.0, 0.0, 25.0])
    toward = (mast - place) / (mast - place).norm()

    def topology(n, *_, **__):
        fill = lambda v: torch.as_tensor(v).expand(n, 1, 3).clone()  # noqa: E731
        still = torch.zeros(3)
        return fill(place), fill(mast), fill(still), fill(still), fill(30 * toward), torch.zeros(n, 1, dtype=torch.bool)

    monkeypatch.setattr("sionna.phy.channel.gen_single_sector_topology", topology)
    scene = SrsUma(columns=8, rows=4, los=True, period_s=5e-4, num_symbols=2)
    tap = scene.drops(6, gen("signs")).gain[:, :, 0, 0]  # the first tap: (n, rx_ant, symbol)
    b = scene.model.array_steering(-toward[None, 1:].double())[0].to(tap.dtype)
    share = (b.conj() @ tap[..., 0].mT).abs().square() / tap[..., 0].abs().square().sum(-1) / 32
    assert float(share.median()) > 0.9
    turn = (tap[..., 1] * tap[..., 0].conj()).sum(-1).angle()
    assert float(turn.median()) == pytest.approx(2 * math.pi * 30 * 3.5e9 / 299792458 * 5e-4, abs=0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_everything(kind, tmp_path):
    scene = kind(**SMALL, lags_s=(1e-3,), reciprocity_error_db=-30.0)
    slot = scene.draw(2, gen("file"))
    write(tmp_path / "x.h5", slot)
    back = read(tmp_path / "x.h5")
    assert torch.equal(back.obs.y, slot.obs.y) and back.obs.axes == slot.obs.axes
    assert torch.equal(back.obs.op.right.index, slot.obs.op.right.index) and back.obs.op.right.size == 24
    for name, value in slot.truth._asdict().items():
        assert (value is None and not hasattr(back.truth, name)) or torch.equal(getattr(back.truth, name), value)
    assert Sounding.of(back.about, 4) == scene.model and back.about.kind == "srs"
    slots = list(scene.slots(3, gen("file"), links=2))
    write_slots(tmp_path / "y.h5", slots)
    for ours, theirs in zip(slots, read_slots(tmp_path / "y.h5"), strict=True):
        assert torch.equal(ours.obs.y, theirs.obs.y) and torch.equal(ours.truth.h, theirs.truth.h)
        assert torch.equal(ours.obs.op.right.index, theirs.obs.op.right.index)
        assert Sounding.of(theirs.about, 4) == scene.model
    told = describe(tmp_path / "y.h5")
    assert told["problems"] == [] and told["channel_axes"] == {"rx_ant": 4, "subcarrier": 24}
    with pytest.raises(InputError, match="selection: differs between slots"):
        read(tmp_path / "y.h5")


@pytest.mark.parametrize("kind", ["npz", "mat"])
def test_hops_are_read_from_arrays_of_other_programs(kind, tmp_path):
    slot = SrsPaths(**SMALL, num_symbols=3).draw(2, gen("arrays"))
    index, y = slot.obs.op.right.index.numpy(), slot.obs.y.numpy()
    told = {"y": y, "y_axes": "batch rx_ant symbol subcarrier", "noise_var": 0.1}
    told |= {"selection": index, "selection_axes": "symbol subcarrier", "selection_size": 24}
    file = tmp_path / f"x.{kind}"
    (np.savez if kind == "npz" else lambda path, **values: savemat(path, values))(file, **told)  # type: ignore[operator]
    back = read(file).obs
    assert torch.equal(back.y, slot.obs.y) and back.axes == slot.obs.axes
    assert torch.equal(back.op.right.index, slot.obs.op.right.index) and back.op.in_shape == (4, 3, 24)
    np.savez(tmp_path / "y.npz", **{**told, "selection": index[:2]})
    with pytest.raises(InputError, match=r"selection: expected the tones of each symbol.*got shape \(2, 12\)"):
        read(tmp_path / "y.npz")
    del told["selection"]
    np.savez(tmp_path / "z.npz", **told, pilots=y[0, 0])
    with pytest.raises(InputError, match="pilots"):
        read(tmp_path / "z.npz")


def test_a_method_gets_its_law_from_the_file(tmp_path):
    scene = SrsPaths(**SMALL, speed_kmh=30.0, timing_spread_s=3e-9)
    write(tmp_path / "x.h5", scene.draw(1, gen("law")))
    back = read(tmp_path / "x.h5")
    assert method_for("tst-music", back.obs, back.about).model == scene.model
    assert method_for("tst-music", back.obs).model is None
    slot = next(scene.slots(1, gen("law")))
    assert method_for("tst-music", slot.obs, slot.about).model == scene.model
    with pytest.raises(ValueError, match="unknown setting 'model'"):
        method_for("tst-music", back.obs, back.about, settings={"model": "x"})
    # without a name: what goes beyond the tones that are seen, where the file tells the law
    found = choice_for("auto", back.obs, back.about)
    assert (found.name, found.method.model) == ("joint-ml", scene.model) and "4 symbols" in found.why
    assert choice_for("auto", back.obs).name == "auto"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hops": 0}, "hops"),
        ({"hops": 3}, "hops that divide the 500 tones, got 3"),
        ({"num_symbols": 0}, "num_symbols"),
        ({"hop_order": "random"}, "hop_order"),
        ({"snr_db": math.inf}, "snr_db"),
        ({"speed_kmh": -1.0}, "speed_kmh"),
        ({"period_s": 0.0}, "period_s"),
        ({"timing_spread_s": -1e-9}, "timing_spread_s"),
        ({"lags_s": (0.0,)}, "lags_s"),
        ({"num_paths": 0}, "num_paths"),
        ({"num_paths": 40}, "do not fit"),
        ({"min_delay_s": 3e-6}, "min_delay_s"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SrsPaths(**settings)


def test_more_symbols_than_were_drawn_are_refused():
    scene = SrsUma(**SMALL)
    with pytest.raises(ValueError, match="at least 6 symbols, got 4"):
        scene.slot_of(scene.drops(1, gen("few")), gen("few"), 6)
    with pytest.raises(ValueError, match="n is an integer of at least 1"):
        scene.draw(0, gen("none"))
