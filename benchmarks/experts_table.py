"""NMSE, variance and time of the estimators with learned and with Gaussian priors, all profiles together.

    python -m benchmarks.experts_table [--geometry fixed rotated] [--alpha 0.6 0.3] [--snr 0 10 30] [--rows NAME ..]
                                       [-n 100] [--seed 77] [--out FILE.jsonl]

n channels of each of CDL-A to D, `generator("measure", profile, geometry, seed)`, one block of QPSK pilots, 64 x 16
antennas, SNR = 64 / noise_var; the four profiles go through a method as one batch, which is not told them. Rows: labels
of experts/fig4 and experts/rotated; those that know the profile ("lmmse") run profile by profile. One line per row,
point and profile: NMSE in dB with its 95 % interval, error over reported variance with its own, share of channels whose
profile is found where the method says one, per cent of the entries inside their discs of 50, 90 and 99 %, CPU
milliseconds per channel of the whole batch (factors at hand).
With --out lines are added to FILE as JSON, and what it holds already is not run again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import hhat
from hhat.bench.metrics import coverage, errors, mean_interval_db, ratio_interval
from hhat.experiments import experts, experts_fig4, experts_rotated
from hhat.scenarios.cdl import Cdl
from hhat.types import Channel, Estimate, Observation, Slot

KNOWS_PROFILE = ("lmmse", "lasso", "ray-coupling")
LEVELS = (0.5, 0.9, 0.99)
ROWS = {**experts_rotated.EXPERIMENT.methods, **experts_fig4.EXPERIMENT.methods}


def drawn(geometry: str, alpha: float, snr_db: float, n: int, seed: int) -> tuple[Cdl, Slot]:
    """All profiles, one after the other, with one operator."""
    slots = []
    for profile in experts.PROFILES:
        scene = experts.scenario({"profile": profile, "geometry": geometry, "alpha": alpha, "snr_db": snr_db})
        slots.append(scene.draw(n, hhat.generator("measure", profile, geometry, seed)))
    first, obs = slots[0], slots[0].obs
    y = torch.cat([slot.obs.y for slot in slots])
    h = torch.cat([slot.truth.h for slot in slots])
    return scene, Slot(Channel(h), Observation(y, obs.op, obs.noise_var, obs.axes), first.about)


def part(slot: Slot, k: int, n: int) -> Slot:
    obs, inside = slot.obs, slice(k * n, (k + 1) * n)
    return Slot(Channel(slot.truth.h[inside]), Observation(obs.y[inside], obs.op, obs.noise_var, obs.axes))


def found_profile(est: Estimate) -> torch.Tensor | None:
    """(batch,) index of the profile that the method takes."""
    for name in ("q", "probability"):
        if name in est.info and est.info[name].shape[-1] == len(experts.PROFILES):
            return est.info[name].argmax(-1)
    return None


def measured(label: str, scene: Cdl, slot: Slot, n: int) -> list[dict[str, Any]]:
    found, covered, right, spent = [], [], None, 0.0
    if label in KNOWS_PROFILE:
        scenes = [
            Cdl(profile=p, pilot_ratio=scene.pilot_ratio, snr_db=scene.snr_db, geometry=scene.geometry)
            for p in experts.PROFILES
        ]
        todo = [(ROWS[label](own), part(slot, k, n)) for k, own in enumerate(scenes)]
    else:
        todo = [(ROWS[label](scene), slot)]
    for method, own in todo:
        hhat.solve(method, Observation(own.obs.y[:1], own.obs.op, own.obs.noise_var, own.obs.axes))
        started = time.process_time()
        est = hhat.solve(method, own.obs)
        spent += time.process_time() - started
        found.append(errors(est, own.truth))
        covered.append(torch.stack([coverage(est, own.truth, level) for level in LEVELS]))
        said = found_profile(est)
        if said is not None:
            right = (said.reshape(-1, n) == torch.arange(len(experts.PROFILES))[:, None]).double().mean(1)
    squared, energy, reported = (torch.cat(column).reshape(-1, n) for column in zip(*found, strict=True))
    lines = []
    inside = torch.cat(covered, 1).reshape(len(LEVELS), -1, n).mean(-1)
    for k, profile in enumerate(experts.PROFILES):
        nmse = mean_interval_db(squared[k] / energy[k])
        honest = ratio_interval(squared[k], reported[k]) if bool(reported.isfinite().all()) else None
        lines.append(
            {
                "method": label,
                "geometry": scene.geometry,
                "alpha": scene.pilot_ratio,
                "snr_db": scene.snr_db,
                "profile": profile,
                "nmse_db": [round(x, 3) for x in nmse[:3]],
                "error_over_variance": honest and [round(x, 3) for x in honest[:3]],
                "coverage": honest and [round(100 * x, 1) for x in inside[:, k].tolist()],
                "right": None if right is None else float(right[k]),
                "cpu_ms": round(1e3 * spent / (n * len(experts.PROFILES)), 2),
                "n": n,
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", nargs="+", default=["fixed", "rotated"])
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.6, 0.3])
    parser.add_argument("--snr", type=float, nargs="+", default=[0.0, 10.0, 30.0])
    parser.add_argument(
        "--rows", nargs="+", default=["auto", "covariance-mixture", "evidence-oamp"], choices=list(ROWS)
    )
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keys = ("method", "geometry", "alpha", "snr_db", "n")
    done = set()
    if asked.out is not None and asked.out.exists():
        done = {tuple(json.loads(line)[key] for key in keys) for line in asked.out.read_text().splitlines()}
    for geometry in asked.geometry:
        for alpha in asked.alpha:
            for snr_db in asked.snr:
                scene, slot = drawn(geometry, alpha, snr_db, asked.n, asked.seed)
                for label in asked.rows:
                    if (label, geometry, alpha, snr_db, asked.n) in done:
                        continue
                    for line in measured(label, scene, slot, asked.n):
                        print(json.dumps(line), flush=True)
                        if asked.out is not None:
                            with asked.out.open("a") as file:
                                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
