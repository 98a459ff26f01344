"""A covariance for an OFDM grid that nobody gave one for: chosen per item by its evidence.

    h[a, t, f] ~ p C_space x J0(2 pi nu (t - t')) x 1 / (1 + j 2 pi s (f - f'))

The delays are exponential from the first path on with spread s, the Doppler spectrum is Jakes' with maximum nu.
s and nu run over a grid and the evidence p(y | s, nu) picks, closed form in the eigenbasis of the pilots' covariance.
The power p is a moment of y. C_space is diagonal over the beams of a DFT: a beam's power is the moment estimate with
the weights that are best for weak beams, drawn towards the mean beam. It is a line array's covariance; where antennas
are independent or in another order it comes out nearly flat.
Source: evidence maximisation, MacKay 1992; delay and Doppler laws, Jakes 1974 and TR 38.901 section 7.7.
"""

import math
from dataclasses import dataclass, field

import torch
from scipy.special import j0
from torch import Tensor

from hhat.ops import Dense, Fourier, Identity, Kron, LinearOp
from hhat.ops.linalg import eigh
from hhat.priors import Gauss
from hhat.sionna.grid import Modes, Pilots

DELAY_SPREADS = tuple(2.0**-k for k in range(3, 11))
"""RMS delay spread times subcarrier spacing. The longest fades within 2 tones, the shortest is flat over 300."""
DOPPLERS = (0.0, 0.0018, 0.0036, 0.0072, 0.0144, 0.0288)
"""Maximum Doppler times OFDM symbol time; at 30 kHz spacing and 3.5 GHz: 0, 15, 31, 62, 124 and 247 km/h."""
LEAST_POWER = 0.02
"""The channel has at least this part of the received power: keeps p > 0 where noise hides it."""
FLAT_LOOKS = 0.5
"""Beam powers are drawn towards their mean by as much as this many looks at a flat spectrum."""


def exponential_delays(spread: float, tones: Tensor) -> Tensor:
    """Frequency covariance (n, n) of an exponential delay profile; spread times subcarrier spacing; tones (n,)."""
    lag = tones.double()[:, None] - tones.double()
    return 1 / torch.complex(torch.ones_like(lag), 2 * math.pi * spread * lag)


def jakes(doppler: float, num_symbols: int) -> Tensor:
    """Time covariance (n, n) of Jakes' spectrum; maximum Doppler times OFDM symbol time."""
    symbols = torch.arange(num_symbols, dtype=torch.float64)
    lag = (symbols[:, None] - symbols).numpy()
    return torch.from_numpy(j0(2 * math.pi * doppler * lag)).to(torch.complex128)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One (s, nu): the eigenbasis of the pilots' covariance and the square root of the grid's."""

    rotation: LinearOp
    powers: Tensor
    root: LinearOp
    _bases: dict[tuple[int, bool], LinearOp] = field(default_factory=dict)

    def basis(self, num_ant: int, beams: bool) -> LinearOp:
        """Coefficients -> channel; the same object for the same arguments, so that its factors are remembered."""
        if (num_ant, beams) not in self._bases:
            antennas = Fourier(num_ant).H if beams else Identity((num_ant,))
            self._bases[num_ant, beams] = Kron(antennas, self.root)
        return self._bases[num_ant, beams]


@dataclass(frozen=True, eq=False)
class GridModel:
    """The candidates for the pilots of one stream. tones: (num_subcarriers,) subcarrier numbers, gaps included."""

    pilots: Pilots
    tones: Tensor
    _made: dict[tuple, list[Candidate]] = field(default_factory=dict)
    _modes: dict[tuple, Modes] = field(default_factory=dict)

    def candidates(self, like: Tensor) -> list[Candidate]:
        """All (s, nu) in the precision of `like`; made once."""
        key = (like.dtype, like.device)
        if key not in self._made:
            symbols = (self.pilots.where // self.pilots.shape[1]).unique().numel()
            dopplers = DOPPLERS if symbols > 1 else DOPPLERS[:1]  # one symbol says nothing of Doppler
            times = [jakes(nu, self.pilots.shape[0]) for nu in dopplers]
            frequencies = [exponential_delays(s, self.tones) for s in DELAY_SPREADS]
            rotations = self._rotations(times, frequencies, like)
            time_roots, frequency_roots = (
                [_root(c, like) for c in times],
                [_root(c, like) for c in frequencies],
            )
            roots = [Kron(t, f) for f in frequency_roots for t in time_roots]
            self._made[key] = [Candidate(*r, root) for r, root in zip(rotations, roots, strict=True)]
        return self._made[key]

    def _rotations(self, times: list[Tensor], frequencies: list[Tensor], like: Tensor) -> list[tuple[LinearOp, Tensor]]:
        """Eigenbasis and eigenvalues of the pilots' covariance, for every pair of axes' covariances."""
        covariance = self.pilots.covariance
        if self.pilots.comb is None:
            pairs = [eigh(covariance(t, f)[0]) for f in frequencies for t in times]
            return [(Dense(u, unitary=True).like(like), v.to(like.real)) for v, u in pairs]
        rows = [eigh(covariance(t, frequencies[0])[0]) for t in times]
        columns = [eigh(covariance(times[0], f)[1]) for f in frequencies]
        left = [Dense(u, unitary=True).like(like) for _, u in rows]
        right = [Dense(u, unitary=True).like(like) for _, u in columns]
        return [
            (Kron(left[t], right[f]), (rows[t][0][:, None] * columns[f][0]).to(like.real))
            for f in range(len(frequencies))
            for t in range(len(times))
        ]

    def choose(self, y: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """y (items, rx_ant, *pilots), noise_var (items, rx_ant or 1) -> (choice, power), each (items,)."""
        num_event = y.ndim - 1
        received = y.abs().square().flatten(1).mean(-1)
        candidates = self.candidates(y)
        unit = candidates[0].powers.mean()
        power = torch.maximum(received - noise_var.mean(-1), LEAST_POWER * received) / unit
        noise = noise_var.reshape(*noise_var.shape, *(1,) * (num_event - 1))
        scores = []
        for candidate in candidates:
            energy = candidate.rotation.adjoint(y).abs().square()
            total = (power.reshape(-1, *(1,) * num_event) * candidate.powers + noise).clamp_min(_tiny(y))
            # a shared row of `total` stands for all antennas
            scores.append(-(energy / total + total.log()).flatten(1).sum(-1))
        return torch.stack(scores).argmax(0), power

    def prior(self, choice: int, y: Tensor, noise_var: Tensor, power: Tensor, beams: bool) -> Gauss:
        """Prior of the items (*items, rx_ant, symbol, subcarrier) that chose `choice`; arguments as in `choose`."""
        candidate, num_ant = self.candidates(y)[choice], y.shape[1]
        var = power.reshape(-1, 1, 1, 1)
        if not beams or num_ant == 1:
            return Gauss(var=var, basis=candidate.basis(num_ant, False))
        tiny = _tiny(y)
        z = torch.fft.fft(candidate.rotation.adjoint(y), dim=1, norm="ortho").abs().square().flatten(2)
        signal = power[:, None, None] * candidate.powers.flatten()
        noise = noise_var.mean(-1)[:, None, None]
        share = (signal / (signal + noise).clamp_min(tiny)).square()
        weight = share / signal.clamp_min(tiny)
        beam = ((weight * (z - noise)).sum(-1) / share.sum(-1).clamp_min(tiny)).clamp_min(0)
        beam = beam / beam.mean(-1, keepdim=True).clamp_min(tiny)
        looks = share.sum(-1).square() / share.square().sum(-1).clamp_min(tiny)
        beam = (looks * beam + FLAT_LOOKS) / (looks + FLAT_LOOKS)
        return Gauss(var=var * beam[:, :, None, None], basis=candidate.basis(num_ant, True))

    def modes(self, choice: int, y: Tensor) -> Modes:
        """The strong modes under `choice`, for methods without a prior."""
        key = (choice, y.dtype, y.device)
        if key not in self._modes:
            spread, doppler = divmod(choice, len(self.candidates(y)) // len(DELAY_SPREADS))
            time = jakes(DOPPLERS[doppler], self.pilots.shape[0])
            frequency = exponential_delays(DELAY_SPREADS[spread], self.tones)
            self._modes[key] = self.pilots.modes(time, frequency, y)
        return self._modes[key]


def _root(covariance: Tensor, like: Tensor) -> LinearOp:
    """U sqrt(lambda)."""
    values, vectors = eigh(covariance)
    return Dense(vectors * values.sqrt()).like(like)


def _tiny(y: Tensor) -> float:
    return torch.finfo(y.dtype).tiny
