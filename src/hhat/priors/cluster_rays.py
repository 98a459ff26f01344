"""`ClusterRays`: clusters of rays between two line arrays, whose angles are known and whose coupling is not."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hhat.ops.linalg import squared


@dataclass(frozen=True, eq=False)
class ClusterRays:
    """h = sum_l sum_m x_lm a(u_lm) b(u'_lm)^T, x_lm ~ CN(0, P_l / M), between half-wavelength line arrays.

    Each cluster l has M rays. At each end its rays' azimuths are M known values and their zeniths M known values; which
    zenith goes with which azimuth, and which ray of one end is which of the other, is drawn anew for every channel.
    A candidate is a pair of an azimuth and a bin of zeniths: `rays` azimuths times the bins of that end, in this order.

    power:  P_l, (clusters,)
    left:   E exp(j pi k u) over the zeniths of each candidate's bin, k = 0 .. num_left - 1: (clusters, candidates, k)
    right:  the same at the other end
    rays:   M
    fixed:  E of the rest of the channel, which has no coupling (a specular path): its covariance between entries
            d and e apart, d = 0 .. num_left - 1, e = -(num_right - 1) .. num_right - 1; None: nothing

    With weights pi (clusters, left candidates, right candidates), the share of rays of each pair of candidates, the
    covariance between entries (d, e) apart is fixed + sum_l P_l / M sum_ij pi_ij left_i(d) right_j(e). Each azimuth
    belongs to one ray, each bin of zeniths to its share of them: `balanced`.
    Raises ValueError where shapes do not fit.
    """

    power: Tensor
    left: Tensor
    right: Tensor
    rays: int
    fixed: Tensor | None = None

    def __post_init__(self):
        count = len(self.power)
        for name, lags in (("left", self.left), ("right", self.right)):
            if lags.ndim != 3 or len(lags) != count or lags.shape[1] % self.rays or not lags.is_complex():
                raise ValueError(
                    f"cluster rays: {name}: expected complex ({count}, a multiple of {self.rays}, antennas), got "
                    f"{lags.dtype} {tuple(lags.shape)}"
                )
        want = (self.left.shape[-1], 2 * self.right.shape[-1] - 1)
        if self.fixed is not None and tuple(self.fixed.shape) != want:
            raise ValueError(f"cluster rays: fixed: expected shape {want}, got {tuple(self.fixed.shape)}")

    @property
    def in_shape(self) -> tuple[int, int]:
        """Shape of the channel."""
        return self.left.shape[-1], self.right.shape[-1]

    def to(self, like: Tensor) -> "ClusterRays":
        """In the precision and on the device of `like`."""
        left, right = self.left.to(like), self.right.to(like)
        fixed = None if self.fixed is None else self.fixed.to(like)
        return ClusterRays(self.power.to(left.real), left, right, self.rays, fixed)

    def uniform(self) -> Tensor:
        """pi of an unknown coupling: with it the covariance is that of the profile."""
        shape = len(self.power), self.left.shape[1], self.right.shape[1]
        return self.power.new_ones(shape) * (self.rays / (shape[1] * shape[2]))

    def balanced(self, pi: Tensor, rounds: int = 10) -> Tensor:
        """pi (*batch, clusters, i, j) with its four marginals put right in turn, the azimuths' last (Sinkhorn)."""
        rays = self.rays
        whole = pi.unflatten(-1, (rays, -1)).unflatten(-3, (rays, -1))
        tiny = torch.finfo(whole.dtype).tiny
        for _ in range(rounds):
            for axes in ((-4, -2, -1), (-4, -3, -2), (-3, -2, -1), (-4, -3, -1)):
                kept = next(axis for axis in (-3, -1, -4, -2) if axis not in axes)
                if whole.shape[kept] > 1:
                    total = whole.sum(axes, keepdim=True).clamp_min(tiny)
                    whole = whole * (rays / whole.shape[kept] / total)
        return whole.flatten(-4, -3).flatten(-2, -1)

    def lags(self, pi: Tensor) -> Tensor:
        """Covariance between entries (d, e) apart, (*batch, num_left, 2 num_right - 1), for weights pi."""
        weight = (pi * (self.power / self.rays)[:, None, None]).to(self.left.dtype)
        found = (self.left.mT @ (weight @ self._both())).sum(-3)
        return found if self.fixed is None else found + self.fixed

    def match(self, lags: Tensor) -> Tensor:
        """sum_(d, e) of lags times what a pair of candidates adds to the covariance there, (*batch, clusters, i, j):
        lags (*batch, num_left, 2 num_right - 1) of a Hermitian matrix, conjugate; those of -d are implied."""
        share = torch.full((self.left.shape[-1], 1), 2.0, dtype=lags.real.dtype, device=lags.device)
        share[0] = 1
        return ((self.left @ (share * lags)[..., None, :, :]) @ self._both().mT).real

    def _both(self) -> Tensor:
        """The right end's lags -(num_right - 1) .. num_right - 1."""
        return torch.cat([self.right[..., 1:].flip(-1).conj(), self.right], -1)


def spread(lags: Tensor) -> Tensor:
    """The matrix (*batch, a, b, a, b) whose entries (r, t), (r', t') are lags[r - r', t - t'], Hermitian."""
    num_left, num_right = lags.shape[-2], (lags.shape[-1] + 1) // 2
    whole = torch.cat([lags[..., 1:, :].flip((-2, -1)).conj(), lags], -2)
    d, e = (torch.arange(n, device=lags.device) for n in (num_left, num_right))
    d, e = d[:, None] - d + num_left - 1, e[:, None] - e + num_right - 1
    return whole[..., d[:, None, :, None], e[None, :, None, :]]


def gathered(matrix: Tensor) -> Tensor:
    """The adjoint of `spread`: sums of (*batch, a, b, a, b) over entries (d, e) apart, (*batch, a, 2 b - 1)."""
    num_left = matrix.shape[-4]
    rows = matrix.movedim(-2, -3)
    return _diagonals(_diagonals(rows).movedim(-1, -3))[..., num_left - 1 :].mT


def correlated(z: Tensor) -> Tensor:
    """`gathered` of z z^H for z (*batch, a, b), by the FFT: (*batch, a, 2 b - 1)."""
    num_left, num_right = z.shape[-2:]
    spectrum = squared(torch.fft.fft2(z, (2 * num_left, 2 * num_right)))
    lags = torch.fft.ifft2(spectrum.to(z.dtype))[..., :num_left, :]
    return torch.cat([lags[..., num_right + 1 :], lags[..., :num_right]], -1)


def _diagonals(x: Tensor) -> Tensor:
    """Sums of (*batch, n, n) over row - column = -(n - 1) .. n - 1, (*batch, 2 n - 1)."""
    n = x.shape[-1]
    flat = torch.nn.functional.pad(x.flip(-1), (0, n)).flatten(-2)[..., : n * (2 * n - 1)]
    return flat.unflatten(-1, (n, 2 * n - 1)).sum(-2)
