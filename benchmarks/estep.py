"""One E-step (mean, all variances, log evidence) by structure against dense algebra, in interleaved pairs, one thread.

    python benchmarks/estep.py [--pairs 40] [--seed 0]

Every pair times five structured E-steps in a row (as a loop takes them; their mean counts) and one dense form, in
alternating order, on the same observation. The clock is the one thread's processor time: wall time on an idle machine,
and on a shared one without the others' share.
Speed-up: median over pairs of the ratio, with its 95 % interval from 2000 bootstrap draws of the pairs. Deviation: of
mean and variances (relative, Euclidean norm) and log evidence (per sample), from the structured result in double
precision, the largest. Below that, the operations that structure leaves, and their rate beside one large product's.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

import hhat
from hhat.experiments.engine_estep import (
    AngleDelay,
    DenseEStep,
    EStep,
    flat,
    inverse_by_cholesky,
    inverse_by_elimination,
    printed,
    score,
)
from hhat.types import Estimate, Gaussian, Observation, Slot

CASES = ((32, 1), (32, 32), (128, 1), (128, 4))
BOOTSTRAP = 2000
PRODUCT = 2048
NUM_SYSTEMS = 16
IN_A_ROW = 5


def forms(obs: Observation, v: torch.Tensor) -> dict[str, Callable]:
    return {
        "dense, data space": partial(DenseEStep().given, obs, v),
        "printed, Cholesky inverse": partial(printed, obs, v, inverse_by_cholesky),
        "printed, general inverse": partial(printed, obs, v, inverse_by_elimination),
    }


def seconds(run: Callable, count: int = 1) -> float:
    started = time.thread_time()
    for _ in range(count):
        run()
    return (time.thread_time() - started) / count


def pairs(structured: Callable, dense: Callable, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Times of both, who begins alternating; two pairs before count for nothing."""
    times = []
    for index in range(count + 2):
        if index % 2:
            late = seconds(dense)
            times.append((seconds(structured, IN_A_ROW), late))
        else:
            times.append((seconds(structured, IN_A_ROW), seconds(dense)))
    own, other = torch.tensor(times[2:]).T
    return own, other


def interval(ratio: torch.Tensor, gen: torch.Generator) -> tuple[float, float]:
    drawn = torch.randint(len(ratio), (BOOTSTRAP, len(ratio)), generator=gen)
    medians = ratio[drawn].quantile(0.5, dim=1)
    return float(medians.quantile(0.025)), float(medians.quantile(0.975))


def spread(times: torch.Tensor, batch: int) -> str:
    low, middle, high = (1e3 * float(times.quantile(q)) / batch for q in (0.0, 0.5, 1.0))
    return f"{middle:.3g} ({low:.3g}..{high:.3g})"


def deviation(result: tuple, obs: Observation, v: torch.Tensor) -> float:
    (mean, var), evidence = result
    estimate = Estimate(Gaussian(mean, var), {"prior_var": v, "log_evidence": evidence})
    return float(score(estimate, Slot(None, obs))["deviation"].max())


def floor(rows: int, columns: int) -> tuple[int, int]:
    """Least complex multiply-adds of NUM_SYSTEMS systems with one A, and bytes of A, v, y, mean and variances.

    Half of A D A^H as a real product (four real multiply-adds count as one), Cholesky, half of L^-1 A by its triangle,
    L^-1 y and back.
    """
    square = rows * rows
    macs = square * columns // 4 + square * rows // 6 + square * columns // 2 + square // 2 + rows * columns
    return NUM_SYSTEMS * macs, 8 * rows * columns + NUM_SYSTEMS * (4 * columns + 8 * rows + 12 * columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    gen = hhat.generator("benchmarks/estep", asked.seed)
    print("| antennas | batch | against | ms per item, structured | ms per item, dense | speed-up (95 %) | pairs |")
    print("|---|---|---|---|---|---|---|")
    rates, found = [], []
    for num_rx_ant, batch in CASES:
        obs = AngleDelay(num_rx_ant).draw(batch, hhat.generator("estep", num_rx_ant, batch, asked.seed)).obs
        v = EStep().init(obs, gen)["v"]
        flat(obs.op)
        structured = partial(EStep().given, obs, v)
        found.append(f"{num_rx_ant} x {batch}: structured {deviation(structured(), obs, v):.1e}")
        for name, dense in forms(obs, v).items():
            count = max(5, asked.pairs if num_rx_ant * batch <= 128 else asked.pairs // 4)
            own, other = pairs(structured, dense, count)
            ratio = other / own
            low, high = interval(ratio, gen)
            cells = [str(num_rx_ant), str(batch), name, spread(own, batch), spread(other, batch)]
            cells += [f"{float(ratio.quantile(0.5)):.1f} ({low:.1f}..{high:.1f})", str(count)]
            print("| " + " | ".join(cells) + " |", flush=True)
            found[-1] += f", {name} {deviation(dense(), obs, v):.1e}"
        alone = statistics.median(seconds(structured, IN_A_ROW) for _ in range(asked.pairs)) / batch
        rates.append((num_rx_ant, batch, alone))
    print("\nLargest deviation from double precision:", *found, sep="\n")
    a = torch.randn(PRODUCT, PRODUCT, dtype=torch.complex64, generator=gen)
    product = statistics.median(seconds(lambda: a @ a) for _ in range(5))
    peak = 8e-9 * PRODUCT**3 / product
    print(f"\nOne complex64 product of {PRODUCT} x {PRODUCT}: {peak:.0f} GFLOP/s\n")
    print("| antennas | batch | complex multiply-adds | kB | us at the product's rate | us measured | GFLOP/s |")
    print("|---|---|---|---|---|---|---|")
    for num_rx_ant, batch, alone in rates:
        macs, size = floor(num_rx_ant // 2, num_rx_ant)
        ideal, rate = 8e-3 * macs / peak, 8e-9 * macs / alone
        print(
            f"| {num_rx_ant} | {batch} | {macs:,} | {size / 1e3:.0f} | {ideal:.1f} | {1e6 * alone:.0f} | {rate:.1f} |"
        )


if __name__ == "__main__":
    main()
