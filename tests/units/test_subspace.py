"""Subspaces of pilots: shares against full eigendecompositions, peaks, local maxima, MDL and the smoothing of bands."""

import math

import pytest
import torch

from hhat.extrapolation.subspace import mdl_rank, of_rank, peaks, refined, share, share_grid, smoothed
from hhat.random import complex_normal, generator

GEN = generator("test", "subspace")
NUM, ANTS, RANK = 14, 6, 3
Y = complex_normal((2, NUM, ANTS), GEN, torch.complex128)
U, S, _ = torch.linalg.svd(Y, full_matrices=False)
BASIS = of_rank(U, S, torch.tensor([RANK, RANK])).basis
PLACES = torch.arange(NUM, dtype=torch.float64)[:, None]


def test_one_less_the_share_is_the_energy_in_the_noise_subspace_of_the_full_eigendecomposition():
    noise = torch.linalg.eigh(Y @ Y.mH)[1][..., : NUM - RANK]
    grid = torch.arange(8 * NUM, dtype=torch.float64) / (8 * NUM)
    a = torch.polar(torch.ones(NUM, 8 * NUM, dtype=torch.float64), 2 * math.pi * PLACES * grid)
    want = (noise.mH @ a).abs().square().sum(-2) / NUM
    assert torch.allclose(1 - share_grid(BASIS, (NUM,)), want, atol=1e-10)
    assert torch.allclose(1 - share(BASIS, PLACES, grid[:, None].expand(2, -1, 1)), want, atol=1e-10)


def test_a_grid_over_two_axes_counts_them_in_the_order_of_the_rows():
    basis = torch.linalg.qr(complex_normal((2, 12, 2), GEN, torch.complex128))[0]
    position = torch.cartesian_prod(torch.arange(4.0), torch.arange(3.0)).double()
    grid = share_grid(basis, (4, 3), pad=2)
    spot = torch.tensor([[5 / 8, 1 / 6]], dtype=torch.float64).expand(2, 1, 2)
    assert grid.shape == (2, 8, 6)
    assert torch.allclose(grid[:, 5, 1], share(basis, position, spot)[:, 0], atol=1e-12)


def test_refined_spots_are_stationary_higher_and_within_reach():
    position = torch.cartesian_prod(torch.arange(4.0), torch.arange(3.0)).double()
    basis = torch.linalg.qr(complex_normal((2, 12, 2), GEN, torch.complex128))[0]
    step = torch.tensor([1 / 32, 1 / 24], dtype=torch.float64)
    start = peaks(share_grid(basis, (4, 3)), 2, 2, (4, 4)).index.double() * step
    spot = refined(basis, position, start, step, steps=6).requires_grad_()
    found = share(basis, position, spot)
    (slope,) = torch.autograd.grad(found.sum(), spot)
    assert slope.abs().max() < 1e-6 and bool((found > share(basis, position, start)).all())
    assert bool(((spot - start).abs() <= step + 1e-12).all())


def test_peaks_wrap_around_keep_their_distance_and_are_padded():
    grid = torch.tensor([[0.9, 0.2, 0.6, 0.1, 0.0, 0.3, 0.0, 0.8]])
    found = peaks(grid, 1, 4, (2,), 0.25)
    assert found.index[0, :2, 0].tolist() == [0, 5] and found.mask[0].tolist() == [True, True, False, False]
    near = peaks(grid, 1, 4, (1,), 0.25)  # 7 is next to 0, 2 stands apart now
    assert sorted(near.index[0, near.mask[0], 0].tolist()) == [0, 2, 5]


def test_mdl_is_the_formula_term_by_term_and_finds_the_rank():
    n, p = 40, 6
    a = complex_normal((p, 3), GEN, torch.complex128)
    x = complex_normal((3, n), GEN, torch.complex128)
    s = torch.linalg.svdvals(a @ x + complex_normal((p, n), GEN, torch.complex128, 0.01))
    power = (s.square() / n).tolist()

    def value(k: int) -> float:
        tail = power[k:]
        ratio = math.prod(tail) ** (1 / len(tail)) / (sum(tail) / len(tail))
        return -n * len(tail) * math.log(ratio) + 0.5 * k * (2 * p - k) * math.log(n)

    assert int(mdl_rank(s, n)) == min(range(p), key=value) == 3
    assert mdl_rank(torch.zeros(2, p, dtype=torch.float64), n).tolist() == [0, 0]


@pytest.mark.parametrize("turned", [False, True])
def test_smoothing_tells_two_delays_of_one_antenna_apart(turned):
    """One column has rank 1; of its sub-bands both delays are in the span, whatever the phase between them."""
    a = torch.polar(torch.ones(40, 2, dtype=torch.float64), 2 * math.pi * torch.arange(40.0).double()[:, None]
                    * torch.tensor([0.11, 0.34], dtype=torch.float64))  # fmt: skip
    column = a @ torch.tensor([[1.0], [1j if turned else 0.7]], dtype=torch.complex128)
    z = smoothed(column)
    assert z.shape == (24, 2 * 9)
    u, s, _ = torch.linalg.svd(z, full_matrices=False)
    assert s[2] < 1e-10 * s[0]
    inside = u[:, :2].mH @ a[:24]
    assert torch.allclose(inside.abs().square().sum(0), torch.full((2,), 24.0, dtype=torch.float64), atol=1e-8)
