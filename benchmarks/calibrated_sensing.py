"""Detection with calibrated gains beside known ones and none: the table of docs/calibration.md.

    python benchmarks/calibrated_sensing.py [--kappas 2] [--train 16384] [--test 12288]

Gains from `train` snapshots (hash "calibration", kappa_seed, 15.0), then `test` others (hash "pd", kappa_seed, 0), grid
search; thresholds: each row's own from its empty snapshots, pooled over kappas. Half widths at 95 %, binomial.
"""

import argparse
import math

import torch

import hhat
from hhat.random import generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing import search
from hhat.sensing.detector import position_m
from hhat.sensing.scores import IN_CELL_M, IN_CELL_U

RATES = (1e-3, 1e-2, 1e-1)
CONFIDENT = 1.96


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kappas", type=int, default=2)
    parser.add_argument("--train", type=int, default=16384)
    parser.add_argument("--test", type=int, default=12288)
    given = parser.parse_args()
    torch.set_num_threads(1)
    pool = {}
    for seed in range(1, given.kappas + 1):
        scene = EchoScene(kappa_seed=seed)
        calibrated = hhat.calibrate(scene.draw(given.train, generator("calibration", seed, 15.0)).obs).kappa
        slot = scene.draw(given.test, generator("pd", seed, 0))
        truth, present = slot.truth, slot.truth.present[:, 0].float()
        u, range_m = truth.u[:, 0], truth.range_m[:, 0]
        for name, kappa in (("known", truth.kappa), ("eigenvector", calibrated), ("ones", None)):
            found = search(slot.obs, kappa)
            away = (position_m(found.u, found.range_m) - position_m(u, range_m)).norm(dim=-1)
            rows = torch.stack([found.statistic, present, away, found.range_m - range_m, found.u - u], -1)
            pool.setdefault(name, []).append(rows)
    for name, parts in pool.items():
        rows = torch.cat(parts)
        empty, full = rows[rows[:, 1] == 0, 0].sort().values, rows[rows[:, 1] == 1]
        for rate in RATES:
            eta = empty[int((1 - rate) * len(empty))]
            seen = full[full[:, 0] >= eta]
            cell = seen[(seen[:, 3].abs() < IN_CELL_M) & (seen[:, 4].abs() < IN_CELL_U)]
            p = len(seen) / len(full)
            half = CONFIDENT * math.sqrt(p * (1 - p) / len(full))
            errors = (float(part[:, 2].square().mean().sqrt()) for part in (seen, cell))
            print(
                name,
                rate,
                f"eta {eta:.2f} P_d {p:.4f} +-{half:.4f} position all, in cell",
                *(f"{e:.3f}" for e in errors),
            )


if __name__ == "__main__":
    main()
