"""In which order a sounding signal visits the parts of its band."""

import torch
from jaxtyping import Int
from torch import Tensor

ORDERS = ("sequential", "nr")


def hop_steps(branches: int, count: int) -> int:
    """F_b: by how many parts hop `count` of a level with `branches` parts moves on from the first one.

      even N:  (N / 2) (n mod N) + floor((n mod N) / 2)        odd N:  floor(N / 2) n

    Modulo N these are a permutation of 0..N - 1 while n runs over 0..N - 1: four parts are visited as 0, 2, 1, 3.
    count is n_SRS divided by the number of parts of all wider levels that hop.
    Source: 3GPP TS 38.211, 6.4.1.4.3, F_b(n_SRS).
    """
    if branches % 2:
        return branches // 2 * count
    step = count % branches
    return branches // 2 * step + step // 2


def hop_index(num_tones: int, hops: int, num_symbols: int, order: str = "nr") -> Int[Tensor, "symbol tone"]:
    """Which of `num_tones` sounded tones each symbol sounds: `hops` contiguous parts, one after the other, cyclically.

    order: "sequential" takes part m mod hops in symbol m; "nr" the order of one level of the standard's hopping,
           parts 0, 2, 1, 3 for four hops (0, 1 for two: no difference). Where the standard's tree has several levels
           (Table 6.4.1.4.3-1) its order is theirs, `SoundingConfig.tones`; 272 = 4 x 68 resource blocks gives
           0, 2, 1, 3 both as two levels of two (C_SRS 61) and as one level of four (C_SRS 62).
    Raises ValueError where hops does not divide num_tones, for sizes below 1 and for another order.
    """
    for name, value in (("num_tones", num_tones), ("hops", hops), ("num_symbols", num_symbols)):
        if value < 1:
            raise ValueError(f"hop_index: {name}: expected at least 1, got {value}")
    if num_tones % hops:
        raise ValueError(f"hop_index: expected hops that divide the {num_tones} tones, got {hops}")
    if order not in ORDERS:
        raise ValueError(f"hop_index: order: expected one of {', '.join(ORDERS)}, got {order!r}")
    parts = [hop_steps(hops, m) % hops if order == "nr" else m % hops for m in range(num_symbols)]
    return torch.arange(num_tones).view(hops, -1)[parts]
