"""Channels per second of every method at 64 x 16 antennas, 38 pilots, CDL-C, 10 dB, and where the time goes.

    python benchmarks/throughput.py [--batch 1 64 1024] [--threads 1 2]

A warm-up call, then calls for at least a second (one where a call takes longer); the median counts. Beside it the three
operators of PyTorch that take the most of one call at batch 64 on one thread.
"""

import argparse
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

import hhat
from hhat.experiments.engine_throughput import EVERY
from hhat.scenarios.cdl import Cdl


def seconds(method, obs) -> float:
    hhat.solve(method, obs, max_steps=1)
    times: list[float] = []
    while sum(times) < 1.0:
        started = time.perf_counter()
        hhat.solve(method, obs)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def hottest(method, obs) -> str:
    with profile(activities=[ProfilerActivity.CPU]) as record:
        hhat.solve(method, obs)
    events = sorted(record.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return ", ".join(f"{e.key.removeprefix('aten::')} {e.self_cpu_time_total / total:.0%}" for e in events[:3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    asked = parser.parse_args()
    scene = Cdl(profile="C", num_rx_ant=16, num_tx_ant=64, pilot_ratio=0.6, snr_db=10.0)
    slots = {batch: scene.draw(batch, hhat.generator("throughput", batch)) for batch in {*asked.batch, 64}}
    points = [(batch, threads) for threads in asked.threads for batch in asked.batch]
    print("| method | " + " | ".join(f"{b} on {t}" for b, t in points) + " | where the time goes |")
    print("|---|" + "---|" * (len(points) + 1))
    for name, make in EVERY.items():
        method = make(scene)
        rates = []
        for batch, threads in points:
            torch.set_num_threads(threads)
            rates.append(f"{batch / seconds(method, slots[batch].obs):,.0f}")
        torch.set_num_threads(1)
        print(f"| {name} | " + " | ".join(rates) + f" | {hottest(method, slots[64].obs)} |", flush=True)


if __name__ == "__main__":
    main()
