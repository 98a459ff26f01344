"""`gamp` and `uamp`: the printed recursions written out, invariances, noise, and what becomes of matrices that break
them."""

import math

import pytest
import torch

import hhat
from hhat.methods.amp import Gamp
from hhat.methods.uamp import Uamp
from hhat.ops import BlockDiag, Compose, Dense, Diagonal, Fourier, Identity, Kron, Select, Stack, rotation
from hhat.priors import Gauss, bernoulli_gauss
from hhat.random import complex_normal, generator
from hhat.scenarios.ill_conditioned import IllConditioned
from hhat.types import Observation, Status

DOUBLE = torch.complex128


def cn(*shape):
    return complex_normal(shape, generator("amp", *shape), DOUBLE)


def states(method, obs, count):
    state = method.init(obs, generator("unused"))
    for _ in range(count):
        state = method.step(state, obs)
        yield state


def per_item(ratio_to, est, h):
    return 10 * torch.log10((est.belief.mean - h).abs().square().sum(-1) / ratio_to)


# the recursions as printed ------------------------------------------------------------------------------------------


def noisy(a, x, share=0.2):
    """y of a problem whose noise lies above the level from which it would be annealed."""
    clean = a @ x
    noise_var = share * clean.abs().square().mean()
    return clean + complex_normal(tuple(clean.shape), generator("noise"), DOUBLE) * noise_var.sqrt(), noise_var


def test_uamp_is_the_printed_recursion():
    """UAMP-SBL for K columns that share tau_x and tau_q, with fixed precisions g and noise precision b."""
    rows, columns, num = 16, 32, 8
    a = cn(rows, columns)
    g = 0.2 + 5 * torch.rand(columns, num, generator=generator("g"), dtype=torch.float64)
    y, noise_var = noisy(a, cn(columns, num) / g.sqrt())
    b = 1 / noise_var
    u, s_values, vh = torch.linalg.svd(a, full_matrices=False)
    r, lam_matrix, lam = u.mH @ y, s_values[:, None] * vh, s_values.square()[:, None]
    x, s = torch.zeros(columns, num, dtype=DOUBLE), torch.zeros(rows, num, dtype=DOUBLE)
    tau_x = (1 / g).mean()
    method = Uamp(Gauss(1 / g), average_axes=(-2, -1), damping=1.0)
    for state in states(method, Observation(y, Kron(Dense(a), Identity((num,))), noise_var), 25):
        tau_p = tau_x * lam
        p = lam_matrix @ x - tau_p * s
        tau_s = 1 / (tau_p + 1 / b)
        s = tau_s * (r - p)
        tau_q = columns / (lam * tau_s).sum()
        q = x + tau_q * (lam_matrix.mH @ s)
        x, tau_x = q / (1 + tau_q * g), (tau_q / (1 + tau_q * g)).mean()
        torch.testing.assert_close(state["x"], x, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(state["v"].mean(), tau_x, rtol=1e-10, atol=0)
    assert x.abs().max() > 0.3


def bernoulli_gauss_mean(r, v, active, var):
    """Posterior mean and variance of a Bernoulli-Gauss entry, one number."""
    odds = active / (1 - active) * v / (v + var) * math.exp(min(abs(r) ** 2 * (1 / v - 1 / (v + var)), 600))
    share, gain = odds / (1 + odds), var / (v + var)
    mean = share * gain * r
    return mean, share * (gain * v + abs(gain * r) ** 2) - abs(mean) ** 2


@pytest.mark.parametrize("shared", [False, True])
def test_gamp_is_the_printed_recursion(shared):
    """Rangan 2011, algorithm 1, entry by entry; with one variance for all coefficients the precision is averaged."""
    rows, columns, active, var = 10, 20, 0.2, 5.0
    a = cn(rows, columns)
    y, noise_var = noisy(a, bernoulli_gauss(active, var).sample((columns, 1), generator("x"), DOUBLE))
    y = y[:, 0]
    prior = bernoulli_gauss(active, var, learnable=False)
    method = Gamp(prior, average_axes=(-1,) if shared else (), damping=1.0)
    x, v = [0j] * columns, [active * var] * columns
    s = [0j] * rows
    for state in states(method, Observation(y, Dense(a), noise_var), 8):
        r, v_r = [0j] * columns, [0.0] * columns
        v_p = [sum(abs(a[m, n]) ** 2 * v[n] for n in range(columns)) for m in range(rows)]
        p = [sum(a[m, n] * x[n] for n in range(columns)) - v_p[m] * s[m] for m in range(rows)]
        s = [(y[m] - p[m]) / (v_p[m] + noise_var) for m in range(rows)]
        precision = [sum(abs(a[m, n]) ** 2 / (v_p[m] + noise_var) for m in range(rows)) for n in range(columns)]
        for n in range(columns):
            v_r[n] = float(1 / (sum(precision) / columns if shared else precision[n]))
            r[n] = complex(x[n] + v_r[n] * sum(a[m, n].conj() * s[m] for m in range(rows)))
            x[n], v[n] = bernoulli_gauss_mean(r[n], v_r[n], active, var)
        if shared:
            v = [sum(v) / columns] * columns
        # the mixture's zero is a component of 1e-10 of the power
        torch.testing.assert_close(state["x"], torch.tensor(x, dtype=DOUBLE), rtol=1e-6, atol=1e-8)
    assert max(map(abs, x)) > 0.3


# rotation -----------------------------------------------------------------------------------------------------------

OPERATORS = {
    "wide": Dense(cn(3, 7)),
    "tall": Dense(cn(7, 3)),
    "batched": Dense(cn(2, 3, 4)),
    "axes": Dense(cn(6, 4), in_shape=(2, 2), out_shape=(3, 2)),
    "unitary": Dense(torch.linalg.qr(cn(4, 4))[0], unitary=True),
    "fourier": Fourier(5),
    "diagonal": Diagonal(cn(2, 3), 2),
    "select": Select(torch.tensor([3, 0]), 5),
    "kron": Kron(Fourier(3), cn(2, 4)),
    "kron full": Kron(cn(2, 3), Kron(Identity((2,)), cn(4, 2))),
    "blocks": BlockDiag(Dense(cn(3, 2, 4))),
    "composed": Compose(Fourier(3), Dense(cn(3, 5))),
    "stack": Stack((Diagonal(cn(4)), Dense(cn(2, 4)))),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_rotation_is_a_factorisation(name):
    """A = U B with orthonormal columns of U, and B has rows at right angles (its factors have, where it is a Kron)."""
    op = OPERATORS[name]
    found = rotation.rotation(op, cn(1))
    turn, inner = found.turn.dense(DOUBLE), found.op.dense(DOUBLE)
    torch.testing.assert_close(turn.mH @ inner, op.dense(DOUBLE))
    square = turn @ turn.mH
    torch.testing.assert_close(square, torch.eye(square.shape[-1], dtype=DOUBLE).expand(square.shape))
    gram = inner @ inner.mH
    torch.testing.assert_close(gram, torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1)), rtol=0, atol=1e-12)
    assert len(found.axes) == len(found.op.out_shape)


def test_rotation_keeps_the_structure_and_knows_which_samples_it_mixes():
    found = rotation.rotation(Kron(Fourier(3), cn(2, 4)), cn(1))
    assert isinstance(found.op, Kron) and isinstance(found.op.left, Identity)
    found = rotation.rotation(Kron(Identity((3,)), cn(2, 4)), cn(1))
    assert found.axes == (-2, None)
    for shape, alike in (((), True), ((5, 1, 1), True), ((3, 1), True), ((2,), False), ((5, 3, 2), False)):
        assert found.mixes_alike(torch.ones(shape), 2) == alike
    assert found.turned(torch.ones(5, 3, 1), 2).shape == (5, 3, 1)


def test_pooled_moduli_are_the_moduli_of_shared_variances():
    gen = generator("pooled")
    for op in OPERATORS.values():
        for axes in {(), (-1,), tuple(range(-len(op.in_shape), 0))}:
            shape = [1 if place - len(op.in_shape) in axes else n for place, n in enumerate(op.in_shape)]
            v = torch.rand(2, *shape, generator=gen, dtype=torch.float64)
            want = op.squares.apply(v.expand(2, *op.in_shape))
            small = rotation.pooled(op, axes, cn(1))
            torch.testing.assert_close(small.apply(v), want)
            w = torch.rand(2, *op.out_shape, generator=gen, dtype=torch.float64)
            back = op.squares.adjoint(w)
            torch.testing.assert_close(small.adjoint(w), back.sum(axes, keepdim=True) if axes else back)


def sparse_problem(rows=48, columns=96, num=6, noise_var=0.01, label="sparse"):
    gen = generator(label)
    a = complex_normal((rows, columns), gen, DOUBLE) / rows**0.5
    x = bernoulli_gauss(0.1, learnable=False).sample((num, columns), gen, DOUBLE)
    noise = complex_normal((num, rows), gen, DOUBLE)
    return a, x, x @ a.mT + noise * noise_var**0.5


def test_uamp_does_not_see_a_rotation_of_y():
    a, _, y = sparse_problem()
    q = torch.linalg.qr(cn(48, 48))[0]
    method = Uamp(bernoulli_gauss(0.1))
    plain = hhat.solve(method, Observation(y, Dense(a), 0.01))
    turned = hhat.solve(method, Observation(y @ q.mT, Dense(q @ a), 0.01))
    torch.testing.assert_close(plain.belief.mean, turned.belief.mean, rtol=1e-6, atol=1e-8)
    other = hhat.solve(Gamp(bernoulli_gauss(0.1)), Observation(y @ q.mT, Dense(q @ a), 0.01))
    assert (other.belief.mean - plain.belief.mean).abs().max() > 1e-4


def test_with_orthonormal_rows_uamp_is_scalar_gamp():
    """All singular values are 1: the rotation of y has nothing to gain, and the two take the same steps."""
    a, _, _ = sparse_problem()
    a = torch.linalg.qr(a.mH)[0].mH
    x = bernoulli_gauss(0.1, learnable=False).sample((4, 96), generator("rows"), DOUBLE)
    obs, prior = Observation(x @ a.mT + 0.5 * cn(4, 48), Dense(a), 0.25), bernoulli_gauss(0.1)
    scalar = Gamp(prior, average_axes=(-1,))
    for left, right in zip(states(Uamp(prior), obs, 30), states(scalar, obs, 30), strict=True):
        torch.testing.assert_close(left["x"], right["x"], rtol=1e-6, atol=1e-9)


def test_equal_moduli_make_the_shared_variance_exact():
    """|A_mn| = 1 and a white Gaussian prior: per entry and shared take the same steps."""
    a = torch.polar(
        torch.ones(12, 20, dtype=torch.float64), 7 * torch.rand(12, 20, generator=generator("phases")).double()
    )
    obs = Observation(cn(3, 12), Dense(a), 0.3)
    for left, right in zip(
        states(Gamp(Gauss(1.0)), obs, 20), states(Gamp(Gauss(1.0), average_axes=None), obs, 20), strict=True
    ):
        torch.testing.assert_close(left["x"], right["x"], rtol=1e-9, atol=1e-12)


# noise --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16,), (3, 16), (3, 1)])
def test_noise_that_differs_between_samples(shape):
    """Under a Gaussian prior the fixed point is the LMMSE estimate, whatever is whitened on the way."""
    noise_var = 0.05 + torch.rand(shape, generator=generator("levels", *shape), dtype=torch.float64)
    prior = Gauss(0.5 + torch.rand(24, generator=generator("var")).double())
    obs = Observation(cn(3, 16), Dense(cn(16, 24) / 4), noise_var)
    want = hhat.solve(hhat.method("lmmse", prior=prior), obs).belief.mean
    got = hhat.solve(Uamp(prior), obs, max_steps=3000, tol=1e-22).belief.mean
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_silent_samples_are_whitened_to_a_finite_weight():
    noise_var = torch.ones(16, dtype=torch.float64)
    noise_var[3] = 0
    obs = Observation(cn(3, 16), Dense(cn(16, 24) / 4), noise_var)
    est = hhat.solve(Uamp(Gauss(1.0)), obs)
    fitted = (obs.y - obs.op.apply(est.belief.mean))[:, 3]
    assert torch.isfinite(est.belief.mean).all() and fitted.abs().max() < 1e-3


@pytest.mark.parametrize("kind", [Gamp, Uamp])
def test_learned_noise_is_not_fed_by_the_uncertainty_of_x(kind):
    """s2 is 1 % of the received power. |y - A x|^2 + |A|^2 v, as one might put it, is several times too large."""
    scene = IllConditioned(num_rows=150, num_columns=256, active=0.2, snr_db=20.0)
    slot = scene.draw(10, generator("learned noise"))
    est = hhat.solve(kind(bernoulli_gauss(0.2)), Observation(slot.obs.y, slot.obs.op))
    assert est.info["noise_var"].shape == (10, 1)
    assert float(est.info["noise_var"].mean()) == pytest.approx(scene.noise_var(), rel=0.15)


def test_samples_outside_the_range_of_the_matrix_tell_the_noise():
    """60 samples of 6 unknowns that are all seen: s2 is the residual of least squares over 54."""
    a, x = cn(60, 6), 3 * cn(20, 6)
    y = x @ a.mT + 0.5 * cn(20, 60)
    est = hhat.solve(Uamp(Gauss(9.0)), Observation(y, Dense(a)), tol=1e-12)
    left = y - y @ torch.linalg.pinv(a).mT @ a.mT
    torch.testing.assert_close(est.info["noise_var"][:, 0], left.abs().square().sum(-1) / 54, rtol=5e-3, atol=0)


def test_a_noise_level_far_too_low_is_not_called_converged():
    _, _, y = sparse_problem()
    a, _, _ = sparse_problem()
    prior = bernoulli_gauss(0.1, learnable=False)
    assert hhat.solve(Gamp(prior), Observation(y, Dense(a), 0.01)).status_counts() == {"OK": 6}
    est = hhat.solve(Gamp(prior), Observation(y, Dense(a), 1e-5))
    assert est.status_counts() == {"MAX_STEPS": 6}


# recovery -----------------------------------------------------------------------------------------------------------

MILD = {
    "i.i.d.": {},
    "condition 10": {"condition": 10},
    "mean 0.1": {"mean": 0.1},
    "rank 0.8": {"rank": 0.8},
    "correlation 0.5": {"correlation": 0.5},
}
HARSH = {
    "condition 1e2": {"condition": 1e2},
    "condition 1e3": {"condition": 1e3},
    "condition 1e4": {"condition": 1e4},
    "condition 1e6": {"condition": 1e6},
    "mean 1": {"mean": 1.0},
    "mean 10": {"mean": 10.0},
    "rank 0.5": {"rank": 0.5},
    "rank 0.3": {"rank": 0.3},
    "correlation 0.9": {"correlation": 0.9},
    "correlation 0.99": {"correlation": 0.99},
}
ALL = MILD | HARSH
BOUND_DB = 0.5


def drawn(case, num=8):
    scene = IllConditioned(num_rows=128, num_columns=256, **ALL[case])
    slot = scene.draw(num, generator("conditioning", case))
    return slot, bernoulli_gauss(scene.active, learnable=False), slot.truth.h.abs().square().sum(-1)


def oamp_error(slot, prior, energy):
    return per_item(energy, hhat.solve(hhat.method("oamp", prior=prior), slot.obs), slot.truth.h)


@pytest.mark.parametrize("case", ALL)
def test_uamp_is_where_oamp_is_or_says_so(case):
    """Within 1 dB for four items in five at least: small and hard problems have several fixed points."""
    slot, prior, energy = drawn(case, 16)
    best = oamp_error(slot, prior, energy)
    est = hhat.solve(Uamp(prior), slot.obs)
    error, settled = per_item(energy, est, slot.truth.h), est.status == Status.OK
    assert set(est.status_counts()) <= {"OK", "MAX_STEPS"} and float(error.max()) < BOUND_DB
    assert settled.float().mean() > 0.6
    assert (error < best + 1.0)[settled].float().mean() > 0.8


@pytest.mark.parametrize("case", ALL)
def test_gamp_is_bounded_and_settles_where_the_matrix_lets_it(case):
    """With a low rank, most of what y can tell is noise, and a wrong answer may explain it as well: bounded only by the
    power of the prior, and no status tells."""
    slot, prior, energy = drawn(case)
    for axes in ((), None) if case in MILD else (None,):
        est = hhat.solve(Gamp(prior, average_axes=axes), slot.obs)
        error, settled = per_item(energy, est, slot.truth.h), est.status == Status.OK
        assert set(est.status_counts()) <= {"OK", "MAX_STEPS"}
        assert float(error.max()) < (3.0 if case in ("rank 0.5", "rank 0.3") else BOUND_DB)
        if case in MILD:
            best = oamp_error(slot, prior, energy)
            assert settled.float().mean() > 0.85 and (error < best + 1.0).all()
        if case in ("condition 1e2", "mean 1", "correlation 0.9"):
            assert (error < -15)[settled].all()
        if case in ("condition 1e6", "mean 10", "correlation 0.99"):
            assert not settled.any() and (est.info["restarts"] > 0).all()


def test_recovery_is_per_item():
    """Items that start again, and items that do not, each as if alone."""
    gen = generator("both")
    tame = complex_normal((64, 96), gen)
    wild = tame + 0.8
    op = Dense(torch.stack([tame, wild, tame, wild]) / 8)
    x = bernoulli_gauss(0.08, learnable=False).sample((4, 96), gen)
    y = op.apply(x) + complex_normal((4, 64), gen, var=0.01)
    method = Gamp(bernoulli_gauss(0.08))
    together = hhat.solve(method, Observation(y, op, 0.01))
    assert (together.info["restarts"] > 0).tolist() == [False, True, False, True]
    for i in range(4):
        alone = hhat.solve(method, Observation(y[i], Dense(op.matrix[i]), 0.01))
        assert alone.status == together.status[i] and alone.info["restarts"] == together.info["restarts"][i]
        torch.testing.assert_close(together.belief.mean[i], alone.belief.mean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [Gamp, Uamp])
def test_well_behaved_channels_settle(kind):
    """Where p looks at the damped x, three of these eight cycle for ever in gamp, and all of them in uamp."""
    slot = hhat.scenario("cdl", profile="C", num_rx_ant=8, num_tx_ant=32, snr_db=20.0).draw(8, generator("cycles"))
    est = hhat.solve(kind(hhat.prior("gauss-mixture", basis=Kron(Fourier(8), Fourier(32)))), slot.obs)
    assert est.status_counts() == {"OK": 8} and int(est.info["steps"].max()) < 250


@pytest.mark.parametrize("kind", [Gamp, Uamp])
def test_a_small_share_does_not_pass_for_convergence(kind):
    a, x, y = sparse_problem(noise_var=0.05)
    obs, prior = Observation(y, Dense(a), 0.05), bernoulli_gauss(0.1, learnable=False)
    quick = hhat.solve(kind(prior), obs, tol=1e-12)
    slow = hhat.solve(kind(prior, damping=0.03), obs, max_steps=2000)
    assert slow.status_counts() == {"OK": 6} and slow.info["steps"].min() > 3 * quick.info["steps"].min()
    apart = (slow.belief.mean - quick.belief.mean).abs().square().sum(-1) / x.abs().square().sum(-1)
    assert float(apart.max()) < 1e-3


def test_no_noise_and_a_rank_that_is_missing():
    """Rows of zeros in the singular basis, and nothing to divide by."""
    a = cn(20, 10) @ cn(10, 40)
    x = bernoulli_gauss(0.05, learnable=False).sample((4, 40), generator("rank"), DOUBLE)
    for noise_var in (0.0, 1e-12):
        est = hhat.solve(Uamp(bernoulli_gauss(0.05)), Observation(x @ a.mT, Dense(a), noise_var))
        assert Status.NONFINITE not in est.status.tolist() and torch.isfinite(est.belief.mean).all()


def test_any_learnable_prior():
    slot = IllConditioned(num_rows=128, num_columns=256, condition=1e2, snr_db=25.0).draw(6, generator("priors"))
    plain = hhat.nmse_db(hhat.solve(hhat.method("lmmse", prior=Gauss(1.0)), slot.obs), slot.truth)
    for name in ("sparse-bayes", "pattern-coupled", "gauss-mixture", "markov"):
        assert hhat.nmse_db(hhat.solve(Uamp(hhat.prior(name)), slot.obs), slot.truth) < plain - 3, name
    own = Gauss(1.0, learnable=True, tied_axes=())
    assert hhat.nmse_db(hhat.solve(Uamp(own), slot.obs), slot.truth) < plain - 3


def test_wrong_settings_are_told():
    obs = Observation(cn(3, 16), Dense(cn(16, 24)), 0.1)
    for kind, name in ((Gamp, "gamp"), (Uamp, "uamp")):
        with pytest.raises(ValueError, match=f"{name}: damping: expected 0 < damping <= 1, got 0.0"):
            kind(damping=0.0)
        with pytest.raises(ValueError, match=r"average_axes: expected -1\.\.-1"):
            hhat.solve(kind(average_axes=(-2,)), obs)


def test_a_matrix_too_large_to_factor_is_refused(monkeypatch):
    monkeypatch.setattr(rotation, "LARGEST_BASIS", 15)
    with pytest.raises(ValueError, match="Dense of 16 x 24 has no structure to factor it by"):
        hhat.solve(Uamp(), Observation(cn(3, 16), Dense(cn(16, 24)), 0.1))


# the scenario -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ALL)
def test_matrices_are_what_their_settings_say(case):
    scene = IllConditioned(num_rows=64, num_columns=128, **ALL[case])
    a = scene.matrix(generator("matrix", case)).to(DOUBLE)
    assert float(a.abs().square().sum()) == pytest.approx(64, rel=1e-5)
    values = torch.linalg.svdvals(a)
    if scene.condition is not None:
        ratio = values[:-1] / values[1:]
        assert float(values[0] / values[-1]) == pytest.approx(scene.condition, rel=0.05)
        assert float(ratio.max()) == pytest.approx(scene.condition ** (1 / 63), rel=1e-2)
    if scene.mean:
        assert float(a.mean().abs() / (a - a.mean()).abs().square().mean().sqrt()) == pytest.approx(scene.mean, rel=0.1)
    if scene.rank < 1:
        assert int((values > 1e-5 * values[0]).sum()) == round(64 * scene.rank)
    if scene.correlation:
        wide = IllConditioned(num_rows=8, num_columns=20000, correlation=scene.correlation)
        b = wide.matrix(generator("rows", case))
        c = (b @ b.mH).real
        assert float(c[0, 1] / c[0, 0]) == pytest.approx(scene.correlation, abs=0.03)
        assert float(c[0, 2] / c[0, 0]) == pytest.approx(scene.correlation**2, abs=0.03)


def test_the_scenario_keeps_its_snr_and_its_draws():
    scene = IllConditioned(num_rows=64, num_columns=128, condition=30, snr_db=7.0)
    slot, again = (scene.draw(800, generator("snr")) for _ in range(2))
    assert torch.equal(slot.obs.y, again.obs.y)
    clean = slot.obs.op.apply(slot.truth.h)
    snr = clean.abs().square().sum() / (slot.obs.y - clean).abs().square().sum()
    assert 10 * math.log10(float(snr)) == pytest.approx(7.0, abs=0.2)
    other = next(scene.slots(1, generator("other")))
    assert other.obs.y.shape == (1, 64) and not torch.equal(other.obs.op.matrix, slot.obs.op.matrix)


@pytest.mark.parametrize(
    "wrong", [{"condition": 0.5}, {"mean": -1}, {"rank": 0}, {"correlation": 1}, {"num_rows": 0}, {"active": 2}]
)
def test_wrong_scenarios_are_told(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        IllConditioned(**wrong)
