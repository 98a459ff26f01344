"""The structured posterior against dense algebra, for every structure and every way of sharing variances."""

import math

import pytest
import torch

from hhat.ops import BlockDiag, Compose, Dense, Diagonal, Fourier, Identity, Kron, Select, Stack, posterior
from hhat.random import complex_normal, generator
from hhat.types import Gaussian


def brute_force(op, y, prior, noise_var, view=None):
    """Textbook formula with explicit inverses, item by item, in float64."""
    rows, columns = math.prod(op.out_shape), math.prod(op.in_shape)
    batch = torch.broadcast_shapes(y.shape[: y.ndim - len(op.out_shape)], op.batch_shape)
    a = op.dense(torch.complex128).expand(*batch, rows, columns)
    v = prior.var.expand(*batch, *op.in_shape).reshape(*batch, columns)
    m = prior.mean.expand(*batch, *op.in_shape).reshape(*batch, columns)
    s2 = torch.as_tensor(noise_var, dtype=torch.float64).expand(*batch, *op.out_shape).reshape(*batch, rows)
    b = torch.eye(columns, dtype=a.dtype) if view is None else view.dense(torch.complex128)
    y = y.expand(*batch, *op.out_shape).reshape(*batch, rows)
    covariance = a @ torch.diag_embed(v).to(a.dtype) @ a.mH + torch.diag_embed(s2)
    inverse = torch.linalg.inv(covariance)
    gain = torch.diag_embed(v).to(a.dtype) @ a.mH @ inverse
    e = y - (a @ m[..., None])[..., 0]
    mean = (b @ (m[..., None] + gain @ e[..., None]))[..., 0]
    sigma = torch.diag_embed(v).to(a.dtype) - gain @ a @ torch.diag_embed(v).to(a.dtype)
    var = (b @ sigma @ b.mH).diagonal(dim1=-2, dim2=-1).real
    distance = (e.conj() * (inverse @ e[..., None])[..., 0]).sum(-1).real
    evidence = -rows * math.log(math.pi) - torch.linalg.slogdet(covariance)[1] - distance
    shape = op.in_shape if view is None else view.out_shape
    return mean.reshape(*batch, *shape), var.reshape(*batch, *shape), evidence


def cn(*shape):
    return complex_normal(shape, generator("posterior", *shape), torch.complex128)


OPS = {
    "identity": Identity((3, 4)),
    "diagonal": Diagonal(cn(3, 4), 2),
    "wide": Dense(cn(3, 7)),
    "tall": Dense(cn(7, 3)),
    "batched": Dense(cn(5, 3, 4)),
    "kron left identity": Kron(Identity((3,)), cn(2, 4)),
    "kron right identity": Kron(cn(2, 4), Identity((3,))),
    "kron fourier": Kron(Fourier(3), cn(2, 4)),
    "kron right fourier": Kron(cn(4, 2), Fourier(3)),
    "kron full": Kron(cn(2, 3), cn(3, 4)),
    "kron tall": Kron(cn(5, 3), cn(4, 2)),
    "kron batched": Kron(Dense(cn(5, 2, 3)), Dense(cn(5, 3, 2))),
    "kron batched right": Kron(Identity((3,)), Dense(cn(5, 3, 2))),
    "kron three": Kron(cn(2, 3), Kron(Select(torch.tensor([0, 2]), 3), cn(3, 2))),
    "kron unitary": Kron(Fourier(3), Identity((4,))),
    "blocks": BlockDiag(Dense(cn(3, 2, 4))),
    "stack": Stack((Dense(cn(2, 4)), Diagonal(cn(4)))),
    "select fourier": Compose(Select(torch.tensor([0, 2, 3]), 5), Fourier(5)),
    "fourier dense": Compose(Kron(Fourier(2), Fourier(3)), Kron(cn(2, 3), cn(3, 2))),
    "shaped": Dense(cn(6, 8), in_shape=(2, 4), out_shape=(3, 2)),
}
SHARED = {"scalar": (0, 0), "entry": (1, 0), "noise per entry": (0, 1), "both per entry": (1, 1), "last axis": (2, 0)}


@pytest.mark.parametrize("sharing", SHARED)
@pytest.mark.parametrize("name", OPS)
def test_equals_dense_algebra(name, sharing):
    op = OPS[name]
    gen = generator(name, sharing)
    batch = (5,)
    prior_kind, noise_kind = SHARED[sharing]

    def draw(shape, kind):
        shape = {0: (1,) * len(shape), 1: shape, 2: (*(1,) * (len(shape) - 1), shape[-1])}[kind]
        return torch.rand(*batch, *shape, generator=gen, dtype=torch.float64) + 0.2

    v, s2 = draw(op.in_shape, prior_kind), draw(op.out_shape, noise_kind)
    y = complex_normal((*batch, *op.out_shape), gen, torch.complex128)
    mean = complex_normal((*batch, *op.in_shape), gen, torch.complex128)
    prior = Gaussian(mean, v)
    for view in (None, _view(op, gen)):
        got = posterior(op, y, prior, s2, view)
        want = brute_force(op, y, prior, s2, view)
        torch.testing.assert_close(got.belief.mean, want[0], rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(got.belief.var.expand(want[1].shape), want[1], rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(got.log_evidence, want[2], rtol=1e-8, atol=1e-8)


def _view(op, gen):
    """A view that splits like the operator where it is a Kron, else any matrix."""
    if isinstance(op, Kron):
        return Kron(_view(op.left, gen), _view(op.right, gen))
    size = math.prod(op.in_shape)
    return Dense(complex_normal((size + 1, size), gen, torch.complex128), in_shape=op.in_shape)


def test_kron_with_view_that_does_not_split():
    op, gen = OPS["kron full"], generator("view")
    view = Dense(complex_normal((5, 12), gen, torch.complex128), in_shape=(3, 4))
    prior = Gaussian(torch.zeros((), dtype=torch.complex128), torch.tensor(0.7, dtype=torch.float64))
    y = complex_normal((2, *op.out_shape), gen, torch.complex128)
    got, want = posterior(op, y, prior, 0.3, view), brute_force(op, y, prior, 0.3, view)
    torch.testing.assert_close(got.belief.mean, want[0])
    torch.testing.assert_close(got.log_evidence, want[2])


def test_zero_noise_returns_the_channel_and_stays_finite():
    a = torch.linalg.qr(cn(6, 6))[0]
    x = cn(4, 6)
    for op in (Dense(a), Kron(Identity((1,)), Dense(a)), Dense(a[:, :3]), Identity((6,))):
        x_in = x[:, : op.in_shape[-1]].reshape(4, *op.in_shape)
        prior = Gaussian(torch.zeros((), dtype=torch.complex128), torch.ones(op.in_shape, dtype=torch.float64))
        got = posterior(op, op.apply(x_in), prior, 0.0)
        torch.testing.assert_close(got.belief.mean, x_in, rtol=1e-6, atol=1e-6)
        assert torch.isfinite(got.belief.var).all() and torch.isfinite(got.log_evidence).all()


def test_too_large_without_structure_is_refused():
    zero = torch.zeros(70, 70, dtype=torch.complex64)
    op = Kron(zero, zero)
    prior = Gaussian(torch.zeros((), dtype=torch.complex64), torch.ones(70, 70))
    with pytest.raises(ValueError, match="4900 unknowns"):
        posterior(op, zero, prior, 1.0)


def test_real_matrices_are_taken():
    gen = generator("real")
    real = torch.rand(3, 4, generator=gen)
    y = complex_normal((5, 3), gen)
    prior = Gaussian(torch.zeros((), dtype=torch.complex64), torch.ones(4))
    got = posterior(Dense(real), y, prior, 0.1)
    want = posterior(Dense(real.to(torch.complex64)), y, prior, 0.1)
    torch.testing.assert_close(got.belief.mean, want.belief.mean)
