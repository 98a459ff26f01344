"""What the near-field XL figures of a limited link share: the bits of a point, and the price of an estimate."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.bench.experiment import Point, score_channel
from hhat.decentralized import MidTread
from hhat.scenarios.near_field import NearField
from hhat.types import Estimate, Slot

SNR_DB = 10.0
PRICE = "fronthaul_bits_per_sample"


@dataclass(frozen=True)
class Link:
    """A near-field scenario whose units have `bits` per real number, and `rounds` where they are asked repeatedly."""

    scene: NearField
    bits: int
    rounds: int = 1

    def draw(self, n: int, gen: torch.Generator) -> Slot:
        return self.scene.draw(n, gen)

    @property
    def quantiser(self) -> MidTread:
        return MidTread(self.bits)


def link(point: Point) -> Link:
    """Points hold bits, and rounds where they are swept."""
    return Link(NearField(snr_db=SNR_DB), int(point["bits"]), int(point.get("rounds", 1)))


def score_link(estimate: Estimate, slot: Slot) -> dict[str, Tensor]:
    """`score_channel`, and fronthaul_bits_per_sample (n,): all that a unit sends and is sent, over its pilots."""
    kept = score_channel(estimate, slot)
    bits = torch.as_tensor(estimate.info[PRICE], dtype=torch.float64)
    return {**kept, PRICE: bits.expand(slot.obs.batch_shape).flatten()}
