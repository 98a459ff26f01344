"""`Expert`: a trained denoiser of one kind of channel: network, power per bin, and how much error it leaves."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hhat.nets.diffusion import FilmCnn
from hhat.ops.base import LinearOp
from hhat.ops.elementary import Fourier
from hhat.ops.linalg import squared
from hhat.ops.structured import Kron
from hhat.priors.schedule import Schedule
from hhat.priors.stationary import principal
from hhat.priors.weights import Weights
from hhat.types import Shape

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

    With `lags` the coefficients are not the bins but the uncorrelated ones of a known covariance, bins = W x, and p its
    eigenvalues: a silent network is then the exact denoiser of correlated Gaussian bins. The network still sees bins,
    its planes and 2 |W|^2 g - 1 turned by W, and its answer is turned back.

    weights:   of `FilmCnn`
    log_power: log p, broadcasts to (R, T)
    log_ratio: log of measured error over g v, (nodes, R, T) or (nodes, 1, 1), at even times from 1 to num_steps:
               linear between them. 0 is what independent Gaussian bins have.
    half:      the network computes in bfloat16
    lags:      (2R-1, 2T-1) complex, of the covariance of h (`stationary.lags_of`)
    Source: diffusion_experts sections 3.1 and 6; 10.4 for `lags`.
    """

    weights: Weights
    log_power: Tensor
    log_ratio: Tensor
    width: int
    wiener: bool = True
    schedule: Schedule = field(default_factory=Schedule)
    half: bool = False
    lags: Tensor | None = None

    @functools.cached_property
    def turn(self) -> Tensor | None:
        """W (R T, R T), complex64."""
        return None if self.lags is None else principal_of(self.lags)[1]

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
            known = gain if self.turn is None else self._bins(gain.expand(len(gain), *r.shape[1:]))
            inputs = (self._bins(shrunk), self._bins(implied), (2 * known - 1).expand(r.shape))
            outer = (gain * v).sqrt()
        else:
            inputs, outer = (self._bins(shrunk),), v.sqrt()
        found = self._through(inputs, time.float())
        if self.turn is not None:
            found = (found.flatten(1) @ self.turn.to(found.device).conj()).reshape(found.shape)
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

    def _bins(self, x: Tensor) -> Tensor:
        """W x; |W|^2 x for what is real."""
        if self.turn is None:
            return x
        turn = self.turn.to(x.device)
        turn = turn.to(x.dtype) if x.is_complex() else squared(turn).to(x.dtype)
        return (x.flatten(1) @ turn.mT).reshape(x.shape)

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
        lags = {} if self.lags is None else {"lags": torch.view_as_real(self.lags)}
        return {**net, "log_power": self.log_power, "log_ratio": self.log_ratio, **lags}

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
        lags = torch.view_as_complex(tensors["lags"].contiguous()) if "lags" in tensors else None
        found = Expert(net, tensors["log_power"], tensors["log_ratio"], width, wiener, schedule, lags=lags)
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


def principal_of(lags: Tensor) -> tuple[Tensor, Tensor]:
    """Powers and W of a covariance's lags, against the unitary DFT of both axes; the last few are remembered."""
    return _principal(lags.numpy().tobytes(), tuple(lags.shape))


@functools.lru_cache(maxsize=8)
def _principal(content: bytes, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    lags = torch.frombuffer(bytearray(content), dtype=torch.complex64).reshape(shape)
    powers, turn = principal(lags, angles(tuple((n + 1) // 2 for n in shape)))
    return powers.float(), turn.to(torch.complex64)


def angles(shape: Shape) -> LinearOp:
    """The unitary DFT of every axis."""
    basis: LinearOp = Fourier(shape[-1])
    for size in reversed(shape[:-1]):
        basis = Kron(Fourier(size), basis)
    return basis


@functools.cache
def film_cnn(width: int, num_planes: int) -> nn.Module:
    """The network without weights: those come with every call."""
    with torch.device("meta"):
        return FilmCnn(width, num_planes)
