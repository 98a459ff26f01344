"""Which targets are there, and where: the largest value of the angle-delay map against a threshold (MAPRT), one
target after the other with the found ones taken out; and the integrated, Neyman-Pearson, test."""

import math
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Complex, Float, Int8
from torch import Tensor

from hhat.ops.linalg import squared
from hhat.sensing.angle_delay import COARSE, Found, angle_delay_map, refine, search, sector
from hhat.sensing.echoes import Echoes, aligned, delay_response, matched, noise_level, ones_like_gains, steering
from hhat.sensing.threshold import closed_form_threshold, resolution
from hhat.types import Status

ROUNDS = 2
"""How often, after each new target, all found ones are refined in turn."""
SINGULAR = 1e-5
"""Least ridge, as a share of a target's energy: two targets at one place stay solvable in single precision."""
MAP_SIZE = 1 << 22
"""Values of maps formed at a time by the integrated test."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Up to K targets per snapshot in the order they were found, each (*batch, K); entries not detected are the last.

    u, range_m: where; u_var, range_var (m^2): the Cramer-Rao bounds at the strength seen, infinite where not detected
    statistic:  what was held against the threshold: the map's value with the other targets taken out
    gain:       gamma under the kappa that was given, 0 where not detected
    threshold, status: (*batch); NONFINITE where y was not finite (nothing is detected there)
    """

    detected: Bool[Tensor, "..."]
    u: Float[Tensor, "..."]
    range_m: Float[Tensor, "..."]
    statistic: Float[Tensor, "..."]
    gain: Complex[Tensor, "..."]
    u_var: Float[Tensor, "..."]
    range_var: Float[Tensor, "..."]
    threshold: Float[Tensor, "..."]
    status: Int8[Tensor, "..."]

    @property
    def angle_rad(self) -> Float[Tensor, "..."]:
        """From broadside."""
        return self.u.asin()

    @property
    def position_m(self) -> Float[Tensor, "... 2"]:
        return position_m(self.u, self.range_m)


def position_m(u: Float[Tensor, "..."], range_m: Float[Tensor, "..."]) -> Float[Tensor, "... 2"]:
    """R (cos angle, sin angle): along broadside and along the array."""
    return torch.stack([range_m * (1 - u.square()).clamp_min(0).sqrt(), range_m * u], -1)


def detect(
    echoes: Echoes,
    kappa: Complex[Tensor, "..."] | None = None,
    false_alarm: float | int = 1e-2,
    threshold: float | Tensor | None = None,
    max_targets: int = 1,
    refine_steps: int = 3,
    coarse: tuple[int, int] = COARSE,
) -> Detections:
    """Targets of each snapshot: max over the sector of |c|^2 / (|kappa|^2 |x|^2 noise_var) >= eta, and where it is.

    kappa:        gains of the antennas, (rx_ant) or (*batch, rx_ant), any norm; None: ones
    false_alarm:  probability that an empty snapshot yields a target; eta then is `closed_form_threshold`, per snapshot
    threshold:    eta itself, a number or (*batch), e.g. from `empirical_threshold`
    max_targets:  K. Above 1 the strongest is found first, all places found so far are refined in turn, their gains
                  fitted jointly by least squares and taken out, and the rest is searched for the next, against the same
                  eta. The gains in the end are
                      gamma = (G + |m|^2 / SNR I)^-1 m^H y,    m_k = (kappa * a_k) (b_k * x)^T,    G = m^H m,
                  the posterior mean under the SNR of `echoes.snr`; unknown: least squares
    refine_steps: of the continuous maximum; 0: places stay on the search's grid
    coarse:       see `search`
    Raises ValueError for max_targets < 1 and what `search` and `closed_form_threshold` refuse.

    Source: Mateos-Ramos et al. 2025, section III-A, eq. (22), whose denominator lacks the noise variance; pursuit with
    calibrated atoms as in their companion papers. Departures: continuous places; one threshold per sector (theirs is
    common).
    """
    if max_targets < 1:
        raise ValueError(f"detect: max_targets: expected at least 1, got {max_targets}")
    batch, flat = echoes.batch_shape, echoes.flat()
    finite = torch.isfinite(torch.view_as_real(flat.y)).flatten(1).all(-1)
    noise_var = noise_level(flat.rows(finite)) if bool(finite.any()) else 1.0
    flat = replace(flat, y=torch.where(finite[:, None, None], flat.y, 0), noise_var=noise_var)
    eta = closed_form_threshold(flat, false_alarm) if threshold is None else torch.as_tensor(threshold)
    eta = eta.to(flat.y.real).expand(flat.y.shape[0] if threshold is None else batch).flatten()
    gains = (ones_like_gains(echoes) if kappa is None else kappa.to(flat.y)).reshape(-1, echoes.num_rx_ant)
    task, shape = _Pursuit(flat, gains, coarse, refine_steps), (len(flat.y), max_targets)
    u, range_m, statistic = (flat.y.real.new_zeros(shape) for _ in range(3))
    gain, detected = flat.y.new_zeros(shape), torch.zeros(shape, dtype=torch.bool, device=flat.y.device)
    rows = torch.arange(len(flat.y), device=flat.y.device)
    for k in range(max_targets):
        new = task.rows(rows).strongest(u[rows, :k], range_m[rows, :k], gain[rows, :k])
        u[rows, k], range_m[rows, k], statistic[rows, k] = new.u, new.range_m, new.statistic
        passed = (new.statistic >= eta[rows]) & finite[rows]
        detected[rows, k] = passed
        rows, so_far = rows[passed], slice(k + 1)
        if not len(rows) or max_targets == 1:
            break
        held = u[rows, so_far], range_m[rows, so_far], statistic[rows, so_far]
        for store, value in zip((u, range_m, statistic, gain), task.rows(rows).settle(*held), strict=True):
            store[rows, so_far] = value
    gain = task.fit(u, range_m, detected, SINGULAR if echoes.snr is None else max(1 / echoes.snr, SINGULAR))
    u_var, range_var = (
        torch.where(detected, var, torch.inf) for var in resolution(echoes, (statistic - 1).clamp_min(0))
    )
    status = torch.where(finite, int(Status.OK), int(Status.NONFINITE)).to(torch.int8)
    found = Detections(detected, u, range_m, statistic, gain, u_var, range_var, eta[:, None], status[:, None])
    shaped = {
        f.name: getattr(found, f.name).unflatten(0, batch) if batch else getattr(found, f.name)[0]
        for f in fields(found)
    }
    shaped |= {name: shaped[name][..., 0] for name in ("threshold", "status")}
    return Detections(**shaped)


def integrated(
    echoes: Echoes,
    kappa: Complex[Tensor, "..."] | None = None,
    snr: float | None = None,
    size: tuple[int, int] = (100, 100),
) -> Float[Tensor, "*batch"]:
    """log p(y | a target) / p(y | none) with angle and range integrated out: the Neyman-Pearson test of one target.

        log mean over the sector of exp(statistic SNR / (1 + SNR)) - log(1 + SNR)

    uniform in angle and range, midpoints of `size` cells. gamma ~ CN makes the ratio of a cell a function of its value
    in the map. snr: after full integration, a ratio; None: `echoes.snr`. Over empty snapshots exp of it has mean 1.
    ValueError where no SNR is known.
    """
    snr = echoes.snr if snr is None else snr
    if snr is None:
        raise ValueError("integrated: expected an SNR, here or in the echoes")
    flat = replace(echoes.flat(), noise_var=noise_level(echoes))
    gains = (ones_like_gains(echoes) if kappa is None else kappa.to(flat.y)).reshape(-1, echoes.num_rx_ant)
    limits = sector(flat)
    ends = limits[0].asin(), limits[1]
    cells = [(torch.arange(n, device=flat.y.device).to(flat.y.real) + 0.5) / n for n in size]
    grid = [low[:, :1] + (low[:, 1:] - low[:, :1]) * cell for low, cell in zip(ends, cells, strict=True)]
    shared = grid[1][0] if flat.range_limits_m.ndim == 1 else None
    found, step = [], max(1, MAP_SIZE // math.prod(size))
    for start in range(0, len(flat.y), step):
        rows = slice(start, start + step)
        part_gains = gains[rows] if len(gains) > 1 else gains[0]
        ranges = grid[1][rows] if shared is None else shared
        values = angle_delay_map(flat.rows(rows), part_gains, grid[0][rows].sin(), ranges)
        found.append((values * (snr / (1 + snr))).flatten(1).logsumexp(-1))
    return (torch.cat(found) - math.log(math.prod(size) * (1 + snr))).reshape(echoes.batch_shape)


@dataclass(frozen=True, eq=False)
class _Pursuit:
    """Snapshots under one batch axis with their gains (1 or n, rx_ant), and how they are searched."""

    echoes: Echoes
    gains: Tensor
    coarse: tuple[int, int]
    refine_steps: int

    def rows(self, rows: Tensor) -> "_Pursuit":
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
