"""`SoundingConfig`: a sounding reference signal as a base station configures it, and which tones it sounds when."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hhat.nr.hopping import hop_steps
from hhat.nr.tables import BANDWIDTH, MAX_CYCLIC_SHIFTS, PERIODS, START_HOPS, Bandwidth

SUBCARRIERS = 12
"""Subcarriers of a resource block."""

SYMBOLS = 14
"""OFDM symbols of a slot with normal cyclic prefix."""

NUM_FRAMES = 1024
"""System frames before their number begins anew."""

SPACINGS_HZ = (15e3, 30e3, 60e3, 120e3, 480e3, 960e3)
HOPPING = ("neither", "groupHopping", "sequenceHopping")


class Occasions(NamedTuple):
    """When what is sounded, one row per sounded OFDM symbol, in order of time.

    slot    (sounding,) counted from the start of system frame 0
    symbol  (sounding,) OFDM symbol of that slot
    hop     (sounding,) n_SRS: how many hops went before
    """

    slot: Int[Tensor, " sounding"]
    symbol: Int[Tensor, " sounding"]
    hop: Int[Tensor, " sounding"]


@dataclass(frozen=True)
class SoundingConfig:
    """A periodic sounding reference signal resource (SRS-Resource), normal cyclic prefix.

    carrier     num_rb: its resource blocks; subcarrier_spacing_hz: 15, 30, 60, 120, 480 or 960 kHz
    bandwidth   c_srs, b_srs, b_hop, n_rrc (freqDomainPosition), n_shift (freqDomainShift, in resource blocks from the
                carrier's lowest): Table 6.4.1.4.3-1. Hops where b_hop < b_srs
    comb        comb: K_TC 2, 4 or 8, every how manieth subcarrier; comb_offset below it
    ports       num_ports: 1, 2 or 4; cyclic_shift: n_SRS^cs, below 8, 12 or 6 for comb 2, 4, 8
    time        num_symbols: in a row in a slot, 1, 2, 4, 8, 10, 12 or 14; l_offset: the first one, counted back from
                the slot's last; repetition: R, symbols before the next hop, divides num_symbols;
                t_srs, t_offset: every how many slots, and after which
    sequence    n_id: 0..1023; group_or_sequence_hopping: neither, groupHopping or sequenceHopping
    partial     p_f: 1, 2 or 4, sound one part in p_f of each hop; k_f: which; start_rb_hopping: another one after each
                sweep
    Not here: aperiodic resources, positioning resources (comb offsets that differ between symbols), 8 ports, comb
    offset and cyclic shift hopping of release 18, extended cyclic prefix.
    Raises ValueError naming what is allowed.
    Source: 3GPP TS 38.211 v17, 6.4.1.4; allowed values TS 38.331, SRS-Config.
    """

    num_rb: int = 273
    subcarrier_spacing_hz: float | int = 30e3
    c_srs: int = 61
    b_srs: int = 2
    b_hop: int = 0
    n_rrc: int = 0
    n_shift: int = 0
    comb: int = 4
    comb_offset: int = 0
    cyclic_shift: int = 0
    num_ports: int = 1
    num_symbols: int = 1
    l_offset: int = 0
    repetition: int = 1
    t_srs: int = 10
    t_offset: int = 0
    n_id: int = 0
    group_or_sequence_hopping: str = "neither"
    p_f: int = 1
    k_f: int = 0
    start_rb_hopping: bool = False

    def __post_init__(self):
        for name, allowed in (
            ("subcarrier_spacing_hz", SPACINGS_HZ),
            ("comb", tuple(MAX_CYCLIC_SHIFTS)),
            ("num_ports", (1, 2, 4)),
            ("num_symbols", (1, 2, 4, 8, 10, 12, 14)),
            ("t_srs", PERIODS),
            ("group_or_sequence_hopping", HOPPING),
            ("p_f", tuple(START_HOPS)),
        ):
            if getattr(self, name) not in allowed:
                told = ", ".join(map(str, allowed))
                raise ValueError(f"sounding: {name}: expected one of {told}, got {getattr(self, name)!r}")
        last = len(BANDWIDTH) - 1
        for name, most in (
            ("c_srs", last),
            ("b_srs", 3),
            ("b_hop", 3),
            ("n_rrc", 67),
            ("n_shift", 268),
            ("n_id", 1023),
            ("comb_offset", self.comb - 1),
            ("cyclic_shift", self.cyclic_shifts - 1),
            ("t_offset", self.t_srs - 1),
            ("k_f", self.p_f - 1),
        ):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"sounding: {name}: expected 0..{most}, got {getattr(self, name)}")
        if not self.num_symbols - 1 <= self.l_offset < SYMBOLS:
            raise ValueError(
                f"sounding: l_offset: expected {self.num_symbols - 1}..{SYMBOLS - 1} for {self.num_symbols} symbols "
                f"(counted back from the last of the slot), got {self.l_offset}"
            )
        if self.repetition < 1 or self.num_symbols % self.repetition:
            raise ValueError(
                f"sounding: repetition: expected a divisor of num_symbols = {self.num_symbols}, got {self.repetition}"
            )
        if self.n_shift + self.row.m_srs[0] > self.num_rb:
            raise ValueError(
                f"sounding: c_srs {self.c_srs} sounds {self.row.m_srs[0]} blocks from block {self.n_shift} on, "
                f"the carrier has num_rb = {self.num_rb}"
            )
        if self.num_ports > self.cyclic_shifts:
            raise ValueError(f"sounding: num_ports: expected at most {self.cyclic_shifts}, got {self.num_ports}")
        if self.m_srs_rb * SUBCARRIERS % (self.comb * self.p_f * 6):
            raise ValueError(
                f"sounding: comb {self.comb} and p_f {self.p_f} leave {self.m_srs_rb} x 12 / {self.comb * self.p_f} "
                "tones of a hop; expected a multiple of 6, the lengths that base sequences have"
            )

    @property
    def row(self) -> Bandwidth:
        """The row of Table 6.4.1.4.3-1."""
        return BANDWIDTH[self.c_srs]

    @property
    def cyclic_shifts(self) -> int:
        """n_SRS^cs,max."""
        return MAX_CYCLIC_SHIFTS[self.comb]

    @property
    def m_srs_rb(self) -> int:
        """m_SRS,B_SRS: resource blocks of a hop (of which partial sounding fills one in p_f)."""
        return self.row.m_srs[self.b_srs]

    @property
    def length(self) -> int:
        """M_sc: tones of a hop."""
        return self.m_srs_rb * SUBCARRIERS // (self.comb * self.p_f)

    @property
    def hops(self) -> int:
        """Hops until the band is swept; 1 where nothing hops."""
        product = 1
        for branches in self.row.n[self.b_hop + 1 : self.b_srs + 1]:
            product *= branches
        return product

    @property
    def cycle(self) -> int:
        """Hops until all begins anew: `hops`, times p_f where the part of a hop moves on after each sweep."""
        return self.hops * (self.p_f if self.start_rb_hopping else 1)

    @property
    def num_tones(self) -> int:
        """Subcarriers that a port sounds in a cycle."""
        return self.length * self.cycle

    @property
    def slots_per_frame(self) -> int:
        return round(10 * self.subcarrier_spacing_hz / 15e3)

    @property
    def period_s(self) -> float:
        """Between sounded slots."""
        return self.t_srs * 10e-3 / self.slots_per_frame

    @property
    def tone_spacing_hz(self) -> float:
        """Between tones of one hop."""
        return self.comb * self.subcarrier_spacing_hz

    @property
    def first_symbol(self) -> int:
        """l_0."""
        return SYMBOLS - 1 - self.l_offset

    def comb_of(self, port: int) -> int:
        """k_TC: the comb offset of a port. Of four ports the odd ones move by half a comb where the shifts are few."""
        moved = self.num_ports == 4 and port % 2 and (self.comb == 8 or self.cyclic_shift >= self.cyclic_shifts // 2)
        return (self.comb_offset + (self.comb // 2 if moved else 0)) % self.comb

    def shift_of(self, port: int) -> int:
        """n_SRS^cs,i: the cyclic shift of a port, in 1 / `cyclic_shifts` of the circle."""
        if self.num_ports == 4 and self.comb == 8:
            step = self.cyclic_shifts * (port // 2) // 2
        else:
            step = self.cyclic_shifts * port // self.num_ports
        return (self.cyclic_shift + step) % self.cyclic_shifts

    def tones(self, hop: int, port: int = 0) -> Int[Tensor, " tone"]:
        """Subcarriers of hop n_SRS, ascending; 0 is the carrier's lowest. k_0 + K_TC k' of 6.4.1.4.3."""
        m_srs, n = self.row
        block, passed = self.n_shift, 1
        for b in range(self.b_srs + 1):
            place = 4 * self.n_rrc // m_srs[b]
            if b > self.b_hop:
                place += hop_steps(n[b], hop // passed)
                passed *= n[b]
            block += m_srs[b] * (place % n[b])
        part = self.k_f
        if self.start_rb_hopping:
            part += START_HOPS[self.p_f][hop // passed % self.p_f]
        start = SUBCARRIERS * block + SUBCARRIERS * self.m_srs_rb * (part % self.p_f) // self.p_f
        return start + self.comb_of(port) + self.comb * torch.arange(self.length)

    def band(self, port: int = 0) -> Int[Tensor, " subcarrier"]:
        """All subcarriers that a port sounds in a cycle, ascending."""
        return torch.cat([self.tones(hop, port) for hop in range(self.cycle)]).unique()

    def hop_index(self, num_hops: int, first: int = 0) -> Int[Tensor, "symbol tone"]:
        """Hops first, first + 1, ... as indices into `band`: what `Hops(index, len(band))` takes."""
        rows = torch.stack([self.tones(hop) for hop in range(first, first + num_hops)])
        return torch.searchsorted(self.band(), rows)

    def frequency_hz(self, port: int = 0) -> Float[Tensor, " subcarrier"]:
        """Of `band`, from the carrier's centre (subcarrier 6 num_rb), float64."""
        return (self.band(port) - SUBCARRIERS * self.num_rb // 2).double() * self.subcarrier_spacing_hz

    def slot(self, occasion: int) -> int:
        """The slot of an occasion, from the start of system frame 0 on."""
        return occasion * self.t_srs + self.t_offset

    def first_hop(self, occasion: int) -> int:
        """n_SRS of the occasion's first symbol. The system frame number counts to 1024, and n_SRS with it."""
        wrapped = occasion % (NUM_FRAMES * self.slots_per_frame // self.t_srs)
        return wrapped * (self.num_symbols // self.repetition)

    def schedule(self, first_slot: int, num_slots: int) -> Occasions:
        """Everything sounded in slots first_slot, ..., first_slot + num_slots - 1."""
        rows = []
        for slot in range(first_slot, first_slot + num_slots):
            if slot % self.t_srs != self.t_offset:
                continue
            first = self.first_hop(slot // self.t_srs)
            for symbol in range(self.num_symbols):
                rows.append((slot, self.first_symbol + symbol, first + symbol // self.repetition))
        slot, symbol, hop = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).unbind(1)
        return Occasions(slot, symbol, hop)

    def times_s(self, occasions: Occasions) -> Float[Tensor, " sounding"]:
        """Start of each symbol, seconds, all symbols of a slot taken as equally long (true to 0.6 us)."""
        length = 10e-3 / self.slots_per_frame
        return (occasions.slot.double() + occasions.symbol.double() / SYMBOLS) * length
