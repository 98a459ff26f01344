"""Echoes: the record, its compression, the scenario's law, and files of it."""

import itertools
import json
import math

import h5py
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstest
from typer.testing import CliRunner

import hhat
from hhat.io import InputError, batches, read, read_slots, write, write_slots
from hhat.io.inspect import describe
from hhat.methods.polar import LIGHT_M_PER_S
from hhat.random import complex_normal, generator
from hhat.scenarios.echoes import EchoScene, _gamma
from hhat.sensing import Echoes, compress, noise_level, search
from hhat.sensing.echoes import delay_basis_for, delay_response, steering

SMALL = {"num_rx_ant": 8, "num_subcarriers": 32, "subcarrier_spacing_hz": 1.92e6}
WIDTH_M = 33.75


def test_rank_of_the_delay_subspace_is_the_published_one():
    basis = delay_basis_for(256, 240e3, WIDTH_M, 1e-12)
    torch.testing.assert_close(basis.mH @ basis, torch.eye(basis.shape[1], dtype=basis.dtype), atol=1e-12, rtol=0)
    cycles = 240e3 * 2 * torch.linspace(0, WIDTH_M, 999, dtype=torch.float64) / LIGHT_M_PER_S
    b = torch.exp(-2j * math.pi * torch.arange(256) * cycles[:, None])
    for rank, lost in ((16, 2.2e-2), (18, 3.0e-4), (20, 2.2e-6), (22, 1.0e-8)):  # spec, section 6.2
        found = (1 - (b @ basis[:, :rank].conj()).abs().square().sum(-1) / 256).max()
        assert float(found) == pytest.approx(lost, rel=0.45)
    assert delay_basis_for(256, 240e3, WIDTH_M, 1e-9).shape[1] in (23, 24)
    full = delay_basis_for(8, 1e6, 200.0)  # a sector wider than the unambiguous range: nothing can be left out
    assert full.shape == (8, 8)


@pytest.mark.parametrize("more", [{}, {"spherical": True}, {"max_targets": 3}, {"num_subcarriers": 256}])
def test_the_compressed_draw_is_the_compressed_full_draw(more):
    settings = SMALL | {"snr_db": 140.0, "presence": 1.0} | more
    compressed, full = (EchoScene(form=form, **settings).draw(5, generator("forms")) for form in ("compressed", "full"))
    assert torch.equal(compressed.truth.gain, full.truth.gain) and torch.equal(compressed.truth.u, full.truth.u)
    squeezed = compress(full.obs)
    scale = full.obs.y.abs().square().sum((-2, -1))
    assert float(((squeezed.y - compressed.obs.y).abs().square().sum((-2, -1)) / scale).max()) < 1e-10
    torch.testing.assert_close(squeezed.energy, compressed.obs.energy, rtol=1e-4, atol=0)
    assert squeezed.delay_basis.shape == compressed.obs.delay_basis.shape


def test_both_forms_have_one_law():
    drawn = []
    for form in ("compressed", "full"):
        slot = EchoScene(form=form, num_rx_ant=6, num_subcarriers=12, subcarrier_spacing_hz=2e6).draw(
            1500, generator("law", form)
        )
        obs = slot.obs if form == "compressed" else compress(slot.obs)
        drawn.append((search(obs, slot.truth.kappa).statistic, obs.energy))
    for one, other in zip(*drawn, strict=True):
        assert ks_2samp(one, other).pvalue > 1e-3


def test_energy_outside_the_columns_is_gamma():
    for shape in (1, 3, 200):
        assert kstest(_gamma(shape, 3000, generator("gamma", shape)), "gamma", args=(shape,)).pvalue > 1e-3
    assert torch.equal(_gamma(0, 3, generator("gamma")), torch.zeros(3))


def test_draws_follow_the_stated_law():
    scene = EchoScene(**SMALL, max_targets=3)
    slot = scene.draw(6000, generator("scene"))
    truth, obs = slot.truth, slot.obs
    kappa = truth.kappa
    assert float(kappa.abs().square().sum()) == pytest.approx(8, rel=1e-5)
    assert (
        float(kappa.angle().abs().max()) <= math.pi / 2 and float(kappa.abs().max() / kappa.abs().min()) < 1.05 / 0.95
    )
    phases = torch.cat([EchoScene(**SMALL, kappa_seed=k).kappa().angle() for k in range(150)])
    assert kstest(phases, "uniform", args=(-math.pi / 2, math.pi)).pvalue > 1e-3
    limits = torch.rad2deg(obs.u_limits.asin())
    width = limits[:, 1] - limits[:, 0]
    assert 9.999 < float(width.min()) < 10.1 and 19.9 < float(width.max()) < 20.001
    assert float(limits.mean(-1).abs().max()) < 60.001
    count = truth.present.sum(-1)
    assert float((count > 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    for k in (1, 2, 3):
        assert float((count == k).float().mean()) == pytest.approx(0.5 / 3, abs=0.02)
    inside = (truth.u >= obs.u_limits[:, :1]) & (truth.u <= obs.u_limits[:, 1:])
    assert bool(inside.all()) and float(truth.range_m.min()) >= 10 and float(truth.range_m.max()) <= 43.75
    power = truth.gain[truth.present].abs().square() * 8 * 32
    assert kstest(power, "expon", args=(0, 10**1.5)).pvalue > 1e-3
    assert bool((truth.gain[~truth.present] == 0).all())
    assert obs.noise_var == 1 and obs.snr == pytest.approx(10**1.5) and slot.about.kind == "echo"


def test_as_many_targets_as_are_asked_for():
    slot = EchoScene(**SMALL, presence=0.5, min_targets=2, max_targets=4).draw(3000, generator("crowd"))
    count = slot.truth.present.sum(-1)
    shares = torch.tensor([float((count == k).double().mean()) for k in range(5)])
    torch.testing.assert_close(shares, torch.tensor([0.5, 0, 1 / 6, 1 / 6, 1 / 6]), atol=0.03, rtol=0)


def test_draws_depend_on_the_given_generator_alone():
    scene = EchoScene.example(generator("example"))
    outside = torch.get_rng_state()
    first, again, other = (scene.draw(3, generator("draw", k)).obs for k in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), outside)
    assert torch.equal(first.y, again.y) and not torch.equal(first.y, other.y)
    for wrong in ({"n": 0}, {"n": 1, "links": 0}):
        with pytest.raises(ValueError, match="is an integer of at least 1"):
            next(scene.slots(gen=generator("none"), **wrong))


def test_phases_walk_between_slots():
    scene = EchoScene(num_rx_ant=400, num_subcarriers=2, drift_deg=1.0, presence=0.0)
    slots = list(scene.slots(3, generator("walk"), links=250))
    assert torch.equal(slots[0].truth.kappa, scene.kappa())
    steps = [(b.truth.kappa * a.truth.kappa.conj()).angle().rad2deg() for a, b in itertools.pairwise(slots)]
    for step in steps:
        assert float(step.square().mean().sqrt()) == pytest.approx(0.5, rel=0.15)  # 1 degree * sqrt(250 / 1000)
    still = list(EchoScene(**SMALL).slots(2, generator("walk")))
    assert torch.equal(still[0].truth.kappa, still[1].truth.kappa)
    assert not torch.equal(still[0].obs.y, still[1].obs.y)


def test_steering_by_geometry():
    scene = EchoScene(num_rx_ant=64, num_subcarriers=2, spherical=True)
    obs = scene.draw(1, generator("waves")).obs
    u, range_m = torch.tensor([-0.9, -0.2, 0.0, 0.7]), torch.tensor([2.0, 10.0, 43.0])
    found = steering(obs, u[:, None], range_m)
    places = np.arange(64) * obs.wavelength_m / 2
    for i, sine in enumerate(u.double().numpy()):
        for j, far in enumerate(range_m.double().numpy()):
            away = np.hypot(far * np.sqrt(1 - sine**2), far * sine - places)
            wave = np.exp(-2j * np.pi * (away - far) / obs.wavelength_m)  # phases count from antenna 0
            np.testing.assert_allclose(found[i, j].numpy(), wave, atol=1e-3)
    with pytest.raises(ValueError, match="need a range"):
        steering(obs, u)
    plane = EchoScene(num_rx_ant=64, num_subcarriers=2).draw(1, generator("waves")).obs
    torch.testing.assert_close(steering(obs, u, torch.tensor(1e7)), steering(plane, u), atol=1e-3, rtol=0)
    spaced = EchoScene(num_rx_ant=3, num_subcarriers=2, positions=(0.0, 0.3, 1.1)).draw(1, generator("waves")).obs
    wave = torch.exp(2j * math.pi * u.double()[:, None] * torch.tensor([0.0, 0.3, 1.1], dtype=torch.float64))
    torch.testing.assert_close(steering(spaced, u), wave.to(torch.complex64))


def test_a_slope_of_kappa_is_a_shift_of_u():
    obs = EchoScene(**SMALL).draw(1, generator("slope")).obs
    u, shift = torch.tensor([0.3]), 0.01
    slope = torch.exp(1j * math.pi * shift * torch.arange(8)).to(torch.complex64)
    torch.testing.assert_close(slope * steering(obs, u - shift), steering(obs, u))


def test_noise_is_estimated_from_what_lies_outside():
    slot = EchoScene(num_rx_ant=16, num_subcarriers=64).draw(200, generator("noise"))
    unknown = Echoes(**(vars(slot.obs) | {"noise_var": None, "y": 3 * slot.obs.y, "energy": 9 * slot.obs.energy}))
    assert noise_level(unknown) == pytest.approx(9, rel=0.02)
    with pytest.raises(ValueError, match="noise_var: expected a number"):
        noise_level(Echoes(**(vars(unknown) | {"energy": None})))


def test_rows_and_flat_keep_what_belongs_together():
    obs = EchoScene(**SMALL, form="full").draw(6, generator("rows")).obs
    some = obs.rows(torch.tensor([4, 1]))
    assert torch.equal(some.symbols, obs.symbols[[4, 1]]) and torch.equal(some.u_limits[1], obs.u_limits[1])
    deep = Echoes(
        **(vars(obs) | {k: v.unflatten(0, (2, 3)) for k, v in vars(obs).items() if k in ("y", "u_limits", "symbols")})
    )
    assert deep.batch_shape == (2, 3) and torch.equal(deep.flat().y, obs.y)
    assert torch.equal(deep.flat().symbols, obs.symbols) and torch.equal(deep.flat().u_limits, obs.u_limits)
    with pytest.raises(ValueError, match="one batch axis"):
        deep.rows(slice(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.zeros(2, 8, 32)}, "y: expected complex"),
        ({"symbols": None}, "either symbols"),
        ({"symbols": torch.ones(31, dtype=torch.complex64)}, "symbols: expected shape"),
        ({"u_limits": torch.tensor([0.1, 1.2])}, "u_limits: expected -1 <= least"),
        ({"u_limits": torch.tensor([0.2, 0.1])}, "u_limits: expected"),
        ({"range_limits_m": torch.zeros(3, 2)}, "range_limits_m: expected shape"),
        ({"positions": torch.zeros(7)}, "positions: expected shape"),
        ({"energy": torch.zeros(3)}, "energy: expected shape"),
        ({"noise_var": 0.0}, "noise_var: expected a finite number above 0"),
        ({"snr": math.nan}, "snr: expected a finite"),
    ],
)
def test_wrong_records_are_refused(change, message):
    obs = EchoScene(**SMALL, form="full").draw(2, generator("wrong")).obs
    with pytest.raises(ValueError, match=message):
        Echoes(**(vars(obs) | change))


def test_what_cannot_be_compressed_is_refused():
    obs = EchoScene(**SMALL, form="full").draw(2, generator("wrong")).obs
    with pytest.raises(ValueError, match="unit modulus"):
        compress(Echoes(**(vars(obs) | {"symbols": 2 * obs.symbols})))
    with pytest.raises(ValueError, match="with their symbols"):
        compress(compress(obs))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_rx_ant": 0}, "num_rx_ant is an integer"),
        ({"presence": 1.5}, "presence is a number"),
        ({"form": "half"}, "form is one of"),
        ({"range_min_m": 50.0}, "range_max_m is a number above 50"),
        ({"sector_width_min_deg": 30.0}, "sector_width_min_deg"),
        ({"sector_center_deg": 85.0}, "sector_center_deg"),
        ({"positions": (0.0, 0.5)}, "positions: expected 64 numbers"),
        ({"snr_db": math.inf}, "snr_db"),
        ({"min_targets": 3, "max_targets": 2}, "min_targets: expected at most 2"),
        ({"num_tx_ant": 2, "spherical": True}, "expected plane waves with several transmitting"),
        ({"num_tx_ant": 2, "tx_spacing": -1.0}, "tx_spacing is a number"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EchoScene(**settings)


def assert_same(one, other):
    for name, value in vars(one.obs).items():
        back = getattr(other.obs, name)
        if isinstance(value, torch.Tensor):
            assert back.dtype == value.dtype and torch.equal(back, value), name
        else:
            assert back == (pytest.approx(value) if isinstance(value, float) else value), name
    for name, value in one.truth._asdict().items():
        assert torch.equal(getattr(other.truth, name), value), name


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"form": "full", "max_targets": 2},
        {"spherical": True},
        {"positions": (0.0, 0.4, 1.0, 1.3, 2.0, 2.7, 3.1, 3.3)},
    ],
)
def test_files_hold_echoes_whole_and_in_pieces(tmp_path, more):
    slot = EchoScene(**SMALL, **more).draw(5, generator("file"))
    write(tmp_path / "echo.h5", slot)
    back = read(tmp_path / "echo.h5")
    assert_same(slot, back)
    assert back.about.kind == "echo" and back.about.snr_definition == slot.about.snr_definition
    pieces = list(batches(tmp_path / "echo.h5", 2))
    assert [len(piece.obs.y) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([piece.obs.u_limits for piece in pieces]), slot.obs.u_limits)
    assert torch.equal(torch.cat([piece.truth.gain for piece in pieces]), slot.truth.gain)
    found = describe(tmp_path / "echo.h5")
    assert found["problems"] == [] and "echoes" in found["operator"] and found["kind"] == "echo"
    write(tmp_path / "again.h5", back)
    assert_same(back, read(tmp_path / "again.h5"))


def test_files_hold_slots_of_echoes(tmp_path):
    slots = list(EchoScene(**SMALL, drift_deg=10.0).slots(3, generator("file"), links=4))
    write_slots(tmp_path / "slots.h5", slots)
    for slot, back in zip(slots, read_slots(tmp_path / "slots.h5"), strict=True):
        assert_same(slot, back)


def test_a_users_archive_of_echoes(tmp_path):
    gen = generator("npz")
    y, x = complex_normal((3, 4, 16), gen), torch.ones(16, dtype=torch.complex64)
    wanted = {
        "y": y.numpy(),
        "symbols": x.numpy(),
        "u_limits": np.array([[-0.1, 0.2]] * 3, np.float32),
        "range_limits_m": np.array([5.0, 20.0], np.float32),
        "carrier_hz": 28e9,
        "subcarrier_spacing_hz": 1e6,
        "truth_kappa": np.ones(4, np.complex64),
    }
    np.savez(tmp_path / "mine.npz", **wanted)
    slot = read(tmp_path / "mine.npz")
    assert torch.equal(slot.obs.y, y) and slot.obs.noise_var is None and slot.obs.snr is None
    assert slot.obs.positions is None and slot.truth.kappa.shape == (4,) and slot.truth.present is None
    for change, message in (
        ({"range_limits_m": None}, "range_limits_m: missing"),
        ({"carrier_hz": None}, "attribute carrier_hz: missing"),
        ({"noise_var": np.ones((3, 1, 1))}, "noise_var: expected one number"),
        ({"u_limits": np.array([0.5, 0.1])}, "u_limits: expected -1 <= least"),
        ({"truth_h": np.ones(4, complex)}, "truth/h: unknown"),
        ({"symbols": None}, "either symbols"),
        ({"geometry_rx_ant": np.array([[0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 3, 0]])}, "straight line"),
        ({"geometry_rx_ant": np.zeros((3, 3))}, "3 element positions"),
    ):
        np.savez(tmp_path / "bad.npz", **{k: v for k, v in (wanted | change).items() if v is not None})
        with pytest.raises(InputError, match=message):
            read(tmp_path / "bad.npz")


def test_positions_come_from_any_straight_line(tmp_path):
    slot = EchoScene(**SMALL).draw(2, generator("line"))
    write(tmp_path / "line.h5", slot)
    with h5py.File(tmp_path / "line.h5", "r+") as file:
        file.attrs["geometry_rx_ant"] = np.array([1.0, 2.0, 3.0]) + np.arange(8)[:, None] * np.array([0.36, 0.0, 0.48])
    places = read(tmp_path / "line.h5").obs.positions
    torch.testing.assert_close(places, 0.6 * torch.arange(8, dtype=torch.float64))


def test_the_command_line_simulates_and_refuses_to_estimate(tmp_path):
    from hhat.cli import app

    run, out = CliRunner(), str(tmp_path / "echo.h5")
    sets = [part for key in ("num_rx_ant=4", "num_subcarriers=8") for part in ("--set", key)]
    made = run.invoke(app, ["simulate", "echoes", "-o", out, "-n", "3", "--json", *sets])
    assert made.exit_code == 0 and json.loads(made.stdout)["channel_shape"] == [4, 8]
    assert json.loads(run.invoke(app, ["inspect", out, "--json"]).stdout)["problems"] == []
    with pytest.raises(ValueError, match="holds echoes, expected pilots"):
        run.invoke(app, ["estimate", out], catch_exceptions=False)


def test_matched_responses_are_those_of_the_symbols():
    obs = EchoScene(**SMALL, form="full").draw(2, generator("response")).obs
    tau = 2 * torch.tensor([12.0, 30.0], dtype=torch.float64) / LIGHT_M_PER_S
    b = torch.exp(-2j * math.pi * 1.92e6 * torch.arange(32) * tau[:, None])
    torch.testing.assert_close(
        delay_response(obs, torch.tensor([12.0, 30.0])), b.to(torch.complex64), atol=1e-4, rtol=0
    )
    small = compress(obs)
    low = torch.exp(-2j * math.pi * 1.92e6 * torch.arange(32) * 2 * 10.0 / LIGHT_M_PER_S)
    c = (b * low.conj()).to(torch.complex64) @ small.delay_basis.conj()
    torch.testing.assert_close(delay_response(small, torch.tensor([12.0, 30.0])), c, atol=1e-4, rtol=0)


def test_the_scenario_is_registered():
    assert hhat.scenario("echoes", snr_db=3.0).snr_db == 3.0


def test_broken_echo_files_give_one_line_errors(tmp_path):
    slot = EchoScene(**SMALL, max_targets=2).draw(3, generator("broken"))
    obs, truth = slot.obs, slot.truth
    held = {
        name: getattr(obs, name).numpy() for name in ("y", "u_limits", "range_limits_m", "delay_basis", "energy")
    } | {f"truth_{name}": value.numpy() for name, value in truth._asdict().items()}
    more = {"noise_var": np.float64(1.0), "carrier_hz": 60e9, "subcarrier_spacing_hz": 1.92e6}
    np.savez(tmp_path / "fine.npz", **held, **more)
    read(tmp_path / "fine.npz")
    refused = 0
    for name, value in held.items():
        for wrong in (
            value[:0],
            value.reshape(-1)[:1].reshape(()),
            value[..., None],
            np.full_like(value, np.nan) if value.dtype.kind in "fc" else value.astype(complex),
            np.concatenate([value, value], -1),
            np.array(["text"]),
        ):
            np.savez(tmp_path / "bad.npz", **(held | {name: wrong}), **more)
            try:
                read(tmp_path / "bad.npz")
            except InputError as error:
                assert "\n" not in str(error) and "bad.npz" in str(error)
                refused += 1
    assert refused > 38
