"""Learned M-steps against what they must agree with: EM, each other's sums, symmetries, and their cards."""

from dataclasses import replace

import pytest
import torch

import hhat
from hhat.bench.metrics import mean_interval_db, squared_ratio
from hhat.methods.sbl import Sbl
from hhat.nets.graph import GraphSizes, GraphStack, dense_mean, factored_mean, sorted_mean
from hhat.nets.start import start_weights
from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.priors.hierarchical import Hierarchical
from hhat.priors.learned import m_step_from
from hhat.priors.m_step import Em
from hhat.priors.weights import read_weights, shipped
from hhat.random import complex_normal, generator
from hhat.train.data import UnitsData
from hhat.train.files import write_weights
from hhat.train.models import SBL_CNN, SBL_GNN, SBL_GNN_PRINTED
from hhat.types import Gaussian, Observation

MODELS = {"cnn": SBL_CNN, "gnn": SBL_GNN, "gnn printed": SBL_GNN_PRINTED}


def noisy(model, label="weights"):
    """Weights that do something: the start with every number moved a little."""
    gen = generator(label, model.name)
    return {name: v + 0.1 * torch.randn(v.shape, generator=gen) for name, v in model.start(0).items()}


def grid(num=3, rows=5, columns=8, delays=6, dtype=torch.complex128, snr=10.0):
    """Coefficients (columns, delays), each delay seen through the same matrix."""
    gen = generator("grid")
    a = complex_normal((rows, columns), gen, dtype) / rows**0.5
    x = complex_normal((num, columns, delays), gen, dtype) * (torch.rand(num, columns, delays, generator=gen) < 0.3)
    op = Kron(Dense(a), Identity((delays,)))
    return x, Observation(op.apply(x) + complex_normal((num, rows, delays), gen, dtype, 1 / snr), op, 1 / snr)


@pytest.mark.parametrize("message", [(16,), (64, 32)])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_sums_over_pairs_agree_and_so_do_their_gradients(message, dtype, close):
    sizes = GraphSizes(3, num_layers=2, rounds=2, message=message)
    net = GraphStack(sizes).to(dtype)
    net.load_state_dict({n: v.to(dtype) for n, v in start_weights(net, generator("graph")).items()})
    gen = generator("sums")
    shape = (2, 3, 5)
    attributes = torch.randn((*shape, 3), generator=gen, dtype=dtype)
    edge, level = torch.rand((2, 5, 5), generator=gen, dtype=dtype), torch.randn(2, generator=gen, dtype=dtype)

    def run(mean):
        net.zero_grad()
        memory = torch.zeros((*shape, sizes.state + sizes.memory), dtype=dtype)
        for layer in range(2):
            out, memory = net(attributes, edge, level, memory, layer, mean)
        out.square().sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        return out.detach(), gradient.clone()

    want, slope = run(dense_mean)
    assert slope.abs().max() > 0
    for mean in (factored_mean, sorted_mean) if len(message) == 1 else (factored_mean,):
        out, gradient = run(mean)
        assert (out - want).abs().max() / want.abs().max() < close
        assert (gradient - slope).abs().max() / slope.abs().max() < 10 * close


@pytest.mark.parametrize("case", ["cnn", "gnn"])
def test_a_network_that_answers_zero_is_em(case):
    """Same E-step, same start, same number of steps; double precision."""
    _, obs = grid()
    model = MODELS[case]
    learned = hhat.solve(model.build(model.start(0), None), obs)
    exact = hhat.solve(Sbl(m_step=Em(model.settings["num_layers"])), obs)
    torch.testing.assert_close(learned.belief.mean, exact.belief.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(learned.info["prior_var"], exact.info["prior_var"], rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("case", MODELS)
def test_scale_phase_and_gain_of_the_operator_do_not_matter(case):
    _, obs = grid()
    method = MODELS[case].build(noisy(MODELS[case]), None)
    plain = hhat.solve(method, obs)
    c = 41.0 * complex(0.6, 0.8)
    other = hhat.solve(method, Observation(c * obs.y, obs.op, obs.noise_var * 41.0**2))
    torch.testing.assert_close(other.belief.mean / c, plain.belief.mean)
    torch.testing.assert_close(other.belief.var / 41.0**2, plain.belief.var)
    louder = Kron(Dense(7 * obs.op.left.matrix), obs.op.right)
    third = hhat.solve(method, Observation(7 * obs.y, louder, obs.noise_var * 49))
    torch.testing.assert_close(third.belief.mean, plain.belief.mean)


@pytest.mark.parametrize("case", MODELS)
def test_delays_may_be_shifted_and_only_the_graph_lets_them_be_permuted(case):
    """The printed claim that the graph captures clusters cannot hold over delays: no attribute says who is near."""
    _, obs = grid()
    method = MODELS[case].build(noisy(MODELS[case]), None)
    plain = hhat.solve(method, obs).belief.mean
    for order, commutes in ((torch.arange(6).roll(2), True), (torch.tensor([2, 0, 5, 1, 4, 3]), case != "cnn")):
        moved = hhat.solve(method, Observation(obs.y[..., order], obs.op, obs.noise_var)).belief.mean
        deviation = (moved - plain[..., order]).abs().max() / plain.abs().max()
        assert deviation < 1e-10 if commutes else deviation > 1e-3


@pytest.mark.parametrize("case", ["gnn", "gnn printed"])
def test_which_axis_is_mixed_does_not_matter_to_the_graph(case):
    _, obs = grid(num=2)
    method = MODELS[case].build(noisy(MODELS[case]), None)
    plain = hhat.solve(method, obs).belief.mean
    turned = Observation(obs.y.mT, Kron(obs.op.right, obs.op.left), obs.noise_var)
    torch.testing.assert_close(hhat.solve(method, turned).belief.mean.mT, plain)
    # without the structure: one column of all coefficients
    whole = Dense(obs.op.dense(torch.complex128), obs.op.in_shape, obs.op.out_shape)
    torch.testing.assert_close(hhat.solve(method, Observation(obs.y, whole, obs.noise_var)).belief.mean, plain)


def test_too_large_a_graph_is_refused():
    wide = Dense(torch.ones(2, 1100, dtype=torch.complex64))
    with pytest.raises(ValueError, match="sbl-gnn: expected Kron with a unitary factor"):
        hhat.solve(hhat.method("sbl-gnn"), Observation(torch.ones(2, dtype=torch.complex64), wide, 0.1))


@pytest.mark.parametrize("name", ["sbl-cnn", "sbl-gnn"])
def test_it_is_also_a_prior_that_learns(name):
    """With y = x + noise the M-step learns in `oamp` and `Hierarchical` too; on clusters it beats a flat prior."""
    gen = generator("prior")
    v = torch.full((20, 16, 12), 1e-3)
    v[:, 3:7, 4:8] = 4.0
    x = complex_normal(tuple(v.shape), gen) * v.sqrt()
    r = x + complex_normal(tuple(v.shape), gen, var=0.3)
    prior = Hierarchical(hhat.m_step(name[4:])).expand((20,), (16, 12), r)
    flat = hhat.prior("gauss", learnable=True).expand((20,), (16, 12), r)
    found = Gaussian(r, torch.tensor(0.3))
    for _ in range(5):
        prior, flat = prior.learn(found), flat.learn(found)
    assert hhat.nmse_db(prior.denoise(found).mean, x) < hhat.nmse_db(flat.denoise(found).mean, x) - 1
    op = Kron(Identity((16,)), Identity((12,)))
    est = hhat.solve(
        hhat.method("oamp", prior=Hierarchical(hhat.m_step(name[4:]))), Observation(r, op, 0.3), max_steps=9
    )
    assert torch.isfinite(est.belief.mean).all()


def measured(method, batches):
    ratios = []
    for batch in batches:
        est = hhat.solve(replace(method, prior=hhat.prior("gauss", basis=batch.basis)), batch.obs)
        assert est.status_counts().keys() == {"OK"}
        ratios.append(squared_ratio(est, batch.h, 2).mean(-1))
    return mean_interval_db(torch.cat(ratios))


@pytest.mark.parametrize("name", ["sbl-cnn", pytest.param("sbl-gnn", marks=pytest.mark.slow)])
def test_what_ships_is_what_its_card_measured(name):
    """192 channels of the card's own draws at 10 dB."""
    card = shipped(name).card
    row = next(row for row in card["measured"] if row["snr_db"] == 10.0)
    found = measured(hhat.method(name), UnitsData(hhat.scenario("near-field")).test(10.0, card["recipe"]["seed"]))
    assert found.n == row["n"] and abs(found.value - row["value"]) < 0.02


def test_the_convolutions_beat_pattern_coupling_on_new_channels():
    """Channels and combiners that neither training nor the card saw; both methods see the same."""
    data = UnitsData(hhat.scenario("near-field"))
    fresh = [data.draw(4, (10.0, 10.0), generator("fresh", block)) for block in range(12)]
    learned, coupled = measured(hhat.method("sbl-cnn"), fresh), measured(hhat.method("sbl"), fresh)
    assert learned.n == 48 and learned.value < coupled.value - 0.7
    row = next(row for row in shipped("sbl-cnn").card["measured"] if row["snr_db"] == 10.0)
    assert learned.low < row["high"] and row["low"] < learned.high


@pytest.mark.slow
def test_they_serve_the_whole_array_too():
    """Trained on units of 32 antennas, used on the coefficients of all 128: at least as good as pattern coupling."""
    scene = hhat.scenario("near-field", snr_db=10.0)
    slot, prior = scene.draw(48, generator("central")), hhat.prior("gauss", basis=scene.basis())
    learned, coupled = (hhat.solve(hhat.method(name, prior=prior), slot.obs) for name in ("sbl-cnn", "sbl"))
    assert hhat.nmse_db(learned, slot.truth) < hhat.nmse_db(coupled, slot.truth) - 0.3
    inside, coupled = (
        hhat.solve(hhat.method("oamp", prior=Hierarchical(hhat.m_step(rule), scene.basis())), slot.obs, max_steps=5)
        for rule in ("cnn", "pattern-coupled")
    )
    assert hhat.nmse_db(inside, slot.truth) < hhat.nmse_db(coupled, slot.truth) - 1


def test_early_exit_and_extra_steps_are_steps():
    _, obs = grid(dtype=torch.complex64)
    errors = []
    for steps in (1, 5, 7):
        est = hhat.solve(hhat.method("sbl-cnn"), obs, max_steps=steps)
        assert est.info["steps"].tolist() == [steps] * 3
        errors.append(est.belief.mean)
    assert not torch.allclose(errors[0], errors[1]) and not torch.allclose(errors[1], errors[2])


def test_files_of_weights_are_read_back_and_wrong_ones_named(tmp_path):
    weights = noisy(SBL_CNN)
    path = write_weights(tmp_path, "sbl-cnn", weights, {"settings": dict(SBL_CNN.settings)})
    back = read_weights(path)
    assert all(torch.equal(back.weights[name], value) for name, value in weights.items())
    _, obs = grid()
    est = hhat.solve(hhat.method("sbl-cnn", weights=str(path)), obs)
    torch.testing.assert_close(est.belief.mean, hhat.solve(SBL_CNN.build(weights, None), obs).belief.mean)
    with pytest.raises(ValueError, match="expected weights of sbl-gnn, got those of sbl-cnn"):
        hhat.method("sbl-gnn", weights=str(path))
    with pytest.raises(ValueError, match="no such file"):
        hhat.method("sbl-cnn", weights=str(tmp_path / "none"))
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="not a readable file of weights"):
        read_weights(tmp_path / "text")
    bad = dict(weights) | {"layers.0.0.bias": torch.full((16,), torch.nan)}
    with pytest.raises(ValueError, match=r"layers.0.0.bias: not finite"):
        read_weights(write_weights(tmp_path / "bad", "sbl-cnn", bad, {"settings": {}}))
    with pytest.raises(ValueError, match=r"layers.4.0.bias: expected shape None, got \(16,\)"):
        m_step_from(dict(SBL_CNN.settings) | {"num_layers": 4}, weights)
    with pytest.raises(ValueError, match="kind"):
        m_step_from({"kind": "none", "num_layers": 1}, weights)
    with pytest.raises(ValueError, match="tied_axes"):
        hhat.method("sbl-cnn", tied_axes=(-1,))


@pytest.mark.parametrize("name", ["sbl-cnn", "sbl-gnn"])
def test_a_single_axis_is_a_column_of_one_delay(name):
    _, obs = grid(delays=1, dtype=torch.complex64)
    line = Observation(obs.y[..., 0], obs.op.left, obs.noise_var)
    plain = hhat.solve(hhat.method(name), obs).belief.mean[..., 0]
    torch.testing.assert_close(hhat.solve(hhat.method(name), line).belief.mean, plain)


def test_more_axes_than_two_are_a_batch_to_the_convolutions():
    gen = generator("three")
    y = complex_normal((2, 3, 8, 6), gen)
    apart = hhat.solve(hhat.method("sbl-cnn", max_steps=2), Observation(y[:, 1], Identity((8, 6)), 0.1))
    op = Kron(Identity((3,)), Identity((8, 6)))
    # the unit of power is the item's: equal parts make it that of each
    same = hhat.solve(hhat.method("sbl-cnn", max_steps=2), Observation(y[:, 1:2].expand(2, 3, 8, 6), op, 0.1))
    torch.testing.assert_close(same.belief.mean[:, 2], apart.belief.mean, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="one or two axes"):
        hhat.solve(hhat.method("sbl-gnn"), Observation(y, op, 0.1))


def test_half_of_the_network_is_the_angle_axis():
    """`Fourier` and its adjoint turn the angles round: training saw both."""
    scene = hhat.scenario("near-field")
    slot = scene.local(scene.draw(24, generator("turned")))
    found = []
    for angles in (Fourier(32), Fourier(32).H):
        prior = hhat.prior("gauss", basis=Kron(angles, Fourier(16)))
        found.append(hhat.nmse_db(hhat.solve(hhat.method("sbl-cnn", prior=prior), slot.obs), slot.truth))
    assert abs(found[0] - found[1]) < 0.1
