"""Which targets are there, and where: the largest value of the angle-delay map against a threshold (MAPRT), one
target after the other with the found ones taken out; and the integrated, Neyman-Pearson, test."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Complex, Float, Int8
from torch import Tensor

from hhat.sensing.angle_delay import COARSE, angle_delay_map, gains_of, sector
from hhat.sensing.echoes import Echoes, noise_level
from hhat.sensing.pursuit import SINGULAR, Pursuit
from hhat.sensing.threshold import closed_form_threshold, resolution
from hhat.types import Status

SNAPSHOTS = 8192
"""Snapshots worked on at a time."""
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
    batch, flat, gains = echoes.batch_shape, echoes.flat(), gains_of(echoes, kappa)
    finite = torch.isfinite(torch.view_as_real(flat.y)).flatten(1).all(-1)
    noise_var = noise_level(flat.rows(finite)) if bool(finite.any()) else 1.0
    flat = replace(flat, y=torch.where(finite[:, None, None], flat.y, 0), noise_var=noise_var)
    eta = closed_form_threshold(flat, false_alarm) if threshold is None else torch.as_tensor(threshold)
    eta = eta.to(flat.y.real).expand(flat.batch_shape if threshold is None else batch).flatten()
    parts = []
    for start in range(0, len(eta), SNAPSHOTS):
        some = slice(start, start + SNAPSHOTS)
        task = Pursuit(flat, gains, coarse, refine_steps).rows(torch.arange(len(eta), device=eta.device)[some])
        parts.append(_pursue(task, eta[some], finite[some], max_targets))
    detected, u, range_m, statistic, gain = (
        torch.cat(values).reshape(*batch, max_targets) for values in zip(*parts, strict=True)
    )
    u_var, range_var = (
        torch.where(detected, var, torch.inf) for var in resolution(echoes, (statistic - 1).clamp_min(0))
    )
    status = torch.where(finite, int(Status.OK), int(Status.NONFINITE)).to(torch.int8).reshape(batch)
    return Detections(detected, u, range_m, statistic, gain, u_var, range_var, eta.reshape(batch), status)


def _pursue(task: Pursuit, eta: Tensor, finite: Tensor, max_targets: int) -> tuple[Tensor, ...]:
    """detected, u, range, statistic and gain, each (n, K)."""
    shape, y = (len(eta), max_targets), task.echoes.y
    u, range_m, statistic = (eta.new_zeros(shape) for _ in range(3))
    gain, detected = y.new_zeros(shape), torch.zeros(shape, dtype=torch.bool, device=y.device)
    rows = torch.arange(len(eta), device=y.device)
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
    snr = task.echoes.snr
    gain = task.fit(u, range_m, detected, SINGULAR if snr is None else max(1 / snr, SINGULAR))
    return detected, u, range_m, statistic, gain


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
    gains = gains_of(echoes, kappa)
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
