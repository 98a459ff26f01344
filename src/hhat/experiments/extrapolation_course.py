"""Hopping soundings from first to last symbol: what each method makes of them, symbol by symbol and part by part."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.bench.experiment import Measurement, Point
from hhat.extrapolation.ekf import PathEkf
from hhat.extrapolation.hold import Hold, genie_hold
from hhat.extrapolation.joint_ml import JointMl
from hhat.extrapolation.r_tst_music import RTstMusic
from hhat.extrapolation.sliding import SlidingJointMl
from hhat.extrapolation.tst_music import TstMusic
from hhat.extrapolation.turbo import EmTurbo
from hhat.methods.base import Method
from hhat.methods.linear import LeastSquares
from hhat.methods.solve import solve, track
from hhat.ops import Hops, Kron, LinearOp, Select
from hhat.ops.linalg import squared
from hhat.scenarios.srs import AXES, Srs
from hhat.scenarios.srs_sionna import SrsUma
from hhat.types import Estimate, Observation, Slot, State, Status

TRACKED = 16
"""Symbols behind the first block, a multiple of every block"""
LARGEST_RATIO = 10.0
"""To which the error of a symbol is cut, so that a mean does not hang on how far a lost one is off"""
STAGES = ("stage1_nmse_db", "stage1_nmse_median_db", "tracking_nmse_db", "tracking_nmse_median_db")
NOTE = (
    "UMa without line of sight by Sionna, 8 x 4 antennas, 500 tones over 60 MHz, a sounding every 5 ms, 3 km/h, "
    "uniform random phase and 10 ns rms of timing in every symbol; n counts drops. NMSE of a symbol: over all antennas "
    "and tones, cut at +10 dB; stage 1: mean over the first block of 2 hops symbols, tracking: over the 16 behind it; "
    "medians are over drops. SNR: mean |h|^2 of a drop over band, antennas and symbols, over noise_var. Methods of one "
    "block are run again on every block. Trackers start from joint-ml where nothing else is said; genie-hold knows the "
    "channel of each tone's last visit. seconds_per_symbol: of tracking, one thread, a user in a batch of one block."
)


class Course(NamedTuple):
    """What a method makes of all symbols: mean (n, rx_ant, symbol, subcarrier), var that broadcasts to it, seconds of
    the symbols behind the first block, and how many users ended how."""

    mean: Tensor
    var: Tensor
    seconds: float
    status: dict[str, int]


Contender = Callable[[Srs], Callable[[Slot], Course]]


@dataclass(frozen=True, eq=False)
class Given(Method):
    """Stands in the place of a first stage that has been run already."""

    estimate: Estimate

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        return {"change": obs.y.real.new_zeros(obs.batch_shape)}

    def step(self, state: State, obs: Observation) -> State:
        return state

    def read(self, state: State, obs: Observation) -> Estimate:
        return self.estimate


def scenario(point: Point) -> SrsUma:
    """Points hold hops and snr_db, and tracked (symbols behind the first block) where these are more."""
    hops = int(point["hops"])
    return SrsUma(hops=hops, snr_db=float(point["snr_db"]), num_symbols=2 * hops + int(point.get("tracked", TRACKED)))


def sounding_of(slot: Slot) -> tuple[LinearOp, Hops]:
    """Antennas and hops of a draw."""
    op = slot.obs.op
    assert isinstance(op, Kron) and isinstance(op.right, Hops)
    return op.left, op.right


def parts(slot: Slot, first: int, size: int) -> Observation:
    """Symbols first .. first + size - 1 of a joint observation."""
    obs = slot.obs
    left, hops = sounding_of(slot)
    op = Kron(left, Hops(hops.index[first : first + size], hops.size))
    return Observation(obs.y[:, :, first : first + size], op, obs.noise_var, AXES)


def one_by_one(slot: Slot) -> Iterator[Observation]:
    left, hops = sounding_of(slot)
    for symbol, index in enumerate(hops.index):
        op = Kron(left, Select(index, hops.size))
        yield Observation(slot.obs.y[:, :, symbol], op, slot.obs.noise_var, (AXES[0], AXES[2]))


def blockwise(make: Callable[[Srs], Method]) -> Contender:
    """A method of one block, on each block of 2 hops symbols anew."""

    def contender(scene: Srs) -> Callable[[Slot], Course]:
        method, size = make(scene), 2 * scene.hops

        def run(slot: Slot) -> Course:
            found, seconds = [], 0.0
            for first in range(0, scene.symbols, size):
                began = time.perf_counter()
                found.append(solve(method, parts(slot, first, size)))
                seconds += (time.perf_counter() - began) * (first > 0)
            mean, var = ([getattr(est.belief, name) for est in found] for name in ("mean", "var"))
            var = [value.expand(*value.shape[:2], size, value.shape[-1]) for value in var]
            return Course(torch.cat(mean, 2), torch.cat(var, 2), seconds, found[-1].status_counts())

        return run

    return contender


def followed(make: Callable[[Srs, Method], Method], first: Callable[[Srs], Method] | None = None) -> Contender:
    """A tracker that starts from `first` (None: joint-ml), whose estimates stand for the symbols of the first block."""

    def contender(scene: Srs) -> Callable[[Slot], Course]:
        stage1, size = (first or joint_ml)(scene), 2 * scene.hops

        def run(slot: Slot) -> Course:
            start = solve(stage1, parts(slot, 0, size))
            mean, var = [start.belief.mean], [start.belief.var.expand(*start.belief.var.shape[:2], size, -1)]
            seconds, began = 0.0, 0.0
            est = start
            for symbol, (_, est) in enumerate(track(make(scene, Given(start)), one_by_one(slot))):
                if symbol >= size:
                    seconds += time.perf_counter() - began
                    mean.append(est.belief.mean[:, :, None])
                    var.append(est.belief.var[:, :, None])
                began = time.perf_counter()
            return Course(torch.cat(mean, 2), torch.cat(var, 2), seconds, est.status_counts())

        return run

    return contender


def held(inner: Method | None) -> Contender:
    """`Hold` over all symbols."""

    def contender(scene: Srs) -> Callable[[Slot], Course]:
        method, size = Hold(scene.model, inner), 2 * scene.hops

        def run(slot: Slot) -> Course:
            found, seconds, began = [], 0.0, time.perf_counter()
            for symbol, (_, est) in enumerate(track(method, one_by_one(slot))):
                found.append(est)
                seconds += (time.perf_counter() - began) * (symbol >= size)
                began = time.perf_counter()
            mean, var = (torch.stack([getattr(e.belief, name) for e in found], 2) for name in ("mean", "var"))
            return Course(mean, var, seconds, found[-1].status_counts())

        return run

    return contender


def genie(scene: Srs) -> Callable[[Slot], Course]:
    def run(slot: Slot) -> Course:
        mean = genie_hold(slot.truth.h, sounding_of(slot)[1].index)
        return Course(mean, torch.full_like(mean[:, :1].real, torch.inf), 0.0, {Status.OK.name: len(mean)})

    return run


def scored(contender: Contender) -> Callable[[Srs], Measurement]:
    """stage1_nmse_ratio, tracking_nmse_ratio, seconds_per_symbol (n,); ratio, energy and reported along `symbol`;
    first_part_nmse_ratio along `symbol`; part_nmse_ratio along `band_part`, of tracked symbols that sound part 0."""

    def method(scene: Srs) -> Measurement:
        run, size = contender(scene), 2 * scene.hops

        def measure(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
            found, h = run(slot), slot.truth.h
            tones = h.shape[-1] // scene.hops
            error = squared(found.mean - h).double().unflatten(-1, (scene.hops, tones)).sum((1, -1))
            energy = squared(h).double().unflatten(-1, (scene.hops, tones)).sum((1, -1))  # (n, symbol, part)
            told = found.var.expand(len(h), -1, -1, h.shape[-1]).double()
            told = told.sum((1, -1)) * (h.shape[1] / found.var.shape[1])
            ratio = (error.sum(-1) / energy.sum(-1)).clamp_max(LARGEST_RATIO)
            part = (error / energy).clamp_max(LARGEST_RATIO)
            home = (sounding_of(slot)[1].index[:, 0] == 0).nonzero()[:, 0]
            home = home[home >= size]
            kept = {
                "stage1_nmse_ratio": ratio[:, :size].mean(1),
                "tracking_nmse_ratio": ratio[:, size:].mean(1),
                "seconds_per_symbol": torch.full((len(h),), found.seconds / (len(h) * max(1, scene.symbols - size))),
                "ratio@symbol": ratio,
                "energy@symbol": torch.ones_like(ratio),
                "reported@symbol": told / energy.sum(-1),
                "first_part_nmse_ratio@symbol": part[..., 0],
                "part_nmse_ratio@band_part": part[:, home].mean(1),
            }
            return kept, found.status

        return Measurement(measure)

    return method


def joint_ml(scene: Srs) -> Method:
    return JointMl(scene.model)


def paper_first(scene: Srs) -> Method:
    return RTstMusic(scene.model)


METHODS: dict[str, Callable[[Srs], Measurement]] = {
    "sliding-joint-ml": scored(followed(lambda scene, first: SlidingJointMl(scene.model, stage1=first))),
    "path-ekf": scored(followed(lambda scene, first: PathEkf(scene.model, stage1=first))),
    "joint-ml": scored(blockwise(joint_ml)),
    "r-tst-music": scored(blockwise(paper_first)),
    "tst-music": scored(blockwise(lambda scene: TstMusic(scene.model))),
    "em-turbo": scored(followed(lambda scene, first: EmTurbo(scene.model, stage1=first), paper_first)),
    "em-turbo-no-m-step": scored(
        followed(lambda scene, first: EmTurbo(scene.model, stage1=first, em_step=False), paper_first)
    ),
    "em-turbo-joint-ml": scored(followed(lambda scene, first: EmTurbo(scene.model, stage1=first))),
    "oamp-hold": scored(held(None)),
    "ls-hold": scored(held(LeastSquares())),
    "genie-hold": scored(genie),
}
QUICK = ("sliding-joint-ml", "path-ekf", "joint-ml", "r-tst-music", "tst-music", "ls-hold")
