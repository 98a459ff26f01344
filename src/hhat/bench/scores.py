"""Scores of an estimator on captures that carry no true channel: hold-out and re-noise.

Both compare in the observation's domain, ||A h_hat - y||^2 / ||y||^2 per batch item (user), which for pilots of unit
modulus is the error of the channel itself.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.random import complex_normal
from hhat.types import Estimate, Observation, Slot

Estimator = Callable[[Observation], Estimate]


class HoldOut(NamedTuple):
    """Per batch item: the error of the prediction, and the noise floor that no estimator can beat, in dB."""

    nmse_db: Tensor
    floor_db: Tensor


def holdout(pair: tuple[Slot, Slot], estimator: Estimator) -> HoldOut:
    """Estimate from the first of two receptions of the same pilots, predict the second (`hhat.io.repeats`).

        nmse  = ||y_2 - A h_hat(y_1)||^2 / ||y_2||^2
        floor = ||y_2 - y_1||^2 / (2 ||y_2||^2)

    The floor is the noise of y_2 alone; least squares, which returns y_1, lies 3 dB above it, so at most 3 dB can be
    gained. What repeats in both receptions (the radio's own distortion) counts as signal. The noise_var the first
    Slot carries may come from the difference of both: that one number per user is all that leaks.
    """
    first, second = pair[0].obs, pair[1].obs
    return HoldOut(_db(prediction_error(second.y, first, estimator(first))), _db(noise_floor(pair)))


def prediction_error(reference: Tensor, obs: Observation, estimate: Estimate) -> Tensor:
    """||reference - A h_hat||^2 / ||reference||^2 per batch item; reference broadcasts to obs.y."""
    events = _events(obs)
    error = (reference - obs.op.apply(estimate.belief.mean)).abs().square().sum(events)
    return error / reference.abs().square().sum(events)


def noise_floor(pair: tuple[Slot, Slot]) -> Tensor:
    """||y_2 - y_1||^2 / (2 ||y_2||^2) per batch item: what no prediction of the second reception can beat."""
    first, second = pair[0].obs, pair[1].obs
    events = _events(first)
    return (second.y - first.y).abs().square().sum(events) / 2 / second.y.abs().square().sum(events)


def renoise(slot: Slot, snr_db: float | int, gen: torch.Generator, estimator: Estimator, draws: int = 20) -> Tensor:
    """Mean error in dB per batch item when white noise of known variance is added to a clean reference.

        y' = y + CN(0, v),  v = mean |y|^2 / 10^(snr_db / 10) per batch item
        nmse = mean over draws of ||y - A h_hat(y')||^2 / ||y||^2

    slot.obs.y is the reference (the average of both receptions where a file holds two). Least squares with one pilot
    per unknown gives -snr_db by construction. All draws are one batch, in front of the slot's own.
    """
    if draws < 1:
        raise ValueError(f"renoise: expected draws >= 1, got {draws}")
    seen = renoised(slot.obs, snr_db, gen, draws)
    return _db(prediction_error(slot.obs.y, seen, estimator(seen)).mean(0))


def renoised(obs: Observation, snr_db: float | int, gen: torch.Generator, draws: int) -> Observation:
    """`draws` copies of an observation with white noise added, as one batch in front of its own: see `renoise`."""
    y = obs.y.expand(*obs.batch_shape, *obs.op.out_shape)
    noise_var = y.abs().square().mean(_events(obs), keepdim=True) * 10 ** (-snr_db / 10)
    # drawn on the CPU and moved, so that every device scores the same noise
    white = complex_normal((draws, *y.shape), gen, y.dtype).to(y.device)
    return Observation(y + white * noise_var.sqrt(), obs.op, noise_var, obs.axes)


def _events(obs: Observation) -> tuple[int, ...]:
    return tuple(range(-len(obs.op.out_shape), 0))


def _db(ratio: Tensor) -> Tensor:
    return 10 * ratio.log() / math.log(10)
