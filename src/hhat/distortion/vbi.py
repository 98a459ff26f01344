"""One state update inverted by mean-field variational Bayes: a reference for the score form, which it does not beat."""

from typing import NamedTuple

from torch import Tensor

from hhat.distortion.messages import Gaussian, Score, kept_memory, next_state, state_slopes
from hhat.distortion.probit import probit_moments
from hhat.nets.residual_recurrent import cdf, density


class StateBlock(NamedTuple):
    """Beliefs on what a state is made of, z, u and the state before, entry by entry and independent"""

    z: Gaussian
    u: Gaussian
    before: Gaussian


def score_form(prior: StateBlock, seen: Tensor, noise_var: Tensor) -> StateBlock:
    """Posterior by one pass of `messages`: next state's moments forwards, the score of `seen` back through slopes."""
    z, u = probit_moments(*prior.z), probit_moments(*prior.u)
    score = Score.of_observation(next_state(z, kept_memory(u), prior.before), seen, noise_var)
    slopes = state_slopes(z, u, prior.before.mean)
    return StateBlock(*(b.after(score.through(j)) for b, j in zip(prior, slopes, strict=True)))


def mean_field(
    prior: StateBlock, seen: Tensor, noise_var: Tensor, iterations: int = 50, printed: bool = False
) -> StateBlock:
    """seen = (1 - Q(z)) before + Q(z) (2 Q(u) - 1) + N(0, noise_var), posterior as a product of three Gaussians.

    With e = E Q(z), e2 = E Q(z)^2, f = phi(m_z), g = phi(m_u), kept ~ (m_t, v_t), before ~ (m, v), noise_var s:

        before: 1/v = 1/v0 + (1 - 2 e + e2)/s,   mean = v (m0/v0 + [seen (1 - e) - (e - e2) m_t]/s)
        z: d = (m_t - m)^2 + v_t + v,   1/v = 1/v0 + f^2 d/s,
           mean = v (m0/v0 + f/s [(seen - m)(m_t - m) + v - (Q(m_z) - f m_z) d])
        u: 1/v = 1/v0 + 4 g^2 e2/s,   mean = v (m0/v0 + 2 g/s [e seen - (e - e2) m - e2 (2 Q(m_u) - 1 - 2 g m_u)])

    Q of z and of u is made linear at the mean of the last iteration. Tensors broadcast; v0 > 0 and noise_var > 0 are
    asked for. iterations: rounds of z, u, before, one after the other.
    printed: z with the opposite sign of its last term, without - m and + v in its first; u with `seen` in place of
    e seen: errors of the source
    Variances are up to 2.4 times too small, because z, u and the state before are correlated given `seen`.
    Source: Xu & Liu 2026, appendix, corrected.
    """
    z, u, before = prior
    for _ in range(iterations):
        kept = kept_memory(probit_moments(*u))
        spread = (kept.mean - before.mean).square() + kept.var + before.var
        f = density(z.mean)
        at = cdf(z.mean) - f * z.mean
        if printed:
            pull = seen * (kept.mean - before.mean) + at * spread
        else:
            pull = (seen - before.mean) * (kept.mean - before.mean) + before.var - at * spread
        z = _posterior(prior.z, f.square() * spread / noise_var, f * pull / noise_var)
        q = probit_moments(*z)
        square = q.var + q.mean.square()
        g = density(u.mean)
        pull = (1.0 if printed else q.mean) * seen - (q.mean - square) * before.mean
        pull = pull - square * (2 * cdf(u.mean) - 1 - 2 * g * u.mean)
        u = _posterior(prior.u, 4 * g.square() * square / noise_var, 2 * g * pull / noise_var)
        kept = kept_memory(probit_moments(*u))
        pull = seen * (1 - q.mean) - (q.mean - square) * kept.mean
        before = _posterior(prior.before, (1 - 2 * q.mean + square) / noise_var, pull / noise_var)
    return StateBlock(z, u, before)


def _posterior(prior: Gaussian, precision: Tensor, shift: Tensor) -> Gaussian:
    var = 1 / (1 / prior.var + precision)
    return Gaussian(var * (prior.mean / prior.var + shift), var)
