"""`LinePaths`: what one path leaves on a line array over tones, its derivatives, and where a search looks for it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.types import About, Shape

GEOMETRY = ("psi", "phi", "delay")
"""Columns of a path's geometry: cycles per antenna, cycles per squared antenna, seconds."""
CURVED_FROM = 64
"""Antennas from which paths are curved where nothing is said. The curvature is one more unknown: 32 antennas at 30 GHz
and 10 to 50 m are 0.3 to 1.1 dB better off without it up to 15 dB, 128 are lost without it."""
NEAREST = 0.57
"""Curvature at the Fresnel distance 0.62 sqrt(D^3 / wavelength) of a half-wavelength line: NEAREST (N - 1)^-1.5."""
CURVATURE_STEP = 0.6
"""Coarse distance between curvatures, in cycles at the last antenna: half of it costs a path 7 % of its energy."""
ANGLES_PER_ANTENNA = 3
DELAYS_PER_TONE = 4


@dataclass(frozen=True)
class LinePaths:
    """s[j, k] = exp(j 2 pi [(psi j - phi j^2) (1 + f_k / f_c) - delay f_k]), f_k = subcarriers[k] * spacing_hz.

    One line array, antennas numbered j from 0; second order in j, with beam squint. The geometry of a path is a row
    (psi, phi, delay): psi and phi as `scenarios.near_field.Paths` has them, delay in seconds, modulo what the tones can
    tell. A unit of a longer array that counts its own antennas from 0 sees paths of the same form.

    num_ant:       antennas; None: the channel has no antenna axis
    subcarriers:   signed index of each tone, 0 the carrier; None: the channel has no subcarrier axis
    spacing_hz:    between indices; 1 where it is not known: delays are then shares of one symbol
    carrier_hz:    None: no squint
    curved:        False: far field, phi = 0
    max_curvature: largest phi that is searched; None: that of the Fresnel distance
    A parameter that the channel cannot tell (psi of one antenna, delay of one tone) is held at 0.
    Source: Tang et al. 2025, eqs. (1)-(4), as corrected in `scenarios.near_field`.
    """

    num_ant: int | None = None
    subcarriers: tuple[int, ...] | None = None
    spacing_hz: float | int = 1.0
    carrier_hz: float | int | None = None
    curved: bool = True
    max_curvature: float | None = None

    def __post_init__(self):
        if self.num_ant is None and self.subcarriers is None:
            raise ValueError("LinePaths: expected num_ant, subcarriers or both, got neither")
        if self.num_ant is not None and self.num_ant < 1:
            raise ValueError(f"LinePaths: num_ant: expected at least 1, got {self.num_ant}")
        if self.subcarriers is not None and len(set(self.subcarriers)) < max(1, len(self.subcarriers)):
            raise ValueError("LinePaths: subcarriers: expected different indices, at least one")
        for name in ("spacing_hz", "carrier_hz"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"LinePaths: {name}: expected a number > 0, got {value}")
        if self.max_curvature is not None and not 0 <= self.max_curvature < math.inf:
            raise ValueError(f"LinePaths: max_curvature: expected a number >= 0, got {self.max_curvature}")

    @property
    def in_shape(self) -> Shape:
        """Of the channels that it describes."""
        ant = () if self.num_ant is None else (self.num_ant,)
        return ant if self.subcarriers is None else (*ant, len(self.subcarriers))

    @property
    def free(self) -> tuple[int, ...]:
        """The columns of the geometry that are estimated."""
        ant, tones = self.num_ant or 1, len(self.subcarriers or (0,))
        can = (ant > 1, ant > 2 and self.curved, tones > 1)
        return tuple(column for column, there in enumerate(can) if there)

    @property
    def num_real(self) -> int:
        """Real unknowns of a path, its complex gain included."""
        return len(self.free) + 2

    def scale(self) -> Float[Tensor, " 3"]:
        """What moves the phase across the channel by one cycle: the geometry's natural units, float64."""
        ant, (index, step) = self.num_ant or 1, self._comb()
        span = (int(index.max()) + 1) * step * self.spacing_hz
        return torch.tensor([1 / ant, 1 / ant**2, 1 / span], dtype=torch.float64)

    def responses(self, geometry: Float[Tensor, "*batch path 3"]) -> Tensor:
        """s of each path, complex128, (*batch, path, *in_shape)."""
        j, f, squint = self._axes(geometry)
        psi, phi, delay = geometry[..., None, None].unbind(-3)
        # antennas and tones apart but for the squint: its phase is a product of both
        lead = (psi - phi * j) * j
        phase = 2 * math.pi * (lead * squint - delay * f)
        s = torch.polar(torch.ones_like(phase), phase)
        return s.reshape(*geometry.shape[:-1], *self.in_shape)

    def tangent(self, geometry: Float[Tensor, "*batch path 3"]) -> Tensor:
        """Derivatives of s by the free columns, per `scale`, then s itself: (*batch, len(free) + 1, path, *in_shape).

        d psi: j 2 pi j (1 + f/f_c) s;  d phi: -j 2 pi j^2 (1 + f/f_c) s;  d delay: -j 2 pi f s.
        """
        j, f, squint = self._axes(geometry)
        scale = self.scale().to(geometry.device)
        s = self.responses(geometry).reshape(*geometry.shape[:-1], self.num_ant or 1, -1)
        slopes = (j * squint * scale[0], -j.square() * squint * scale[1], -f * scale[2])
        lead = geometry.shape[:-2]
        out = s.new_empty(*lead, len(self.free) + 1, *s.shape[len(lead) :])
        turned = 2j * math.pi * s
        for place, column in enumerate(self.free):
            torch.mul(turned, slopes[column], out=out[..., place, :, :, :])
        out[..., -1, :, :, :] = s
        return out.reshape(*lead, len(self.free) + 1, geometry.shape[-2], *self.in_shape)

    def search_axes(self) -> tuple[Float[Tensor, " psi"], Float[Tensor, " phi"]]:
        """Angles, at equal steps, and curvatures of the coarse search, float64."""
        ant = self.num_ant or 1
        fine = ANGLES_PER_ANTENNA * ant
        # with squint the two ends are not the same path, and line arrays see many paths there
        turns = torch.arange(fine + (self.carrier_hz is not None), dtype=torch.float64) / fine - 0.5
        psi = turns if 0 in self.free else torch.zeros(1, dtype=torch.float64)
        phi = torch.zeros(1, dtype=torch.float64)
        if 1 in self.free:
            largest = self.largest_curvature()
            count = 1 + math.ceil(largest * ant**2 / CURVATURE_STEP)
            phi = torch.linspace(0, largest, count, dtype=torch.float64)
        return psi, phi

    def squint(self) -> Float[Tensor, " tone"]:
        """1 + f / f_c per tone; one value for all without a carrier."""
        squint = self._axes(torch.zeros(()))[2]
        return squint if self.carrier_hz is not None else squint[:1]

    def delays(self, spectrum: Complex[Tensor, "*batch tone"]) -> tuple[Tensor, Float[Tensor, " delay"]]:
        """sum_k exp(+j 2 pi delay f_k) spectrum_k on a grid of delays, by a zero-padded inverse FFT, and the grid."""
        if 2 not in self.free:
            return spectrum.sum(-1, keepdim=True), torch.zeros(1, dtype=torch.float64, device=spectrum.device)
        index, step = self._comb()
        size = 1 << (DELAYS_PER_TONE * (int(index.max()) + 1) - 1).bit_length()
        delay = torch.arange(size, dtype=torch.float64, device=spectrum.device) / (size * step * self.spacing_hz)
        if not torch.equal(index, torch.arange(len(index))):
            gaps = spectrum.new_zeros(*spectrum.shape[:-1], int(index.max()) + 1)
            spectrum = gaps.index_copy(-1, index.to(spectrum.device), spectrum)
        # the comb starts at its lowest tone, not at the carrier: a phase that no modulus sees
        return torch.fft.ifft(spectrum, size, norm="forward"), delay

    def middle(self) -> float:
        """1 + f / f_c of the middle of the band."""
        return float(self._axes(torch.zeros(()))[2].mean())

    def largest_curvature(self) -> float:
        """The largest phi that is searched; 0 without curvature."""
        if 1 not in self.free:
            return 0.0
        return NEAREST * ((self.num_ant or 1) - 1) ** -1.5 if self.max_curvature is None else self.max_curvature

    def period(self) -> float:
        """Seconds after which delays repeat themselves on these tones."""
        return 1 / (self._comb()[1] * self.spacing_hz)

    def told(self, geometry: Tensor) -> Tensor:
        """The geometry with angles in [-1/2, 1/2) and delays in [0, what the tones can tell)."""
        psi, phi, delay = geometry.unbind(-1)
        if self.carrier_hz is None:
            psi = torch.remainder(psi + 0.5, 1.0) - 0.5
        return torch.stack([psi, phi, torch.remainder(delay, self.period())], -1)

    def _comb(self) -> tuple[Tensor, int]:
        """Tones as multiples of their common step, from 0, and the step."""
        index = torch.tensor(self.subcarriers or (0,))
        index = index - index.min()
        step = max(1, math.gcd(*index.tolist()))
        return index // step, step

    def _axes(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """j (ant, 1), f (tone) in Hz, and 1 + f / f_c."""
        j = torch.arange(self.num_ant or 1, dtype=torch.float64, device=like.device)[:, None]
        f = torch.tensor(self.subcarriers or (0,), dtype=torch.float64, device=like.device) * self.spacing_hz
        return j, f, 1 + f / self.carrier_hz if self.carrier_hz is not None else torch.ones_like(f)


def line_paths(shape: Shape, axes: tuple[str, ...] | None, about: About | None = None) -> LinePaths | None:
    """The model of a channel with these axes, from what its file says of the tones; None where there is none.

    One antenna axis, one subcarrier axis or both in this order; axes without names are antennas. Paths are curved from
    CURVED_FROM antennas on. about: `subcarriers`, and the constants carrier_hz and subcarrier_spacing_hz.
    """
    names = axes or ("ant",) * len(shape)
    kinds = tuple("ant" if name.endswith("ant") else name for name in names)
    if kinds not in (("ant",), ("subcarrier",), ("ant", "subcarrier")):
        return None
    num_ant = shape[0] if kinds[0] == "ant" else None
    tones: tuple[int, ...] | None = None
    if kinds[-1] == "subcarrier":
        tones = about.subcarriers if about is not None and about.subcarriers is not None else tuple(range(shape[-1]))
        if len(tones) != shape[-1]:
            raise ValueError(f"subcarriers: expected {shape[-1]} indices, got {len(tones)}")
    constants = {} if about is None else about.constants
    spacing = constants.get("subcarrier_spacing_hz")
    # squint needs frequencies in the carrier's unit: without the spacing it is not known
    carrier = constants.get("carrier_hz") if spacing is not None else None
    return LinePaths(num_ant, tones, spacing or 1.0, carrier, (num_ant or 1) >= CURVED_FROM)
