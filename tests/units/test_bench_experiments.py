"""Every registered experiment is complete as declared; the demo's numbers are those its scenario must give."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from hhat import registry
from hhat.bench.claims import Faster, LargerGain, Level, Ordering, Trend, Words
from hhat.bench.experiment import Experiment, Profile, score_nothing
from hhat.bench.run import plan, run
from hhat.experiments import xl_mimo
from hhat.methods.solve import solve
from hhat.random import generator

NAMES = sorted(registry.EXPERIMENTS)
PAPERS = {
    "xl-mimo": "fig5 fig6 fig7a fig7b fig8 fig9a fig9b table2",
    "experts": "fig4 fig5 fig6 fig7a fig7b table2",
    "isac": "fig2 fig3",
    "extrapolation": "fig4 fig10 fig11 fig12 fig13 fig14",
    "impairments": "fig5 fig6 fig7 fig8 fig9 fig10 fig11",
}
OF_PAPERS = [f"{paper}/{place}" for paper, places in PAPERS.items() for place in places.split()]
WAITING = [name for name in NAMES if registry.load("experiments", name).waits_for]
RUNNABLE = [name for name in NAMES if name not in WAITING]
LATER: set[str] = set()
"""Labels that claims of runnable experiments name, of methods that are not there yet; one that comes is struck off"""
PAGE = Path(__file__).parents[2] / "docs" / "papers.md"


def labels_of(claim) -> list[str]:
    """The methods that a claim speaks of."""
    if isinstance(claim, Ordering):
        return list(claim.methods)
    if isinstance(claim, Faster):
        return [claim.method, claim.than]
    if isinstance(claim, Trend):
        return [label for label in (claim.method, claim.against) if label is not None]
    if isinstance(claim, LargerGain):
        return [*claim.first, *claim.second]
    assert isinstance(claim, Words | Level)
    return [claim.method] if isinstance(claim, Level) else []


def claimed(name: str) -> set[str]:
    return {label for claim in registry.load("experiments", name).claims for label in labels_of(claim)}


@pytest.mark.parametrize("name", NAMES)
def test_it_carries_its_name_and_where_the_registry_looks(name):
    experiment = registry.load("experiments", name)
    assert isinstance(experiment, Experiment) and experiment.name == name and experiment.title
    module = name.replace("/", "_").replace("-", "_")
    assert registry.EXPERIMENTS[name].target == f"hhat.experiments.{module}:EXPERIMENT"


def test_each_file_of_the_folder_with_an_experiment_is_registered():
    folder = Path(xl_mimo.__file__).parent
    holding = {path.stem for path in folder.glob("*.py") if re.search(r"^EXPERIMENT\b", path.read_text(), re.M)}
    assert holding == {entry.target.split(":")[0].split(".")[-1] for entry in registry.EXPERIMENTS.values()}


@pytest.mark.parametrize("name", RUNNABLE)
def test_quick_is_part_of_full(name):
    experiment = registry.load("experiments", name)
    quick, full = experiment.profiles["quick"], experiment.profiles["full"]
    assert all(point in full.points for point in quick.points)
    assert quick.block_size == full.block_size and quick.blocks <= full.blocks
    assert set(experiment.labels("quick")) <= set(experiment.labels("full"))


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_method_of_it_can_be_built_and_every_cell_has_its_own_key(name):
    experiment = registry.load("experiments", name)
    full = experiment.profiles["full"]
    few = dataclasses.replace(full, points=full.points[:2], blocks=2, until=None)
    planned = plan(dataclasses.replace(experiment, profiles={"quick": few}), "quick")
    assert len({task.key for task in planned.tasks}) == len(planned.tasks) == 2 * 2 * len(experiment.methods)
    assert set(planned.run.recipe["methods"]) == set(experiment.methods)


@pytest.mark.parametrize("name", WAITING)
def test_one_that_waits_has_claims_and_a_reason_and_says_it_when_asked_to_run(name):
    experiment = registry.load("experiments", name)
    assert experiment.claims and not experiment.methods and not experiment.profiles
    for profile in ("quick", "full"):
        with pytest.raises(ValueError, match=re.escape(experiment.waits_for)):
            experiment.profile(profile)


def test_every_figure_and_table_of_the_papers_is_there():
    of_figures = [name for name in NAMES if name.split("/")[0] in PAPERS and name.split("/")[1][:3] in ("fig", "tab")]
    assert of_figures == sorted(OF_PAPERS)


@pytest.mark.parametrize("name", OF_PAPERS)
def test_one_of_a_paper_carries_claims_that_say_where_they_come_from(name):
    experiment = registry.load("experiments", name)
    kind, number, part = re.fullmatch(r"(fig|table)(\d+)([ab]?)", name.split("/")[1]).groups()
    numeral = {"2": "II"}[number] if kind == "table" else number
    place = f"{'Table' if kind == 'table' else 'Fig.'} {numeral}" + (f"({part})" if part else "")
    assert experiment.claims
    for claim in experiment.claims:
        assert claim.text and claim.source == f"{registry.EXPERIMENTS[name].source}, {place}"


@pytest.mark.parametrize("name", RUNNABLE)
def test_claims_name_methods_that_are_there_or_known_to_come(name):
    assert claimed(name) <= {*registry.load("experiments", name).methods, *LATER}


def test_no_label_is_kept_for_later_without_need():
    assert set().union(*map(claimed, RUNNABLE)) >= LATER
    assert not LATER & {label for name in RUNNABLE for label in registry.load("experiments", name).methods}


def test_the_page_of_the_papers_has_a_row_for_each_and_says_which_can_be_run():
    rows = dict(re.findall(r"^\|[^|]*\| `([\w/-]+)` \|(.*)\|$", PAGE.read_text(), re.M))
    assert set(rows) == set(OF_PAPERS)
    for name, row in rows.items():
        last = row.split("|")[-1]
        assert ("waits for" in last) == (name in WAITING), name


def test_units_put_together_are_no_better_and_no_worse_than_apart():
    """Fusing is unitary: the array's error is the sum of the units', whatever they estimate."""
    scene = xl_mimo.near_field({"snr_db": 10.0})
    slot = scene.draw(2, generator("fused"))
    alone = scene.local(slot)
    apart = solve(xl_mimo.local(xl_mimo.sbl_em)(scene), alone.obs).belief
    fused = solve(xl_mimo.fused(xl_mimo.sbl_em)(scene), slot.obs).belief
    assert fused.mean.shape == slot.truth.h.shape == fused.var.shape
    errors = (apart.mean - alone.truth.h).abs().square().sum((-3, -2, -1))
    torch.testing.assert_close((fused.mean - slot.truth.h).abs().square().sum((-2, -1)), errors)
    torch.testing.assert_close(fused.var.sum((-2, -1)), apart.var.sum((-3, -2, -1)))


def test_a_realisation_of_the_units_figures_is_one_channel():
    scene = xl_mimo.units({"snr_db": 10.0})
    slot = scene.draw(3, generator("units"))
    estimate = solve(xl_mimo.local(xl_mimo.sbl_em)(scene), slot.obs)
    kept = xl_mimo.score_units(estimate, slot)
    squared = (estimate.belief.mean - slot.truth.h).abs().double().square().sum((-2, -1))
    ratio = squared / slot.truth.h.abs().double().square().sum((-2, -1))
    assert ratio.shape == (3, 4)
    torch.testing.assert_close(kept["ratio"], ratio.mean(1))


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
