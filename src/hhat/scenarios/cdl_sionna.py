"""The same CDL pilots by Sionna's general model: a second opinion on the fast form."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hhat.scenarios.cdl import Cdl
from hhat.scenarios.cdl_law import direction_cosine
from hhat.types import Channel

CARRIER_HZ = 40e9
DELAY_SPREAD_S = 30e-9
"""Section 2.1; neither is seen in one subcarrier by arrays whose spacing is half of the wavelength."""
CHUNK_ENTRIES = 1 << 21
"""Entries of Sionna's (sample, ray, rx, tx) tensors formed at a time; it holds several of them (16 MB each)."""


@dataclass(frozen=True)
class CdlSionna(Cdl):
    """`Cdl` with its channels drawn by Sionna 2 (`sionna.phy.channel.tr38901.CDL`): all settings mean the same.

    V-polarised omnidirectional elements, downlink, no movement, the sum of the paths (the carrier's subcarrier).
    Converted: Sionna counts elements of a column from the top and puts the phase reference in the array's middle, here
    it is element 0; its specular path has a constant phase, which "random" turns together with the whole channel (the
    law of the other rays does not feel that). Hundreds of times slower than `Cdl`: draw once and store.
    """

    source: ClassVar[str] = "Sionna 2 general model, TR 38.901 section 7.7.1, V-polarised omnidirectional elements"

    def _truth(self, n: int, gen: torch.Generator) -> Channel:
        """Sionna's own generator is seeded from `gen`, and left as it was."""
        rx, _ = self._ends
        size = max(1, CHUNK_ENTRIES // (rx.azimuth.numel() * self.num_rx_ant * self.num_tx_ant))
        h = torch.empty(n, self.num_rx_ant, self.num_tx_ant, dtype=torch.complex64)
        with _seeded(int(torch.randint(1 << 62, (), generator=gen))) as tr38901:
            for start in range(0, n, size):
                h[start : start + size] = self._sionna_chunk(tr38901, min(size, n - start), gen)
        return Channel(h)

    def _sionna_chunk(self, tr38901: Any, n: int, gen: torch.Generator) -> Complex[Tensor, "n rx tx"]:
        rx, tx = self._ends
        turn = 2 * torch.rand(2, n, 1, generator=gen) - 1
        phase = 2 * math.pi * torch.rand(n, generator=gen)
        yaw_rx, yaw_tx = rx.facing + rx.yaw * turn[0], tx.facing + tx.yaw * turn[1]
        model = tr38901.CDL(
            self.profile,
            DELAY_SPREAD_S,
            CARRIER_HZ,
            ut_array=self._array(tr38901, self.num_rx_ant),
            bs_array=self._array(tr38901, self.num_tx_ant),
            direction="downlink",
            ut_orientation=_orientation(yaw_rx),
            bs_orientation=_orientation(yaw_tx),
            precision="single",
            device="cpu",
        )
        gains, _ = model(batch_size=n, num_time_steps=1, sampling_frequency=1.0)
        h = gains.sum(-2).reshape(n, self.num_rx_ant, self.num_tx_ant)
        if self.axis == "vertical":
            h = h.flip(1, 2)
        if self.los_phase == "constant":
            # from the arrays' middles to their elements 0; A, B, C have no such path and phase plays no part
            centre_rx = (self.num_rx_ant - 1) / 2 * direction_cosine(rx.los_azimuth, rx.los_zenith, yaw_rx, self.axis)
            centre_tx = (self.num_tx_ant - 1) / 2 * direction_cosine(tx.los_azimuth, tx.los_zenith, yaw_tx, self.axis)
            phase = math.pi * (centre_rx + centre_tx).sum(-1).expand(n)
        return h * torch.polar(torch.ones(n), phase)[:, None, None]

    def _array(self, tr38901: Any, num_ant: int) -> Any:
        rows, columns = (1, num_ant) if self.axis == "horizontal" else (num_ant, 1)
        return tr38901.PanelArray(
            num_rows_per_panel=rows,
            num_cols_per_panel=columns,
            polarization="single",
            polarization_type="V",
            antenna_pattern="omni",
            carrier_frequency=CARRIER_HZ,
            element_vertical_spacing=0.5,
            element_horizontal_spacing=0.5,
            precision="single",
            device="cpu",
        )


def _orientation(yaw: Float[Tensor, "n 1"]) -> Float[Tensor, "n 3"]:
    """(yaw, downtilt, slant)."""
    return torch.cat([yaw, torch.zeros(len(yaw), 2)], 1)


@contextmanager
def _seeded(seed: int) -> Iterator[Any]:
    """Sionna's TR 38.901 module with its CPU generator at `seed`; the one place where that generator is touched.

    Sionna draws from a generator of its own per device, and on its first import reseeds torch's global one at random:
    both are put back.
    """
    outside = torch.get_rng_state()
    from sionna.phy import config
    from sionna.phy.channel import tr38901

    torch.set_rng_state(outside)
    own = config.torch_rng("cpu")
    before = own.get_state()
    own.manual_seed(seed)
    try:
        yield tr38901
    finally:
        own.set_state(before)
