"""Detection and position with gains calibrated in many ways, beside known ones and none: docs/calibration.md.

    python benchmarks/calibrated_sensing.py [--kappas 100] [--first 1] [--train 4096] [--test 2048] [--rows known]
                                            [--steps 250] [--batch 64] [--keep file.pt]

Per kappa seed: gains from `train` snapshots (hash "calibration", seed, 15.0), then `test` others (hash "pd", seed, 0),
the same for every row, searched once per row. Thresholds: each row's own (1 - P_fa) quantile of its empty snapshots,
pooled over kappas; below it the closed form per sector. P_d and mean squares are means over kappas, RMSE the root of
that; "/ known" is the ratio to known gains on the same snapshots. +- is 95 % over kappas, by the jackknife.
--keep: results per kappa, written after each and taken up again; rows that are new are added.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from calibration import PAPER, WATT

import hhat
from hhat.random import generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing import search
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.detector import position_m
from hhat.sensing.losses import PeakLoss, ResidualLoss
from hhat.sensing.scores import IN_CELL_M, IN_CELL_U
from hhat.sensing.threshold import closed_form_threshold, empirical_threshold

RATES = (1e-3, 1e-2, 1e-1)
CONFIDENT = 1.96
REFINED = ("known", "default")
"""Rows that are searched with refinement as well"""
ROWS = {
    "known": None,
    "ones": None,
    "loss-14": ("gradient", {"project": False}),
    "loss-15": ("gradient", {"project": False, "loss": ResidualLoss()}),
    "loss-14-watt": ("gradient", {"project": False, "loss": PeakLoss(64 * 256 * WATT)}),
    "loss-14-projected": ("gradient", {}),
    "peaks": (
        "eigenvector",
        {**PAPER, "gate": None, "passes": 0, "find_shift": False, "unbend": False, "max_steps": 6},
    ),
    "no-shift": ("eigenvector", {"find_shift": False}),
    "default": ("eigenvector", {}),
    "soft-em": ("soft-em", {}),
    "soft-em-no-shift": ("soft-em", {"find_shift": False}),
}
SQUARES = ("angle_deg", "range_m", "position_m")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kappas", type=int, default=100)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--train", type=int, default=4096)
    parser.add_argument("--test", type=int, default=2048)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--steps", type=int, default=250, help="of gradients")
    parser.add_argument("--batch", type=int, default=64, help="of gradients")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept = torch.load(given.keep) if given.keep is not None and given.keep.exists() else {}
    for seed in range(given.first, given.first + given.kappas):
        have = kept.get(seed, {})
        missing = [name for name in given.rows if name not in have]
        if missing:
            kept[seed] = have | one(given, seed, missing)
            if given.keep is not None:
                torch.save(kept, given.keep)
    show(list(kept.values()))


def one(given, seed, names):
    """Row to (gain errors and seconds, snapshots' results)."""
    scene, found = EchoScene(kappa_seed=seed), {}
    train = scene.draw(given.train, generator("calibration", seed, 15.0)).obs
    slot = scene.draw(given.test, generator("pd", seed, 0))
    truth = slot.truth
    eta = torch.stack([closed_form_threshold(slot.obs, rate) for rate in RATES], -1)
    for name in names:
        began = time.process_time()
        if ROWS[name] is None:
            kappa = truth.kappa if name == "known" else torch.ones_like(truth.kappa)
        else:
            kind, settings = ROWS[name]
            more = {"max_steps": given.steps, "batch": given.batch} if kind == "gradient" else {}
            kappa = hhat.calibrate(train, hhat.calibrator(kind, **settings, **more)).kappa
        seconds = time.process_time() - began
        head = [*map(float, gain_errors(kappa, truth.kappa)), seconds]
        found[name] = head, tested(slot, kappa, eta, 0)
        if name in REFINED:
            found[f"{name}, refined"] = head, tested(slot, kappa, eta, 3)
        print(seed, name, *(f"{value:.3g}" for value in head), f"{time.process_time() - began:.2f}", flush=True)
    return found


def tested(slot, kappa, eta, steps):
    """(snapshot, 9) float32: presence; statistic; errors of angle, range, position, u; closed-form thresholds."""
    u, range_m = slot.truth.u[:, 0], slot.truth.range_m[:, 0]
    found = search(slot.obs, kappa, refine_steps=steps)
    angle = torch.rad2deg(found.u.asin() - u.asin())
    away = (position_m(found.u, found.range_m) - position_m(u, range_m)).norm(dim=-1)
    there = slot.truth.present[:, 0].float()
    values = torch.stack([there, found.statistic, angle, found.range_m - range_m, away, found.u - u], -1)
    return torch.cat([values, eta], -1)


def per_kappa(parts, eta, place):
    """(kappa, 9) of one row: P_d, P_fa, mean squares of all and of in-cell errors, share out of cell.

    eta: a number, or None: the closed form's at this place among RATES"""
    lines = []
    for values in parts:
        there, passed = values[:, 0] > 0, values[:, 1] >= (values[:, 6 + place] if eta is None else eta)
        hit = there & passed
        near = hit & (values[:, 3].abs() < IN_CELL_M) & (values[:, 5].abs() < IN_CELL_U)
        squares = [values[which, 2:5].double().square().mean(0) for which in (hit, near)]
        shares = hit.sum() / there.sum(), (passed & ~there).sum() / (~there).sum()
        lines.append(torch.stack([*shares, *squares[0], *squares[1], 1 - near.sum() / hit.sum()]))
    return torch.stack(lines).double()


def spread(function, *tables):
    """function(mean over kappas) and half its 95 % interval by the jackknife."""
    count = len(tables[0])
    if count < 2:
        return function(*(table.mean(0) for table in tables)), torch.tensor(math.nan)
    left = torch.stack([function(*((t.sum(0) - t[i]) / (count - 1) for t in tables)) for i in range(count)])
    half = CONFIDENT * ((count - 1) * (left - left.mean(0)).square().mean(0)).sqrt()
    return function(*(table.mean(0) for table in tables)), half


def show(kappas):
    """The tables. Columns of `per_kappa` are made roots where they are mean squares."""
    rows = list(dict.fromkeys(name for kappa in kappas for name in kappa))
    print("\n| row | kappas | test snapshots each | e0 | e1 | rms shift | seconds |\n" + "|---" * 7 + "|")
    for name in rows:
        here = [kappa[name] for kappa in kappas if name in kappa]
        heads = torch.tensor([head for head, _ in here], dtype=torch.float64)
        error = heads.std(0) * CONFIDENT / math.sqrt(len(heads)) if len(heads) > 1 else heads[0] * math.nan
        e0, e1 = (f"{heads[:, k].mean():.2e} ± {error[k]:.1e}" for k in (0, 1))
        shift, seconds = heads[:, 2].square().mean().sqrt(), heads[:, 3].mean()
        print(f"| {name} | {len(here)} | {len(here[0][1])} | {e0} | {e1} | {shift:.1e} | {seconds:.1f} |")
    for form in ("empirical", "closed form"):
        print(
            f"\nthresholds: {form}\n| P_fa | row | eta | let through | P_d | / known | angle, range, position all",
            end="",
        )
        print(" | in cell | position in cell / known | out of cell |\n" + "|---" * 10 + "|")
        for place, rate in enumerate(RATES):
            for name in rows:
                here = [kappa for kappa in kappas if name in kappa]
                print(line(rate, name, *(at_rate(here, row, form, place) for row in (name, "known"))))


def at_rate(kappas, name, form, place):
    """The threshold (None: the closed form's) and the row's `per_kappa` at it."""
    parts = [kappa[name][1] for kappa in kappas]
    empty = torch.cat([values[values[:, 0] == 0, 1] for values in parts])
    eta = empirical_threshold(empty, RATES[place]) if form == "empirical" else None
    return eta, per_kappa(parts, eta, place)


def line(rate, name, own, reference):
    (eta, table), (_, known) = own, reference

    def both(function, *of, digits=3):
        value, half = spread(function, *of)
        return f"{float(value):.{digits}f} ± {float(half):.{digits}f}"

    cells = [f"{rate:g}", name, "per sector" if eta is None else f"{eta:.2f}", f"{table[:, 1].mean():.2e}"]
    cells += [both(lambda t: t[0], table, digits=4), both(lambda t, k: t[0] / k[0], table, known, digits=4)]
    cells += [", ".join(both(lambda t, c=c: t[c].sqrt(), table) for c in columns) for columns in ((2, 3, 4), (5, 6, 7))]
    cells += [both(lambda t, k: (t[7] / k[7]).sqrt(), table, known, digits=4), f"{100 * table[:, 8].mean():.2f} %"]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
