"""A method whose priors take seconds to make, made when it is first run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from hhat.methods.base import Method
from hhat.types import Estimate, Observation, State


@dataclass(frozen=True, eq=False)
class Later(Method):
    """make(*settings), once an observation is there: a plan, which builds every method, then takes no seconds.

    make: a function that remembers what it made
    """

    variance: ClassVar[str] = "posterior"
    make: Callable[..., Any] | None = None
    settings: tuple[Any, ...] = ()

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        return self._method.resolve(obs)

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        return self._method.init(obs, gen)

    def step(self, state: State, obs: Observation) -> State:
        return self._method.step(state, obs)

    def read(self, state: State, obs: Observation) -> Estimate:
        return self._method.read(state, obs)

    @property
    def _method(self) -> Method:
        if self.make is None:
            raise ValueError("later: make: expected a function that makes the method, got None")
        return self.make(*self.settings)
