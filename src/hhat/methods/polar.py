"""`polar-somp`: simultaneous OMP on angles and distances of a line array, one support for all subcarriers."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hhat.methods.base import Method, axis_numbers
from hhat.methods.sparse import Omp
from hhat.ops.base import LinearOp
from hhat.ops.elementary import Identity
from hhat.ops.polar import Polar
from hhat.ops.structured import Kron
from hhat.ops.tones import Tones
from hhat.priors.gauss import Gauss
from hhat.types import Estimate, Observation, State

LIGHT_M_PER_S = 299792458.0
MOST_ATOMS = 3 / 8
"""Of the samples: with the quarter of `omp` clusters of rays lose up to 0.9 dB, with the half rich channels 0.3 dB."""


class Grid(NamedTuple):
    """cosine: of the angle to the array's axis; nearness_per_m: one over the range to its centre; each (G,)."""

    cosine: Tensor
    nearness_per_m: Tensor


@dataclass(frozen=True, eq=False)
class PolarSomp(Method):
    """y = op(D X) + n, few rows of X are not zero: `omp` with a support that all axes but the antennas' share.

    D: spherical waves over a line array (`Polar`), cosines u_n = (2 n + 1 - G) / G of G = oversampling * antennas, and
    distances uniform in curvature: 1 / r_s = s / (Z (1 - u^2)), Z = (N d)^2 / (2 lambda beta^2), s = 0, 1, .. while
    r_s >= min_range_m; s = 0 is the plane wave. Neighbours in distance have one coherence |G(beta)| then, and in angle
    that of a DFT of G points.

    carrier_hz, spacing_m: of the array; None: half a wavelength
    subcarrier_spacing_hz: tone k of the last axis lies k spacings above the carrier and has waves of its own; 0: the
                  carrier's waves for all tones, as in the source
    min_range_m, beta, oversampling: of the grid above
    axis:         the antennas' axis; None: the longest whose name ends in "ant" (without names the longest)
    max_atoms:    at most; None: MOST_ATOMS of the samples per subcarrier. It stops at the noise

    info: of `omp`; `coefficients` are X, rows in the order of `polar_grid`.
    Raises ValueError for an operator that mixes subcarriers, and for settings outside these.
    Source: Cui & Dai, IEEE TCOM 70(4), 2022 (P-SOMP and its polar grid); departs in the stop, in the normalised
    correlations, in the finer grid, and in the waves per tone.
    """

    variance: ClassVar[str] = "none"
    carrier_hz: float | int = 30e9
    spacing_m: float | int | None = None
    subcarrier_spacing_hz: float | int = 0.0
    min_range_m: float | int = 3.0
    beta: float | int = 0.8
    oversampling: int = 4
    axis: str | int | None = None
    max_atoms: int | None = None
    max_steps: int = 1 << 20
    tol: float | None = 0.0

    def __post_init__(self):
        for name in ("carrier_hz", "min_range_m", "beta", "oversampling"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"polar-somp: {name}: expected a number > 0, got {getattr(self, name)}")
        if self.spacing_m is not None and not 0 < self.spacing_m < math.inf:
            raise ValueError(f"polar-somp: spacing_m: expected a number > 0 or None, got {self.spacing_m}")
        if not 0 <= self.subcarrier_spacing_hz < math.inf:
            raise ValueError(f"polar-somp: subcarrier_spacing_hz: expected >= 0, got {self.subcarrier_spacing_hz}")

    def grid(self, num_ant: int) -> Grid:
        """The dictionary's points for so many antennas."""
        return polar_grid(num_ant, *self._waves, self.min_range_m, self.beta, self.oversampling)

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        shape = tuple(obs.op.in_shape)
        axis = self._axis(obs)
        basis = self._basis(shape, axis)
        others = tuple(i for i in range(-len(shape), 0) if i != axis)
        samples = math.prod(obs.op.out_shape) // math.prod(shape[i] for i in others)
        most = max(1, int(MOST_ATOMS * samples)) if self.max_atoms is None else self.max_atoms
        return Omp(Gauss(basis=basis), most, self.max_steps, self.tol, others), {}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        return self.resolve(obs)[0].init(obs, gen)

    def step(self, state: State, obs: Observation) -> State:
        return self.resolve(obs)[0].step(state, obs)

    def read(self, state: State, obs: Observation) -> Estimate:
        return self.resolve(obs)[0].read(state, obs)

    @property
    def _waves(self) -> tuple[float, float]:
        wavelength = LIGHT_M_PER_S / self.carrier_hz
        return wavelength, wavelength / 2 if self.spacing_m is None else float(self.spacing_m)

    def _axis(self, obs: Observation) -> int:
        shape = tuple(obs.op.in_shape)
        if self.axis is not None:
            return axis_numbers("axis", (self.axis,), obs.axes, len(shape))[0]
        names = obs.axes or ("ant",) * len(shape)
        found = [i - len(shape) for i, name in enumerate(names) if name.endswith("ant")]
        if not found:
            raise ValueError(f"polar-somp: axis: no axis of antennas among {names}; name it")
        return max(found, key=lambda i: shape[i])

    def _basis(self, shape: tuple[int, ...], axis: int) -> LinearOp:
        if not self.subcarrier_spacing_hz:
            basis: LinearOp = _dictionary(
                shape[axis], *self._waves, self.min_range_m, self.beta, self.oversampling, 1, 0.0
            )
            if axis < -1:
                basis = Kron(basis, Identity(shape[axis + 1 :]))
        else:
            if axis != -2:
                raise ValueError(
                    f"polar-somp: subcarrier_spacing_hz: expected axes (.., antenna, subcarrier), got {shape}"
                )
            step = self.subcarrier_spacing_hz / self.carrier_hz
            basis = _dictionary(
                shape[axis], *self._waves, self.min_range_m, self.beta, self.oversampling, shape[-1], step
            )
        ahead = shape[: len(shape) + axis]
        return Kron(Identity(ahead), basis) if ahead else basis

    @classmethod
    def example(cls, gen: torch.Generator) -> "PolarSomp":
        return cls(max_atoms=2)


def polar_grid(
    num_ant: int, wavelength_m: float, spacing_m: float, min_range_m: float, beta: float, oversampling: int
) -> Grid:
    """Points of the polar dictionary, rings of growing curvature behind each other: see `PolarSomp`."""
    count = num_ant * oversampling
    u = (2 * torch.arange(count, dtype=torch.float64) + 1 - count) / count
    reach = (num_ant * spacing_m) ** 2 / (2 * wavelength_m * beta**2) * (1 - u.square())
    rings = int(reach.amax() / min_range_m)
    nearness = torch.arange(rings + 1, dtype=torch.float64)[:, None] / reach
    kept = nearness <= 1 / min_range_m
    kept[0] = True
    return Grid(u.expand(rings + 1, -1)[kept], nearness[kept])


@lru_cache(maxsize=32)
def _dictionary(
    num_ant: int,
    wavelength_m: float,
    spacing_m: float,
    min_range_m: float,
    beta: float,
    oversampling: int,
    num_tones: int,
    tone_step: float,
) -> LinearOp:
    """`Polar` on the grid, or `Tones` of them, tone k at (1 + k tone_step) times the carrier; columns of norm one."""
    grid = polar_grid(num_ant, wavelength_m, spacing_m, min_range_m, beta, oversampling)
    x = (torch.arange(num_ant, dtype=torch.float64) - (num_ant - 1) / 2) * spacing_m / wavelength_m
    scale = num_ant**-0.5
    if not tone_step:
        return Polar(x, grid.cosine, grid.nearness_per_m * wavelength_m, scale)
    ratio = 1 + tone_step * torch.arange(num_tones, dtype=torch.float64)
    # at another frequency only the wavelength by which all is measured is another one
    return Tones(
        torch.stack([Polar(x * r, grid.cosine, grid.nearness_per_m * wavelength_m / r, scale).matrix for r in ratio])
    )
