"""What a unit sends to the centre, as named objects: posterior, extrinsic, largest coefficients, or its raw pilots.

A new kind (parameters of paths, say) is a subclass of `EstimateUpload` with its own `encode`, `decode`, `code_shapes`
and `count_bits`; nothing else knows the kinds apart.
"""

import abc
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hhat.decentralized.quantise import Floats, Quantiser, Sent, index_bits
from hhat.decentralized.units import Job, Message
from hhat.methods.oamp import Oamp, extrinsic
from hhat.methods.sbl import Sbl
from hhat.methods.solve import solve
from hhat.ops.base import LinearOp
from hhat.ops.elementary import Identity
from hhat.ops.linalg import squared
from hhat.ops.posterior import posterior
from hhat.types import Estimate, Gaussian, Observation, Shape, Status

VAR_BITS, OK_BITS, NOISE_BITS = 32, 1, 32
UNKNOWN = 1e30
"""Stands for an infinite variance on the link, where everything is finite"""


class Received(NamedTuple):
    """One unit's upload at the centre: h = mean + CN(0, var); mean (*batch, *antennas ..), the others (*batch).

    ok: False where the unit had nothing finite for an item; noise_var: of its pilots, where the unit estimated it
    """

    mean: Tensor
    var: Tensor
    ok: Tensor
    noise_var: Tensor | None


def basis_of(method: Any, obs: Observation) -> LinearOp:
    """The unitary basis that a method works in on this observation; the channel itself where there is none."""
    prior = getattr(method.resolve(obs)[0], "prior", None)
    basis = None if prior is None else prior.basis
    return Identity(tuple(obs.op.in_shape)) if basis is None or not basis.is_unitary else basis.like(obs.y)


class Upload(abc.ABC):
    """Runs at the unit (`send`) and at the centre (`receive`, `count_bits`). Subclasses are frozen dataclasses."""

    quantiser: Quantiser

    @abc.abstractmethod
    def send(self, obs: Observation, method: Any) -> Message: ...

    @abc.abstractmethod
    def shapes(self, obs: Observation, method: Any) -> dict[str, Shape]: ...

    @abc.abstractmethod
    def count_bits(self, obs: Observation, method: Any) -> int:
        """Of one item, everything included."""


@dataclass(frozen=True)
class EstimateUpload(Upload):
    """Coefficients in the unitary basis of the unit's method, quantised, and one variance of them all per item.

    shrunk: are they posterior means, with the unit's prior in them?
    """

    shrunk: ClassVar[bool] = True
    quantiser: Quantiser = field(default_factory=Floats)

    def coefficients(self, est: Estimate, obs: Observation, method: Any) -> Gaussian:
        """x (*batch, *event) and its variance, averaged: (*batch, 1, ..)."""
        mean, event = est.belief.mean, _event(obs)
        x = basis_of(method, obs).adjoint(mean)
        return Gaussian(x, est.belief.var.expand(mean.shape).mean(event, keepdim=True))

    def encode(self, x: Tensor, obs: Observation) -> tuple[Message, Tensor]:
        """Codes, and what they add to the variance (*batch, 1, ..)."""
        num = len(obs.op.in_shape)
        sent = self.quantiser.send(x, num)
        return {"codes": sent.codes, "scale": sent.scale}, self.quantiser.error_var(x, sent, num)

    def decode(self, message: Message, shape: Shape) -> Tensor:
        return self.quantiser.receive(Sent(message["codes"], message["scale"]))

    def code_shapes(self, shape: Shape, num_event: int) -> dict[str, Shape]:
        """shape: (*batch, *event) of the coefficients."""
        lead = shape[: len(shape) - num_event]
        return {"codes": (*shape, 2), "scale": (*lead, *(1,) * num_event)}

    def send(self, obs: Observation, method: Any) -> Message:
        est = solve(method, obs)
        ok = est.status != Status.NONFINITE
        x = self.coefficients(est, obs, method)
        codes, extra = self.encode(x.mean, obs)
        var = (x.var + extra).expand(*obs.batch_shape, *(1,) * len(obs.op.in_shape)).reshape(obs.batch_shape)
        message = {**codes, "var": torch.where(ok, var, 0.0).clamp_max(UNKNOWN), "ok": ok}
        if obs.noise_var is None:
            found = torch.as_tensor(est.info["noise_var"], dtype=var.dtype).to(var.device)
            rows = tuple(range(-len(obs.op.out_shape), 0))
            message["noise_var"] = found.mean(rows).expand(obs.batch_shape).clone()
        return message

    def shapes(self, obs: Observation, method: Any) -> dict[str, Shape]:
        batch, event = obs.batch_shape, tuple(obs.op.in_shape)
        noise = {} if obs.noise_var is not None else {"noise_var": batch}
        return {**self.code_shapes((*batch, *event), len(event)), "var": batch, "ok": batch, **noise}

    def receive(self, message: Message, obs: Observation, method: Any) -> Received:
        x = self.decode(message, (*obs.batch_shape, *obs.op.in_shape))
        mean = basis_of(method, obs).apply(x.to(obs.y.dtype))
        return Received(mean, message["var"], message["ok"], message.get("noise_var"))

    def count_bits(self, obs: Observation, method: Any) -> int:
        entries = math.prod(obs.op.in_shape)
        return self.quantiser.count_bits(entries) + VAR_BITS + OK_BITS + NOISE_BITS * (obs.noise_var is None)


@dataclass(frozen=True)
class PosteriorUpload(EstimateUpload):
    """The posterior mean and its mean variance s_m. What the unit's prior shrank to zero stays lost: its error is no
    white noise, and no prior at the centre brings it back. Source: Tang et al. 2025, with s_m added."""


@dataclass(frozen=True)
class ExtrinsicUpload(EstimateUpload):
    """What y alone says of the coefficients, the unit's prior divided out: 1/v = 1/Sigma - 1/v_prior, r/v = mu/Sigma.

    A method that passes messages has it as `info["pseudo_observation"]`; for one with a variance per coefficient
    (`info["prior_var"]`) it is computed from the posterior. ValueError for others, and outside unitary bases, where the
    noise of B r is not white.
    """

    shrunk: ClassVar[bool] = False

    def fits(self, method: Any, obs: Observation) -> bool:
        """Does the method give what this sends?"""
        chosen = method.resolve(obs)[0]
        prior = getattr(chosen, "prior", None)
        unitary = prior is None or prior.basis is None or prior.basis.is_unitary
        return unitary and isinstance(chosen, Oamp | Sbl)

    def coefficients(self, est: Estimate, obs: Observation, method: Any) -> Gaussian:
        if not self.fits(method, obs):
            name = type(method.resolve(obs)[0]).__name__
            raise ValueError(f"ExtrinsicUpload: expected sbl or oamp in a unitary basis, got {name}")
        basis, event = basis_of(method, obs), _event(obs)
        if "pseudo_observation" in est.info:
            r = est.info["pseudo_observation"]
        else:
            before = Gaussian(est.belief.mean.new_zeros(()), est.info["prior_var"])
            op = obs.op @ basis  # type: ignore[operator]
            noise = est.info["noise_var"] if obs.noise_var is None else obs.noise_var
            r = extrinsic(posterior(op, obs.y, before, noise).belief, before)
        return Gaussian(r.mean, r.var.expand(r.mean.shape).mean(event, keepdim=True))


@dataclass(frozen=True)
class TopUpload(EstimateUpload):
    """The `count` largest coefficients: their numbers (log2 N bits each) and quantised values. The energy of what is
    left out is added to the variance."""

    count: int = 32

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"TopUpload: count: expected at least 1, got {self.count}")

    def encode(self, x: Tensor, obs: Observation) -> tuple[Message, Tensor]:
        num = len(obs.op.in_shape)
        flat = x.flatten(-num)
        count, size = min(self.count, flat.shape[-1]), flat.shape[-1]
        index = squared(flat).topk(count, -1).indices
        kept = flat.gather(-1, index)
        sent = self.quantiser.send(kept, 1)
        left_out = (squared(flat).sum(-1, keepdim=True) - squared(kept).sum(-1, keepdim=True)).clamp_min(0) / size
        extra = left_out + self.quantiser.error_var(kept, sent, 1) * (count / size)
        return {"codes": sent.codes, "scale": sent.scale, "index": index}, extra[(..., *(None,) * (num - 1))]

    def decode(self, message: Message, shape: Shape) -> Tensor:
        values = self.quantiser.receive(Sent(message["codes"], message["scale"]))
        num = len(shape) - values.ndim + 1
        index = message["index"]
        size = math.prod(shape[len(shape) - num :])
        if bool(((index < 0) | (index >= size)).any()):
            raise ValueError(f"TopUpload: expected numbers of coefficients 0..{size - 1}, got others")
        return values.new_zeros(*values.shape[:-1], size).scatter(-1, index, values).reshape(shape)

    def code_shapes(self, shape: Shape, num_event: int) -> dict[str, Shape]:
        lead, size = shape[: len(shape) - num_event], math.prod(shape[len(shape) - num_event :])
        count = min(self.count, size)
        return {"codes": (*lead, count, 2), "scale": (*lead, 1), "index": (*lead, count)}

    def count_bits(self, obs: Observation, method: Any) -> int:
        size = math.prod(obs.op.in_shape)
        count = min(self.count, size)
        rest = VAR_BITS + OK_BITS + NOISE_BITS * (obs.noise_var is None)
        return self.quantiser.count_bits(count) + count * index_bits(size) + rest


@dataclass(frozen=True)
class RawUpload(Upload):
    """The pilots themselves: y is a sufficient statistic, so that any `method` at the centre sees what all units saw.

    The quantiser's noise is added to the pilots' noise where that is known; else it is estimated with it.
    """

    method: Any = None
    quantiser: Quantiser = field(default_factory=Floats)

    def send(self, obs: Observation, method: Any) -> Message:
        sent = self.quantiser.send(obs.y, len(obs.op.out_shape))
        return {"codes": sent.codes, "scale": sent.scale}

    def shapes(self, obs: Observation, method: Any) -> dict[str, Shape]:
        lead, rows = tuple(obs.y.shape[: obs.y.ndim - len(obs.op.out_shape)]), tuple(obs.op.out_shape)
        return {"codes": (*lead, *rows, 2), "scale": (*lead, *(1,) * len(rows))}

    def received(self, message: Message, obs: Observation) -> Observation:
        """The unit's observation as the centre has it."""
        sent = Sent(message["codes"], message["scale"])
        y, extra = self.quantiser.receive(sent).to(obs.y.dtype), self.quantiser.noise_var(sent)
        noise = obs.noise_var
        if noise is not None and bool((extra > 0).any()):
            noise = noise + extra
        return Observation(y, obs.op, noise, obs.axes)

    def count_bits(self, obs: Observation, method: Any) -> int:
        return self.quantiser.count_bits(math.prod(obs.op.out_shape))


@dataclass(frozen=True, eq=False)
class LocalWork(Job):
    """What a unit of `decentralised` does: its method on its own pilots, then the upload."""

    method: Any
    upload: Upload

    def answer(self, obs: Observation, request: Message) -> Message:
        return self.upload.send(obs, self.method)

    def shapes(self, obs: Observation) -> dict[str, Shape]:
        return self.upload.shapes(obs, self.method)


def _event(obs: Observation) -> tuple[int, ...]:
    return tuple(range(-len(obs.op.in_shape), 0))
