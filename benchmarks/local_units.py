"""Time of one unit's problem by each local method, against one dense E-step, in interleaved pairs, one thread.

    python -m benchmarks.local_units [--pairs 8] [--batch 1 32 256] [--methods NAME ..] [--seed 0]

A unit's problem: 32 antennas, 16 tones, 16 beams, 10 dB, noise known. The dense E-step is that of the paper's cost
model, the general inverse of the 512 x 512 information matrix of one problem, Phi^H Phi given; a method takes one call
of the batch, all its steps. The clock is the one thread's processor time. Ratio: time of one problem over that of one
dense E-step, median over pairs with its 95 % interval from 2000 bootstrap draws of the pairs. Pairs are fewer at larger
batches, at least 5. Steps: 20 of sbl-em, 30 of the other two SBL, 150 and 60 of UAMP, 4 and 5 layers; nomp as it ends.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import hhat
from benchmarks.estep import interval, pairs, spread
from hhat.experiments import xl_mimo as xl
from hhat.experiments.engine_estep import AngleDelay, EStep, flat, inverse_by_elimination, printed
from hhat.experiments.xl_mimo_table2 import UNITS
from hhat.scenarios.near_field import NearField

UNIT = NearField(num_rx_ant=32, num_unit=1)
METHODS: dict[str, Callable[[], Any]] = {
    **{label: partial(build, UNIT.local_basis()) for label, (build, _) in UNITS.items()},
    "oamp-pattern-coupled": partial(xl.oamp_pattern_coupled, UNIT.local_basis()),
    "nomp": partial(xl.nomp_unit, xl.LocalUnits(UNIT)),
}
LEAST_PAIRS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    gen = hhat.generator("benchmarks/local_units", asked.seed)
    dense = AngleDelay(32).draw(1, hhat.generator("estep", 32, 1, asked.seed)).obs
    v = EStep().init(dense, gen)["v"]
    flat(dense.op)
    print("| method | batch | ms per problem | dense E-step, ms | problem / dense E-step (95 %) | pairs |")
    print("|---|---|---|---|---|---|")
    for label in asked.methods:
        method = METHODS[label]()
        for batch in asked.batch:
            obs = UNIT.draw(batch, hhat.generator("local units", batch, asked.seed)).obs
            count = max(LEAST_PAIRS, asked.pairs if batch < 100 else 0)
            # `pairs` takes the first five times in a row and the second once: the dense step is the short one
            short, whole = pairs(
                partial(printed, dense, v, inverse_by_elimination), partial(hhat.solve, method, obs), count
            )
            ratio = whole / batch / short
            low, high = interval(ratio, gen)
            cells = [label, str(batch), spread(whole, batch), spread(short, 1)]
            cells += [f"{float(ratio.quantile(0.5)):.3g} ({low:.3g}..{high:.3g})", str(count)]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
