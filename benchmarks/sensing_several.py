"""Several targets, the assumed SNR of the integrated test, and plane waves on near targets: tables of docs/sensing.md.

    python benchmarks/sensing_several.py [--snapshots 2048] [--only several assumed near]

Several: 1 to 5 targets (uniform), kappa seeds 1 and 2, gains known, all taken as one, and as `hhat.calibrate` finds
them from 8,192 other such echoes; `detect(max_targets=6)` at a false-alarm probability of 1e-2, root of the mean
GOSPA^2 (order 2, alpha 2, cut-off 5 m). Assumed SNR: 4 x `snapshots`, half of them with
a target, and as many empty ones for the threshold. Near: 200 spherical echoes at 60 dB per range, searched as plane
waves; those at least 0.03 inside the sector.
"""

import argparse
import math
from dataclasses import replace

import torch

from hhat.random import generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing import detect, empirical_threshold, gospa, integrated, search, snr_of
from hhat.sensing.calibrator import calibrate
from hhat.sensing.detector import position_m

RATES = (1e-3, 1e-2, 1e-1)
CONFIDENT = 1.96
MOST = 5
INSIDE = 0.03
NEAR_SNAPSHOTS = 200
CALIBRATING = 8192


def root(squares):
    """Root of the mean and half its 95 % interval."""
    mean = float(squares.double().mean())
    half = CONFIDENT * float(squares.double().std()) / math.sqrt(len(squares)) / (2 * math.sqrt(mean))
    return f"{math.sqrt(mean):.2f} +-{half:.2f}"


def several(count):
    print("| SNR | gains | GOSPA, all | " + " | ".join(f"{k}: GOSPA, found" for k in range(1, MOST + 1)) + " |")
    for snr_db in (15.0, 25.0):
        kept = {}
        for seed in (1, 2):
            scene = EchoScene(max_targets=MOST, presence=1.0, snr_db=snr_db, kappa_seed=seed)
            slot = scene.draw(count, generator("several", seed))
            truth, obs = slot.truth, slot.obs
            others = scene.draw(CALIBRATING, generator("several calibration", seed)).obs
            for name, kappa in (("known", truth.kappa), ("default", calibrate(others).kappa), ("ones", None)):
                found = detect(obs, kappa, max_targets=MOST + 1)
                apart = gospa(found.position_m, found.detected, position_m(truth.u, truth.range_m), truth.present)
                kept.setdefault(name, []).append(
                    torch.stack([apart, truth.present.sum(-1), found.detected.sum(-1)], -1)
                )
        for name, parts in kept.items():
            apart, there, found = torch.cat(parts).unbind(-1)
            cells = [
                f"{root(apart[there == k])}, {float(found[there == k].float().mean()):.2f}" for k in range(1, MOST + 1)
            ]
            print(f"| {snr_db:g} | {name} | {root(apart)} | " + " | ".join(cells) + " |")


def assumed(count):
    scene = EchoScene()
    slot = scene.draw(count, generator("assumed"))
    empty = EchoScene(presence=0.0).draw(count, generator("assumed h0")).obs
    kappa, there = slot.truth.kappa, slot.truth.present[:, 0]

    def rates(statistic):
        at_h0, at_h1 = statistic(empty), statistic(slot.obs)[there]
        return " | ".join(f"{float((at_h1 >= empirical_threshold(at_h0, rate)).float().mean()):.4f}" for rate in RATES)

    for snr_db in (0, 5, 10, 15, 20, 25):
        found = rates(lambda obs, snr=10 ** (snr_db / 10): integrated(obs, kappa, snr))
        print(f"| integrated, {snr_db} dB assumed | {found} |")
    print(f"| maximum, refined | {rates(lambda obs: search(obs, kappa, refine_steps=3).statistic)} |")
    for name, gains in (("known", kappa), ("ones", None)):
        found, error = snr_of(search(slot.obs, gains, refine_steps=3).statistic)
        print(f"snr_of, {name}: {found:.2f} +-{error:.2f} (true {scene.target_var() * 64 * 256:.2f})")


def near():
    print("| range (m) | error in u | from the centre's angle | peak lost |")
    for least in (5.0, 10.0, 20.0, 43.0):
        scene = EchoScene(spherical=True, snr_db=60.0, presence=1.0, range_min_m=least, range_max_m=least + 0.5)
        slot = scene.draw(NEAR_SNAPSHOTS, generator("near"))
        obs, kappa, u, range_m = slot.obs, slot.truth.kappa, slot.truth.u[:, 0], slot.truth.range_m[:, 0]
        plane = search(replace(obs, spherical=False), kappa, refine_steps=4)
        right = search(obs, kappa, refine_steps=4)
        inside = (right.u > obs.u_limits[:, 0] + INSIDE) & (right.u < obs.u_limits[:, 1] - INSIDE)
        middle = 63 / 4 * obs.wavelength_m
        across, ahead = range_m * u - middle, range_m * (1 - u.square()).sqrt()
        centre = across / torch.hypot(across, ahead)
        lost = 1 - (plane.statistic / right.statistic)[inside]
        cells = [
            f"{float(e.mean()):.5f} (largest {float(e.abs().max()):.5f})"
            for e in ((plane.u - u)[inside], (plane.u - centre)[inside])
        ]
        print(f"| {least:g} | {cells[0]} | {cells[1]} | {100 * float(lost.mean()):.2f} % |")


PARTS = {"several": several, "assumed": lambda count: assumed(4 * count), "near": lambda count: near()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snapshots", type=int, default=2048)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.only:
        PARTS[name](args.snapshots)


if __name__ == "__main__":
    main()
