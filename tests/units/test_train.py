"""`train`: a killed run ends with the same bits as an unbroken one; what it is told wrongly; `hhat train`."""

import json
import signal
import subprocess
import sys

import pytest
import torch

import hhat
from hhat.cli import main
from hhat.methods.state import load_state
from hhat.priors.gauss import Gauss
from hhat.priors.weights import read_weights
from hhat.random import generator
from hhat.train import data as train_data
from hhat.train import loop
from hhat.train.data import CaptureData, UnitsData, with_noise
from hhat.train.loop import CHECKPOINT, Recipe, train
from hhat.train.models import SBL_CNN, SBL_GNN
from hhat.train.unfolding import layer_losses

SMALL = hhat.scenario("near-field", num_rx_ant=16, num_unit=2, num_subcarriers=6, num_slots=4, num_paths=2)
SHORT = Recipe(7, batch=2, check_every=2, held_out=2)


def run(model, folder=None, recipe=SHORT, data=None, progress=None):
    return train(model.fit(data or UnitsData(SMALL), recipe), recipe, folder, model.name, progress)


def stop(step, valid_db):
    if step >= 4:
        raise KeyboardInterrupt


@pytest.mark.parametrize("model", [SBL_CNN, SBL_GNN], ids=lambda model: model.name)
def test_a_killed_training_ends_with_the_same_bits(model, tmp_path):
    """One model killed in a process of its own, which takes seconds to start, the other interrupted."""
    unbroken = run(model)
    if model is SBL_CNN:
        killed(tmp_path)
    else:
        with pytest.raises(KeyboardInterrupt):
            run(model, tmp_path, progress=stop)
    assert load_state(tmp_path / CHECKPOINT)["step"] == 4
    seen = []
    resumed = run(model, tmp_path, progress=lambda step, db: seen.append(step))
    assert seen == [6, 7]
    assert all(torch.equal(value, unbroken.weights[name]) for name, value in resumed.weights.items())
    assert resumed.curve == unbroken.curve and resumed.best_step == unbroken.best_step
    again = run(model, tmp_path)
    assert all(torch.equal(value, unbroken.weights[name]) for name, value in again.weights.items())


def killed(folder):
    code = f"""
import os, signal, sys
import torch
torch.set_num_threads(1)
from tests.units.test_train import SBL_CNN, run
from pathlib import Path
def stop(step, valid_db):
    if step >= 4:
        os.kill(os.getpid(), signal.SIGKILL)
run(SBL_CNN, Path({str(folder)!r}), progress=stop)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


def test_adam_is_torch_s():
    """The loop's own update against `torch.optim.Adam`, the rate set at each step."""
    gen = generator("adam")
    start = {"a": torch.randn(3, 4, generator=gen), "b": torch.randn(5, generator=gen)}
    mine = loop._fresh(start)
    theirs = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimiser = torch.optim.Adam(theirs.values())
    for step in range(20):
        gradient = {name: torch.randn(value.shape, generator=gen) for name, value in start.items()}
        rate = loop._rate(Recipe(20), step)
        loop._adam(mine, gradient, rate)
        mine.step += 1
        optimiser.param_groups[0]["lr"] = rate
        for name, value in theirs.items():
            value.grad = gradient[name].clone()
        optimiser.step()
    for name, value in theirs.items():
        torch.testing.assert_close(mine.weights[name], value.detach(), rtol=1e-5, atol=1e-6)


def test_the_gradient_is_that_of_the_loss():
    """Central differences along a random direction, in double precision."""
    batch = UnitsData(SMALL).draw(2, (5.0, 5.0), generator("slope"))
    obs = hhat.Observation(batch.obs.y.to(torch.complex128), batch.obs.op, batch.obs.noise_var.double())
    batch = batch._replace(h=batch.h.to(torch.complex128), obs=obs)
    gen = generator("direction")
    start = {n: v.double() + 0.1 * torch.randn(v.shape, generator=gen).double() for n, v in SBL_CNN.start(1).items()}
    leaves = {name: value.requires_grad_() for name, value in start.items()}
    loss = layer_losses(SBL_CNN.build(leaves, Gauss(basis=batch.basis)), batch)[-1]
    slopes = torch.autograd.grad(loss, list(leaves.values()))
    way = {name: torch.randn(value.shape, generator=gen).double() for name, value in start.items()}
    want = sum(float((slope * way[name]).sum()) for name, slope in zip(leaves, slopes, strict=True))

    def at(step):
        moved = {name: value.detach() + step * way[name] for name, value in start.items()}
        return float(layer_losses(SBL_CNN.build(moved, Gauss(basis=batch.basis)), batch)[-1])

    assert abs((at(1e-5) - at(-1e-5)) / 2e-5 - want) < 1e-3 * abs(want)


def test_training_learns():
    """On validation channels, below where it starts: EM with as many steps."""
    scene = hhat.scenario("near-field", num_rx_ant=32, num_unit=2, num_subcarriers=8, num_slots=8)
    found = run(SBL_CNN, recipe=Recipe(60, batch=4, check_every=20, held_out=30), data=UnitsData(scene))
    batch = UnitsData(scene).draw(30, (0.0, 15.0), generator("train", "held out", 0), held_out=True)
    with torch.no_grad():
        before = float(layer_losses(SBL_CNN.build(SBL_CNN.start(0), Gauss(basis=batch.basis)), batch)[-1])
        after = float(layer_losses(SBL_CNN.build(found.weights, Gauss(basis=batch.basis)), batch)[-1])
    assert after < 0.9 * before
    assert found.curve[-1]["step"] == 60 and found.best_step in (20, 40, 60)


def test_noise_is_as_asked():
    slot = SMALL.draw(400, generator("noise"))
    obs = with_noise(slot.truth.h, slot.obs, (0.0, 15.0), generator("snr"))
    clean = slot.obs.op.apply(slot.truth.h)
    snr_db = 10 * (clean.abs().square().mean((1, 2)) / obs.noise_var[:, 0, 0]).log10()
    assert snr_db.min() >= 0 and snr_db.max() <= 15.001 and abs(snr_db.mean() - 7.5) < 0.7
    noise = (obs.y - clean).abs().square().mean((1, 2)) / obs.noise_var[:, 0, 0]
    assert abs(noise.mean() - 1) < 0.03


def test_a_capture_keeps_every_fifth_snapshot_apart():
    slot = SMALL.draw(10, generator("capture"))
    data = CaptureData(slot)
    seen = {float(h.abs().sum()) for h in data.draw(200, (10.0, 10.0), generator("a")).h}
    apart = {float(h.abs().sum()) for h in data.draw(200, (10.0, 10.0), generator("a"), held_out=True).h}
    assert len(seen) == 8 and len(apart) == 2 and not seen & apart
    assert sum(len(batch.h) for batch in data.test(10.0, 0)) == 2


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Recipe(0), "steps: expected at least 1"),
        (lambda: Recipe(5, rate=-1.0), "rate"),
        (lambda: Recipe(5, average=1.0), "average: expected 0 <= average < 1"),
        (lambda: Recipe(5, snr_db=(5.0, 0.0)), "snr_db"),
        (lambda: CaptureData(hhat.Slot(None, SMALL.draw(5, generator("x")).obs)), "truth/h: missing"),
        (lambda: CaptureData(SMALL.draw(2, generator("x"))), "at least 5 snapshots, got 2"),
    ],
)
def test_wrong_calls_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    run(SBL_CNN, tmp_path, Recipe(2, batch=1, held_out=1))
    with pytest.raises(ValueError, match="another model, recipe or data"):
        run(SBL_CNN, tmp_path, Recipe(3, batch=1, held_out=1))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setitem(SBL_CNN.profiles, "quick", Recipe(3, batch=2, held_out=2, check_every=2))
    monkeypatch.setattr(train_data, "TEST_BLOCKS", 2)


def test_the_verb_trains_on_a_capture_and_estimate_takes_its_weights(quick, tmp_path, capsys):
    scene = hhat.scenario("near-field", num_rx_ant=16, num_unit=1, num_subcarriers=16, num_slots=8, num_paths=2)
    hhat.write(tmp_path / "own.h5", scene.draw(20, generator("own")))
    call = ["train", "sbl-cnn", "--data", str(tmp_path / "own.h5"), "-o", str(tmp_path / "out"), "--json"]
    assert main(call) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["snr_db"] for row in said["measured"]] == [0.0, 5.0, 10.0, 15.0]
    assert {row["n"] for row in said["measured"]} == {4} and said["recipe"]["steps"] == 3
    path = tmp_path / "out" / "sbl_cnn.safetensors"
    assert said["weights"] == str(path)
    card = read_weights(path).card
    assert card == json.loads((tmp_path / "out" / "sbl_cnn.json").read_text())
    assert card["data"] == "capture own.h5" and [row["step"] for row in card["curve"]] == [2, 3]
    assert card["versions"]["torch"] == torch.__version__ and card["cpu_seconds"] > 0
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [CHECKPOINT, "sbl_cnn.json", "sbl_cnn.safetensors"]
    call = ["estimate", str(tmp_path / "own.h5"), "--method", "sbl-cnn", "--weights", str(path), "--json"]
    assert main(call) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "sbl-cnn" and found["status"] == {"OK": 20} and found["rows"][0]["metric"] == "nmse_db"


def test_the_verb_trains_on_a_scenario(quick, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("hhat.train.run.SCENARIO_CHANNELS", 20)
    assert main(["train", "sbl-cnn", "--data", "cdl", "-o", str(tmp_path), "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "sbl_cnn.safetensors" in out and "NMSE dB" in out
    assert read_weights(tmp_path / "sbl_cnn.safetensors").card["recipe"]["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (
            ["train", "no-such"],
            "unknown model 'no-such'; there are: covariance diffusion diffusion-correlated ",
        ),
        (["train", "sbl-cnn", "--data", "no-such"], "neither a file nor a scenario"),
        (["train", "sbl-cnn", "--profile", "slow"], "--profile: expected quick or shipped or full, got 'slow'"),
        (["train", "sbl-cnn", "--device", "tpu"], "no device 'tpu'"),
        (["train", "sbl-cnn", "-o", "README.md"], "is a file, expected a folder"),
    ],
)
def test_wrong_calls_of_the_verb_are_one_line(arguments, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("a file")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert word in said and said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


def test_a_capture_without_truth_is_refused(tmp_path, capsys):
    hhat.write(tmp_path / "bare.h5", hhat.Slot(None, SMALL.draw(6, generator("bare")).obs))
    assert main(["train", "sbl-cnn", "--data", str(tmp_path / "bare.h5"), "-o", str(tmp_path / "out")]) == 2
    assert "bare.h5: truth/h: missing; training needs known channels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
