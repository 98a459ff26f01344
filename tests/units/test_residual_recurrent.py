"""The residual recurrent unit against a loop over chains written from its equations, and against autograd."""

import pytest
import torch

from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights
from hhat.random import complex_normal, generator

HIDDEN, CHAINS, PILOTS, BATCH = 5, 4, 3, 2


@pytest.fixture
def case():
    gen = generator("residual recurrent")
    mask = unit.present(CHAINS, (0,), (CHAINS - 1,), HIDDEN).to(torch.float64)
    weights = RecurrentWeights(*(torch.randn(m.shape, generator=gen, dtype=torch.float64) * 0.5 * m for m in mask))
    signal = complex_normal((BATCH, PILOTS, CHAINS), gen, torch.complex128)
    return weights, signal


def written_out(weights, signal):
    """Chain by chain, symbol by symbol, from the equations, with biases and matrices apart."""
    batch, pilots, chains = signal.shape
    h, q = weights.hidden, torch.special.ndtr
    found = torch.zeros_like(signal)
    for n in range(chains):
        there = [j for j in (n - 1, n, n + 1) if 0 <= j < chains]
        places = [j - n + 1 for j in there]
        columns = [h + place for place in places] + [h + 3 + place for place in places]
        wz, wc, wu = weights.gates[n, :h], weights.gates[n, h:], weights.update[n]
        for b in range(batch):
            state = torch.zeros(h, dtype=torch.float64)
            for p in range(pilots):
                v = torch.cat([signal[b, p, there].real, signal[b, p, there].imag])
                z, c = (w[:, :h] @ state + w[:, columns] @ v + w[:, -1] for w in (wz, wc))
                u = wu[:, :h] @ (q(c) * state) + wu[:, columns] @ v + wu[:, -1]
                state = (1 - q(z)) * state + q(z) * (2 * q(u) - 1)
                out = weights.out[n, :, :h] @ state + weights.out[n, :, -1]
                found[b, p, n] = signal[b, p, n] + torch.complex(out[0], out[1])
    return found


def test_the_batched_form_is_the_loop_over_chains(case):
    weights, signal = case
    found = unit.signal_of(unit.forward(weights, unit.neighbour_inputs(signal)).output)
    assert (found - written_out(weights, signal)).abs().max() < 1e-12


@pytest.mark.parametrize(("hidden", "wanted"), [(32, 243_456), (64, 880_000)])
def test_the_count_is_the_papers(hidden, wanted):
    assert sum(int(part.sum()) for part in unit.present(64, (0,), (63,), hidden)) == wanted


def test_a_missing_neighbours_weights_start_at_nothing_and_have_no_score(case):
    weights, signal = case
    mask = unit.present(CHAINS, (0,), (CHAINS - 1,), HIDDEN)
    first = unit.start(mask, generator("start"))
    assert all(bool((part[m == 0] == 0).all()) for part, m in zip(first, mask, strict=True))
    trace = unit.forward(weights, unit.neighbour_inputs(signal))
    score = torch.ones_like(trace.output)
    scores = unit.backward(weights, unit.slopes(trace), score)
    found = unit.weight_scores(scores, score, unit.block_inputs(trace))
    assert all(bool((part[m == 0] == 0).all()) for part, m in zip(found, mask, strict=True))
    assert all(bool((part[m == 1] != 0).all()) for part, m in zip(found, mask, strict=True))


def test_scores_are_autograd(case):
    weights, signal = case
    gen = generator("scores")
    inputs = unit.neighbour_inputs(signal).requires_grad_()
    leaves = RecurrentWeights(*(part.requires_grad_() for part in weights))
    trace = unit.forward(leaves, inputs)
    score = torch.randn(trace.output.shape, generator=gen, dtype=torch.float64)
    *wanted, wanted_inputs = torch.autograd.grad((trace.output * score).sum(), (*leaves, inputs))
    with torch.no_grad():
        scores = unit.backward(weights, unit.slopes(trace), score)
        found = unit.weight_scores(scores, score, unit.block_inputs(trace))
        found_inputs = unit.input_score(weights, scores, score)
    assert all((a - b).abs().max() < 1e-12 for a, b in zip(found, wanted, strict=True))
    assert (found_inputs - wanted_inputs).abs().max() < 1e-12


def test_both_jacobians_are_autograd(case):
    weights, signal = case
    trace = unit.forward(weights, unit.neighbour_inputs(signal))
    by_inputs, by_weights = unit.input_jacobian(weights, trace), unit.weight_jacobian(weights, trace)
    for b in range(BATCH):
        inputs = unit.neighbour_inputs(signal[b : b + 1])
        leaves = RecurrentWeights(*(part.clone().requires_grad_() for part in weights))
        output = unit.forward(leaves, inputs.requires_grad_()).output
        for row in range(2 * PILOTS):
            # networks do not meet: the sum over them has every one's own slope
            one = output[:, row // 2, 0, row % 2].sum()
            *parts, slope = torch.autograd.grad(one, (*leaves, inputs), retain_graph=True)
            assert (by_inputs[:, b, row] - slope[:, :, 0].flatten(1)).abs().max() < 1e-12
            for found, wanted in zip(by_weights, parts, strict=True):
                assert (found[:, b, row] - wanted).abs().max() < 1e-12


def test_a_tangent_is_the_weight_jacobian_times_the_move(case):
    weights, signal = case
    gen = generator("tangent")
    moves = [RecurrentWeights(*(torch.randn(w.shape, generator=gen, dtype=w.dtype) for w in weights)) for _ in "ab"]
    trace = unit.forward(weights, unit.neighbour_inputs(signal))
    found = unit.tangent(weights, trace, unit.slopes(trace), moves)
    jacobian = unit.weight_jacobian(weights, trace)
    for move, one in zip(moves, found, strict=True):
        wanted = sum(torch.einsum("nbkrc,nrc->nbk", j, m) for j, m in zip(jacobian, move, strict=True))
        assert (one.movedim(1, 2).flatten(2, 3) - wanted).abs().max() < 1e-12


def test_parts_and_signal_are_inverse(case):
    assert torch.equal(unit.signal_of(unit.own_parts(case[1])), case[1])
