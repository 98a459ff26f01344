"""Calibrators: what each owes, the oracles of the eigenvector, gradients and the stream, the command line."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch

import hhat
from hhat import registry
from hhat.cli import main
from hhat.random import complex_normal, generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing import search
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.blocks import compacted, joined
from hhat.sensing.calibration import load_calibration, save_calibration
from hhat.sensing.losses import ResidualLoss
from hhat.sensing.scatter import normalised, shifted
from hhat.sensing.start import ones
from hhat.types import Status

SMALL = {"num_rx_ant": 16, "num_subcarriers": 32, "subcarrier_spacing_hz": 1.92e6, "snr_db": 20.0}
PAPER = {
    "start": ones,
    "gate": None,
    "margin_u": 0.0,
    "passes": 0,
    "find_shift": False,
    "unbend": False,
}
SETTINGS = {"gradient": {"batch": 100, "max_steps": 3}, "streaming": {"warm": 200}}


def draw(n=600, label="calibrators", **more):
    return EchoScene(**(SMALL | more)).draw(n, generator(label))


@pytest.fixture(scope="module")
def slot():
    return draw()


@pytest.fixture(params=list(registry.CALIBRATORS))
def calibrator(request):
    return hhat.calibrator(request.param, **SETTINGS.get(request.param, {}))


def test_a_step_is_pure_and_its_state_survives_a_file(calibrator, slot, tmp_path):
    state = calibrator.init(slot.obs, generator("pure"))
    before = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in state.items()}
    first, second = calibrator.step(state, slot.obs), calibrator.step(state, slot.obs)
    assert first.keys() == second.keys()
    for key, value in before.items():
        same = torch.equal(value, state[key]) if isinstance(value, torch.Tensor) else value is state[key]
        assert same or value == state[key], key
    torch.testing.assert_close(first["kappa"], second["kappa"], rtol=0, atol=0)
    hhat.save_state(tmp_path / "s.safetensors", first)
    again = hhat.load_state(tmp_path / "s.safetensors")
    one, other = (calibrator.read(calibrator.step(s, slot.obs), slot.obs) for s in (first, again))
    assert torch.equal(one.kappa, other.kappa) and torch.equal(one.var, other.var) and one.status == other.status


def test_gains_are_scaled_and_the_scale_and_phase_of_y_do_not_matter(calibrator, slot):
    found = hhat.calibrate(slot.obs, calibrator, max_steps=2)
    assert found.kappa.shape == found.var.shape == found.phase_var.shape == (16,)
    assert float(found.kappa.abs().square().sum()) == pytest.approx(16, rel=1e-5)
    assert float(found.kappa.sum().imag) == pytest.approx(0, abs=1e-4) and float(found.kappa.sum().real) > 0
    c = 37.0 * complex(0.6, 0.8)
    scaled = replace(slot.obs, y=c * slot.obs.y, noise_var=37.0**2, energy=37.0**2 * slot.obs.energy)
    other = hhat.calibrate(scaled, calibrator, max_steps=2)
    assert float(gain_errors(other.kappa, found.kappa).e0) < 1e-4


def test_what_calibrates_calibrates(slot):
    """e0 within the uncertainty that each states; the paper's gradient has none."""
    before = gain_errors(torch.ones(16, dtype=torch.complex64), slot.truth.kappa)
    for name, settings, worst in (
        ("eigenvector", {}, None),
        ("soft-em", {}, None),
        ("gradient", {"max_steps": 25, "batch": 200, "rate": 0.06}, 0.06),
    ):
        found = hhat.calibrate(slot.obs, hhat.calibrator(name, **settings))
        errors = gain_errors(found.kappa, slot.truth.kappa)
        assert float(before.e0) > 0.3 and found.status == Status.OK
        assert float(errors.e1) < (worst or 3 * found.expected_e1), name
        assert worst or float(errors.e0) < 6 * found.expected_e0, name
        assert math.isfinite(found.shift_var) == (name != "gradient")


def test_loss_14_never_rises_on_an_exact_grid():
    """Oracle O7, without gate, margin and refinement: the alternation climbs the empirical objective."""
    echoes = draw(150, snr_db=14.0).obs
    calibrator = hhat.calibrator("eigenvector", **PAPER, first=1000, coarse=(1, 1), size=(40, 40))
    state, values = calibrator.init(echoes, generator("o7")), []
    for _ in range(5):
        values.append(float(search(echoes, state["kappa"], (40, 40), (1, 1)).statistic.double().mean()))
        state = calibrator.step(state, echoes)
    assert all(after >= before * (1 - 1e-6) for before, after in itertools.pairwise(values))
    assert values[-1] > 1.3 * values[0]


def test_true_gains_stay_without_noise_and_the_shift_stays_where_it_starts():
    """Oracle O7: at 60 dB e1 < 1e-5, and what the sectors do not tell is kept by the eigenvector alone."""
    slot = draw(256, snr_db=60.0)
    kappa, echoes = slot.truth.kappa, slot.obs
    for start in (0.0, 0.003):
        first = shifted(kappa, torch.arange(16) / 2, -start)
        settings = {"start": lambda _, k=first: k, "find_shift": False, "first": 1 << 20, "tol": None, "max_steps": 4}
        found = hhat.calibrate(echoes, hhat.calibrator("eigenvector", **settings))
        errors = gain_errors(found.kappa, kappa)
        assert float(errors.e1) < 1e-5 and float(errors.shift_u) == pytest.approx(start, abs=3e-4)


def test_echoes_without_targets_calibrate_nothing_and_say_so():
    """Oracle O10."""
    slot = draw(1500, presence=0.0)
    found = hhat.calibrate(slot.obs)
    assert found.status == Status.WARMING_UP and bool(torch.isinf(found.var).all())
    assert float(gain_errors(found.kappa, slot.truth.kappa).e1) > 0.3
    assert found.info["echoes_used"] < 0.05 * 1500


def test_uncertainty_holds_near_the_edge_of_what_can_be_found():
    """At 7 dB in 1,500 snapshots the sandwich alone states 1 / 1.6 of e1."""
    ratios = []
    for seed in range(1, 5):
        slot = draw(1500, f"edge {seed}", snr_db=7.0, kappa_seed=seed)
        found = hhat.calibrate(slot.obs)
        assert found.status in (Status.OK, Status.MAX_STEPS) and 0.6 < found.info["pull"] < 0.95
        ratios.append(float(gain_errors(found.kappa, slot.truth.kappa).e1) / found.expected_e1)
    assert 0.7 < sum(ratios) / 4 < 1.35


def test_projected_gradients_of_both_losses_take_one_path_and_unprojected_ones_do_not():
    """Oracle O12, and pitfall P2: unprojected, (14) is pushed towards phases at odd multiples of 45 degrees."""
    slot = EchoScene(kappa_seed=3).draw(200, generator("o12"))
    e0 = {}
    for project in (True, False):
        for name, more in (("14", {}), ("15", {"loss": ResidualLoss()})):
            calibrator = hhat.calibrator("gradient", project=project, batch=64, max_steps=8, **more)
            e0[project, name] = float(gain_errors(hhat.calibrate(slot.obs, calibrator).kappa, slot.truth.kappa).e0)
    assert abs(e0[True, "14"] - e0[True, "15"]) < 2e-4
    assert abs(e0[False, "14"] - e0[False, "15"]) > 1e-3
    assert e0[True, "14"] < 0.55


def test_a_stream_resumes_bit_for_bit_and_warms_up(tmp_path):
    echoes, kappa = (slot := draw(1200)).obs, slot.truth.kappa
    calibrator = hhat.calibrator("streaming", warm=300)
    blocks = [echoes.rows(slice(first, first + 200)) for first in range(0, 1200, 200)]
    whole = list(hhat.follow(calibrator, blocks))
    assert [found.status.name for _, found in whole] == ["WARMING_UP"] + 5 * ["OK"]
    for state, _ in hhat.follow(calibrator, blocks[:3]):
        hhat.save_state(tmp_path / "stream.safetensors", state)
    rest = list(hhat.follow(calibrator, blocks[3:], hhat.load_state(tmp_path / "stream.safetensors")))
    for (_, one), (_, other) in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.kappa, other.kappa) and one.shift_var == other.shift_var
    last = whole[-1][1]
    assert float(gain_errors(last.kappa, kappa).e1) < 3 * last.expected_e1


def test_a_stream_given_at_once_is_one_block_and_counts_each_snapshot_once():
    (slot := draw(600)), (calibrator := hhat.calibrator("streaming", warm=300))
    ((_, block),) = hhat.follow(calibrator, [slot.obs])
    found = hhat.calibrate(slot.obs, calibrator)
    assert torch.equal(found.kappa, block.kappa) and torch.equal(found.var, block.var)
    # as sure as the eigenvector of the same snapshots is, not four times as sure
    wanted = hhat.calibrate(slot.obs).expected_e1
    assert 0.6 * wanted < found.expected_e1 < 1.7 * wanted
    assert hhat.calibrate(slot.obs.rows(slice(0, 100)), calibrator).status == Status.WARMING_UP


def test_the_shift_has_a_memory_of_its_own():
    slot = draw(1600)
    blocks = [slot.obs.rows(slice(i, i + 200)) for i in range(0, 1600, 200)]
    last = {}
    for shift_memory in (1e-3, 1e9):
        calibrator = hhat.calibrator("streaming", memory=1e9, shift_memory=shift_memory, warm=200)
        *_, (_, last[shift_memory]) = hhat.follow(calibrator, blocks)
    short, long = last.values()
    # seven blocks of evidence against one; the scatter is the same but for the shifts
    assert short.shift_var > 3 * long.shift_var
    assert float(short.var.mean()) == pytest.approx(float(long.var.mean()), rel=0.05)


def test_a_stream_follows_drift_that_frozen_gains_do_not():
    scene = EchoScene(**SMALL, drift_deg=20.0)
    slots = list(scene.slots(12, generator("drift"), links=400))
    calibrator = hhat.calibrator("streaming", memory=500, warm=400)
    *_, (_, followed) = hhat.follow(calibrator, slots)
    frozen = hhat.calibrate(joined([slot.obs for slot in slots[:3]]))
    now = slots[-1].truth.kappa
    assert float(gain_errors(followed.kappa, now).e0) < 0.4 * float(gain_errors(frozen.kappa, now).e0)


def test_forms_and_blocks_of_echoes_do_not_matter():
    slot = draw(400, form="full")
    small = compacted(slot.obs)
    assert small.delay_basis is not None and compacted(small) is small
    halves = joined([slot.obs.rows(slice(0, 150)), slot.obs.rows(slice(150, 400))])
    assert torch.equal(halves.y, slot.obs.y) and torch.equal(halves.symbols, slot.obs.symbols)
    whole, few = hhat.calibrate(slot.obs), hhat.calibrate(small)
    assert float(gain_errors(few.kappa, whole.kappa).e0) < 1e-5
    with pytest.raises(ValueError, match="one form"):
        joined([slot.obs, small])


def test_other_arrays_and_waves():
    """Unequal spacing, and spherical waves at ranges within the array's Rayleigh distance."""
    places = tuple(float(x) for x in torch.tensor([0.0, 0.5, 1.2, 1.6, 2.3, 2.8, 3.4, 4.1]).tolist())
    for more in ({"num_rx_ant": 8, "positions": places}, {"spherical": True, "num_rx_ant": 24, "range_min_m": 0.5}):
        slot = draw(900, **more)
        found = hhat.calibrate(slot.obs)
        errors = gain_errors(found.kappa, slot.truth.kappa, found.positions)
        assert found.status == Status.OK and float(errors.e1) < 4 * found.expected_e1


def test_calibrations_go_through_files(tmp_path):
    found = hhat.calibrate(draw(300).obs)
    save_calibration(tmp_path / "k.safetensors", found, {"note": "kept"})
    again = load_calibration(tmp_path / "k.safetensors")
    assert torch.equal(again.kappa, found.kappa) and torch.equal(again.phase_var, found.phase_var)
    assert again.status == found.status and again.info["note"] == "kept" and again.shift_var == found.shift_var
    hhat.save_state(tmp_path / "other.safetensors", {"kappa": torch.ones(3)})
    with pytest.raises(ValueError, match="var: missing"):
        load_calibration(tmp_path / "other.safetensors")
    h = complex_normal((16, 5), generator("h"))
    torch.testing.assert_close(found.op((16, 5)) @ h, found.kappa[:, None] * h)
    torch.testing.assert_close(found.op((16,)) @ h[:, 0], found.kappa * h[:, 0])
    with pytest.raises(ValueError, match="holds 16 antennas"):
        found.op((8, 5))
    assert bool((found.belief.var > 0).all())


@pytest.fixture
def call(capsys):
    def run(*arguments):
        capsys.readouterr()
        code = main([str(word) for word in arguments])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return run


def test_the_command_line_calibrates_and_estimates_with_it(tmp_path, call):
    scene = [f"{key}={value}" for key, value in SMALL.items()]
    settings = [word for pair in scene for word in ("--set", pair)]
    echoes, gains = tmp_path / "echoes.h5", tmp_path / "kappa.safetensors"
    assert call("simulate", "echoes", "-o", echoes, "-n", 600, *settings)[0] == 0
    code, out, _ = call("calibrate", echoes, "-o", gains, "--json")
    document = json.loads(out)
    assert code == 0 and document["status"] == "OK" and document["e0"] < 0.2 * document["e0_uncalibrated"]
    assert len(document["phase_sd_rad"]) == 16 and document["out"] == str(gains)
    code, out, _ = call("calibrate", echoes, "--method", "streaming", "--set", "warm=100")
    assert code == 0 and "e0 true" in out and "per antenna" in out

    # pilots received through the same antennas
    kappa = normalised(EchoScene(**SMALL).kappa())  # up to the common phase, which no echo tells
    slot = hhat.scenario("cdl", num_rx_ant=16, num_tx_ant=4, pilot_ratio=2.0, snr_db=25.0).draw(20, generator("pilots"))
    y = slot.obs.op.apply(kappa[:, None] * slot.truth.h)
    y = y + complex_normal(tuple(y.shape), generator("noise"), var=float(slot.obs.noise_var.mean()))
    pilots = tmp_path / "pilots.h5"
    hhat.write(pilots, replace(slot, obs=hhat.Observation(y, slot.obs.op, slot.obs.noise_var, slot.obs.axes)))
    nmse = {}
    for name, more in (("without", ()), ("with", ("--calibration", gains))):
        code, out, _ = call("estimate", pilots, "--method", "lmmse", "--prior", "gauss", "--json", *more)
        assert code == 0
        nmse[name] = json.loads(out)["rows"][0]["value"]
    assert nmse["without"] > -10 and nmse["with"] < nmse["without"] - 8
    assert json.loads(out)["calibration"] == str(gains)

    small = tmp_path / "small.h5"
    hhat.write(small, hhat.scenario("cdl", num_rx_ant=2, num_tx_ant=4).draw(2, generator("few")))
    for words, said in (
        (("estimate", small, "--calibration", gains), "holds 16 antennas"),
        (("estimate", pilots, "--calibration", pilots), "not a readable state file"),
        (("estimate", pilots, "--calibration", tmp_path / "none"), "no such file"),
        (("calibrate", pilots), "expected echoes"),
        (("calibrate", echoes, "-o", tmp_path / "no" / "k.safetensors"), "no such folder"),
        (("calibrate", echoes, "-o", tmp_path / "k.h5"), ".safetensors"),
        (("calibrate", echoes, "--method", "sorcery"), "unknown calibrator"),
    ):
        code, out, err = call(*words)
        assert code == 2 and out == "" and said in err and err.count("\n") == 1, (words, err)


@pytest.mark.parametrize("method", ["eigenvector", "soft-em", "streaming"])
def test_one_antenna_has_nothing_to_be_calibrated_against(method):
    echoes = draw(8, num_rx_ant=1).obs
    with pytest.raises(ValueError, match="at least two antennas"):
        hhat.calibrate(echoes, hhat.calibrator(method, **({"warm": 4} if method == "streaming" else {})))


def test_the_command_line_marks_what_failed(tmp_path, call):
    echoes, gains = tmp_path / "empty.h5", tmp_path / "kappa.safetensors"
    hhat.write(echoes, draw(200, presence=0.0))
    code, _, err = call("calibrate", echoes, "-o", gains)
    assert code == 3, err
    assert "take more snapshots, or raise the SNR" in err and "slots" not in err
    assert "WARMING_UP" in err and load_calibration(gains).status == Status.WARMING_UP
