"""Sensing against the false-alarm probability, gains known and all taken as one: the table of docs/sensing.md.

    python benchmarks/sensing.py [--snapshots 20480] [--kappas 4] [--snr-db 15]

Per kappa seed 1, 2, ...: `snapshots` fresh snapshots (half of them empty), the same for every row. Thresholds: each
row's own from its empty snapshots, pooled over kappas (`empirical_threshold`), beside those of the closed form. Errors:
root mean squares over the detected targets of all kappas. Intervals at 95 %: of P_d binomial; of RMSE from the spread
over snapshots.
"""

import argparse
import math
import time

import torch

from hhat.random import generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing import empirical_threshold, integrated, search
from hhat.sensing.detector import position_m
from hhat.sensing.scores import IN_CELL_M, IN_CELL_U
from hhat.sensing.threshold import closed_form_threshold

RATES = (1e-3, 1e-2, 1e-1)
PART = 4096
CONFIDENT = 1.96
CUTOFF_M = 5.0


def rows_of(scene, count, gen):
    """Statistic, errors and presence of every snapshot and row."""
    kept = {}
    for start in range(0, count, PART):
        slot = scene.draw(min(PART, count - start), gen)
        truth, obs = slot.truth, slot.obs
        u, range_m = truth.u[:, 0], truth.range_m[:, 0]
        eta = torch.stack([closed_form_threshold(obs, rate) for rate in RATES], -1)
        for kappa, name in ((truth.kappa, "known"), (None, "ones")):
            found = {f"{name}, grid": search(obs, kappa), f"{name}, refined": search(obs, kappa, refine_steps=3)}
            for label, at in found.items():
                angle = torch.rad2deg(at.u.asin() - u.asin())
                away = (position_m(at.u, at.range_m) - position_m(u, range_m)).norm(dim=-1)
                values = torch.stack([at.statistic, angle, at.range_m - range_m, away, at.u - u], -1)
                kept.setdefault(label, []).append(torch.cat([values, truth.present.float(), eta], -1))
            found = integrated(obs, kappa)
            blank = found[:, None].expand(-1, 5)
            kept.setdefault(f"{name}, integrated", []).append(torch.cat([blank, truth.present.float(), eta], -1))
    return {label: torch.cat(parts) for label, parts in kept.items()}


def rms(errors):
    """Root of the mean square and half its 95 % interval."""
    squares = errors.double().square()
    mean = float(squares.mean())
    half = CONFIDENT * float(squares.std()) / math.sqrt(len(squares)) / (2 * math.sqrt(mean))
    return f"{math.sqrt(mean):.3f} +-{half:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snapshots", type=int, default=20480)
    parser.add_argument("--kappas", type=int, default=4)
    parser.add_argument("--snr-db", type=float, default=15.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    started, tables = time.process_time(), {}
    for seed in range(1, args.kappas + 1):
        scene = EchoScene(kappa_seed=seed, snr_db=args.snr_db)
        for label, values in rows_of(scene, args.snapshots, generator("benchmark", "sensing", seed)).items():
            tables.setdefault(label, []).append(values)
    print(
        f"{args.kappas} kappas x {args.snapshots} snapshots, {args.snr_db:g} dB, {time.process_time() - started:.0f} s"
    )
    head = "| P_fa | row | eta | P_d | P_fa, P_d of the closed form | angle, range, position RMSE, all (deg, m, m) |"
    print(head + " in cell | out of cell | GOSPA (m) |\n" + "|---" * 9 + "|")
    for place, rate in enumerate(RATES):
        for label, parts in tables.items():
            values = torch.cat(parts)
            there = values[:, 5] > 0
            eta = empirical_threshold(values[~there, 0], rate)
            hit = there & (values[:, 0] >= eta)
            p = float(hit.sum() / there.sum())
            half = CONFIDENT * math.sqrt(p * (1 - p) / float(there.sum()))
            line = [f"{rate:g}", label, f"{eta:.2f}", f"{p:.4f} +-{half:.4f}"]
            if "integrated" not in label:
                passed = values[:, 0] >= values[:, 6 + place]
                false, found = (float(passed[which].float().mean()) for which in (~there, there))
                near = hit & (values[:, 2].abs() < IN_CELL_M) & (values[:, 4].abs() < IN_CELL_U)
                line += [f"{false:.5f}, {found:.4f}"]
                line += [", ".join(rms(values[which, k]) for k in (1, 2, 3)) for which in (hit, near)]
                line += [f"{100 * float(1 - near.sum() / hit.sum()):.2f} %"]
                apart = there ^ (values[:, 0] >= eta)  # GOSPA of at most one target a side, see `hhat.sensing.gospa`
                line += [rms(torch.where(hit, values[:, 3].clamp_max(CUTOFF_M), apart * CUTOFF_M / math.sqrt(2)))]
            print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
