"""`Ising`: active coefficients cluster on a grid. 4-connected field (2-connected in one dimension), loopy BP."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import softplus

from hhat.priors.support import Support, checked
from hhat.types import Shape

LARGEST_COUPLING = 0.4
"""Couplings are learned up to here: from 0.44 on the square grid magnetises as a whole (Onsager 1944) and the moments
say nothing of single clusters."""
NEWTON_SHARE = 0.1
"""Share of the diagonal Newton step on coupling and field that is taken: neighbours amplify both, 0.3 oscillates."""
SETTLED = 60
"""Sweeps where an evidence is asked for, and a third of those of a sample."""
UNIFORM = 25
"""Iterations of the message that all sites of an unobserved grid share."""


@dataclass(frozen=True, eq=False)
class Ising(Support):
    """p(s) ~ exp( coupling sum_<ij> sigma_i sigma_j - field sum_i sigma_i ), sigma = 2 s - 1, neighbours along `axes`.

    axes None: the last two event axes, or the one there is. cyclic: the grid is a torus, as angles and delays of a DFT
    are. Loopy belief propagation in log-odds, all messages at once, `sweeps` per call from the messages kept.
      m_i->j = atanh( tanh(coupling) tanh(h_i + sum of incoming except from j) ),   h = llr/2 - field
    Exact on trees (one open axis); on grids good for weak coupling. `learn` moves coupling and field by a Newton step
    towards equal posterior and prior moments: the gradient of the Bethe log evidence, no exact EM; the prior's moments
    are those inside a grid, whatever its edges.
    Source: Besag 1986; Yedidia, Freeman & Weiss, IEEE TIT 2005 (Bethe). Raises ValueError for a negative coupling.
    """

    coupling: Tensor
    field: Tensor
    messages: Tensor
    axes: tuple[int, ...] | None
    cyclic: bool
    sweeps: int

    def __init__(
        self,
        coupling: Tensor | float | int = 0.35,
        field: Tensor | float | int = 0.1,
        axes: tuple[int, ...] | None = None,
        cyclic: bool = True,
        sweeps: int = 3,
        messages: Tensor | None = None,
    ):
        object.__setattr__(self, "coupling", checked("ising: coupling", coupling, -1e-12, 10))
        object.__setattr__(self, "field", checked("ising: field", field, -100, 100))
        if axes is not None and (not axes or len(set(axes)) < len(axes) or not all(axis < 0 for axis in axes)):
            raise ValueError(f"ising: axes: expected distinct negative numbers, got {axes}")
        if sweeps < 1:
            raise ValueError(f"ising: sweeps: expected at least 1, got {sweeps}")
        object.__setattr__(self, "messages", torch.zeros(1) if messages is None else messages)
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "cyclic", cyclic)
        object.__setattr__(self, "sweeps", sweeps)

    def infer(self, llr: Tensor, num_event: int) -> tuple[Tensor, "Ising"]:
        messages = self._swept(llr, self._start(llr, num_event), num_event, self.sweeps)
        return 2 * (messages.sum(-1) - self.field), replace(self, messages=messages)

    def log_evidence(self, llr: Tensor, num_event: int) -> Tensor:
        flat = torch.zeros_like(llr)
        mine = self._bethe(llr, self._swept(llr, self._start(llr, num_event), num_event, SETTLED), num_event)
        none = self._bethe(flat, self._swept(flat, self._start(llr, num_event, True), num_event, SETTLED), num_event)
        terms = mine - none - _log_2cosh(llr / 2)
        return terms.flatten(terms.ndim - num_event).sum(-1)

    def learn(self, llr: Tensor, num_event: int) -> "Ising":
        spin, pair = self._moments(llr, self._start(llr, num_event), num_event)
        prior_spin, prior_pair = self._uniform(num_event)
        field = self.field - NEWTON_SHARE * (spin - prior_spin) / (1 - prior_spin.square()).clamp_min(0.05)
        move = NEWTON_SHARE * (pair - prior_pair) / (1 - prior_pair.square()).clamp_min(0.05)
        coupling = (self.coupling + move).clamp(0, LARGEST_COUPLING)
        return replace(self, coupling=coupling, field=field.clamp(-3, 3))

    def marginals(self, num_event: int) -> Tensor:
        return (1 + self._uniform(num_event)[0]) / 2

    def sample(self, shape: Shape, gen: torch.Generator, num_event: int) -> Tensor:
        """Gibbs sampling, 3 * SETTLED sweeps over colours of sites that are no neighbours."""
        spin = torch.where(torch.rand(shape, generator=gen) < 0.5, -1.0, 1.0).to(self.coupling.dtype)
        colour = self._colours(shape, num_event)
        for _ in range(3 * SETTLED):
            draw = torch.rand(shape, generator=gen, dtype=spin.dtype)
            for one in colour.unique():
                near = sum(self._arrive(spin, axis, way) for axis in self._axes(num_event, spin) for way in (1, -1))
                up = torch.sigmoid(2 * (self.coupling * near - self.field))
                spin = torch.where(colour == one, torch.where(draw < up, 1.0, -1.0), spin)
        return spin > 0

    def params(self) -> dict[str, Tensor]:
        return {"coupling": self.coupling, "field": self.field, "messages": self.messages}

    def with_params(self, params: dict[str, Tensor]) -> "Ising":
        return replace(self, **{name: params[name] for name in self.params()})

    def tail(self, name: str) -> int:
        return 1 if name == "messages" else 0

    def _uniform(self, num_event: int) -> tuple[Tensor, Tensor]:
        """Mean of sigma and of sigma_i sigma_j before any observation, inside the grid: one message for all."""
        near = 2 * (len(self.axes) if self.axes else min(num_event, 2))
        message = torch.zeros_like(self.field + self.coupling)
        for _ in range(UNIFORM):
            message = _through(self.coupling, (near - 1) * message - self.field)
        cavity = (near - 1) * message - self.field
        return torch.tanh(cavity + message), self._pair(cavity, cavity)

    def _pair(self, near: Tensor, far: Tensor) -> Tensor:
        """E sigma_i sigma_j on an edge from the cavity fields at its ends."""
        return torch.tanh(self.coupling + (_log_2cosh(near + far) - _log_2cosh(near - far)) / 2)

    def _axes(self, num_event: int, like: Tensor) -> tuple[int, ...]:
        """Axes with neighbours; one of size 1 has none."""
        axes = tuple(range(-min(num_event, 2), 0)) if self.axes is None else self.axes
        if min(axes) < -num_event:
            raise ValueError(f"ising: axes: expected -{num_event}..-1, got {axes}")
        return tuple(axis for axis in axes if like.shape[axis] > 1)

    def _start(self, llr: Tensor, num_event: int, fresh: bool = False) -> Tensor:
        count = 2 * len(self._axes(num_event, llr))
        if fresh or self.messages.shape[-1] != count:
            return llr.new_zeros(*llr.shape, count)
        return self.messages.to(llr).expand(*llr.shape, count)

    def _arrive(self, value: Tensor, axis: int, way: int) -> Tensor:
        """value of the neighbour on one side; 0 beyond an open edge (two sites are one pair, never a ring)."""
        moved = value.roll(way, axis)
        if self.cyclic and value.shape[axis] > 2:
            return moved
        edge = torch.ones(value.shape[axis], dtype=value.dtype, device=value.device)
        edge[0 if way == 1 else -1] = 0
        return moved * edge.reshape(-1, *(1,) * (-axis - 1))

    def _swept(self, llr: Tensor, messages: Tensor, num_event: int, sweeps: int) -> Tensor:
        """Messages at each site, two per axis: from the side below, from the side above."""
        axes = self._axes(num_event, llr)
        field = llr / 2 - self.field
        for _ in range(sweeps if axes else 0):
            total = field + messages.sum(-1)
            parts: list[Tensor] = []
            for i, axis in enumerate(axes):
                below, above = messages[..., 2 * i], messages[..., 2 * i + 1]
                parts.append(self._arrive(_through(self.coupling, total - above), axis, 1))
                parts.append(self._arrive(_through(self.coupling, total - below), axis, -1))
            messages = torch.stack(parts, -1)
        return messages

    def _edges(self, llr: Tensor, messages: Tensor, num_event: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Per axis: is there an edge from site i to i + 1, the cavity fields at both ends, the messages they send."""
        total = llr / 2 - self.field + messages.sum(-1)
        found = []
        for i, axis in enumerate(self._axes(num_event, llr)):
            below, above = messages[..., 2 * i], messages[..., 2 * i + 1]
            near, far = total - above, self._arrive(total - below, axis, -1)
            there = self._arrive(torch.ones_like(total), axis, -1)
            found.append((there, near, far, above))
        return found

    def _bethe(self, llr: Tensor, messages: Tensor, num_event: int) -> Tensor:
        """Bethe log partition function as one term per site."""
        value = _log_2cosh(llr / 2 - self.field + messages.sum(-1))
        for there, near, far, above in self._edges(llr, messages, num_event):
            back = _through(self.coupling, near)
            pair = torch.logaddexp(self.coupling + _log_2cosh(near + far), -self.coupling + _log_2cosh(near - far))
            value = value + there * (pair - _log_2cosh(near + above) - _log_2cosh(far + back))
        return value

    def _moments(self, llr: Tensor, messages: Tensor, num_event: int) -> tuple[Tensor, Tensor]:
        """Mean of sigma over sites and of sigma_i sigma_j over edges, per item."""
        axes = tuple(range(-num_event, 0))
        spin = torch.tanh(llr / 2 - self.field + messages.sum(-1)).mean(axes, keepdim=True)
        total, count = torch.zeros_like(spin), torch.zeros_like(spin)
        for there, near, far, _ in self._edges(llr, messages, num_event):
            total = total + (there * self._pair(near, far)).sum(axes, keepdim=True)
            count = count + there.sum(axes, keepdim=True)
        return spin, total / count.clamp_min(1)

    def _colours(self, shape: Shape, num_event: int) -> Tensor:
        """Sites of one colour are no neighbours: parity per axis, a third colour closing an odd ring."""
        colour = torch.zeros(shape, dtype=torch.int64)
        for axis in self._axes(num_event, colour):
            place = torch.arange(shape[axis]) % 2
            if shape[axis] % 2:
                place[-1] = 2
            colour = 3 * colour + place.reshape(-1, *(1,) * (-axis - 1))
        return colour


def _through(coupling: Tensor, field: Tensor) -> Tensor:
    """atanh(tanh(coupling) tanh(field)) without saturation."""
    return (softplus(2 * (field + coupling)) - softplus(2 * (field - coupling))) / 2 - coupling


def _log_2cosh(x: Tensor) -> Tensor:
    return softplus(2 * x) - x
