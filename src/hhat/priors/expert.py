"""`Expert`: a trained denoiser of one kind of channel: network, power per bin, and how much error it leaves."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hhat.nets.diffusion import FilmCnn
from hhat.priors.schedule import Schedule
from hhat.priors.weights import Weights

PLANES = {True: 5, False: 2}
"""Input planes of the network, with and without the Wiener skip"""
AT_ONCE = 256
"""Channels that go through the network together: memory stays bounded"""


@dataclass(frozen=True, eq=False)
class Expert:
    """E[x | r], r = x + CN(0, v), for coefficients x (R, T) of mean power p per bin, with a network N at v's time t:

      wiener:  g r - sqrt(g v) N([h_t, e, 2g - 1], t),   g = p / (p + v),  e = sqrt(v) / (p + v) r,
      plain:     r - sqrt(v)   N(h_t, t),                h_t = r / sqrt(1 + v)

    so that with the Wiener skip a silent network is the exact denoiser of independent Gaussian bins; e is then the
    diffusion noise that they imply, and g tells the network where the clusters of its channels lie. v may differ per
    bin: g and h_t follow it exactly, the network's t is that of its geometric mean. Above the largest v of the
    schedule the network fades out, and the limit is the mean, 0.

    weights:   of `FilmCnn`
    log_power: log p, broadcasts to (R, T)
    log_ratio: log of measured error over g v, (nodes, R, T) or (nodes, 1, 1), at even times from 1 to num_steps:
               linear between them. 0 is what independent Gaussian bins have.
    half:      the network computes in bfloat16
    Source: diffusion_experts sections 3.1 and 6.
    """

    weights: Weights
    log_power: Tensor
    log_ratio: Tensor
    width: int
    wiener: bool = True
    schedule: Schedule = field(default_factory=Schedule)
    half: bool = False

    @property
    def power(self) -> Tensor:
        return self.log_power.exp()

    def mean(self, r: Tensor, v: Tensor) -> Tensor:
        """r complex (B, R, T); v (B or 1, R or 1, T or 1) -> E[x | r]."""
        gain = self._gain(v)
        time = self.schedule.time(v.log().mean((-2, -1)).exp())
        v = v.clamp_max(torch.finfo(torch.float32).max / 4)
        shrunk = r / (1 + v).sqrt()
        if self.wiener:
            implied = r * (v.sqrt() / (self.power.to(v.device, v.dtype) + v))
            inputs, outer = (shrunk, implied, (2 * gain - 1).expand(r.shape)), (gain * v).sqrt()
        else:
            inputs, outer = (shrunk,), v.sqrt()
        found = self._through(inputs, time.float())
        return (gain if self.wiener else 1) * r - outer * self._fade(v) * found.to(r.dtype)

    def var(self, v: Tensor) -> Tensor:
        """Mean error per bin left at noise v; shaped as v against (R, T)."""
        time = self.schedule.time(v.log().mean((-2, -1), keepdim=True).exp())
        place = (time - 1) * ((len(self.log_ratio) - 1) / (self.schedule.num_steps - 1))
        low = place.floor().long().clamp(0, len(self.log_ratio) - 2)
        table = self.log_ratio.to(v.device, v.dtype)
        flat = low.flatten()
        share = (place - low).reshape(-1, 1, 1)
        ratio = (1 - share) * table[flat] + share * table[flat + 1]
        ratio = ratio.reshape(*low.shape[:-2], *table.shape[1:]) * self._fade(v)
        p = self.power.to(v.device, v.dtype)
        return ratio.exp() * p / (1 + p / v.clamp_min(torch.finfo(v.dtype).tiny))

    def _gain(self, v: Tensor) -> Tensor:
        return 1 / (1 + v / self.power.to(v.device, v.dtype))

    def _fade(self, v: Tensor) -> Tensor:
        return (self.schedule.log_vars[-1].exp().item() / v).clamp_max(1)

    def _through(self, inputs: tuple[Tensor, ...], time: Tensor) -> Tensor:
        """The network on complex (B, R, T) and real planes -> complex64 (B, R, T)."""
        planes: list[Tensor] = []
        for one in inputs:
            planes += [one.real, one.imag] if one.is_complex() else [one]
        stacked = torch.stack(planes, 1).float().contiguous(memory_format=torch.channels_last)
        weights = {name: value.to(stacked.device) for name, value in self.weights.items()}
        net = film_cnn(self.width, PLANES[self.wiener])
        times = time.split(AT_ONCE) if len(time) > 1 else [time] * -(-len(stacked) // AT_ONCE)
        found = []
        for part, t in zip(stacked.split(AT_ONCE), times, strict=True):
            with torch.autocast(stacked.device.type, torch.bfloat16, enabled=self.half):
                out = functional_call(net, weights, (part, t))
            found.append(out.float().movedim(1, -1).contiguous())
        return torch.view_as_complex(torch.cat(found))

    def settings(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """What a card says of it; `expert_from` reads it."""
        steps, last = self.schedule.num_steps, self.schedule.last_beta
        told = {"kind": "diffusion", "width": self.width, "wiener": self.wiener, "shape": list(shape)}
        return {**told, "num_steps": steps, "last_beta": last}

    def tensors(self) -> Weights:
        """All numbers by name, as they are stored."""
        net = {f"net.{name}": value for name, value in self.weights.items()}
        return {**net, "log_power": self.log_power, "log_ratio": self.log_ratio}

    def with_weights(self, weights: Weights) -> "Expert":
        return replace(self, weights=weights)


def expert_from(settings: Mapping[str, Any], tensors: Weights) -> Expert:
    """The expert that a card's settings describe; ValueError where they do not fit the tensors."""
    try:
        if settings["kind"] != "diffusion":
            raise ValueError(f"weights: expected kind diffusion, got '{settings['kind']}'")
        width, wiener = int(settings["width"]), bool(settings["wiener"])
        schedule = Schedule(int(settings["num_steps"]), settings["last_beta"])
        shape = tuple(settings["shape"])
        net = {name[4:]: value for name, value in tensors.items() if name.startswith("net.")}
        found = Expert(net, tensors["log_power"], tensors["log_ratio"], width, wiener, schedule)
        want = {name: tuple(value.shape) for name, value in film_cnn(width, PLANES[wiener]).state_dict().items()}
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"weights: setting or tensor missing or unknown: {wrong}") from None
    have = {name: tuple(value.shape) for name, value in net.items()}
    if want != have:
        odd = sorted(name for name in {*want, *have} if want.get(name) != have.get(name))[0]
        raise ValueError(f"weights: net.{odd}: expected shape {want.get(odd)}, got {have.get(odd)}")
    for name, tensor in (("log_power", found.log_power), ("log_ratio", found.log_ratio)):
        if tuple(tensor.shape[-2:]) != shape:
            raise ValueError(f"weights: {name}: expected {shape} at the end, got {tuple(tensor.shape)}")
    return found


@functools.cache
def film_cnn(width: int, num_planes: int) -> nn.Module:
    """The network without weights: those come with every call."""
    with torch.device("meta"):
        return FilmCnn(width, num_planes)
