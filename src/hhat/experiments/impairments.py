"""What the figures on joint tracking of channel and hardware impairments share."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hhat.bench.experiment import Measurement
from hhat.distortion.compensate import Compensator
from hhat.distortion.compensated import CompensatedTracking
from hhat.distortion.record import DistortedPilots, ImpairedTruth
from hhat.distortion.surrogate import load
from hhat.distortion.tracker import ImpairmentTracking
from hhat.methods.base import Method
from hhat.methods.solve import track
from hhat.ops.linalg import squared
from hhat.random import generator
from hhat.scenarios.impaired_uplink import ImpairedUplink
from hhat.types import Slot

PAPER = "Xu & Liu 2026"
WAITS_FOR = "its scenario of receivers that drift, and the measure of it slot by slot"
COMPENSATORS = ("gmp", "gru")
FAMILY = ("mp-ttbdl", "mp-bdl", "mp-bdl-frozen")
"""The forward model inside inference: its weights tracked with a slow drift, tracked as constants, or not updated"""
CHANNEL, SIGNAL, FIT = "nmse_db", "signal_nmse_db", "fitting_nmse_db"
"""Of the channel, of the received signal without distortion, of the distorted signal as the model gives it back"""
SEQUENCES = 4000
"""Pairs that the memory polynomial is fitted to, 10 symbols each, on three chains"""
QUIET_SLOTS = 200
"""Slots of other links by which all compensators, and the reference without one, know their error"""
NUM_SLOTS = 30
ROUNDS = 5
PER_ROUND = "round:1:1"
"""Rounds are counted from 1"""
WARM_UP = 10
"""Slots that are not scored: the channel's tracker starts from nothing"""
NOTE = (
    "64 antennas, 4 QPSK pilots new in every slot, two clusters of 20 rays, 1 ms slots, 20 Hz; receivers as in "
    "training: crosstalk -15 dB, amplifier 'warp' with memory, IQ phase 0.1778 rad. One link is 30 slots, of "
    "which the last 20 are scored; n counts links. NMSE: mean over links and slots of |h_hat - h|^2 / |h|^2, of "
    "the signal the same on y, noise included. SNR: 1 / noise_var before the distortion, mean |h|^2 = 1. All rows"
    " share the channel's tracker and differ in what they tell it. bound: the undistorted signal itself, given to"
    " the same tracker: a reference, not a bound on all estimators. gmp: widely linear memory polynomial over "
    "neighbours, by least squares on 4,000 sequences of three chains; gru: the network of the same size trained "
    "the other way round; none: the distorted signal; their error variances are those on 200 slots of other "
    "links. gap_to_bound, gain_over: ratios of mean NMSE on the same slots, intervals by the delta method over "
    "links. seconds_per_slot: wall time of all links of a block over their number."
)


@dataclass(frozen=True)
class Course:
    """`num_slots` slots of n links in one draw: the slot is the first batch axis of all that is in it."""

    scene: ImpairedUplink
    num_slots: int

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        slots = list(self.scene.slots(self.num_slots, gen, n))
        h, y = (torch.stack([getattr(slot.truth, name) for slot in slots]) for name in ("h", "y"))
        seen, pilots = (torch.stack([getattr(slot.obs, name) for slot in slots]) for name in ("y", "pilots"))
        first: Any = slots[0].obs
        return Slot(ImpairedTruth(h, y), DistortedPilots(seen, pilots, first.noise_var), slots[0].about)


class Found(NamedTuple):
    """By slot and link: error of h over its energy, (slots, n); of the undistorted signal, None where a method has no
    estimate of it; seconds per slot."""

    channel: Tensor
    signal: Tensor | None
    seconds: float


def run(method: Method, slot: Slot, undistorted: bool = False) -> Found:
    """A tracker from first to last slot; undistorted: what a receiver without impairments would see."""
    obs: Any = slot.obs
    truth = slot.truth
    ys = truth.y if undistorted else obs.y
    records = [DistortedPilots(y, pilots, obs.noise_var) for y, pilots in zip(ys, obs.pilots, strict=True)]
    began = time.perf_counter()
    found = [est for _, est in track(method, records)]
    seconds = (time.perf_counter() - began) / len(records)
    h = torch.stack([est.belief.mean for est in found])
    signal = None
    if "signal" in found[0].info:
        signal = ratio(torch.stack([est.info["signal"] for est in found]), truth.y, (-2, -1))
    return Found(ratio(h, truth.h, (-1,)), signal, seconds)


def ratio(found: Tensor, truth: Tensor, axes: tuple[int, ...]) -> Tensor:
    return (squared(found - truth).sum(axes) / squared(truth).sum(axes)).double()


@cache
def compensators(scene: ImpairedUplink) -> Mapping[str, Compensator]:
    """Fitted to pairs of the matched receiver, not to what is measured here; and what each leaves, by amplitude, on
    pilots through channels of other links."""
    small = ImpairedUplink(num_rx_ant=3, amplifier=scene.amplifier, back_off=scene.back_off)
    signal, distorted = small.pairs(SEQUENCES, generator("impairments", "pairs"))
    signal, distorted = signal.to(torch.complex128), distorted.to(torch.complex128)
    found = {"gmp": Compensator.polynomial(signal, distorted), "none": Compensator.calibrate(None, signal, distorted)}
    found["gru"] = Compensator.network(load("impairment-compensator"))
    other = scene.draw(QUIET_SLOTS, generator("impairments", "calibration"))
    pairs = other.truth.y.to(torch.complex128), other.obs.y.to(torch.complex128)
    return {name: calibrated(c.for_chains(scene.num_rx_ant), *pairs) for name, c in found.items()}


def calibrated(compensator: Compensator, signal: Tensor, distorted: Tensor) -> Compensator:
    return Compensator(compensator.model, squared(compensator(distorted).signal - signal).mean(0).mT.contiguous())


def contenders(scene: ImpairedUplink) -> Mapping[str, Callable[[], tuple[Method, bool]]]:
    """Label -> the method, and whether it sees the undistorted signal."""
    return {
        FAMILY[-1]: lambda: (ImpairmentTracking(), False),
        **{
            name: (lambda name=name: (CompensatedTracking(compensators(scene)[name]), False))
            for name in (*COMPENSATORS, "none")
        },
        "bound": lambda: (CompensatedTracking(), True),
    }


def lead(own: Tensor, other: Tensor) -> Tensor:
    """Per link, so that their mean is mean(own) / mean(other) and their spread that of this quotient (delta method)."""
    quotient = own.mean() / other.mean()
    return quotient * (1 + own / own.mean() - other / other.mean())


def measured(label: str, beside: Sequence[str] = ()) -> Callable[[Course], Measurement]:
    """Errors of one contender after the warm-up, and against those of others run beside it on the same slots."""

    def build(course: Course) -> Measurement:
        known = contenders(course.scene)

        def measure(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
            found = run(*_swapped(known[label](), slot))
            own = found.channel[WARM_UP:].mean(0)
            kept = {"ratio": own, "energy": torch.ones_like(own)}
            kept["seconds_per_slot"] = torch.full_like(own, found.seconds / len(own))
            if found.signal is not None:
                kept["signal_nmse_ratio"] = found.signal[WARM_UP:].mean(0)
            for name in beside:
                other = run(*_swapped(known[name](), slot)).channel[WARM_UP:].mean(0)
                if name == "bound":
                    kept["gap_to_bound_ratio"] = lead(own, other)
                else:
                    kept[f"gain_over_{name}_ratio"] = lead(other, own)
            return kept, {"OK": len(own)}

        return Measurement(measure)

    return build


def _swapped(contender: tuple[Method, bool], slot: Slot) -> tuple[Method, Slot, bool]:
    return contender[0], slot, contender[1]


def by_round(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Error of the undistorted signal after 1 .. ROUNDS rounds in every slot; each is a run of its own."""
    runs = [run(ImpairmentTracking(rounds=count), slot).signal for count in range(1, ROUNDS + 1)]
    kept = torch.stack([found[WARM_UP:].mean(0) for found in runs if found is not None], 1)
    return {f"signal_nmse_ratio@{PER_ROUND}": kept}, {"OK": len(kept)}


def by_compensator(label: str) -> Callable[[Course], Measurement]:
    """The same of a signal that needs no rounds."""

    def build(course: Course) -> Measurement:
        compensator = compensators(course.scene)[label]

        def measure(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
            signal = compensator(slot.obs.y.to(torch.complex128)).signal
            own = ratio(signal, slot.truth.y, (-2, -1))[WARM_UP:].mean(0)
            return {f"signal_nmse_ratio@{PER_ROUND}": own[:, None].expand(-1, ROUNDS)}, {"OK": len(own)}

        return Measurement(measure)

    return build
