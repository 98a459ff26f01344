"""Gains calibrated from unlabelled echoes: e0, e1, shift, their expected values, and time, per calibrator.

    python benchmarks/calibration.py --kappas 20                          the default, 16,384 snapshots at 15 dB
    python benchmarks/calibration.py --snapshots 4096 --kappas 5 --methods eigenvector soft-em peaks gradient-14
    python benchmarks/calibration.py --drift 1 --kappas 2                 streaming against gains that stay

One thread; seconds are CPU seconds of `calibrate`, without the draw. Seeds: kappa_seed 1, 2, ..; echoes hash
("calibration", kappa_seed, SNR). Prints one line per kappa and the mean with its standard error.
"""

import argparse
import math
import time

import torch

import hhat
from hhat.random import generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.blocks import joined
from hhat.sensing.losses import PeakLoss, ResidualLoss, published_noise_var
from hhat.sensing.scatter import dominant, second_moment
from hhat.sensing.start import ones
from hhat.sensing.views import aligned_views

PAPER = {"start": ones, "margin_u": 0.0, "first": 1 << 30}
METHODS = {
    "eigenvector": ("eigenvector", {}),
    "peaks": ("eigenvector", {**PAPER, "gate": None, "passes": 0, "find_shift": False, "unbend": False}),
    "gated": ("eigenvector", {**PAPER, "passes": 0, "find_shift": False, "unbend": False}),
    "bent": ("eigenvector", {"unbend": False}),
    "soft-em": ("soft-em", {}),
    "gradient-14": ("gradient", {}),
    "gradient-15": ("gradient", {"loss": ResidualLoss()}),
    "adam-14": ("gradient", {"project": False}),
    "adam-15": ("gradient", {"project": False, "loss": ResidualLoss()}),
    "adam-14-watt": ("gradient", {"project": False, "loss": PeakLoss(64 * 256 * published_noise_var(256, 240e3))}),
}
COLUMNS = ("e0", "e1", "shift_u", "expected_e0", "expected_e1", "shift_sd", "gain_ratio", "phase_ratio", "seconds")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["eigenvector"], choices=[*METHODS, "genie"])
    parser.add_argument("--snapshots", type=int, default=16384)
    parser.add_argument("--kappas", type=int, default=3)
    parser.add_argument("--snr-db", type=float, default=15.0)
    parser.add_argument("--antennas", type=int, default=64)
    parser.add_argument("--phase-spread-deg", type=float, default=90.0)
    parser.add_argument("--steps", type=int, help="max_steps of every method")
    parser.add_argument("--assumed-db", type=float, default=0.0, help="by how much the SNR told is off")
    parser.add_argument("--drift", type=float, help="degrees rms per 1,000 snapshots; streaming against frozen gains")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(*COLUMNS)
    for name in given.methods:
        rows = []
        for seed in range(1, given.kappas + 1):
            rows += drifting(given, seed) if given.drift is not None else [one(given, name, seed)]
            print(name, seed, *(f"{value:.3g}" for value in rows[-1]), flush=True)
        table = torch.tensor(rows, dtype=torch.float64)
        error = table.std(0) / math.sqrt(len(rows)) if len(rows) > 1 else torch.full_like(table[0], torch.nan)
        print(name, "mean", *(f"{value:.3g}" for value in table.mean(0).tolist()))
        print(name, "standard error", *(f"{value:.2g}" for value in error.tolist()))


def scene(given, seed, **more):
    more = {"snr_db": given.snr_db, "num_rx_ant": given.antennas, "phase_spread_deg": given.phase_spread_deg} | more
    return EchoScene(kappa_seed=seed, **more)


def one(given, name, seed):
    slot = scene(given, seed).draw(given.snapshots, generator("calibration", seed, given.snr_db))
    kappa, began = slot.truth.kappa, time.process_time()
    if name == "genie":
        present = slot.truth.present[:, 0]
        there = [value[present, 0] for value in (slot.truth.u, slot.truth.range_m)]
        z = aligned_views(slot.obs.rows(present), *there).z
        k = dominant(second_moment(z, torch.ones(len(z))))
        errors = gain_errors(k, kappa)
        return [*map(float, errors), *[math.nan] * 5, time.process_time() - began]
    kind, settings = METHODS[name]
    echoes = slot.obs
    object.__setattr__(echoes, "snr", echoes.snr * 10 ** (given.assumed_db / 10))
    found = hhat.calibrate(echoes, hhat.calibrator(kind, **settings), max_steps=given.steps)
    seconds = time.process_time() - began
    errors = gain_errors(found.kappa, kappa)
    off = found.kappa / kappa
    off = off * off.sum().conj() / off.sum().abs()
    ratios = (off.abs().log().square() / found.log_gain_var).mean(), (off.angle().square() / found.phase_var).mean()
    expected = found.expected_e0, found.expected_e1, math.sqrt(found.shift_var)
    return [*map(float, errors), *expected, *map(float, ratios), seconds]


def drifting(given, seed, block=1024):
    """Rows of every 8th block: e0, e1, shift of the stream, then e0 of gains calibrated once on the first 16 blocks."""
    slots = scene(given, seed, drift_deg=given.drift).slots(given.snapshots // block, generator("drift", seed), block)
    state, frozen, rows, first = None, None, [], []
    calibrator = hhat.calibrator("streaming")
    for number, slot in enumerate(slots):
        state, found = next(hhat.follow(calibrator, [slot], state))
        if number < 16:
            first.append(slot.obs)
        if number == 15:
            frozen = hhat.calibrate(joined(first)).kappa
        if number % 8 == 7:
            stale = math.nan if frozen is None else float(gain_errors(frozen, slot.truth.kappa).e0)
            rows.append([*map(float, gain_errors(found.kappa, slot.truth.kappa)), stale, *[math.nan] * 5])
            print("  after", (number + 1) * block, *(f"{value:.3g}" for value in rows[-1][:4]), flush=True)
    return rows


if __name__ == "__main__":
    main()
