"""The records everything speaks in.

One currency: a Gaussian pseudo-observation r = x + CN(0, v). All variances are E|.|^2 of a complex quantity.
"""

import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float, Int8
from torch import Tensor

Shape = tuple[int, ...]
State = dict[str, Any]
"""What the next step needs: tensors whose leading axes are the batch, and JSON scalars. Nothing else."""


class Status(enum.IntEnum):
    """How the estimate of one batch item ended; `.text` says what to do about it."""

    OK = 0
    RUNNING = 1
    MAX_STEPS = 2
    NONFINITE = 3
    WARMING_UP = 4
    DEGRADED = 5

    @property
    def text(self) -> str:
        return _STATUS_TEXT[self]


_STATUS_TEXT = {
    Status.OK: "converged",
    Status.RUNNING: "still iterating; call step again",
    Status.MAX_STEPS: "the tolerance was not reached; raise max_steps or tol, or check the noise variance",
    Status.NONFINITE: "the input or the iteration was not finite; the estimate is the last finite one",
    Status.WARMING_UP: "more slots are needed before the first estimate; its variance is infinite",
    Status.DEGRADED: "units were lost: their antennas are extrapolated at best; info['lost_why'] says which to repair",
}


@runtime_checkable
class LinearMap(Protocol):
    """What a record needs to know of an operator; `hhat.ops.LinearOp` is the class."""

    @property
    def in_shape(self) -> Shape: ...
    @property
    def out_shape(self) -> Shape: ...
    @property
    def batch_shape(self) -> Shape: ...
    def apply(self, x: Tensor) -> Tensor: ...
    def adjoint(self, y: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Belief x ~ CN(mean, var), entry by entry; `var` broadcasts to `mean` (an axis of size 1 is shared)."""

    mean: Complex[Tensor, "..."]
    var: Float[Tensor, "..."]

    def message(self) -> "Message":
        return Message(1 / self.var, self.mean / self.var)


@dataclass(frozen=True, eq=False)
class Message:
    """A Gaussian factor in information form: exp(-precision |x|^2 + 2 Re(shift* x)); flat is (0, 0).

    Products add and cavities subtract, so that nothing is ever divided by zero.
    """

    precision: Float[Tensor, "..."]
    shift: Complex[Tensor, "..."]

    def __add__(self, other: "Message") -> "Message":
        return Message(self.precision + other.precision, self.shift + other.shift)

    def __sub__(self, other: "Message") -> "Message":
        return Message(self.precision - other.precision, self.shift - other.shift)

    def gaussian(self, max_var: float = torch.inf) -> Gaussian:
        """Moments; a precision at or below 1/max_var (cavities may be negative) is taken as 1/max_var."""
        tiny = torch.finfo(self.precision.dtype).tiny
        precision = self.precision.clamp_min(max(1 / max_var, tiny))
        return Gaussian(self.shift / precision, 1 / precision)


@dataclass(frozen=True, eq=False)
class Observation:
    """What a method sees: y = op(h) + CN(0, noise_var).

    y:         complex, (*batch, *op.out_shape)
    op:        maps the channel h, (*batch, *op.in_shape), to y
    noise_var: E|n|^2 per complex sample; a number or a tensor that broadcasts to y. None: estimated and reported.
    axes:      names of the channel's axes ("rx_ant", "tx_ant", "subcarrier", ...), where known

    Raises ValueError where shapes, dtypes or signs do not fit.
    """

    y: Tensor
    op: LinearMap
    noise_var: Tensor | None = None
    axes: tuple[str, ...] | None = None

    def __init__(
        self,
        y: Tensor,
        op: Any,
        noise_var: Tensor | float | int | None = None,
        axes: tuple[str, ...] | None = None,
    ):
        if not isinstance(op, LinearMap):
            raise ValueError(f"op: expected an operator, e.g. Dense(matrix), got {type(op).__name__}")
        out_shape = tuple(op.out_shape)
        if not isinstance(y, Tensor) or not y.is_complex():
            got = getattr(y, "dtype", type(y).__name__)
            raise ValueError(f"y: expected a complex tensor, got {got}")
        if tuple(y.shape[y.ndim - len(out_shape) :]) != out_shape or y.ndim < len(out_shape):
            raise ValueError(f"y: expected shape (*batch, {_dims(out_shape)}), got {tuple(y.shape)}")
        try:
            torch.broadcast_shapes(y.shape[: y.ndim - len(out_shape)], tuple(op.batch_shape))
        except RuntimeError:
            raise ValueError(f"y: batch {tuple(y.shape)} does not fit the operator's {op.batch_shape}") from None
        if y.numel() == 0:
            raise ValueError(f"y: expected at least one item, got shape {tuple(y.shape)}")
        if noise_var is not None:
            noise_var = checked_noise_var(noise_var, y)
        if axes is not None and len(axes) != len(op.in_shape):
            raise ValueError(f"axes: expected {len(op.in_shape)} names for {op.in_shape}, got {axes}")
        for name, value in (("y", y), ("op", op), ("noise_var", noise_var), ("axes", axes)):
            object.__setattr__(self, name, value)

    def to(self, device: Any) -> "Observation":
        """The observation on another device; itself where it is there already."""
        if self.y.device == torch.device(device):
            return self
        noise_var = None if self.noise_var is None else self.noise_var.to(device)
        op: Any = self.op
        return Observation(self.y.to(device), op.to(device), noise_var, self.axes)

    @property
    def batch_shape(self) -> Shape:
        own = self.y.shape[: self.y.ndim - len(self.op.out_shape)]
        return tuple(torch.broadcast_shapes(own, tuple(self.op.batch_shape)))


@dataclass(frozen=True, eq=False)
class Estimate:
    """A belief about the channel, how it ended per batch item, and what a human may want to know."""

    belief: Gaussian
    info: dict[str, Any] = field(default_factory=dict)
    status: Int8[Tensor, "..."] = field(default_factory=lambda: torch.zeros((), dtype=torch.int8))

    def status_counts(self) -> dict[str, int]:
        flat = self.status.flatten().tolist()
        return {s.name: flat.count(int(s)) for s in Status if int(s) in flat}


@dataclass(frozen=True)
class About:
    """What a capture says of itself; the defaults are those of a plain pilot file."""

    kind: str = "pilots"
    snr_definition: str = "not stated"
    normalisation: str = "not stated"
    source: str = "not stated"
    geometry: dict[str, list[list[float]]] = field(default_factory=dict)
    """Element positions in wavelengths per antenna axis: {"rx_ant": [[x, y, z], ...]}"""
    constants: dict[str, float] = field(default_factory=dict)
    """Physical constants, units in their names: {"carrier_hz": 3.5e9, "subcarrier_spacing_hz": 30e3}"""
    subcarriers: tuple[int, ...] | None = None
    """Signed index of each subcarrier on the channel's subcarrier axis (0 = carrier centre)"""


@dataclass(frozen=True, eq=False)
class Slot:
    """One draw of a scenario or one capture: the truth (a named record with `h` first, or None) and what is seen.

    obs: an `Observation`, or another record where y is not op(h) + noise: `hhat.sensing.Echoes` (its truth is an
         `EchoTruth`, kappa first)
    """

    truth: Any
    obs: Observation | Any
    about: About = field(default_factory=About)


class Channel(NamedTuple):
    """The least a truth holds: the channel, (*batch, *op.in_shape)."""

    h: Tensor


def checked_noise_var(noise_var: Tensor | float | int, y: Tensor) -> Tensor:
    """E|n|^2 in y's precision and on its device; ValueError unless real, finite, >= 0 and broadcasting to y."""
    found = torch.as_tensor(noise_var, device=y.device)
    if found.is_complex():
        raise ValueError("noise_var: expected real E|n|^2, got a complex tensor")
    found = found.to(y.real.dtype)
    if bool((~(found >= 0)).any()) or bool(torch.isinf(found).any()):
        raise ValueError(f"noise_var: expected finite values >= 0, got {found.flatten()[:4].tolist()}")
    try:
        fits = torch.broadcast_shapes(found.shape, y.shape) == y.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"noise_var: shape {tuple(found.shape)} does not fit y {tuple(y.shape)}")
    return found


def _dims(shape: Shape) -> str:
    return ", ".join(map(str, shape))
