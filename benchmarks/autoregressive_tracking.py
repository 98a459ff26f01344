"""Ten slots of an AR(1) sequence of CDL-C draws: priors with and without what earlier slots told.

h_1 = w_1, h_t = 0.95 h_{t-1} + sqrt(1 - 0.95^2) w_t, w_t fresh draws of `cdl` (C, 16 x 64, horizontal, fixed);
QPSK pilots, in every slot new ones or the same. SNR = 64 / noise_var.
NMSE: error energy over channel energy per sequence in the last three slots; mean over sequences in dB and half of
its 95 % interval. Seed: generator("autoregressive", snr_db, pilots).

    python benchmarks/autoregressive_tracking.py [new|same] [snr_db ...]
"""

import sys
import time

import torch
from torch import Tensor

import hhat
from hhat.methods.base import Method
from hhat.methods.oamp import Oamp
from hhat.ops import Dense, Identity, Kron
from hhat.priors import Gauss
from hhat.priors.diffusion import Diffusion
from hhat.random import complex_normal, generator
from hhat.tracking import AutoregressiveTracking, SparseTracking
from hhat.types import Observation

SEQUENCES, SLOTS, LAST, PILOTS, CORRELATION = 20, 10, 3, 19, 0.95
RX, TX = 16, 64


def sequence(snr_db: float, new: bool) -> tuple[list[Tensor], list[Observation]]:
    """Channels and observations slot by slot."""
    gen = generator("autoregressive", snr_db, "new" if new else "same")
    scenario = hhat.scenario("cdl", profile="C")
    noise_var = TX * 10 ** (-snr_db / 10)
    hs, slots = [], []
    h, pilots = scenario.channels(SEQUENCES, gen), None
    for t in range(SLOTS):
        if t:
            h = CORRELATION * h + (1 - CORRELATION**2) ** 0.5 * scenario.channels(SEQUENCES, gen)
        if pilots is None or new:
            sign = torch.randint(0, 2, (2, PILOTS, TX), generator=gen) * 2.0 - 1
            pilots = Kron(Identity((RX,)), Dense(torch.complex(sign[0], sign[1]) / 2**0.5))
        y = pilots.apply(h) + complex_normal((SEQUENCES, RX, PILOTS), gen, var=noise_var)
        hs.append(h)
        slots.append(Observation(y, pilots, noise_var, ("rx_ant", "tx_ant")))
    return hs, slots


def kalman(slots: list[Observation]) -> list[Tensor]:
    """The exact Kalman filter of the true covariance: what is best among linear filters."""
    c = hhat.scenario("cdl", profile="C").covariance(torch.complex128)
    p, m, found = c, torch.zeros(SEQUENCES, RX * TX, dtype=torch.complex128), []
    for t, slot in enumerate(slots):
        if t:
            m, p = CORRELATION * m, CORRELATION**2 * p + (1 - CORRELATION**2) * c
        a = slot.op.dense(torch.complex64).to(c.dtype)
        y = slot.y.reshape(SEQUENCES, -1).to(a.dtype)
        inside = a @ p @ a.mH + float(slot.noise_var) * torch.eye(len(a), dtype=a.dtype)
        gain = torch.linalg.solve(inside, a @ p).mH
        m, p = m + (y - m @ a.mT) @ gain.mT, p - gain @ a @ p
        found.append(m.reshape(SEQUENCES, RX, TX))
    return found


def exact_covariance() -> Gauss:
    """In the covariance's eigenvectors, where AR(1) coefficients are independent."""
    values, vectors = torch.linalg.eigh(hhat.scenario("cdl", profile="C").covariance(torch.complex128))
    basis = Dense(vectors.to(torch.complex64), in_shape=(RX, TX), out_shape=(RX, TX))
    return Gauss(values.clamp_min(1e-7).float().reshape(RX, TX), basis=basis)


def rows() -> dict[str, Method]:
    expert = Diffusion(weights="cdl-c")
    bins = Gauss(expert.moments().var, basis=expert.basis)
    exact, single = exact_covariance(), Oamp(average_axes=(), damping=1.0)
    return {
        "sparse-tracking": SparseTracking(Gauss(basis=expert.basis, learnable=True)),
        "bins, per slot": Oamp(bins, max_steps=100),
        "bins, tracking": AutoregressiveTracking(bins, CORRELATION),
        "expert, tracking": AutoregressiveTracking(expert, CORRELATION),
        "expert, per slot": Oamp(expert, max_steps=100),
        "covariance, per slot": hhat.method("lmmse", prior=exact),
        "covariance, tracking": AutoregressiveTracking(exact, CORRELATION, single, 8),
    }


def told(errors: Tensor) -> str:
    mean, half = errors.mean(), 1.96 * errors.std() / len(errors) ** 0.5
    return f"{10 * mean.log10():7.2f} +- {10 * (1 + half / mean).log10():.2f} dB"


def error(found: list[Tensor], hs: list[Tensor]) -> Tensor:
    pairs = list(zip(found[-LAST:], hs[-LAST:], strict=True))
    lost = sum((f - h).abs().square().sum((-1, -2)) for f, h in pairs)
    return lost / sum(h.abs().square().sum((-1, -2)) for _, h in pairs)


def main(pilots: str = "new", *snrs: str) -> None:
    torch.set_num_threads(1)
    for snr_db in map(float, snrs or ("10", "20")):
        hs, slots = sequence(snr_db, pilots == "new")
        print(f"{snr_db:g} dB, {pilots} pilots", flush=True)
        print(f"  {'exact Kalman filter':22s} {told(error(kalman(slots), hs))}", flush=True)
        for name, method in rows().items():
            start = time.perf_counter()
            some = slots if method.tracks else slots[-LAST:]
            ests = [est for _, est in hhat.track(method, some)]
            took = (time.perf_counter() - start) / len(some) / SEQUENCES
            errors = error([est.belief.mean for est in ests], hs)
            last = ests[-1].belief
            ratio = float((last.mean - hs[-1]).abs().square().sum() / last.var.expand(hs[-1].shape).sum())
            print(f"  {name:22s} {told(errors)}  error/variance {ratio:.2f}  {1e3 * took:.0f} ms", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
