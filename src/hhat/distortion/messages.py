"""Message passing through the residual recurrent unit: beliefs run forwards as moments, scores run backwards.

A Gaussian message into a variable a with belief N(mean, var) is kept as a score

    delta = (E[a | seen] - mean) / var,   lam = (var - Var[a | seen]) / var^2

which is (0, 0) where nothing is said, so that nothing is ever divided by zero. The observation it stands for has mean
mean + delta / lam and variance 1 / lam - var; at zero variances delta is the gradient of the log-likelihood.
Everything is real, in the layout of `hhat.nets.residual_recurrent`: (net, pilot, batch, ...), one network per chain.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.distortion.probit import ProbitMoments, probit_moments
from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights, Slopes, Trace

Moments = Callable[[Tensor, Tensor], ProbitMoments]


class Gaussian(NamedTuple):
    """N(mean, var), entry by entry"""

    mean: Tensor
    var: Tensor

    def after(self, score: "Score") -> "Gaussian":
        """The belief with what a score says: mean + var delta, var - var^2 lam."""
        return Gaussian(self.mean + self.var * score.delta, self.var - self.var.square() * score.lam)

    def score_of(self, seen: "Gaussian") -> "Score":
        """The message that moves this belief to `seen`; var > 0 is asked for."""
        return Score((seen.mean - self.mean) / self.var, (self.var - seen.var) / self.var.square())

    def observation(self, score: "Score") -> "Gaussian":
        """The independent observation of this variable that a score stands for; infinite variance where lam is 0."""
        mean = torch.where(score.lam > 0, self.mean + score.delta / score.lam, self.mean)
        return Gaussian(mean, 1 / score.lam - self.var)


class Score(NamedTuple):
    """Message: delta = (E[a | seen] - mean) / var, lam = (var - Var[a | seen]) / var^2"""

    delta: Tensor
    lam: Tensor

    @classmethod
    def of_observation(cls, belief: Gaussian, seen: Tensor, noise_var: Tensor) -> "Score":
        """Of seen = a + N(0, noise_var): delta = lam (seen - mean), lam = 1 / (var + noise_var)."""
        lam = 1 / (belief.var + noise_var)
        return cls((seen - belief.mean) * lam, lam)

    def through(self, slope: Tensor) -> "Score":
        """To a variable on which this one depends with covariance slope var."""
        return Score(self.delta * slope, self.lam * slope.square())

    def and_of(self, other: "Score") -> "Score":
        """What two say together."""
        return Score(self.delta + other.delta, self.lam + other.lam)


class WeightBelief(NamedTuple):
    """Weights ~ N(mean, var), independent; var None: known. square: mean^2, taken once."""

    mean: RecurrentWeights
    square: RecurrentWeights
    var: RecurrentWeights | None = None

    @classmethod
    def of(cls, mean: RecurrentWeights, var: RecurrentWeights | None = None) -> "WeightBelief":
        return cls(mean, RecurrentWeights(*(part.square() for part in mean)), var)


class Forward(NamedTuple):
    """trace: means of all variables of the pass, `.opened` E Q(z) and E Q(c), `.kept` E (2 Q(u) - 1)
    output_var: of the outputs, (net, pilot, batch, 2); slope: Cov(s_p, .) / Var(.) in place of derivatives
    """

    trace: Trace
    output_var: Tensor
    slope: Slopes

    @property
    def output(self) -> Gaussian:
        return Gaussian(self.trace.output, self.output_var)


def next_state(z: ProbitMoments, kept: Gaussian, before: Gaussian) -> Gaussian:
    """s = (1 - Q(z)) before + Q(z) kept, all three independent.

        var = ((1 - E Q)^2 + Var Q) Var before + (E Q^2 + Var Q) Var kept + Var Q (E kept - E before)^2

    The last term is printed as Var Q (E kept^2 + E before^2), which lacks the cross term. Source: Xu & Liu 2026,
    appendix, corrected.
    """
    stays = 1 - z.mean
    between = (kept.mean - before.mean).square()
    var = (stays.square() + z.var) * before.var + (z.mean.square() + z.var) * kept.var + z.var * between
    return Gaussian(stays * before.mean + z.mean * kept.mean, var)


def kept_memory(u: ProbitMoments) -> Gaussian:
    """2 Q(u) - 1."""
    return Gaussian(2 * u.mean - 1, 4 * u.var)


def filtered_memory(c: ProbitMoments, before: Gaussian) -> Gaussian:
    """m = Q(c) before, independent."""
    return Gaussian(c.mean * before.mean, c.mean.square() * before.var + c.var * (before.mean.square() + before.var))


def state_slopes(z: ProbitMoments, u: ProbitMoments, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the next state by z, u and the state before: covariances over variances, (m_kept - m_before) E phi(z),
    2 E Q(z) E phi(u) and 1 - E Q(z). Scores go back through these."""
    return (2 * u.mean - 1 - before) * z.slope, 2 * z.mean * u.slope, 1 - z.mean


def forward(weights: WeightBelief, inputs: Gaussian, moments: Moments = probit_moments) -> Forward:
    """Moments of every variable, symbol by symbol, each taken as independent of the others that meet in one product.

    inputs: (net, pilot, batch, 6); the state before the first symbol is 0. moments: `probit_moments`, or
    `narrow_moments` where variances are small beside 1
    A linear block o = W i has mean M i, variance (M^2 + V) Var i + V i^2, the last column of W being the bias.
    Source: Xu & Liu 2026, section IV.
    """
    hidden = weights.mean.hidden
    ones = torch.ones_like(inputs.mean[..., :1])
    from_outside = Gaussian(torch.cat([inputs.mean, ones], -1), torch.cat([inputs.var, 0 * ones], -1))
    outside, inside = slice(hidden, None), slice(0, hidden)
    gates_in, update_in = (_linear(weights, place, outside, _flat(from_outside)) for place in (0, 1))
    shape = inputs.mean.shape[:3]
    zero = inputs.mean.new_zeros(shape[0], shape[2], hidden)
    state = Gaussian(zero, zero)
    found: list[tuple[Tensor, ...]] = []
    steps: list[tuple[Tensor, ...]] = []
    after: list[Gaussian] = []
    for p in range(shape[1]):
        gates = _plus(_linear(weights, 0, inside, state), gates_in, p, shape)
        opened = moments(*gates)
        z = ProbitMoments(*(part[..., :hidden] for part in opened))
        c = ProbitMoments(*(part[..., hidden:] for part in opened))
        filtered = filtered_memory(c, state)
        update = _plus(_linear(weights, 1, inside, filtered), update_in, p, shape)
        u = moments(*update)
        kept = kept_memory(u)
        found.append((state.mean, opened.mean, gates.mean, kept.mean, update.mean, filtered.mean))
        steps.append((*state_slopes(z, u, state.mean), state.mean * c.slope, c.mean))
        state = next_state(z, kept, state)
        after.append(state)
    first, second, third, fourth, fifth, sixth = (torch.stack(part, 1) for part in zip(*found, strict=True))
    states = Gaussian(torch.stack([s.mean for s in after], 1), torch.stack([s.var for s in after], 1))
    ends = Gaussian(torch.cat([states.mean, ones], -1), torch.cat([states.var, 0 * ones], -1))
    out = _linear(weights, 2, slice(None), _flat(ends))
    own = list(unit.OWN)
    output = inputs.mean[..., own] + out.mean.unflatten(1, shape[1:])
    output_var = inputs.var[..., own] + out.var.unflatten(1, shape[1:])
    trace = Trace(first, second, third, fourth, fifth, sixth, inputs.mean, states.mean, output)
    slope = Slopes(*(torch.stack(part, 1) for part in zip(*steps, strict=True)))
    return Forward(trace, output_var, slope)


class Backward(NamedTuple):
    """Scores of z, c (`gates`) and u (`update`): of delta and of lam"""

    delta: unit.Scores
    lam: unit.Scores


def backward(weights: WeightBelief, slope: Slopes, out: Score) -> Backward:
    """Scores of the outputs, (net, pilot, batch, 2), back through the states.

    delta is a gradient along the slopes, and lam the same with everything squared: where a variable feeds several, both
    add. So both are `hhat.nets.residual_recurrent.backward`, at the means and at the squares.
    """
    squared = Slopes(*(part.square() for part in slope))
    return Backward(unit.backward(weights.mean, slope, out.delta), unit.backward(weights.square, squared, out.lam))


def input_score(weights: WeightBelief, scores: Backward, out: Score) -> Score:
    """To the inputs, (net, pilot, batch, 6), the own parts' direct way to the output among them."""
    return Score(
        unit.input_score(weights.mean, scores.delta, out.delta), unit.input_score(weights.square, scores.lam, out.lam)
    )


def weight_score(forward: Forward, scores: Backward, out: Score) -> tuple[RecurrentWeights, RecurrentWeights]:
    """To the weights, summed over symbols and batch: delta_W = sum delta_o i^T, lam_W = sum lam_o (i^2)^T.

    Thousands of weights each correct the same residual: steps mean + var delta must be damped (by about 0.1).
    """
    into = unit.block_inputs(forward.trace)
    squared = RecurrentWeights(*(part.square() for part in into))
    return (
        unit.weight_scores(scores.delta, out.delta, into),
        unit.weight_scores(scores.lam, out.lam, squared),
    )


def signal_score(inputs: Score) -> Score:
    """Sums what the networks say of one signal: (net, pilot, batch, 6) -> (net, pilot, batch, 2), from its own chain's
    network and from those of both neighbours."""
    return Score(*(_to_owners(part) for part in inputs))


def own_slopes(weights: RecurrentWeights, slope: Slopes) -> Tensor:
    """Of each output by the signal part that goes straight to it, 1 + the network's own, (net, pilot, batch, 2): the
    same chain, symbol and part. From weights^2 and slopes^2: what such a variance counts for in `output_var`."""
    net, pilot, batch = slope.by_z.shape[:3]
    apart = Slopes(*(part.flatten(1, 2)[:, None] for part in slope))
    found = []
    for part, place in enumerate(unit.OWN):
        hot = slope.by_z.new_zeros(net, 1, pilot * batch, 2)
        hot[..., part] = 1
        scores = unit.backward(weights, apart, hot)
        found.append(unit.input_score(weights, scores, hot)[:, 0, :, place].unflatten(1, (pilot, batch)))
    return torch.stack(found, -1)


def _flat(belief: Gaussian) -> Gaussian:
    return Gaussian(belief.mean.flatten(1, 2), belief.var.flatten(1, 2))


def _linear(weights: WeightBelief, place: int, columns: slice, x: Gaussian) -> Gaussian:
    """Moments of W x, some columns of one block: (net, batch, columns) -> (net, batch, rows)."""
    mean = torch.bmm(x.mean, weights.mean[place][..., columns].mT)
    spread = weights.square[place][..., columns].mT
    if weights.var is None:
        return Gaussian(mean, torch.bmm(x.var, spread))
    own = weights.var[place][..., columns].mT
    return Gaussian(mean, torch.bmm(x.var, spread + own) + torch.bmm(x.mean.square(), own))


def _plus(step: Gaussian, whole: Gaussian, p: int, shape: torch.Size) -> Gaussian:
    """What comes from the state, and symbol p of what comes from outside."""
    mean, var = (part.unflatten(1, shape[1:])[:, p] for part in whole)
    return Gaussian(step.mean + mean, step.var + var)


def _to_owners(x: Tensor) -> Tensor:
    found = x[..., list(unit.OWN)].clone()
    found[:-1] += x[1:][..., list(unit.LEFT)]
    found[1:] += x[:-1][..., list(unit.RIGHT)]
    return found
