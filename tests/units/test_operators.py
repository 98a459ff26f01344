"""Operators against textbook matrices that are not built from their own `apply`."""

import math

import pytest
import torch

from hhat.ops import BlockDiag, Compose, Dense, Diagonal, Fourier, Identity, Kron, Select, Stack, Steering
from hhat.random import complex_normal, generator


def cn(*shape):
    return complex_normal(shape, generator("ops", *shape), torch.complex128)


def check_kron_is_torch_kron(rows=2, columns=3):
    left, right = cn(rows, columns), cn(rows, columns).conj() * 2
    op, x = Kron(left, right), cn(6, columns, columns)
    torch.testing.assert_close(op.apply(x), left @ x @ right.mT)
    torch.testing.assert_close(op.dense(torch.complex128), torch.kron(left, right))


def test_kron_is_torch_kron():
    check_kron_is_torch_kron()
    check_kron_is_torch_kron(3, 3)


def test_fourier_is_the_dft_matrix():
    n = torch.arange(6, dtype=torch.float64)
    want = torch.polar(torch.full((6, 6), 6**-0.5, dtype=torch.float64), -2 * math.pi * n[:, None] * n / 6)
    torch.testing.assert_close(Fourier(6).dense(torch.complex128), want)


def test_block_diagonal_and_stack():
    blocks = cn(3, 2, 4)
    torch.testing.assert_close(BlockDiag(Dense(blocks)).dense(torch.complex128), torch.block_diag(*blocks))
    parts = [cn(2, 4), cn(3, 4)]
    torch.testing.assert_close(Stack(tuple(Dense(p) for p in parts)).dense(torch.complex128), torch.cat(parts))


def test_steering_signs():
    u = torch.tensor([0.3, -0.7], dtype=torch.float64)
    want = torch.exp(1j * math.pi * torch.arange(4)[:, None] * u)
    torch.testing.assert_close(Steering.ula(4, u).matrix, want)
    frequency, delay = torch.tensor([0.0, 1e6, 5e6]).double(), torch.tensor([1e-7]).double()
    want = torch.exp(-2j * math.pi * frequency[:, None] * delay)
    torch.testing.assert_close(Steering.delay(frequency, delay).matrix, want)
    grid = Steering.ula_grid(8)
    torch.testing.assert_close(grid.matrix.mH @ grid.matrix, torch.eye(8, dtype=torch.complex64), atol=1e-5, rtol=0)


def test_phases_of_many_cycles_keep_their_precision():
    frequency = torch.tensor([30e9], dtype=torch.float64)
    delay = torch.tensor([1e-6 + 0.25 / 30e9], dtype=torch.float64)  # 30,000 cycles and a quarter
    got = Steering.delay(frequency, delay).matrix[0, 0]
    assert abs(complex(got) - (-1j)) < 1e-4


def test_composition_keeps_structure():
    pilots, basis = Kron(Identity((3,)), cn(2, 4)), Kron(Fourier(3), Fourier(4))
    both = pilots @ basis
    assert isinstance(both, Kron) and isinstance(both.left, Fourier) and isinstance(both.right, Dense)
    assert pilots @ basis is both, "the composition is made once"
    assert isinstance(Fourier(4).H @ Fourier(4), Identity)
    assert isinstance(Diagonal(cn(4)) @ Diagonal(cn(4)), Diagonal)
    assert isinstance(Select(torch.tensor([1]), 4) @ Dense(cn(4, 2)), Dense)
    assert isinstance(Select(torch.tensor([1]), 4) @ Fourier(4), Compose)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Dense(cn(3)), "matrix"),
        (lambda: Dense(cn(3, 4), in_shape=(5,)), "do not fit"),
        (lambda: Diagonal(cn(3), ndim=2), "event axes"),
        (lambda: Select(torch.tensor([0, 0]), 3), "distinct"),
        (lambda: Select(torch.tensor([3]), 3), r"0\.\.2"),
        (lambda: BlockDiag(Dense(cn(2, 3))), "batch axis"),
        (lambda: Stack((Dense(cn(2, 3)), Dense(cn(2, 4)))), "equal input shapes"),
        (lambda: Compose(Dense(cn(2, 3)), Dense(cn(2, 3))), "outer operator takes"),
        (lambda: Dense(cn(2, 3)) @ Dense(cn(2, 3)), "outer operator takes"),
    ],
)
def test_wrong_construction_is_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_to_moves_every_part():
    op = Kron(Diagonal(cn(3)), Stack((Dense(cn(2, 4)), Fourier(4)))).to(torch.complex64)
    assert op.dtype == torch.complex64
    assert op.apply(cn(3, 4).to(torch.complex64)).dtype == torch.complex64
