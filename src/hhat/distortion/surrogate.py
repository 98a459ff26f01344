"""`Surrogate`: a learned forward model of the receive chains' distortion, its weights a Gaussian belief."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hhat.distortion.fit_variance import Loudness, calibrated
from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights, Trace
from hhat.priors.weights import Trained, Weights, read_weights, shipped

KIND = "surrogate"
POOLED = 3
"""Networks of a pooled surrogate: left end, inner chain, right end"""
START_VAR = 1e-4
"""Of a weight's belief where nothing better is known: what tracking can start from"""


@dataclass(frozen=True, eq=False)
class Surrogate:
    """R(distorted_pn) = R(output of network n) + N(0, fit_var_np I),   weights ~ N(mean, var), independent

    mean, var: of the weights, one network per receive chain; or three, for the left end, inner chains and the right
               end, which `for_chains` gives to any number of them
    fit_var:   (net, pilot), per real part: what the network leaves of the distorted signal at symbol p of a slot, at
               amplitudes of pilots (not of Gaussian signals, of which few strong samples make most of the error)
    loudness:  the same as a function of the amplitudes; None: not known
    Signals are complex, (*batch, pilot, rx_ant), with nothing before the first symbol. Raises ValueError for shapes
    that do not fit. Source: Xu & Liu 2026, section III; fit_var per symbol and pooling: hhat.
    """

    mean: RecurrentWeights
    var: RecurrentWeights
    fit_var: Tensor
    loudness: Loudness | None = None

    def __post_init__(self):
        hidden, nets = self.mean.hidden, self.mean.num_net
        columns = hidden + unit.NUM_INPUTS + 1
        wanted = ((nets, 2 * hidden, columns), (nets, hidden, columns), (nets, 2, hidden + 1))
        for name in ("mean", "var"):
            shapes = tuple(tuple(part.shape) for part in getattr(self, name))
            if shapes != wanted:
                raise ValueError(f"surrogate: {name}: expected parts of shape {wanted}, got {shapes}")
        if self.fit_var.ndim != 2 or self.fit_var.shape[0] != nets or not self.fit_var.shape[1]:
            raise ValueError(f"surrogate: fit_var: expected ({nets}, pilot), got {tuple(self.fit_var.shape)}")

    @property
    def num_net(self) -> int:
        return self.mean.num_net

    @property
    def hidden(self) -> int:
        return self.mean.hidden

    def for_chains(self, num_rx_ant: int) -> "Surrogate":
        """One network per chain: itself, or the three of a pooled one given to the ends and all chains between."""
        if self.num_net == num_rx_ant:
            return self
        if self.num_net != POOLED or num_rx_ant < 2:
            raise ValueError(f"surrogate: {self.num_net} networks do not fit {num_rx_ant} receive chains")
        index = pooled_index(num_rx_ant)
        loudness = None if self.loudness is None else self.loudness.take(index)
        return Surrogate(self.mean.take(index), self.var.take(index), self.fit_var[index], loudness)

    def to(self, where: torch.dtype | torch.device | str) -> "Surrogate":
        loudness = None if self.loudness is None else self.loudness.to(where)
        return Surrogate(self.mean.to(where), self.var.to(where), self.fit_var.to(where), loudness)

    def with_mean(self, mean: RecurrentWeights) -> "Surrogate":
        return replace(self, mean=mean)

    def trace(self, signal: Tensor) -> Trace:
        """The forward pass at the weights' mean; batch axes flattened into one. What `hhat.nets.residual_recurrent`
        takes for slopes: `input_jacobian(surrogate.mean, trace)`, `weight_jacobian(surrogate.mean, trace)`."""
        if signal.ndim < 2 or not signal.is_complex() or signal.shape[-1] != self.num_net:
            have = f"{signal.dtype} {tuple(signal.shape)}"
            raise ValueError(f"surrogate: expected complex (*batch, pilot, {self.num_net}), got {have}")
        flat = signal.reshape(-1, *signal.shape[-2:])
        return unit.forward(self.mean, unit.neighbour_inputs(flat).to(self.mean.out.dtype))

    def __call__(self, signal: Tensor) -> Tensor:
        """Undistorted -> distorted, (*batch, pilot, rx_ant)."""
        return unit.signal_of(self.trace(signal).output).reshape(signal.shape)

    def fit_var_at(self, num_pilots: int) -> Tensor:
        """(net, num_pilots), per real part; symbols past those that were calibrated are as the last of these."""
        index = torch.arange(num_pilots).clamp_max(self.fit_var.shape[1] - 1)
        return self.fit_var[:, index]

    def loud_fit_var(self, signal: Tensor) -> Tensor:
        """Per real part, by the amplitudes of `signal`, undistorted or nearly so: (*batch, pilot, rx_ant)."""
        if self.loudness is None:
            raise ValueError("surrogate: loudness: not known; calibrate it, or use fit_var_at")
        return self.loudness(signal)

    def calibrate(self, signal: Tensor, distorted: Tensor, loud: Tensor | None = None) -> "Surrogate":
        """fit_var and loudness from pairs (sequence, pilot, rx_ant) of as many chains as there are networks.

        loud: the signal whose amplitudes count; None: `signal`, which for a compensator is the distorted one.
        """
        loud = signal if loud is None else loud
        error = (distorted - self(signal)).abs().square() / 2
        return replace(self, fit_var=calibrated(loud, error), loudness=Loudness.fit(loud, error))

    def tensors(self) -> Weights:
        """For a file; without `var` where every weight is START_VAR wide."""
        found = {f"mean/{n}": part for n, part in self.mean._asdict().items()}
        if not all(torch.equal(a, b) for a, b in zip(self.var, start_var(self.num_net, self.hidden), strict=True)):
            found |= {f"var/{n}": part for n, part in self.var._asdict().items()}
        found["log_fit_var"] = self.fit_var.log()
        if self.loudness is not None:
            found["loudness"] = self.loudness.coefficients
        return {name: value.float() for name, value in found.items()}

    def settings(self) -> dict[str, Any]:
        return {"kind": KIND, "hidden": self.hidden, "num_net": self.num_net}


def pooled_index(num_rx_ant: int) -> Tensor:
    """Which of the three networks each chain has: 0, 1, .., 1, 2."""
    index = torch.ones(num_rx_ant, dtype=torch.long)
    index[0], index[-1] = 0, POOLED - 1
    return index


def start_var(num_net: int, hidden: int) -> RecurrentWeights:
    """START_VAR where a weight of an array's networks exists, 0 for neighbours that its ends lack."""
    return RecurrentWeights(*(START_VAR * part for part in unit.present(num_net, (0,), (num_net - 1,), hidden)))


def fresh(mean: RecurrentWeights, num_pilots: int = 1) -> Surrogate:
    """A surrogate that nobody has calibrated: weights START_VAR wide, the fit as bad as the signal."""
    return Surrogate(mean, start_var(mean.num_net, mean.hidden), torch.ones(mean.num_net, num_pilots))


def nmse(surrogate: Surrogate, signal: Tensor, distorted: Tensor) -> Tensor:
    """|f(y) - distorted|^2 over |distorted|^2, per chain, (rx_ant,)."""
    axes = tuple(range(signal.ndim - 1))
    return (surrogate(signal) - distorted).abs().square().sum(axes) / distorted.abs().square().sum(axes)


def surrogate_from(settings: Mapping[str, Any], tensors: Weights) -> Surrogate:
    """From a card's settings and the tensors of `Surrogate.tensors`; ValueError where one is missing."""
    if settings.get("kind") != KIND:
        raise ValueError(f"weights: expected kind {KIND}, got '{settings.get('kind')}'")
    try:
        mean = RecurrentWeights(*(tensors[f"mean/{n}"] for n in RecurrentWeights._fields))
        var = start_var(mean.num_net, mean.hidden)
        if "var/out" in tensors:
            var = RecurrentWeights(*(tensors[f"var/{n}"] for n in RecurrentWeights._fields))
        fit_var = tensors["log_fit_var"].exp()
    except KeyError as wrong:
        raise ValueError(f"weights: tensor missing: {wrong}") from None
    loud = tensors.get("loudness")
    return Surrogate(mean, var, fit_var, None if loud is None else Loudness(loud))


def load(weights: str | Path = "impairment-surrogate") -> Surrogate:
    """A file that `hhat train` wrote, or a surrogate that comes with the library by its name."""
    found: Trained = read_weights(weights) if Path(weights).suffix else shipped(str(weights))
    return surrogate_from(found.card["settings"], found.weights)
