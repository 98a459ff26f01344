"""Rows that no estimator gives: they have a ratio, and neither time nor status."""

import math
import re

import pytest
import torch

import hhat
from hhat.bench.experiment import Bound, Experiment, Profile, score_channel
from hhat.bench.report import tables, write_report
from hhat.bench.report.words import best_of
from hhat.bench.run import complete
from hhat.random import generator
from hhat.scenarios.near_field_bounds import genie_nmse, genie_variances


def test_bound_has_its_ratio_and_neither_time_nor_status(tmp_path):
    scene = hhat.scenario("near-field", num_rx_ant=16, num_unit=2, num_subcarriers=8, num_slots=4)
    knows = Bound(lambda slot: genie_nmse(scene, slot, local=True))
    experiment = Experiment(
        name="test/bound",
        title="a bound beside a method",
        scenario=lambda point: scene,
        methods={"bound": lambda scene: knows, "ls": lambda scene: hhat.method("ls")},
        profiles={"quick": Profile(({"snr_db": 10.0},), blocks=2, block_size=3)},
    )
    found = complete(experiment, runs_dir=tmp_path, progress=False)
    rows = {(row["method"], row["metric"]): row for row in found.rows()}
    draws = [scene.draw(3, generator("bench", "test/bound", 0, block)) for block in range(2)]
    wanted = torch.cat([genie_nmse(scene, slot, local=True).mean(1) for slot in draws]).mean()
    row = rows["bound", "nmse_db"]
    assert row["value"] == pytest.approx(10 * math.log10(float(wanted)), abs=1e-4)
    assert row["seconds"] is None and row["n"] == 6
    assert ("bound", "variance_ratio") not in rows
    assert found.status() == {"OK": 6}
    best = best_of(found.rows(), "nmse_db")
    assert best is not None and best["method"] == "ls"


def small(ratio, metrics=("nmse_db",)):
    scene = hhat.scenario("near-field", num_rx_ant=16, num_unit=2, num_subcarriers=8, num_slots=4)
    return Experiment(
        name="test/bound",
        title="a bound beside a method",
        scenario=lambda point: scene,
        methods={"bound": lambda scene: Bound(ratio), "ls": lambda scene: hhat.method("ls")},
        profiles={"quick": Profile(({"snr_db": 10.0},), blocks=2, block_size=3)},
        metrics=metrics,
        score=lambda estimate, slot: {**score_channel(estimate, slot), "bits": torch.ones(3)},
    )


def test_a_bound_has_no_row_of_what_only_an_estimate_has(tmp_path):
    metrics = ("nmse_db", "nmse_median_db", "nmse_pooled_db", "variance_ratio", "channels_per_s", "bits")
    found = complete(small(lambda slot: torch.full((3,), 0.1), metrics), runs_dir=tmp_path, progress=False)
    had = {label: [row["metric"] for row in found.rows() if row["method"] == label] for label in ("bound", "ls")}
    assert had["bound"] == ["nmse_db", "nmse_median_db"]
    assert set(had["ls"]) >= {"nmse_pooled_db", "channels_per_s", "bits"}
    write_report(tmp_path, tmp_path / "report.html")
    line = re.search(r"bound</t[dh]>.*?</tr>", tables.counts(found.groups), re.DOTALL)
    assert line is not None and "none" in line[0] and "ls</t" not in line[0]


def test_a_bound_that_is_not_finite_is_a_failure_and_no_row(tmp_path):
    """It has no status that would tell."""
    found = complete(small(lambda slot: torch.tensor([0.1, torch.nan, 0.1])), runs_dir=tmp_path, progress=False)
    assert [failure.task.method for failure in found.failed] == ["bound"]
    assert "1 that are not" in found.failed[0].why
    assert {row["method"] for row in found.rows()} == {"ls"}


@pytest.mark.parametrize("local", [False, True])
def test_genie_variances_are_the_posterior_of_dense_algebra(local):
    """h = B x, x ~ CN(0, diag |x|^2): C A^H (A C A^H + s2 I)^-1 y, all formed."""
    scene = hhat.scenario("near-field", num_rx_ant=8, num_unit=2, num_subcarriers=4, num_slots=2)
    slot = scene.draw(1, generator("genie variances"))
    here, basis = (scene.local(slot), scene.local_basis()) if local else (slot, scene.basis())
    b = basis.dense().to(torch.complex128)
    wanted = []
    units = range(2) if local else [None]
    for unit in units:
        h = (here.truth.h[0] if unit is None else here.truth.h[0, unit]).flatten().to(torch.complex128)
        y = (here.obs.y[0] if unit is None else here.obs.y[0, unit]).flatten().to(torch.complex128)
        a = here.obs.op.dense() if unit is None else here.obs.op.dense().reshape(2, y.numel(), h.numel())[unit]
        a = a.to(torch.complex128)
        c = b @ torch.diag((b.mH @ h).abs().square()).to(b) @ b.mH
        s2 = float(here.obs.noise_var.flatten()[0])
        found = c @ a.mH @ torch.linalg.solve(a @ c @ a.mH + s2 * torch.eye(len(y), dtype=b.dtype), y)
        wanted.append(float((found - h).abs().square().sum() / h.abs().square().sum()))
    got = genie_variances(scene, slot, local)[0]
    torch.testing.assert_close(got.double(), torch.tensor(wanted if local else wanted[0]).double(), rtol=1e-4, atol=0)
