"""extrapolation/lag: the channel between soundings, and what its estimate is worth to the downlink's precoder."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment, Measurement, Point, Profile, grid
from hhat.experiments.extrapolation_course import Given, joint_ml, one_by_one, parts
from hhat.extrapolation.ekf import PathEkf
from hhat.extrapolation.hold import Hold
from hhat.extrapolation.predict import predict
from hhat.extrapolation.sliding import SlidingJointMl
from hhat.methods.base import Method
from hhat.methods.linear import LeastSquares
from hhat.methods.solve import solve, track
from hhat.ops.linalg import squared
from hhat.scenarios.srs import Srs
from hhat.scenarios.srs_sionna import SrsUma
from hhat.types import Estimate, Gaussian, Slot, State

STEP_US, STEPS = 1250, 5
"""Lags from 0 to one sounding period"""
LAGS_S = tuple(1e-6 * STEP_US * step for step in range(1, STEPS))
BEHIND = 4
"""Symbols tracked behind the first block before the channel is predicted"""
DOWNLINK_SNR = 10.0
"""Of a precoder that knows the channel: |h|^2 over noise, mean over tones"""
RECIPROCITY_DB = -25.0
Predicted = Callable[[Srs, Slot], Gaussian]
"""From a scenario and all its symbols to channels (n, rx_ant, lag, subcarrier) after the last one"""
SPEEDS = {"hops": (2,), "speed_kmh": (3.0, 30.0, 120.0)}


def scenario(point: Point) -> SrsUma:
    hops = int(point["hops"])
    return SrsUma(
        hops=hops,
        num_symbols=2 * hops + BEHIND,
        speed_kmh=float(point["speed_kmh"]),
        lags_s=LAGS_S,
        reciprocity_error_db=RECIPROCITY_DB,
    )


def last(method: Method, slot: Slot) -> tuple[State, Estimate]:
    *_, end = track(method, one_by_one(slot))
    return end


def ahead(make: Callable[[Srs, Method], Method], still: bool = False) -> Predicted:
    """A tracker's prediction; still: its last estimate in place of it."""

    def predicted(scene: Srs, slot: Slot) -> Gaussian:
        start = solve(joint_ml(scene), parts(slot, 0, 2 * scene.hops))
        state, est = last(make(scene, Given(start)), slot)
        if still:
            return held_on(est)
        return predict(scene.model, state, torch.tensor((0.0, *LAGS_S), dtype=torch.float64))

    return predicted


def held_on(est: Estimate) -> Gaussian:
    mean = est.belief.mean[:, :, None].expand(-1, -1, STEPS, -1)
    return Gaussian(mean, est.belief.var[:, :, None].expand(*mean.shape[:1], -1, STEPS, -1))


def held(inner: Method | None) -> Predicted:
    return lambda scene, slot: held_on(last(Hold(scene.model, inner), slot)[1])


def told(scene: Srs, slot: Slot) -> Gaussian:
    """The channel of the last symbol itself, held: what time alone costs."""
    mean = slot.truth.h[:, :, -1:].expand(-1, -1, STEPS, -1)
    return Gaussian(mean, torch.full_like(mean.real, math.inf))


def scored(predicted: Predicted) -> Callable[[Srs], Measurement]:
    """All along lag_us: ratio, energy and reported up to a common phase; beam_gain, |w^T h|^2 over |h|^2 summed over
    tones, and spectral_efficiency of the downlink for w = conj(h_hat) / |h_hat| per tone."""

    def method(scene: Srs) -> Measurement:
        def measure(slot: Slot) -> tuple[dict[str, Tensor], dict[str, int]]:
            found = predicted(scene, slot)
            truth = torch.cat([slot.truth.h[:, None, :, -1], slot.truth.h_at[..., -1, :]], 1).movedim(1, 2)
            down = truth * slot.truth.reciprocity[:, :, None, None]
            mean = found.mean.to(truth.dtype)
            inner = (mean.conj() * truth).sum((1, 3), keepdim=True)
            turned = mean * torch.where(inner.abs() > 0, inner / inner.abs(), 1.0)
            energy = squared(truth).double().sum((1, 3))
            seen = squared((mean.conj() * down).sum(1)) / squared(mean).sum(1).clamp_min(
                torch.finfo(mean.real.dtype).tiny
            )
            best = squared(down).sum(1)
            snr = DOWNLINK_SNR * seen / best.mean((1, 2), keepdim=True)
            var = found.var.double().expand(len(mean), -1, STEPS, mean.shape[-1])
            reported = var.sum((1, 3)) * (mean.shape[1] / var.shape[1])
            kept = {
                "ratio": squared(turned - truth).double().sum((1, 3)) / energy,
                "energy": torch.ones_like(energy),
                "reported": reported / energy,
                "beam_gain": seen.sum(-1) / best.sum(-1),
                "spectral_efficiency": torch.log2(1 + snr).mean(-1),
            }
            return {f"{name}@lag_us:{STEP_US}": value for name, value in kept.items()}, {"OK": len(mean)}

        return Measurement(measure)

    return method


EXPERIMENT = Experiment(
    name="extrapolation/lag",
    title="Between soundings: error of the predicted channel, and what a precoder makes of it",
    scenario=scenario,
    methods={
        "sliding-joint-ml": scored(ahead(lambda scene, first: SlidingJointMl(scene.model, stage1=first))),
        "path-ekf": scored(ahead(lambda scene, first: PathEkf(scene.model, stage1=first))),
        "sliding-joint-ml-held": scored(ahead(lambda scene, first: SlidingJointMl(scene.model, stage1=first), True)),
        "oamp-hold": scored(held(None)),
        "ls-hold": scored(held(LeastSquares())),
        "last-channel": scored(told),
    },
    profiles={
        "quick": Profile(
            grid(SPEEDS),
            blocks=2,
            block_size=4,
            methods=("sliding-joint-ml", "sliding-joint-ml-held", "ls-hold", "last-channel"),
        ),
        "full": Profile(grid({**SPEEDS, "hops": (2, 4)}), blocks=10, block_size=4),
    },
    metrics=("nmse_db", "nmse_median_db", "variance_ratio", "beam_gain", "spectral_efficiency"),
    example=False,
    claims=(
        Ordering(
            "Doppler shifts that were tracked tell the channel one period later better than the last estimate does",
            "expected of `predict`",
            methods=("sliding-joint-ml", "sliding-joint-ml-held"),
            at={"speed_kmh": 3.0, "lag_us": STEP_US * (STEPS - 1)},
        ),
    ),
    note="UMa without line of sight by Sionna, 15 dB, 8 x 4 antennas, 500 tones over 60 MHz, a sounding every 5 ms; n "
    "counts drops. The channel after the 4th symbol behind the first block, up to a common phase per user and lag: a "
    "precoder does not see it. beam_gain: share of the received power that conj(h_hat) / |h_hat| per tone gets; "
    "spectral_efficiency in bit/s/Hz at 10 dB with the channel known; both on a downlink whose chains differ from the "
    "uplink's by -25 dB. Held band parts have lost their phase, which the error sees and a precoder per tone does not. "
    "last-channel: the true channel of the last symbol. SNR: mean |h|^2 of a drop over noise_var.",
)
