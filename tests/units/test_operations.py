"""Operation counts by formula against what torch is seen to carry out, and against the counts of its own counter."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hhat.bench import operations as count
from hhat.bench.counter import multiply_adds
from hhat.bench.operations import REAL, Sizes
from hhat.decentralized.split import split
from hhat.experiments import xl_mimo_table2 as table
from hhat.experiments.engine_estep import inverse_by_elimination, printed
from hhat.methods.solve import solve
from hhat.nets.graph import GraphSizes, GraphStack, dense_mean, sorted_mean
from hhat.ops import Dense, Fourier, Kron
from hhat.ops.posterior import posterior
from hhat.random import complex_normal, generator
from hhat.types import Gaussian, Observation

CLOSE = 0.02
"""What the formulas leave out: squared moduli of operators, products with vectors"""
POINT = table.POINTS[0]


def counted(run) -> float:
    return sum(multiply_adds(run).values())


def check(method, obs, formula):
    solve(method, obs, max_steps=1)  # what is made once is no part of it
    assert formula == pytest.approx(counted(lambda: solve(method, obs)), rel=CLOSE)


@pytest.mark.parametrize(
    ("num_unit", "label"), [*((4, label) for label in table.UNITS), (8, "sbl-pattern-coupled"), (8, "sbl-gnn")]
)
def test_the_formula_of_each_method_at_a_unit_is_what_it_carries_out(num_unit, label):
    scene = table.EXPERIMENT.scenario({"num_unit": num_unit, "snr_db": 10.0})
    build, of = table.UNITS[label]
    method = build(scene.local_basis())
    method = replace(method, max_steps=20) if "uamp" in label else method
    obs = split(scene.draw(1, generator("operations")).obs, num_unit)[0]
    check(method, obs, of(method, table.unit_sizes(scene)).operations)


@pytest.mark.parametrize("label", ["sbl-em-refined", "oamp-decentralised", *table.CENTRAL])
def test_the_formula_of_each_method_of_the_array_is_what_it_carries_out(label):
    scene = table.EXPERIMENT.scenario(POINT)
    method = table.EXPERIMENT.methods[label](scene)
    check(method, scene.draw(1, generator("operations")).obs, method.cost.operations)


@pytest.mark.parametrize("s", [Sizes(32, 16, 16), Sizes(128, 16, 64), Sizes(256, 8, 128), Sizes(320, 4, 160)])
def test_an_e_step_by_structure(s):
    """In one piece, by halves, by halves of halves without the table, and by LAPACK."""
    gen = generator("one e-step", s.num_beams)
    a = complex_normal((s.num_beams, s.num_ant), gen)
    op = Kron(Dense(a), Fourier(s.num_tones))
    y, v = complex_normal((1, s.num_beams, s.num_tones), gen), torch.rand(1, s.num_ant, s.num_tones, generator=gen)
    run = partial(posterior, op, y, Gaussian(y.new_zeros(()), v), 0.1)
    run()
    found = counted(run)
    assert count.e_step(s) == pytest.approx(found, rel=CLOSE)


def test_an_e_step_as_printed():
    s = Sizes(16, 4, 8)
    gen = generator("printed e-step")
    phi = complex_normal((s.samples, s.unknowns), gen)
    op = Dense(phi, (s.num_ant, s.num_tones), (s.num_beams, s.num_tones))
    obs = Observation(complex_normal((1, s.num_beams, s.num_tones), gen), op, torch.full((1, 1, 1), 0.1))
    v = torch.rand(1, s.num_ant, s.num_tones, generator=gen) + 0.5
    found = multiply_adds(lambda: printed(obs, v, inverse_by_elimination))  # the first call forms Phi^H Phi
    vectors = 2 * s.samples * s.unknowns + s.unknowns**2
    assert sum(found.values()) == pytest.approx(count.e_step_printed(s) + vectors)


@pytest.mark.parametrize(("hidden", "mean"), [((6,), dense_mean), ((6, 5), dense_mean), ((6,), sorted_mean)])
def test_a_layer_of_the_graph(hidden, mean):
    s, sizes = Sizes(6, 4, 3), GraphSizes(5, 2, 2, 3, 7, hidden, (9, 4))
    gen, net = generator("graph operations"), GraphStack(sizes)
    shape = (1, s.num_tones, s.num_ant)
    attributes = torch.randn(*shape, 5, generator=gen)
    edge = torch.rand(1, s.num_ant, s.num_ant, generator=gen)
    memory = torch.zeros(*shape, sizes.state + sizes.memory)
    run = partial(net, attributes, edge, torch.zeros(1), memory, 1, mean)  # layer 1: layer 0 also starts the states
    found = multiply_adds(run)
    with FlopCounterMode(display=False) as flops:
        run()
    total, apart = sum(found.values()), found["relu"] + found.get("sort", 0)
    matrix = 2 / REAL * (total - apart)
    assert matrix == flops.get_total_flops()
    if mean is dense_mean:
        # torch.where has no part in it: all pairs are formed, masked and summed
        assert total == pytest.approx(count.graph_dense(s, sizes))
    else:
        own = count.graph_m_step(s, sizes) - s.product - count.fft(s.num_tones, s.num_beams)
        assert total == pytest.approx(own)


def test_the_papers_network_for_one_unit_has_the_published_size():
    """13.8e9 real multiply-adds for 5 layers of 3 rounds on 512 coefficients, 3,520 a pair, but for an edge feature."""
    s, sizes = Sizes(32, 16, 16), count.PRINTED_GRAPH
    total = sizes.num_layers * count.graph_dense(s, sizes) / REAL
    assert total == pytest.approx(13.8e9, rel=0.03)
    missing = count.graph_dense(s, sizes) / count.graph_printed(sizes)
    assert missing == pytest.approx(s.unknowns**2 * 3520 / (8 * 64 * 32), rel=0.03)


def test_counts_of_transforms_factors_and_convolutions():
    gen = generator("counter")
    x = complex_normal((3, 8, 16), gen)
    assert counted(lambda: torch.fft.fft(x)) == 3 * 8 * 8 * math.log2(16)
    c = x[0] @ x[0].mH + torch.eye(8)
    assert counted(lambda: torch.linalg.cholesky_ex(c)) == pytest.approx(8**3 / 6)
    assert counted(lambda: torch.linalg.solve_triangular(c, x[0], upper=False)) == 8 * 8 * 16 / 2
    weight, image = torch.rand(4, 2, 3, 3, generator=gen), torch.rand(1, 2, 7, 9, generator=gen)
    assert counted(lambda: torch.conv2d(image, weight)) == REAL * 4 * 5 * 7 * 2 * 9


def test_a_counted_method_runs_as_the_method_itself():
    scene = table.EXPERIMENT.scenario(POINT)
    slot, counted_method = scene.draw(2, generator("as itself")), table.EXPERIMENT.methods["cnn-sbl-central"](scene)
    ours, own = solve(counted_method, slot.obs), solve(counted_method.method, slot.obs)
    assert torch.equal(ours.belief.mean, own.belief.mean) and torch.equal(ours.info["steps"], own.info["steps"])
    kept = table.score(ours, slot)
    assert kept["operations"].tolist() == [pytest.approx(counted_method.cost.operations)] * 2
    free = replace(counted_method, cost=table.Cost(1.0, 2.0, 3.0))
    kept = table.score(solve(free, slot.obs), slot)
    assert [kept[name][0].item() for name in ("operations", "operations_printed", "operations_dense")] == [1, 2, 3]
