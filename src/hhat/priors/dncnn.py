"""`dncnn`: a learned prior, known by a convolutional denoiser; its variance by Monte Carlo divergence."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hhat.nets.dncnn import DnCnn
from hhat.nets.start import start_weights
from hhat.ops.base import LinearOp
from hhat.ops.linalg import squared
from hhat.priors.denoiser import DenoiserPrior
from hhat.priors.divergence import divergence, probe_for
from hhat.priors.expert import angles
from hhat.priors.reverse import reverse_samples
from hhat.priors.weights import Weights, read_weights, shipped
from hhat.types import Gaussian, Shape

MODEL = "ldamp"
LOWEST_DB, HIGHEST_DB = -15.0, 40.0
"""Power over noise variance, between which the network is trained. In AMP on 64 antennas r is between -9 dB (19 pilots,
0 dB) and 33 dB (38 pilots, 35 dB)"""
LEAST_SHARE = 1e-3
"""Least variance, relative to the linear one: one probe may say less than nothing"""
SAMPLE_STEPS = 60
AT_ONCE = 1 << 18
"""Entries that go through the network together: memory stays bounded"""


@dataclass(frozen=True, eq=False)
class Residual:
    """E[x | r], r = x + CN(0, v), for coefficients x (R, T) of mean power p, with a network N:

      g r - sqrt(g v) N(Re r', Im r', l),   g = p / (p + v),  r' = r / sqrt(p + v),  l = sqrt(v / (p + v))

    so that N tells the noise that the linear estimate leaves, in its own unit, and a silent network is the exact
    denoiser of white Gaussian coefficients. One network serves all noise levels, and v may differ per bin: l is a
    plane. Above the largest v that it was trained on the network fades out, and the limit is the mean, 0.
    half: the network computes in bfloat16
    """

    weights: Weights
    width: int
    num_layers: int
    power: float
    half: bool = False

    def mean(self, r: Tensor, v: Tensor) -> Tensor:
        """r complex (B, R, T); v (B or 1, R or 1, T or 1), finite."""
        p = self.power
        planes = [r.real / (p + v).sqrt(), r.imag / (p + v).sqrt(), (v / (p + v)).sqrt().expand(r.shape)]
        stacked = torch.stack(planes, 1).float().contiguous(memory_format=torch.channels_last)
        fade = (p * 10 ** (-LOWEST_DB / 10) / v).clamp_max(1)
        outer = (v * (p / (p + v))).sqrt() * fade
        return r * (p / (p + v)) - outer * self._through(stacked).to(r.dtype)

    def _through(self, planes: Tensor) -> Tensor:
        """(B, 3, R, T) -> complex64 (B, R, T)."""
        weights = {name: value.to(planes.device) for name, value in self.weights.items()}
        net, found = dn_cnn(self.width, self.num_layers), []
        for part in planes.split(max(1, AT_ONCE // planes[0, 0].numel())):
            with torch.autocast(part.device.type, torch.bfloat16, enabled=self.half):
                out = functional_call(net, weights, (part,))
            found.append(out.float().movedim(1, -1).contiguous())
        return torch.view_as_complex(torch.cat(found))

    def settings(self, shape: Shape) -> dict[str, Any]:
        """What a card needs to build it again, beside the weights."""
        more = {"width": self.width, "num_layers": self.num_layers, "power": self.power}
        return {"kind": "dncnn", **more, "shape": list(shape)}


@dataclass(frozen=True, eq=False)
class Dncnn(DenoiserPrior):
    """x / scale is what the network was trained on: E[x | r] by `Residual`, h = basis(x).

    The variance is the network's own, by Tweedie's formula with one fixed probe (`divergence`): v tr(df/dr) / N, one
    number for all entries of an item, since single entries cannot be told. It follows r, as a table of errors does
    not, and is right as far as the network is the posterior mean. Two evaluations of the network each time.
    moments, log_evidence: those of white Gaussian coefficients with the mean power.

    weights: a file that `hhat train ldamp` wrote; None: those that come with the library, for all CDL profiles
    basis:   from angular bins to the channel; None is the unitary DFT of both axes, as in training
    network: given, it is taken in place of `weights`
    scale:   complex, broadcasts to (*batch, *event)
    Raises ValueError for weights of something else, and for other than one or two event axes.
    Source: Metzler, Mousavi & Baraniuk, NIPS 2017; He, Wen, Jin & Li, IEEE WCL 2018.
    """

    # where they lie is no part of what they are: the network holds the numbers
    weights: str | None = field(default=None, metadata={"recipe": False})
    basis: LinearOp | None = None
    network: Residual | None = None
    scale: Tensor | complex | float = 1.0
    sample_steps: int = SAMPLE_STEPS
    ndim: int = 2
    learnable: bool = False
    tied_axes: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.network is None:
            found = shipped(MODEL) if self.weights is None else read_weights(self.weights)
            network, shape = residual_from(found.card["settings"], found.weights)
            object.__setattr__(self, "network", network)
            object.__setattr__(self, "basis", angles(shape) if self.basis is None else self.basis)
            if tuple(self.basis.in_shape) != shape:  # type: ignore[union-attr]
                raise ValueError(
                    f"dncnn: weights for {shape} coefficients, but the basis has {self.basis.in_shape}"  # type: ignore[union-attr]
                )
        if self.basis is not None:
            object.__setattr__(self, "ndim", len(self.basis.in_shape))
        if self.ndim not in (1, 2):
            raise ValueError(f"dncnn: expected coefficients with one or two axes, got {self.ndim}")
        scale = torch.as_tensor(self.scale)
        object.__setattr__(self, "scale", scale if scale.is_complex() else scale.to(torch.complex64))

    def denoise(self, r: Gaussian) -> Gaussian:
        c = self.scale.to(r.mean.device, r.mean.dtype)  # type: ignore[union-attr]
        unit = squared(c).clamp_min(torch.finfo(r.mean.real.dtype).tiny)
        v = (r.var.to(unit) / unit).clamp_max(torch.finfo(torch.float32).max / 1e4)
        x = r.mean / c
        mean = self._mean(x, v)
        probe = probe_for(tuple(x.shape[x.ndim - self.ndim :]), x)
        var = divergence(self._mean, x, v, probe, mean).mean(self.event_axes(), keepdim=True)
        p = self._known.power
        linear = (v * (p / (p + v))).expand(x.shape).mean(self.event_axes(), keepdim=True)
        return Gaussian(c * mean, squared(c) * torch.maximum(var, LEAST_SHARE * linear).expand(x.shape))

    def _mean(self, x: Tensor, v: Tensor) -> Tensor:
        grid = tuple(x.shape[-2:]) if self.ndim > 1 else (1, x.shape[-1])
        return self._known.mean(x.reshape(-1, *grid), v.expand(x.shape).reshape(-1, *grid)).reshape(x.shape)

    def moments(self) -> Gaussian:
        scale: Tensor = self.scale  # type: ignore[assignment]
        return Gaussian(torch.zeros((), dtype=scale.dtype, device=scale.device), squared(scale) * self._known.power)

    def sample(self, shape: Shape, gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
        """By the reverse process, from LOWEST_DB to HIGHEST_DB."""
        p = self._known.power
        levels = (p * 10 ** (-torch.linspace(LOWEST_DB, HIGHEST_DB, self.sample_steps) / 10)).tolist()
        z = reverse_samples(replace(self, scale=1.0), levels, p, shape, gen, dtype)
        return z * self.scale.to(z.dtype)  # type: ignore[union-attr]

    @property
    def _known(self) -> Residual:
        assert self.network is not None
        return self.network

    @classmethod
    def example(cls, gen: torch.Generator) -> "Dncnn":
        """A silent network: CN(0, 1.4), exactly."""
        silent = start_weights(dn_cnn(2, 2), gen, ("layers.1.weight",))
        return cls(network=Residual(silent, 2, 2, 1.4), sample_steps=4, ndim=1)


def residual_from(settings: Mapping[str, Any], tensors: Weights) -> tuple[Residual, Shape]:
    """The denoiser that a card's settings describe and the shape it is for; ValueError where the tensors do not fit."""
    try:
        if settings["kind"] != "dncnn":
            raise ValueError(f"weights: expected kind dncnn, got '{settings['kind']}'")
        found = Residual(tensors, int(settings["width"]), int(settings["num_layers"]), float(settings["power"]))
        shape = tuple(int(size) for size in settings["shape"])
        want = {n: tuple(value.shape) for n, value in dn_cnn(found.width, found.num_layers).state_dict().items()}
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"weights: setting or tensor missing or unknown: {wrong}") from None
    have = {name: tuple(value.shape) for name, value in tensors.items()}
    if want != have:
        odd = sorted(name for name in {*want, *have} if want.get(name) != have.get(name))[0]
        raise ValueError(f"weights: {odd}: expected shape {want.get(odd)}, got {have.get(odd)}")
    return found, shape


@functools.cache
def dn_cnn(width: int, num_layers: int) -> nn.Module:
    """The network without weights: those come with every call."""
    with torch.device("meta"):
        return DnCnn(width, num_layers)
