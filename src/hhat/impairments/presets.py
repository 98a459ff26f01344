"""Named amplifiers with their sources; `preset` finds them, the measured ones and a user's own folder."""

import os
from functools import lru_cache

import torch

from hhat.impairments.polynomial import Polynomial, memory

BACK_OFF = 0.3
"""rms of the input where the published polynomials hold for peaks of about 1: 10.5 dB below."""


def _table(*rows: list[complex]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.complex128)


PRESETS = {
    "warp": Polynomial(
        _table(
            [0.9295 - 0.0001j, 0.2939 + 0.0005j, -0.1270 + 0.0034j, 0.0741 - 0.0018j],
            [0.1419 - 0.0008j, -0.0735 + 0.0833j, -0.0535 + 0.0004j, 0.0908 - 0.0473j],
            [0.0084 - 0.0569j, -0.4610 + 0.0274j, -0.3011 - 0.1403j, -0.0623 - 0.0269j],
        ),
        (1, 3, 5),
        memory(4),
        BACK_OFF,
        source="WARP radio board, default model of the ILA-DPD project (C. Tarver), its seventh order left out",
    ),
    "ding": Polynomial(
        _table(
            [1.0513 + 0.0904j, -0.0680 - 0.0023j, 0.0289 - 0.0054j],
            [-0.0542 - 0.2900j, 0.2234 + 0.2317j, -0.0621 - 0.0932j],
            [-0.9657 - 0.7028j, -0.2451 - 0.3735j, 0.1229 + 0.1508j],
        ),
        (1, 3, 5),
        memory(3),
        0.25,
        source="class AB amplifier of Ding et al. 2004, IEEE Trans. Commun. 52(1), memory polynomial",
    ),
    "gan-2ghz": Polynomial(
        _table(
            [0.999952 - 0.00981788j],
            [-0.0618171 + 0.118845j],
            [-1.69917 - 0.464933j],
            [3.27962 + 0.829737j],
            [-1.80821 - 0.454331j],
        ),
        (1, 3, 5, 7, 9),
        memory(1),
        BACK_OFF,
        1.0,
        "GaN amplifier at 2 GHz, 3GPP R4-165901, without memory",
    ),
    "gan-2ghz-lagging": Polynomial(
        _table(
            [0.930707 - 0.0506493j, 0.176832 + 0.0265921j, -0.0625941 - 0.0142818j, 0.0946171 - 0.0134503j],
            [-0.134627 + 0.195504j, -0.411554 - 0.0417628j, 0.0956533 + 0.00900184j, -0.22721 + 0.102407j],
            [-1.4589 - 0.410569j, 0.795672 + 0.146965j, -0.197256 - 0.0252242j, 0.825701 - 0.485074j],
            [2.97014 + 0.552334j, -0.904609 - 0.134671j, 0.235044 + 0.0097242j, -1.35047 + 0.945727j],
            [-1.66244 - 0.229841j, 0.364885 + 0.0256412j, -0.101881 + 0.00776414j, 0.754396 - 0.612916j],
        ),
        (1, 3, 5, 7, 9),
        (*memory(3), (0, 3)),
        BACK_OFF,
        1.0,
        "GaN amplifier at 2 GHz, 3GPP R4-165901, generalised memory polynomial at 200 MHz; its terms that look ahead "
        "(signals or envelopes of later samples) are left out",
    ),
}
"""By name. The polynomials of R4-165901 hold for amplitudes up to 1; as in their reference code, more is cut to it."""


def preset(name: str) -> Polynomial:
    """One of PRESETS, a measured amplifier that ships (`hhat.impairments.measured.SHIPPED`), or a folder of records.

    Raises ValueError for a name that is none of these, and what `hhat.impairments.measured.read` raises.
    """
    from hhat.impairments.measured import SHIPPED, fitted, read

    if name in PRESETS:
        return PRESETS[name]
    if name in SHIPPED:
        return _cached(name)
    if os.path.isdir(name):
        return fitted(read(name)).polynomial
    there = ", ".join((*PRESETS, *SHIPPED))
    raise ValueError(f"amplifier: expected one of {there} or a folder of records, got '{name}'")


@lru_cache
def _cached(name: str) -> Polynomial:
    from hhat.impairments.measured import fitted, shipped

    return fitted(shipped(name)).polynomial
