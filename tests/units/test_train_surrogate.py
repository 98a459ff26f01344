"""Training of the surrogate: Adam against torch's, message passing against least squares, resumed bit for bit."""

import json

import pytest
import torch

from hhat.cli import main
from hhat.distortion.surrogate import load, nmse
from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights
from hhat.random import complex_normal, generator
from hhat.train import surrogate as train_surrogate
from hhat.train.loop import CHECKPOINT
from hhat.train.surrogate import COMPENSATOR, PER_CHAIN, SURROGATE, Pairs, SurrogateTask, ends, pairs, receiver
from hhat.train.surrogate_loop import SurrogateRecipe, fitting_nmse, learn
from hhat.train.surrogate_steps import RULES, Adam, Diagonal, MatrixNormal, Sequences

HIDDEN = 6
SMALL = SurrogateRecipe(400, 2, batch=40, test=200, num_pilots=6, check_every=3)


def made(count=400, seed="train", num_pilots=6):
    return pairs(receiver(), 3, count, num_pilots, generator("surrogate test", seed))


@pytest.fixture(scope="module")
def data():
    return made().sequences(), made(200, "test").sequences()


def test_adam_is_torchs(data):
    train, _ = data
    weights = unit.start(ends(3, HIDDEN), generator("adam"))
    leaves = [part.clone().requires_grad_() for part in weights]
    # networks do not meet; Adam's size is by entry, so that the sum of their losses moves each as its own does
    torchs = torch.optim.Adam(leaves, lr=0.01)
    rule = Adam(0.01)
    state = rule.start(weights)
    for step in range(3):
        batch = Sequences(*(part[:, :, 50 * step : 50 * (step + 1)] for part in train))
        torchs.zero_grad()
        residual = unit.forward(RecurrentWeights(*leaves), batch.inputs).output - batch.wanted
        residual.square().mean((1, 2, 3)).sum().backward()
        torchs.step()
        weights, state, error = rule.update(weights, state, batch, step)
        assert torch.allclose(error, 2 * residual.square().mean((1, 2, 3)), rtol=1e-4)
    assert all((a - b.detach()).abs().max() < 2e-5 for a, b in zip(weights, leaves, strict=True))


def linear_toy(seed):
    """A net whose output weights are 0, so that nothing reaches the states, and targets whose outer product is I."""
    gen = generator("toy", seed)
    weights = unit.start(ends(2, HIDDEN), gen)
    weights = RecurrentWeights(weights.gates.double(), weights.update.double(), torch.zeros_like(weights.out).double())
    inputs = unit.neighbour_inputs(complex_normal((40, 5, 2), gen, torch.complex128))
    rest = torch.randn(2, 200, 2, generator=gen, dtype=torch.float64)
    rest = rest + unit.forward(weights, inputs).states.flatten(1, 2)[..., :2]
    white = rest @ torch.linalg.inv(torch.linalg.cholesky(rest.mT @ rest / 200)).mT
    return weights, Sequences(inputs, inputs[..., unit.OWN] + white.unflatten(1, (5, 40)))


def test_undamped_message_passing_on_a_linear_net_is_least_squares():
    weights, batch = linear_toy("one")
    rule = MatrixNormal(ridge=1e-16, damping=1.0)
    found, _, error = rule.update(weights, rule.start(weights), batch, 0)
    into = unit.block_inputs(unit.forward(weights, batch.inputs)).out.flatten(1, 2)
    rest = (batch.wanted - batch.inputs[..., unit.OWN]).flatten(1, 2)
    wanted = torch.linalg.lstsq(into, rest).solution.mT
    # the step's own relative ridge is 1e-4
    assert (found.out - wanted).norm() < 2e-4 * wanted.norm() and wanted.norm() > 0.1
    assert torch.equal(found.gates, weights.gates) and torch.equal(found.update, weights.update)
    assert torch.allclose(error, 2 * torch.ones(2, dtype=torch.float64))


def test_message_passing_is_recursive_least_squares_over_batches_but_for_the_step_length():
    (weights, first), (_, second) = linear_toy("one"), linear_toy("two")
    rule = MatrixNormal(ridge=1e-16, damping=1.0, keep=1.0, refresh=1)
    frozen = {**rule.start(weights)}
    _, state, _ = rule.update(weights, frozen, first, 0)
    _, state, _ = rule.update(weights, {**state, "move/out": 0 * state["move/out"]}, second, 1)
    both = [unit.block_inputs(unit.forward(weights, b.inputs)).out.flatten(1, 2) for b in (first, second)]
    rests = [(b.wanted - b.inputs[..., unit.OWN]).flatten(1, 2) for b in (first, second)]
    # after a second batch that starts at zero again: gain P_2 of recursive least squares, P_2^-1 = sum i i^T
    precision = sum(i.mT @ i for i in both)
    gain = rests[1].mT @ both[1] @ torch.linalg.inv(precision)
    move = state["move/out"]
    cosine = (move * gain).sum((1, 2)) / (move.norm(dim=(1, 2)) * gain.norm(dim=(1, 2)))
    assert (1 - cosine).abs().max() < 1e-6


def test_diagonal_precisions_are_those_of_independent_weights():
    weights, batch = linear_toy("one")
    rule = Diagonal(damping=1.0, forget=1.0)
    state = rule.start(weights)
    found, after, _ = rule.update(weights, state, batch, 0)
    into = unit.block_inputs(unit.forward(weights, batch.inputs)).out.flatten(1, 2)
    rest = (batch.wanted - batch.inputs[..., unit.OWN]).flatten(1, 2)
    fit_var = 0.9 * 0.1 + 0.1 * 1.0
    precision = state["precision/out"] + into.square().sum(1)[:, None] / fit_var
    assert torch.allclose(after["precision/out"], precision)
    assert torch.allclose(found.out, rest.mT @ into / fit_var / precision)


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_run_that_was_stopped_goes_on_with_the_same_bits(name, data, tmp_path):
    mask = ends(3, HIDDEN)
    whole = learn(RULES[name], mask, *data, SMALL)

    def stop(step, valid_db):
        if step >= 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(RULES[name], mask, *data, SMALL, tmp_path, "toy", stop)
    assert (tmp_path / CHECKPOINT).is_file()
    again = learn(RULES[name], mask, *data, SMALL, tmp_path, "toy")
    assert all(torch.equal(a, b) for a, b in zip(whole.weights, again.weights, strict=True))
    assert torch.equal(whole.nmse, again.nmse) and whole.curve == again.curve
    with pytest.raises(ValueError, match="another model, recipe or data"):
        learn(RULES[name], mask, *data, SMALL, tmp_path, "other")


def test_message_passing_is_ahead_of_adam_and_adam_of_the_start(data):
    train, test = data
    mask = ends(3, HIDDEN)
    found = {name: learn(RULES[name], mask, train, test, SMALL).nmse for name in ("adam", "message-passing")}
    error, energy = fitting_nmse(unit.start(mask, generator("surrogate", "start", 0)), test)
    assert bool((found["message-passing"] < 0.7 * found["adam"]).all())
    assert bool((found["adam"][-1] < 0.5 * error.sum(1) / energy.sum(1)).all())


def test_networks_do_not_meet(data):
    train, test = data
    mask = ends(3, HIDDEN)
    whole = learn(MatrixNormal(), mask, train, test, SMALL)
    one = learn(MatrixNormal(), mask.take(slice(1, 2)), *(Sequences(*(p[1:2] for p in d)) for d in data), SMALL)
    assert all(torch.allclose(a[1:2], b, atol=2e-3) for a, b in zip(whole.weights, one.weights, strict=True))
    assert torch.allclose(whole.nmse[:, 1:2], one.nmse, rtol=2e-2)


def test_weights_of_neighbours_that_are_not_there_never_move(data):
    for rule in RULES.values():
        weights = unit.start(ends(3, HIDDEN), generator("x"))
        state = rule.start(weights)
        for step in range(4):
            weights, state, _ = rule.update(weights, state, Sequences(*(p[:, :, :40] for p in data[0])), step)
        assert all(bool((w[m == 0] == 0).all()) for w, m in zip(weights, ends(3, HIDDEN), strict=True))


def test_a_compensator_goes_the_other_way():
    known = Pairs(torch.full((1, 2, 3), 1 + 0j), torch.full((1, 2, 3), 2 + 0j))
    assert float(known.sequences(True).inputs[1, 0, 0, 1]) == 2 and float(known.sequences(True).wanted[1, 0, 0, 0]) == 1
    task = SurrogateTask(COMPENSATOR, receiver(), "toy", SMALL)
    found = task.finished(task.run())
    assert found.settings["inverse"] and float(task.ratios(found)["inner chains"].mean()) < 0.25


def test_the_verb_trains_and_the_file_is_a_surrogate(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(SURROGATE.profiles, "quick", SMALL)
    assert main(["train", "impairment-surrogate", "--data", "ding", "-o", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["network"] for row in said["measured"]] == list(train_surrogate.NETWORKS)
    assert said["metric"] == "fitting_nmse_db" and "amplifier ding" in said["data"]
    surrogate = load(said["weights"])
    apart = pairs(receiver("ding"), 3, 300, 6, generator("apart"))
    ratio = 10 * nmse(surrogate, apart.signal, apart.distorted).log10()
    assert max(abs(float(ratio[n]) - said["measured"][n]["value"]) for n in range(3)) < 2
    assert main(["train", "impairment-surrogate", "--profile", "slow"]) == 2
    assert "expected quick or shipped or full" in capsys.readouterr().err
    assert main(["train", "impairment-surrogate", "--data", "no-such"]) == 2
    assert "no-such" in capsys.readouterr().err


def test_one_network_per_chain_has_as_many_weights_as_the_paper_counts():
    mask = ends(PER_CHAIN.num_net, PER_CHAIN.hidden)
    assert sum(int(part.sum()) for part in mask) == 243_456
    assert PER_CHAIN.profiles["full"].steps == 250


def test_recipes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="divisor of 400"):
        SurrogateRecipe(400, 1, batch=300)
    with pytest.raises(ValueError, match="epochs: expected at least 1"):
        SurrogateRecipe(400, 0)
