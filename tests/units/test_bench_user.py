"""Methods on the user's own file: every snapshot once, scores that agree with those of `hhat estimate`."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch

import hhat
from hhat.bench import user as comparing
from hhat.bench.metrics import nmse_db
from hhat.bench.run import complete, missing
from hhat.bench.scores import holdout
from hhat.bench.stopping import Stopping
from hhat.bench.user import user_experiment
from hhat.methods.defaults import choice_for
from hhat.types import Slot

DATA = Path(os.environ.get("HHAT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "renew"


@pytest.fixture
def capture(tmp_path):
    """47 snapshots with truth: two whole blocks and a rest."""
    path = tmp_path / "mine.h5"
    slot = hhat.scenario("ofdm").draw(47, hhat.generator("user"))
    hhat.write(path, slot)
    return path, slot


def narrowed(experiment, *labels):
    methods = {label: experiment.methods[label] for label in labels}
    profiles = {name: dataclasses.replace(profile, methods=None) for name, profile in experiment.profiles.items()}
    return dataclasses.replace(experiment, methods=methods, profiles=profiles)


def value_of(rows, metric, **point):
    (row,) = [r for r in rows if r["metric"] == metric and all(r["point"].get(k) == v for k, v in point.items())]
    return row


def test_every_snapshot_of_a_file_with_truth_counts_once(tmp_path, capture):
    path, slot = capture
    experiment = narrowed(user_experiment(path), "ls", "rls")
    assert experiment.name.startswith("user/mine-") and experiment.metrics[0] == "nmse_db"
    result = complete(experiment, "full", tmp_path / "runs", progress=False)
    for label in ("ls", "rls"):
        row = value_of([r for r in result.rows() if r["method"] == label], "nmse_db")
        estimate = hhat.solve(choice_for(label, slot.obs, slot.about).method, slot.obs)
        assert row["n"] == 47 and row["value"] == pytest.approx(nmse_db(estimate, slot.truth), abs=1e-3)
    assert [cell.items for cell in result.groups[0].cells] == [20, 20, 7]
    assert missing(experiment, "full", tmp_path / "runs") == []


def test_another_content_is_another_recipe_and_another_place_is_not(tmp_path, capture):
    path, slot = capture
    experiment = narrowed(user_experiment(path), "ls")
    complete(experiment, "quick", tmp_path / "runs", progress=False)
    elsewhere = tmp_path / "elsewhere" / "mine.h5"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(path.read_bytes())
    assert missing(narrowed(user_experiment(elsewhere), "ls"), "quick", tmp_path / "runs") == []
    hhat.write(path, Slot(slot.truth, louder(slot, 2.0), slot.about))
    assert len(missing(narrowed(user_experiment(path), "ls"), "quick", tmp_path / "runs")) == 3


def louder(slot, gain):
    return hhat.Observation(gain * slot.obs.y, slot.obs.op, gain**2 * slot.obs.noise_var, slot.obs.axes)


def test_without_truth_and_repeats_least_squares_scores_the_noise_that_was_added(tmp_path, capture):
    path, slot = capture
    hhat.write(path, Slot(None, slot.obs, slot.about))
    result = complete(narrowed(user_experiment(path), "ls"), "quick", tmp_path / "runs", progress=False)
    assert {row["metric"] for row in result.rows()} == {"renoise_nmse_db"}
    for snr_db in comparing.RENOISE_SNR_DB:
        row = value_of(result.rows(), "renoise_nmse_db", snr_db=snr_db)
        assert row["low"] - 0.1 < -snr_db < row["high"] + 0.1 and row["n"] == 47


def test_a_file_that_is_bad_behind_its_first_snapshot_is_one_error_naming_it(tmp_path, capture):
    path, slot = capture
    h = slot.truth.h.clone()
    h[30] = 0
    hhat.write(path, Slot(type(slot.truth)(h, *slot.truth[1:]), slot.obs, slot.about))
    with pytest.raises(hhat.io.InputError, match=r"mine.h5: truth/h: snapshot 30 has no energy"):
        complete(narrowed(user_experiment(path), "ls"), "full", tmp_path / "runs", progress=False)


def test_a_rule_waits_for_the_score_that_a_file_has(tmp_path, capture):
    path, slot = capture
    hhat.write(path, Slot(None, slot.obs, slot.about))
    experiment = narrowed(user_experiment(path), "ls")
    assert experiment.metrics == ["renoise_nmse_db"]
    never = dataclasses.replace(experiment.profiles["full"], until=Stopping(1e-6, experiment.metrics[0]))
    result = complete(
        dataclasses.replace(experiment, profiles={"full": never}), "full", tmp_path / "runs", progress=False
    )
    assert {len(cells.cells) for cells in result.groups} == {never.blocks}


def test_all_methods_are_tried_and_those_that_do_not_fit_are_named(capture):
    experiment = user_experiment(capture[0])
    assert {"ls", "lmmse", "lasso", "omp", "gamp", "oamp", "sbl", "auto"} <= set(experiment.methods)
    assert "sparse-tracking (a tracker over slots)" in experiment.note
    declared = user_experiment(capture[0], hhat.registry.load("experiments", "engine/sparse-cdl"))
    assert (
        list(declared.methods) == ["lmmse", "lasso", "auto"] and "em-gm-amp (not a registered method)" in declared.note
    )


def test_an_experiment_of_which_nothing_fits_a_file_says_so(capture):
    with pytest.raises(ValueError, match="no method of engine/estep can be run on a file"):
        user_experiment(capture[0], hhat.registry.load("experiments", "engine/estep"))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no captured data in {DATA} (set HHAT_DATA)")
def test_users_of_an_over_the_air_capture_are_points_with_hold_out_and_floor(tmp_path):
    path = DATA / "mimo_60_145_try_2.mat"
    rows = complete(narrowed(user_experiment(path), "ls"), "quick", tmp_path, progress=False).rows()
    pair = hhat.io.repeats(path)
    expected = holdout(pair, lambda obs: hhat.solve(choice_for("ls", obs, pair[0].about).method, obs))
    for user in (0, 1):
        mine = [row for row in rows if row["point"].get("user") == user]
        assert value_of(mine, "holdout_nmse_db")["value"] == pytest.approx(float(expected.nmse_db[user]), abs=1e-3)
        assert value_of(mine, "holdout_floor_db")["value"] == pytest.approx(float(expected.floor_db[user]), abs=1e-3)
        renoised = value_of(mine, "renoise_nmse_db", snr_db=10.0)
        assert renoised["value"] == pytest.approx(-10, abs=0.2) and renoised["n"] == 60
    assert torch.isfinite(expected.floor_db).all()
