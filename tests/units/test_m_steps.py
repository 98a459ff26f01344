"""M-steps against loops, quadrature and special cases."""

import math

import pytest
import torch

import hhat
from hhat import registry
from hhat.ops import Identity
from hhat.priors import Gauss
from hhat.priors.chain import Chain
from hhat.priors.gamma_field import GammaField, chained_as_printed, exact_likelihood, mrf
from hhat.priors.hierarchical import markov_gamma, pattern_coupled
from hhat.priors.ising import Ising
from hhat.priors.m_step import Em, GammaShape, MacKay, Moments, PatternCoupling, neighbours
from hhat.random import complex_normal, generator
from hhat.scenarios.near_field import NearField
from hhat.types import Gaussian, Observation

DOUBLE = torch.float64


def moments(*shape, num_event=2, label="moments", batch=3):
    gen = generator(label)
    energy, var = torch.rand(2, batch, *shape, generator=gen, dtype=DOUBLE)
    prior_var = var + torch.rand(batch, *shape, generator=gen, dtype=DOUBLE)
    return Moments(4 * energy, var, prior_var, torch.ones(batch, *(1,) * len(shape), dtype=DOUBLE), num_event)


@pytest.mark.parametrize("shape", [(5, 4), (1, 6), (2, 3)])
def test_pattern_coupling_is_its_formula_in_a_loop(shape):
    now = moments(*shape)
    v, _ = PatternCoupling(0.7)(now, {})
    e = now.energy + now.var

    def near(x, i, j):
        places = {((i + a) % shape[0], (j + b) % shape[1]) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))}
        return sum(x[..., p, q] for p, q in places - {(i, j)})

    a = torch.zeros_like(e)
    for i in range(shape[0]):
        for j in range(shape[1]):
            a[..., i, j] = 1 / (e[..., i, j] + 0.7 * near(e, i, j))
    for i in range(shape[0]):
        for j in range(shape[1]):
            torch.testing.assert_close(v[..., i, j], 1 / (a[..., i, j] + 0.7 * near(a, i, j)))


def test_pattern_coupling_without_coupling_is_em_and_takes_the_axes_it_is_told():
    now = moments(5, 4)
    torch.testing.assert_close(PatternCoupling(0.0)(now, {})[0], Em()(now, {})[0])
    one, _ = PatternCoupling(1.0, axes=(-2,))(now, {})
    for column in range(4):
        alone = Moments(*(x[..., column] for x in now[:3]), now.unit[..., 0], 1)
        torch.testing.assert_close(one[..., column], PatternCoupling(1.0)(alone, {})[0])


def test_em_and_mackay_have_the_same_fixed_point():
    """Where data determine the coefficients well, both iterations end at the same variances."""
    gen = generator("mackay")
    a = complex_normal((40, 6), gen, torch.complex128)
    y = a @ complex_normal((6,), gen, torch.complex128) + complex_normal((40,), gen, torch.complex128, 0.01)
    prior = Gauss()
    ends = [
        hhat.solve(hhat.method("sbl", prior=prior, m_step=rule), Observation(y, hhat.ops.Dense(a), 0.01), max_steps=n)
        for rule, n in ((Em(), 400), (MacKay(), 40))
    ]
    torch.testing.assert_close(ends[0].info["prior_var"], ends[1].info["prior_var"], rtol=1e-6, atol=0)
    assert abs(float(ends[0].info["log_evidence"] - ends[1].info["log_evidence"])) < 1e-8


def test_gamma_law_is_its_integral():
    """p(e|s) and E[g|e,s] by quadrature over the precision g, on a logarithmic grid."""
    law = GammaField(Ising(0.0, 0.0), 0.7, 0.4, 1.3, 0.2)
    log_g = torch.linspace(-40, 12, 40001, dtype=DOUBLE)
    g, e = log_g.exp(), torch.tensor([0.05, 1.0, 7.0], dtype=DOUBLE)

    def integral(shape, rate, power):
        log = shape * math.log(rate) - math.lgamma(shape) + (shape - 1 + 1 + power) * log_g - rate * g
        return torch.trapezoid((log[None] + log_g - e[:, None] * g).exp(), log_g, dim=1)

    evidence = integral(0.7, 0.4, 0), integral(1.3, 0.2, 0)
    want = evidence[0].log() - evidence[1].log()
    torch.testing.assert_close(exact_likelihood(e, law), want, rtol=1e-6, atol=1e-6)
    w = evidence[0] / (evidence[0] + evidence[1])
    precision = w * integral(0.7, 0.4, 1) / evidence[0] + (1 - w) * integral(1.3, 0.2, 1) / evidence[1]
    zero = torch.zeros_like(e)
    v, _ = law(Moments(e[None], zero, zero, torch.ones(1, 1, dtype=DOUBLE), 1), law.memory())
    torch.testing.assert_close(v[0], 1 / precision, rtol=1e-6, atol=0)


def test_gamma_law_keeps_its_messages_and_couples():
    now = moments(8, 8)
    law = mrf()
    first, memory = law(now, law.memory())
    second, again = law(now, memory)
    longer, _ = GammaField(Ising(0.35, 0.0, sweeps=6))(now, law.memory())
    torch.testing.assert_close(second, longer)
    assert not torch.allclose(first, second)
    assert again["messages"].shape == (3, 8, 8, 4)


def test_gamma_shape_is_its_printed_formula():
    now = moments(6, num_event=1)
    v, memory = GammaShape()(now, {"eps": torch.full((3, 1), 0.2, dtype=DOUBLE)})
    for i in range(3):
        g = (2 * 0.2 + 1) / (now.energy[i] + now.var[i].mean())
        torch.testing.assert_close(v[i], 1 / g)
        eps = 0.5 * math.sqrt(math.log(g.mean()) - float(g.log().mean()))
        assert abs(float(memory["eps"][i]) - eps) < 1e-12


def test_neighbours_of_rings():
    x = torch.arange(5.0)
    torch.testing.assert_close(neighbours(x, (-1,)), torch.tensor([5.0, 2.0, 4.0, 6.0, 3.0]))
    torch.testing.assert_close(neighbours(x[:2], (-1,)), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(neighbours(x[:1], (-1,)), torch.tensor([0.0]))


def test_hierarchical_prior_learns_by_its_m_step():
    r = Gaussian(complex_normal((2, 4, 5), generator("hier"), torch.complex128), torch.tensor(0.3, dtype=DOUBLE))
    prior = pattern_coupled(0.5).expand((2,), (4, 5), r.mean)
    learned = prior.learn(r)
    x = Gauss(1.0).denoise(r)
    unit = torch.ones(2, 1, 1, dtype=DOUBLE)  # the start; pattern coupling needs no other
    now = Moments(x.mean.abs().square(), x.var, unit, unit, 2)
    torch.testing.assert_close(learned.params()["var"], PatternCoupling(0.5)(now, {})[0])


@pytest.mark.parametrize(("snr_db", "raw_db", "oracle_db"), [(0, 0.0, -11.4), (10, -10.0, -17.1)])
def test_refinement_of_a_noisy_channel_lies_between_raw_and_oracle(snr_db, raw_db, oracle_db):
    """H + white noise of known level, refined on the angle x delay grid: `markov-gamma` as the refinement."""
    scene = NearField()
    h = scene.draw(24, generator("refinement")).truth.h
    x = scene.basis().adjoint(h)
    s2 = x.abs().square().mean((-2, -1), keepdim=True) * 10 ** (-snr_db / 10)
    y = x + complex_normal(x.shape, generator("refinement noise")) * s2.sqrt()
    obs = Observation(y, Identity((128, 16)), s2)
    results = {}
    for name, prior in (
        ("corrected", markov_gamma(axis=-2)),
        ("printed", registry.build("priors", "markov-gamma-printed", {"axis": -2})),
    ):
        est = hhat.solve(hhat.method("oamp", prior=prior), obs)
        results[name] = hhat.nmse_db(est.belief.mean, x)
    v = x.abs().square()
    oracle = hhat.nmse_db(v / (v + s2) * y, x)
    assert abs(oracle - oracle_db) < 0.5
    assert all(oracle < value < raw_db - 2 for value in results.values())


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: PatternCoupling(-1.0), "coupling"),
        (lambda: PatternCoupling(axes=(-1, -1)), "axes"),
        (lambda: PatternCoupling(axes=(-3,))(moments(4, 4), {}), "axes"),
        (lambda: GammaField(active_rate=0.0), "rates"),
        (lambda: chained_as_printed(axis=1), "axis"),
        (lambda: hhat.m_step("mackey"), "unknown m-step"),
    ],
)
def test_wrong_settings_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_every_m_step_of_the_registry_runs_in_sbl():
    gen = generator("registered")
    a = complex_normal((8, 12), gen) / 8**0.5
    y = complex_normal((2, 8), gen)
    for name in registry.M_STEPS:
        est = hhat.solve(hhat.method("sbl", m_step=hhat.m_step(name)), Observation(y, hhat.ops.Dense(a), 0.1))
        assert est.status_counts() == {"OK": 2}, name
    assert isinstance(hhat.m_step("markov").support, Chain)
