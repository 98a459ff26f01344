"""Gains calibrated from unlabelled echoes: e0, e1, shift, their expected values, and time, per calibrator.

    python benchmarks/calibration.py --kappas 20                          the default, 16,384 snapshots at 15 dB
    python benchmarks/calibration.py --snapshots 4096 --kappas 5 --methods eigenvector soft-em peaks gradient-14
    python benchmarks/calibration.py --drift 1 --kappas 2                 streaming against gains that stay
    python benchmarks/calibration.py --fresh 10000 --methods adam-14-watt the paper's Algorithm 1 at its full size
    python benchmarks/calibration.py --naive 3                            seconds of its step as the formulas say it

One thread; seconds are CPU seconds of `calibrate`, without the draw. Seeds: kappa_seed 1, 2, ..; echoes hash
("calibration", kappa_seed, SNR). Prints one line per kappa (ok: it ended with status OK) and, over those that did, the
mean, its standard error and the root mean square. --snr-db and --antennas take several values.
"""

import argparse
import itertools
import math
import time
from pathlib import Path

import torch

import hhat
from hhat.ops.linalg import squared
from hhat.random import generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.blocks import joined
from hhat.sensing.echoes import delay_response, steering
from hhat.sensing.losses import PeakLoss, ResidualLoss, published_noise_var
from hhat.sensing.scatter import dominant, second_moment
from hhat.sensing.start import ones
from hhat.sensing.views import aligned_views
from hhat.types import Status

WATT = published_noise_var(256, 240e3)
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
    "adam-14-watt": ("gradient", {"project": False, "loss": PeakLoss(64 * 256 * WATT)}),
    "adam-15-watt": ("gradient", {"project": False, "loss": ResidualLoss(math.sqrt(WATT))}),
}
COLUMNS = (
    "e0",
    "e1",
    "shift_u",
    "expected_e0",
    "expected_e1",
    "shift_sd",
    "gain_ratio",
    "phase_ratio",
    "pull",
    "seconds",
    "ok",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["eigenvector"], choices=[*METHODS, "genie"])
    parser.add_argument("--snapshots", type=int, default=16384)
    parser.add_argument("--kappas", type=int, default=3)
    parser.add_argument("--snr-db", type=float, nargs="+", default=[15.0])
    parser.add_argument("--antennas", type=int, nargs="+", default=[64])
    parser.add_argument("--phase-spread-deg", type=float, default=90.0)
    parser.add_argument("--steps", type=int, help="max_steps of every method")
    parser.add_argument("--assumed-db", type=float, default=0.0, help="by how much the SNR told is off")
    parser.add_argument("--drift", type=float, help="degrees rms per 1,000 snapshots; streaming against frozen gains")
    parser.add_argument("--first", type=int, default=1, help="the first kappa's seed")
    parser.add_argument("--fresh", type=int, help="so many steps of --batch fresh snapshots each, for gradients")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--keep", type=Path, help="of --fresh: state file of one method and kappa (.safetensors)")
    parser.add_argument("--naive", type=int, help="so many steps of loss (14) over the full map, by autograd; no gains")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.naive is not None:
        print("seconds a step: draw, map and loss, backward", *naive(single(given, given.snr_db[0], given.antennas[0])))
        return
    print("method SNR antennas seed", *COLUMNS)
    for name, snr_db, antennas in itertools.product(given.methods, given.snr_db, given.antennas):
        here = single(given, snr_db, antennas)
        place, rows = f"{name} {snr_db:g} {antennas}", []
        for seed in range(given.first, given.first + given.kappas):
            if given.fresh is not None:
                learning(here, name, seed)
            elif given.drift is not None:
                rows += drifting(here, seed)
            else:
                rows.append(one(here, name, seed))
                print(place, seed, *(f"{value:.3g}" for value in rows[-1]), flush=True)
        if rows:
            summary(place, rows)


def single(given, snr_db, antennas):
    """The settings for one of their values each."""
    return argparse.Namespace(**vars(given) | {"snr_db": snr_db, "antennas": antennas})


def summary(place, rows):
    """Mean, its standard error and root mean square over the kappas that ended OK; the others' lines are above."""
    table = torch.tensor(rows, dtype=torch.float64)
    table = table[table[:, -1] != 0]
    if not len(table):
        print(place, f"none of {len(rows)} ended OK", flush=True)
        return
    lines = {
        "mean": table.mean(0),
        "standard error": table.std(0, correction=min(1, len(table) - 1)) / math.sqrt(len(table)),
        "rms": table.square().mean(0).sqrt(),
    }
    for name, values in lines.items():
        print(
            place, f"{name} of {len(table)} of {len(rows)}", *(f"{value:.3g}" for value in values.tolist()), flush=True
        )


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
        return [*map(float, errors), *[math.nan] * 6, time.process_time() - began, 1.0]
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
    ok = float(found.status == Status.OK)
    return [*map(float, errors), *expected, *map(float, ratios), found.info.get("pull", math.nan), seconds, ok]


def learning(given, name, seed):
    """Algorithm 1: e0, e1, shift and CPU seconds (draws included, and apart) after each of a few numbers of steps.

    --keep: its state is written there every 100 steps and taken up again, with the seconds it took."""
    calibrator = hhat.calibrator("gradient", **METHODS[name][1], batch=None)
    place, state, drawn, before = scene(given, seed), None, 0.0, 0.0
    if given.keep is not None and given.keep.exists():
        state = hhat.load_state(given.keep)
        before, drawn = state.pop("seconds"), state.pop("drawn")
    began, marks = time.process_time(), {100, 400, 1000, 2000, 3000, 5000, 7000, given.fresh}
    for number in range(1 if state is None else state["count"] + 1, given.fresh + 1):
        start = time.process_time()
        slot = place.draw(given.batch, generator("fresh", seed, number))
        drawn += time.process_time() - start
        state, found = next(hhat.follow(calibrator, [slot.obs], state))
        seconds = before + time.process_time() - began
        if number in marks:
            errors = [float(value) for value in gain_errors(found.kappa, slot.truth.kappa)]
            print(name, seed, number, *(f"{v:.3g}" for v in (*errors, seconds, drawn)), flush=True)
        if given.keep is not None and number % 100 == 0:
            hhat.save_state(given.keep, {**state, "seconds": seconds, "drawn": drawn})


def naive(given, grid=100):
    """One step of Algorithm 1 as its formulas read: Y per subcarrier, the whole map per snapshot, autograd through it.
    Least CPU seconds over the steps."""
    place, gen, seconds = scene(given, given.first, form="full"), generator("naive"), []
    for _ in range(given.naive):
        times = [time.process_time()]
        obs = place.draw(given.batch, gen).obs
        times.append(time.process_time())
        k = torch.ones(given.antennas, dtype=torch.complex64, requires_grad=True)
        angles = obs.u_limits.asin()
        u = (angles[:, :1] + (angles[:, 1:] - angles[:, :1]) * torch.linspace(0, 1, grid)).sin()
        ranges = torch.linspace(*obs.range_limits_m.tolist(), grid)
        delays = (delay_response(obs, ranges) * obs.symbols[:, None]).conj().mT
        beams = (k * steering(obs, u)).conj()
        values = squared(beams @ obs.y @ delays)
        loss = -values.flatten(1).amax(-1).mean()
        times.append(time.process_time())
        loss.backward()
        times.append(time.process_time())
        seconds.append([b - a for a, b in itertools.pairwise(times)])
    return [round(float(v), 2) for v in torch.tensor(seconds).amin(0)]


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
            rows.append([*map(float, gain_errors(found.kappa, slot.truth.kappa)), stale, *[math.nan] * 7])
            print("  after", (number + 1) * block, *(f"{value:.3g}" for value in rows[-1][:4]), flush=True)
    return rows


if __name__ == "__main__":
    main()
