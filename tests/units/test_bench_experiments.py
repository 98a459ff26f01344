"""Every registered experiment is complete as declared; the demo's numbers are those its scenario must give."""

import dataclasses

import pytest

from hhat import registry
from hhat.bench.experiment import Experiment, Profile, score_nothing
from hhat.bench.run import plan, run

NAMES = sorted(registry.EXPERIMENTS)


@pytest.mark.parametrize("name", NAMES)
def test_it_carries_its_name_and_quick_is_part_of_full(name):
    experiment = registry.load("experiments", name)
    assert isinstance(experiment, Experiment) and experiment.name == name and experiment.title
    quick, full = experiment.profiles["quick"], experiment.profiles["full"]
    assert all(point in full.points for point in quick.points)
    assert quick.block_size == full.block_size and quick.blocks <= full.blocks
    assert set(experiment.labels("quick")) <= set(experiment.labels("full"))


@pytest.mark.parametrize("name", NAMES)
def test_every_method_of_it_can_be_built_and_every_cell_has_its_own_key(name):
    experiment = registry.load("experiments", name)
    one = {"quick": dataclasses.replace(experiment.profiles["full"], points=experiment.profiles["full"].points[:2])}
    planned, tasks = plan(dataclasses.replace(experiment, profiles=one), "quick")
    assert len(set(planned.cells)) == len(tasks) == 2 * one["quick"].blocks * len(experiment.methods)
    assert set(planned.recipe["methods"]) == set(experiment.methods)


def test_the_demo_agrees_with_what_its_scenario_must_give(tmp_path):
    experiment = dataclasses.replace(
        registry.load("experiments", "start/demo"),
        profiles={"quick": Profile(({"snr_db": 30.0},), blocks=2, block_size=50, methods=("ls", "lmmse"))},
    )
    rows = run(experiment, "quick", tmp_path, progress=False)
    by = {(row["method"], row["metric"]): row for row in rows}
    # least squares without noise misses the 26 of 64 directions that 38 pilots leave unseen: -3.91 dB
    assert by["ls", "nmse_db"]["value"] == pytest.approx(-3.91, abs=0.3)
    assert by["lmmse", "variance_ratio"]["value"] == pytest.approx(1, abs=0.1)
    assert ("ls", "variance_ratio") not in by


def test_throughput_measures_nothing_but_time():
    experiment = registry.load("experiments", "engine/throughput")
    assert experiment.score is score_nothing and experiment.metrics == ("channels_per_s",)
    points = [(point["batch"], point["threads"]) for point in experiment.profiles["full"].points]
    assert points == [(1, 1), (1, 2), (64, 1), (64, 2), (1024, 1), (1024, 2)]
