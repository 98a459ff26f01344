"""Trackers of hopping soundings on 3GPP urban macro drops: error symbol by symbol, what their variance covers, time.

    python benchmarks/hop_tracking.py srs-extrapolation --hops 2 --drops 40 --symbols 20
    python benchmarks/hop_tracking.py srs-extrapolation --hops 4 --lags --speed 30

SNR: 1 / noise_var, each drop's mean |h|^2 over band, antennas and symbols being 1. NMSE: per drop and symbol over all
tones and antennas, with the symbol's phase and timing; mean over drops and symbols, then dB; median over drops of their
mean over symbols, 95 % interval by 2000 resamplings of drops. Time: of this process, per user and symbol.
"""

import argparse
import time

import torch

import hhat
from hhat import registry
from hhat.extrapolation.predict import predict
from hhat.ops import Kron, Select
from hhat.random import generator
from hhat.types import Observation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="a tracker by name, with settings after commas: em-turbo,em_step=0")
    parser.add_argument("--hops", type=int, default=2)
    parser.add_argument("--drops", type=int, default=40)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--symbols", type=int, default=20, help="after the 2 hops of the first stage")
    parser.add_argument("--snr", type=float, default=15.0)
    parser.add_argument("--speed", type=float, default=3.0)
    parser.add_argument("--lags", action="store_true", help="the channel 0 to 5 ms after each symbol instead")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lags = (1e-3, 2.5e-3, 5e-3) if asked.lags else ()
    first = 2 * asked.hops
    scene = hhat.scenario(
        "srs-uma",
        hops=asked.hops,
        num_symbols=first + asked.symbols,
        snr_db=asked.snr,
        speed_kmh=asked.speed,
        lags_s=lags,
    )
    drawn = scene.draw(asked.drops, generator("e5", "uma"))
    name, *settings = asked.method.split(",")
    given = dict(text.split("=") for text in settings)
    method = registry.build("methods", name, {"model": scene.model, **{k: float(v) for k, v in given.items()}})
    errors, covered, late = [], [], []
    spent = 0.0
    for start in range(0, asked.drops, asked.batch):
        some, state, own = slice(start, start + asked.batch), None, []
        for m in range(first + asked.symbols):
            tones = drawn.obs.op.right.index[m]
            op = Kron(drawn.obs.op.left, Select(tones, scene.num_tones))
            obs = Observation(drawn.obs.y[some, :, m], op, drawn.obs.noise_var, ("rx_ant", "subcarrier"))
            before = time.process_time()
            ((state, est),) = hhat.track(method, [obs], state)
            spent += time.process_time() - before if m >= first else 0.0
            if m < first:
                continue
            h = drawn.truth.h[some, :, m]
            error = (est.belief.mean - h).abs().square()
            own.append(error.sum((1, 2)) / h.abs().square().sum((1, 2)))
            out = torch.ones(h.shape[-1], dtype=torch.bool)
            out[tones] = False
            var = est.belief.var.expand(h.shape)[..., out]
            covered.append(
                torch.stack([(error[..., out] < 2.9957 * var).double().mean(), error[..., out].mean(), var.mean()])
            )
            if lags:
                found = predict(scene.model, state, torch.tensor((0.0, *lags)))
                true = torch.cat([h[:, None], drawn.truth.h_at[some, :, :, m]], 1).movedim(1, 2)
                turn = (found.mean.conj() * true).sum((1, 3), keepdim=True)
                off = (found.mean * turn / turn.abs() - true).abs().square()
                size = true.abs().square().sum((1, 3))
                late.append(torch.stack([off.sum((1, 3)) / size, found.var.sum((1, 3)) * h.shape[1] / size], -1))
        errors.append(torch.stack(own, 1))
    nmse = torch.cat(errors).double()
    of_drops = nmse.mean(1)
    picks = torch.randint(asked.drops, (2000, asked.drops), generator=generator("resampled"))
    low, high = (db(x) for x in of_drops[picks].median(1).values.quantile(torch.tensor([0.025, 0.975]).double()))
    print(f"{asked.method}: {asked.hops} hops, {asked.drops} drops, {asked.symbols} symbols, {asked.snr:g} dB")
    middle, worst = db(of_drops.median()), db(of_drops.max())
    print(f"NMSE mean {db(nmse.mean()):.1f}, median {middle:.1f} ({low:.1f}..{high:.1f}), worst {worst:.1f} dB")
    print("median by symbol:", " ".join(f"{db(x):.1f}" for x in nmse.median(0).values))
    cover, error, var = torch.stack(covered).mean(0)
    print(f"tones not sounded: {100 * cover:.0f} % within their 95 %, error {db(error):.1f}, variance {db(var):.1f} dB")
    print(f"{1e3 * spent / asked.drops / asked.symbols:.0f} ms of one core per user and symbol, batch {asked.batch}")
    if late:
        for lag, (off, var) in zip((0.0, *lags), torch.cat(late).mean(0), strict=True):
            print(f"{1e3 * lag:g} ms later, up to a common phase: error {db(off):.1f}, variance {db(var):.1f} dB")


def db(x: torch.Tensor) -> float:
    return 10 * float(x.log10())


if __name__ == "__main__":
    main()
