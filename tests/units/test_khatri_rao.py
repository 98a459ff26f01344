"""`KhatriRao` against sums of outer products and dense algebra, and what it costs in precision where columns crowd."""

import math

import pytest
import torch

from hhat.ops import Compose, Dense, Diagonal, Fourier, Identity, KhatriRao, Kron, LinearOp, Select, Steering, posterior
from hhat.random import complex_normal, generator
from hhat.types import Gaussian
from tests.units.test_posterior import brute_force


def cn(*shape):
    return complex_normal(shape, generator("khatri-rao", *shape), torch.complex128)


def columns(op: KhatriRao) -> torch.Tensor:
    """(M1 M2, C), column by column from torch.kron."""
    pairs = zip(op.left.matrix.mT, op.right.matrix.mT, strict=True)
    return torch.stack([torch.kron(a, b) for a, b in pairs], -1)


def test_is_the_sum_of_outer_products():
    left, right, x, y = cn(3, 5), cn(4, 5), cn(6, 5), cn(6, 3, 4)
    op = KhatriRao(left, right)
    want = sum(x[:, c, None, None] * torch.outer(left[:, c], right[:, c]) for c in range(5))
    torch.testing.assert_close(op.apply(x), want)
    torch.testing.assert_close(op.dense(torch.complex128), columns(op))
    torch.testing.assert_close(op.adjoint(y), y.flatten(1) @ columns(op).conj())
    torch.testing.assert_close(op.gram, columns(op).mH @ columns(op))
    torch.testing.assert_close(op.abs2().dense(torch.float64).real, columns(op).abs().square())


def test_of_picks_cells_of_a_dictionary():
    kron, cells = Kron(cn(3, 6), Kron(cn(2, 4), cn(3, 2))), [(5, 7), (0, 0), (5, 1)]
    op = KhatriRao.of(kron, torch.tensor([c[0] for c in cells]), torch.tensor([c[1] for c in cells]))
    x = cn(2, 3)
    full = torch.zeros(2, 6, 8, dtype=x.dtype)
    for place, (left, right) in enumerate(cells):
        full[:, left, right] = x[:, place]
    assert op.out_shape == (3, 2, 3)
    torch.testing.assert_close(op.apply(x), kron.apply(full.unflatten(-1, (4, 2))))
    index = torch.tensor([1, 4])
    fourier = KhatriRao.of(Kron(Fourier(5), Fourier(6)), index, index)
    torch.testing.assert_close(fourier.left.matrix, Fourier(5).dense()[:, index])


def test_hops_arrays_and_phases_fold_in():
    op = KhatriRao(cn(6, 5), cn(4, 5))
    select = Select(torch.tensor([4, 1]), 6)
    x = cn(3, 5)
    for outer in (Kron(select, Identity((4,))), Kron(Diagonal(cn(6)), cn(2, 4)), Kron(Fourier(6), Dense(cn(2, 4)))):
        both = outer @ op
        assert isinstance(both, KhatriRao)
        torch.testing.assert_close(both.apply(x), outer.apply(op.apply(x)))
    phases = Diagonal(cn(5))
    assert isinstance(op @ phases, KhatriRao)
    torch.testing.assert_close((op @ phases).apply(x), op.apply(phases.apply(x)))
    batched = Kron(Dense(cn(3, 2, 6)), Identity((4,))) @ op
    assert isinstance(batched, KhatriRao) and batched.batch_shape == (3,)
    torch.testing.assert_close(batched.apply(x), Kron(Dense(cn(3, 2, 6)), Identity((4,))).apply(op.apply(x)))
    nested = KhatriRao(Dense(cn(6, 5), out_shape=(2, 3)), cn(4, 5))
    across = Kron(Identity((2,)), Kron(Identity((3,)), Identity((4,))))  # splits between other axes
    assert isinstance(across @ nested, Compose)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: KhatriRao(cn(3, 4), cn(3, 5)), "4 columns, right has 5"),
        (lambda: KhatriRao.of(Kron(cn(3, 4), cn(3, 4)), torch.tensor([0, 1]), torch.tensor([0])), "one length"),
        (lambda: KhatriRao.of(Kron(cn(3, 4), cn(3, 4)), torch.tensor([4]), torch.tensor([0])), r"0\.\.3, got \[4\]"),
        (lambda: KhatriRao(cn(3, 4), cn(2, 4)) @ torch.zeros(5, dtype=torch.complex64), "expected x of shape"),
    ],
)
def test_wrong_calls_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


CASES = {
    "few": KhatriRao(cn(4, 5), cn(3, 5)),
    "as many as data": KhatriRao(cn(2, 6), cn(3, 6)),
    "more than data": KhatriRao(cn(2, 9), cn(3, 9)),
    "batched": KhatriRao(Dense(cn(5, 4, 6)), Dense(cn(3, 6))),
    "three axes": KhatriRao(Dense(cn(6, 4), out_shape=(2, 3)), cn(3, 4)),
    "inside Kron": Kron(Identity((2,)), KhatriRao(cn(4, 5), cn(3, 5))),
    "one cell": KhatriRao(cn(4, 1), cn(3, 1)),
}


@pytest.mark.parametrize("noise", ["white", "per item", "per entry"])
@pytest.mark.parametrize("name", CASES)
def test_posterior_equals_dense_algebra(name, noise):
    op, gen = CASES[name], generator(name, noise)
    shape = {"white": (), "per item": (5, *(1,) * len(op.out_shape)), "per entry": (5, *op.out_shape)}[noise]
    noise_var = torch.rand(shape, generator=gen, dtype=torch.float64) + 0.1
    var = 10 ** (-4 * torch.rand(5, *op.in_shape, generator=gen, dtype=torch.float64))
    prior = Gaussian(complex_normal((5, *op.in_shape), gen, torch.complex128), var)
    y = complex_normal((5, *op.out_shape), gen, torch.complex128)
    single = op.right if isinstance(op, Kron) else op
    view = KhatriRao(cn(7, *single.in_shape), Dense(cn(2, *single.in_shape)))
    for seen in (None, Kron(Identity((2,)), view) if isinstance(op, Kron) else view):
        got, want = posterior(op, y, prior, noise_var, seen), brute_force(op, y, prior, noise_var, seen)
        torch.testing.assert_close(got.belief.mean, want[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(got.belief.var, want[1], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(got.log_evidence, want[2], rtol=1e-10, atol=1e-10)


def test_shared_variances_and_many_y():
    op, gen = CASES["few"], generator("shared")
    y = complex_normal((3, 2, *op.out_shape), gen, torch.complex128)
    for var in (torch.tensor([0.7]), torch.rand(2, 5, generator=gen) + 0.1):
        prior = Gaussian(torch.zeros((), dtype=y.dtype), var.double())
        got, want = posterior(op, y, prior, 0.3), brute_force(op, y, prior, 0.3)
        torch.testing.assert_close(got.belief.mean, want[0])
        torch.testing.assert_close(got.belief.var.expand(want[1].shape), want[1])
        torch.testing.assert_close(got.log_evidence, want[2])


def test_the_dictionary_is_never_formed(monkeypatch):
    """250 tones x 32 antennas x 400 cells, seen on 1000 tones: the matrices would have 3 and 13 million entries."""

    def refuse(*_):
        raise AssertionError("a matrix was formed")

    gen = generator("large")
    right = complex_normal((32, 400), gen)
    op, view = (KhatriRao(complex_normal((n, 400), gen), right) for n in (250, 1000))
    monkeypatch.setattr(LinearOp, "dense", refuse)
    y = complex_normal((2, 250, 32), gen)
    prior = Gaussian(torch.zeros((), dtype=y.dtype), torch.ones(400))
    found = posterior(op, y, prior, 0.1)
    wide = posterior(op, y, prior, 0.1, Diagonal(torch.ones(400, dtype=y.dtype)))
    torch.testing.assert_close(found.belief.var, wide.belief.var, rtol=1e-4, atol=1e-6)
    assert view.apply(found.belief.mean).shape == (2, 1000, 32)


def contiguous_band(snr_db: float):
    """50 of 256 tones, 32 antennas; 300 neighbouring cells at 4 times oversampled delays, twice oversampled angles."""
    gen = generator("band", snr_db)
    tones, antennas = torch.arange(100, 150, dtype=torch.float64), torch.arange(32, dtype=torch.float64) / 2
    delays, angles = torch.arange(1024, dtype=torch.float64) / 1024, torch.arange(-32, 32, dtype=torch.float64) / 32
    dictionary = Kron(Steering(-tones, delays), Steering(antennas, angles))
    op = KhatriRao.of(dictionary, torch.arange(40, 60).repeat_interleave(15), torch.arange(20, 35).repeat(20))
    var = 10 ** (-4 * torch.rand(300, generator=gen, dtype=torch.float64))
    x = complex_normal((300,), gen, torch.complex128, var)
    h = op.apply(x)
    noise_var = float(h.abs().square().mean()) * 10 ** (-snr_db / 10)
    return op, h + complex_normal(h.shape, gen, torch.complex128, noise_var), var, noise_var


@pytest.mark.parametrize("snr_db", [30.0, 50.0])
def test_a_contiguous_band_in_single_precision(snr_db):
    """Neighbouring columns are collinear to 1 part in 1000 (their Gram matrix has condition 1e9 and more): the single
    precision answer has to stay within 1 part in 1000 of a standard deviation of the double precision one."""
    op, y, var, noise_var = contiguous_band(snr_db)
    assert torch.linalg.cond(op.gram) > 1e9
    zero = torch.zeros((), dtype=torch.complex128)
    want = posterior(op, y, Gaussian(zero, var), noise_var)
    got = posterior(op.to(torch.complex64), y.to(torch.complex64), Gaussian(zero, var.float()), noise_var)
    assert got.belief.mean.dtype == torch.complex64 and got.belief.var.dtype == torch.float32
    off = (got.belief.mean - want.belief.mean).abs() / want.belief.var.sqrt()
    assert off.max() < 1e-3
    torch.testing.assert_close(got.belief.var.double(), want.belief.var, rtol=1e-4, atol=0)
    torch.testing.assert_close(got.log_evidence.double(), want.log_evidence, rtol=1e-5, atol=0)


def test_single_precision_inside_would_not_do():
    """Why the system is solved in double precision: the same formula in single precision, solved the better way."""
    op, y, var, noise_var = contiguous_band(30.0)
    want = posterior(op, y, Gaussian(torch.zeros((), dtype=torch.complex128), var), noise_var).belief
    single, y = op.to(torch.complex64), y.to(torch.complex64)
    root = var.float().sqrt()
    lower = torch.linalg.cholesky(single.gram * root[:, None] * root / noise_var + torch.eye(300))
    textbook = root * torch.cholesky_solve((root * single.adjoint(y) / noise_var)[:, None], lower)[:, 0]
    ours = posterior(single, y, Gaussian(torch.zeros((), dtype=y.dtype), var.float()), noise_var).belief.mean
    off = [float(((mean - want.mean).abs() / want.var.sqrt()).max()) for mean in (textbook, ours)]
    assert off[0] > 100 * off[1]


def test_evidence_of_a_cell_alone_is_the_closed_form():
    a, b = cn(4, 1), cn(3, 1)
    y, energy = cn(4, 3), float(a.abs().square().sum() * b.abs().square().sum())
    found = posterior(KhatriRao(a, b), y, Gaussian(torch.zeros((), dtype=y.dtype), torch.tensor([0.5])), 0.2)
    share = 0.5 * energy / (0.5 * energy + 0.2)
    matched = (a[:, 0].conj() @ y @ b[:, 0].conj()) / energy
    torch.testing.assert_close(found.belief.mean[0], share * matched)
    torch.testing.assert_close(found.belief.var, torch.tensor([0.5 * (1 - share)], dtype=torch.float64))
    distance = (y.abs().square().sum() - share * energy * matched.abs().square()) / 0.2
    want = -12 * math.log(math.pi) - 11 * math.log(0.2) - math.log(0.2 + 0.5 * energy) - distance
    torch.testing.assert_close(found.log_evidence, want)
