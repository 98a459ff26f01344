"""Support fields against enumeration of all 2^n supports."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from hhat.priors.chain import Chain
from hhat.priors.ising import Ising
from hhat.random import generator

DOUBLE = torch.float64


def states(size):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=size)), dtype=DOUBLE)


def enumerated(log_prior, s, llr):
    """Posterior marginals and log evidence by summing over every support."""
    joint = log_prior + s @ logsigmoid(llr) + (1 - s) @ logsigmoid(-llr)
    evidence = torch.logsumexp(joint, 0) - torch.logsumexp(log_prior, 0)
    return torch.softmax(joint, 0) @ s, evidence, torch.softmax(joint, 0)


def chain_prior(s, appear, vanish, start):
    log = torch.where(s[:, 0] > 0, tensor(math.log(start)), tensor(math.log(1 - start)))
    for j in range(1, s.shape[1]):
        was, now = s[:, j - 1] > 0, s[:, j] > 0
        up = torch.where(now, tensor(math.log(appear)), tensor(math.log(1 - appear)))
        down = torch.where(now, tensor(math.log(1 - vanish)), tensor(math.log(vanish)))
        log = log + torch.where(was, down, up)
    return log


def ising_prior(s, shape, coupling, field, cyclic):
    sigma = (2 * s - 1).reshape(-1, *shape)
    log = -field * sigma.flatten(1).sum(1)
    for axis, size in enumerate(shape, start=1):
        pairs = sigma * sigma.roll(-1, axis)
        keep = size if cyclic and size > 2 else size - 1
        log = log + coupling * pairs.narrow(axis, 0, keep).flatten(1).sum(1)
    return log


def tensor(*values):
    return torch.tensor(values, dtype=DOUBLE)


@pytest.mark.parametrize("size", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("strength", [1.0, 30.0])
def test_chain_is_enumeration(size, strength):
    llr = strength * torch.randn(size, generator=generator("chain", size), dtype=DOUBLE)
    s = states(size)
    want, evidence, weights = enumerated(chain_prior(s, 0.1, 0.3, 0.4), s, llr)
    chain = Chain(tensor(0.1), tensor(0.3), tensor(0.4))
    cavity, _ = chain.infer(llr, 1)
    torch.testing.assert_close(torch.sigmoid(cavity + llr), want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(chain.log_evidence(llr, 1), evidence, rtol=1e-12, atol=1e-12)
    if size > 1 and strength == 1.0:
        learned = chain.learn(llr, 1)
        was, now = s[:, :-1], s[:, 1:]
        appear = (weights @ ((1 - was) * now)).sum() / (weights @ (1 - was)).sum()
        vanish = (weights @ (was * (1 - now))).sum() / (weights @ was).sum()
        torch.testing.assert_close(learned.appear.flatten(), appear[None], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(learned.vanish.flatten(), vanish[None], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(learned.start.flatten(), want[:1], rtol=1e-12, atol=1e-12)


def test_chain_runs_along_its_axis_and_items_are_apart():
    gen = generator("chain axis")
    llr = torch.randn(3, 5, 4, generator=gen, dtype=DOUBLE)
    appear, vanish = torch.rand(2, 3, 1, 1, generator=gen, dtype=DOUBLE) * 0.4 + 0.1
    chain = Chain(appear, vanish, axis=-2)
    cavity, _ = chain.infer(llr, 2)
    evidence = chain.log_evidence(llr, 2)
    assert evidence.shape == (3,)
    total = torch.zeros(3, dtype=DOUBLE)
    for i in range(3):
        for column in range(4):
            one = Chain(appear[i, 0], vanish[i, 0])
            torch.testing.assert_close(cavity[i, :, column], one.infer(llr[i, :, column], 1)[0])
            total[i] += one.log_evidence(llr[i, :, column], 1)
    torch.testing.assert_close(evidence, total)


def test_a_chain_without_memory_is_independent():
    llr = torch.randn(7, generator=generator("memoryless"), dtype=DOUBLE)
    cavity, _ = Chain(tensor(0.3), tensor(0.7)).infer(llr, 1)
    torch.testing.assert_close(torch.sigmoid(cavity), torch.full_like(llr, 0.3))


def test_chain_survives_certain_evidence():
    llr = torch.tensor([1e4, -1e4, 1e4, -1e4, 0.0])
    cavity, _ = Chain().infer(llr, 1)
    assert bool(torch.isfinite(cavity).all())
    assert bool(torch.isfinite(Chain().learn(llr, 1).appear).all())
    want = Chain(tensor(0.02), tensor(0.2)).infer(llr.double(), 1)[0]
    torch.testing.assert_close(cavity.double(), want, rtol=1e-4, atol=1e-4)


def test_em_of_a_chain_never_lowers_the_evidence_and_finds_the_truth():
    truth = Chain(tensor(0.05), tensor(0.2))
    s = truth.sample((1, 40, 500), generator("chain em"), 2)
    llr = torch.where(s, 1.0, -1.0) * 3 + 2 * torch.randn(s.shape, generator=generator("chain em llr"), dtype=DOUBLE)
    llr = 1.5 * llr  # log ratio of N(+-3, 4)
    chain, last = Chain(tensor(0.3).reshape(1, 1, 1), tensor(0.6).reshape(1, 1, 1)), -torch.inf
    for _ in range(60):
        chain = chain.learn(llr, 2)
        now = float(chain.log_evidence(llr, 2))
        assert now >= last - 1e-9 * abs(now)
        last = now
    assert abs(float(chain.appear) - 0.05) < 0.005 and abs(float(chain.vanish) - 0.2) < 0.015


def test_samples_have_the_chains_statistics():
    s = Chain(0.1, 0.3).sample((400, 300), generator("chain sample"), 1).double()
    appear = ((1 - s[:, :-1]) * s[:, 1:]).sum() / (1 - s[:, :-1]).sum()
    assert abs(float(s.mean()) - 0.25) < 0.01 and abs(float(appear) - 0.1) < 0.003


@pytest.mark.parametrize("field", [0.0, 0.3])
def test_belief_propagation_is_exact_on_a_tree(field):
    size = 7
    llr = torch.randn(size, generator=generator("tree"), dtype=DOUBLE)
    s = states(size)
    want, evidence, _ = enumerated(ising_prior(s, (size,), 0.6, field, False), s, llr)
    ising = Ising(tensor(0.6), tensor(field), cyclic=False, sweeps=size)
    cavity, _ = ising.infer(llr, 1)
    torch.testing.assert_close(torch.sigmoid(cavity + llr), want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ising.log_evidence(llr, 1).reshape(()), evidence, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cyclic", [False, True])
@pytest.mark.parametrize(("coupling", "within"), [(0.1, 2e-3), (0.35, 0.1)])
def test_belief_propagation_is_close_to_enumeration_on_a_grid(cyclic, coupling, within):
    """Loopy: a 3 x 3 torus has a loop of three through every site, the hardest case there is."""
    llr = 2 * torch.randn(3, 3, generator=generator("grid"), dtype=DOUBLE)
    s = states(9)
    want, evidence, _ = enumerated(ising_prior(s, (3, 3), coupling, 0.1, cyclic), s, llr.flatten())
    ising = Ising(tensor(coupling), tensor(0.1), cyclic=cyclic, sweeps=50)
    cavity, _ = ising.infer(llr, 2)
    error = (torch.sigmoid(cavity + llr).flatten() - want).abs().max()
    alone = (torch.sigmoid(llr - 0.2).flatten() - want).abs().max()
    print(cyclic, coupling, float(error), float(alone), float((ising.log_evidence(llr, 2) - evidence).abs()))
    assert error < within and error < alone / 2
    assert (ising.log_evidence(llr, 2) - evidence).abs() < 10 * within


def test_messages_are_kept_from_call_to_call():
    llr = torch.randn(2, 6, 5, generator=generator("kept"), dtype=DOUBLE)
    whole, _ = Ising(tensor(0.3), sweeps=6).infer(llr, 2)
    _, half = Ising(tensor(0.3), sweeps=3).infer(llr, 2)
    torch.testing.assert_close(half.infer(llr, 2)[0], whole)


def test_no_coupling_is_independent_and_size_one_has_no_neighbours():
    llr = torch.randn(4, 1, generator=generator("inert"), dtype=DOUBLE)
    cavity, _ = Ising(tensor(0.0), tensor(0.4)).infer(llr, 2)
    torch.testing.assert_close(cavity, torch.full_like(llr, -0.8))
    one, _ = Ising(tensor(0.3), tensor(0.4)).infer(llr[:1], 2)
    torch.testing.assert_close(one, torch.full_like(one, -0.8))


def test_learning_an_ising_field_finds_the_truth():
    truth = Ising(tensor(0.2), tensor(0.05))
    s = truth.sample((1, 100, 100), generator("ising em"), 2)
    noise = 2 * torch.randn(s.shape, generator=generator("ising em noise"), dtype=DOUBLE)
    llr = 1.5 * (torch.where(s, 3.0, -3.0) + noise)
    ising = Ising(tensor(0.05).reshape(1, 1, 1), tensor(0.5).reshape(1, 1, 1))
    for _ in range(200):
        ising = ising.infer(llr, 2)[1].learn(llr, 2)
    assert float(ising.log_evidence(llr, 2)) > float(truth.log_evidence(llr, 2)) - 1
    assert abs(float(ising.coupling) - 0.2) < 0.04 and abs(float(ising.field) - 0.05) < 0.04


def test_samples_of_a_field_have_its_moments():
    """4 x 4 torus: mean and neighbour correlation against enumeration of 65,536 states."""
    s = states(16)
    log = ising_prior(s, (4, 4), 0.25, 0.1, True)
    weights, sigma = torch.softmax(log, 0), (2 * s - 1).reshape(-1, 4, 4)
    want = float(weights @ sigma.mean((1, 2))), float(weights @ (sigma * sigma.roll(1, 1)).mean((1, 2)))
    drawn = 2 * Ising(0.25, 0.1).sample((2000, 4, 4), generator("gibbs"), 2).double() - 1
    got = float(drawn.mean()), float((drawn * drawn.roll(1, 1)).mean())
    assert abs(got[0] - want[0]) < 0.02 and abs(got[1] - want[1]) < 0.02


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Chain(0.0, 0.2), "appear"),
        (lambda: Chain(0.1, 1.2), "vanish"),
        (lambda: Chain(axis=0), "axis"),
        (lambda: Ising(-0.5), "coupling"),
        (lambda: Ising(axes=(-1, -1)), "axes"),
        (lambda: Ising(sweeps=0), "sweeps"),
    ],
)
def test_wrong_settings_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()
