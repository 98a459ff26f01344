"""The structured posterior against dense algebra, for every structure and every way of sharing variances."""

import gc
import importlib
import math
import weakref

import pytest
import torch

from hhat.experiments.engine_estep import (
    AngleDelay,
    DenseEStep,
    EStep,
    PrintedEStep,
    inverse_by_elimination,
    printed,
    score,
)
from hhat.ops import (
    BlockDiag,
    Compose,
    Dense,
    Diagonal,
    Fourier,
    Identity,
    KhatriRao,
    Kron,
    Select,
    Stack,
    cholesky,
    condition,
    posterior,
    systems,
)
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


PICK = Select(torch.tensor([2, 0]), 3)
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
    "select": PICK,
    "kron select left": Kron(PICK, cn(2, 4)),
    "kron select right": Kron(cn(4, 2), PICK),
    "kron select fourier": Kron(Fourier(3), PICK),
    "kron select both": Kron(PICK, Kron(Identity((2,)), PICK)),
    "kron select batched": Kron(PICK, Dense(cn(5, 3, 2))),
    "pilots on a comb": Compose(Diagonal(cn(2, 2), 2), Kron(Identity((2,)), PICK)),
    "comb of pilots": Compose(PICK, Diagonal(cn(5, 3))),
    "kron of combs": Kron(Compose(Diagonal(cn(2)), PICK), Diagonal(cn(5, 3))),
    "halves": Dense(cn(70, 75)),
    "kron halves": Kron(Dense(cn(5, 40, 41)), Fourier(2)),
    "large": Dense(cn(130, 131)),
    "kron large": Kron(Identity((2,)), cn(130, 131)),
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


ZERO = torch.zeros((), dtype=torch.complex128)
ENTRYWISE = [
    "identity",
    "diagonal",
    "select",
    "kron select both",
    "pilots on a comb",
    "comb of pilots",
    "kron of combs",
]


@pytest.mark.parametrize("name", ENTRYWISE)
def test_entries_seen_one_by_one_need_no_factorisation(name, monkeypatch):
    def refuse(*_):
        raise AssertionError("a system was formed")

    monkeypatch.setattr(systems, "factor", refuse)
    monkeypatch.setattr(torch.linalg, "svd", refuse)
    op = OPS[name]
    gen = generator("entrywise", name)
    y = complex_normal((5, *op.out_shape), gen, torch.complex128)
    var = torch.rand(op.in_shape, generator=gen, dtype=torch.float64)
    noise_var = torch.rand(op.out_shape, generator=gen, dtype=torch.float64)
    got, want = posterior(op, y, Gaussian(ZERO, var), noise_var), brute_force(op, y, Gaussian(ZERO, var), noise_var)
    torch.testing.assert_close(got.belief.mean, want[0])
    torch.testing.assert_close(got.belief.var.expand(want[1].shape), want[1])
    torch.testing.assert_close(got.log_evidence, want[2])


@pytest.mark.parametrize("size", [1, 5, 32, 33, 70, 128, 129])
def test_factors_of_every_size(size):
    root = cn(4, size, size + 2)
    c = root @ root.mH + 0.1 * torch.eye(size)
    found, lower = cholesky.factor(c), torch.linalg.cholesky(c)
    right = cn(size, 3)
    assert found.shape == c.shape
    torch.testing.assert_close(found.log_det, torch.linalg.slogdet(c)[1])
    torch.testing.assert_close(found.inverse, torch.linalg.inv(lower))
    torch.testing.assert_close(found.solve(right), torch.linalg.solve(lower, right.expand(4, size, 3)))
    torch.testing.assert_close(found.solve_vector(right.mT[:, None]), found.solve(right).movedim(-1, 0))


@pytest.mark.parametrize("size", [5, 70, 129])
def test_an_indefinite_matrix_is_nan_and_its_neighbours_are_not(size):
    root = cn(3, size, size)
    c = root @ root.mH + torch.eye(size)
    c[1, -1, -1] = -1
    log_det = cholesky.factor(c).log_det
    assert torch.isnan(log_det[1])
    torch.testing.assert_close(log_det[::2], torch.linalg.slogdet(c[::2])[1])


@pytest.mark.parametrize("name", ["wide", "batched", "kron left identity", "kron fourier", "kron halves", "shaped"])
def test_slices_of_a_batch_give_what_the_batch_gives(name, monkeypatch):
    op, gen = OPS[name], generator("slices", name)
    batch = (7, 5)
    y = complex_normal((3, *batch, *op.out_shape), gen, torch.complex128)
    var = torch.rand(*batch, *op.in_shape, generator=gen, dtype=torch.float64) + 0.1
    for shape in ((), (7, 1, *(1,) * len(op.out_shape)), (*batch, *op.out_shape)):
        noise_var = torch.rand(shape, generator=gen, dtype=torch.float64) + 0.1
        for data in (y, y[0], y[0, :1], y[0, 0, 0]):
            whole = posterior(op, data, Gaussian(ZERO, var), noise_var)
            with monkeypatch.context() as patch:
                patch.setitem(systems.WORKING_SET, "cpu", 1)
                given = condition(op, var, noise_var, like=y)
                assert any(isinstance(part, systems.Slices) for part in _inside(given))
                sliced = posterior(op, data, Gaussian(ZERO, var), noise_var)
            torch.testing.assert_close(sliced.belief.mean, whole.belief.mean)
            torch.testing.assert_close(sliced.belief.var, whole.belief.var)
            torch.testing.assert_close(sliced.log_evidence, whole.log_evidence)


def _inside(given):
    """A conditional and those inside it."""
    return [given, *(_inside(given.inner) if hasattr(given, "inner") else [])]


def test_the_way_is_chosen_once(monkeypatch):
    module = importlib.import_module("hhat.ops.posterior")
    chosen = []
    monkeypatch.setattr(module, "way", lambda *args: chosen.append(args) or _way(*args))
    from hhat.ops.ways import way as _way

    op, view = Kron(cn(2, 4), Fourier(3)), Kron(cn(3, 4), Fourier(3))
    y = cn(2, 2, 3)
    for var in (torch.rand(2, 4, 3).double(), torch.rand(2, 4, 3).double()):
        posterior(op, y, Gaussian(ZERO, var), 0.1)
        posterior(op, y, Gaussian(ZERO, var), 0.2)
    assert len(chosen) == 1
    posterior(op, y, Gaussian(ZERO, var), 0.1, view)
    posterior(op, y, Gaussian(ZERO, var[:, :1, :1]), 0.1)
    assert len(chosen) == 3, "another view and another sharing are other ways"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dense(cn(3, 7)),
        lambda: Dense(cn(7, 3)),
        lambda: KhatriRao(cn(4, 5), cn(3, 5)),
        lambda: Kron(cn(2, 4), Fourier(3)),
        lambda: Kron(PICK, Dense(cn(2, 4))),
        lambda: Fourier(3),
    ],
)
def test_an_operator_is_freed_when_it_is_left(make):
    """What an operator remembers does not hold the operator."""
    op = make()
    posterior(op, torch.zeros(op.out_shape, dtype=ZERO.dtype), Gaussian(ZERO, torch.ones(op.in_shape)), 0.1)
    alive = weakref.ref(op)
    gc.disable()
    try:
        del op
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["wide", "tall", "kron right fourier", "kron select left", "kron halves"])
def test_gradients_are_those_of_finite_differences(name):
    """Unfolded networks train through the E-step."""
    op, gen = OPS[name], generator("gradient", name)
    y = complex_normal((8, 5, *op.out_shape), gen, torch.complex128)
    var = torch.rand(8, 5, *op.in_shape, generator=gen, dtype=torch.float64) + 0.3
    noise_var = torch.tensor(0.3, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (y, var, noise_var)]

    def run(y, var, noise_var):
        found = posterior(op, y, Gaussian(ZERO, var), noise_var)
        return found.belief.mean, found.belief.var, found.log_evidence

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def local_problem(batch: int, dtype: torch.dtype):
    """N = 32 antennas, Q = 16 beams (rows of norm one), K = 16 tones, in angle and delay; unit of a long array."""
    gen = generator("local", batch)
    combiner = complex_normal((16, 32), gen, torch.complex128)
    a = Dense(combiner / combiner.abs().square().sum(-1, keepdim=True).sqrt()) @ Fourier(32).H
    op = Kron(a, Fourier(16).H).to(dtype)
    var = 10 ** (-3 * torch.rand(batch, 32, 16, generator=gen, dtype=torch.float64))
    y = op.to(torch.complex128).apply(complex_normal(var.shape, gen, torch.complex128, var))
    y = y + complex_normal(y.shape, gen, torch.complex128, 0.01)
    return op, y.to(dtype), Gaussian(ZERO, var)


@pytest.mark.parametrize("batch", [1, 20])
def test_the_structured_e_step_equals_the_inverse_of_the_information_matrix(batch):
    """The form that papers print, N K x N K, in double precision; the structured one in single precision, to 1e-5."""
    op, y, prior = local_problem(batch, torch.complex64)
    found = posterior(op, y, prior, 0.01)
    phi = op.dense().to(torch.complex128)
    precision = phi.mH @ phi / 0.01 + torch.diag_embed(1 / prior.var.flatten(1)).to(phi.dtype)
    sigma = torch.linalg.inv(precision)
    mean = (sigma @ (phi.mH @ y.to(phi.dtype).flatten(1)[..., None] / 0.01))[..., 0]
    error = (found.belief.mean.flatten(1) - mean).abs().max() / mean.abs().max()
    spread = sigma.diagonal(dim1=-2, dim2=-1).real
    assert error < 1e-5
    assert ((found.belief.var.flatten(1) - spread).abs() / spread.amax()).max() < 1e-5


@pytest.mark.parametrize("rows", [16, 38])
def test_single_precision_with_variances_over_eight_decades(rows):
    """The worst the loops make: the errors are far below a standard deviation, at 20 dB as at 40 dB."""
    for snr_db, tolerance in ((20.0, 3e-4), (40.0, 3e-2)):
        gen = generator("decades", rows, snr_db)
        op = Kron(Fourier(16), Dense(complex_normal((rows, 64), gen, torch.complex128)))
        var = 10 ** (-8 * torch.rand(8, 16, 64, generator=gen, dtype=torch.float64))
        y = op.apply(complex_normal(var.shape, gen, torch.complex128, var))
        noise_var = float(y.abs().square().mean()) * 10 ** (-snr_db / 10)
        y = y + complex_normal(y.shape, gen, torch.complex128, noise_var)
        want = posterior(op, y, Gaussian(ZERO, var), noise_var)
        got = posterior(op.to(torch.complex64), y.to(torch.complex64), Gaussian(ZERO, var), noise_var)
        assert ((got.belief.mean - want.belief.mean).abs() / want.belief.var.sqrt()).max() < tolerance
        assert (got.belief.var / want.belief.var - 1).abs().max() < tolerance
        torch.testing.assert_close(got.log_evidence.double(), want.log_evidence, rtol=1e-3, atol=0)


def test_a_lost_item_leaves_the_others_alone():
    op, y, prior = local_problem(12, torch.complex64)
    var = prior.var.clone()
    var[3, 4, 5] = torch.nan
    found, whole = posterior(op, y, Gaussian(ZERO, var), 0.01), posterior(op, y, prior, 0.01)
    good = torch.arange(12) != 3
    assert torch.isnan(found.log_evidence[3])
    torch.testing.assert_close(found.belief.mean[good], whole.belief.mean[good])
    torch.testing.assert_close(found.log_evidence[good], whole.log_evidence[good])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_no_power_at_all_is_finite(dtype):
    for op in (Dense(cn(3, 7)), Dense(cn(7, 3)), Kron(cn(20, 30), Fourier(16))):
        var = torch.zeros(op.in_shape)
        y = torch.ones(op.out_shape, dtype=dtype)
        found = posterior(op.to(dtype), y, Gaussian(ZERO, var), 0.0)
        assert (found.belief.mean == 0).all() and (found.belief.var == 0).all()


def test_the_forms_that_the_experiment_compares_agree():
    slot = AngleDelay(32).draw(3, generator("forms"))
    for method in (EStep(), DenseEStep(), PrintedEStep()):
        state = method.step(method.init(slot.obs, generator("unused")), slot.obs)
        assert score(method.read(state, slot.obs), slot)["deviation"].max() < 3e-5
    v = state["v"]
    (mean, var), evidence = printed(slot.obs, v, inverse_by_elimination)
    torch.testing.assert_close(state["mean"], mean, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(state["var"], var, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(state["log_evidence"], evidence, rtol=1e-5, atol=1e-2)
