"""Feedback from the centre: what the whole array resolved, as variances that every unit estimates under once more."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hhat.decentralized.refine import array_basis
from hhat.decentralized.units import Message
from hhat.decentralized.uploads import NOISE_BITS, EstimateUpload, LocalWork, mean_over_event
from hhat.methods.working import finite
from hhat.ops.base import LinearOp, cached
from hhat.ops.dense import Dense
from hhat.ops.elementary import Identity
from hhat.ops.linalg import squared
from hhat.ops.posterior import posterior
from hhat.ops.structured import Kron
from hhat.types import Estimate, Gaussian, Observation, Shape, Status

SCALE_BITS = 32
DECIBEL = 10.0


@dataclass(frozen=True)
class CovarianceFeedback:
    """After the first upload the centre sends all units the same variances, one per angle and delay of the whole array:

      centre:   v = |B^H h|^2                       h: its estimate, B: angles and delays -> antennas and tones
      unit m:   h_m = B_m x,   x ~ CN(0, diag v),   y_m = A_m h_m + n_m;   sends its posterior of h_m

    B_m: the unit's rows of B. The centre puts the answers side by side. The prior covariance B_m diag(v) B_m^H is kept
    whole: for N antennas of one of M units the array's M N angles are a grid M times as fine. Its diagonal on the
    unit's own N angles blurs what all resolved together, and gains nothing. |B^H h|^2 is measured best: with the
    posterior variance added, or learned with neighbours, the power of one direction counts many times on that grid.

    bits, range_db: a variance is sent as one of 2^bits - 1 levels, even in dB, from the item's largest down to about
      range_db below; what is smaller has the last code, and the mean of all that have it. Two float32 go with an item
    rounds: of feedback, each from the answers to the one before. More than one loses
    ValueError where a unit's pilots under B_m would be a dense system too large to factor (`posterior`).
    Source: hhat.
    """

    bits: int = 4
    range_db: float | int = 40.0
    rounds: int = 1

    def __post_init__(self):
        if not isinstance(self.bits, int) or not 1 <= self.bits <= 24:
            raise ValueError(f"CovarianceFeedback: bits: expected 1..24 per variance, got {self.bits}")
        if not 0 < self.range_db < 300:
            raise ValueError(f"CovarianceFeedback: range_db: expected 0..300, got {self.range_db}")
        if not isinstance(self.rounds, int) or self.rounds < 1:
            raise ValueError(f"CovarianceFeedback: rounds: expected at least 1, got {self.rounds}")

    @property
    def step(self) -> float:
        """Ratio of neighbouring levels."""
        return 10 ** (self.range_db / DECIBEL / (2**self.bits - 1))

    def send(self, h: Tensor, axes: tuple[str, ...] | None, num_event: int) -> Message:
        """Levels (*batch, *event), their scale and the mean of the rest (*batch, 1, ..) from an estimate of h."""
        v = squared(array_basis(tuple(h.shape[-num_event:]), axes).like(h).adjoint(h))
        event, last = tuple(range(-num_event, 0)), 2**self.bits - 1
        scale = v.amax(event, keepdim=True)
        scale = torch.where(scale == 0, 1.0, scale)
        below = -(v / scale).clamp_min(torch.finfo(v.dtype).tiny).log() / math.log(self.step)
        # laid out as it arrives elsewhere: the last bit of what follows depends on it
        levels = below.round().clamp_max(last).to(torch.int32).contiguous()
        few = levels == last
        rest = torch.where(few, v, 0.0).sum(event, keepdim=True) / few.sum(event, keepdim=True).clamp_min(1)
        return {"levels": levels, "levels_scale": scale, "levels_rest": rest}

    def receive(self, request: Message) -> Tensor:
        """The variances."""
        levels, scale = request["levels"], request["levels_scale"]
        v = scale * torch.exp(-math.log(self.step) * levels.to(scale.dtype))
        return torch.where(levels == 2**self.bits - 1, request["levels_rest"], v)

    def count_bits(self, obs: Observation, shape: Shape) -> int:
        """Down, of one item, unit and round: variances, scale and rest, and the noise level where it is not known."""
        return self.bits * math.prod(shape) + 2 * SCALE_BITS + NOISE_BITS * (obs.noise_var is None)


@dataclass(frozen=True, eq=False)
class FeedbackWork(LocalWork):
    """What a unit does where there is feedback: the first request as `LocalWork`; one with variances under them.

    place: number of the unit; shape: of the whole channel. Both requests have answers of the same form.
    """

    feedback: CovarianceFeedback
    place: int
    num_unit: int
    shape: Shape

    def answer(self, obs: Observation, request: Message) -> Message:
        if "levels" not in request:
            return super().answer(obs, request)
        assert isinstance(self.upload, EstimateUpload)
        est = self.under(self.feedback.receive(request), obs, request.get("told_noise"))
        return self.upload.message(est, mean_over_event(est, obs, self.method), obs, self.method)

    def under(self, v: Tensor, obs: Observation, told_noise: Tensor | None = None) -> Estimate:
        """The posterior of the unit's antennas under variances v of the whole array; told_noise (*batch): where the
        observation has none, and then improved by one step of EM: E|y - A h|^2."""
        op, view = self._seen(obs)
        rows = len(obs.op.out_shape)
        noise: Any = obs.noise_var if told_noise is None else told_noise[(..., *(None,) * rows)]
        prior = Gaussian(obs.y.new_zeros(()), v)
        belief = posterior(op, obs.y, prior, noise, view).belief
        mean = belief.mean.expand(*obs.batch_shape, *obs.op.in_shape)
        ok = finite(mean, obs.batch_shape)
        mask = ~ok[(..., *(None,) * len(obs.op.in_shape))]
        info = {}
        if told_noise is not None:
            seen = posterior(op, obs.y, prior, noise, op).belief
            left = (squared(obs.y - seen.mean) + seen.var).mean(tuple(range(-rows, 0)), keepdim=True)
            info["noise_var"] = torch.where(torch.isfinite(left), left, noise)
        status = torch.where(ok, int(Status.OK), int(Status.NONFINITE)).to(torch.int8)
        var = belief.var.expand(mean.shape).masked_fill(mask, 0)
        return Estimate(Gaussian(mean.masked_fill(mask, 0), var), info, status)

    def _seen(self, obs: Observation) -> tuple[LinearOp, LinearOp]:
        """From angles and delays of the whole array to the unit's pilots, and to its antennas; made once."""

        def make() -> tuple[LinearOp, LinearOp]:
            view = unit_rows(array_basis(self.shape, obs.axes), self.place, self.num_unit, obs.y)
            return obs.op.like(obs.y) @ view, view  # type: ignore[attr-defined]

        key = ("feedback", self.place, self.num_unit, self.shape, obs.axes, obs.y.dtype, obs.y.device)
        return cached(obs.op, key, make)  # type: ignore[arg-type]


def unit_rows(basis: LinearOp, place: int, num_unit: int, like: Tensor) -> LinearOp:
    """The basis of the whole array at the antennas of one unit: a dictionary num_unit times as fine as its own."""
    left, right = (basis.left, basis.right) if isinstance(basis, Kron) else (basis, None)
    if isinstance(basis, Identity) and len(basis.in_shape) > 1:
        left, right = Identity(basis.in_shape[:1]), Identity(basis.in_shape[1:])
    num_ant = left.in_shape[0] // num_unit
    waves = left.apply(torch.eye(left.in_shape[0], dtype=torch.complex128)).mT
    mine = Dense(waves[place * num_ant : (place + 1) * num_ant].to(like).contiguous())
    return mine if right is None else Kron(mine, right.like(like))  # type: ignore[attr-defined]
