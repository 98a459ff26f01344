"""Gains whose phases walk: `streaming` with several memories against gains that stay: docs/calibration.md.

    python benchmarks/sensing_drift.py [--kappas 8] [--drift 1.0] [--snr-db 15] [--snapshots 49152]
        [--memories 4000:32000 ...]      memory:shift_memory of each contender
        [--tail 16384]                   average over the blocks after so many snapshots

Blocks of 1,024 snapshots; kappa seeds 1, 2, ..; echoes hash ("drift", kappa seed). Frozen: `calibrate` once, on the
first 16,384. Prints e0 of every 8th block as a mean over kappas with its standard error, and the mean over the tail.
"""

import argparse
import math

import torch

import hhat
from hhat.random import generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.blocks import joined

BLOCK, FROZEN, SHOWN = 1024, 16, 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kappas", type=int, default=8)
    parser.add_argument("--drift", type=float, default=1.0, help="degrees rms per 1,000 snapshots")
    parser.add_argument("--snr-db", type=float, default=15.0)
    parser.add_argument("--snapshots", type=int, default=49152)
    parser.add_argument("--memories", nargs="*", default=["4000:32000"])
    parser.add_argument("--tail", type=int, default=16384)
    parser.add_argument("--no-frozen", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = {}
    for seed in range(1, given.kappas + 1):
        for name, rows in course(given, seed).items():
            table.setdefault(name, []).append(rows)
        summary(table, given)


def summary(table, given):
    """The kappas so far: each number is a mean over them with its standard error."""
    for name, rows in table.items():
        rows = torch.stack(rows).double()  # kappa, block, (e0, e1, shift)
        count, tail = len(rows), rows[:, given.tail // BLOCK :]
        error, spread = (x.std(0) / math.sqrt(count) if count > 1 else x[0] * math.nan for x in (rows, tail.mean(1)))
        shown = range(SHOWN - 1, rows.shape[1], SHOWN)
        print(
            f"{count} kappas, {name}:",
            *(f"{(i + 1) * BLOCK} {rows[:, i, 0].mean():.2e}+-{error[i, 0]:.0e}" for i in shown),
        )
        e0, e1 = tail.mean((0, 1))[:2]
        shift = tail[..., 2].square().mean().sqrt()
        print(f"  tail e0 {e0:.3e}+-{spread[0]:.0e} e1 {e1:.3e}+-{spread[1]:.0e} rms shift {shift:.2e}", flush=True)


def course(given, seed):
    """(block, 3) of e0, e1 and shift after each block, for every contender, on one stream."""
    scene = EchoScene(kappa_seed=seed, drift_deg=given.drift, snr_db=given.snr_db)
    pairs = {text: [float(memory) for memory in text.split(":")] for text in given.memories}
    streams = {f"streaming {t}": hhat.calibrator("streaming", memory=m, shift_memory=s) for t, (m, s) in pairs.items()}
    states, rows, first, frozen = {}, {}, [], None
    for number, slot in enumerate(scene.slots(given.snapshots // BLOCK, generator("drift", seed), BLOCK)):
        for name, calibrator in streams.items():
            states[name], found = next(hhat.follow(calibrator, [slot], states.get(name)))
            rows.setdefault(name, []).append([*map(float, gain_errors(found.kappa, slot.truth.kappa))])
        if not given.no_frozen:
            if number < FROZEN:
                first.append(slot.obs)
            if number == FROZEN - 1:
                frozen, first = hhat.calibrate(joined(first)).kappa, []
            errors = [math.nan] * 3 if frozen is None else [*map(float, gain_errors(frozen, slot.truth.kappa))]
            rows.setdefault("frozen", []).append(errors)
    return {name: torch.tensor(values) for name, values in rows.items()}


if __name__ == "__main__":
    main()
