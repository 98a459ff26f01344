"""How strong and how frequent targets are, from the map's largest values above a gate.

The cell of a target is Exp(1 + SNR), so that what it has above any gate is too, and its mean tells 1 + SNR; of noise
alone the mean excess is about 1. With the share of snapshots above the gate follows how many hold a target:

    SNR = mean(L - gate | L > gate) - 1,       presence = share(L > gate) exp((gate - 1) / (1 + SNR))

Gains that are off count: it is (1 - e0) SNR that is seen. The -1 beside the gate is the gain of fitting two numbers.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

NOISELESS = 16.0
"""Gate above which noise peaks do not count: fewer than 2e-4 per sector"""


class Levels(NamedTuple):
    """SNR after full integration as a ratio, P(target), and how many values they rest on; NaN where on none."""

    snr: float
    presence: float
    count: int


def levels(statistic: Float[Tensor, " view"], snapshots: int, gate: float | int = NOISELESS) -> Levels:
    """From the maps' largest values (all those above the gate, at least) of so many snapshots."""
    above = statistic[statistic > gate].double()
    if len(above) == 0:
        return Levels(torch.nan, torch.nan, 0)
    snr = max(0.0, float(above.mean()) - gate - 1)
    presence = len(above) / snapshots * torch.tensor((gate - 1) / (1 + snr), dtype=torch.float64).exp()
    return Levels(snr, min(1.0, float(presence)), len(above))
