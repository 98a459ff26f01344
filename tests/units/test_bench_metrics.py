"""Metrics against hand-worked numbers, and the intervals against their promise by simulation."""

import math

import pytest
import torch

from hhat.bench import metrics
from hhat.random import complex_normal, generator
from hhat.types import Channel, Estimate, Gaussian

# two realisations of a 1 x 2 channel: errors 1 and 4, energies 4 and 100, so ratios 0.25 and 0.04
TRUTH = torch.tensor([[[2.0, 0.0]], [[6.0, 8.0j]]])
MEAN = torch.tensor([[[2.0, 1.0j]], [[6.0, 6.0j]]])


def estimate(var: float) -> Estimate:
    return Estimate(Gaussian(MEAN, torch.full((1, 1, 1), var)), {}, torch.zeros(2, dtype=torch.int8))


@pytest.mark.parametrize("truth", [TRUTH, Channel(TRUTH)])
@pytest.mark.parametrize("given", [MEAN, estimate(1.25)])
def test_nmse_by_hand(given, truth):
    assert metrics.squared_ratio(given, truth).tolist() == pytest.approx([0.25, 0.04])
    assert metrics.nmse_db(given, truth) == pytest.approx(10 * math.log10(0.145))
    assert metrics.nmse_pooled_db(given, truth) == pytest.approx(10 * math.log10(5 / 104))
    assert metrics.nmse_median_db(given, truth) == pytest.approx(10 * math.log10(0.145))


def test_variance_ratio_is_error_over_reported_and_zero_without_a_variance():
    assert metrics.variance_ratio(estimate(1.25), TRUTH) == pytest.approx(5 / (4 * 1.25))
    assert metrics.variance_ratio(estimate(math.inf), TRUTH) == 0


def test_coverage_counts_entries_in_the_disc_of_their_own_variance():
    # squared errors 0 and 1, 0 and 4; the disc of 90 % has log(10) = 2.3 variances
    assert metrics.coverage(estimate(1.0), TRUTH, 0.9).tolist() == [1.0, 0.5]
    assert metrics.coverage(estimate(0.4), TRUTH, 0.9).tolist() == [0.5, 0.5]
    assert metrics.coverage(estimate(0.0), TRUTH, 0.9).tolist() == [0.5, 0.5]
    assert metrics.coverage(estimate(math.inf), TRUTH, 0.9).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="level"):
        metrics.coverage(estimate(1.0), TRUTH, 1.0)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_coverage_of_honest_variances_is_the_level(level):
    gen = generator("test", "honest")
    var = 10 ** (4 * torch.rand(400, 3, 20, generator=gen) - 2)
    mean = complex_normal((400, 3, 20), gen)
    truth = mean + complex_normal((400, 3, 20), gen, var=var)
    e = Estimate(Gaussian(mean, var), {}, torch.zeros(400, dtype=torch.int8))
    found = metrics.mean_interval(metrics.coverage(e, truth, level))
    assert found.n == 400 and abs(found.value - level) < 5 * math.sqrt(level * (1 - level) / 24000)
    half = Estimate(Gaussian(mean, var / 4), {}, e.status)
    too_sure = float(metrics.coverage(half, truth, level).mean())
    assert abs(too_sure - (1 - (1 - level) ** 0.25)) < 0.02


def test_channel_axes_come_from_the_status_or_are_said():
    h = complex_normal((3, 4, 5, 6), generator("test", "axes"))
    e = Estimate(Gaussian(0.9 * h, torch.ones(1)), {}, torch.zeros(3, dtype=torch.int8))
    assert metrics.squared_ratio(e, h).shape == (3,)
    assert metrics.squared_ratio(0.9 * h, h).shape == (3, 4)
    assert metrics.squared_ratio(0.9 * h, h, event_ndim=3).shape == (3,)
    assert metrics.nmse_db(0.9 * h, h) == pytest.approx(-20, abs=1e-4)


def test_wrong_truth_is_refused_in_words():
    with pytest.raises(ValueError, match="does not fit"):
        metrics.nmse_db(MEAN, torch.ones(3, 1, 2))
    with pytest.raises(ValueError, match="energy"):
        metrics.nmse_db(MEAN, torch.zeros(2, 1, 2))
    with pytest.raises(ValueError, match="record with a tensor"):
        metrics.nmse_db(MEAN, "h")
    with pytest.raises(ValueError, match="event_ndim"):
        metrics.nmse_db(MEAN, TRUTH, event_ndim=4)


def draws(kind: str, runs: int, n: int) -> tuple[torch.Tensor, float, float]:
    """Positive ratios (runs, n), their true mean and true median."""
    gen = generator("test", "coverage", kind)
    if kind == "gamma":  # the mean of 16 exponentials: the error of a 16-entry channel in white noise
        ratios = -torch.rand(runs, n, 16, generator=gen).clamp_min(1e-30).log().mean(2)
        return ratios, 1.0, 0.97927  # median of Gamma(16)/16: 15.6683/16
    normal = torch.randn(runs, n, generator=gen)
    return (0.7 * normal).exp(), math.exp(0.245), 1.0


@pytest.mark.parametrize("kind, n", [("gamma", 20), ("gamma", 100), ("log-normal", 100)])
def test_intervals_cover_the_truth_in_19_of_20_runs(kind, n):
    runs = 1500
    ratios, mean, median = draws(kind, runs, n)
    truths = {
        metrics.mean_interval_db: 10 * math.log10(mean),
        metrics.median_interval_db: 10 * math.log10(median),
    }
    for interval, truth in truths.items():
        found = [interval(r) for r in ratios]
        covered = sum(v.low <= truth <= v.high for v in found) / runs
        assert 0.92 < covered < 0.98, (interval.__name__, covered)
        assert all(v.low < v.value < v.high and v.n == n for v in found)


def test_ratio_of_sums_covers_and_is_narrower_than_with_the_pairing_lost():
    gen = generator("test", "pairs")
    below = torch.rand(1500, 60, generator=gen) + 0.2
    above = 2 * below * (1 + 0.3 * torch.randn(1500, 60, generator=gen))
    found = [metrics.ratio_interval(a, b) for a, b in zip(above, below, strict=True)]
    assert 0.92 < sum(v.low <= 2 <= v.high for v in found) / 1500 < 0.98
    lost = [metrics.ratio_interval(a, b.flip(0)) for a, b in zip(above, below, strict=True)]
    assert sum(v.high - v.low for v in found) < 0.7 * sum(v.high - v.low for v in lost)


def test_few_or_perfect_realisations_have_honest_intervals():
    one = metrics.mean_interval_db(torch.tensor([0.1]))
    assert one.value == pytest.approx(-10) and (one.low, one.high, one.n) == (-math.inf, math.inf, 1)
    assert metrics.mean_interval_db(torch.zeros(5)).value == -math.inf
    assert metrics.median_interval_db(torch.rand(4, generator=generator("few"))).low == -math.inf
    flat = metrics.mean_interval(torch.tensor([2.0, 2.0, 2.0]))
    assert (flat.value, flat.low, flat.high) == (2, 2, 2)
