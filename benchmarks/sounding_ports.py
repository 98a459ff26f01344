"""How well ports that share a comb are told apart, as a Markdown table.

    python benchmarks/sounding_ports.py

One hop of 68 resource blocks at 30 kHz (C_SRS 61, B_SRS 2), comb 4, 4 receive antennas. Per port 8 paths with delays
even on 0 to `longest`, CN(0, 1/8) gains per antenna; 100 channels per row, generator("sounding ports", ports, longest).
SNR: E|h|^2 over the grid's noise variance, a port sending 1 / ports of the power. NMSE in dB: error energy over channel
energy on the hop's tones, all ports and antennas of a channel, mean of 100 ratios, ± 95 % of that mean. "default":
what the cyclic prefix and the other ports leave, 2.68 µs for 2 ports and 2.08 µs for 4.
"""

import math

import torch

import hhat
from hhat.nr import SoundingConfig, received, transmitted
from hhat.random import complex_normal

CHANNELS, ANTENNAS, PATHS = 100, 4, 8
SNRS_DB = (10.0, 20.0, 30.0, math.inf)


def errors(config: SoundingConfig, longest_s: float, snr_db: float, known: bool) -> torch.Tensor:
    """Ratio of each channel."""
    gen = hhat.generator("sounding ports", config.num_ports, round(longest_s * 1e9))
    tones = config.tones(0).double()
    delay = torch.rand(CHANNELS, config.num_ports, PATHS, generator=gen, dtype=torch.float64) * longest_s
    gain = complex_normal((CHANNELS, config.num_ports, ANTENNAS, PATHS), gen, torch.complex128, 1 / PATHS)
    angle = -2 * math.pi * delay[..., None] * tones * config.subcarrier_spacing_hz
    h = gain @ torch.polar(torch.ones_like(angle), angle)  # (channel, port, rx_ant, tone)
    noise_var = 10 ** (-snr_db / 10)
    sent = transmitted(config, 0, dtype=torch.complex128)[:, config.first_symbol, config.tones(0)]
    grid = torch.zeros(CHANNELS, ANTENNAS, 14, 12 * config.num_rb, dtype=torch.complex128)
    y = (h * sent[:, None]).sum(1)
    grid[:, :, config.first_symbol, config.tones(0)] = y + complex_normal(y.shape, gen, torch.complex128, noise_var)
    window = (0.0, longest_s) if known else None
    out = received(grid, config, 0, window, max(noise_var, 1e-8)).y[..., 0, :]
    return (out - h).abs().square().sum((1, 2, 3)) / h.abs().square().sum((1, 2, 3))


def main() -> None:
    torch.set_num_threads(1)
    print(
        "| ports | longest | window | "
        + " | ".join(f"{snr:g} dB" for snr in SNRS_DB).replace("inf dB", "no noise")
        + " |"
    )
    print("|---|---|---|" + "---|" * len(SNRS_DB))
    for ports in (2, 4):
        config = SoundingConfig(num_ports=ports)
        for longest in (0.3e-6, 1e-6):
            for known in (False, True):
                cells = []
                for snr_db in SNRS_DB:
                    ratio = errors(config, longest, snr_db, known)
                    spread = 1.96 * ratio.std() / math.sqrt(CHANNELS) / ratio.mean()
                    cells.append(f"{10 * ratio.mean().log10():.1f} ± {10 * (1 + spread).log10():.1f}")
                told = f"0 to {longest * 1e6:g} µs" if known else "default"
                print(f"| {ports} | {longest * 1e6:g} µs | {told} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
