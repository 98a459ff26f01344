"""A unit is a pure function: request -> answer, both flat dicts of tensors. Nothing in it knows where it runs."""

import abc
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.types import Observation, Shape

Message = dict[str, Tensor]
"""What travels between units and centre."""


class Lost(NamedTuple):
    """In place of an answer: why there is none."""

    why: str


class UnitsLostError(RuntimeError):
    """No unit answered with anything usable: there is no estimate to give."""


class Job(abc.ABC):
    """What a unit does with a request. Subclasses are frozen dataclasses and hold no tensors of a request."""

    @abc.abstractmethod
    def answer(self, obs: Observation, request: Message) -> Message:
        """obs: the unit's own pilots, operator and noise. Raises ValueError for what no unit could do."""

    @abc.abstractmethod
    def shapes(self, obs: Observation) -> dict[str, Shape]:
        """What a sound answer holds: every tensor finite, of this shape."""

    def fault(self, obs: Observation, answer: Message) -> str:
        """What else is wrong with an answer of sound shapes, a code out of range say; empty where nothing is."""
        return ""


@dataclass(frozen=True, eq=False)
class Unit:
    """A processing unit: its combiner (with what was factored of it), names of axes, and its job with its weights."""

    op: LinearOp
    job: Job
    axes: tuple[str, ...] | None = None

    def answer(self, request: Message) -> Message:
        """request: `y`, `noise_var` where it is known, and what the job asks for."""
        return self.job.answer(self.observed(request), request)

    def observed(self, request: Message) -> Observation:
        return Observation(request["y"], self.op, request.get("noise_var"), self.axes)

    def checked(self, request: Message, answer: Message | Lost) -> Message | Lost:
        """The answer, or why it is refused: a unit that sends nonsense is as good as lost, and safer so."""
        if isinstance(answer, Lost):
            return answer
        shapes = self.job.shapes(self.observed(request))
        if not isinstance(answer, dict) or answer.keys() != shapes.keys():
            return Lost(
                f"refused: expected {sorted(shapes)}, got {sorted(answer) if isinstance(answer, dict) else '?'}"
            )
        for name, shape in shapes.items():
            value = answer[name]
            if not isinstance(value, Tensor) or tuple(value.shape) != tuple(shape):
                return Lost(f"refused: {name}: expected shape {tuple(shape)}, got {tuple(getattr(value, 'shape', ()))}")
            if not bool(torch.isfinite(value).all()):
                return Lost(f"refused: {name} is not finite")
        fault = self.job.fault(self.observed(request), answer)
        return Lost(f"refused: {fault}") if fault else answer
