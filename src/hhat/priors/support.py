"""Which coefficients are active, as a random field: p(s), s in {0, 1}, apart from how large active ones are."""

import abc

import torch
from torch import Tensor

from hhat.types import Shape


class Support(abc.ABC):
    """p(s) over the event axes of x. What x says of s comes in as log-likelihood ratios llr = log p(r|s=1)/p(r|s=0),
    (*batch, *event), and what goes out is in log-odds too: nothing underflows.

    Parameters broadcast to (*batch, *event); messages that are kept from call to call have one more axis at the end.
    `num_event` says how many of llr's axes are event axes.
    """

    @abc.abstractmethod
    def infer(self, llr: Tensor, num_event: int) -> tuple[Tensor, "Support"]:
        """log-odds of s_n from everything but llr_n (the posterior's are these + llr); the field with its messages."""

    @abc.abstractmethod
    def log_evidence(self, llr: Tensor, num_event: int) -> Tensor:
        """log E_s prod_n sigmoid(+-llr_n), + where s_n = 1: one number per batch item, free of large terms."""

    @abc.abstractmethod
    def learn(self, llr: Tensor, num_event: int) -> "Support":
        """One step towards the parameters that explain llr best, pooled over an item's event axes; to be asked of the
        field that `infer(llr)` gave."""

    @abc.abstractmethod
    def marginals(self, num_event: int) -> Tensor:
        """P(s_n = 1) before any observation, for a typical n; broadcasts to (*batch, *event)."""

    @abc.abstractmethod
    def sample(self, shape: Shape, gen: torch.Generator, num_event: int) -> Tensor:
        """Draws (bool) of this shape."""

    @abc.abstractmethod
    def params(self) -> dict[str, Tensor]:
        """The parameter and message tensors by name."""

    @abc.abstractmethod
    def with_params(self, params: dict[str, Tensor]) -> "Support":
        """The same field with other tensors."""

    def tail(self, name: str) -> int:
        """Axes of a parameter behind its event axes."""
        return 0


def checked(name: str, value: Tensor | float | int, low: float | int, high: float | int) -> Tensor:
    """A real parameter tensor strictly between bounds; ValueError says what came."""
    found = torch.as_tensor(value)
    found = found if found.is_floating_point() else found.float()
    if not bool(((found > low) & (found < high)).all()):
        raise ValueError(f"{name}: expected values between {low:g} and {high:g}, got {found.flatten()[:4].tolist()}")
    return found
