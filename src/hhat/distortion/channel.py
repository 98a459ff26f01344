"""The channel's half of joint tracking: the engine's tracker of sparse channels, on pilots that were fused per antenna."""

import torch
from torch import Tensor

from hhat.distortion.exchange import fused
from hhat.methods.base import Method
from hhat.methods.oamp import Oamp
from hhat.methods.off_grid import OffGrid
from hhat.ops.dense import Steering
from hhat.ops.elementary import Identity
from hhat.priors.mixture import bernoulli_gauss
from hhat.tracking.dynamics import MarkovGauss
from hhat.tracking.sparse import SparseTracking
from hhat.types import Message, Observation

DYNAMICS = MarkovGauss(appear=0.1, vanish=0.01, forgetting=0.004, idle=0.2, memory=None)
"""Angles that vary by Doppler shifts of 20 Hz and slots of 1 ms. Given, not learned: the model knows no phase that
turns, for which EM makes up by forgetting ten times as fast (2 to 3 dB at 20 dB)"""
INNER_STEPS = 5


def line_channel(num_rx_ant: int) -> Method:
    """Half-wavelength line array, angles that come, go and move: Turbo-OAMP with a Markov support and Gauss-Markov
    values, a variance per angle by EM, and one Newton step per slot on the grid of sin(angle)."""
    tracker = SparseTracking(
        bernoulli_gauss(basis=Steering.ula_grid(num_rx_ant)),
        DYNAMICS,
        Oamp(),
        INNER_STEPS,
    )
    return OffGrid(inner=tracker, every=1, start_after=1)


def observed(told: Message, like: Tensor) -> Observation:
    """What all symbols say of h as an observation r = h + CN(0, d), in the precision of `like`; batch axes first."""
    r = fused(told)
    shape = (*like.shape[:-2], like.shape[-1])
    return Observation(r.mean.to(like).reshape(shape), Identity(shape[-1:]), r.var.to(like.real).reshape(shape))
