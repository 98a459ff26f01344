"""`auto`: picks prior, basis and solver by what the observation holds, and says why."""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch

from hhat.methods.base import Method
from hhat.methods.covariance_mixture import CovarianceMixture
from hhat.methods.expert_spectra import spectral
from hhat.methods.linear import Lmmse
from hhat.methods.oamp import Oamp
from hhat.methods.sbl import Sbl
from hhat.ops.base import LinearOp
from hhat.ops.dense import Steering
from hhat.ops.elementary import Fourier, Identity
from hhat.ops.structured import Kron
from hhat.priors.base import Prior
from hhat.priors.cdl_experts import cdl_experts
from hhat.priors.experts import Experts
from hhat.priors.gauss import Gauss
from hhat.priors.hierarchical import pattern_coupled
from hhat.types import Estimate, Observation, Shape, State

ARRAY = 16
"""Antennas from which an axis is an array with angles worth resolving (a beam of 7 degrees)."""
BAND = 12
"""Subcarriers from which delays are worth resolving: one 3GPP resource block."""
PROFILE_AXES, PROFILE_SHAPE = ("rx_ant", "tx_ant"), (16, 64)
"""Where the covariances of the CDL profiles are tried: the size at which it was measured that this loses nowhere"""
LARGEST_DICTIONARY = 512
"""Subcarriers up to which delays are searched on a half-sample dictionary; above, on the unitary sample grid."""
DELAY_SPAN = (-0.125, 0.375)
"""Delays covered, as shares of one OFDM symbol: a cyclic prefix of a quarter, an eighth of timing error each way."""


class Choice(NamedTuple):
    method: Method
    name: str
    why: str


@dataclass(frozen=True, eq=False)
class Auto(Method):
    """Chooses among the library's methods; `solve` and `track` run the choice.

    - a prior that is Gaussian and known (a covariance): its LMMSE, which is optimal under it;
    - `experts` that are: their mixture, likewise;
    - any other prior: OAMP with it;
    - no prior, subcarriers and axes too short to resolve (under 16 antennas, symbols): delay dictionary, SBL with
      variances tied over those axes;
    - no prior, axes (rx_ant, tx_ant) of PROFILE_SHAPE: the exact covariances of CDL-A to D between half-wavelength
      lines that face each other, their scale learned, mixed with the next by evidence (`profiles=False`: not);
    - no prior, an array: angular (and delay) basis, OAMP with the pattern-coupled prior. Real channels come in
      clusters and leak between grid points; where coefficients are truly isolated give `gauss-mixture`.
    subcarriers: signed indices of the tones, where they are not contiguous.
    profiles: may the arrays of such a shape be half-wavelength lines?
    info["method"], info["why"] say what was taken.
    """

    uses_prior: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    subcarriers: tuple[int, ...] | None = None
    profiles: bool = True

    def choose(self, obs: Observation) -> Choice:
        if isinstance(self.prior, Gauss) and not self.prior.learnable:
            return Choice(Lmmse(self.prior), "lmmse", "the prior is Gaussian and known: LMMSE is optimal under it")
        if isinstance(self.prior, Experts) and self.prior.gaussian:
            why = "the experts are Gaussian and known: their mixture is optimal, in closed form"
            return Choice(CovarianceMixture(self.prior), "covariance-mixture", why)
        if self.prior is not None:
            return Choice(Oamp(self.prior), "oamp", "a prior was given: OAMP takes any")
        axes = obs.axes or ("ant",) * len(obs.op.in_shape)
        basis, tied, words = basis_for(tuple(obs.op.in_shape), axes, self.subcarriers)
        if tied:
            why = f"{words}; one variance per delay, shared by the other axes, learned from the pilots"
            return Choice(Sbl(Gauss(basis=basis), tied), "sbl", why)
        why = f"{words}; neighbouring coefficients share variances, learned from the pilots"
        coupled = Oamp(pattern_coupled(basis=basis))
        if self.profiles and axes == PROFILE_AXES and tuple(obs.op.in_shape) == PROFILE_SHAPE:
            known = cdl_experts(*PROFILE_SHAPE)
            if spectral(obs, known):
                why = f"two line arrays: covariances of CDL-A to D by evidence, and what fits none: {why}"
                mixture = CovarianceMixture(known, otherwise=coupled, learn_scale=True)
                return Choice(mixture, "covariance-mixture", why)
        return Choice(coupled, "oamp", why)

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        found = self.choose(obs)
        return found.method.resolve(obs)[0], {"method": found.name, "why": found.why}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        return self.choose(obs).method.init(obs, gen)

    def step(self, state: State, obs: Observation) -> State:
        return self.choose(obs).method.step(state, obs)

    def read(self, state: State, obs: Observation) -> Estimate:
        return self.choose(obs).method.read(state, obs)


@lru_cache(maxsize=32)
def basis_for(
    shape: Shape, axes: tuple[str, ...], subcarriers: tuple[int, ...] | None = None
) -> tuple[LinearOp | None, tuple[str | int, ...], str]:
    """The basis in which a channel with these axes is sparse, the axes that share variances, and why.

    Delays for `subcarrier` axes, angles for antenna axes of at least ARRAY elements, nothing for the rest; antenna
    axes without a basis of their own share the variances of the delays. Beside an array, delays are the unitary DFT
    of evenly spaced tones: the posterior then falls apart into one small system per delay.
    """
    parts: list[LinearOp] = []
    words: list[str] = []
    array = any(name.endswith("ant") and size >= ARRAY for name, size in zip(axes, shape, strict=True))
    for name, size in zip(axes, shape, strict=True):
        if name == "subcarrier" and size >= BAND:
            parts.append(Fourier(size) if array and _even(subcarriers) else delay_basis(size, subcarriers))
            words.append(f"{size} subcarriers: delays")
        elif name.endswith("ant") and size >= ARRAY:
            parts.append(Fourier(size))
            words.append(f"{size} antennas: angles")
        else:
            parts.append(Identity((size,)))
    tied: tuple[str | int, ...] = ()
    if any(text.endswith("delays") for text in words):
        tied = tuple(i - len(axes) for i, part in enumerate(parts) if isinstance(part, Identity))
    if not words:
        return None, (), f"axes {', '.join(axes)} of sizes {shape}: too few entries to resolve angles or delays"
    basis = parts[-1]
    for part in reversed(parts[:-1]):
        basis = Kron(part, basis)
    return basis, tied, "; ".join(words)


def _even(subcarriers: tuple[int, ...] | None) -> bool:
    """Are the tones evenly spaced, so that their DFT resolves delays?"""
    return subcarriers is None or len({b - a for a, b in itertools.pairwise(subcarriers)}) <= 1


def delay_basis(size: int, subcarriers: tuple[int, ...] | None = None) -> LinearOp:
    """Delay dictionary for tones at signed indices: half-sample steps over DELAY_SPAN of the symbol.

    The sample is that of the smallest power-of-two FFT that holds the tones. Columns have norm one. Beyond
    LARGEST_DICTIONARY tones: the unitary DFT of the tones.
    """
    index = torch.arange(size) if subcarriers is None else torch.tensor(subcarriers)
    if index.numel() != size:
        raise ValueError(f"subcarriers: expected {size} indices, got {index.numel()}")
    if size > LARGEST_DICTIONARY:
        return Fourier(size)
    span = int(index.max() - index.min()) + 1
    samples = 1 << (span - 1).bit_length()
    first, last = (round(share * samples * 2) for share in DELAY_SPAN)
    delay = torch.arange(first, last + 1, dtype=torch.float64) / 2
    return Steering.delay(index.double() / samples, delay, scale=1 / math.sqrt(size)).to(torch.complex64)
