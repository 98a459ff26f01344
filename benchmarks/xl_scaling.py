"""Processor time and memory of a channel against the length of the array, a process for each method and size.

    python benchmarks/xl_scaling.py [--sizes 128 256 512 1024] [--methods NAME ..] [--channels 3] [--seed 0]

One channel at a time (batch 1), units of 32 antennas with 16 beams, 10 dB, one thread. Time: the one thread's processor
time, median over channels after one that counts for nothing; what a method makes once per combiner (factors, tables)
is in that one, and printed as `first`. Memory: the peak resident size of the process (ru_maxrss) less that before the
first estimate, with everything imported and the channels drawn: it holds what torch keeps for itself.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

import hhat
from hhat.experiments.xl_mimo_scaling import METHODS, SIZES, scenario
from hhat.types import Observation

LIMIT_S = 300


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds(run) -> float:
    started = time.thread_time()
    run()
    return time.thread_time() - started


def one(size: int, label: str, channels: int, seed: int) -> dict:
    torch.set_num_threads(1)
    scene = scenario({"num_rx_ant": size, "snr_db": 10.0})
    obs = scene.draw(channels + 1, hhat.generator("benchmarks/xl_scaling", seed)).obs
    each = [Observation(obs.y[i : i + 1], obs.op, obs.noise_var[i : i + 1], obs.axes) for i in range(channels + 1)]
    small = scenario({"num_rx_ant": 64, "snr_db": 10.0})  # imports, and what torch loads at the first call
    hhat.solve(METHODS[label](small), small.draw(1, hhat.generator("small")).obs)
    method, before = METHODS[label](scene), peak_mb()
    times = [seconds(lambda o=o: hhat.solve(method, o)) for o in each]
    return {"first": times[0], "ms": 1e3 * statistics.median(times[1:]), "mb": peak_mb() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", action="store_true", help="this process measures the one size and method named")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(asked.sizes[0], asked.methods[0], asked.channels, asked.seed)))
        return
    print("| method | antennas | ms per channel | ms per unit | first, ms | peak MB |\n|---|---|---|---|---|---|")
    for label in asked.methods:
        for size in asked.sizes:
            call = [sys.executable, __file__, "--one", "--sizes", str(size), "--methods", label]
            call += ["--channels", str(asked.channels), "--seed", str(asked.seed)]
            try:
                done = subprocess.run(call, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            except subprocess.TimeoutExpired:
                print(f"| {label} | {size} | more than {LIMIT_S} s in all | | | |", flush=True)
                continue
            if done.returncode:
                print(f"| {label} | {size} | ended with {done.returncode}: {done.stderr.strip()[-200:]} | | | |")
                continue
            found = json.loads(done.stdout)
            units = 1 if label.endswith("-central") or label == "hybrid" else size // 32
            cells = [
                f"{found['ms']:.3g}",
                f"{found['ms'] / units:.3g}" if units > 1 else "",
                f"{1e3 * found['first']:.3g}",
            ]
            print(f"| {label} | {size} | {' | '.join(cells)} | {found['mb']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
