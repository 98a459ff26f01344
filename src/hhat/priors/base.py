"""`Prior`: what is known of the coefficients x alone. The channel is h = basis(x)."""

import abc
from typing import Any

import torch
from torch import Tensor

from hhat.ops.base import LinearOp
from hhat.ops.linalg import squared
from hhat.types import Gaussian, Shape


class Prior(abc.ABC):
    """p(x) for coefficients (*batch, *event), event axes as many as `ndim`.

    Subclasses are frozen dataclasses with at least
      basis:     operator from coefficients to the channel; None is the identity
      ndim:      number of event axes of x
      learnable: are the parameters estimated from the observation by EM, or known?
      tied_axes: event axes (negative) over which learned parameters are shared; None: all of them
    Parameter tensors have the shape (*batch, *event or 1, ...).
    """

    basis: LinearOp | None
    ndim: int
    learnable: bool
    tied_axes: tuple[int, ...] | None

    @abc.abstractmethod
    def denoise(self, r: Gaussian) -> Gaussian:
        """Posterior mean and variance of x given r.mean = x + CN(0, r.var), entry by entry."""

    @abc.abstractmethod
    def moments(self) -> Gaussian:
        """Mean and variance of x before any observation (they broadcast to x)."""

    @abc.abstractmethod
    def sample(self, shape: Shape, gen: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
        """Coefficients of this shape (*batch, *event)."""

    @abc.abstractmethod
    def scaled(self, c: Tensor | float) -> "Prior":
        """The prior of c x."""

    @abc.abstractmethod
    def log_evidence(self, r: Gaussian) -> Tensor:
        """log p(r.mean), natural log, summed over event axes: one number per batch item."""

    @abc.abstractmethod
    def learn(self, r: Gaussian) -> "Prior":
        """One step on the parameters from r; where `exact_em`, `log_evidence(r)` never decreases."""

    @property
    def exact_em(self) -> bool:
        """Is `learn` an exact EM step, so that the evidence never decreases?"""
        return True

    @abc.abstractmethod
    def params(self) -> dict[str, Tensor]:
        """The parameter tensors by name."""

    @abc.abstractmethod
    def with_params(self, params: dict[str, Tensor]) -> "Prior":
        """The same prior with other parameter tensors."""

    @classmethod
    @abc.abstractmethod
    def example(cls, gen: torch.Generator) -> "Prior":
        """A small instance for the contract tests."""

    def expand(self, batch_shape: Shape, event_shape: Shape, like: Tensor) -> "Prior":
        """Parameters with their own copy per batch item, in the precision and on the device of `like`."""
        from dataclasses import replace

        if self.tied_axes is not None and any(not -len(event_shape) <= axis < 0 for axis in self.tied_axes):
            raise ValueError(f"prior: tied_axes: expected numbers -{len(event_shape)}..-1, got {self.tied_axes}")
        shaped: Any = replace(self, ndim=len(event_shape))  # type: ignore[type-var]
        return shaped.with_params(
            {
                name: per_item(f"prior: {name}", value, self.tail(name), batch_shape, event_shape, like)
                for name, value in self.params().items()
            }
        )

    def tail(self, name: str) -> int:
        """Axes of a parameter behind its event axes (a mixture's components)."""
        return 0

    def event_axes(self) -> tuple[int, ...]:
        return tuple(range(-self.ndim, 0))

    def tied(self) -> tuple[int, ...]:
        return self.event_axes() if self.tied_axes is None else self.tied_axes


def per_item(name: str, value: Tensor, tail: int, batch_shape: Shape, event_shape: Shape, like: Tensor) -> Tensor:
    """A parameter (*event or less, *tail) with a copy per batch item, in the precision and on the device of `like`.

    Raises ValueError where its event axes do not broadcast to `event_shape`.
    """
    value = value.to(like.device, like.dtype if value.is_complex() else like.real.dtype)
    missing = len(event_shape) + tail - value.ndim
    value = value.reshape((1,) * missing + tuple(value.shape)) if missing > 0 else value
    own = value.ndim - len(event_shape) - tail
    have = tuple(value.shape[own : own + len(event_shape)])
    if any(n not in (1, want) for n, want in zip(have, event_shape, strict=True)):
        raise ValueError(f"{name}: expected a shape that broadcasts to {event_shape}, got {have}")
    return value.expand(*batch_shape, *value.shape[own:]).clone()


def power(prior: Prior) -> Tensor:
    """Mean of E|x|^2 over the event axes, kept as axes of size 1."""
    now = prior.moments()
    second = squared(now.mean) + now.var
    return second.mean(prior.event_axes(), keepdim=True) if second.ndim >= prior.ndim else second
