"""What is known of a channel by a generator alone: h = G(z), z ~ N(0, I)."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hhat.nets.generator import HALVINGS, Generator
from hhat.priors.expert import angles
from hhat.priors.weights import Weights
from hhat.types import Shape


@runtime_checkable
class Generated(Protocol):
    """A law of channels from which samples can be drawn and through which gradients go. It denoises nothing, so it is
    no `Prior`: `wgan` searches its latent space.

    num_latent: how many real numbers z has for channels of this shape; ValueError where there are none of the shape
    __call__:   z (*batch, num_latent) real -> G(z), complex (*batch, *shape)
    scaled:     the law of c h
    """

    def num_latent(self, shape: Shape) -> int: ...

    def __call__(self, z: Tensor, shape: Shape) -> Tensor: ...

    def scaled(self, c: Tensor | complex | float) -> "Generated": ...


@dataclass(frozen=True, eq=False)
class Linear:
    """h = scale W z, or scale (z_1 + j z_2)/sqrt(2) without W, which is CN(0, |scale|^2) for any shape: the generator
    for which the estimate is known in closed form. matrix: complex (N, K), N entries of the channel in order."""

    matrix: Tensor | None = None
    scale: Tensor | complex | float = 1.0

    def num_latent(self, shape: Shape) -> int:
        size = math.prod(shape)
        if self.matrix is not None and len(self.matrix) != size:
            raise ValueError(f"wgan: prior: for channels of {len(self.matrix)} entries, the observation's have {size}")
        return 2 * size if self.matrix is None else self.matrix.shape[1]

    def __call__(self, z: Tensor, shape: Shape) -> Tensor:
        if self.matrix is None:
            h = torch.complex(*z.chunk(2, -1)) * math.sqrt(0.5)
        else:
            h = z.to(z.dtype.to_complex()) @ self.matrix.to(z.device, z.dtype.to_complex()).mT
        return h.reshape(*z.shape[:-1], *shape) * torch.as_tensor(self.scale).to(h)

    def scaled(self, c: Tensor | complex | float) -> "Linear":
        return replace(self, scale=self.scale * torch.as_tensor(c))


@dataclass(frozen=True, eq=False)
class GeneratedBins:
    """h = scale F G(z), F from angular bins to the channel (the unitary DFT of both axes), G a trained network.

    shape: of the channels it was trained on; half: the network computes in bfloat16
    """

    weights: Weights
    latent: int
    shape: Shape
    scale: Tensor | complex | float = 1.0
    half: bool = False

    def num_latent(self, shape: Shape) -> int:
        if tuple(shape) != tuple(self.shape):
            raise ValueError(
                f"wgan: weights: expected some for channels {tuple(shape)}; these are for {tuple(self.shape)}"
            )
        return self.latent

    def __call__(self, z: Tensor, shape: Shape) -> Tensor:
        return angles(tuple(self.shape)).apply(self.bins(z)) * torch.as_tensor(self.scale).to(z.device)

    def bins(self, z: Tensor) -> Tensor:
        """G(z), complex (*batch, R, T)."""
        weights = {name: value.to(z.device, z.dtype) for name, value in self.weights.items()}
        net = generator_net(self.latent, tuple(self.shape))
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.half):
            planes = functional_call(net, weights, (z.reshape(-1, z.shape[-1]),))
        planes = planes.to(z.dtype).movedim(1, -1).contiguous()
        return torch.view_as_complex(planes).reshape(*z.shape[:-1], *self.shape)

    def scaled(self, c: Tensor | complex | float) -> "GeneratedBins":
        return replace(self, scale=self.scale * torch.as_tensor(c))

    def settings(self) -> dict[str, Any]:
        """What a card needs to build it again, beside the weights."""
        return {"kind": "generator", "num_latent": self.latent, "shape": list(self.shape)}


def generated_from(settings: Mapping[str, Any], tensors: Weights) -> GeneratedBins:
    """The generator that a card's settings describe; ValueError where the tensors do not fit."""
    try:
        if settings["kind"] != "generator":
            raise ValueError(f"weights: expected kind generator, got '{settings['kind']}'")
        found = GeneratedBins(tensors, int(settings["num_latent"]), tuple(int(n) for n in settings["shape"]))
        want = {n: tuple(v.shape) for n, v in generator_net(found.latent, found.shape).state_dict().items()}
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"weights: setting or tensor missing or unknown: {wrong}") from None
    have = {name: tuple(value.shape) for name, value in tensors.items()}
    if want != have:
        odd = sorted(name for name in {*want, *have} if want.get(name) != have.get(name))[0]
        raise ValueError(f"weights: {odd}: expected shape {want.get(odd)}, got {have.get(odd)}")
    return found


@functools.cache
def generator_net(num_latent: int, shape: Shape) -> nn.Module:
    """The network without weights: those come with every call."""
    if len(shape) != 2 or any(size % 2**HALVINGS for size in shape):
        raise ValueError(f"wgan: expected channels of two axes that are multiples of {2**HALVINGS}, got {shape}")
    with torch.device("meta"):
        return Generator(num_latent, shape)
