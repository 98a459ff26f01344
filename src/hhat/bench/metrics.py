"""Errors of an estimate against the truth, and how far the reported variance can be believed.

Three averages of the error, since papers differ in which one they mean:
    nmse_db         10 log10 mean_i (||e_i||^2 / ||h_i||^2)      every realisation weighs the same
    nmse_pooled_db  10 log10 (sum_i ||e_i||^2 / sum_i ||h_i||^2) strong realisations weigh more
    nmse_median_db  10 log10 median_i (||e_i||^2 / ||h_i||^2)    outliers do not count
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from hhat.types import Estimate

CONFIDENCE = 0.95
CHANNEL_NDIM = 2
"""Trailing axes of a plain tensor that make one channel: (rx, tx) or (rx, subcarrier)"""


class Value(NamedTuple):
    """A measured number, the ends of its 95 % interval, and how many realisations stand behind it."""

    value: float
    low: float
    high: float
    n: int


class Errors(NamedTuple):
    """Per realisation: squared error, truth's energy, reported variance, each summed over the channel."""

    squared: Float[Tensor, "..."]
    energy: Float[Tensor, "..."]
    reported: Float[Tensor, "..."]


def errors(estimate: Estimate | Tensor, truth: Any, event_ndim: int | None = None) -> Errors:
    """||h_hat - h||^2, ||h||^2 and sum of the reported variance, shape (*batch), in float64.

    estimate:   an Estimate, or its mean (*batch, *channel); without an Estimate the reported variance is inf
    truth:      (*batch, *channel), or a record with such an `h`; broadcasts to the estimate
    event_ndim: how many trailing axes are the channel. None: those that the estimate's status does not
                cover; for a plain tensor the last two

    Raises ValueError where the truth does not broadcast to the estimate, or has a realisation of no energy.
    """
    mean, batch = (estimate.belief.mean, estimate.status.ndim) if isinstance(estimate, Estimate) else (estimate, None)
    if event_ndim is None:
        event_ndim = min(CHANNEL_NDIM, mean.ndim) if batch is None else mean.ndim - batch
    if not 0 < event_ndim <= mean.ndim:
        raise ValueError(f"event_ndim: expected 1..{mean.ndim} for an estimate {tuple(mean.shape)}, got {event_ndim}")
    h = truth_of(truth, mean)
    over = tuple(range(mean.ndim - event_ndim, mean.ndim))
    squared = (mean - h).abs().double().square().sum(over)
    energy = h.abs().double().square().sum(over)
    if not bool((energy > 0).all()):
        raise ValueError("truth: expected every realisation to have energy > 0; an NMSE is not defined without")
    if isinstance(estimate, Estimate):
        reported = estimate.belief.var.expand(mean.shape).double().sum(over)
    else:
        reported = torch.full_like(energy, torch.inf)
    return Errors(squared, energy, reported)


def truth_of(truth: Any, mean: Tensor) -> Tensor:
    """The channel of a truth (a tensor, or a record with `h`), broadcast to the estimate's shape and device."""
    h = truth if isinstance(truth, Tensor) else getattr(truth, "h", None)
    if not isinstance(h, Tensor):
        raise ValueError(f"truth: expected a tensor or a record with a tensor `h`, got {type(truth).__name__}")
    try:
        return h.to(mean.device).expand(mean.shape)
    except RuntimeError:
        raise ValueError(f"truth: shape {tuple(h.shape)} does not fit the estimate {tuple(mean.shape)}") from None


def squared_ratio(estimate: Estimate | Tensor, truth: Any, event_ndim: int | None = None) -> Float[Tensor, "..."]:
    """||h_hat - h||^2 / ||h||^2 of each realisation, shape (*batch). Arguments and errors: see `errors`."""
    e = errors(estimate, truth, event_ndim)
    return e.squared / e.energy


def nmse_db(estimate: Estimate | Tensor, truth: Any, event_ndim: int | None = None) -> float:
    """10 log10 of the mean over the batch of ||e||^2 / ||h||^2. Arguments and errors: see `errors`."""
    return _db(float(squared_ratio(estimate, truth, event_ndim).mean()))


def nmse_pooled_db(estimate: Estimate | Tensor, truth: Any, event_ndim: int | None = None) -> float:
    """10 log10 of sum ||e||^2 / sum ||h||^2 over the batch. Arguments and errors: see `errors`."""
    e = errors(estimate, truth, event_ndim)
    return _db(float(e.squared.sum() / e.energy.sum()))


def nmse_median_db(estimate: Estimate | Tensor, truth: Any, event_ndim: int | None = None) -> float:
    """10 log10 of the median over the batch of ||e||^2 / ||h||^2. Arguments and errors: see `errors`."""
    return _db(float(squared_ratio(estimate, truth, event_ndim).flatten().quantile(0.5)))


def variance_ratio(estimate: Estimate, truth: Any, event_ndim: int | None = None) -> float:
    """Sum of squared errors / sum of reported variances: 1 is honest, above 1 too sure of itself.

    A method without a variance reports infinity and so gets 0.
    """
    e = errors(estimate, truth, event_ndim)
    return float(e.squared.sum() / e.reported.sum())


def coverage(estimate: Estimate, truth: Any, level: float, event_ndim: int | None = None) -> Float[Tensor, "..."]:
    """Share of a channel's entries that lie in the disc of probability `level` about the estimate, (*batch), float64.

    Disc of an entry with variance v = E|e|^2, circular Gaussian: |e|^2 <= -v log(1 - level). Honest variances of
    Gaussian errors give `level` (`mean_interval` of the result has its interval, realisation by realisation); an
    infinite variance covers everything, a variance of 0 an entry without error alone.
    Arguments and errors: see `errors`; and ValueError for a level outside 0..1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected 0 < level < 1, got {level}")
    count = len(errors(estimate, truth, event_ndim).energy.shape)
    mean, var = estimate.belief.mean, estimate.belief.var
    squared = (mean - truth_of(truth, mean)).abs().double().square()
    inside = squared <= -math.log1p(-level) * var.expand(mean.shape).double()
    return inside.double().flatten(count).mean(-1)


def mean_interval_db(ratios: Tensor) -> Value:
    """10 log10 of the mean of positive ratios with its 95 % interval, by the delta method on the logarithm.

    log m +- t_{n-1} s / (m sqrt(n)): symmetric in dB, and never below zero power. For n independent
    realisations with light or moderate tails the coverage is 93-96 % from n = 20 on; with tails as heavy as a
    log-normal of 6 dB it falls to about 90 % at n = 100. One realisation alone has the interval (-inf, inf).
    """
    return _ratio_interval(ratios, torch.ones_like(ratios), _db)


def pooled_interval_db(squared: Tensor, energy: Tensor) -> Value:
    """10 log10 of a ratio of sums with its 95 % interval (delta method for a ratio, on the logarithm)."""
    return _ratio_interval(squared, energy, _db)


def ratio_interval(above: Tensor, below: Tensor) -> Value:
    """A ratio of sums with its 95 % interval (delta method for a ratio, on the logarithm)."""
    return _ratio_interval(above, below, float)


def root_interval(squared: Tensor) -> Value:
    """Root of the mean of squared errors with its 95 % interval (delta method on the logarithm, never below 0)."""
    return _ratio_interval(squared, torch.ones_like(squared), math.sqrt)


def median_interval_db(ratios: Tensor) -> Value:
    """10 log10 of the median with the distribution-free 95 % interval of order statistics.

    Ranks l and n + 1 - l of the sorted ratios, l = floor((n + 1 - z sqrt(n)) / 2): the normal approximation, with
    continuity, of the binomial count of ratios below the median.
    """
    ordered = ratios.flatten().double().sort().values
    n = ordered.numel()
    rank = math.floor((n + 1 + float(stdtrit(math.inf, (1 - CONFIDENCE) / 2)) * math.sqrt(n)) / 2)
    middle = _db(float(ordered.quantile(0.5)))
    if rank < 1:
        return Value(middle, -math.inf, math.inf, n)
    return Value(middle, _db(float(ordered[rank - 1])), _db(float(ordered[n - rank])), n)


def mean_interval(values: Tensor) -> Value:
    """A plain mean with its 95 % interval from Student's t."""
    values = values.flatten().double()
    n, mean = values.numel(), float(values.mean())
    half = _t(n) * float(values.std()) / math.sqrt(n) if n > 1 else math.inf
    return Value(mean, mean - half, mean + half, n)


def _ratio_interval(above: Tensor, below: Tensor, scale: Any) -> Value:
    above, below = above.flatten().double(), below.flatten().double()
    n, ratio = above.numel(), float(above.sum() / below.sum())
    if n < 2:
        return Value(scale(ratio), scale(0.0), math.inf, n)
    if ratio == 0 or not math.isfinite(ratio):
        return Value(scale(ratio), scale(ratio), scale(ratio), n)
    spread = float((above - ratio * below).std() / below.mean()) / ratio
    factor = math.exp(_t(n) * spread / math.sqrt(n))
    return Value(scale(ratio), scale(ratio / factor), scale(ratio * factor), n)


def _t(n: int) -> float:
    """Two-sided 95 % quantile of Student's t with n - 1 degrees of freedom."""
    return -float(stdtrit(n - 1, (1 - CONFIDENCE) / 2))


def _db(ratio: float) -> float:
    if math.isnan(ratio):
        return math.nan
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf
