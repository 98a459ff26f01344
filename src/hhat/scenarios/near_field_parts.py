"""Near-field paths, the wavefronts they send over a line array, and the analog combiners behind it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.decentralized.split import matrix_blocks
from hhat.ops import Dense, Identity, Kron
from hhat.ops.base import cached
from hhat.random import complex_normal

LIGHT_M_PER_S = 299792458.0
DEPENDENT_ROWS = 1e-10
"""A combiner's row with less than this share of its energy outside the span of those before it adds nothing."""
ANGLE_LAWS = {"paper": (-math.pi / 2, math.pi / 2), "full": (0.0, math.pi)}
"""Limits of the uniform angle to the array's axis. The paper's reaches cosines of 0..1 alone, half of the beams."""


class Paths(NamedTuple):
    """Single-bounce paths, each (n, path); float64 but for the gain, complex64.

    psi:       cos(angle) / 2, cycles per antenna at the carrier
    phi:       wavelength sin(angle)^2 / (8 range), cycles per squared antenna at the carrier
    delay_s:   range over the speed of light, to antenna 0
    gain:      CN(0, 1 / path); holds the carrier's phase at antenna 0
    range_m:   distance to antenna 0
    angle_rad: to the axis of the array, 0 where the path comes from beyond its last antenna
    first_ant, last_ant: antennas first_ant <= j + 1/2 <= last_ant see the path in full; None: all do
    """

    psi: Tensor
    phi: Tensor
    delay_s: Tensor
    gain: Tensor
    range_m: Tensor
    angle_rad: Tensor
    first_ant: Tensor | None = None
    last_ant: Tensor | None = None

    def items(self, chosen: slice) -> "Paths":
        """Those of some channels."""
        kept: list[Any] = [None if value is None else value[chosen] for value in self]
        return Paths(*kept)


def paths_at(
    angle_rad: Tensor, range_m: Tensor, gain: Tensor, carrier_hz: float | int, delay_s: Tensor | None = None
) -> Paths:
    """Paths from sources at these places; without `delay_s` the delay is that of the range."""
    wavelength = LIGHT_M_PER_S / carrier_hz
    curvature = wavelength * angle_rad.sin().square() / (8 * range_m)
    delay = range_m / LIGHT_M_PER_S if delay_s is None else delay_s
    return Paths(angle_rad.cos() / 2, curvature, delay, gain, range_m, angle_rad)


def draw_paths(
    shape: tuple[int, int],
    angle_rad: tuple[float, float],
    range_m: tuple[float | int, float | int],
    carrier_hz: float | int,
    gen: torch.Generator,
) -> Paths:
    """(n, num_paths) independent paths: angle and range uniform between their limits, powers add to 1."""
    angle = uniform(shape, angle_rad, gen)
    distance = uniform(shape, range_m, gen)
    return paths_at(angle, distance, complex_normal(shape, gen, var=1 / shape[1]), carrier_hz)


Lead = Float[Tensor, "n path ant"]
"""By how many carrier wavelengths each antenna is nearer to the source than antenna 0."""


def fresnel(paths: Paths, num_ant: int, carrier_hz: float | int) -> Lead:
    """psi j - phi j^2: the distance to second order in the antenna's number j."""
    j = torch.arange(num_ant, dtype=paths.psi.dtype)
    return paths.psi[..., None] * j - paths.phi[..., None] * j.square()


def spherical(paths: Paths, num_ant: int, carrier_hz: float | int) -> Lead:
    """r - r_j in wavelengths, r_j = sqrt(r^2 + x^2 - 2 r x cos(angle)), x = j / 2."""
    x = torch.arange(num_ant, dtype=paths.psi.dtype) / 2
    r = (paths.range_m * (carrier_hz / LIGHT_M_PER_S))[..., None]
    along = 2 * r * x * paths.angle_rad.cos()[..., None]
    distance = (r.square() + x.square() - along).clamp_min(0).sqrt()
    return (along - x.square()) / (r + distance)  # not r - r_j: thousands of wavelengths would cancel


WAVEFRONTS: dict[str, Callable[[Paths, int, float | int], Lead]] = {"fresnel": fresnel, "spherical": spherical}


def responses(
    lead: Lead, delay_s: Float[Tensor, "n path"], offset_hz: Float[Tensor, " freq"], carrier_hz: float | int
) -> Complex[Tensor, "n path ant freq"]:
    """exp(j 2 pi (lead (1 + offset / carrier) - delay offset)), complex64: what a path of gain 1 leaves on the array.

    Cycles are counted in float64 and cut to one before single precision: the delay alone makes 10^2 of them.
    """
    cycles = lead[..., None] * (1 + offset_hz / carrier_hz) - (delay_s[..., None] * offset_hz)[..., None, :]
    phase = (2 * math.pi * torch.remainder(cycles, 1.0)).to(torch.float32)
    return torch.polar(torch.ones_like(phase), phase)


Combiner = Complex[Tensor, "unit slot ant"]


def sign_rows(num_unit: int, num_slots: int, size: int, gen: torch.Generator) -> Combiner:
    """Independent +-1 / sqrt(size): rows of norm one that are not orthogonal to each other."""
    return (_signs((num_unit, num_slots, size), gen) / math.sqrt(size)).to(torch.complex64)


def dft_rows(num_unit: int, num_slots: int, size: int, gen: torch.Generator) -> Combiner:
    """Random rows of the unitary DFT: the directions of the others are not seen at all."""
    mother = torch.fft.fft(torch.eye(size, dtype=torch.complex64), norm="ortho")
    return _some_rows(mother, num_unit, num_slots, gen)


def hadamard_rows(num_unit: int, num_slots: int, size: int, gen: torch.Generator) -> Combiner:
    """Random rows of the Walsh-Hadamard matrix over sqrt(size); `size` is a power of two."""
    mother = torch.ones(1, 1)
    while len(mother) < size:
        mother = torch.cat([torch.cat([mother, mother], 1), torch.cat([mother, -mother], 1)])
    return _some_rows((mother / math.sqrt(size)).to(torch.complex64), num_unit, num_slots, gen)


def scrambled_hadamard_rows(num_unit: int, num_slots: int, size: int, gen: torch.Generator) -> Combiner:
    """The same with a random sign per antenna, so that no row resembles a wave."""
    return hadamard_rows(num_unit, num_slots, size, gen) * _signs((num_unit, 1, size), gen)


COMBINERS: dict[str, Callable[[int, int, int, torch.Generator], Combiner]] = {
    "scrambled-hadamard": scrambled_hadamard_rows,
    "hadamard": hadamard_rows,
    "dft": dft_rows,
    "sign": sign_rows,
}


def whitened(rows: Combiner, rows_per_slot: int) -> Combiner:
    """Rows behind which white noise at the antennas is white: L^-1 W_p for every slot, L L^H = W_p W_p^H.

    The noise of a slot is W_p n with n of that slot alone, so that rows of different slots need not be orthogonal.
    The posterior is that of the rows as given with their coloured noise. Formed in complex128: the Gram matrix squares
    the condition. ValueError where the rows of a slot are linearly dependent.
    """
    slots = rows.to(torch.complex128).unflatten(-2, (-1, rows_per_slot))
    gram = slots @ slots.mH
    factor, broken = torch.linalg.cholesky_ex(gram)
    left = factor.diagonal(dim1=-2, dim2=-1).real.square()
    least = DEPENDENT_ROWS * gram.diagonal(dim1=-2, dim2=-1).real
    if bool(broken.any()) or not bool((left > least).all()):
        raise ValueError("combiner: the rows of a slot are linearly independent; got a slot whose rows are not")
    return torch.linalg.solve_triangular(factor, slots, upper=False).flatten(-3, -2).to(torch.complex64)


def unit_operator(op: object, num_unit: int, sizes: tuple[int, int, int]) -> Kron:
    """What the units see each for itself, a batch axis of `num_unit`, from the operator of all of them.

    sizes: rows, antennas and subcarriers of `op`. ValueError where it is not Kron(Dense, Identity) of these, or where
    units share an antenna.
    """
    rows, ant, tones = sizes
    wanted = f"NearField.local: expected Kron(Dense {ant} -> {rows}, Identity {tones})"
    if not (isinstance(op, Kron) and isinstance(op.left, Dense) and isinstance(op.right, Identity)):
        raise ValueError(f"{wanted}, got {type(op).__name__}")
    matrix, right = op.left.matrix, op.right
    if (*matrix.shape, *right.shape) != sizes:
        raise ValueError(f"{wanted}, got a matrix {tuple(matrix.shape)} and Identity {right.shape}")

    def make() -> Kron:
        blocks = matrix_blocks(matrix, num_unit)
        if blocks is None:
            raise ValueError(f"{wanted} of {num_unit} blocks, got entries that are not zero outside of them")
        return Kron(Dense(blocks), right)

    # kept on the draw's operator, so that factorisations of the units' matrices serve every call
    return cached(op, ("units", num_unit), make)


def exact_noise(
    clean: Complex[Tensor, "*batch row freq"], snr_db: float | int, gen: torch.Generator
) -> tuple[Complex[Tensor, "*batch row freq"], Float[Tensor, "*batch 1 1"]]:
    """White noise scaled item by item so that |clean|^2 / |noise|^2 is the SNR exactly, and its mean power."""
    noise = complex_normal(tuple(clean.shape), gen, clean.dtype)
    power = _power(clean) * 10 ** (-snr_db / 10)
    return noise * (power / _power(noise)).sqrt(), power


def _power(x: Tensor) -> Tensor:
    return x.abs().square().mean((-2, -1), keepdim=True)


def uniform(shape: tuple[int, ...], limits: tuple[float | int, float | int], gen: torch.Generator) -> Tensor:
    low, high = limits
    return low + (high - low) * torch.rand(shape, generator=gen, dtype=torch.float64)


def _signs(shape: tuple[int, int, int], gen: torch.Generator) -> Tensor:
    return 1.0 - 2.0 * torch.randint(0, 2, shape, generator=gen)


def _some_rows(mother: Tensor, num_unit: int, num_slots: int, gen: torch.Generator) -> Tensor:
    """Different rows of a square matrix, chosen anew per unit."""
    order = torch.rand(num_unit, len(mother), generator=gen).argsort(-1)
    return mother[order[:, :num_slots]]
