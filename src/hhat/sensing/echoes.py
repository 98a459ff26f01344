"""`Echoes`: what a sensing receiver with unknown antenna gains sees, and how an echo of unit gain looks to it.

    y_i = sum_k gamma_ik (kappa * a(u_ik, R_ik)) (b(R_ik) * x_i)^T + CN(0, noise_var)          (rx_ant, subcarrier)

    a_n(u)    = exp(+j 2 pi p_n u), p_n in wavelengths from antenna 0 (n / 2: half-wavelength line), u = sin(angle)
    a_n(u, R) = the spherical wave from range R, phase 0 at antenna 0 (`hhat.ops.Polar`)
    b_s(R)    = exp(-j 2 pi s spacing tau), tau = 2 R / c (there and back), s = 0..S-1

kappa (rx_ant) are the antennas' gains and phases, which nobody knows.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.methods.polar import LIGHT_M_PER_S
from hhat.ops import Polar, Steering
from hhat.ops.linalg import squared
from hhat.ops.waves import line_waves
from hhat.types import Shape

LOSS = 1e-9
"""Largest share of an echo's energy that `compress` may lose."""
PROBES_PER_COLUMN = 8
"""Ranges per range cell at which that loss is checked."""
UNIT_MODULUS = 1e-4
"""How far |x|^2 may be from 1 where symbols are taken off for good."""


class EchoTruth(NamedTuple):
    """What a scenario knows. Targets beyond those present are padding (gain 0).

    kappa complex (rx_ant) or (*batch, rx_ant); present bool, u and range_m real, gain complex, all (*batch, target).
    In a user's file any of them may be absent (None).
    """

    kappa: Any = None
    present: Any = None
    u: Any = None
    range_m: Any = None
    gain: Any = None


@dataclass(frozen=True, eq=False)
class Echoes:
    """Echo snapshots of which nobody says whether or where there is a target, only the sector it would be in.

    y:              complex (*batch, rx_ant, column). Columns are subcarriers (`symbols` given) or, delay-compressed,
                    the coefficients Z = Y diag(x b(R_low))^* V^* under `delay_basis` V (see `compress`)
    u_limits:       (*batch, 2) or (2,): least and largest u = sin(angle) of the snapshot's sector
    range_limits_m: (*batch, 2) or (2,): least and largest range
    subcarrier_spacing_hz, carrier_hz: of the OFDM grid
    noise_var:      E|w|^2 per entry of y, one number; None: estimated where it can be (`noise_level`)
    symbols:        x, complex (subcarrier) or (*batch, subcarrier)
    delay_basis:    V, complex (subcarrier, column), orthonormal columns; unit-modulus symbols are then removed
    energy:         (*batch) |Y|^2 over all subcarriers, where y is compressed and it is known
    positions:      (rx_ant) along the line, in wavelengths; None: n / 2
    spherical:      waves are spherical instead of plane
    snr:            assumed E|gamma|^2 |a|^2 |x|^2 / noise_var after full integration, as a ratio; None: unknown
    Raises ValueError where shapes or values do not fit.
    """

    y: Tensor
    u_limits: Tensor
    range_limits_m: Tensor
    subcarrier_spacing_hz: float
    carrier_hz: float
    noise_var: float | None = None
    symbols: Tensor | None = None
    delay_basis: Tensor | None = None
    energy: Tensor | None = None
    positions: Tensor | None = None
    spherical: bool = False
    snr: float | None = None

    def __post_init__(self):
        if not self.y.is_complex() or self.y.ndim < 2 or self.y.numel() == 0:
            raise ValueError(f"y: expected complex (*batch, rx_ant, column), got {self.y.dtype} {tuple(self.y.shape)}")
        if (self.symbols is None) == (self.delay_basis is None):
            raise ValueError("echoes: expected either symbols (y per subcarrier) or delay_basis (y compressed)")
        batch, (num, columns) = self.batch_shape, self.y.shape[-2:]
        if self.symbols is not None and self.symbols.shape not in ((columns,), (*batch, columns)):
            have = tuple(self.symbols.shape)
            raise ValueError(f"symbols: expected shape ({columns},) or {(*batch, columns)}, got {have}")
        if self.delay_basis is not None and (self.delay_basis.ndim != 2 or self.delay_basis.shape[1] != columns):
            have = tuple(self.delay_basis.shape)
            raise ValueError(f"delay_basis: expected shape (subcarrier, {columns}), got {have}")
        for name, low, high in (("u_limits", -1.0, 1.0), ("range_limits_m", 0.0, math.inf)):
            value = getattr(self, name)
            if value.shape not in ((2,), (*batch, 2)) or value.is_complex():
                raise ValueError(f"{name}: expected shape (2,) or {(*batch, 2)}, got {tuple(value.shape)}")
            good = (value[..., 0] >= low) & (value[..., 1] <= high) & (value[..., 0] <= value[..., 1])
            if not bool(good.all()):
                wrong = value[~good][0].tolist()
                raise ValueError(f"{name}: expected {low:g} <= least <= largest <= {high:g}, got {wrong}")
        if self.positions is not None and self.positions.shape != (num,):
            raise ValueError(f"positions: expected shape ({num},), got {tuple(self.positions.shape)}")
        if self.energy is not None and self.energy.shape != batch:
            raise ValueError(f"energy: expected shape {batch}, got {tuple(self.energy.shape)}")
        for name in ("subcarrier_spacing_hz", "carrier_hz", "noise_var", "snr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a finite number above 0, got {value}")

    @property
    def batch_shape(self) -> Shape:
        return tuple(self.y.shape[:-2])

    @property
    def num_rx_ant(self) -> int:
        return self.y.shape[-2]

    @property
    def num_subcarriers(self) -> int:
        return self.y.shape[-1] if self.delay_basis is None else self.delay_basis.shape[0]

    @property
    def symbol_energy(self) -> Tensor:
        """|x|^2 over the subcarriers, () or (*batch)."""
        if self.symbols is None:
            return torch.tensor(float(self.num_subcarriers), device=self.y.device)
        return squared(self.symbols).sum(-1)

    @property
    def wavelength_m(self) -> float:
        return LIGHT_M_PER_S / self.carrier_hz

    def rows(self, index: Tensor | slice) -> "Echoes":
        """Some snapshots of a record with one batch axis."""
        if len(self.batch_shape) != 1:
            raise ValueError(f"rows: expected one batch axis, got {self.batch_shape}")
        batched = {"symbols": 2, "u_limits": 2, "range_limits_m": 2, "energy": 1}
        cut = {
            name: value[index]
            for name, ndim in batched.items()
            if (value := getattr(self, name)) is not None and value.ndim == ndim
        }
        return replace(self, y=self.y[index], **cut)

    def to(self, device: torch.device | str) -> "Echoes":
        """The record on another device."""
        held = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **held)

    def flat(self) -> "Echoes":
        """The same snapshots under one batch axis."""
        count = math.prod(self.batch_shape)
        last = {"symbols": 1, "u_limits": 1, "range_limits_m": 1, "energy": 0}
        moved = {
            name: value.reshape(count, *value.shape[value.ndim - ndim :])
            for name, ndim in last.items()
            if (value := getattr(self, name)) is not None and (value.ndim > ndim or name == "energy")
        }
        return replace(self, y=self.y.reshape(count, *self.y.shape[-2:]), **moved)


def ones_like_gains(echoes: Echoes) -> Complex[Tensor, " rx"]:
    """kappa = 1: no calibration."""
    return torch.ones(echoes.num_rx_ant, dtype=echoes.y.dtype, device=echoes.y.device)


def steering(
    echoes: Echoes, u: Float[Tensor, "..."], range_m: Float[Tensor, "..."] | None = None
) -> Complex[Tensor, "... rx"]:
    """a(u, R) in y's precision, for u and R that broadcast; R is not looked at where waves are plane.

    ValueError where waves are spherical and no range is given.
    """
    dtype = echoes.y.dtype
    if not echoes.spherical:
        if echoes.positions is None:
            return line_waves(u, echoes.num_rx_ant).to(dtype)
        waves = Steering(positions_of(echoes), u.double().flatten()).matrix.mT
        return waves.reshape(*u.shape, echoes.num_rx_ant).to(dtype)
    if range_m is None:
        raise ValueError("steering: spherical waves need a range")
    points, nearness = torch.broadcast_tensors(u.double(), echoes.wavelength_m / range_m.double())
    positions = positions_of(echoes)
    waves = Polar(positions, points.flatten(), nearness.flatten()).matrix.mT
    return waves.reshape(*points.shape, len(positions)).to(dtype)


def positions_of(echoes: Echoes) -> Float[Tensor, " rx"]:
    """Element positions along the line, in wavelengths, float64."""
    if echoes.positions is not None:
        return echoes.positions.to(echoes.y.device).double()
    return torch.arange(echoes.num_rx_ant, dtype=torch.float64, device=echoes.y.device) / 2


def delay_response(echoes: Echoes, range_m: Float[Tensor, "..."]) -> Complex[Tensor, "... column"]:
    """What the columns of `matched(echoes)` show of an echo of unit gain from range R, in y's precision.

    b(R) per subcarrier, or c(R) = V^H b(R - R_low) where y is compressed. Where each snapshot has range limits of its
    own, range_m begins with the batch axes.
    """
    ratio = -4 * echoes.subcarrier_spacing_hz / LIGHT_M_PER_S  # exp(j pi s ratio R) = exp(-j 2 pi s spacing 2 R / c)
    if echoes.delay_basis is None:
        return line_waves(range_m.double() * ratio, echoes.num_subcarriers).to(echoes.y.dtype)
    low = echoes.range_limits_m[..., 0].double()
    low = low.reshape(*low.shape, *(1,) * (range_m.ndim - low.ndim))
    waves = line_waves((range_m.double() - low) * ratio, echoes.num_subcarriers).to(echoes.y.dtype)
    return waves @ echoes.delay_basis.conj().to(echoes.y)


def matched(echoes: Echoes) -> Complex[Tensor, "*batch rx column"]:
    """y with the symbols taken off, y x^*: an echo of unit gain is (kappa * a) (|x|^2 b)^T there; y itself where it is
    compressed."""
    return echoes.y if echoes.symbols is None else echoes.y * echoes.symbols.conj()[..., None, :]


def delay_filtered(echoes: Echoes, range_m: Float[Tensor, "*batch"]) -> Complex[Tensor, "*batch rx"]:
    """v = Y (b(R) * x)^*: one range per snapshot, integrated over subcarriers."""
    return (matched(echoes) @ delay_response(echoes, range_m).conj()[..., None])[..., 0]


def aligned(
    echoes: Echoes, u: Float[Tensor, "*batch"], range_m: Float[Tensor, "*batch"]
) -> Complex[Tensor, "*batch rx"]:
    """z = a(u, R)^* * Y (b(R) * x)^*: the snapshot turned so that a target there gives gamma |x|^2 kappa.

    Everything a calibrator needs of a snapshot: c = kappa^H z, statistic |c|^2 / (|kappa|^2 |x|^2 noise_var).
    """
    return delay_filtered(echoes, range_m) * steering(echoes, u, range_m).conj()


def noise_level(echoes: Echoes) -> float:
    """noise_var where given; else from the energy outside the delay basis, (|Y|^2 - |Z|^2) / (N (S - r)), mean over
    the batch. ValueError where the record holds neither."""
    if echoes.noise_var is not None:
        return echoes.noise_var
    if echoes.energy is None or echoes.delay_basis is None or echoes.y.shape[-1] == echoes.num_subcarriers:
        raise ValueError("noise_var: expected a number, or compressed echoes with their energy to estimate it from")
    outside = echoes.energy - squared(echoes.y).sum((-2, -1))
    return float(outside.mean()) / (echoes.num_rx_ant * (echoes.num_subcarriers - echoes.y.shape[-1]))


def compress(echoes: Echoes, loss: float = LOSS) -> Echoes:
    """Echoes per subcarrier to the few columns that delays of the sector span: exact for every target in it.

        Z = Y diag(x * b(R_low))^* V^*,        c(R) = V^H b(R - R_low)

    V: see `delay_basis_for`, over the widest range sector of the batch. Z is CN(0, noise_var) beside the echoes, since
    |x| = 1: the exact law of what a detector that knows the sector may use.
    ValueError where symbols are not of unit modulus (noise would not stay white), or are gone already.
    """
    if echoes.symbols is None:
        raise ValueError("compress: expected echoes per subcarrier with their symbols, got compressed ones")
    if float((squared(echoes.symbols) - 1).abs().max()) > UNIT_MODULUS:
        raise ValueError("compress: expected symbols of unit modulus; others keep their subcarriers")
    limits = echoes.range_limits_m.double()
    width = float((limits[..., 1] - limits[..., 0]).max())
    basis = delay_basis_for(echoes.num_subcarriers, echoes.subcarrier_spacing_hz, width, loss).to(echoes.y)
    start = delay_response(echoes, limits[..., 0]).conj()
    z = (matched(echoes) * start[..., None, :]) @ basis.conj()
    return replace(
        echoes, y=z, symbols=None, delay_basis=basis, energy=squared(echoes.y).sum((-2, -1)).expand(echoes.batch_shape)
    )


@lru_cache(maxsize=16)
def delay_basis_for(
    num_subcarriers: int, subcarrier_spacing_hz: float, width_m: float | int, loss: float = LOSS
) -> Complex[Tensor, "subcarrier column"]:
    """V (subcarrier, r), complex128: orthonormal columns whose span holds b(R) for R in 0..width_m but for `loss`.

    The leading eigenvectors of the Gram matrix of b over those ranges (prolate sequences, Slepian 1978), as few as
    keep the largest 1 - |V^H b(R)|^2 / S below `loss`: 23 of 256 for 33.75 m at 240 kHz.
    """
    s = torch.arange(num_subcarriers, dtype=torch.float64)
    cycles = subcarrier_spacing_hz * 2 * width_m / LIGHT_M_PER_S  # of neighbouring subcarriers, over the sector
    vectors = torch.linalg.eigh(torch.sinc((s[:, None] - s) * cycles)).eigenvectors.flip(-1)
    turn = torch.polar(torch.ones_like(s), -math.pi * cycles * s)
    probes = PROBES_PER_COLUMN * (math.ceil(num_subcarriers * cycles) + 1)
    offsets = torch.linspace(-cycles, cycles, probes, dtype=torch.float64)  # b(R) turn^* for R over the sector
    kept = squared(line_waves(offsets, num_subcarriers) @ vectors.to(torch.complex128)).cumsum(-1) / num_subcarriers
    enough = (1 - kept).amax(0) < loss
    rank = int(enough.int().argmax()) + 1 if bool(enough.any()) else num_subcarriers
    return (turn[:, None] * vectors)[:, :rank].contiguous()
