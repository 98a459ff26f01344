"""Sionna's sequential LMMSE filter, written with hhat's posterior: one exact posterior per axis, and between two
axes the extrinsic message (posterior over prior).

Sionna scales each pass by s so that E|s h_hat|^2 = R + err. With the pass itself being LMMSE, E|h_hat|^2 = R - e,
which gives s = R / (R - e) and err = s e: precisely the pseudo-observation r = h + CN(0, v) that remains when the
prior CN(0, R) is divided out of the posterior, 1/v = 1/e - 1/R. That the passes treat this r as having independent
errors is what makes the filter an approximation of the joint LMMSE.
"""

import pytest
import torch
from torch import Tensor

import hhat
from hhat.ops import Dense, Select, posterior
from hhat.random import complex_normal
from hhat.types import Gaussian, Message

phy = pytest.importorskip("sionna.phy", reason="sionna-no-rt is not installed")
ofdm = pytest.importorskip("sionna.phy.ofdm")

NUM_ANT, NUM_SYMBOLS, NUM_TONES, BATCH = 3, 6, 12, 2
NO = 0.07


def covariance(size: int, decay: float, phase: float) -> Tensor:
    """Hermitian, positive, and complex, so that a lost conjugate shows."""
    lag = torch.arange(size, dtype=torch.float64)[:, None] - torch.arange(size, dtype=torch.float64)
    return torch.polar(decay ** lag.abs(), phase * lag) * 1.3


def pass_over(
    axis: str, h: Tensor, err: Tensor, seen: Tensor, cov: Tensor, last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass; h, err (batch, antenna, symbol, tone), seen (symbol, tone): which elements carry an estimate."""
    place = {"s": 1, "t": 2, "f": 3}[axis]
    rows, errors = h.movedim(place, -1), err.movedim(place, -1)
    known = seen.expand(h.shape).movedim(place, -1)
    root = Dense(torch.linalg.cholesky(cov))
    unit = Gaussian(cov.new_zeros(1), cov.real.new_ones(1))
    power = cov.diagonal().real
    flat = known.flatten(0, -2)
    out, out_err = torch.zeros_like(rows).flatten(0, -2), torch.zeros_like(errors).flatten(0, -2)
    for pattern in flat.unique(dim=0):
        if not pattern.any():
            continue  # nothing is interpolated where no pilot lies along this axis
        mine = (flat == pattern).all(-1)
        pick = Select(pattern.nonzero()[:, 0], len(pattern))
        y, noise = rows.flatten(0, -2)[mine][:, pattern], errors.flatten(0, -2)[mine][:, pattern]
        belief = posterior(pick @ root, y, unit, noise, view=root).belief
        if not last:
            extrinsic = belief.message() - Message(1 / power, torch.zeros_like(cov.diagonal()))
            belief = extrinsic.gaussian()
        out[mine], out_err[mine] = belief.mean, belief.var
    reached = (seen.any(place - 2, keepdim=True) | torch.zeros_like(seen)) if axis != "s" else seen
    back = out.unflatten(0, rows.shape[:-1]).movedim(-1, place)
    return back, out_err.unflatten(0, rows.shape[:-1]).movedim(-1, place), reached


@pytest.mark.parametrize("precision, tolerance", [("double", 1e-9), ("single", 1e-3)])
@pytest.mark.parametrize("order", ["t-f", "f-t", "t-f-s", "f-t-s", "s-t-f"])
def test_sequential_filter_is_posteriors_with_extrinsic_messages(order: str, precision: str, tolerance: float) -> None:
    grid = ofdm.ResourceGrid(
        NUM_SYMBOLS, NUM_TONES, 30e3, num_tx=2, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[1, 4],
        precision=precision,
    )  # fmt: skip
    covs = {"t": covariance(NUM_SYMBOLS, 0.95, 0.2), "f": covariance(NUM_TONES, 0.9, -0.5)}
    covs["s"] = covariance(NUM_ANT, 0.7, 1.1)
    gen = hhat.generator("sionna-filter", order)
    y = complex_normal((BATCH, 1, NUM_ANT, NUM_SYMBOLS, NUM_TONES), gen, torch.complex128)
    theirs = ofdm.LMMSEChannelEstimator(grid, covs["t"], covs["f"], covs["s"], order=order, precision=precision)
    dtype = torch.complex128 if precision == "double" else torch.complex64
    their_h, their_err = theirs(y.to(dtype), torch.tensor(NO, dtype=dtype.to_real()))

    for tx in range(2):
        mask = grid.pilot_pattern.mask[tx, 0].bool()
        pilots = torch.zeros(NUM_SYMBOLS, NUM_TONES, dtype=torch.complex128)
        pilots[mask] = grid.pilot_pattern.pilots[tx, 0].to(torch.complex128)
        seen = pilots.abs() > 0
        h = torch.where(seen, y[:, 0] / torch.where(seen, pilots, 1), 0)
        err = torch.where(seen, NO / torch.where(seen, pilots, 1).abs().square(), 0).expand(h.shape)
        steps = order.split("-")
        for number, axis in enumerate(steps):
            h, err, seen = pass_over(axis, h, err, seen, covs[axis], last=number == len(steps) - 1)
        assert bool(seen.all())
        scale = h.abs().max()
        assert (their_h[:, 0, :, tx, 0] - h).abs().max() <= tolerance * scale
        assert (their_err[:, 0, :, tx, 0] - err).abs().max() <= tolerance * err.max()
