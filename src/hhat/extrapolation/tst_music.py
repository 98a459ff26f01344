"""`tst-music`: paths of every sounding symbol by MUSIC, each symbol alone, then taken to the whole band."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hhat.extrapolation.bound import inverse, tone_variance, unseen
from hhat.extrapolation.fit import posterior_information
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding, sounded
from hhat.extrapolation.normal import Point, Task, normal_at
from hhat.extrapolation.search import quiet_power
from hhat.extrapolation.tree import noise_level, tree
from hhat.methods.base import Method
from hhat.ops.linalg import squared
from hhat.types import Estimate, Gaussian, Observation, State

FLOOR = 1e-12
"""Least noise variance, as a share of the received power."""
SIGNIFICANT = 2.0
"""Standard deviations by which the residual's energy must exceed that of noise to be taken for channel."""
BLOCK = 128
"""Symbols whose trees are grown at a time: 0.2 GB for 250 tones and 16 groups."""


@dataclass(frozen=True, eq=False)
class Music(Method):
    """What both MUSIC methods share: their settings, the observation as a task, and the channel of paths found.

    model: `Sounding`, the law of array, tones and period; `Sounding.of(about, num_rx_ant)` reads it off a capture
    num_paths: most paths of an item, the strongest
    smooth: sub-bands as further snapshots for delays, so that paths of one angle stand apart
    """

    variance: ClassVar[str] = "plug-in"
    model: Sounding | None = None
    num_paths: int = 24
    smooth: bool = True

    def __post_init__(self):
        if self.num_paths < 1:
            raise ValueError(f"{self.label}: num_paths: expected at least 1, got {self.num_paths}")

    @property
    def label(self) -> str:
        return "music"

    def pilots(self, obs: Observation) -> Sounded:
        """The observation in complex128, noise variance (*batch, 1, symbol, 1) at least FLOOR of the power received
        (1 where nothing was), and estimated symbol by symbol where it is not known.

        Raises ValueError without a model and for operators that are no sounding.
        """
        if self.model is None:
            raise ValueError(
                f"{self.label}: model: expected a Sounding, got None; Sounding.of(about, num_rx_ant) reads it off a "
                "capture that tells the array's positions, the tones and the period"
            )
        seen = sounded(self.model, obs)
        y = seen.y.to(torch.complex128)
        power = squared(y).mean((-3, -1), keepdim=True)
        least = torch.where(power > 0, FLOOR * power, 1.0)
        if seen.noise_var is None:
            noise = self._noise(y.movedim(-3, -1))[..., None, :, None]
        else:
            noise = seen.noise_var.to(y.device, torch.float64).expand_as(least)
        return Sounded(y, seen.index, torch.maximum(noise, least))

    def _noise(self, y: Tensor) -> Tensor:
        """Of symbols (*batch, tone, rx_ant). One antenna is all signal subspace: there, from the quietest delays."""
        if y.shape[-1] > 1:
            return noise_level(y)
        assert self.model is not None
        return quiet_power(self.model, y.flatten(0, -3)[:, None]).reshape(y.shape[:-2])

    def times(self, pilots: Sounded) -> Tensor:
        assert self.model is not None
        return self.model.period_s * torch.arange(len(pilots.index), dtype=torch.float64, device=pilots.y.device)

    def empty(self, obs: Observation, paths: tuple[int, ...]) -> State:
        real = torch.zeros(*obs.batch_shape, *paths, dtype=torch.float64, device=obs.y.device)
        cosine = real[..., None].expand(*real.shape, 2).clone()
        found = Paths(real.to(torch.complex128), real, cosine, real, torch.zeros_like(real, dtype=torch.bool))
        return {**found._asdict(), "change": obs.y.real.new_ones(obs.batch_shape)}

    def told(self, obs: Observation, mean: Tensor, var: Tensor, pilots: Sounded, info: dict[str, Any]) -> Estimate:
        """Of channels (*batch, rx_ant, symbol, subcarrier), in the observation's axes and precision."""
        given = obs.noise_var
        if given is None:
            assert pilots.noise_var is not None
            given = pilots.noise_var.to(obs.y.real.dtype)
            given = given[..., 0, :] if len(obs.op.out_shape) == 2 else given
        if len(obs.op.in_shape) == 2:
            mean, var = mean[..., 0, :], var[..., 0, :]
        source = "estimated" if obs.noise_var is None else "given"
        belief = Gaussian(mean.to(obs.y.dtype), var.to(obs.y.real.dtype))
        return Estimate(belief, {**info, "noise_var": given, "noise_var_source": source})


@dataclass(frozen=True, eq=False)
class TstMusic(Music):
    """h(m) = sum_k x_k b(u_k, v_k) a(tau_k)^T from the pilots of symbol m alone: groups of delays, the angles of each,
    the delay of each angle (`tree`); then all tones of these paths.

    Takes one symbol, op Kron(Identity((rx_ant,)), Select(index, N)), or several, ... Hops(index, N): each on its own.
    Tones of a symbol evenly spaced. complex128 inside. noise_var None: estimated in each symbol from what lies outside
    of its signal subspace, of one antenna from the quietest delays.
    Variance: per tone, mean over antennas: the Cramer-Rao bound at the paths found, plus what the residual holds beyond
    noise. It knows nothing of paths that were missed, whose energy can be larger outside of the tones sounded.
    info: paths (`Paths`, (*batch, symbol, path), gains at that symbol), offsets (`Offsets`, 0: they are in the paths),
    num_paths.
    Source: Wan & Liu 2024, TST-MUSIC, as reconstructed; departs in frequency smoothing (`smooth`, measured in the docs)
    and in the gains' rules.
    """

    @property
    def label(self) -> str:
        return "tst-music"

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        return self.empty(obs, (len(self.pilots(obs).index), self.num_paths))

    def step(self, state: State, obs: Observation) -> State:
        pilots, new = self.pilots(obs), dict(state)
        shape = state["gain"].shape
        fields: dict[str, Tensor] = {}
        for rows, task in symbols_alone(self.model, pilots):
            grown = [tree(part, self.num_paths, self.smooth) for part in _blocks(task)]
            for name, field in (("gain", "gain"), ("delay_s", "delay"), ("cosine", "cosine"), ("mask", "mask")):
                found = torch.cat([getattr(point, field) for point in grown])
                whole = fields.setdefault(name, torch.empty_like(state[name]))
                whole.movedim(len(obs.batch_shape), 0)[rows] = found.reshape(
                    len(rows), *obs.batch_shape, *found.shape[1:]
                )
        assert fields["gain"].shape == shape
        return {**new, **fields, "change": torch.zeros_like(state["change"])}

    def read(self, state: State, obs: Observation) -> Estimate:
        pilots, batch = self.pilots(obs), obs.batch_shape
        assert self.model is not None
        most = max(1, int(state["mask"].sum(-1).max()))
        paths = Paths(
            *(state[name][..., :most, :] if name == "cosine" else state[name][..., :most] for name in Paths._fields)
        )
        still = torch.zeros(*paths.gain.shape[:-1], 1, dtype=torch.float64, device=obs.y.device)
        mean = self.model.channel(paths, Offsets(still, still), still.new_zeros(1))[..., 0, :].movedim(-3, -2)
        var = mean.real.new_zeros(len(pilots.index), *batch, self.model.num_subcarriers)
        for rows, task in symbols_alone(self.model, pilots):
            mine = [x.movedim(len(batch), 0)[rows].flatten(0, len(batch)) for x in paths]
            zero = torch.zeros(len(mine[0]), 1, dtype=torch.float64, device=obs.y.device)
            point = task.point(Paths(*mine), Offsets(zero, zero))
            var[rows] = plug_in(task, point).reshape(len(rows), *batch, -1)
        offsets = Offsets(still[..., 0], still[..., 0])
        info = {"paths": paths, "offsets": offsets, "num_paths": paths.mask.sum(-1)}
        return self.told(obs, mean, var.movedim(0, -2)[..., None, :, :], pilots, info)

    @classmethod
    def example(cls, gen: torch.Generator) -> "TstMusic":
        return cls(Sounding(2, 2, tuple(120e3 * n for n in range(24))), num_paths=3)


def symbols_alone(model: Sounding | None, pilots: Sounded) -> Iterator[tuple[list[int], Task]]:
    """Symbols that sound the same tones, and a task whose items are these, (symbol, *batch) flattened, one symbol each.

    A loop over the few parts of the band, not over symbols.
    """
    assert model is not None and pilots.noise_var is not None
    index, band = torch.unique(pilots.index, dim=0, return_inverse=True)
    for part in range(len(index)):
        rows = (band == part).nonzero()[:, 0].tolist()
        y = pilots.y[..., rows, :].movedim(-2, 0)[..., None, :]
        noise = pilots.noise_var[..., rows, :].movedim(-2, 0)[..., None, :]
        own = Sounded(y, index[part : part + 1], noise)
        yield rows, Task.make(model, own, torch.zeros(1, dtype=torch.float64))


def plug_in(task: Task, point: Point) -> Tensor:
    """Variance of the channel per symbol and tone, mean over antennas, (item, symbol, subcarrier): the Cramer-Rao bound
    at the point, plus the residual's power beyond noise where it is more than chance; without a path what noise may
    hide (`unseen`)."""
    now, fixed = normal_at(task, point), task.fixed(point)
    paths = point.gain.shape[-1]
    covariance, _ = inverse(posterior_information(now, fixed, task.prior(None, paths)), fixed)
    samples = task.y[0].numel()
    spare = (samples - (~fixed).sum(-1) / 2).clamp_min(1.0)
    ratio = now.rss / (task.noise_var * spare)
    beyond = torch.where(ratio > 1 + SIGNIFICANT / samples**0.5, now.rss - task.noise_var * spare, 0.0)
    hidden = unseen(point.mask, task.noise_var, task.y[0].numel())
    return tone_variance(task, point, covariance) + (beyond / samples + hidden)[:, None, None]


def _blocks(task: Task) -> list[Task]:
    return [
        replace(task, y=y, noise_var=noise)
        for y, noise in zip(task.y.split(BLOCK), task.noise_var.split(BLOCK), strict=True)
    ]
