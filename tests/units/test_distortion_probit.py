"""Moments of the probit and of one state against Owen's T, closed forms, quadrature and draws."""

import math

import pytest
import torch
from scipy.special import owens_t

from hhat.distortion.messages import Gaussian, Score, filtered_memory, kept_memory, next_state, state_slopes
from hhat.distortion.probit import ProbitMoments, narrow_moments, probit_moments
from hhat.distortion.vbi import StateBlock, mean_field, score_form
from hhat.nets.residual_recurrent import cdf, density
from hhat.random import generator

F64 = torch.float64
MEAN = torch.linspace(-6, 6, 25, dtype=F64)[:, None]
VAR = torch.logspace(-8, 3, 23, dtype=F64)


def number(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=F64)


def gaussian(mean: float, var: float) -> Gaussian:
    return Gaussian(number(mean), number(var))


POINT = StateBlock(gaussian(0.3, 0.8), gaussian(-0.4, 0.6), gaussian(0.5, 0.2))
SEEN, NOISE = number(0.1), number(0.05)


def test_the_variance_is_that_by_owens_t():
    at, b = (MEAN / torch.sqrt(1 + VAR)).numpy(), (1 / torch.sqrt(1 + 2 * VAR)).numpy()
    wanted = 2 * owens_t(at, 1.0) - 2 * owens_t(at, b)
    assert abs(probit_moments(MEAN, VAR).var.numpy() - wanted).max() < 4e-12


def test_at_mean_0_the_variance_is_an_arcsine_and_the_mean_a_half():
    found = probit_moments(number(0.0), VAR)
    wanted = torch.asin(VAR / (1 + VAR)) / (2 * math.pi)
    assert (found.var / wanted - 1).abs().max() < 1e-10
    assert bool((found.mean == 0.5).all())


def test_the_moments_are_those_of_a_fine_quadrature():
    """E Q, Var Q and Cov(X, Q) = var E phi, by sums over a grid, exact for these smooth functions."""
    mean, var = MEAN[:, :, None], VAR[12:20, None]
    x = torch.linspace(-9, 9, 801, dtype=F64)
    weight = density(x) * (x[1] - x[0])
    value = torch.special.ndtr(mean + var.sqrt() * x)
    first = (value * weight).sum(-1)
    found = probit_moments(mean[..., 0], var[..., 0])
    assert (found.mean - first).abs().max() < 1e-12
    assert (found.var - ((value - first[..., None]).square() * weight).sum(-1)).abs().max() < 4e-12
    cross = (value * weight * var.sqrt() * x).sum(-1)
    assert (found.slope * var[..., 0] - cross).abs().max() < 1e-11


def test_single_precision_keeps_the_digits_of_a_small_variance():
    wanted = probit_moments(MEAN[5:20], VAR)
    found = probit_moments(MEAN[5:20].float(), VAR.float())
    assert found.var.dtype == torch.float32
    assert (found.var / wanted.var - 1).abs().max() < 2e-5


def test_at_the_ends_nothing_breaks():
    mean, var = number(0.7).repeat(4), torch.tensor([0.0, -1.0, 1e30, math.inf], dtype=F64)
    found = probit_moments(mean, var)
    assert found.var[0] == found.var[1] == 0
    assert found.slope[0] == density(mean[0]) and found.mean[1] == cdf(mean[1:2])[0]
    assert (found.var[2:] - 0.25).abs().max() < 1e-9 and (found.mean[2:] - 0.5).abs().max() < 1e-9
    assert bool(torch.isnan(probit_moments(number(math.nan), number(1.0)).var))
    far = probit_moments(torch.tensor([math.inf, -math.inf], dtype=F64), number(1.0))
    assert far.mean.tolist() == [1, 0] and far.var.tolist() == [0, 0]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_narrow_moments_differ_by_the_next_order(part):
    """Halving the variance halves the relative gap."""
    mean = torch.tensor([-1.3, 0.4, 1.1, 2.0], dtype=F64)
    gaps = []
    for var in (number(2e-4), number(1e-4)):
        narrow, full = narrow_moments(mean, var)[part], probit_moments(mean, var)[part]
        gaps.append(narrow / full - 1)
    assert gaps[0].abs().max() < 1e-3
    assert (gaps[0] / gaps[1] - 2).abs().max() < 2e-3
    zero = torch.zeros_like(mean)
    assert torch.equal(narrow_moments(mean, zero)[part], probit_moments(mean, zero)[part])


def draws(count: int = 400_000) -> tuple[StateBlock, list[torch.Tensor]]:
    gen = generator("state block")
    return POINT, [b.mean + b.var.sqrt() * torch.randn(count, generator=gen, dtype=F64) for b in POINT]


def test_a_state_has_the_moments_and_covariances_of_draws():
    prior, (z, u, before) = draws()
    state = (1 - cdf(z)) * before + cdf(z) * (2 * cdf(u) - 1)
    q, r = probit_moments(*prior.z), probit_moments(*prior.u)
    found = next_state(q, kept_memory(r), prior.before)
    # deviations of these averages: 7e-4 and 4e-4
    assert abs(found.mean - state.mean()) < 3e-3
    assert abs(found.var - state.var()) < 2e-3
    assert abs(found.var - 0.1810) < 5e-5
    printed = found.var + 2 * q.var * (2 * r.mean - 1) * prior.before.mean
    assert abs(printed - 0.1635) < 5e-5
    slopes = state_slopes(q, r, prior.before.mean)
    for x, belief, slope, wanted in zip((z, u, before), prior, slopes, (-0.1736, 0.2119, 0.0823), strict=True):
        assert abs(slope * belief.var - wanted) < 5e-5
        assert abs(((x - x.mean()) * state).mean() - wanted) < 4e-3


def test_filtered_memory_has_the_moments_of_draws():
    prior, (z, _, before) = draws()
    m = cdf(z) * before
    found = filtered_memory(probit_moments(*prior.z), prior.before)
    assert abs(found.mean - m.mean()) < 2e-3 and abs(found.var - m.var()) < 1e-3


def exact_posterior() -> StateBlock:
    """On a grid of z and u; the state before is Gaussian given these."""
    x = torch.linspace(-6, 6, 241, dtype=F64)
    z = (POINT.z.mean + POINT.z.var.sqrt() * x)[:, None]
    u = (POINT.u.mean + POINT.u.var.sqrt() * x)[None]
    slope, rest = 1 - cdf(z), SEEN - cdf(z) * (2 * cdf(u) - 1)
    spread = slope.square() * POINT.before.var + NOISE
    error = rest - slope * POINT.before.mean
    weight = density(x)[:, None] * density(x) * torch.exp(-error.square() / (2 * spread)) / spread.sqrt()
    weight = weight / weight.sum()
    gain = POINT.before.var * slope / spread
    before = POINT.before.mean + gain * error
    left = POINT.before.var * (1 - gain * slope)

    def moments(value, var=0.0):
        mean = (weight * value).sum()
        return Gaussian(mean, (weight * ((value - mean).square() + var)).sum())

    return StateBlock(moments(z), moments(u), moments(before, left))


def rounded(block: StateBlock) -> list[float]:
    return [float(value) for belief in block for value in belief]


def test_the_table_of_posteriors():
    """Exact by 4e6 draws in the specification, by quadrature here; printed: the fixed point of what it describes."""
    exact = rounded(exact_posterior())
    assert exact == pytest.approx([0.208, 0.656, -0.321, 0.380, 0.468, 0.156], abs=1.5e-3)
    assert rounded(score_form(POINT, SEEN, NOISE)) == pytest.approx(
        [0.270, 0.670, -0.363, 0.406, 0.514, 0.171], abs=6e-4
    )
    corrected = mean_field(POINT, SEEN, NOISE)
    assert rounded(corrected) == pytest.approx([0.237, 0.375, -0.163, 0.157, 0.408, 0.107], abs=6e-4)
    # too sure of itself
    ratios = [a / b for a, b in zip(exact[1::2], rounded(corrected)[1::2], strict=True)]
    assert min(ratios) > 1.4 and max(ratios) == pytest.approx(2.4, abs=0.05)
    printed = rounded(mean_field(POINT, SEEN, NOISE, printed=True))
    assert abs(printed[0] - exact[0]) > 10 * abs(rounded(corrected)[0] - exact[0])


def test_mean_field_is_exact_where_one_is_unknown_and_the_model_linear_in_it():
    """z and u known: the state before is Gaussian given what is seen."""
    known = StateBlock(gaussian(0.3, 1e-14), gaussian(-0.4, 1e-14), POINT.before)
    slope = 1 - cdf(known.z.mean)
    rest = SEEN - (1 - slope) * (2 * cdf(known.u.mean) - 1)
    precision = 1 / POINT.before.var + slope.square() / NOISE
    wanted = (POINT.before.mean / POINT.before.var + slope * rest / NOISE) / precision
    for found in (mean_field(known, SEEN, NOISE).before, score_form(known, SEEN, NOISE).before):
        assert abs(found.mean - wanted) < 1e-9 and abs(found.var - 1 / precision) < 1e-9


def test_scores_and_observations_say_the_same():
    belief, seen, noise = gaussian(0.5, 0.2), number(0.1), number(0.05)
    score = Score.of_observation(belief, seen, noise)
    back = belief.observation(score)
    assert abs(back.mean - seen) < 1e-12 and abs(back.var - noise) < 1e-12
    after = belief.after(score)
    assert abs(1 / after.var - 1 / belief.var - 1 / noise) < 1e-9
    again = belief.score_of(after)
    assert abs(again.delta - score.delta) < 1e-12 and abs(again.lam - score.lam) < 1e-12
    nothing = belief.observation(Score(number(0.0), number(0.0)))
    assert nothing.mean == belief.mean and math.isinf(nothing.var)
    assert isinstance(probit_moments(*belief), ProbitMoments)
