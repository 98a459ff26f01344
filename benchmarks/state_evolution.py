"""Message passing on i.i.d. sparse coefficients beside state evolution, as a Markdown table.

python -m benchmarks.state_evolution        (from the root of the repository)
"""

import torch

from hhat.priors import bernoulli_gauss, gauss_mixture
from tests.statistical.test_state_evolution import drawn

CASES = (
    ("gamp", "learned mixture of 5", gauss_mixture(), False),
    ("gamp", "learned Bernoulli-Gauss", bernoulli_gauss(0.3), False),
    ("oamp", "learned Bernoulli-Gauss", bernoulli_gauss(0.3), False),
    ("oamp", "learned Bernoulli-Gauss", bernoulli_gauss(0.3), True),
)


def main() -> None:
    torch.set_num_threads(1)
    print("| method | matrix | SNR | measured | state evolution | error / variance |\n|---|---|---|---|---|---|")
    for name, words, prior, orthogonal in CASES:
        for snr_db in (10.0, 20.0, 30.0):
            measured, predicted, ratio = drawn(name, prior, orthogonal, snr_db)
            matrix = "row-orthonormal" if orthogonal else "i.i.d."
            row = (
                f"| {name}, {words} | {matrix} | {snr_db:g} dB | {measured:.2f} dB | {predicted:.2f} dB | {ratio:.3f} |"
            )
            print(row, flush=True)


if __name__ == "__main__":
    main()
