"""What tests of trackers through hopping soundings share: a small scene, and a first stage that is told the truth."""

from dataclasses import dataclass
from typing import Any

import torch

import hhat
from hhat.extrapolation.model import Offsets, Paths
from hhat.methods.base import Method
from hhat.ops import Kron, Select
from hhat.random import complex_normal, generator
from hhat.types import Channel, Estimate, Gaussian, Observation, Slot

SCENE = hhat.scenario(
    "srs-paths", columns=4, rows=2, num_tones=64, num_paths=3, separation_s=5e-7, snr_db=15, timing_spread_s=2e-8
)


@dataclass(frozen=True, eq=False)
class Told(Method):
    """A first stage that knows: paths at the first symbol, offsets of all symbols."""

    paths: Any = None
    offsets: Any = None

    def init(self, obs, gen):
        return {"change": torch.zeros(obs.batch_shape, dtype=torch.float64)}

    def step(self, state, obs):
        return state

    def read(self, state, obs):
        count = len(obs.op.right.index)
        offsets = Offsets(self.offsets.phase_rad[:, :count], self.offsets.timing_s[:, :count])
        h = torch.zeros(*obs.batch_shape, *obs.op.in_shape, dtype=obs.y.dtype)
        return Estimate(Gaussian(h, torch.ones(())), {"paths": self.paths, "offsets": offsets, "noise_var": 0.03})


def near(paths: Paths, size: float = 1.0) -> Paths:
    """Paths as a first stage would find them: off by some of their errors."""
    gen = generator("near")
    real = lambda x: size * torch.randn(x.shape, generator=gen, dtype=torch.float64)  # noqa: E731
    gain = paths.gain * (1 + 0.03 * size * complex_normal(tuple(paths.gain.shape), gen, torch.complex128))
    delay, cosine = paths.delay_s + 1e-9 * real(paths.delay_s), paths.cosine + 5e-3 * real(paths.cosine)
    return paths._replace(
        gain=gain, delay_s=delay, cosine=cosine, doppler_hz=paths.doppler_hz + 0.3 * real(paths.doppler_hz)
    )


def draw(num, symbols, label="tracked", scene=SCENE):
    """Slots of `num` links, the first stage that is told their paths, and h (num, rx_ant, symbol, subcarrier)."""
    gen = generator("sounding", label)
    whole = scene.slot_of(scene.drops(num, gen, symbols), gen, symbols)
    slots = [symbol_of(whole, symbol) for symbol in range(symbols)]
    return slots, Told(near(whole.truth.paths), whole.truth.offsets), whole


def symbol_of(whole, symbol):
    """One symbol of a draw of all of them, as a slot."""
    op, obs = whole.obs.op, whole.obs
    one = Kron(op.left, Select(op.right.index[symbol], op.right.size))
    return Slot(
        Channel(whole.truth.h[:, :, symbol]),
        Observation(obs.y[:, :, symbol], one, obs.noise_var, ("rx_ant", "subcarrier")),
    )


def errors(method, slots):
    """NMSE per item and slot, (slot, item), the estimates, and the last state."""
    found, estimates, last = [], [], None
    for slot, (state, est) in zip(slots, hhat.track(method, slots), strict=True):
        h = slot.truth.h
        found.append((est.belief.mean - h).abs().square().sum((-2, -1)) / h.abs().square().sum((-2, -1)))
        estimates.append(est)
        last = state
    return torch.stack(found), estimates, last


def db(x):
    return float(10 * torch.as_tensor(x).mean().log10())
