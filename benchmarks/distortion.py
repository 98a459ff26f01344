"""How much receive chains distort, by amplifier and back-off, and how well amplifiers fit measured records.

python benchmarks/distortion.py                 table of docs/impairments.md: presets and shipped records
python benchmarks/distortion.py FOLDER ...      fits of whole records (OpenDPD's folders), delays by sample or by symbol
"""

import sys

import torch

from hhat.impairments.amplifier import Amplifier
from hhat.impairments.chain import Chain
from hhat.impairments.drift import AMPLIFIER_NOISE, Drift, Theta
from hhat.impairments.measured import SHIPPED, Fitted, Record, fitted, read, shipped
from hhat.impairments.presets import PRESETS
from hhat.random import complex_normal, generator

SEQUENCES, SYMBOLS, NUM_RX_ANT, SEED = 400, 10, 64, 0
BACK_OFFS = (0.1, 0.2, 0.25, 0.3, 0.35, 0.4)
SHARES = (0.5, 0.71, 1.0)
RECEIVERS = 16


def level(error: torch.Tensor) -> str:
    """dB of the mean error per unit input power, and its 95 % interval over sequences."""
    each = error.abs().square().mean((1, 2))
    mean, half = each.mean(), 1.96 * each.std() / len(each) ** 0.5
    db = [float(10 * torch.log10(value.clamp_min(1e-12))) for value in (mean, mean - half, mean + half)]
    return f"{db[0]:.1f} ({db[1]:.1f} to {db[2]:.1f})"


def row(name: str, back_off: float, x: torch.Tensor) -> str:
    amplifier = Amplifier(name, back_off)
    parts = Theta.alike(amplifier, (NUM_RX_ANT,)).chain(amplifier).parts
    linear = Chain((parts[0], amplifier.linear_part(), parts[2]))
    whole = Chain(parts)(x)
    return (
        f"| `{name}` | {back_off:.3g} | {level(whole - x)} | {level(whole - linear(x))} | {level(amplifier(x) - x)} |"
    )


def white(found: Fitted, x: torch.Tensor) -> str:
    return level(Amplifier(found.polynomial)(x) - x)


def fits(name: str, record: Record, x: torch.Tensor) -> None:
    for stride in (1, record.stride):
        found = fitted(record, stride=stride)
        count = len(record.clean["train"]), len(record.clean["test"])
        words = f"{count[0]}, {count[1]} | {stride} | {found.train_nmse_db:.1f} | {found.test_nmse_db:.1f}"
        print(f"| {name} | {words} | {white(found, x)} |", flush=True)


def drifted(kind: str) -> None:
    """||f_t(x) - f(x)||^2 / ||f(x)||^2 against the receiver f that models are trained on, receivers on the batch axis:
    as it is, after the best common gain of all chains, and after the best gain of each chain."""
    law, learned, shape = Drift(amplifier_noise=kind), Amplifier("warp"), (RECEIVERS, NUM_RX_ANT)
    x = complex_normal((RECEIVERS, 50, NUM_RX_ANT), generator("distortion", SEED))
    before = Theta.alike(learned, shape).chain(learned)(x)
    theta, target, gen = law.begin(learned, shape), law.towards(learned, shape), generator("drift", kind, SEED)
    for slot in range(601):
        if slot % 200 == 0:
            now = theta.chain(learned)(x)
            cells = [level((now - before) / before.abs().square().mean().sqrt())]
            for axes in ((1, 2), (1,)):
                gain = (before * now.conj()).sum(axes, keepdim=True) / now.abs().square().sum(axes, keepdim=True)
                cells.append(level((gain * now - before) / before.abs().square().mean().sqrt()))
            print(f"| `{kind}` | {slot} | {' | '.join(cells)} |", flush=True)
        theta = law.step(theta, target, gen)


def main(folders: list[str]) -> None:
    torch.set_num_threads(1)
    x = complex_normal((SEQUENCES, SYMBOLS, NUM_RX_ANT), generator("distortion", SEED))
    if folders == ["drift"]:
        for kind in AMPLIFIER_NOISE:
            drifted(kind)
        return
    if folders:
        for folder in folders:
            fits(folder.rstrip("/").split("/")[-1], read(folder), x)
        return
    for name in (*PRESETS, *SHIPPED):
        own = Amplifier(name).back_off
        assert own is not None
        for back_off in BACK_OFFS if name in PRESETS else [own * share for share in SHARES]:
            print(row(name, back_off, x), flush=True)
    for name in SHIPPED:
        fits(name, shipped(name), x)


if __name__ == "__main__":
    main(sys.argv[1:])
