"""Uploads of fewer numbers than coefficients: the largest of them, or the parameters of a few paths."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hhat.decentralized.quantise import MidTread, Quantiser, Sent, index_bits
from hhat.decentralized.units import Message
from hhat.decentralized.uploads import EstimateUpload
from hhat.methods.nomp import Nomp
from hhat.methods.nomp_fit import fitted
from hhat.methods.nomp_paths import LinePaths
from hhat.methods.solve import solve
from hhat.ops.linalg import squared
from hhat.types import Estimate, Observation, Shape, Status


@dataclass(frozen=True)
class TopUpload(EstimateUpload):
    """The `count` largest coefficients: their numbers (log2 N bits each) and quantised values. The energy of what is
    left out is added to the variance."""

    count: int = 32

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"TopUpload: count: expected at least 1, got {self.count}")

    def encode(self, x: Tensor, est: Estimate, obs: Observation, method: Any) -> tuple[Message, Tensor]:
        num = len(obs.op.in_shape)
        flat = x.flatten(-num)
        count, size = min(self.count, flat.shape[-1]), flat.shape[-1]
        index = squared(flat).topk(count, -1).indices
        kept = flat.gather(-1, index)
        sent = self.quantiser.send(kept, 1)
        left_out = (squared(flat).sum(-1, keepdim=True) - squared(kept).sum(-1, keepdim=True)).clamp_min(0) / size
        extra = left_out + self.quantiser.error_var(kept, sent, 1) * (count / size)
        return {"codes": sent.codes, "scale": sent.scale, "index": index}, extra[(..., *(None,) * (num - 1))]

    def decode(self, message: Message, obs: Observation, method: Any) -> Tensor:
        values = self.quantiser.receive(Sent(message["codes"], message["scale"]))
        shape = (*obs.batch_shape, *obs.op.in_shape)
        zeros = values.new_zeros(*values.shape[:-1], math.prod(obs.op.in_shape))
        return zeros.scatter(-1, message["index"], values).reshape(shape)

    def code_shapes(self, obs: Observation, method: Any) -> dict[str, Shape]:
        lead, count = obs.batch_shape, min(self.count, math.prod(obs.op.in_shape))
        return {"codes": (*lead, count, 2), "scale": (*lead, 1), "index": (*lead, count)}

    def fault(self, message: Message, obs: Observation, method: Any) -> str:
        index, size = message["index"], math.prod(obs.op.in_shape)
        if bool(((index < 0) | (index >= size)).any()):
            return f"index: expected numbers of coefficients 0..{size - 1}"
        return super().fault(message, obs, method)

    def count_bits(self, obs: Observation, method: Any) -> int:
        size = math.prod(obs.op.in_shape)
        count = min(self.count, size)
        return self.quantiser.count_bits(count) + count * index_bits(size) + self.rest_bits(obs)


@dataclass(frozen=True)
class ParametricUpload(EstimateUpload):
    """The strongest paths of a unit with `nomp`; the centre makes the unit's channel of them again, antenna by antenna:

      h = sum_g gain_g s(psi_g, phi_g, delay_g),   g < num_paths <= count

    psi, phi, delay: bits of each, in even steps over what the model can hold (psi -1/2 .. 1/2 and one beam more, phi of
      either sign up to its search's limit, at least one cycle at the last antenna, a delay its period), sent where the
      model has them free. Every doubling of antennas wants one bit more of psi, of tones one more of delay.
    quantiser: of the gains, `MidTread(8)`; they are fitted to y anew at the rounded geometry, which is worth one bit of
      every other parameter: a unit's phase is best known in its middle, not at its first antenna and lowest tone.
    count: most paths of a message; None: the unit's `max_paths`. Messages have that length, and so many bits, always.
    What `nomp` takes for a remainder beside the paths is not sent: its power is part of the variance, and so are the
    errors of rounding and of paths left out, which the unit knows. ValueError for units with another method.
    """

    carries: ClassVar[bool] = False
    quantiser: Quantiser = field(default_factory=lambda: MidTread(8))
    psi: int = 12
    phi: int = 10
    delay: int = 10
    count: int | None = None

    def __post_init__(self):
        for name in ("psi", "phi", "delay"):
            if not 1 <= getattr(self, name) <= 24:
                raise ValueError(f"ParametricUpload: {name}: expected 1..24 bits, got {getattr(self, name)}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"ParametricUpload: count: expected at least 1, got {self.count}")

    def estimate(self, obs: Observation, method: Any) -> Estimate:
        return solve(replace(self._nomp(obs, method), remainder=False), obs)

    def encode(self, x: Tensor, est: Estimate, obs: Observation, method: Any) -> tuple[Message, Tensor]:
        nomp, paths = self._nomp(obs, method), est.info["paths"]
        model, count = self._model(nomp), self._count(nomp)
        ok = (est.status != Status.NONFINITE)[..., None]
        best = torch.where(ok, squared(paths["gain"]), 0.0).topk(count, -1)
        there = best.values > 0
        geometry = torch.stack([paths[name].gather(-1, best.indices) for name in ("psi", "phi", "delay")], -1)
        low, span, bits = self._ranges(model, geometry)
        codes = ((geometry - low) / span * 2**bits).round()
        # a delay is a place on a circle, the others end
        codes = torch.where(self._turns(codes), codes.remainder(2**bits), codes.clamp_max(2**bits - 1).clamp_min(0))
        codes = torch.where(there[..., None], codes, 0.0).to(torch.int32)[..., list(model.free)]
        fit = fitted(nomp.task(obs), self._geometry(codes, model), there, 0, ok[..., 0])
        sent = self.quantiser.send(torch.where(there, fit.gain, 0.0).to(obs.y.dtype), 1)
        message = {"geometry": codes, "num_paths": there.sum(-1), "codes": sent.codes, "scale": sent.scale}
        event = tuple(range(-len(obs.op.in_shape), 0))
        return message, squared(self.decode(message, obs, method) - x).mean(event, keepdim=True).to(x.real.dtype)

    def decode(self, message: Message, obs: Observation, method: Any) -> Tensor:
        model = self._model(self._nomp(obs, method))
        gain = self.quantiser.receive(Sent(message["codes"], message["scale"])).to(torch.complex128)
        gain = gain * (torch.arange(gain.shape[-1], device=gain.device) < message["num_paths"][..., None])
        paths = model.responses(self._geometry(message["geometry"], model)).flatten(gain.ndim)
        return (gain[..., None, :] @ paths)[..., 0, :].reshape(*gain.shape[:-1], *model.in_shape)

    def code_shapes(self, obs: Observation, method: Any) -> dict[str, Shape]:
        nomp, lead = self._nomp(obs, method), obs.batch_shape
        paths = (*lead, self._count(nomp))
        free = len(self._model(nomp).free)
        return {"geometry": (*paths, free), "num_paths": lead, "codes": (*paths, 2), "scale": (*lead, 1)}

    def fault(self, message: Message, obs: Observation, method: Any) -> str:
        nomp = self._nomp(obs, method)
        count, codes = message["num_paths"], message["geometry"]
        if bool(((count < 0) | (count > self._count(nomp))).any()):
            return f"num_paths: expected 0..{self._count(nomp)}"
        most = 2 ** self._bits(codes)[list(self._model(nomp).free)]
        if bool(((codes < 0) | (codes >= most)).any()):
            return f"geometry: expected codes of {self.psi}, {self.phi} and {self.delay} bits"
        return super().fault(message, obs, method)

    def count_bits(self, obs: Observation, method: Any) -> int:
        nomp = self._nomp(obs, method)
        count = self._count(nomp)
        path = sum((self.psi, self.phi, self.delay)[column] for column in self._model(nomp).free)
        return count * path + self.quantiser.count_bits(count) + index_bits(count + 1) + self.rest_bits(obs)

    def _nomp(self, obs: Observation, method: Any) -> Nomp:
        chosen = method.resolve(obs)[0]
        if not isinstance(chosen, Nomp):
            raise ValueError(f"ParametricUpload: expected nomp at the unit, got {type(chosen).__name__}")
        return chosen

    def _model(self, nomp: Nomp) -> LinePaths:
        assert nomp.model is not None  # resolve() has seen to it
        return nomp.model

    def _count(self, nomp: Nomp) -> int:
        return nomp.max_paths if self.count is None else min(self.count, nomp.max_paths)

    def _bits(self, like: Tensor) -> Tensor:
        return torch.tensor([self.psi, self.phi, self.delay], device=like.device)

    def _turns(self, like: Tensor) -> Tensor:
        return torch.tensor([False, False, True], device=like.device)

    def _ranges(self, model: LinePaths, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of (psi, phi, delay): the value of code 0, that of all codes together, and bits."""
        beam, bow, _ = model.scale().tolist()
        # noise takes estimates past what is searched, where that is little
        half, bend, period = 0.5 + beam, max(model.largest_curvature(), bow), model.period()
        low = torch.tensor([-half, -bend, 0.0], dtype=torch.float64, device=like.device)
        span = torch.tensor([2 * half, 2 * bend, period], dtype=torch.float64, device=like.device)
        return low, span, self._bits(like)

    def _geometry(self, codes: Tensor, model: LinePaths) -> Tensor:
        """From codes of the free parameters; the others are 0."""
        whole = codes.new_zeros(*codes.shape[:-1], 3, dtype=torch.float64)
        low, span, bits = self._ranges(model, codes)
        free = list(model.free)
        whole[..., free] = low[free] + codes * (span / 2**bits)[free]
        return whole
