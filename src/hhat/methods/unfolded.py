"""`sbl-cnn`, `sbl-gnn`: unfolded sparse Bayesian learning, `sbl` with a learned M-step per step."""

from dataclasses import dataclass, field
from typing import ClassVar

from hhat.methods.sbl import Sbl
from hhat.priors.learned import learned_m_step


@dataclass(frozen=True, eq=False)
class Unfolded(Sbl):
    """`Sbl` whose M-step is a network with weights of its own for every step, so that its steps are layers.

    weights: a file that `hhat train` wrote; None: those that come with the library. m_step: made
    of them where not given.
    max_steps None: as many as there are layers. Fewer is an early exit; more repeat the last layer.
    Learned for known noise and for variances per coefficient: noise that is not given is learned by EM besides.
    """

    model: ClassVar[str] = ""
    # where they lie is no part of what they are: the M-step holds the numbers
    weights: str | None = field(default=None, metadata={"recipe": False})

    def __post_init__(self):
        if self.tied_axes:
            raise ValueError(f"{self.model}: tied_axes: expected (), got {self.tied_axes}: variances are learned apart")
        if self.m_step is None:
            object.__setattr__(self, "m_step", learned_m_step(self.model, self.weights))


@dataclass(frozen=True, eq=False)
class SblCnn(Unfolded):
    """The M-step is `ConvolutionalMStep`: 3x3 circular convolutions over the last two axes of the coefficients, as
    trained on angles and delays of the units of a near-field array. Source: hhat."""

    model: ClassVar[str] = "sbl-cnn"


@dataclass(frozen=True, eq=False)
class SblGnn(Unfolded):
    """The M-step is `GraphMStep`: messages between all coefficients. Source: A. Tang et al. 2025, algorithm 1,
    corrected; for the departures see `GraphMStep`. After the last layer one more E-step is taken, as in `Sbl`."""

    model: ClassVar[str] = "sbl-gnn"
