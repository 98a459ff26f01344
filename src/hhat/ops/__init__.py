"""The world's linear maps and the exact Gaussian posterior through them. Knows y = A x, nothing else."""

from hhat.ops.base import Adjoint, LinearOp
from hhat.ops.compose import Compose
from hhat.ops.dense import Dense, Steering
from hhat.ops.elementary import Diagonal, Fourier, Identity, Select
from hhat.ops.hops import Hops
from hhat.ops.khatri_rao import KhatriRao
from hhat.ops.polar import Polar
from hhat.ops.posterior import Posterior, condition, posterior
from hhat.ops.structured import BlockDiag, Kron, Stack
from hhat.ops.tones import Tones

__all__ = [
    "Adjoint",
    "BlockDiag",
    "Compose",
    "Dense",
    "Diagonal",
    "Fourier",
    "Hops",
    "Identity",
    "KhatriRao",
    "Kron",
    "LinearOp",
    "Polar",
    "Posterior",
    "Select",
    "Stack",
    "Steering",
    "Tones",
    "condition",
    "posterior",
]
