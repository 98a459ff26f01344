"""Moving dictionaries: the gradient against dense algebra and finite differences, and what the moves gain."""

import math

import pytest
import torch

import hhat
from hhat.methods.amp import Gamp
from hhat.methods.linear import Lmmse
from hhat.methods.oamp import Oamp
from hhat.methods.off_grid import OffGrid
from hhat.methods.sbl import Sbl
from hhat.ops import BlockDiag, Compose, Dense, Diagonal, Fourier, Identity, KhatriRao, Kron, Select, Stack, Steering
from hhat.priors import Gauss, bernoulli_gauss
from hhat.priors.m_step import Em
from hhat.random import complex_normal, generator
from hhat.types import Observation, Status

DOUBLE = torch.complex128
FREE = {"largest_move": 1e9, "reach": 1e9, "active": 0.0}
"""Settings under which a move is share * gradient / curvature and nothing else"""


def grid(points, first=-1.0, step=None):
    step = 2 / points if step is None else step
    return first + step * torch.arange(points, dtype=torch.float64)


def ula(num_ant, points, scale=None):
    return Steering.ula(num_ant, grid(points), num_ant**-0.5 if scale is None else scale)


# --- the dictionary ---------------------------------------------------------------------------------------------


def test_a_grid_per_item_gives_a_matrix_per_item():
    positions, many = torch.rand(5, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    together = Steering(positions, many, scale=0.5)
    assert together.batch_shape == (2, 3) and together.in_shape == (4,) and together.out_shape == (5,)
    for i in range(2):
        for j in range(3):
            assert torch.equal(together.matrix[i, j], Steering(positions, many[i, j], scale=0.5).matrix)
    x = complex_normal((2, 3, 4), generator("per item"), DOUBLE)
    assert torch.allclose(together @ x, torch.einsum("ijpg,ijg->ijp", together.matrix, x))
    with pytest.raises(ValueError, match=r"Steering: expected positions \(P,\) and grid"):
        Steering(torch.ones(2, 3), torch.ones(3))


def test_a_moved_dictionary_is_the_one_at_the_new_points_with_the_phase_at_the_centre():
    steering = Steering(torch.tensor([0.0, 0.3, 1.0, 2.5], dtype=torch.float64), grid(6), 0.7)
    offset = 0.2 * torch.randn(3, 6, dtype=torch.float64, generator=generator("moved"))
    there = Steering(steering.positions, steering.grid + offset, 0.7).matrix
    turn = torch.polar(torch.ones_like(offset), -2 * math.pi * 1.25 * offset)
    torch.testing.assert_close(steering.moved(offset).matrix, there * turn[..., None, :])
    torch.testing.assert_close(steering.moved(torch.zeros(6)).matrix, steering.matrix)
    step = 1e-6
    slope = (steering.moved(offset + step).matrix - steering.moved(offset - step).matrix) / (2 * step)
    torch.testing.assert_close(steering.slope(steering.moved(offset)), slope, rtol=1e-6, atol=1e-7)
    uniform = Steering.ula(8, grid(5))
    there = uniform.moved(grid(5))
    assert (there.matrix.conj() * uniform.slope(there)).sum(-2).abs().max() < 1e-12


def test_phases_of_a_moved_dictionary_are_right_in_single_precision():
    frequency = torch.arange(3, dtype=torch.float64) * 50e6 + 3.5e9
    steering = Steering.delay(frequency, torch.tensor([5e-6], dtype=torch.float64)).to(torch.complex64)
    offset = torch.tensor([3e-9])
    turns = -(frequency - frequency.mean()) * offset.double()
    want = Steering.delay(frequency, torch.tensor([5e-6], dtype=torch.float64)).matrix[:, 0]
    want = want * torch.polar(torch.ones(3, dtype=torch.float64), 2 * math.pi * turns)
    # 17,500 cycles; what is left is the rounding of 3.5 GHz to float32, times the offset
    torch.testing.assert_close(steering.moved(offset).matrix[:, 0].to(DOUBLE), want, rtol=0, atol=1e-5)


def test_spacing_is_the_mean_distance_to_the_neighbours_in_any_order():
    points = torch.tensor([3.0, 0.0, 1.0, 7.0], dtype=torch.float64)
    assert Steering(torch.ones(2), points).spacing.tolist() == [3.0, 1.0, 1.5, 4.0]
    assert Steering.ula(5, torch.tensor([0.3])).spacing.tolist() == [0.5]  # alone: one over the aperture
    assert Steering(torch.ones(1), torch.tensor([0.3])).spacing.tolist() == [0.0]


def test_the_dft_as_a_dictionary():
    torch.testing.assert_close(Steering.dft(7).matrix, Fourier(7).dense(), rtol=0, atol=1e-6)


# --- the move ---------------------------------------------------------------------------------------------------


def columns(part, offset):
    """The moved dictionary, written out."""
    centre = (part.positions.max() + part.positions.min()) / 2
    cycles = part.positions[:, None] * part.grid + (part.positions - centre)[:, None] * offset
    return part.scale * torch.exp(2j * math.pi * cycles)


def kron(a, b):
    return torch.kron(a, b)


def khatri_rao(a, b):
    return (a[:, None] * b[None]).reshape(-1, a.shape[-1])


def structures():
    """name -> (observation operator, basis, its dictionaries, dense matrix as a function of the dictionaries)"""
    gen = generator("structures")
    a, b = ula(4, 5), Steering.delay(torch.arange(3, dtype=torch.float64), grid(4, 0.0, 0.2))
    cell = Steering.delay(torch.arange(3, dtype=torch.float64), grid(5, 0.0, 0.2))
    weak = ula(4, 5, 0.3)
    p, q, d = (complex_normal(shape, gen, DOUBLE) for shape in ((3, 4), (4, 3), (3,)))
    blocks = complex_normal((2, 3, 4), gen, DOUBLE)
    ones, eye = torch.eye(4, dtype=DOUBLE), torch.eye(2, dtype=DOUBLE)
    comb, taper = torch.tensor([0, 3, 1]), torch.arange(1, 6).to(DOUBLE)
    dft = Steering(-torch.arange(4).double(), torch.arange(4).double() / 4, 0.5)
    per_block = BlockDiag(Compose(Dense(ones.expand(2, 4, 4).clone()), a))
    return {
        "alone": (Identity((4,)), a, [a], lambda a: a),
        "pilots": (Dense(p), a, [a], lambda a: p @ a),
        "comb": (Select(comb, 4), a, [a], lambda a: a[comb]),
        "antennas": (Kron(Identity((2,)), Dense(p)), Kron(Identity((2,)), a), [a], lambda a: torch.kron(eye, p @ a)),
        "turned": (Kron(Dense(p), Identity((2,))), Kron(a, Identity((2,))), [a], lambda a: torch.kron(p @ a, eye)),
        "plane": (Identity((4, 3)), Kron(a, b), [a, b], torch.kron),
        "pilots on a plane": (
            Kron(Dense(p), Diagonal(d)),
            Kron(a, b),
            [a, b],
            lambda a, b: torch.kron(p @ a, d[:, None] * b),
        ),
        "cells": (
            Kron(Dense(p), Dense(q)),
            KhatriRao(a, cell),
            [a, cell],
            lambda a, b: ((p @ a)[:, None] * (q @ b)[None]).reshape(-1, 5),
        ),
        "behind a taper": (Dense(p), Compose(a, Diagonal(taper)), [a], lambda a: p @ a * taper),
        "stack": (Identity((8,)), Stack((a, weak)), [a, weak], lambda a, b: torch.cat([a, b])),
        "blocks": (BlockDiag(Dense(blocks)), per_block, [a], lambda a: torch.block_diag(*(blocks @ a))),
        "dft": (Dense(p), Fourier(4), [dft], lambda a: p @ a),
    }


STRUCTURES = structures()


class Dense1:
    """One item, written out: evidence, its gradient by every grid line, and the curvature of the move."""

    def __init__(self, make, parts, offsets, mean, v, noise, y):
        self.make, self.parts, self.offsets = make, parts, offsets
        self.mean, self.v, self.noise, self.y = mean, v, noise, y

    def matrix(self, offsets):
        return self.make(*(columns(part, d) for part, d in zip(self.parts, offsets, strict=True)))

    def evidence(self, offsets):
        a = self.matrix(offsets)
        c = a @ torch.diag(self.v).to(DOUBLE) @ a.mH + torch.diag(self.noise).to(DOUBLE)
        r = self.y - a @ self.mean
        return -torch.linalg.slogdet(c)[1] - (r.conj() @ torch.linalg.solve(c, r)).real - len(r) * math.log(math.pi)

    def slopes(self, i):
        """Derivative of the matrix by every line of dictionary i: (G, M, N)."""

        def at(d):
            return torch.view_as_real(self.matrix([*self.offsets[:i], d, *self.offsets[i + 1 :]]))

        found = torch.autograd.functional.jacobian(at, self.offsets[i]).movedim(-1, 0)
        return torch.view_as_complex(found.contiguous())

    def gradient(self, i):
        """The expected log-likelihood's: what the mean gives, and the trace term (to be subtracted)."""
        a, slopes = self.matrix(self.offsets), self.slopes(i)
        inverse = torch.linalg.inv(a @ torch.diag(self.v).to(DOUBLE) @ a.mH + torch.diag(self.noise).to(DOUBLE))
        mu, sigma = self.posterior(a, inverse)
        error = (self.y - a @ mu) / self.noise
        fit = 2 * torch.einsum("p,gpn,n->g", error.conj(), slopes, mu).real
        return fit, 2 * torch.einsum("p,gpn,nm,pm->g", (1 / self.noise).to(DOUBLE), slopes, sigma, a.conj()).real

    def posterior(self, a, inverse):
        gain = self.v[:, None] * (a.mH @ inverse)
        return self.mean + gain @ (self.y - a @ self.mean), torch.diag(self.v).to(DOUBLE) - gain @ a * self.v

    def curvature(self, i):
        a = self.matrix(self.offsets)
        inverse = torch.linalg.inv(a @ torch.diag(self.v).to(DOUBLE) @ a.mH + torch.diag(self.noise).to(DOUBLE))
        mu, sigma = self.posterior(a, inverse)
        second = mu.abs().square() + sigma.diagonal().real
        return 2 * torch.einsum("gpn,n,p->g", self.slopes(i).abs().square(), second, 1 / self.noise)


def seen_through(op, num=3, dtype=DOUBLE, label="seen"):
    gen = generator(label)
    y = complex_normal((num, *op.out_shape), gen, dtype)
    noise = 0.1 + torch.rand((num, *op.out_shape), generator=gen, dtype=dtype.to_real())
    return y, noise


def moved_state(method, obs, parts, scale=0.1):
    """A state after some steps, with offsets of its own per item."""
    gen = generator("state")
    state = method.init(obs, gen)
    for i, part in enumerate(parts):
        shift = scale * part.spacing.to(obs.y.real) * torch.randn((*obs.batch_shape, len(part.grid)), generator=gen)
        state[f"offset.{i}"] = shift.to(obs.y.real.dtype)
    return {**state, "offset.steps": 1}


@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_move_follows_the_gradient_of_the_expected_likelihood(name, white):
    """share dL/dd / c for every structure, against dense matrices; per entry and white noise."""
    op, basis, parts, make = STRUCTURES[name]
    y, noise = seen_through(op)
    obs = Observation(y, op, 0.3 if white else noise)
    inner = Sbl(Gauss(basis=basis), m_step=Em(), max_steps=50)
    method = OffGrid(inner=inner, every=1, share=1e-3, **FREE)
    state = moved_state(method, obs, parts)
    new = method.step(state, obs)
    for item in range(3):
        offsets = [state[f"offset.{i}"][item] for i in range(len(parts))]
        s2 = torch.full_like(noise[item], 0.3) if white else noise[item]
        v = new["v"][item].flatten()
        want = Dense1(make, parts, offsets, torch.zeros_like(v).to(DOUBLE), v, s2.flatten(), y[item].flatten())
        for i, offset in enumerate(offsets):
            fit, trace = want.gradient(i)
            move = (new[f"offset.{i}"][item] - offset) / 1e-3
            torch.testing.assert_close(move, (fit - trace) / want.curvature(i), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["pilots on a plane", "antennas"])
def test_the_gradient_is_that_of_the_evidence_by_finite_differences(name):
    op, basis, parts, make = STRUCTURES[name]
    y, noise = seen_through(op, 1)
    obs = Observation(y, op, noise)
    method = OffGrid(inner=Oamp(bernoulli_gauss(0.3, basis=basis)), every=1, share=1e-3, **FREE)
    state = moved_state(method, obs, parts)
    new = method.step(state, obs)
    factor = method.factor(new, obs)  # its mean is not zero
    offsets = [state[f"offset.{i}"][0] for i in range(len(parts))]
    event = (factor.mean[0].flatten(), factor.var[0].expand(factor.mean[0].shape).flatten())
    assert event[0].abs().max() > 0.01
    want = Dense1(make, parts, offsets, *event, noise[0].flatten(), y[0].flatten())
    for i, offset in enumerate(offsets):
        for line in range(len(offset)):
            step = torch.zeros_like(offset)
            step[line] = 1e-5
            up, down = ([*offsets[:i], offset + s, *offsets[i + 1 :]] for s in (step, -step))
            slope = (want.evidence(up) - want.evidence(down)) / 2e-5
            move = (new[f"offset.{i}"][0, line] - offset[line]) / 1e-3 * want.curvature(i)[line]
            assert float(move) == pytest.approx(float(slope), rel=1e-4, abs=1e-5)


def test_equal_variances_have_the_gradient_too():
    """One variance for all coefficients: conditioned in the singular basis elsewhere, whose gradient is not stable."""
    a = Steering.ula_grid(4)  # equal singular values
    op = Kron(Identity((2,)), Dense(torch.eye(4, dtype=DOUBLE)))
    y, _ = seen_through(op)
    obs = Observation(y, op, 0.3)
    inner = Sbl(Gauss(basis=Kron(Identity((2,)), a)), tied_axes=(-1, -2), m_step=Em(), max_steps=50)
    method = OffGrid(inner=inner, every=1, share=1e-3, **FREE)
    new = method.step({**method.init(obs, generator("equal")), "offset.steps": 1}, obs)
    part = Steering(a.positions.double(), a.grid.double(), 0.5)
    eye = torch.eye(2, dtype=DOUBLE)
    for item in range(3):
        v = new["v"][item].expand(2, 4).flatten()
        still = torch.zeros(4, dtype=torch.float64)
        want = Dense1(
            lambda a: torch.kron(eye, a), [part], [still], 0 * v.to(DOUBLE), v, 0 * v + 0.3, y[item].flatten()
        )
        fit, trace = want.gradient(0)
        torch.testing.assert_close(
            new["offset.0"][item] / 1e-3, (fit - trace) / want.curvature(0), rtol=1e-4, atol=1e-5
        )


def test_single_precision_moves_alike():
    op, basis, parts, _ = STRUCTURES["pilots on a plane"]
    y, noise = seen_through(op)
    moves = []
    for dtype in (DOUBLE, torch.complex64):
        obs = Observation(y.to(dtype), op, noise.to(dtype.to_real()))
        method = OffGrid(inner=Sbl(Gauss(basis=basis), m_step=Em(), max_steps=50), every=1, **FREE)
        state = moved_state(method, obs, parts)
        moves.append([method.step(state, obs)[f"offset.{i}"] - state[f"offset.{i}"] for i in range(2)])
        assert moves[-1][0].dtype == dtype.to_real()
    for long, short in zip(*moves, strict=True):
        torch.testing.assert_close(short.double(), long, rtol=0, atol=1e-4 * float(long.abs().max()))


# --- what the moves gain ----------------------------------------------------------------------------------------

NUM_ANT = 32
CELL = 2 / NUM_ANT


def directions(num, snr_db, label="directions"):
    """u (num, 3) at least two cells apart, amplitudes of modulus one, channel, observation."""
    gen = generator("off-grid tests", label)
    u = torch.stack([torch.linspace(-0.8, 0.6, 3, dtype=torch.float64)] * num)
    u = u + 0.2 * torch.rand(num, 3, generator=gen, dtype=torch.float64)
    x = torch.exp(2j * math.pi * torch.rand(num, 3, generator=gen, dtype=torch.float64))
    h = (Steering.ula(NUM_ANT, u).matrix @ x[..., None])[..., 0]
    noise_var = 3 * 10 ** (-snr_db / 10)
    y = h + complex_normal(h.shape, gen, DOUBLE, noise_var)
    return u, x, h.to(torch.complex64), Observation(y.to(torch.complex64), Identity((NUM_ANT,)), noise_var)


def bounds(u, x, noise_var):
    """Cramer-Rao bounds of every u and of |h_hat - h|^2, amplitudes unknown."""
    steering = Steering.ula(NUM_ANT, u).matrix
    slope = 1j * math.pi * torch.arange(NUM_ANT)[:, None] * steering
    jacobian = torch.cat([slope * x[..., None, :], steering, 1j * steering], -1)
    cover = torch.linalg.inv(2 / noise_var * (jacobian.mH @ jacobian).real)
    error = torch.einsum("bnk,bkl,bnl->b", jacobian, cover.to(DOUBLE), jacobian.conj()).real
    return cover.diagonal(dim1=-2, dim2=-1)[..., :3], error


def inner_of(name, basis):
    sparse = bernoulli_gauss(0.1, basis=basis)
    return {"sbl": Sbl(Gauss(basis=basis), m_step=Em()), "oamp": Oamp(sparse), "gamp": Gamp(sparse)}[name]


def errors(est, axis, truth, cell):
    """Per path, energy-weighted mean position of the lines within a cell of it, minus the truth: two lines may share
    a path. Coefficients of other axes are summed."""
    energy = est.info["coefficients"].mean.abs().square().double()
    energy = energy.movedim(1 + axis, -1).flatten(1, -2).sum(1) if energy.ndim > 2 else energy
    error = est.info["grid"][axis].double()[:, None, :] - truth[..., None]
    weight = torch.where(error.abs() < cell, energy[:, None, :], 0.0)
    return (weight * error).sum(-1) / weight.sum(-1)


@pytest.mark.parametrize(("name", "gain", "short"), [("sbl", 1.5, 7.0), ("oamp", 5.0, 2.0), ("gamp", 5.0, 2.0)])
def test_directions_between_grid_points_are_found(name, gain, short):
    """20 dB: dB gained over the fixed grid, and how far from the Cramer-Rao bounds of channel and angles."""
    u, x, h, obs = directions(24, 20.0)
    inner = inner_of(name, ula(NUM_ANT, NUM_ANT))
    fixed, est = hhat.solve(inner, obs), hhat.solve(OffGrid(inner=inner, max_steps=60), obs)
    bound_u, bound_h = bounds(u, x, float(obs.noise_var))
    at_best = 10 * math.log10(float((bound_h / h.abs().square().sum(-1)).mean()))
    reached = float(hhat.nmse_db(est, h))
    assert reached < float(hhat.nmse_db(fixed, h)) - gain
    assert at_best - 0.5 < reached < at_best + short
    assert torch.equal(est.info["grid"][0] - grid(NUM_ANT), est.info["offset"][0].double())
    assert (est.info["offset"][0].abs() <= 0.5 * CELL + 1e-6).all()
    if name != "sbl":
        ratio = (errors(est, 0, u, CELL).abs() / bound_u.sqrt()).median()  # 0.67 for a Gaussian error at the bound
        assert 0.4 < float(ratio) < 1.5


def test_delays_in_seconds():
    """One path between the points of a delay dictionary in seconds and hertz."""
    gen = generator("off-grid tests", "delays")
    frequency = 30e3 * torch.arange(48, dtype=torch.float64)
    unit = 1 / (48 * 30e3)
    tau = unit * (2 + 6 * torch.rand(16, 1, generator=gen, dtype=torch.float64))
    h = Steering.delay(frequency, tau).matrix[..., 0]
    y = h + complex_normal(h.shape, gen, DOUBLE, 0.01)
    basis = Steering.delay(frequency, unit * torch.arange(12, dtype=torch.float64), 48**-0.5)
    tones = frequency - frequency.mean()
    bound = (0.01 / (2 * (2 * math.pi) ** 2 * tones.square().sum())).sqrt()
    for dtype in (torch.complex64, DOUBLE):
        obs = Observation(y.to(dtype), Identity((48,)), 0.01)
        inner = inner_of("gamp", basis)
        est = hhat.solve(OffGrid(inner=inner, max_steps=60), obs)
        assert est.info["offset"][0].dtype == dtype.to_real()
        assert float(errors(est, 0, tau, unit).abs().median()) < 2 * float(bound)
        assert float(hhat.nmse_db(est, h.to(dtype))) < float(hhat.nmse_db(hhat.solve(inner, obs), h.to(dtype))) - 6


def test_both_axes_of_a_plane():
    gen = generator("off-grid tests", "plane")
    u = 1.6 * torch.rand(10, 2, generator=gen, dtype=torch.float64) - 0.8
    h = Steering.ula(6, u[:, :1]).matrix @ Steering.ula(12, u[:, 1:]).matrix.mT
    y = h + complex_normal(h.shape, gen, DOUBLE, 0.1)
    obs, h = Observation(y.to(torch.complex64), Identity((6, 12)), 0.1), h.to(torch.complex64)
    inner = inner_of("gamp", Kron(ula(6, 6), ula(12, 12)))
    est = hhat.solve(OffGrid(inner=inner, max_steps=40), obs)
    assert float(hhat.nmse_db(est, h)) < float(hhat.nmse_db(hhat.solve(inner, obs), h)) - 6
    for axis, count in ((0, 6), (1, 12)):
        assert float(errors(est, axis, u[:, axis, None], 2 / count).abs().median()) < 0.05 * 2 / count


def test_the_evidence_never_falls():
    """Variances held as sbl learned them, full steps: log p(y | grid) rises from move to move, for every item."""
    for snr_db in (10.0, 20.0):
        obs = directions(30, snr_db)[3]
        obs = Observation(obs.y.to(DOUBLE), obs.op, obs.noise_var)
        inner = Sbl(Gauss(basis=ula(NUM_ANT, 2 * NUM_ANT)), m_step=Em(), max_steps=15)
        method = OffGrid(inner=inner, every=1)
        state = method.step(method.init(obs, generator("evidence")), obs)
        learned = {name: value for name, value in state.items() if not name.startswith("offset.")}
        before = method.read(state, obs).info["log_evidence"]
        gained = torch.zeros_like(before)
        for _ in range(10):
            state = {**method.step(state, obs), **learned}
            now = method.read(state, obs).info["log_evidence"]
            assert (now >= before - 1e-9).all()
            gained, before = gained + now - before, now
        assert float(gained.mean()) > 1


# --- what every method owes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sbl", "oamp", "gamp"])
def test_a_batch_is_its_items(name):
    obs = directions(4, 15.0)[3]
    obs = Observation(obs.y.to(DOUBLE), obs.op, obs.noise_var)
    method = OffGrid(inner=inner_of(name, ula(NUM_ANT, NUM_ANT)), max_steps=20, tol=1e-3)
    together = hhat.solve(method, obs)
    assert len(set(together.info["steps"].tolist())) > 1  # items freeze at different steps
    for i in range(4):
        alone = hhat.solve(method, Observation(obs.y[i], obs.op, obs.noise_var))
        assert alone.info["offset"][0].shape == (NUM_ANT,)
        assert int(alone.status) == int(together.status[i])
        torch.testing.assert_close(together.belief.mean[i], alone.belief.mean, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(together.info["offset"][0][i], alone.info["offset"][0], rtol=0, atol=1e-7)


def test_an_operator_and_a_grid_per_item():
    gen = generator("per item")
    grids = grid(16)[None] + 0.02 * torch.randn(3, 1, generator=gen, dtype=torch.float64)
    pilots = complex_normal((3, 10, 12), gen)
    y = complex_normal((3, 10), gen)
    together = hhat.solve(OffGrid(prior=Gauss(basis=Steering.ula(12, grids))), Observation(y, Dense(pilots), 0.1))
    for i in range(3):
        method = OffGrid(prior=Gauss(basis=Steering.ula(12, grids[i])))
        alone = hhat.solve(method, Observation(y[i], Dense(pilots[i]), 0.1))
        torch.testing.assert_close(together.belief.mean[i], alone.belief.mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(together.info["grid"][0][i], alone.info["grid"][0], rtol=0, atol=1e-4)


def test_the_state_leads_with_the_batch_survives_a_file_and_is_never_changed(tmp_path):
    _, _, _, obs = directions(4, 15.0)
    method, _ = OffGrid(inner=inner_of("oamp", ula(NUM_ANT, NUM_ANT))).resolve(obs)
    state = method.step(method.init(obs, generator("state")), obs)
    kept = {name: value.clone() for name, value in state.items() if isinstance(value, torch.Tensor)}
    assert all(value.shape[0] == 4 and not value.requires_grad for value in kept.values())
    new = method.step(state, obs)
    assert all(torch.equal(value, state[name]) for name, value in kept.items())
    hhat.save_state(tmp_path / "state.safetensors", state)
    resumed = method.step(hhat.load_state(tmp_path / "state.safetensors"), obs)
    assert all(torch.equal(value, resumed[name]) for name, value in new.items() if isinstance(value, torch.Tensor))


def test_converged_means_that_the_grid_is_at_rest():
    _, _, _, obs = directions(6, 15.0)
    method, _ = OffGrid(inner=inner_of("oamp", ula(NUM_ANT, NUM_ANT))).resolve(obs)
    est = hhat.solve(method, obs)
    done = est.status == Status.OK
    assert done.sum() > 3
    longer = hhat.solve(method, obs, max_steps=int(est.info["steps"].max()) + 10, tol=-1.0)
    moved = (longer.belief.mean - est.belief.mean).abs().square().sum(-1) / est.belief.mean.abs().square().sum(-1)
    assert float(moved[done].median()) < 1e-4
    # an inner method that is at rest from the first step on does not make the wrapper claim it
    still = OffGrid(inner=inner_of("sbl", ula(NUM_ANT, NUM_ANT)), share=1e-2)
    state = still.init(obs, generator("rest"))
    for _ in range(30):
        state = still.step(state, obs)
    assert (state["change"] > 1e-9).all()


def test_lines_that_carry_little_stay():
    _, _, _, obs = directions(5, 20.0)
    est = hhat.solve(OffGrid(inner=inner_of("oamp", ula(NUM_ANT, NUM_ANT)), active=1.0), obs)
    assert ((est.info["offset"][0] != 0).sum(-1) <= 10).all()
    bound = hhat.solve(OffGrid(inner=inner_of("oamp", ula(NUM_ANT, NUM_ANT)), reach=0.1), obs)
    assert float(bound.info["offset"][0].abs().max()) == pytest.approx(0.1 * CELL, rel=1e-4)


@pytest.mark.parametrize("inner", [None, Sbl(), Gamp(bernoulli_gauss(0.3)), Lmmse(Gauss(1.0))])
def test_without_a_dictionary_it_is_the_inner_method(inner):
    gen = generator("none")
    obs = Observation(complex_normal((3, 6), gen), Dense(complex_normal((6, 8), gen)), 0.1)
    est, plain = (hhat.solve(method, obs, max_steps=20) for method in (OffGrid(inner=inner), inner or Sbl()))
    assert torch.equal(est.belief.mean, plain.belief.mean) and torch.equal(est.belief.var, plain.belief.var)
    assert est.info.keys() == plain.info.keys() and torch.equal(est.status, plain.status)


def test_it_takes_as_many_inner_steps_as_the_inner_method_would():
    _, _, _, obs = directions(2, 20.0)
    basis = ula(NUM_ANT, NUM_ANT)
    for inner, steps in ((Oamp(bernoulli_gauss(0.1, basis=basis)), 149), (Sbl(Gauss(basis=basis), max_steps=20), 9)):
        method, _ = OffGrid(inner=inner).resolve(obs)
        assert method.max_steps == steps and method.tol == inner.tol
    auto, words = OffGrid(inner=hhat.method("auto", prior=bernoulli_gauss(0.1, basis=basis))).resolve(obs)
    assert isinstance(auto, OffGrid) and isinstance(auto.inner, Oamp) and words["method"] == "oamp"


@pytest.mark.parametrize("name", ["sbl", "oamp", "gamp"])
def test_numbers_that_are_not_fit_get_a_status(name):
    _, _, _, obs = directions(4, 15.0)
    method = OffGrid(inner=inner_of(name, ula(NUM_ANT, NUM_ANT)), max_steps=4)
    y = obs.y.clone()
    y[1, 0] = complex(float("nan"), 0)
    est, good = hhat.solve(method, Observation(y, obs.op, obs.noise_var)), hhat.solve(method, obs)
    assert est.status[1] == Status.NONFINITE and torch.isfinite(est.belief.mean).all()
    torch.testing.assert_close(est.belief.mean[[0, 2, 3]], good.belief.mean[[0, 2, 3]])
    for noise_var in (0.1, 0.0, None):
        zero = hhat.solve(method, Observation(torch.zeros_like(obs.y), obs.op, noise_var))
        assert torch.isfinite(zero.belief.mean).all() and torch.isfinite(zero.info["offset"][0]).all()
    clean = hhat.solve(method, Observation(obs.y, obs.op, 0.0))
    assert torch.isfinite(clean.belief.mean).all() and Status.NONFINITE not in clean.status.tolist()
    unknown = hhat.solve(method, Observation(obs.y, obs.op, None))
    assert unknown.info["noise_var_source"] == "estimated" and torch.isfinite(unknown.belief.mean).all()


def test_grids_that_cannot_move_do_not():
    y = complex_normal((2, 4), generator("stuck"))
    for basis in (Steering.ula(4, torch.tensor([0.3, 0.3])), Steering(torch.ones(4), torch.rand(5))):
        est = hhat.solve(OffGrid(prior=Gauss(basis=basis)), Observation(y, Identity((4,)), 0.1))
        assert (est.info["offset"][0] == 0).all() and torch.isfinite(est.belief.mean).all()
    alone = Observation(Steering.ula(4, torch.tensor([0.35])).matrix.mT, Identity((4,)), 0.01)
    est = hhat.solve(OffGrid(prior=Gauss(basis=Steering.ula(4, torch.tensor([0.3]))), max_steps=20), alone)
    assert float(est.info["grid"][0]) == pytest.approx(0.35, abs=0.01)


def test_wrong_calls_are_refused():
    basis = ula(4, 8)
    obs = Observation(complex_normal((2, 4), generator("wrong")), Identity((4,)), 0.1)
    with pytest.raises(ValueError, match="Lmmse holds no Gaussian factor"):
        hhat.solve(OffGrid(inner=Lmmse(Gauss(basis=basis))), obs)
    with pytest.raises(ValueError, match="the inner Sbl has one already"):
        OffGrid(prior=Gauss(basis=basis), inner=Sbl(Gauss(basis=basis)))
    with pytest.raises(ValueError, match="the inner LeastSquares takes none"):
        OffGrid(prior=Gauss(basis=basis), inner=hhat.method("ls"))
    with pytest.raises(ValueError, match="share: expected a number > 0, got 0"):
        OffGrid(share=0.0)
    with pytest.raises(ValueError, match="every: expected at least 1, got 0"):
        OffGrid(every=0)
    with pytest.raises(ValueError, match="active: expected 0 <= active <= 1, got 2"):
        OffGrid(active=2.0)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"got torch\.inference_mode"):
        hhat.solve(OffGrid(prior=Gauss(basis=basis)), obs)
    blocks = BlockDiag(Steering.ula(4, torch.stack([grid(8), grid(8)])))
    many = Observation(complex_normal((2, 4), generator("blocks")), Identity((2, 4)), 0.1)
    with pytest.raises(ValueError, match="Steering in BlockDiag: expected one grid"):
        hhat.solve(OffGrid(prior=Gauss(basis=blocks)), many)


def test_no_grad_around_it_changes_nothing():
    _, _, _, obs = directions(2, 15.0)
    method = OffGrid(inner=inner_of("gamp", ula(NUM_ANT, NUM_ANT)), max_steps=5)
    plain = hhat.solve(method, obs)
    with torch.no_grad():
        assert torch.equal(hhat.solve(method, obs).info["offset"][0], plain.info["offset"][0])


def test_the_operator_remembers_no_dictionary():
    _, _, _, obs = directions(2, 15.0)
    op = Kron(Identity((1,)), Dense(torch.eye(NUM_ANT, dtype=torch.complex64)))
    seen = Observation(obs.y[:, None], op, obs.noise_var)
    method = OffGrid(inner=inner_of("gamp", Kron(Identity((1,)), ula(NUM_ANT, NUM_ANT))), max_steps=5)
    hhat.solve(method, seen)
    kept = [key for key in vars(op).get("_cache", {}) if key[0] == "compose"]
    assert kept == []
