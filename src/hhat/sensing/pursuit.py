"""Orthogonal matching pursuit over echoes: one target after the other, the found ones taken out, placed and fitted
together."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hhat.ops.linalg import squared
from hhat.sensing.angle_delay import Found, refine, search
from hhat.sensing.echoes import Echoes, aligned, delay_response, matched, noise_level, steering
from hhat.sensing.threshold import resolution

ROUNDS = 2
"""How often, after each new target, all found ones are refined in turn."""
SINGULAR = 1e-5
"""Least ridge, as a share of a target's energy: two targets at one place stay solvable in single precision."""


@dataclass(frozen=True, eq=False)
class Pursuit:
    """Snapshots under one batch axis with their gains (1 or n, rx_ant), and how they are searched."""

    echoes: Echoes
    gains: Tensor
    coarse: tuple[int, int]
    refine_steps: int

    def rows(self, rows: Tensor) -> "Pursuit":
        return replace(
            self, echoes=self.echoes.rows(rows), gains=self.gains[rows] if len(self.gains) > 1 else self.gains
        )

    @property
    def kappa(self) -> Tensor:
        return self.gains if len(self.gains) > 1 else self.gains[0]

    def without(self, u: Tensor, range_m: Tensor, gain: Tensor) -> Echoes:
        """The snapshots less targets (n, K)."""
        if not u.shape[1]:
            return self.echoes
        waves = self.gains[:, None] * steering(self.echoes, u, range_m) * gain[..., None]
        shape = delay_response(self.echoes, range_m)
        signal = waves.mT @ shape
        if self.echoes.symbols is not None:
            signal = signal * self.echoes.symbols.reshape(-1, 1, signal.shape[-1])
        return replace(self.echoes, y=self.echoes.y - signal)

    def strongest(self, u: Tensor, range_m: Tensor, gain: Tensor) -> Found:
        """The largest value of the map of what known targets leave."""
        rest = self.without(u, range_m, gain)
        return search(rest, self.kappa, coarse=self.coarse, refine_steps=self.refine_steps)

    def settle(self, u: Tensor, range_m: Tensor, statistic: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Places refined in turn, each with the others taken out, and all gains fitted jointly."""
        gain = self.fit(u, range_m)
        count = u.shape[1]
        if count == 1 or not self.refine_steps:
            return u, range_m, statistic, gain
        for _ in range(ROUNDS):
            for k in range(count):
                others = [other for other in range(count) if other != k]
                rest = self.without(u[:, others], range_m[:, others], gain[:, others])
                found = self._here(rest, u[:, k], range_m[:, k])
                u[:, k], range_m[:, k], statistic[:, k] = refine(
                    rest, self.kappa, found, self.spacing(), self.refine_steps
                )
                gain = self.fit(u, range_m)
        return u, range_m, statistic, gain

    def spacing(self) -> tuple[Tensor, Tensor]:
        """About a tenth of a resolution cell, where refinement starts."""
        u_var, range_var = resolution(self.echoes, torch.ones((), device=self.echoes.y.device))
        return 0.25 * u_var.sqrt(), 0.25 * range_var.sqrt()

    def _here(self, rest: Echoes, u: Tensor, range_m: Tensor) -> Found:
        energy = squared(self.gains).sum(-1) * rest.symbol_energy.to(u) * noise_level(rest)
        return Found(u, range_m, squared((self.gains.conj() * aligned(rest, u, range_m)).sum(-1)) / energy)

    def fit(self, u: Tensor, range_m: Tensor, detected: Tensor | None = None, ridge: float | int = SINGULAR) -> Tensor:
        """Gains (n, K) of targets at given places, jointly, with a ridge that is a share of their energy; 0 where not
        detected."""
        echoes = self.echoes
        waves = self.gains[:, None] * steering(echoes, u, range_m)
        if detected is not None:
            waves = waves * detected[..., None]
        shape = delay_response(echoes, range_m)
        weighted = shape
        if echoes.symbols is not None:
            weighted = shape * squared(echoes.symbols).reshape(-1, 1, shape.shape[-1])
        gram = (waves.conj() @ waves.mT) * (shape.conj() @ weighted.mT)
        right = ((waves.conj() @ matched(echoes)) * shape.conj()).sum(-1)
        energy = gram.diagonal(dim1=-2, dim2=-1).real
        loaded = torch.where(energy > 0, ridge * energy, 1.0)
        return torch.linalg.solve(gram + torch.diag_embed(loaded).to(gram.dtype), right[..., None])[..., 0]
