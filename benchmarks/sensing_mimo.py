"""Both arrays with unknown gains: the eigenvector among products against that of any gains; docs/calibration.md.

    python benchmarks/sensing_mimo.py [--kappas 6] [--snapshots 1200] [--snr-db 20 25]

8 receiving x 4 transmitting antennas, 32 subcarriers at 1.92 MHz, compressed echoes (hash "mimo", kappa seed), half of
them with a target. Mean over kappas (seeds 1, 2, ..) with its standard error, the expectation beside; shift_r -
shift_t: rms of the difference of the two arrays' shifts, which echoes do show.
"""

import argparse
import math

import torch

import hhat
from hhat.random import generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.scatter import split

FACTORS = (8, 4)
SMALL = {"num_rx_ant": 8, "num_tx_ant": 4, "num_subcarriers": 32, "subcarrier_spacing_hz": 1.92e6}
REPEATS_U = 1 / 4
"""Transmitting antennas are 4 wavelengths apart: their shift is known up to this"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kappas", type=int, default=6)
    parser.add_argument("--snapshots", type=int, default=1200)
    parser.add_argument("--snr-db", type=float, nargs="+", default=[20.0, 25.0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for snr_db in given.snr_db:
        for factors in (FACTORS, None):
            rows = torch.tensor([one(given, snr_db, seed, factors) for seed in range(1, given.kappas + 1)])
            mean, error = rows.mean(0), rows.std(0) / math.sqrt(len(rows))
            print(snr_db, "products" if factors else "any", f"e1 {mean[0]:.2e} +-{error[0]:.1e} expected {mean[1]:.2e}",
                  f"rms shift {rows[:, 2].square().mean().sqrt():.1e}",
                  f"shift_r - shift_t {rows[:, 3].square().mean().sqrt():.1e}", flush=True)  # fmt: skip


def one(given, snr_db, seed, factors):
    scene = EchoScene(**SMALL, snr_db=snr_db, kappa_seed=seed)
    slot = scene.draw(given.snapshots, generator("mimo", seed))
    found = hhat.calibrate(slot.obs, hhat.calibrator("eigenvector", factors=factors))
    whole = gain_errors(found.kappa, slot.truth.kappa, found.positions)
    parts = zip(split(found.kappa, FACTORS), scene.array_gains(), scene.array_positions(), strict=True)
    rx, tx = (float(gain_errors(k, kappa, at).shift_u) for k, kappa, at in parts)
    return [float(whole.e1), found.expected_e1, float(whole.shift_u), math.remainder(rx - tx, REPEATS_U)]


if __name__ == "__main__":
    main()
