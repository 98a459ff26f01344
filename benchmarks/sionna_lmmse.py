"""Sionna's LMMSE channel estimator against hhat's joint LMMSE: one paired run.

64 receive antennas, 14 x 76 grid, two pilot symbols, one stream. Every round draws a grid from the given covariances
and hands the same y to all estimators in turn, so that a busy machine slows all alike. One thread. Times are medians
with their least and greatest value; the first round is left out, because it factors and allocates.

    python benchmarks/sionna_lmmse.py [--rounds 9] [--snr-db 10]
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import hhat
from hhat.random import complex_normal
from hhat.sionna import ChannelEstimator

ANTENNAS, SYMBOLS, TONES, SPACING_HZ = 64, 14, 76, 30e3
CARRIER_HZ, SPEED, DELAY_SPREAD_S = 3.5e9, 10.0, 300e-9


class Row(NamedTuple):
    name: str
    median_ms: float
    least_ms: float
    greatest_ms: float
    nmse: float
    reported: float
    """Mean reported variance over mean squared error."""


def root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance.to(torch.complex128))
    return (vectors * values.clamp_min(0).sqrt()).to(torch.complex64)


def run(rounds: int, snr_db: float) -> list[Row]:
    from sionna.phy import config
    from sionna.phy.ofdm import (
        LMMSEChannelEstimator,
        LSChannelEstimator,
        ResourceGrid,
        tdl_freq_cov_mat,
        tdl_time_cov_mat,
    )

    config.seed = 1  # only the pilots are drawn by Sionna
    grid = ResourceGrid(
        SYMBOLS, TONES, SPACING_HZ, cyclic_prefix_length=6, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11]
    )
    freq = tdl_freq_cov_mat("C", SPACING_HZ, TONES, DELAY_SPREAD_S)
    drift = tdl_time_cov_mat("C", SPEED, CARRIER_HZ, grid.ofdm_symbol_duration, SYMBOLS)
    lag = torch.arange(ANTENNAS)[:, None] - torch.arange(ANTENNAS)
    space = torch.polar(0.9 ** lag.abs(), 0.7 * lag)
    joint = ChannelEstimator(grid, cov_mat_time=drift, cov_mat_freq=freq, cov_mat_space=space)
    fresh = ChannelEstimator(grid, cov_mat_time=drift, cov_mat_freq=freq, cov_mat_space=space)
    count = itertools.count(1)
    estimators: dict[str, Callable] = {
        "Sionna LS, nearest": LSChannelEstimator(grid),
        "Sionna LS, linear": LSChannelEstimator(grid, interpolation_type="lin"),
        "Sionna LMMSE t-f-s": LMMSEChannelEstimator(grid, drift, freq, space, order="t-f-s"),
        "Sionna LMMSE f-t-s": LMMSEChannelEstimator(grid, drift, freq, space, order="f-t-s"),
        "hhat joint LMMSE": joint,
        # a noise level never seen before: nothing that depends on it can be remembered
        "hhat joint LMMSE, new no": lambda y, no: fresh(y, no * (1 + 1e-5 * next(count))),
        "hhat, no covariance given": ChannelEstimator(grid),
    }
    spent: dict[str, list[float]] = {name: [] for name in estimators}
    errors: dict[str, list[float]] = {name: [] for name in estimators}
    reported: dict[str, list[float]] = {name: [] for name in estimators}
    x = torch.ones(SYMBOLS, TONES, dtype=torch.complex64)
    x[grid.pilot_pattern.mask[0, 0].bool()] = grid.pilot_pattern.pilots[0, 0]
    no = 10 ** (-snr_db / 10)
    energy = []
    for number in range(rounds + 1):
        gen = hhat.generator("sionna-lmmse", number)
        h = complex_normal((ANTENNAS, SYMBOLS, TONES), gen)
        h = torch.einsum("as,stf->atf", root(space), root(drift) @ h @ root(freq).mT)
        y = (h * x + complex_normal((ANTENNAS, SYMBOLS, TONES), gen, var=no))[None, None]
        energy.append(float(h.abs().square().mean()))
        for name, estimator in estimators.items():
            start = time.perf_counter()
            h_hat, err_var = estimator(y, torch.tensor(no))
            spent[name].append(1e3 * (time.perf_counter() - start))
            errors[name].append(float((h_hat[0, 0, :, 0, 0] - h).abs().square().mean()))
            reported[name].append(float(err_var.mean()))
    rows = []
    for name in estimators:
        ms, error = spent[name][1:], errors[name]
        nmse = statistics.fmean(e / w for e, w in zip(error, energy, strict=True))
        honest = sum(reported[name]) / sum(error)
        rows.append(Row(name, statistics.median(ms), min(ms), max(ms), nmse, honest))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--snr-db", type=float, default=10.0, help="power of h over no")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = run(args.rounds, args.snr_db)
    base = next(r for r in rows if r.name == "Sionna LMMSE t-f-s")
    print(f"{ANTENNAS} antennas, {SYMBOLS} x {TONES} grid, {args.rounds} rounds, {args.snr_db:g} dB, one thread")
    heads = ("ms per grid", "least..greatest", "times faster", "NMSE dB", "var/err")
    print(f"{'estimator':27s} {heads[0]:>11s} {heads[1]:>17s} {heads[2]:>12s} {heads[3]:>8s} {heads[4]:>8s}")
    for r in rows:
        nmse_db = 10 * torch.log10(torch.tensor(r.nmse)).item()
        spread = f"{r.least_ms:.1f}..{r.greatest_ms:.1f}"
        print(
            f"{r.name:27s} {r.median_ms:11.1f} {spread:>17s} {base.median_ms / r.median_ms:12.1f} "
            f"{nmse_db:8.2f} {r.reported:8.2f}"
        )


if __name__ == "__main__":
    main()
