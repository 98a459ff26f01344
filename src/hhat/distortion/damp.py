"""The signal in front of receive chains that distort, by message passing: `linearised.invert` without its system."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.distortion import messages
from hhat.distortion.linearised import Factors, Inverted, stacked
from hhat.distortion.messages import Gaussian, Score, WeightBelief
from hhat.distortion.probit import narrow_moments, probit_moments
from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights, Slopes


class Damped(NamedTuple):
    """inverted: belief with what was known before; message: N(mean, var) of what the distorted symbols add to that,
    per real part (batch, chain, 2 pilot), var infinite where they say nothing; iterations: passes that were made"""

    inverted: Inverted
    message: Gaussian
    iterations: int


@dataclass(frozen=True)
class Damp:
    """y from distorted = f(y) + N(0, error_var) and what is known of y; called as `linearised.invert` is.

    Each iteration runs the belief on y forwards through the networks (`messages.forward`), the scores of the residuals
    back, and puts the message to each real part of y together with what is known of its chain:

        delta = sum_k J_k residual_k / o_k,   lam = sum_k J_k^2 / o_k,   o_own - J_own^2 v in place of o_own
        covariance = (V^-1 + diag lam)^-1,   mean = covariance (V^-1 mu + delta + lam mean)

    o_k: variance of output k with error_var, v: of the belief. A part's own output, of the same chain and symbol, does
    not count this part's variance as noise: with f the identity the message is N(distorted, error_var). What is left
    is positive, for o_own counts every way from the part to that output.

    iterations: passes for each of `steps`, at most; damping: share of the new message in the kept one (its delta +
    lam mean, and lam); with 1 it diverges on trained networks; tol: change of the mean, in deviations of the belief,
    below which all items stop; narrow: moments to first order in the variances (`narrow_moments`), right for known
    weights and signals seen well. False: exact probit moments
    The variance lies below the exact one, because loops of the graph count what neighbours say twice: with crosstalk c,
    no memory and nothing known before, by 5 c^2 of it to first order. There is no correction term of GAMP, which asks
    for many weak inputs per output; here each output has one strong one.
    Source: Xu & Liu 2026, section IV; score form, own output and its exclusion, priors along a chain: hhat.
    """

    iterations: int = 6
    damping: float = 0.7
    tol: float = 1e-2
    narrow: bool = True

    def __post_init__(self):
        if self.iterations < 1:
            raise ValueError(f"damp: iterations: expected at least 1, got {self.iterations}")
        if not 0 < self.damping <= 1:
            raise ValueError(f"damp: damping: expected a share in (0, 1], got {self.damping}")

    def __call__(
        self,
        weights: RecurrentWeights,
        distorted: Tensor,
        error_var: Tensor,
        known: Factors,
        start: Tensor,
        steps: int = 2,
        weight_var: RecurrentWeights | None = None,
    ) -> Inverted:
        """The arguments of `linearised.invert`; weight_var: of the weights' belief, None: known."""
        return self.run(weights, distorted, error_var, known, start, steps, weight_var).inverted

    def run(
        self,
        weights: RecurrentWeights,
        distorted: Tensor,
        error_var: Tensor,
        known: Factors,
        start: Tensor,
        steps: int = 2,
        weight_var: RecurrentWeights | None = None,
    ) -> Damped:
        """The same, with the message. Networks run in the precision of their weights, all else in that of `distorted`.

        Items whose V^-1 + diag lam is not positive definite come out as NaN; ValueError
        where the number of networks fits neither chains nor chains x batch."""
        batch, _, chains = distorted.shape
        if weights.num_net not in (chains, batch * chains):
            raise ValueError(f"damp: networks: expected {chains} or {batch * chains}, got {weights.num_net}")
        networks, seen, mean = WeightBelief.of(weights, weight_var), stacked(distorted), stacked(start)
        spread = error_var.expand(distorted.shape).to(seen.dtype).mT.repeat_interleave(2, -1)
        # as if the networks did nothing: finite where nothing is known before
        covariance = _inverse(known, 1 / spread)
        shift, lam = torch.zeros_like(mean), torch.zeros_like(mean)
        for count in range(self.iterations * steps):
            belief = Gaussian(mean, torch.diagonal(covariance, dim1=-2, dim2=-1))
            score = self._score(networks, belief, seen, spread)
            share = self.damping if count else 1.0
            shift = torch.lerp(shift, score.delta + score.lam * mean, share)
            lam = torch.lerp(lam, score.lam, share)
            covariance = _inverse(known, lam)
            last, mean = mean, (covariance @ (known.shift + shift)[..., None])[..., 0]
            move = mean - last
            if bool((move.square() <= self.tol**2 * torch.diagonal(covariance, dim1=-2, dim2=-1)).all()):
                break
        # the last message itself, not the damped one, which is of older beliefs in part
        message = belief.observation(score)
        return Damped(Inverted(mean, covariance), Gaussian(message.mean, 1 / score.lam), count + 1)

    def _score(self, weights: WeightBelief, belief: Gaussian, seen: Tensor, spread: Tensor) -> Score:
        """Of the signal's real parts, (batch, chain, 2 pilot)."""
        batch, chains, _ = seen.shape
        apart, single = weights.mean.num_net != chains, weights.mean.out.dtype
        around = Gaussian(*(_networks(_neighbours(part.to(single)), apart) for part in belief))
        passed = messages.forward(weights, around, narrow_moments if self.narrow else probit_moments)
        heard, error_var = (_networks(_by_symbol(part), apart) for part in (seen, spread))
        residual, error_var = (heard - passed.trace.output).to(single), error_var.to(single)
        noise = passed.output_var + error_var
        out = Score(residual / noise, 1 / noise)
        said = messages.input_score(weights, messages.backward(weights, passed.slope, out), out)
        straight = messages.own_slopes(weights.mean, passed.slope)
        counted = messages.own_slopes(weights.square, Slopes(*(part.square() for part in passed.slope)))
        own = list(unit.OWN)
        # the bound holds without it, up to round-off
        left = torch.maximum(noise - counted * around.var[..., own], error_var)
        said.delta[..., own] += straight * residual * (1 / left - 1 / noise)
        said.lam[..., own] += straight.square() / left - counted / noise
        whole = messages.signal_score(Score(*(_chains(part, batch, apart) for part in said)))
        return Score(*(part.permute(2, 0, 1, 3).flatten(-2).to(seen.dtype) for part in whole))


def _inverse(known: Factors, lam: Tensor) -> Tensor:
    """(V^-1 + diag lam)^-1, chain by chain."""
    root, wrong = torch.linalg.cholesky_ex(known.precision + torch.diag_embed(lam))
    return torch.cholesky_inverse(root.masked_fill((wrong != 0)[..., None, None], torch.nan))


def _by_symbol(parts: Tensor) -> Tensor:
    """(batch, chain, 2 pilot) -> (chain, pilot, batch, 2)."""
    return parts.unflatten(-1, (-1, 2)).permute(1, 2, 0, 3)


def _neighbours(parts: Tensor) -> Tensor:
    """(batch, chain, 2 pilot) -> (chain, pilot, batch, 6)."""
    return unit.neighbour_inputs(unit.signal_of(_by_symbol(parts)))


def _networks(x: Tensor, apart: bool) -> Tensor:
    """(chain, pilot, batch, ..) -> (chain batch, pilot, 1, ..) where every item has networks of its own."""
    return x.movedim(2, 1).flatten(0, 1)[:, :, None] if apart else x


def _chains(x: Tensor, batch: int, apart: bool) -> Tensor:
    """The inverse of `_networks`."""
    return x[:, :, 0].unflatten(0, (-1, batch)).movedim(1, 2) if apart else x
