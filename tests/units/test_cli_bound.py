"""`hhat bound`: closed forms, files and scenarios agree, and what it refuses."""

import json
import math

import pytest
import torch

from hhat.cli import main
from hhat.scenarios import bounds
from hhat.scenarios.bounds import Known

ONE = ("--set", "columns=4", "--set", "rows=4", "--set", "num_tones=40", "--set", "num_paths=1", "--set", "snr_db=10")


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main([str(a) for a in arguments])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call


@pytest.fixture
def rows_of(run):
    def call(*arguments):
        code, out, err = run("bound", *arguments, "--json")
        assert code == 0, err
        return {row["bound"]: row for row in json.loads(out)["rows"]}

    return call


@pytest.mark.parametrize(("hops", "symbols"), [(1, 1), (2, 1), (4, 1)])
def test_one_path_from_one_part_of_the_band_is_the_closed_form(rows_of, hops, symbols):
    """(1 + R / 2 + 1) / (SNR antennas tones): gain, delay, angles; R: band's squares about the part over its own."""
    found = rows_of("srs-paths", *ONE, "--set", f"hops={hops}", "--set", f"num_symbols={symbols}", "-n", 2)
    n = torch.arange(40.0).double()
    part = n[: 40 // hops]
    ratio = (n - part.mean()).square().mean() / (part - part.mean()).square().mean()
    wanted = 10 * math.log10((2 + float(ratio) / 2) / (10 * 16 * len(part)))
    assert found["cramer-rao-no-priors"]["value"] == pytest.approx(wanted, abs=1e-4)
    assert found["cramer-rao"]["value"] == pytest.approx(wanted, abs=1e-4)  # priors say nothing of one symbol's offsets
    assert found["cramer-rao"]["n"] == 2


def test_a_file_has_the_bound_of_the_scenario_it_is_of(rows_of, run, tmp_path):
    few = (*ONE[:6], "--set", "num_paths=2", "--seed", 3)
    file = tmp_path / "x.h5"
    assert run("simulate", "srs-paths", *few, "-n", 3, "-o", file)[0] == 0
    drawn, read = rows_of("srs-paths", *few, "-n", 3), rows_of(file)
    assert drawn.keys() == read.keys() and drawn["cramer-rao"]["n"] == read["cramer-rao"]["n"] == 3
    for name, row in drawn.items():
        assert read[name]["value"] == pytest.approx(row["value"], abs=1e-4)
    assert drawn["cramer-rao"]["value"] <= drawn["cramer-rao-no-priors"]["value"] + 1e-9
    assert drawn["cramer-rao-known-offsets"]["value"] < drawn["cramer-rao"]["value"] - 1
    assert rows_of(file, "-n", 1)["cramer-rao"]["n"] == 1
    code, out, _ = run("bound", file)
    assert code == 0 and "cramer-rao-known-offsets" in out and f"{read['cramer-rao']['value']:.2f}" in out


def test_every_scenario_that_is_bounded_answers(rows_of):
    small = ("--set", "num_rx_ant=4", "--set", "num_tx_ant=8")
    assert set(rows_of("cdl", *small, "-n", 1)) == {"lmmse", "genie-coupling"}
    # no delay: 8 tones see one gain per antenna, 1 / (1 + 8 SNR), and E 1 / |h|^2 = 1 / (16 - 1) over 16 antennas
    flat = ("--set", "num_rx_ant=16", "--set", "num_subcarriers=8", "--set", "delay_spread_s=1e-13")
    wanted = 10 * math.log10(16 / 15 / 81)
    assert rows_of("ofdm", *flat, "--set", "snr_db=10", "-n", 400)["lmmse"]["value"] == pytest.approx(wanted, abs=0.3)
    few = ("-n", 2, "--set", "num_rx_ant=32", "--set", "num_subcarriers=8", "--set", "num_slots=4")
    assert set(rows_of("near-field", *few)) == {"genie-geometry", "genie-variances", "cramer-rao"}
    assert "cramer-rao" not in rows_of("near-field", *few, "--set", "num_rays=3", "--set", "angle_spread_deg=1")


def test_what_has_no_bound_is_refused_in_one_line(run, tmp_path):
    file = tmp_path / "ofdm.h5"
    assert run("simulate", "ofdm", "-n", 2, "-o", file)[0] == 0
    for arguments, words in (
        (("srs-uma",), "srs-uma has none; there are bounds of cdl"),
        (("nothing",), "no file and no scenario 'nothing'"),
        ((file,), "expected a truth with h, phase_rad and timing_s, got h, delay_s"),
        ((file, "--set", "snr_db=3"), "settings are of scenarios"),
        (("cdl", "--set", "hops=2"), "unknown setting 'hops'"),
    ):
        code, out, err = run("bound", *arguments)
        assert code == 2 and out == "" and words in err and err.count("\n") == 1


def test_a_bound_that_is_not_finite_is_exit_three(run, monkeypatch):
    broken = {"cramer-rao": Known("nothing", lambda: torch.tensor([0.1, math.nan]))}
    monkeypatch.setattr(bounds, "bounds_of", lambda scene, slot: broken)
    code, out, err = run("bound", "ofdm", "-n", 2, "--json")
    assert code == 3 and json.loads(out)["rows"][0]["value"] is None and "1 of 2 channels" in err
