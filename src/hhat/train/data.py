"""What networks are trained on: channels with fresh noise, from a scenario or from the truth of a capture."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from hhat.methods.auto import basis_for
from hhat.ops import Fourier, Identity, Kron, LinearOp
from hhat.random import complex_normal, generator
from hhat.scenarios.cdl import Cdl
from hhat.scenarios.near_field import NearField
from hhat.types import Channel, Observation, Slot

TEST_BLOCKS, TEST_BLOCK = 24, 8
"""A card's numbers rest on as many draws (each with combiners of its own) of as many channels"""
HELD_OUT = 5
"""Every fifth snapshot of a capture is for validation alone"""


class Batch(NamedTuple):
    """h (*batch, *event), what is seen of it, and the basis of its coefficients."""

    h: Tensor
    obs: Observation
    basis: LinearOp

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device; draws are made on the CPU."""
        if self.h.device == torch.device(device):
            return self
        return Batch(self.h.to(device), self.obs.to(device), self.basis.to(device))

    def some(self, count: int) -> "Batch":
        """The first `count` items; the operator is shared and the noise variance per item or shared."""
        noise = self.obs.noise_var
        if noise is not None and noise.ndim == self.obs.y.ndim and len(noise) > 1:
            noise = noise[:count]
        return Batch(self.h[:count], Observation(self.obs.y[:count], self.obs.op, noise, self.obs.axes), self.basis)


@runtime_checkable
class Data(Protocol):
    """Channels to train on. Pure: the same generator gives the same batch.

    snr_db: limits between which the SNR of each channel is uniform; held_out: channels that training never sees
    """

    def draw(self, n: int, snr_db: tuple[float, float], gen: torch.Generator, held_out: bool = False) -> Batch: ...

    def test(self, snr_db: float, seed: int) -> Iterator[Batch]:
        """Channels for a card's number at one SNR, the same at every SNR, drawn apart from all others."""
        ...


@dataclass(frozen=True)
class UnitsData:
    """The units of a near-field array, each a problem of its own, with the combiner drawn anew for every batch.

    Every second batch counts its angles the other way round, so that a network does not depend on the direction of the
    array or the sign of its DFT.
    """

    scene: NearField

    def draw(self, n: int, snr_db: tuple[float, float], gen: torch.Generator, held_out: bool = False) -> Batch:
        slot = self.scene.draw(n, gen)
        obs = with_noise(slot.truth.h, slot.obs, snr_db, gen)
        local = self.scene.local(Slot(slot.truth, obs, slot.about))
        angles = Fourier(self.scene.num_unit_ant)
        turned = bool(torch.randint(0, 2, (), generator=gen))
        basis = Kron(angles if turned else angles.H, Fourier(self.scene.num_subcarriers))
        return Batch(local.truth.h, local.obs, basis)

    def test(self, snr_db: float, seed: int) -> Iterator[Batch]:
        for block in range(TEST_BLOCKS):
            yield self.draw(TEST_BLOCK, (snr_db, snr_db), generator("train", "test", seed, block))


@dataclass(frozen=True, eq=False)
class CaptureData:
    """The true channels of a capture through its own pilots, in the basis that fits its axes, with fresh noise.

    law: gives the exact E vec(h) vec(h)^H, where it is known; it may take seconds, and few ask
    any_shape: also channels with too few entries to resolve angles or delays, in no basis: what is no network of a
    grid, such as a covariance, needs none
    Raises ValueError for a capture without truth or with fewer snapshots than HELD_OUT.
    """

    slot: Slot
    name: str = "capture"
    law: Callable[[], Tensor] | None = None
    any_shape: bool = False

    def __post_init__(self):
        if not hasattr(self.slot.truth, "h"):
            raise ValueError(f"{self.name}: truth/h: missing; training needs known channels, but for `covariance`")
        count = self._channels().shape[0]
        if count < HELD_OUT:
            raise ValueError(f"{self.name}: truth/h: expected at least {HELD_OUT} snapshots, got {count}")
        if self.slot.obs.op.batch_shape:
            raise ValueError(f"{self.name}: expected the same pilots for all snapshots, got operators that differ")

    @cached_property
    def covariance(self) -> Tensor | None:
        return None if self.law is None else self.law()

    def channels(self, held_out: bool = False) -> Tensor:
        """All that are learned from, or those apart: (num, *event)."""
        return self._some(held_out)

    def _channels(self) -> Tensor:
        h = self.slot.truth.h
        return h.reshape(-1, *h.shape[h.ndim - len(self.slot.obs.op.in_shape) :])

    def draw(self, n: int, snr_db: tuple[float, float], gen: torch.Generator, held_out: bool = False) -> Batch:
        some = self._some(held_out)
        return self._seen(some[torch.randint(0, len(some), (n,), generator=gen)], snr_db, gen)

    def test(self, snr_db: float, seed: int) -> Iterator[Batch]:
        for block, h in enumerate(self._some(True)[: TEST_BLOCKS * TEST_BLOCK].split(TEST_BLOCK)):
            yield self._seen(h, (snr_db, snr_db), generator("train", "test", seed, block))

    def _some(self, held_out: bool) -> Tensor:
        return self._parts[held_out]

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        """Channels to learn from, and those apart."""
        h = self._channels()
        apart = torch.arange(len(h)) % HELD_OUT == HELD_OUT - 1
        return h[~apart], h[apart]

    def _seen(self, h: Tensor, snr_db: tuple[float, float], gen: torch.Generator) -> Batch:
        obs = with_noise(h, self.slot.obs, snr_db, gen)
        shape = tuple(obs.op.in_shape)
        basis = basis_for(shape, obs.axes or ("ant",) * len(shape), self.slot.about.subcarriers)[0]
        if basis is None and self.any_shape:
            basis = Identity(shape)
        if basis is None:
            raise ValueError(f"{self.name}: axes {obs.axes} of sizes {shape}: too few entries for angles or delays")
        return Batch(h, obs, basis)


@dataclass(frozen=True, eq=False)
class PilotData:
    """The received blocks of a capture without truth; every HELD_OUT-th is kept to judge by.

    Raises ValueError for fewer snapshots than HELD_OUT, and for pilots that differ from snapshot to snapshot.
    """

    slot: Slot
    name: str = "capture"

    def __post_init__(self):
        obs = self.slot.obs
        count = math.prod(obs.batch_shape)
        if count < HELD_OUT:
            raise ValueError(f"{self.name}: y: expected at least {HELD_OUT} snapshots, got {count}")
        if obs.op.batch_shape:
            raise ValueError(
                f"{self.name}: expected the same pilots for all snapshots, got operators that differ; "
                "hhat.priors.fit_gauss.covariance_from_pilots takes those"
            )

    def seen(self, held_out: bool = False) -> Observation:
        """The blocks that are learned from, or those apart, one batch axis."""
        obs = self.slot.obs
        shape = tuple(obs.op.out_shape)
        y = obs.y.reshape(-1, *shape)
        apart = torch.arange(len(y)) % HELD_OUT == HELD_OUT - 1
        pick = apart if held_out else ~apart
        noise = obs.noise_var
        if noise is not None and noise.ndim > len(shape):
            noise = noise.expand(*obs.batch_shape, *noise.shape[-len(shape) :]).flatten(0, -1 - len(shape))[pick]
        return Observation(y[pick], obs.op, noise, obs.axes)


CDL_CHANNELS = 12500
"""Drawn once per profile; four fifths are learned from"""
SCARCE_CHANNELS = 1250
"""Of a scarce profile: the first of the same draw"""
CDL_NAME = re.compile(r"cdl-([a-e]+)(?:-scarce(?:-([a-e]))?)?(-rotated)?(-vertical)?(-constant)?")


def cdl_data(name: str, seed: int) -> CaptureData | None:
    """Channels of CDL profiles by a name such as "cdl-c", "cdl-abcd-rotated", "cdl-d-constant"; None: no such name.

    Several profiles are mixed in equal parts, but for a scarce one: "cdl-b-scarce" is profile B with SCARCE_CHANNELS
    alone, "cdl-abcd-scarce-b" all four pooled, every channel as likely as every other, with as few of B.
    -rotated: arrays turned at random; -vertical: arrays that see zenith; -constant: the specular path of D and E has
    the same phase in every draw. Through 38 QPSK pilots of 64 antennas.
    Raises ValueError where it is not said, or not among the profiles, which one is scarce.
    """
    match = CDL_NAME.fullmatch(name)
    if match is None:
        return None
    profiles, scarce, rotated, vertical, constant = match.groups()
    if "-scarce" in name:
        scarce = scarce or profiles
        if len(scarce) > 1 or scarce not in profiles:
            raise ValueError(f"{name}: expected one of the profiles behind -scarce, such as cdl-{profiles}-scarce-b")
    scenes = [
        Cdl(
            profile=profile.upper(),
            geometry="rotated" if rotated else "fixed",
            axis="vertical" if vertical else "horizontal",
            los_phase="constant" if constant else "random",
        )
        for profile in profiles
    ]
    tail = "".join(part or "" for part in (rotated, vertical, constant))
    gens = [generator("train", "cdl", scene.profile, tail, seed) for scene in scenes]
    found = [scene.channels(CDL_CHANNELS, gen) for scene, gen in zip(scenes, gens, strict=True)]
    slot = scenes[0].draw(1, generator("train", "cdl pilots"))
    counts = torch.tensor([SCARCE_CHANNELS if profile == scarce else CDL_CHANNELS for profile in profiles])
    # in turn, so that every fifth is a fifth of each profile
    h = torch.stack(found, 1)[torch.arange(CDL_CHANNELS)[:, None] < counts]
    share = (counts / counts.sum())[:, None, None]

    def law() -> Tensor:
        return (torch.stack([scene.covariance() for scene in scenes]) * share).sum(0)

    return CaptureData(Slot(Channel(h), slot.obs, slot.about), name, law)


def cdl_words(name: str, seed: int) -> str:
    """What a card calls the data of `cdl_data`."""
    few = f" ({SCARCE_CHANNELS} of the scarce one)" if "-scarce" in name else ""
    return f"{CDL_CHANNELS} channels of each profile{few} of {name}, seed {seed}"


def with_noise(h: Tensor, obs: Observation, snr_db: tuple[float, float], gen: torch.Generator) -> Observation:
    """h (n, *event) through the operator of `obs`, with white noise: energy of A h over that of the noise (expected),
    uniform in dB between the limits, item by item."""
    clean = obs.op.apply(h)
    event = tuple(range(1, clean.ndim))
    low, high = snr_db
    snr = low + (high - low) * torch.rand((len(h), *(1,) * len(event)), generator=gen)
    noise_var = clean.abs().square().mean(event, keepdim=True) * 10 ** (-snr / 10)
    noise = complex_normal(tuple(clean.shape), gen, clean.dtype, noise_var)
    return Observation(clean + noise, obs.op, noise_var, obs.axes)
