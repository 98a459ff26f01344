"""Hold-out and re-noise NMSE of every method on over-the-air captures, as a Markdown table.

    python benchmarks/renew_table.py CAPTURE.mat [CAPTURE.mat ...]

Hold-out: estimate from the first training symbol, predict the second. Re-noise: the average of both symbols plus noise
at 0, 5, 10, 15 dB, 20 draws, generator("renew", snr_db). User 1 / user 2, dB; methods with their defaults.
"""

import sys
from pathlib import Path

import torch

import hhat
from hhat import registry
from hhat.bench.scores import holdout, renoise
from hhat.io import repeats
from hhat.methods.defaults import method_for

SNRS_DB = (0.0, 5.0, 10.0, 15.0)


def cell(values: torch.Tensor) -> str:
    return " / ".join(f"{value:.2f}" for value in values.tolist())


def main(paths: list[str]) -> None:
    torch.set_num_threads(1)
    for path in paths:
        slot, pair = hhat.read(path), repeats(path)
        if pair is None:
            sys.exit(f"{path}: holds one reception only, expected two")
        print(f"\n**{Path(path).name}**\n")
        print("| method | hold-out | " + " | ".join(f"{snr_db:g} dB" for snr_db in SNRS_DB) + " |")
        print("|---|---|" + "---|" * len(SNRS_DB))
        for name in registry.METHODS:
            method = method_for(name, slot.obs, slot.about)

            def estimate(obs, method=method):
                return hhat.solve(method, obs)

            held = holdout(pair, estimate)
            scores = [renoise(slot, snr_db, hhat.generator("renew", snr_db), estimate, draws=20) for snr_db in SNRS_DB]
            print(f"| {name} | {cell(held.nmse_db)} | " + " | ".join(map(cell, scores)) + " |", flush=True)
        print(f"| noise floor | {cell(held.floor_db)} |" + " |" * len(SNRS_DB))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
