"""Hopping sounding pilots over 3GPP's urban cells by Sionna: many rays per cluster, so no few paths are the truth."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Complex
from torch import Tensor

from hhat.extrapolation.model import delay_steering
from hhat.scenarios.cdl_sionna import _seeded
from hhat.scenarios.parts import check_between
from hhat.scenarios.srs import Srs

ADDED_DELAY_S = 0.3e-6
"""Keeps the first path causal where the timing offset is negative."""
GROUP = 8
"""Drops that Sionna makes at a time: a number of its own, so that a seed gives the same channels at any symbols."""
LIMIT_M = 5e3


class Impulses(NamedTuple):
    """gain complex64 (n, rx_ant, tap, lag, symbol), delay_s float32 (n, tap): impulse responses by Sionna."""

    gain: Tensor
    delay_s: Tensor


@dataclass(frozen=True)
class SrsSionna(Srs):
    """`Srs` over Sionna 2's TR 38.901 system-level model, one outdoor user in a sector, uplink.

    los:            line of sight, or none
    min_distance_m: user to base station, over ground, in sectors of sites 500 m (4 min_distance_m, if more) apart
    Base station: columns x rows elements of one V polarisation with the 38.901 pattern, Sionna's height and downtilt;
    user: one omnidirectional V element that moves horizontally at speed_kmh. No path loss and no shadowing. 0.3 us are
    added to the delays. Without line of sight 20 clusters of 20 rays each, two of them split in three: 24 taps in UMa
    (UMi 19: 23). Conversion: Sionna counts a column's elements from the top, here upwards.
    """

    los: bool = False
    min_distance_m: float | int = 100.0

    cell: ClassVar[str]
    model_name: ClassVar[str]

    def __post_init__(self):
        super().__post_init__()
        check_between(type(self).__name__, "min_distance_m", self.min_distance_m, 0, LIMIT_M)

    def drops(self, n: int, gen: torch.Generator, num_symbols: int | None = None) -> Impulses:
        """Impulse responses of n users at the times of num_symbols (or fewer) and their lags.

        About 15 ms a drop of 4 symbols, 50 ms of 48. Sionna's own generator is seeded from `gen`, and left as it was.
        """
        times = self.times_s(num_symbols or self.symbols)
        found = []
        with _seeded(int(torch.randint(1 << 62, (), generator=gen))) as tr38901:
            for start in range(0, n, GROUP):
                found.append(self._chunk(tr38901, min(GROUP, n - start), times))
        return Impulses(torch.cat([part.gain for part in found]), torch.cat([part.delay_s for part in found]))

    def response(self, drops: Impulses, num_symbols: int) -> Complex[Tensor, "n rx lag symbol subcarrier"]:
        if drops.gain.shape[-1] < num_symbols:
            raise ValueError(f"srs: expected drops of at least {num_symbols} symbols, got {drops.gain.shape[-1]}")
        gain = drops.gain[..., :num_symbols]
        delays = delay_steering(self.model.tones_hz(), drops.delay_s.double() + ADDED_DELAY_S)
        flat = gain.movedim(2, -1).flatten(1, 3)  # (n, rx * lag * symbol, tap)
        return (flat @ delays.mT.to(gain.dtype)).unflatten(1, (gain.shape[1], *gain.shape[3:]))

    def _chunk(self, tr38901: Any, n: int, times_s: Tensor) -> Impulses:
        from sionna.phy.channel import gen_single_sector_topology

        model = getattr(tr38901, self.model_name)(
            carrier_frequency=self.carrier_hz,
            o2i_model="low",
            ut_array=self._array(tr38901, 1, 1, "omni"),
            bs_array=self._array(tr38901, self.rows, self.columns, "38.901"),
            direction="uplink",
            enable_pathloss=False,
            enable_shadow_fading=False,
            precision="single",
            device="cpu",
        )
        speed = self.speed_kmh / 3.6
        # the sector must reach beyond its inner rim
        where = gen_single_sector_topology(
            n,
            1,
            self.cell,
            min_bs_ut_dist=float(self.min_distance_m),
            isd=max(500.0, 4.0 * self.min_distance_m),
            indoor_probability=0.0,
            min_ut_velocity=speed,
            max_ut_velocity=speed,
            precision="single",
            device="cpu",
        )
        model.set_topology(*where, los=self.los)
        # Sionna samples at index / rate: a rate per index gives any times, the first of them 0
        index, flat = torch.arange(times_s.numel(), dtype=torch.float64), times_s.flatten()
        rate = torch.where(flat > 0, index / flat.clamp_min(torch.finfo(flat.dtype).tiny), 1.0).float()
        gain, delay = model(num_time_samples=len(flat), sampling_frequency=rate)
        ports = gain.reshape(n, self.columns, self.rows, -1, *times_s.shape).flip(2)
        ports, delay = ports.flatten(1, 2), delay.reshape(n, -1)
        # profiles of fewer clusters are filled up with silent ones, seconds late
        return Impulses(ports, delay.where(ports.abs().amax((1, 3, 4)) > 0, 0.0))

    def _array(self, tr38901: Any, rows: int, columns: int, pattern: str) -> Any:
        return tr38901.PanelArray(
            num_rows_per_panel=rows,
            num_cols_per_panel=columns,
            polarization="single",
            polarization_type="V",
            antenna_pattern=pattern,
            carrier_frequency=self.carrier_hz,
            element_vertical_spacing=0.5,
            element_horizontal_spacing=0.5,
            precision="single",
            device="cpu",
        )

    @property
    def _law(self) -> str:
        return f"3GPP {self.model_name} by Sionna 2, {'' if self.los else 'no '}line of sight, outdoors"


@dataclass(frozen=True)
class SrsUma(SrsSionna):
    """`SrsSionna` in an urban macro cell: base station at 25 m."""

    cell = "uma"
    model_name = "UMa"

    @classmethod
    def example(cls, gen: torch.Generator) -> "SrsUma":
        return cls(columns=2, rows=2, num_tones=24)


@dataclass(frozen=True)
class SrsUmi(SrsSionna):
    """`SrsSionna` in an urban micro cell (street canyon): base station at 10 m."""

    cell = "umi"
    model_name = "UMi"

    @classmethod
    def example(cls, gen: torch.Generator) -> "SrsUmi":
        return cls(columns=2, rows=2, num_tones=24)
