"""What a unit sends to the centre, as named objects: posterior, extrinsic, raw pilots; shorter ones in `compact`.

A new kind is a subclass of `EstimateUpload` with its own `encode`, `decode`, `code_shapes`, `fault` and
`count_bits` (`ParametricUpload` is one); nothing else knows the kinds apart.
"""

import abc
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hhat.decentralized.quantise import Floats, Quantiser, Sent
from hhat.decentralized.units import Job, Message
from hhat.methods.oamp import Oamp, extrinsic
from hhat.methods.sbl import Sbl
from hhat.methods.solve import solve
from hhat.ops.base import LinearOp
from hhat.ops.elementary import Identity
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


def mean_over_event(est: Estimate, obs: Observation, method: Any) -> Gaussian:
    """The estimate in the unitary basis of the unit's method, its variance averaged: (*batch, 1, ..)."""
    mean = est.belief.mean
    var = est.belief.var.expand(mean.shape).mean(_event(obs), keepdim=True)
    return Gaussian(basis_of(method, obs).adjoint(mean), var)


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

    def fault(self, message: Message, obs: Observation, method: Any) -> str:
        """What no sound unit would send, in a message of the right shapes; empty where there is nothing."""
        return self.quantiser.fault(Sent(message["codes"], message["scale"]))


@dataclass(frozen=True)
class EstimateUpload(Upload):
    """Coefficients in the unitary basis of the unit's method, quantised, and one variance of them all per item.

    shrunk: are they posterior means, with the unit's prior in them?
    carries: does it send any estimate, or only what a certain method of the unit finds?
    """

    shrunk: ClassVar[bool] = True
    carries: ClassVar[bool] = True
    quantiser: Quantiser = field(default_factory=Floats)

    def coefficients(self, est: Estimate, obs: Observation, method: Any) -> Gaussian:
        """x (*batch, *event) and its variance, averaged: (*batch, 1, ..)."""
        return mean_over_event(est, obs, method)

    def encode(self, x: Tensor, est: Estimate, obs: Observation, method: Any) -> tuple[Message, Tensor]:
        """Codes, and what they add to the variance (*batch, 1, ..)."""
        num = len(obs.op.in_shape)
        sent = self.quantiser.send(x, num)
        return {"codes": sent.codes, "scale": sent.scale}, self.quantiser.error_var(x, sent, num)

    def decode(self, message: Message, obs: Observation, method: Any) -> Tensor:
        """The coefficients (*batch, *event)."""
        return self.quantiser.receive(Sent(message["codes"], message["scale"]))

    def code_shapes(self, obs: Observation, method: Any) -> dict[str, Shape]:
        event = tuple(obs.op.in_shape)
        return {"codes": (*obs.batch_shape, *event, 2), "scale": (*obs.batch_shape, *(1,) * len(event))}

    def estimate(self, obs: Observation, method: Any) -> Estimate:
        """What of the unit's estimate is sent."""
        return solve(method, obs)

    def send(self, obs: Observation, method: Any) -> Message:
        est = self.estimate(obs, method)
        return self.message(est, self.coefficients(est, obs, method), obs, method)

    def message(self, est: Estimate, x: Gaussian, obs: Observation, method: Any) -> Message:
        """An estimate as it is sent, x its coefficients and their mean variance (*batch, 1, ..)."""
        ok = est.status != Status.NONFINITE
        codes, extra = self.encode(x.mean, est, obs, method)
        var = (x.var + extra).expand(*obs.batch_shape, *(1,) * len(obs.op.in_shape)).reshape(obs.batch_shape)
        message = {**codes, "var": torch.where(ok, var, 0.0).clamp_max(UNKNOWN), "ok": ok}
        if obs.noise_var is None:
            found = torch.as_tensor(est.info["noise_var"], dtype=var.dtype).to(var.device)
            rows = tuple(range(-len(obs.op.out_shape), 0))
            message["noise_var"] = found.mean(rows).expand(obs.batch_shape).clone()
        return message

    def shapes(self, obs: Observation, method: Any) -> dict[str, Shape]:
        batch = obs.batch_shape
        noise = {} if obs.noise_var is not None else {"noise_var": batch}
        return {**self.code_shapes(obs, method), "var": batch, "ok": batch, **noise}

    def fault(self, message: Message, obs: Observation, method: Any) -> str:
        if bool((message["var"] < 0).any()):
            return "var: expected at least 0"
        return super().fault(message, obs, method)

    def receive(self, message: Message, obs: Observation, method: Any) -> Received:
        x = self.decode(message, obs, method)
        mean = basis_of(method, obs).apply(x.to(obs.y.dtype))
        return Received(mean, message["var"], message["ok"], message.get("noise_var"))

    def count_bits(self, obs: Observation, method: Any) -> int:
        return self.quantiser.count_bits(math.prod(obs.op.in_shape)) + self.rest_bits(obs)

    def rest_bits(self, obs: Observation) -> int:
        """Of what goes with every estimate."""
        return VAR_BITS + OK_BITS + NOISE_BITS * (obs.noise_var is None)


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

    def fault(self, obs: Observation, answer: Message) -> str:
        return self.upload.fault(answer, obs, self.method)


def _event(obs: Observation) -> tuple[int, ...]:
    return tuple(range(-len(obs.op.in_shape), 0))
