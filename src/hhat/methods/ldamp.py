"""`ldamp`: AMP whose denoiser is a trained convolutional network."""

from dataclasses import dataclass, field, replace

import torch

from hhat.methods.amp import Gamp
from hhat.methods.base import Problem
from hhat.priors.base import Prior
from hhat.priors.dncnn import Dncnn
from hhat.priors.gauss import Gauss
from hhat.types import Observation


@dataclass(frozen=True, eq=False)
class Ldamp(Gamp):
    """`Gamp` with one variance for all coefficients and the prior `dncnn`:

      z = y - A x + z_old v_p / (v_p' + s2),   r = x + A^H z / |A|^2,   x = D(r, v_r),   v = v_r tr(dD/dr) / N

    which is AMP with its Onsager term, the divergence by one fixed probe. From `Gamp` come damping, the approach of the
    noise from above, and the fresh start of items that diverge. The noise level of r is that which v and s2 promise.

    prior: None: `Dncnn(weights)`, for channels of 16 x 64 antennas with E|h|^2 = 1 over their profile
    weights: a file that `hhat train ldamp` wrote; None: those of the package
    average_axes: None: all
    Departures: the paper takes |z|^2 / M for the noise level of r, has a network of its own for each of ten steps (an
    unfolded loop of fixed length) and another for each range of noise levels; here one network serves all, and the loop
    runs until it stands still.
    Raises ValueError for channels of a shape that the prior is not for.
    Source: Metzler, Mousavi & Baraniuk, NIPS 2017; for channels He, Wen, Jin & Li, IEEE WCL 2018.
    """

    prior: Prior | None = None
    average_axes: tuple[int, ...] | None = None
    # where they lie is no part of what they are: the prior holds the numbers
    weights: str | None = field(default=None, metadata={"recipe": False})
    max_steps: int = 60

    def resolve(self, obs: Observation) -> tuple["Ldamp", dict[str, str]]:
        if self.prior is not None:
            return self, {}
        prior = Dncnn(self.weights)
        assert prior.basis is not None
        shape = tuple(prior.basis.out_shape)
        if tuple(obs.op.in_shape) != shape:
            raise ValueError(
                f"ldamp: weights: expected some for channels {tuple(obs.op.in_shape)}; these are for {shape}"
            )
        return replace(self, prior=prior), {"prior": "dncnn"}

    @classmethod
    def example(cls, gen: torch.Generator) -> "Ldamp":
        return cls(Gauss(1.0))

    def _axes(self, task: Problem) -> tuple[int, ...]:
        return task.event() if self.average_axes is None else self.average_axes
