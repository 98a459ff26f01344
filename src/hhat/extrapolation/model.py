"""What hopping sounding pilots see: paths over tones, a planar array and symbols, each symbol turned and late."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from hhat.ops import Hops, Identity, Kron, Select
from hhat.types import About, Observation


class Paths(NamedTuple):
    """K specular paths per item, padded; float64 and complex128.

    gain       (*batch, path) complex at symbol 0; 0 where masked
    delay_s    (*batch, path)
    cosine     (*batch, path, 2): direction cosines (u, v) along columns and rows, modulo 2 at half a wavelength
    doppler_hz (*batch, path)
    mask       (*batch, path): which of them are there
    """

    gain: Complex[Tensor, "*batch path"]
    delay_s: Float[Tensor, "*batch path"]
    cosine: Float[Tensor, "*batch path 2"]
    doppler_hz: Float[Tensor, "*batch path"]
    mask: Bool[Tensor, "*batch path"]


class Offsets(NamedTuple):
    """What is common to all paths in a symbol: phase_rad and timing_s, (*batch, symbol), 0 at symbol 0 by gauge."""

    phase_rad: Float[Tensor, "*batch symbol"]
    timing_s: Float[Tensor, "*batch symbol"]


@dataclass(frozen=True)
class Sounding:
    """Law of a channel on tones of frequency f (centred), antennas at (x, z) wavelengths, symbols at times t:

      h(t)[a, f] = e^{j phi(t)} sum_k gain_k e^{j 2 pi doppler_k t} e^{-j 2 pi f (delay_k + timing(t))}
                   e^{j 2 pi (x_a u_k + z_a v_k)}

    columns, rows: of a planar array at half a wavelength; antenna a = column * rows + row, positions centred, columns
                   along x and rows upwards along z
    frequency_hz:  of the channel's tones, centred on their mean; any spacing, evenly spaced for FFT searches
    period_s:      between sounding symbols
    doppler_hz:    largest Doppler shift; doppler_k ~ N(0, (0.7 doppler_hz)^2) where it is estimated
    timing_var:    E timing^2, seconds squared
    Gauge: phi(0) = timing(0) = 0. One common Doppler shift and the phases cannot be told apart; its prior settles it.
    Source: Wan & Liu 2024, eqs. (1)-(3), as reconstructed; angles as direction cosines, where the source has angles.
    Raises ValueError for sizes below 1, non-finite or repeated tones, and negative numbers.
    """

    columns: int
    rows: int
    frequency_hz: tuple[float, ...]
    period_s: float | int = 5e-3
    doppler_hz: float | int = 9.73
    timing_var: float | int = 1e-16

    def __post_init__(self):
        for name in ("columns", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"sounding: {name}: expected at least 1, got {getattr(self, name)}")
        if not self.frequency_hz or not all(map(math.isfinite, self.frequency_hz)):
            raise ValueError("sounding: frequency_hz: expected finite frequencies, at least one")
        if len(set(self.frequency_hz)) != len(self.frequency_hz):
            raise ValueError("sounding: frequency_hz: expected different frequencies")
        for name in ("period_s", "doppler_hz", "timing_var"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"sounding: {name}: expected a number >= 0, got {getattr(self, name)}")

    @property
    def num_rx_ant(self) -> int:
        return self.columns * self.rows

    @property
    def num_subcarriers(self) -> int:
        return len(self.frequency_hz)

    def tones_hz(self, like: Tensor | None = None) -> Float[Tensor, " subcarrier"]:
        """f of every tone of the channel, float64, mean 0."""
        f = torch.tensor(self.frequency_hz, dtype=torch.float64, device=None if like is None else like.device)
        return f - f.mean()

    def positions(self, like: Tensor | None = None) -> Float[Tensor, "rx_ant 2"]:
        """(x, z) of every antenna in wavelengths, float64, mean 0."""
        device = None if like is None else like.device
        x = (torch.arange(self.columns, dtype=torch.float64, device=device) - (self.columns - 1) / 2) / 2
        z = (torch.arange(self.rows, dtype=torch.float64, device=device) - (self.rows - 1) / 2) / 2
        return torch.cartesian_prod(x, z).reshape(-1, 2)

    def array_steering(self, cosine: Float[Tensor, "*any 2"]) -> Complex[Tensor, "*any rx_ant"]:
        return _turned(cosine @ self.positions(cosine).mT)

    def channel(
        self, paths: Paths, offsets: Offsets, times_s: Float[Tensor, " symbol"]
    ) -> Complex[Tensor, "*batch rx_ant symbol subcarrier"]:
        """h on all tones, complex128."""
        left = self.array_steering(paths.cosine).mT  # (*batch, rx_ant, path)
        turn = paths.doppler_hz[..., None, :] * times_s[:, None] + offsets.phase_rad[..., None] / (2 * math.pi)
        weight = paths.gain[..., None, :] * _turned(turn)  # (*batch, symbol, path)
        late = paths.delay_s[..., None, :] + offsets.timing_s[..., None]
        right = delay_steering(self.tones_hz(late), late)  # (*batch, symbol, subcarrier, path)
        return torch.einsum("...ak,...sk,...sfk->...asf", left.to(weight.dtype), weight, right)

    @classmethod
    def of(cls, about: About, num_rx_ant: int) -> "Sounding | None":
        """The law that a capture describes; None where it lacks the array's positions or the tones' spacing.

        Needs geometry "rx_ant" of a half-wavelength planar array, column by column, `subcarriers`, and the constants
        subcarrier_spacing_hz and sounding_period_s; takes doppler_hz and timing_spread_s where they are told.
        """
        found, constants = about.geometry.get("rx_ant"), about.constants
        if found is None or about.subcarriers is None or "subcarrier_spacing_hz" not in constants:
            return None
        if "sounding_period_s" not in constants or len(found) != num_rx_ant:
            return None
        place = torch.tensor(found, dtype=torch.float64)
        place = torch.nn.functional.pad(place, (0, 3 - place.shape[-1]))
        rows = len(place[:, 2].unique())
        if num_rx_ant % rows:
            return None
        spacing = constants["subcarrier_spacing_hz"]
        model = cls(
            num_rx_ant // rows,
            rows,
            tuple(spacing * index for index in about.subcarriers),
            constants["sounding_period_s"],
            constants.get("doppler_hz", cls.doppler_hz),
            constants["timing_spread_s"] ** 2 if "timing_spread_s" in constants else cls.timing_var,
        )
        # the array's broadside is y; which of x and y the columns run along is the file's choice
        along = 0 if len(place[:, 0].unique()) >= len(place[:, 1].unique()) else 1
        wanted = model.positions()
        have = place[:, [along, 2]]
        return model if torch.allclose(have - have.mean(0), wanted, atol=1e-6) else None


class Sounded(NamedTuple):
    """Pilots of an observation in plain tensors: y (*batch, rx_ant, symbol, tone), index (symbol, tone) on the
    channel's subcarriers, noise_var (*batch, 1, 1, 1) or less, None where it is not known."""

    y: Tensor
    index: Tensor
    noise_var: Tensor | None


def sounded(model: Sounding, obs: Observation) -> Sounded:
    """An observation of several symbols, op Kron(Identity, Hops), or of one, op Kron(Identity, Select); the pilots, of
    unit modulus, are taken off y already. A noise_var that differs between samples is averaged.

    Raises ValueError where the operator is another one or its sizes are not the model's.
    """
    op, name = obs.op, type(obs.op).__name__
    wanted = "expected Kron(Identity((rx_ant,)), Hops(index, subcarriers)), of one symbol Select"
    if not (isinstance(op, Kron) and isinstance(op.left, Identity) and isinstance(op.right, Hops | Select)):
        inner = f"({type(op.left).__name__}, {type(op.right).__name__})" if isinstance(op, Kron) else ""
        raise ValueError(f"sounding: {wanted}; got {name}{inner}")
    if op.left.shape != (model.num_rx_ant,) or op.right.size != model.num_subcarriers:
        raise ValueError(
            f"sounding: the model has {model.num_rx_ant} antennas and {model.num_subcarriers} subcarriers, the "
            f"operator {op.left.shape} and {op.right.size}"
        )
    one = isinstance(op.right, Select)
    noise = obs.noise_var
    if noise is not None and noise.ndim:
        count = len(op.out_shape)
        full = noise.reshape((1,) * max(count - noise.ndim, 0) + tuple(noise.shape))
        noise = full.mean(tuple(range(-count, 0)), keepdim=True)
        noise = noise[..., None] if one else noise
    index = op.right.index[None] if one else op.right.index
    y = obs.y.expand(*obs.batch_shape, *op.out_shape)
    return Sounded(y[..., None, :] if one else y, index, noise)


def delay_steering(
    frequency_hz: Float[Tensor, "*a tone"], delay_s: Float[Tensor, "*b path"]
) -> Complex[Tensor, "*c tone path"]:
    """exp(-j 2 pi f tau), the leading axes broadcast."""
    return _turned(-frequency_hz[..., :, None] * delay_s[..., None, :])


def _turned(cycles: Tensor) -> Tensor:
    """exp(j 2 pi cycles)."""
    angle = 2 * math.pi * torch.remainder(cycles, 1.0)
    return torch.polar(torch.ones_like(angle), angle)
