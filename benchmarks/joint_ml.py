"""`joint-ml` on hopping sounding pilots: against its bound on a few paths, and in 3GPP urban macro cells by Sionna.

    python benchmarks/joint_ml.py paths [--trials 100] [--snr-db 10] [--hops 2 4]
    python benchmarks/joint_ml.py uma [--trials 48] [--snr-db 15] [--hops 2 4] [--num-paths 36] [--plain]
    python benchmarks/joint_ml.py time [--hops 2 4] [--batch 1 64]
    python benchmarks/joint_ml.py bound [--trials 32] [--snr-db 10]

NMSE of a channel: error energy over channel energy, whole band, all antennas and symbols. SNR: 1 / noise_var, every
channel of unit mean power over band, antennas and symbols. Means over channels in the linear domain with a 95 %
interval from 2000 bootstrap draws, medians beside them. ratio: error over reported variance, pooled, and the median
over channels. Bound: hybrid Cramer-Rao, with the priors of Doppler shifts and timing that the estimator has too.
The clock of `time` is the one thread's processor time. Seeds: generator("joint-ml benchmark", case, hops).
"""

import argparse
import math
import time

import torch

import hhat
from hhat.extrapolation.bound import channel_bound
from hhat.extrapolation.model import Offsets
from hhat.extrapolation.task import Free, Linear
from hhat.random import generator
from hhat.types import Observation, Slot

BOOTSTRAP = 2000
AT_ONCE = 16
"""Channels solved together."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=("paths", "uma", "time", "bound"))
    parser.add_argument("--trials", type=int)
    parser.add_argument("--snr-db", type=float)
    parser.add_argument("--hops", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--hop-order", default="sequential")
    parser.add_argument("--num-paths", type=int, default=36)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--plain", action="store_true", help="paths alone, without the rays around them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.case == "bound":
        return bounds(args)
    for hops in args.hops:
        {"paths": paths, "uma": uma, "time": timed}[args.case](hops, args)


def paths(hops: int, args: argparse.Namespace) -> None:
    scene = hhat.scenario("srs-paths", hops=hops, hop_order=args.hop_order, snr_db=_or(args.snr_db, 10.0))
    slot = scene.draw(args.trials or 100, generator("joint-ml benchmark", "paths", hops))
    truth = slot.truth
    times = scene.model.period_s * torch.arange(scene.symbols).double()
    bound = channel_bound(scene.model, truth.paths, truth.offsets, scene.index(), scene.noise_var(), times)
    nmse = shown(f"paths, {hops} hops", scene, slot, args)
    bound_nmse = bound.nmse.mean(-1)
    gap = 10 * (nmse / bound_nmse).log10()
    print(
        f"    bound {_db(bound_nmse.mean()):.2f}, median {_db(bound_nmse.median()):.2f}; "
        f"mean over bound {_db(nmse.mean() / bound_nmse.mean()):.2f} dB, more than 3 dB off: {int((gap > 3).sum())}"
    )


def bounds(args: argparse.Namespace) -> None:
    """Standard deviation of relative delays, 4 paths and 4 hops, without priors: median over channels and paths."""
    scene = hhat.scenario("srs-paths", hops=4, num_paths=4, snr_db=_or(args.snr_db, 10.0))
    truth = scene.draw(args.trials or 32, generator("joint-ml benchmark", "bound")).truth
    noise = scene.noise_var()
    for order, count in (("sequential", 4), ("nr", 4), ("sequential", 5), ("sequential", 8)):
        index = hhat.scenario("srs-paths", hops=4, hop_order=order).index(count)
        some = Offsets(truth.phase_rad[:, :count], truth.timing_s[:, :count])
        found = [
            channel_bound(scene.model, truth.paths, some, index, noise, doppler=doppler, priors=False)
            for doppler in (Linear(), Free())
        ]
        line, free = (1e12 * float(bound.relative_delay_std[:, 1:].median()) for bound in found)
        print(f"{count} symbols, {order}: {line:.0f} ps with linear Doppler phases, {free:.0f} ps with free ones")


def uma(hops: int, args: argparse.Namespace) -> None:
    scene = hhat.scenario("srs-uma", hops=hops, hop_order=args.hop_order, snr_db=_or(args.snr_db, 15.0))
    slot = scene.draw(args.trials or 48, generator("joint-ml benchmark", "uma", hops))
    shown(f"UMa without line of sight, {hops} hops", scene, slot, args)


def timed(hops: int, args: argparse.Namespace) -> None:
    scene = hhat.scenario("srs-uma", hops=hops, snr_db=_or(args.snr_db, 15.0))
    for batch in args.batch:
        slot = scene.draw(batch, generator("joint-ml benchmark", "time", hops))
        method = hhat.method("joint-ml", model=scene.model, num_paths=args.num_paths)
        start = time.process_time()
        hhat.solve(method, slot.obs)
        print(f"{hops} hops, batch {batch}: {(time.process_time() - start) / batch:.3f} s per user", flush=True)


def shown(name: str, scene, slot: Slot, args: argparse.Namespace) -> torch.Tensor:
    """Solves all channels, prints the line, and gives their NMSE."""
    method = hhat.method("joint-ml", model=scene.model, num_paths=args.num_paths, around=not args.plain)
    h, obs, start = slot.truth.h, slot.obs, time.process_time()
    error, var, count = [], [], []
    for some in torch.arange(len(h)).split(AT_ONCE):
        est = hhat.solve(method, Observation(obs.y[some], obs.op, obs.noise_var, obs.axes))
        error.append((est.belief.mean - h[some]).abs().square().double().mean((1, 3)))
        var.append(est.belief.var.double().mean((1, 3)))
        count.append(est.info["num_paths"])
    spent = (time.process_time() - start) / len(h)
    errors, variances = torch.cat(error), torch.cat(var)
    nmse = errors.mean(-1) / h.abs().square().double().mean((1, 2, 3))
    draws = nmse[torch.randint(len(nmse), (BOOTSTRAP, len(nmse)), generator=generator("bootstrap"))].mean(-1)
    low, high = (_db(draws.quantile(q)) for q in (0.025, 0.975))
    ratio = errors.mean() / variances.mean(), (errors.mean(-1) / variances.mean(-1)).median()
    print(
        f"{name}, {scene.snr_db:g} dB, {len(h)} channels: mean {_db(nmse.mean()):.2f} dB ({low:.2f} to {high:.2f}), "
        f"median {_db(nmse.median()):.2f}, worst {_db(nmse.max()):.1f}; "
        f"paths {float(torch.cat(count).double().mean()):.1f}; ratio {float(ratio[0]):.2f}, "
        f"median {float(ratio[1]):.2f}; {spent:.2f} s per user",
        flush=True,
    )
    return nmse


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _db(x: torch.Tensor) -> float:
    return 10 * math.log10(float(x))


if __name__ == "__main__":
    main()
