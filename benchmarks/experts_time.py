"""Time per channel of the estimators with learned and Gaussian priors, each against the paper's sampler, in pairs.

    python -m benchmarks.experts_time [--pairs 5] [--batch 1 20 100] [--threads 1] [--rows NAME ..] [--seed 0]

CDL-C, fixed arrays, 64 x 16 antennas, 38 pilots, 10 dB, factors of pilots and covariances at hand. A pair times one
method and `evidence-dmps`, the paper's 100 steps with the network that the evidence takes, on the same channels, in
alternating order; one pair before counts for nothing. Clocks: processor time of the whole process (all its threads),
and wall time, which on a shared machine holds the others' share. Ratio: processor time of the paper's 100 steps over
the method's, median over pairs with its 95 % interval from 2000 bootstrap draws (the range, where pairs are few).
Pairs of batches above 100 are at most 3. Last: that an expert without a share costs nothing, mixtures of one and of
four networks at the same channels, where q of all but one is below 0.001.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import hhat
from benchmarks.estep import interval, spread
from hhat.experiments import experts, experts_gauss, experts_nets
from hhat.priors.experts import Experts

NETS = experts_nets.rows()
REFERENCE = "evidence-dmps"
ROWS: dict[str, Callable[[Any], Any]] = {
    "evidence-variance-map": NETS["evidence-variance-map"],
    "evidence-oamp": NETS["evidence-oamp"],
    "experts-vb": experts_nets.default,
    "covariance-mixture": experts_gauss.covariance_mixture,
    "experts-vb-paper": NETS[experts.PROPOSED],
}
LARGE = 100
LAST = "one network alone"


def one_alone(scene: Any) -> Any:
    """The network of the profile at hand and no other, by the same sampler."""
    nets = experts_nets.networks(scene)
    k = experts.PROFILES.index(scene.profile)
    return hhat.method("experts-vb", prior=Experts([nets.experts[k]], names=nets.names[k : k + 1]), likelihood="dmps")


def clocks(run: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rows", nargs="+", default=[*ROWS, LAST], choices=[*ROWS, LAST])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    gen = hhat.generator("benchmarks/experts_time", asked.seed)
    scene = experts.scenario({"profile": "C", "snr_db": 10.0, "alpha": 0.6})
    reference = NETS[REFERENCE](scene)
    head = [
        "method",
        "batch",
        "threads",
        "CPU ms",
        "wall ms",
        "CPU ms, 100 steps",
        "100 steps / method (95 %)",
        "pairs",
    ]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for label in asked.rows:
        method = (one_alone if label == LAST else ROWS[label])(scene)
        for batch in asked.batch:
            obs = scene.draw(batch, hhat.generator("experts time", batch, asked.seed)).obs
            for threads in asked.threads:
                torch.set_num_threads(threads)
                runs = [partial(hhat.solve, one, obs) for one in (method, reference)]
                count, times = min(asked.pairs, 3) if batch > LARGE else asked.pairs, []
                for number in range(count + 1):
                    order = (0, 1) if number % 2 else (1, 0)
                    found = {k: clocks(runs[k]) for k in order}
                    times.append([*found[0], *found[1]])
                cpu, wall, other, _ = torch.tensor(times[1:], dtype=torch.float64).T
                ratio = other / cpu
                low, high = interval(ratio.float(), gen)
                cells = [label, str(batch), str(threads), spread(cpu, batch), spread(wall, batch), spread(other, batch)]
                cells += [f"{float(ratio.quantile(0.5)):.3g} ({low:.3g}..{high:.3g})", str(count)]
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
