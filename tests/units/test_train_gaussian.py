"""Covariances and mixtures by `hhat train`: against dense sums, likelihoods that rise, and the exact covariance."""

import itertools
import json
import math

import pytest
import torch

import hhat
from hhat.cli import main
from hhat.methods.linear import Lmmse
from hhat.ops import Dense, Identity, Kron
from hhat.priors import Experts, covariance
from hhat.priors.fit_gauss import fit_covariance, fit_mixture
from hhat.priors.fit_stationary import DIRECTIONS, _lags, _waves, fit_stationary, stationary, stationary_from_pilots
from hhat.priors.stationary import covariance_of
from hhat.priors.trained import gauss_from, gauss_tensors, trained
from hhat.random import complex_normal, generator
from hhat.scenarios.cdl import Cdl
from hhat.train.data import CaptureData
from hhat.train.files import write_weights
from hhat.train.gaussian import COVARIANCE, MIXTURE, GaussTask, evidence
from hhat.types import Channel, Observation, Slot

SHAPE = (4, 16)


def scene(snr_db=20.0, profile="C"):
    return Cdl(profile=profile, num_rx_ant=SHAPE[0], num_tx_ant=SHAPE[1], snr_db=snr_db)


def nmse_db(prior, slot):
    return hhat.nmse_db(hhat.solve(Lmmse(prior), slot.obs), slot.truth)


def task(model, h, profile="full", obs=None):
    slot = Slot(Channel(h), scene().draw(1, generator("gauss")).obs if obs is None else obs)
    return GaussTask(model, CaptureData(slot, "own"), "own", model.recipe(profile, 0))


def test_lags_and_powers_of_waves_are_the_dense_sums():
    shape, gen = (2, 3), generator("waves")
    p = torch.rand([DIRECTIONS * n for n in shape], generator=gen, dtype=torch.float64)
    rows, columns = p.shape
    places = [(i / rows, k / columns) for i in range(2) for k in range(3)]
    turns = [[a * i + b * k for a in range(rows) for b in range(columns)] for i, k in places]
    waves = -2 * math.pi * torch.tensor(turns, dtype=torch.float64)
    waves = torch.polar(torch.ones_like(waves), waves)
    torch.testing.assert_close(covariance_of(_lags(p, shape)), (waves * p.flatten()) @ waves.mH)
    root = complex_normal((6, 6), gen, torch.complex128)
    want = (waves.mH @ (root @ root.mH) @ waves).diagonal().real
    torch.testing.assert_close(_waves(root @ root.mH, shape).flatten(), want)


def test_from_pilots_the_likelihood_rises_and_the_covariance_is_nearly_the_exact_one():
    seen = scene().draw(400, generator("gauss", "pilots"))
    fits = [stationary_from_pilots(seen.obs, steps)[0] for steps in (1, 3, 10, 40)]
    scores = [evidence(stationary(lags, SHAPE), seen.obs) for lags in fits]
    assert all(b > a for a, b in itertools.pairwise(scores))
    test = scene().draw(200, generator("gauss", "test"))
    exact = nmse_db(covariance(matrix=scene().covariance(), shape=SHAPE), test)
    assert nmse_db(stationary(fits[-1], SHAPE), test) < exact + 0.2 < -13
    unknown = Observation(seen.obs.y, seen.obs.op, None, seen.obs.axes)
    lags, noise = stationary_from_pilots(unknown, 40)
    assert 0.5 < noise / float(seen.obs.noise_var) < 1.1  # waves take up part of it
    assert nmse_db(stationary(lags, SHAPE), test) < exact + 0.6


def test_a_matrix_for_every_snapshot_gives_what_one_for_all_gives():
    seen = scene().draw(12, generator("gauss", "each")).obs
    pilots = scene().pilot_matrix().mT.contiguous()
    each = Kron(Identity((SHAPE[0],)), Dense(pilots.expand(12, *pilots.shape).contiguous()))
    noise = seen.noise_var * torch.ones(12, 1, 1)
    one, _ = stationary_from_pilots(seen, 5)
    for obs in (Observation(seen.y, each, seen.noise_var), Observation(seen.y, each, noise)):
        torch.testing.assert_close(stationary_from_pilots(obs, 5)[0], one, rtol=1e-3, atol=1e-3)
    noise[3] *= 1e6  # a snapshot that is noise alone counts as if it were not there, but for the count
    loud, kept = Observation(seen.y, seen.op, noise), torch.arange(12) != 3
    rest, _ = stationary_from_pilots(Observation(seen.y[kept], seen.op, seen.noise_var), 5)
    found, _ = stationary_from_pilots(loud, 5)
    assert float((found - rest).abs().max() / rest.abs().max()) < 0.2


def test_few_channels_of_uniform_arrays_are_as_good_as_many_of_any():
    h, test = scene().channels(40, generator("gauss", "few")), scene().draw(200, generator("gauss", "test"))
    exact = nmse_db(covariance(matrix=scene().covariance(), shape=SHAPE), test)
    even = nmse_db(stationary(fit_stationary(h), SHAPE), test)
    assert even < exact + 0.2 and even < nmse_db(fit_covariance(h), test) - 2
    fitted = task(COVARIANCE, h).run().curve[0]
    assert fitted["fit"] == "same lags everywhere"


def test_what_has_no_lags_keeps_the_covariance_of_its_samples():
    scale = torch.linspace(0.1, 3.0, 64).reshape(SHAPE)
    h = complex_normal((600, *SHAPE), generator("gauss", "uneven")) * scale
    found = task(COVARIANCE, h)
    assert found.run().curve[0]["fit"] == "samples"


def test_files_bring_back_the_priors_and_several_are_experts(tmp_path):
    h, test = scene().channels(100, generator("gauss", "files")), scene().draw(20, generator("gauss", "test"))
    made = {"whole": fit_covariance(h), "lags": fit_stationary(h), "mixed": fit_mixture(h, 3, generator("mix"))}
    for name, one in made.items():
        settings = {"kind": "mixture" if name == "mixed" else "covariance", "shape": list(SHAPE)}
        write_weights(tmp_path, name, gauss_tensors(one), {"settings": settings}, half=True)
    paths = [tmp_path / f"{name}.safetensors" for name in made]
    for path, want in ((paths[0], made["whole"]), (paths[1], stationary(made["lags"], SHAPE))):
        torch.testing.assert_close(nmse_db(trained(path), test), nmse_db(want, test), rtol=0, atol=1e-3)
    mixed = trained(paths[2])
    torch.testing.assert_close(mixed.weights, made["mixed"].weights)
    for have, want in zip(mixed.experts, made["mixed"].experts, strict=True):
        torch.testing.assert_close(have.var, want.var)
    both = trained(paths[:2])
    assert isinstance(both, Experts) and both.labels == ("whole", "lags")
    with pytest.raises(ValueError, match="at least one file"):
        trained([])
    with pytest.raises(ValueError, match="lags: expected shape"):
        gauss_from({"kind": "covariance", "shape": [4, 4]}, gauss_tensors(made["lags"]))


def test_a_mixture_card_counts_its_channels():
    found = task(MIXTURE, scene().channels(50, generator("gauss", "card")), "quick")
    run = found.run()
    assert run.curve[0]["channels"] == 40 and run.weights["variances"].shape == (16, *SHAPE)
    assert found.finished(run).settings == {"kind": "mixture", "shape": list(SHAPE)}


def test_the_verb_learns_from_pilots_alone_and_estimate_takes_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = scene().draw(150, generator("gauss", "verb"))
    hhat.write("blind.h5", Slot(None, seen.obs, seen.about))
    hhat.write("known.h5", seen)
    hhat.write("test.h5", scene().draw(30, generator("gauss", "test")))
    assert main(["train", "covariance", "--data", "blind.h5", "-o", "blind", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["measured"] == [] and card["snapshots"] == 120 and card["fit"] == "same lags everywhere"
    assert main(["train", "covariance", "--data", "known.h5", "-o", "known", "--json"]) == 0
    assert [row["snr_db"] for row in json.loads(capsys.readouterr().out)["measured"]] == [0, 10, 20, 30]

    def estimated(*more):
        assert main(["estimate", "test.h5", *more, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    blind, known = (f"{name}/covariance.safetensors" for name in ("blind", "known"))
    found = estimated("--weights", blind)
    assert found["method"] == "lmmse" and found["rows"][0]["value"] < -13
    assert estimated("--method", "lmmse", "--prior", "covariance", "--weights", blind)["rows"] == found["rows"]
    assert estimated("--prior", "experts", "--weights", f"{blind},{known}")["method"] == "covariance-mixture"


def test_an_array_too_small_for_angles_has_a_covariance_all_the_same():
    axes = {"num_rx_ant": 1, "num_tx_ant": 8, "pilot_ratio": 2.0}
    slot = Cdl(**axes).draw(40, generator("small"))
    known = CaptureData(slot, "small", any_shape=True)
    for model in (COVARIANCE, MIXTURE):
        job = GaussTask(model, known, "small", model.recipe("quick", 0))
        (batch,) = job.tests(20.0)
        found = hhat.solve(job.method(job.finished(job.run()), batch), batch.obs)
        error = (found.belief.mean - batch.h).abs().square().sum() / batch.h.abs().square().sum()
        assert error < 0.1 and found.status.count_nonzero() == 0
    with pytest.raises(ValueError, match="too few entries"):  # networks of a grid still need one
        CaptureData(slot, "small").draw(1, (0.0, 0.0), generator("small"))


def test_the_verb_takes_a_small_array_with_truth(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hhat.write("small.h5", Cdl(num_rx_ant=2, num_tx_ant=4, pilot_ratio=2.0).draw(40, generator("small")))
    assert main(["train", "covariance", "--data", "small.h5", "-o", "out", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["measured"]) == 4


def test_what_does_not_fit_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = scene().draw(6, generator("gauss", "wrong"))
    hhat.write("blind.h5", Slot(None, seen.obs, seen.about))
    hhat.write("few.h5", Slot(None, scene().draw(4, generator("gauss", "wrong")).obs, seen.about))
    for model, file, words in (
        ("mixture", "blind.h5", "truth/h: missing; a mixture needs known channels"),
        ("diffusion", "blind.h5", "training needs known channels, but for `covariance`"),
        ("covariance", "few.h5", "expected at least 5 snapshots, got 4"),
    ):
        assert main(["train", model, "--data", file, "-o", "out"]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="--profile"):
        COVARIANCE.recipe("shipped", 0)
    with pytest.raises(ValueError, match="finite"):
        task(COVARIANCE, torch.full((10, *SHAPE), torch.nan) + 0j).run()
    with pytest.raises(ValueError, match="one or two channel axes"):
        stationary_from_pilots(Observation(torch.ones(3, 2, 2, 2) + 0j, Identity((2, 2, 2)), 0.1))
    with pytest.raises(ValueError, match="one noise_var per snapshot"):
        stationary_from_pilots(Observation(torch.ones(3, 2) + 0j, Identity((2,)), torch.tensor([0.1, 0.2])))
    with pytest.raises(ValueError, match="finite complex channels"):
        fit_stationary(torch.ones(3, 2))
