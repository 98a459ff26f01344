"""Networks that follow receive chains which drift: a Kalman step on the weights of every chain, once per slot."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.distortion.exchange import real_matrix
from hhat.distortion.linearised import linearise, stacked
from hhat.distortion.surrogate import Surrogate
from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights
from hhat.types import Message


@dataclass(frozen=True)
class WeightTracking:
    """w_t = w_{t-1} + N(0, walk I);   per chain, from its 2 P distorted real numbers:

      S = J P J^T + sum_k F_k V_k F_k^T + fit_var I,   K = P J^T S^-1
      w <- w + K (distorted - f(m r; w)),   P <- P - diag(K J P)

    J: slopes by the weights, F_k by the signals of the chain and its neighbours, at the signal m r that the channel
    predicts; h ~ CN(m, c) is the cavity of the chain: what other chains say. A chain's own symbols would otherwise
    confirm its own errors. P stays diagonal.
      V = noise_var I + inflation c r r^H: the error of h is shared by all symbols, and comes again in as many slots as
    the channel's belief is carried over, about `inflation` of them. Without it the weights learn the channel's error.

    walk: 0 is tracking of constants (MP-BDL), more is MP-TTBDL. start_var: of each weight; None: the surrogate's own
    Raises ValueError for negative values. Source: Xu & Liu 2026, with an exact step per chain in place of their
    messages; the shared error is not in the source.
    """

    walk: float = 3e-7
    start_var: float | None = None
    inflation: float = 100.0

    def __post_init__(self):
        for name in ("walk", "inflation", "start_var"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"weight-tracking: {name}: expected at least 0, got {value}")

    def start(self, surrogate: Surrogate, batch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Mean and variance, (*batch, chain, weight). Weights of a neighbour that is not there stay 0."""
        mean, var = surrogate.mean.flat(), surrogate.var.flat()
        if self.start_var is not None:
            var = torch.where(var > 0, self.start_var, var)
        return tuple(part.expand(*batch, *part.shape).clone() for part in (mean, var))  # type: ignore[return-value]

    def step(
        self,
        mean: Tensor,
        var: Tensor,
        like: RecurrentWeights,
        distorted: Tensor,
        cavity: Message,
        pilots: Tensor,
        noise_var: Tensor,
        fit_var: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """mean, var (batch, chain, weight); like: any networks of that size; distorted, noise_var, fit_var (batch,
        pilot, rx_ant), pilots (batch, pilot, 1); cavity (batch, rx_ant) on h, flat where nothing is known."""
        batch, pilots_num, chains = distorted.shape
        known = cavity.precision > 0
        precision = torch.where(known, cavity.precision, 1.0)
        weights = of_items(mean, like)
        signal = pilots * (cavity.shift / precision)[:, None]
        local = linearise(weights, signal)
        parts = unit.weight_jacobian(weights, local.trace)
        rows = torch.cat([part.flatten(3) for part in parts], -1)  # (net, batch in it, 2 pilot, weight)
        slopes = rows.reshape(chains, batch, 2 * pilots_num, -1).transpose(0, 1)
        column = pilots.mT.expand(-1, chains, -1)
        shared = (self.inflation / precision)[..., None, None] * column[..., None] * column[..., None, :].conj()
        law = real_matrix(torch.diag_embed(noise_var.mT).to(shared) + shared) / 2
        none = torch.zeros_like(law[:, :1])
        beside = torch.stack([torch.cat([none, law[:, :-1]], 1), law, torch.cat([law[:, 1:], none], 1)], 2)
        unsure = (local.blocks @ beside @ local.blocks.mT).sum(2)
        unsure = unsure + torch.diag_embed(fit_var.mT.repeat_interleave(2, -1))
        spread = slopes * var[..., None, :]  # J P
        total = (spread @ slopes.mT).to(unsure) + unsure
        gain = torch.linalg.solve(total, spread.to(unsure))  # K^T
        miss = stacked(distorted) - local.output
        # nothing is learned of a chain of which the others say nothing, nor of its neighbours
        told = known & torch.cat([known[:, 1:], known[:, -1:]], 1) & torch.cat([known[:, :1], known[:, :-1]], 1)
        move = (gain.mT @ miss[..., None])[..., 0] * told[..., None]
        shrink = (gain * spread).sum(-2) * told[..., None]
        return mean + move.to(mean), (var - shrink.to(var)).clamp_min(0) + self.walk * (var > 0)


def of_items(mean: Tensor, like: RecurrentWeights) -> RecurrentWeights:
    """(batch, chain, weight) -> networks chain by chain, each one's items beside one another; `like` tells the size."""
    sizes = [part[0].numel() for part in like]
    parts = mean.transpose(0, 1).flatten(0, 1).split(sizes, -1)
    return RecurrentWeights(*(p.reshape(-1, *old.shape[1:]) for p, old in zip(parts, like, strict=True)))
