"""`ChannelEstimator`: any hhat method where Sionna's `LSChannelEstimator` stands."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hhat import registry
from hhat.methods.base import Method
from hhat.methods.solve import solve
from hhat.ops import Diagonal, Fourier, Identity, Kron
from hhat.priors import Gauss, Prior, covariance
from hhat.sionna.grid import Modes, read_pilots
from hhat.sionna.model import GridModel
from hhat.types import Estimate, Gaussian, Observation, Status

AXES = ("rx_ant", "symbol", "subcarrier")
QUIETEST_ANTENNA = 1e-6
"""Noise of an antenna relative to the noisiest one: less is taken as this much, so that no gain is infinite."""


class ChannelEstimator:
    """Channel estimates over a whole OFDM grid from its pilots, for Sionna's receivers.

    Per receiver, transmitter and stream, with h on (rx_ant, symbol, subcarrier),
        y = p * select(h) + CN(0, no),  h ~ CN(0, C_space kron C_time kron C_freq)
    where p are the stream's non-zero pilots. With the default method this is the joint LMMSE over space, time and
    frequency, exact in the Kronecker eigenbasis; Sionna's `LMMSEChannelEstimator` filters one axis after the other.

    resource_grid: sionna.phy.ofdm.ResourceGrid
    method:        a registered name, or a Method; one that uses a prior and has none gets the one below. A method
                   that uses none (ls, rls, omp, lasso, sbl) works on beams x the strong delay-Doppler modes.
    prior:         hhat prior of h on the three axes; or
    cov_mat_time:  (num_ofdm_symbols, num_ofdm_symbols) and
    cov_mat_freq:  (num_effective_subcarriers, num_effective_subcarriers) covariances E h h^H as Sionna takes them;
    cov_mat_space: (num_rx_ant, num_rx_ant), default: independent antennas of power one.
                   Neither prior nor covariances: learned from y, see `hhat.sionna.model`.

    Raises ValueError for a prior together with covariances or with a method that has its own, for one of the
    covariances of time and frequency without the other, for sizes that do not fit the grid, and where streams share
    pilots.
    """

    def __init__(
        self,
        resource_grid: Any,
        method: Any = "lmmse",
        prior: Prior | None = None,
        cov_mat_time: Tensor | None = None,
        cov_mat_freq: Tensor | None = None,
        cov_mat_space: Tensor | None = None,
    ):
        self.pilots = read_pilots(resource_grid)
        self._kept = torch.as_tensor(resource_grid.effective_subcarrier_ind)
        self._fft_size = int(resource_grid.fft_size)
        self._method: Method = registry.build("methods", method, {}) if isinstance(method, str) else method
        known = any(c is not None for c in (cov_mat_time, cov_mat_freq, cov_mat_space))
        owns = not isinstance(method, str) and getattr(method, "prior", None) is not None
        if (prior is not None) + known + owns > 1:
            raise ValueError("ChannelEstimator: expected one of prior, covariances, a method with its own prior")
        if prior is not None:
            if not hasattr(self._method, "prior"):
                raise ValueError(f"ChannelEstimator: {type(self._method).__name__} takes no prior")
            self._method, owns = self._with(prior), True
        self._complete = owns
        self._covs = None
        if known:
            self._covs = _checked(self.pilots[0][0].shape, cov_mat_time, cov_mat_freq, cov_mat_space)
        self._models = [[GridModel(p, self._kept) for p in row] for row in self.pilots]
        self._ready: dict[tuple, Any] = {}

    def __call__(self, y: Tensor, no: Tensor | float) -> tuple[Tensor, Tensor]:
        """y (batch, num_rx, num_rx_ant, num_ofdm_symbols, fft_size) complex; no: E|n|^2, (batch, num_rx, num_rx_ant)
        or only its first axes.

        Returns h_hat and err_var, both (batch, num_rx, num_rx_ant, num_tx, num_streams_per_tx, num_ofdm_symbols,
        num_effective_subcarriers). Where a method has no variance, err_var is the mean power of its estimate. Warns
        (RuntimeWarning) where items were not finite; `estimate` has the status of each.
        """
        found = self.estimate(y, no)
        h_hat = torch.stack([torch.stack([e.belief.mean for e in row], 3) for row in found], 3)
        err_var = torch.stack([torch.stack([_finite_var(e.belief) for e in row], 3) for row in found], 3)
        bad = sum(int((e.status == Status.NONFINITE).sum()) for row in found for e in row)
        if bad:
            warnings.warn(f"ChannelEstimator: {bad} items: {Status.NONFINITE.text}", RuntimeWarning, stacklevel=2)
        return h_hat, err_var

    def estimate(self, y: Tensor, no: Tensor | float) -> list[list[Estimate]]:
        """The estimates of [tx][stream], each with mean and variance (batch, num_rx, num_rx_ant, num_ofdm_symbols,
        num_effective_subcarriers) and status (batch, num_rx). Arguments as in the call."""
        shape = self.pilots[0][0].shape
        if y.ndim != 5 or not y.is_complex() or tuple(y.shape[3:]) != (shape[0], self._fft_size):
            raise ValueError(
                f"y: expected complex (batch, num_rx, num_rx_ant, {shape[0]}, {self._fft_size}), "
                f"got {y.dtype} {tuple(y.shape)}"
            )
        noise = _noise(no, y).flatten(0, 1)
        grid = y.index_select(-1, self._kept.to(y.device)).flatten(3).flatten(0, 1)
        batch = y.shape[:2]
        return [
            [_unflatten(self._stream(tx, stream, grid, noise), batch) for stream in range(len(row))]
            for tx, row in enumerate(self.pilots)
        ]

    def _stream(self, tx: int, stream: int, grid: Tensor, noise: Tensor) -> Estimate:
        pilots, model = self.pilots[tx][stream], self._models[tx][stream]
        seen = self._seen(tx, stream, *pilots.derotated(grid, noise))
        if self._complete:
            return solve(self._method, seen.observation())
        if self._covs is None:
            return self._learned(model, seen)
        if self._takes_prior:
            method = self._once(
                ("method", seen.num_ant, seen.y.dtype, seen.y.device), lambda: self._with(self._given(seen))
            )
            return solve(method, seen.observation())
        space, time, frequency = self._covs
        modes = self._once(
            ("modes", tx, stream, seen.y.dtype, seen.y.device), lambda: pilots.modes(time, frequency, seen.y)
        )
        power = seen.y.real.new_ones(1, 1) if space is None else space.diagonal().real.to(seen.y.real)[None]
        return _on_modes(self._method, seen, modes, power)

    def _seen(self, tx: int, stream: int, y: Tensor, noise_var: Tensor) -> "_Seen":
        sounding = self._once(
            ("sounding", tx, stream, y.dtype, y.device), lambda: self.pilots[tx][stream].sounding().like(y)
        )
        if bool((noise_var == noise_var[:, :1]).all()):
            op = self._once(
                ("op", tx, stream, y.shape[1], y.dtype, y.device), lambda: Kron(Identity((y.shape[1],)), sounding)
            )
            return _Seen(y, noise_var[:, :1], y, noise_var[:, :1], op)
        # unequal antennas are scaled to the noisiest, which keeps the problem a Kronecker product
        noisiest = noise_var.amax(1, keepdim=True)
        gains = (noisiest / noise_var.clamp_min(QUIETEST_ANTENNA * noisiest)).sqrt().to(y.dtype).expand(y.shape[:2])
        scaled = y * gains.reshape(*gains.shape, *(1,) * (y.ndim - 2))
        return _Seen(y, noise_var, scaled, noisiest, Kron(Diagonal(gains), sounding))

    def _given(self, seen: "_Seen") -> Prior:
        """The prior of the covariances handed over."""
        assert self._covs is not None
        space, time, frequency = self._covs
        if space is not None and space.shape[0] != seen.num_ant:
            raise ValueError(f"cov_mat_space: expected ({seen.num_ant}, {seen.num_ant}), got {tuple(space.shape)}")
        prior = covariance(factors=(time, frequency) if space is None else (space, time, frequency))
        assert prior.basis is not None
        basis = prior.basis if space is not None else Kron(Identity((seen.num_ant,)), prior.basis)
        return Gauss(var=prior.var, basis=basis.like(seen.y))

    def _learned(self, model: GridModel, seen: "_Seen") -> Estimate:
        """Under the covariance that the evidence picks. Items that picked the same one are solved together."""
        choice, power = model.choose(seen.y, seen.noise_var)
        parts, places = [], []
        for pick in choice.unique().tolist():
            mine = (choice == pick).nonzero()[:, 0]
            part = seen.items(mine)
            if self._takes_prior:
                beams = isinstance(part.op.left, Identity)
                prior = model.prior(pick, part.y, part.noise_var, power[mine], beams)
                parts.append(solve(self._with(prior), part.observation()))
            else:
                parts.append(_on_modes(self._method, part, model.modes(pick, part.y), power[mine, None]))
            places.append(mine)
        order = torch.cat(places).argsort()
        mean = torch.cat([e.belief.mean for e in parts])[order]
        var = torch.cat([e.belief.var.expand(e.belief.mean.shape) for e in parts])[order]
        status = torch.cat([e.status for e in parts])[order]
        return Estimate(Gaussian(mean, var), {"covariance": choice, "power": power}, status)

    @property
    def _takes_prior(self) -> bool:
        """`rls` has its white prior already, which fits modes but not the grid."""
        return self._method.uses_prior and getattr(self._method, "prior", None) is None

    def _with(self, prior: Prior) -> Method:
        return replace(self._method, prior=prior)  # type: ignore[type-var, call-arg]

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """Operators and methods are made once, because factorisations are remembered on them."""
        if key not in self._ready:
            self._ready[key] = make()
        return self._ready[key]


class _Seen(NamedTuple):
    """One stream's pilots (items, rx_ant, *pilots): as received, and scaled to equal noise over the antennas."""

    y: Tensor
    noise_var: Tensor
    scaled: Tensor
    equal_noise: Tensor
    op: Kron

    @property
    def num_ant(self) -> int:
        return self.y.shape[1]

    def observation(self) -> Observation:
        noise = self.equal_noise
        # one number for all items lets the factorisation be remembered from call to call
        noise = noise[:1] if bool((noise == noise[:1]).all()) else noise
        return Observation(self.scaled, self.op, noise.reshape(-1, *(1,) * (self.y.ndim - 1)), AXES)

    def items(self, which: Tensor) -> "_Seen":
        if which.numel() == self.y.shape[0]:
            return self
        op = self.op
        if isinstance(op.left, Diagonal):
            op = Kron(Diagonal(op.left.values[which]), op.right)
        return _Seen(self.y[which], self.noise_var[which], self.scaled[which], self.equal_noise[which], op)


def _on_modes(method: Method, seen: _Seen, modes: Modes, power: Tensor) -> Estimate:
    """A method without a prior works on beams times the few modes that carry the channel. These are orthogonal at
    the pilots, so that their errors are uncorrelated; what lies outside of them adds its variance. power: (items,
    rx_ant or 1)."""
    beams = Fourier(seen.num_ant).H if isinstance(seen.op.left, Identity) else Identity((seen.num_ant,))
    basis = Kron(beams, modes.reach)
    obs = seen.observation()
    axes = AXES if len(basis.in_shape) == len(AXES) else (AXES[0], "mode")
    est = solve(method, Observation(obs.y, seen.op @ basis, obs.noise_var, axes))
    var = est.belief.var.expand(est.belief.mean.shape)
    told = torch.isfinite(var).flatten(1).all(-1)  # else infinity times zero
    outside = power[..., None, None] * modes.outside
    var = basis.squares.apply(torch.where(told[(..., *(None,) * (var.ndim - 1))], var, 0)) + outside
    var = torch.where(told[(..., *(None,) * (var.ndim - 1))], var, torch.inf)
    return Estimate(Gaussian(basis.apply(est.belief.mean), var), est.info, est.status)


def _checked(
    shape: tuple[int, int], time: Tensor | None, frequency: Tensor | None, space: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor]:
    """(space, time, frequency) in double precision: eigenvalues of a covariance in single precision reach only 1e-7
    of the largest one, its square root 3e-4."""
    if time is None or frequency is None:
        raise ValueError("ChannelEstimator: expected cov_mat_time and cov_mat_freq together, got one or none of them")
    for name, given, size in (("cov_mat_time", time, shape[0]), ("cov_mat_freq", frequency, shape[1])):
        if tuple(given.shape) != (size, size):
            raise ValueError(f"{name}: expected shape ({size}, {size}), got {tuple(given.shape)}")
    if space is not None and (space.ndim != 2 or space.shape[0] != space.shape[1]):
        raise ValueError(f"cov_mat_space: expected a square matrix, got {tuple(space.shape)}")
    exact = {"device": "cpu", "dtype": torch.complex128}
    return None if space is None else space.to(**exact), time.to(**exact), frequency.to(**exact)


def _noise(no: Tensor | float, y: Tensor) -> Tensor:
    """(batch, num_rx, num_rx_ant or 1) from Sionna's `no`, which has the first axes of y or none."""
    noise = torch.as_tensor(no, dtype=y.real.dtype, device=y.device)
    if noise.ndim > 3 or any(have not in (1, want) for have, want in zip(noise.shape, y.shape, strict=False)):
        raise ValueError(f"no: expected the first axes of {tuple(y.shape[:3])} or a number, got {tuple(noise.shape)}")
    last = noise.shape[2] if noise.ndim == 3 else 1
    return noise.reshape(*noise.shape, *(1,) * (3 - noise.ndim)).expand(*y.shape[:2], last)


def _unflatten(est: Estimate, batch: torch.Size) -> Estimate:
    mean, var = est.belief.mean, est.belief.var.expand(est.belief.mean.shape)
    return Estimate(
        Gaussian(mean.unflatten(0, batch), var.unflatten(0, batch)), est.info, est.status.unflatten(0, batch)
    )


def _finite_var(belief: Gaussian) -> Tensor:
    """Infinite variances become the estimate's mean power, which an equaliser can work with."""
    if bool(torch.isfinite(belief.var).all()):
        return belief.var
    mean_power = belief.mean.abs().square().mean((-3, -2, -1), keepdim=True)
    return torch.where(torch.isfinite(belief.var), belief.var, mean_power)
