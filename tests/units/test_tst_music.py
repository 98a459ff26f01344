"""`tst-music` and `r-tst-music`: paths they must find, gauges that must not matter, and what one gains on the other."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

import hhat
from hhat.extrapolation.columns import channel_at
from hhat.extrapolation.joint_ml import JointMl
from hhat.extrapolation.model import Offsets, Paths, Sounding, delay_steering, sounded
from hhat.extrapolation.normal import Free, Linear, Task
from hhat.extrapolation.path_spectrum import path_spectrum
from hhat.extrapolation.r_tst_music import RTstMusic, energy
from hhat.extrapolation.tree import noise_level, tree
from hhat.extrapolation.tst_music import TstMusic, symbols_alone
from hhat.ops import Hops, Identity, Kron, Select
from hhat.random import complex_normal, generator
from hhat.types import Observation

GEN = generator("test", "tst-music")
MODEL = Sounding(4, 3, tuple(120e3 * n for n in range(60)))
INDEX = torch.arange(60).reshape(2, 30).repeat(2, 1)
HOPS = Kron(Identity((12,)), Hops(INDEX, 60))
TIMES = MODEL.period_s * torch.arange(4).double()
SCENE = hhat.scenario("srs-paths", columns=4, rows=3, num_tones=60, num_paths=3, separation_s=6e-7, snr_db=15)


def paths_of(delay, cosine, gain=None, doppler=None):
    delay = torch.as_tensor(delay, dtype=torch.float64)[None]
    gain = torch.ones_like(delay) if gain is None else torch.as_tensor(gain)[None]
    doppler = torch.zeros_like(delay) if doppler is None else torch.as_tensor(doppler, dtype=torch.float64)[None]
    cosine = torch.as_tensor(cosine, dtype=torch.float64)[None]
    return Paths(gain.to(torch.complex128), delay, cosine, doppler, torch.ones_like(delay, dtype=torch.bool))


def seen(paths, offsets=None, noise_var=1e-6, model=MODEL):
    still = torch.zeros(1, 4, dtype=torch.float64)
    h = model.channel(paths, offsets or Offsets(still, still), TIMES)
    y = HOPS.apply(h)
    y = y + complex_normal(tuple(y.shape), generator("noise"), torch.complex128, noise_var)
    return h, Observation(y, HOPS, noise_var, ("rx_ant", "symbol", "subcarrier"))


def nmse(mean, h):
    return float((mean - h).abs().square().sum() / h.abs().square().sum())


@pytest.mark.parametrize("cosine", [(0.3, -0.6), (-0.98, 0.1), (0.2, 0.99)])
def test_one_path_is_found_with_u_and_v_in_their_places_and_round_the_end_of_the_delays(cosine):
    for delay in (-2e-7, 3e-6):
        h, obs = seen(paths_of([delay], [cosine]))
        est = hhat.solve(TstMusic(MODEL, num_paths=4), obs)
        found = est.info["paths"]
        assert est.info["num_paths"].tolist() == [[1] * 4]
        assert (found.delay_s[0, :, 0] - delay).abs().max() < 1e-10
        off = torch.remainder(found.cosine[0, :, 0] - torch.tensor(cosine) + 1, 2) - 1
        assert off.abs().max() < 1e-3 and nmse(est.belief.mean, h) < 1e-6


def test_two_angles_of_one_group_of_delays_are_told_apart_and_get_delays_of_their_own():
    delay = [1e-6, 1.12e-6]  # 0.43 cells of a symbol
    h, obs = seen(paths_of(delay, [(0.5, 0.2), (-0.4, -0.3)], [1.0, 0.6j]), noise_var=1e-4)
    est = hhat.solve(TstMusic(MODEL, num_paths=4), obs)
    found = est.info["paths"]
    assert est.info["num_paths"].tolist() == [[2] * 4] and nmse(est.belief.mean, h) < 1e-3
    assert (found.cosine[0, :, 0] - torch.tensor([0.5, 0.2])).abs().max() < 0.02  # the stronger comes first
    assert (found.delay_s[0] - torch.tensor(delay)).abs().max() < 3e-9


def test_two_paths_of_one_angle_need_the_smoothing():
    h, obs = seen(paths_of([1e-6, 2.5e-6], [(0.5, 0.2), (0.5, 0.2)], [1.0, 0.6j]))
    with_it, without = (hhat.solve(TstMusic(MODEL, num_paths=4, smooth=smooth), obs) for smooth in (True, False))
    assert with_it.info["num_paths"].tolist() == [[2] * 4] and nmse(with_it.belief.mean, h) < 1e-4
    assert nmse(without.belief.mean, h) > 0.05


def test_gains_are_those_of_dense_least_squares_strongest_first():
    _, obs = seen(paths_of([1e-6, 2.5e-6, 1.7e-6], [(0.5, 0.2), (0.1, -0.5), (-0.3, 0.3)], [0.5, 1j, 0.7]), None, 0.01)
    pilots = TstMusic(MODEL).pilots(obs)
    _, task = next(symbols_alone(MODEL, pilots))
    point = tree(task, 5, True)
    assert point.mask[0].tolist() == [True] * 3 + [False] * 2
    a, b = delay_steering(task.frequency[0], point.delay[0, :3]), MODEL.array_steering(point.cosine[0, :3]).mT
    dense = (a[:, None] * b[None]).flatten(0, 1)
    want = torch.linalg.lstsq(dense, task.y[0, 0].reshape(-1, 1)).solution[:, 0]
    assert torch.allclose(point.gain[0, :3], want, atol=1e-9)
    assert bool((point.gain[0].abs().diff() <= 0).all())


def test_a_slot_of_one_symbol_is_the_joint_observation_symbol_by_symbol():
    slot = SCENE.draw(2, generator("slots"))
    whole = hhat.solve(TstMusic(SCENE.model, num_paths=6), slot.obs)
    for m in (0, 3):
        op = Kron(Identity((12,)), Select(slot.obs.op.right.index[m], 60))
        obs = Observation(slot.obs.y[:, :, m], op, slot.obs.noise_var, ("rx_ant", "subcarrier"))
        one = hhat.solve(TstMusic(SCENE.model, num_paths=6), obs)
        torch.testing.assert_close(one.belief.mean, whole.belief.mean[:, :, m], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.belief.var, whole.belief.var[:, :, m], rtol=1e-3, atol=1e-6)
        assert one.info["paths"].delay_s.shape[:2] == (2, 1)


@pytest.mark.parametrize("index", [[0, 1, 3, 4, 5, 6], [2]])
def test_uneven_tones_and_one_alone_are_refused(index):
    op = Kron(Identity((12,)), Hops(torch.tensor([index]), 60))
    obs = Observation(complex_normal((12, 1, len(index)), GEN), op, 0.1)
    with pytest.raises(ValueError, match="evenly spaced tones"):
        hhat.solve(TstMusic(MODEL), obs)


@pytest.mark.parametrize("backwards", [False, True])
def test_one_antenna_and_tones_in_any_direction(backwards):
    model = Sounding(1, 1, MODEL.frequency_hz)
    h = model.channel(paths_of([-3e-7, 2.5e-6], [(0, 0), (0, 0)], [1.0, 0.5j]), Offsets(0 * TIMES, 0 * TIMES), TIMES)
    op = Kron(Identity((1,)), Hops(INDEX.flip(-1) if backwards else INDEX, 60))
    y = op.apply(h) + complex_normal((1, 1, 4, 30), generator("siso"), torch.complex128, 1e-5)
    for method in (TstMusic(model, num_paths=4), RTstMusic(model, num_paths=4)):
        est = hhat.solve(method, Observation(y, op, 1e-5))
        assert nmse(est.belief.mean, h) < 1e-3


def test_the_noise_level_is_what_lies_outside_of_the_signal():
    a, b = complex_normal((8, 40, 2), GEN, torch.complex128), complex_normal((8, 2, 12), GEN, torch.complex128)
    y = a @ b + complex_normal((8, 40, 12), GEN, torch.complex128, 0.04)
    assert noise_level(y).shape == (8,) and float(noise_level(y).mean()) == pytest.approx(0.04, rel=0.06)


def test_the_refinement_gains_on_the_single_symbols_and_its_objective_is_the_residual():
    slot = SCENE.draw(24, generator("gain"))
    alone = hhat.solve(TstMusic(SCENE.model, num_paths=6), slot.obs).belief.mean
    for doppler in (Free(), Linear()):
        est = hhat.solve(RTstMusic(SCENE.model, num_paths=6, doppler=doppler, starts=1), slot.obs)
        before, after = ((mean - slot.truth.h).abs().square().sum((1, 2, 3)) for mean in (alone, est.belief.mean))
        assert after.mean() < before.mean() / 2.5 and int((after < before).sum()) >= 22  # 5.4 and 6.6 dB; all of them
        trace = est.info["objective"]
        residual = (slot.obs.y - slot.obs.op.apply(est.belief.mean)).abs().double().square().sum((-1, -2, -3))
        torch.testing.assert_close(residual, trace.min(-1).values, rtol=1e-4, atol=0)
        assert est.status_counts() == {"OK": 24} and bool((trace[:, 1] < trace[:, 0]).all())


@pytest.mark.parametrize("doppler", [Free(), Linear()])
def test_offsets_of_later_symbols_and_a_common_shift_only_turn_the_estimate(doppler):
    paths = paths_of([1e-6, 2.5e-6], [(0.5, 0.2), (-0.1, -0.4)], [1.0, 0.6j], [2.0, -1.0])
    _, obs = seen(paths, None, 1e-3)
    method = RTstMusic(replace(MODEL, timing_var=1e-14), num_paths=4, doppler=doppler, starts=1, max_steps=4, tol=1e-9)
    phase, timing = torch.tensor([0, 2.0, -1.0, 0.5]), torch.tensor([0, 4e-9, -8e-9, 6e-9])
    cycles = phase[:, None] / (2 * math.pi) + 1.5 * TIMES[:, None] - MODEL.tones_hz() * timing[:, None]
    turn = torch.polar(torch.ones_like(cycles), 2 * math.pi * cycles)
    moved = Observation(obs.y * turn.gather(1, INDEX), obs.op, obs.noise_var, obs.axes)
    plain, other = hhat.solve(method, obs), hhat.solve(method, moved)
    assert nmse(other.belief.mean, plain.belief.mean * turn) < 1e-6


def test_without_noise_both_laws_of_the_phases_give_the_channel_and_linear_ones_the_shifts():
    paths = paths_of([1e-6, 2.5e-6], [(0.5, 0.2), (-0.1, -0.4)], [1.0, 0.6j], [3.0, -2.0])
    offsets = Offsets(torch.tensor([[0, 2.0, -1.0, 0.5]]).double(), torch.tensor([[0, 4e-9, -8e-9, 6e-9]]).double())
    h, obs = seen(paths, offsets, 1e-8)
    for doppler in (Free(), Linear()):
        est = hhat.solve(RTstMusic(MODEL, num_paths=4, doppler=doppler, starts=1, max_steps=6, tol=1e-9), obs)
        assert nmse(est.belief.mean, h) < 1e-6
        assert bool((est.info["offsets"].phase_rad[:, 0] == 0).all() & (est.info["offsets"].timing_s[:, 0] == 0).all())
    shift = est.info["paths"].doppler_hz[0, :2]
    assert float(shift[0] - shift[1]) == pytest.approx(5.0, abs=0.1)


def test_a_start_from_every_symbol_finds_what_the_first_alone_misses():
    """The second path is seen in the second part of the band alone: at 0 gain in the first symbol's."""
    h, obs = seen(paths_of([1e-6, 2.5e-6], [(0.5, 0.2), (-0.1, -0.4)], [1.0, 0.6j]), None, 1e-4)
    y = obs.y.clone()
    y[:, :, 0] = MODEL.array_steering(torch.tensor([[0.5, 0.2]]).double())[0, :, None]  # one path of delay 0
    crooked = Observation(y, obs.op, obs.noise_var, obs.axes)
    one, every = (hhat.solve(RTstMusic(MODEL, num_paths=4, starts=count), crooked) for count in (1, None))
    assert one.info["num_paths"].tolist() == [1] and every.info["num_paths"].tolist() == [2]
    assert nmse(every.belief.mean[:, :, 1:], h[:, :, 1:]) < 0.1 * nmse(one.belief.mean[:, :, 1:], h[:, :, 1:])
    with pytest.raises(ValueError, match="starts: expected at least 1"):
        RTstMusic(MODEL, starts=0)


def test_what_the_method_fits_is_the_models_channel_at_its_paths_and_offsets():
    paths = paths_of([1e-6, 2.5e-6], [(0.5, 0.2), (-0.1, -0.4)], [1.0, 0.6j], [3.0, -2.0])
    offsets = Offsets(torch.tensor([[0, 2.0, -1.0, 0.5]]).double(), torch.tensor([[0, 4e-9, -8e-9, 6e-9]]).double())
    h, obs = seen(paths, offsets, 1e-8)
    task = Task.make(MODEL, sounded(MODEL, obs), TIMES, Linear())
    point = task.point(paths, offsets)
    assert torch.allclose(channel_at(task, point), h, atol=1e-12)
    assert float(energy(task, point)) == pytest.approx(1e-8 * obs.y.numel(), rel=0.1)


def test_a_strong_path_hides_a_weak_one_until_it_is_cancelled():
    weak = 10 ** (-30 / 20)
    paths = paths_of([1e-6, 2.5e-6], [(0.5, 0.2), (0.5, 0.2)], [1.0, weak])
    _, obs = seen(paths, None, 1e-4)
    task = Task.make(MODEL, sounded(MODEL, obs), TIMES, Linear())
    point = task.point(paths, Offsets(torch.zeros(1, 4).double(), torch.zeros(1, 4).double()))
    delays = torch.linspace(0, 4e-6, 401, dtype=torch.float64)
    before, after = path_spectrum(task, point, 1, delays)[0], path_spectrum(task, point, 1, delays, (0,))[0]
    assert abs(float(delays[before.argmax()]) - 1e-6) < 2e-8
    assert abs(float(delays[after.argmax()]) - 2.5e-6) < 2e-8


@pytest.mark.parametrize("make", [TstMusic, RTstMusic, partial(JointMl, rounds=1)])
def test_where_noise_hides_every_path_the_variance_covers_what_was_missed(make):
    slot = replace(SCENE, snr_db=-25.0).draw(6, generator("hidden"))
    for noise_var in (slot.obs.noise_var, None):
        est = hhat.solve(make(SCENE.model, num_paths=2), replace(slot.obs, noise_var=noise_var))
        assert not est.info["num_paths"].any()
        error = (est.belief.mean - slot.truth.h).abs().square().mean((1, 2, 3))
        told = est.belief.var.mean((1, 2, 3))
        assert (told > error / 3).all() and (told < 100 * error).all()


def test_one_antenna_of_unknown_noise_is_estimated_as_with_known():
    model = Sounding(1, 1, tuple(120e3 * n for n in range(60)))
    op = Kron(Identity((1,)), Hops(INDEX, 60))
    paths = paths_of([1e-6, 3e-6], [(0.0, 0.0), (0.0, 0.0)], [1.0, 0.6j])
    h = model.channel(paths, Offsets(torch.zeros(1, 4).double(), torch.zeros(1, 4).double()), TIMES)
    y = op.apply(h)
    y = y + complex_normal(tuple(y.shape), generator("one antenna"), torch.complex128, 1e-3)
    for make in (TstMusic, RTstMusic):
        for noise_var in (1e-3, None):
            est = hhat.solve(make(model, num_paths=4), Observation(y, op, noise_var))
            assert est.info["num_paths"].min() >= 2 and nmse(est.belief.mean, h) < 0.05
        # two paths fill a good part of 30 delays
        assert 0.5e-3 < float(est.info["noise_var"].mean()) < 4e-3
