"""`DistortedPilots`: what a receiver with imperfect chains sees of known pilots, and what a scenario knows of it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hhat.methods.working import finite
from hhat.types import Shape, checked_noise_var


class ImpairedTruth(NamedTuple):
    """h and y of every slot; what the receive chains were like where it is known.

    h            complex (*batch, rx_ant)
    y            complex (*batch, pilot, rx_ant): h r^T + noise, before the distortion. None: not known
    coupling, phase_rad  (rx_ant) or (*batch, rx_ant): crosstalk and IQ phase
    coefficients complex (rx_ant, order, term) or (*batch, rx_ant, order, term): of the amplifiers
    """

    h: Tensor
    y: Tensor | None = None
    coupling: Tensor | None = None
    phase_rad: Tensor | None = None
    coefficients: Tensor | None = None


@dataclass(frozen=True, eq=False)
class DistortedPilots:
    """y = f(h r^T + CN(0, noise_var)): the distortion f is unknown, the noise is in the signal before it.

    y:         complex (*batch, pilot, rx_ant), distorted; symbols in time on axis -2, receive chains on -1. f has no
               past before the first symbol
    pilots:    r, complex (pilot) or (*batch, pilot)
    noise_var: E|n|^2 per complex sample before the distortion; a number or a real tensor that broadcasts to y
    It is no `Observation`: y is not op(h) + noise. Raises ValueError where shapes, dtypes or signs do not fit.
    """

    y: Tensor
    pilots: Tensor
    noise_var: Tensor

    def __init__(self, y: Tensor, pilots: Tensor, noise_var: Tensor | float | int):
        for name, value, least in (("y", y, 2), ("pilots", pilots, 1)):
            if not isinstance(value, Tensor) or not value.is_complex():
                got = getattr(value, "dtype", type(value).__name__)
                raise ValueError(f"{name}: expected a complex tensor, got {got}")
            if value.ndim < least or value.numel() == 0:
                wanted = "(*batch, pilot, rx_ant)" if name == "y" else "(*batch, pilot)"
                raise ValueError(f"{name}: expected at least one item of shape {wanted}, got {tuple(value.shape)}")
        if tuple(pilots.shape) not in (tuple(y.shape[:-1]), tuple(y.shape[-2:-1])):
            wanted = f"({y.shape[-2]},) or {tuple(y.shape[:-1])}"
            raise ValueError(f"pilots: expected shape {wanted} for y {tuple(y.shape)}, got {tuple(pilots.shape)}")
        if bool((~torch.isfinite(pilots)).any()):
            raise ValueError("pilots: expected finite symbols, some are not")
        noise_var = checked_noise_var(noise_var, y)
        for name, value in (("y", y), ("pilots", pilots.to(y)), ("noise_var", noise_var)):
            object.__setattr__(self, name, value)

    def to(self, device: Any) -> "DistortedPilots":
        """The same on another device; itself where it is there already."""
        if self.y.device == torch.device(device):
            return self
        return DistortedPilots(self.y.to(device), self.pilots.to(device), self.noise_var.to(device))

    def cleaned(self) -> tuple["DistortedPilots", Tensor]:
        """Itself with items that are not finite set to zero, and which those are, (*batch): what `track` asks for."""
        lost = ~finite(self.y, self.batch_shape)
        if not bool(lost.any()):
            return self, lost
        return DistortedPilots(self.y.masked_fill(lost[..., None, None], 0), self.pilots, self.noise_var), lost

    @property
    def batch_shape(self) -> Shape:
        return tuple(self.y.shape[:-2])

    @property
    def num_pilots(self) -> int:
        return self.y.shape[-2]

    @property
    def num_rx_ant(self) -> int:
        return self.y.shape[-1]
