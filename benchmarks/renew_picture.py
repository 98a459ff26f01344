"""Draw the README's picture: one over-the-air channel, delay x antenna, from noisy pilots and as referenced.

    python benchmarks/renew_picture.py CAPTURE.mat docs/images/renew.png

Left to right: least squares at 5 dB (re-noised), the default estimate at 5 dB, the average of both training symbols.
"""

import math
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import hhat
from hhat.methods.defaults import method_for
from hhat.random import complex_normal
from hhat.types import Observation

SNR_DB, USER, OVERSAMPLE = 5.0, 0, 8


def delay_picture(h: torch.Tensor, subcarriers: tuple[int, ...]) -> torch.Tensor:
    """|impulse response| of (antenna, subcarrier) in dB, delays -8..24 samples of a 64-point symbol, Hann window."""
    index = torch.tensor(subcarriers, dtype=torch.float64)
    delay = torch.arange(-8 * OVERSAMPLE, 24 * OVERSAMPLE + 1, dtype=torch.float64) / OVERSAMPLE
    window = torch.cos(math.pi * index / 54) ** 2
    turn = torch.exp(2j * math.pi * index[:, None] * delay / 64) * window[:, None]
    return 20 * torch.log10((h.to(turn.dtype) @ turn).abs() / window.sum())


def main(capture: str, target: str) -> None:
    torch.set_num_threads(1)
    slot = hhat.read(capture)
    reference = hhat.solve(hhat.method("ls"), slot.obs).belief.mean
    signal = (slot.obs.y.abs() ** 2).mean((-2, -1), keepdim=True)
    noise_var = signal * 10 ** (-SNR_DB / 10)
    noise = complex_normal(tuple(slot.obs.y.shape), hhat.generator("picture", SNR_DB)) * noise_var.sqrt()
    noisy = Observation(slot.obs.y + noise, slot.obs.op, noise_var, slot.obs.axes)
    panels = {"least squares, 5 dB": hhat.solve(hhat.method("ls"), noisy).belief.mean}
    est = hhat.solve(method_for("auto", noisy, slot.about), noisy)
    panels["hhat estimate, 5 dB"] = est.belief.mean
    panels["reference: both symbols averaged"] = reference
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), sharey=True, layout="constrained")
    top = float(delay_picture(reference[USER], slot.about.subcarriers).max())
    for axis, (title, h) in zip(axes, panels.items(), strict=True):
        error = (h[USER] - reference[USER]).abs().square().sum() / reference[USER].abs().square().sum()
        score = "" if h is reference else f"\nerror {10 * math.log10(float(error)):.1f} dB"
        picture = delay_picture(h[USER], slot.about.subcarriers)
        image = axis.imshow(
            picture,
            aspect="auto",
            origin="lower",
            extent=(-8, 24, -0.5, 7.5),
            vmin=top - 30,
            vmax=top,
            cmap="cividis",
            interpolation="nearest",
        )
        axis.set_title(title + score, fontsize=10)
        axis.set_xlabel("delay (samples of 0.2 µs)")
    axes[0].set_ylabel("antenna")
    figure.colorbar(image, ax=axes, label="dB")
    figure.savefig(target, dpi=100)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
