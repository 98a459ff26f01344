"""`python -m hhat.demo DIR`: a capture file, what each method makes of it, and the page about it. About a minute.

Writes DIR/capture.h5 (pilots through 3GPP CDL-C, 64 x 16 antennas, 38 pilots, 10 dB) and DIR/report.html, and prints
a table. Only the file is given to the methods; lmmse has a sample covariance of a survey, other channels of the site.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

import hhat
from hhat.bench.report import file_report
from hhat.bench.report.capture import file_rows
from hhat.cli.common import digits, duration, interval, print_pairs, print_table
from hhat.methods.base import Method
from hhat.methods.defaults import choice_for
from hhat.types import Estimate, Slot

METHODS = ("ls", "rls", "lmmse", "lasso", "omp", "gamp", "oamp", "sbl", "auto")
SNAPSHOTS = 60
SURVEY = 1024
"""Channels whose covariance lmmse is given: as many as a channel has entries"""
SHRINKAGE = 0.02
SNR_DB = 10.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hhat.demo", description="Estimate a capture by several methods.")
    parser.add_argument("folder", type=Path, help="where the capture and the report go")
    parser.add_argument("--snapshots", type=int, default=SNAPSHOTS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        demo(chosen.folder, chosen.snapshots)
    except (OSError, ValueError) as wrong:
        print(f"demo: {wrong}", file=sys.stderr)
        return 2
    return 0


def demo(folder: Path, snapshots: int = SNAPSHOTS) -> list[dict[str, Any]]:
    """Write the capture and the report; returns the rows of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    capture, page = folder / "capture.h5", folder / "report.html"
    scene = hhat.scenario("cdl", profile="C", num_rx_ant=16, num_tx_ant=64, pilot_ratio=0.6, snr_db=SNR_DB)
    hhat.write(capture, scene.draw(snapshots, hhat.generator("demo", "capture")))

    slot = hhat.read(capture)
    survey = scene.draw(SURVEY, hhat.generator("demo", "survey")).truth.h
    results: dict[str, Estimate] = {}
    seconds: dict[str, float] = {}
    told: dict[str, str] = {}
    for name in METHODS:
        method, told[name] = _method(name, slot, survey)
        # the first call pays for imports and for what is set up once per file
        hhat.solve(method, hhat.Observation(slot.obs.y[:1], slot.obs.op, slot.obs.noise_var, slot.obs.axes))
        started = time.perf_counter()
        results[name] = hhat.solve(method, slot.obs)
        seconds[name] = (time.perf_counter() - started) / snapshots
        told[name] = results[name].info.get("why", told[name])
    rows = file_rows(slot, results, seconds)
    file_report(slot, results, seconds, page)
    _show(slot, rows, results, told)
    print_pairs(
        [
            ("capture", f"{capture}   try: hhat inspect {capture}"),
            ("report", f"{page}   open it in a browser; it needs no network"),
            ("same by hand", f"hhat estimate {capture} --method oamp -o {folder / 'estimate.h5'}"),
        ]
    )
    return rows


def _method(name: str, slot: Slot, survey: torch.Tensor) -> tuple[Method, str]:
    if name == "lmmse":
        known = {"samples": survey, "shrinkage": SHRINKAGE}
        choice = choice_for(name, slot.obs, slot.about, "covariance", known)
        return choice.method, f"covariance of {len(survey)} other channels of the site"
    choice = choice_for(name, slot.obs, slot.about)
    return choice.method, choice.why.removeprefix("asked for").removeprefix("; ") or "the pilots alone"


def _show(slot: Slot, rows: list[dict[str, Any]], results: dict[str, Estimate], told: dict[str, str]) -> None:
    found = {(row["method"], row["metric"]): row for row in rows}
    lines = []
    for name, estimate in results.items():
        nmse, ratio = found[name, "nmse_db"], found.get((name, "variance_ratio"), {})
        status = ", ".join(f"{count} {word}" for word, count in estimate.status_counts().items())
        lines.append(
            [
                name,
                status,
                digits(nmse["value"]),
                interval(nmse),
                digits(ratio.get("value"), "variance_ratio"),
                interval(ratio),
                duration(nmse["seconds"]),
            ]
        )
    count, channel = slot.obs.batch_shape[0], " x ".join(map(str, slot.obs.op.in_shape))
    title = f"{count} channels of {channel} antennas from {slot.obs.op.out_shape[1]} pilots at {SNR_DB:g} dB (CDL-C)"
    header = ("method", "status", "NMSE dB", "95 %", "error / reported variance", "95 %", "time per estimate")
    print_table(title, header, lines, words=2)
    print_pairs(told.items())
    print_pairs([("", "error / reported variance: 1 is honest, above 1 too sure of itself; - where none is reported")])


if __name__ == "__main__":
    sys.exit(main())
