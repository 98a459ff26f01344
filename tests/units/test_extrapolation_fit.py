"""Normal equations against autograd, gains against lstsq, the timing search against a dense one, the fit's limits."""

import math

import pytest
import torch

from hhat.extrapolation.fit import aligned, gains, normal, polish, timing_search
from hhat.extrapolation.model import Offsets, Paths, delay_steering
from hhat.extrapolation.normal import Free, Linear, Task
from hhat.random import generator
from tests.units.extrapolation_draws import drawn, heard, picked, sounding


def small(label, batch=2, paths=3):
    """Random everything on 6 antennas, 12 tones, 3 symbols of which the first and last sound the same."""
    gen = generator("extrapolation-fit", label)
    model, index, times = sounding(2, 3, tones=12, columns=3, rows=2)
    found, offsets = drawn(batch, paths, 3, gen)
    _, pilots = heard(model, index, times, found, offsets, 0, gen)
    return model, found, offsets, pilots, times


def channel_of(model, point, times, doppler, index):
    """The pilots of one item written out, a function of all parameters that autograd can follow."""
    angle = point.phase[0][:, None] + doppler.basis(times) @ point.rate[0].mT
    late = point.delay[0] + point.timing[0][:, None]
    turn = torch.exp(1j * angle)[:, None] * torch.exp(-2j * math.pi * model.tones_hz()[:, None] * late[:, None])
    array = torch.exp(2j * math.pi * (model.positions() @ point.cosine[0].mT))
    return picked(torch.einsum("ak,mfk,k->amf", array, turn, point.gain[0]), index)


@pytest.mark.parametrize("doppler", [Linear(), Free()], ids=lambda d: type(d).__name__)
def test_score_and_information_are_the_derivatives_of_the_log_likelihood(doppler):
    model, paths, offsets, pilots, times = small("score")
    task = Task.make(model, pilots, times, doppler)
    found = normal(model, paths, offsets, pilots, times, doppler)
    for item in range(2):
        point = type(start := task.point(paths, offsets))(*(x[item : item + 1] for x in start))
        theta, noise = point.vector()[0], task.noise_var[item]

        def shown(theta, point=point):
            moved = point.moved((theta - point.vector()[0])[None])
            return channel_of(model, moved, times, doppler, pilots.index)

        def likelihood(theta, item=item, noise=noise, shown=shown):
            return -(pilots.y[item] - shown(theta)).abs().square().sum() / noise

        assert float(found.rss[item] / noise) == pytest.approx(-float(likelihood(theta)), rel=1e-10)
        slope = torch.autograd.functional.jacobian(likelihood, theta)
        jacobian = torch.autograd.functional.jacobian(lambda t, f=shown: torch.view_as_real(f(t)).flatten(), theta)
        information = 2 / noise * jacobian.mT @ jacobian
        unit = information.diagonal().clamp_min(1e-30).sqrt()
        assert ((found.score[item] - slope) / unit).abs().max() < 1e-8 * unit.numel()
        assert ((found.information[item] - information) / unit / unit[:, None]).abs().max() < 1e-10


def test_gains_are_those_of_least_squares_on_the_written_out_matrix():
    model, paths, offsets, pilots, times = small("gains")
    alone = [paths._replace(gain=torch.eye(3, dtype=torch.complex128)[k].expand(2, 3)) for k in range(3)]
    matrix = torch.stack([picked(model.channel(p, offsets, times), pilots.index).flatten(1) for p in alone], -1)
    best = torch.linalg.lstsq(matrix, pilots.y.flatten(1)[..., None]).solution[..., 0]
    torch.testing.assert_close(gains(model, paths, offsets, pilots, times).gain, best, rtol=1e-6, atol=1e-7)
    noise = pilots.noise_var.flatten()
    ridge = torch.eye(3) * noise[:, None, None] / 0.01
    best = torch.linalg.solve(matrix.mH @ matrix + ridge, matrix.mH @ pilots.y.flatten(1)[..., None])[..., 0]
    mine = gains(model, paths, offsets, pilots, times, torch.full((2,), 0.01).double()).gain
    torch.testing.assert_close(mine, best, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("coherent", [False, True])
def test_the_timing_search_finds_what_a_dense_grid_finds(coherent):
    gen = generator("extrapolation-fit", "timing")
    model, index, times = sounding(2, 3, tones=64, columns=3, rows=2)
    paths, offsets = drawn(2, 3, 3, gen)
    _, pilots = heard(model, index, times, paths, offsets, 15, gen)
    found = timing_search(model, paths, pilots, times, coherent)
    grid = torch.linspace(-4e-8, 4e-8, 8001).double()
    late = delay_steering(model.tones_hz()[index], grid.expand(3, -1))  # (symbol, tone, shift)
    zero = Offsets(torch.zeros(2, 3).double(), torch.zeros(2, 3).double())
    alone = [paths._replace(gain=torch.eye(3, dtype=torch.complex128)[k].expand(2, 3)) for k in range(3)]
    matrix = torch.stack([picked(model.channel(p, zero, times), index) for p in alone], -1)
    for item in range(2):
        for symbol in range(3):
            y = (pilots.y[item, :, symbol, :, None] * late[symbol].conj()).flatten(0, 1)
            a = matrix[item, :, symbol].flatten(0, 1)
            if coherent:
                score = 2 * ((a @ paths.gain[item]).conj() @ y).abs()
            else:
                q = torch.linalg.qr(a)[0]
                score = (q.mH @ y).abs().square().sum(0)
            score = score / pilots.noise_var[item].squeeze() - grid.square() / 2e-16
            assert abs(float(grid[score.argmax()] - found.timing_s[item, symbol])) < 2e-11


def test_the_phase_is_that_of_the_given_gains_and_the_gauge_moves_into_the_paths():
    gen = generator("extrapolation-fit", "phase")
    model, index, times = sounding(2, 4, tones=100)
    paths, offsets = drawn(3, 3, 4, gen)
    _, pilots = heard(model, index, times, paths, offsets, 40, gen)
    found = timing_search(model, paths, pilots, times)
    off = (found.timing_s - offsets.timing_s).abs().max(), (found.phase_rad - offsets.phase_rad).sin().abs().max()
    assert off[0] < 4e-10 and off[1] < 0.05
    moved = Offsets(offsets.phase_rad + 0.7, offsets.timing_s + 3e-9)
    back, gauged = aligned(paths, moved)
    assert torch.equal(gauged.phase_rad[:, 0], torch.zeros(3)) and torch.equal(gauged.timing_s[:, 0], torch.zeros(3))
    torch.testing.assert_close(model.channel(back, gauged, times), model.channel(paths, moved, times))


def test_the_fit_reaches_the_truth_and_leaves_masked_paths_and_the_gauge_alone():
    gen = generator("extrapolation-fit", "polish")
    model, index, times = sounding(2, 4, tones=100)
    paths, offsets = drawn(3, 2, 4, gen, apart_s=4e-7)
    h, pilots = heard(model, index, times, paths, offsets, 80, gen)
    near = paths._replace(
        gain=paths.gain * 1.2,
        delay_s=paths.delay_s + 4e-9,
        cosine=paths.cosine + 0.02,
        doppler_hz=0 * paths.doppler_hz,
    )
    spare = [torch.cat([x, x[:, :1]], 1) for x in near]
    spare = Paths(*spare[:4], mask=torch.tensor([[True, True, False]] * 3))
    found = polish(model, spare, offsets, pilots, times, steps=20)
    error = (model.channel(found.paths, found.offsets, times) - h).abs().square().sum() / h.abs().square().sum()
    assert 10 * error.log10() < -85
    assert (found.paths.gain[:, 2] == 0).all() and torch.equal(found.paths.delay_s[:, 2], spare.delay_s[:, 2])
    assert (found.offsets.phase_rad[:, 0] == 0).all() and (found.offsets.timing_s[:, 0] == 0).all()
    # an item alone, and without the masked path, ends in the same place
    one = [x[1:2] for x in (*near, *offsets)]
    own = pilots._replace(y=pilots.y[1:2], noise_var=pilots.noise_var[1:2])
    alone = polish(model, Paths(*one[:5]), Offsets(*one[5:]), own, times, steps=20)
    torch.testing.assert_close(alone.paths.delay_s[0], found.paths.delay_s[1, :2], rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(alone.objective[0], found.objective[1], rtol=1e-6, atol=1e-6)


def test_a_gauge_shift_of_all_symbols_leaves_the_fitted_channel_the_same():
    gen = generator("extrapolation-fit", "gauge")
    model, index, times = sounding(2, 4, tones=60, columns=3, rows=2, timing_var=1e-12, doppler_hz=1e3)
    paths, offsets = drawn(1, 2, 4, gen, apart_s=6e-7)
    h, pilots = heard(model, index, times, paths, offsets, 20, gen)
    turned = Offsets(offsets.phase_rad + torch.tensor([0, 0.8, 0.8, 0.8]), offsets.timing_s)
    turn = torch.exp(1j * (turned.phase_rad - offsets.phase_rad))[:, None, :, None]
    one = polish(model, paths, offsets, pilots, times)
    two = polish(model, paths, turned, pilots._replace(y=pilots.y * turn), times)
    shown = [model.channel(x.paths, x.offsets, times) for x in (one, two)]
    assert (shown[0] * turn - shown[1]).abs().square().sum() / h.abs().square().sum() < 1e-10
