"""The paired run of `benchmarks/sionna_lmmse.py`, short: hhat's joint LMMSE is at least five times faster than
Sionna's LMMSE, and better, from the same covariances."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("sionna.phy", reason="sionna-no-rt is not installed")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sionna_lmmse.py"


def test_joint_lmmse_is_five_times_faster_and_better() -> None:
    spec = importlib.util.spec_from_file_location("sionna_lmmse", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = {row.name: row for row in script.run(rounds=2, snr_db=10.0)}
    for order in ("t-f-s", "f-t-s"):
        theirs = rows[f"Sionna LMMSE {order}"]
        for ours in (rows["hhat joint LMMSE"], rows["hhat joint LMMSE, new no"]):
            assert ours.greatest_ms * 5 <= theirs.least_ms
            assert ours.nmse <= theirs.nmse
