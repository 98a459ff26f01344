"""Inversion of distorting chains and its exchange with the channel, each against dense algebra or a limit."""

from dataclasses import replace

import pytest
import torch

import hhat
from hhat.distortion.banded import Banded, dense
from hhat.distortion.channel import Flat, observed, step_channel
from hhat.distortion.compensated import CompensatedTracking
from hhat.distortion.exchange import PerChain, PerSymbol, fused, of_symbols
from hhat.distortion.linearised import (
    Factors,
    forwards,
    invert,
    linearise,
    normal_bands,
    output_of,
    stacked,
    trace_of,
    transposed,
    unstacked,
)
from hhat.distortion.record import DistortedPilots
from hhat.distortion.surrogate import POOLED, fresh
from hhat.distortion.tracker import ImpairmentTracking
from hhat.distortion.weight_tracking import WeightTracking, of_items
from hhat.methods.oamp import Oamp
from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights
from hhat.ops.dense import Steering
from hhat.priors import Gauss
from hhat.random import complex_normal, generator
from hhat.types import Gaussian, Message

DOUBLE = torch.complex128
NUM, PILOTS, HIDDEN, BATCH = 5, 3, 6, 2


def networks(scale: float, num: int = NUM) -> RecurrentWeights:
    gen = generator("distortion networks")
    mask = unit.present(num, (0,), (num - 1,), HIDDEN)
    parts = (torch.randn(part.shape, generator=gen, dtype=torch.float64) * part for part in mask)
    return RecurrentWeights(*(scale * part for part in parts))


def drawn(*shape: int) -> torch.Tensor:
    return complex_normal(shape, generator("distortion", *shape), DOUBLE)


def positive(*shape: int) -> torch.Tensor:
    return 0.1 + torch.rand(shape, generator=generator("distortion var", *shape), dtype=torch.float64)


def jacobian(weights: RecurrentWeights, signal: torch.Tensor) -> torch.Tensor:
    """By autograd, (batch, chain 2 pilot, chain 2 pilot)."""

    def f(parts):
        return output_of(trace_of(weights, unstacked(parts)), unstacked(parts))

    found = torch.autograd.functional.jacobian(f, stacked(signal))
    return torch.stack([found[b, :, :, b].flatten(2).flatten(0, 1) for b in range(len(signal))])


@pytest.mark.parametrize("num", [1, 2, 3, 4, 7])
def test_banded_solutions_and_own_blocks_are_those_of_the_dense_system(num):
    size = 4
    rows = positive(BATCH, num, 3, size, size) - 0.6
    own, one, two = normal_bands(rows * _inside(num), torch.ones(BATCH, num, size, dtype=torch.float64))
    bands = (own + torch.eye(size, dtype=torch.float64), one, two)
    whole, right = dense(bands), positive(BATCH, num, size)
    system = Banded.factor(bands)
    want = torch.linalg.solve(whole, right.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(system.solve(right).flatten(1), want, rtol=1e-9, atol=1e-9)
    blocks = torch.linalg.inv(whole).unflatten(-1, (num, size)).unflatten(-3, (num, size))
    want = torch.diagonal(blocks, dim1=-4, dim2=-2).movedim(-1, -3)
    torch.testing.assert_close(system.inverse_blocks(), want, rtol=1e-9, atol=1e-9)


def _inside(num: int) -> torch.Tensor:
    """0 for the blocks of neighbours that are not there."""
    there = torch.ones(num, 3, 1, 1, dtype=torch.float64)
    there[0, 0] = there[-1, 2] = 0
    return there


def test_what_is_not_positive_definite_is_marked_and_leaves_other_items_alone():
    eye = torch.eye(2, dtype=torch.float64).expand(2, 3, 2, 2).clone()
    eye[1, 1] *= -1
    found = Banded.factor((eye, 0 * eye, 0 * eye)).solve(torch.ones(2, 3, 2, dtype=torch.float64))
    assert torch.isnan(found[1]).any() and torch.equal(found[0], torch.ones(3, 2, dtype=torch.float64))


def test_slopes_and_normal_equations_are_those_of_autograd():
    weights, signal = networks(0.4), drawn(BATCH, PILOTS, NUM)
    dense_slopes, local = jacobian(weights, signal), linearise(weights, signal)
    x, var = positive(BATCH, NUM, 2 * PILOTS), positive(BATCH, NUM, 2 * PILOTS)
    columns = x.flatten(1)[..., None]
    torch.testing.assert_close(forwards(local.blocks, x).flatten(1), (dense_slopes @ columns)[..., 0])
    torch.testing.assert_close(transposed(local.blocks, x).flatten(1), (dense_slopes.mT @ columns)[..., 0])
    want = dense_slopes.mT @ (dense_slopes / var.flatten(1)[..., None])
    torch.testing.assert_close(dense(normal_bands(local.blocks, var)), want)


def test_networks_of_each_item_are_used_for_it_alone():
    first, second = networks(0.4), networks(0.2)
    both = RecurrentWeights(*(torch.stack([a, b], 1).flatten(0, 1) for a, b in zip(first, second, strict=True)))
    signal = drawn(BATCH, PILOTS, NUM)
    found = linearise(both, signal)
    for item, weights in enumerate((first, second)):
        alone = linearise(weights, signal[item : item + 1])
        torch.testing.assert_close(found.output[item], alone.output[0])
        torch.testing.assert_close(found.blocks[item], alone.blocks[0])
    with pytest.raises(ValueError, match="expected 5 or 10, got 3"):
        linearise(networks(0.4, 3), signal)


def test_inversion_is_gauss_newton_of_the_dense_system():
    weights, seen, start = networks(0.3), drawn(BATCH, PILOTS, NUM), drawn(BATCH, PILOTS, NUM) * 0.5
    var, spread = positive(BATCH, PILOTS, NUM), positive(BATCH, NUM, 2 * PILOTS)
    known = Factors(torch.diag_embed(1 / spread), stacked(start) / spread)
    found = invert(weights, seen, var, known, start, 2)
    now, noise = stacked(start).flatten(1), var.mT.repeat_interleave(2, -1).flatten(1)
    for _ in range(2):
        f = jacobian(weights, unstacked(now.unflatten(1, (NUM, -1))))
        at = output_of(trace_of(weights, unstacked(now.unflatten(1, (NUM, -1)))), start).flatten(1)
        information = f.mT @ (f / noise[..., None]) + torch.diag_embed(1 / spread.flatten(1))
        residual = stacked(seen).flatten(1) - at + (f @ now[..., None])[..., 0]
        right = (f.mT @ (residual / noise)[..., None])[..., 0] + known.shift.flatten(1)
        now = torch.linalg.solve(information, right[..., None])[..., 0]
    torch.testing.assert_close(found.mean.flatten(1), now, rtol=1e-9, atol=1e-9)
    want = torch.linalg.inv(information).diagonal(dim1=-2, dim2=-1).unflatten(1, (NUM, -1))
    torch.testing.assert_close(found.covariance.diagonal(dim1=-2, dim2=-1), want, rtol=1e-9, atol=1e-9)
    assert bool((want < spread).all())  # no wider than what was known


def test_a_good_model_gives_the_signal_back_and_one_that_explains_nothing_tells_nothing():
    weights, signal = networks(0.3), drawn(BATCH, PILOTS, NUM) * 0.7
    seen = unstacked(output_of(trace_of(weights, signal), signal))
    flat = Factors(torch.zeros(BATCH, NUM, 6, 6, dtype=torch.float64), torch.zeros(BATCH, NUM, 6, dtype=torch.float64))
    found = invert(weights, seen, torch.tensor(1e-8), flat, seen, 8)
    assert (found.signal - signal).abs().max() < 1e-6
    pilots, noise = drawn(BATCH, PILOTS, 1), positive(BATCH, PILOTS, NUM)
    for exchange in (PerSymbol(), PerChain()):
        channel = Gaussian(drawn(BATCH, NUM), positive(BATCH, NUM)).message()
        known = exchange.down(channel, exchange.start(noise), pilots, noise)
        told = exchange.up(invert(weights, seen, torch.tensor(1e10), known.factors, seen), known, pilots, noise)
        assert told.precision.max() < 1e-6


@pytest.mark.parametrize("exchange", [PerSymbol(), PerChain()])
def test_undistorted_chains_tell_of_h_what_the_symbols_tell_whatever_they_were_told(exchange):
    """Network of the identity: CN(y, 2 fit_var) on the signal, in every round, with any channel."""
    fit_var, noise = positive(BATCH, PILOTS, NUM), positive(BATCH, PILOTS, NUM)
    seen, pilots = drawn(BATCH, PILOTS, NUM), drawn(BATCH, PILOTS, 1)
    prior = Gaussian(drawn(BATCH, NUM), positive(BATCH, NUM))
    want = fused(of_symbols(Gaussian(seen, 2 * fit_var), pilots, noise))
    channel, told = Message(torch.zeros_like(prior.var), torch.zeros_like(prior.mean)), exchange.start(noise)
    for _ in range(3):
        known = exchange.down(channel, told, pilots, noise)
        found = invert(networks(0.0), seen, fit_var, known.factors, seen, 1)
        told = exchange.up(found, known, pilots, noise)
        got = fused(told)
        torch.testing.assert_close(got.mean, want.mean)
        torch.testing.assert_close(got.var, want.var)
        channel = prior.message() + got.message()
    # the signal itself: y given all of it, h integrated out
    for n in range(NUM):
        r = pilots[0, :, 0]
        law = torch.diag(noise[0, :, n]).to(DOUBLE) + prior.var[0, n] * torch.outer(r, r.conj())
        gain = law @ torch.linalg.inv(law + torch.diag(2 * fit_var[0, :, n]).to(DOUBLE))
        mean = r * prior.mean[0, n] + gain @ (seen[0, :, n] - r * prior.mean[0, n])
        torch.testing.assert_close(found.signal[0, :, n], mean)
        torch.testing.assert_close(found.var[0, :, n], (law - gain @ law).diagonal().real)


def test_what_a_symbol_is_told_is_no_surer_than_its_noise_nor_wider_than_its_prior():
    pilots = drawn(BATCH, PILOTS, 1) / drawn(BATCH, PILOTS, 1).abs()
    noise, var = positive(BATCH, PILOTS, NUM), positive(BATCH, NUM)
    told = of_symbols(Gaussian(drawn(BATCH, PILOTS, NUM), positive(BATCH, PILOTS, NUM)), pilots, noise)
    channel = Gaussian(drawn(BATCH, NUM), var).message() + fused(told).message()
    own = PerSymbol().down(channel, told, pilots, noise).cavity
    ahead = 1 / own.precision
    assert bool((ahead > noise).all()) and bool((ahead < noise + var[:, None]).all())
    # and the cavity is of the other symbols: changing what this one said changes nothing
    more = Message(told.precision.clone(), told.shift.clone())
    more.precision[:, 0] *= 3
    more.shift[:, 0] *= -2
    channel = Gaussian(drawn(BATCH, NUM), var).message() + fused(more).message()
    again = PerSymbol().down(channel, more, pilots, noise).cavity
    torch.testing.assert_close(again.precision[:, 0], own.precision[:, 0])
    assert not torch.allclose(again.precision[:, 1], own.precision[:, 1])


def test_channel_is_the_lmmse_estimate_under_a_gaussian_prior_whatever_the_order_of_pilots():
    """y and the pilots turned alike and taken in another order change nothing; noise differs by sample."""
    num, basis = 8, Steering.ula_grid(8)
    pilots, y = drawn(BATCH, PILOTS, 1), drawn(BATCH, PILOTS, num)
    obs = DistortedPilots(y, pilots[..., 0], positive(BATCH, PILOTS, num))
    method = Oamp(Gauss(1.5, basis=basis))
    told = of_symbols(Gaussian(y, positive(BATCH, 1, num)), pilots, obs.noise_var)
    found = step_channel(method, {}, told, obs)
    r = fused(told)
    gain = 1.5 / (1.5 + r.var)  # basis is unitary: h is white, too
    torch.testing.assert_close(found["h"], gain * r.mean, rtol=1e-5, atol=1e-6)
    order = torch.tensor([2, 0, 1])
    turn = torch.polar(torch.ones(PILOTS, dtype=torch.float64), torch.arange(3.0, dtype=torch.float64))[:, None]
    again = of_symbols(
        Gaussian((turn * y)[:, order], positive(BATCH, 1, num)), (turn * pilots)[:, order], obs.noise_var[:, order]
    )
    torch.testing.assert_close(fused(again).mean, r.mean)
    assert observed(told, obs).y.shape == (BATCH, num) and Flat.of(obs).pilots.shape == (BATCH, PILOTS, 1)


def test_without_impairments_joint_tracking_is_the_reference():
    """Networks that are the identity and leave nothing unexplained."""
    scene = hhat.scenario("impaired-uplink", num_rx_ant=8, severity=0)
    slots = list(scene.slots(3, generator("no impairments"), 2))
    none = fresh(RecurrentWeights(*(part.float() for part in networks(0.0, POOLED))))
    own = ImpairmentTracking(surrogate=_sure(none))
    for (_, joint), (_, bound) in zip(hhat.track(own, slots), hhat.track(CompensatedTracking(), slots), strict=True):
        torch.testing.assert_close(joint.belief.mean, bound.belief.mean, rtol=1e-3, atol=1e-4)


def _sure(surrogate):
    return replace(surrogate, fit_var=torch.full_like(surrogate.fit_var, 1e-9))


def test_shipped_networks_recover_what_the_matched_receiver_distorts():
    """A slot of 16 antennas at 30 dB: without them the channel is off by the distortion, some 10 dB below it."""
    scene = hhat.scenario("impaired-uplink", num_rx_ant=16, snr_db=30)
    slots = list(scene.slots(6, generator("shipped networks"), 4))
    *_, (_, joint) = hhat.track(ImpairmentTracking(), slots)
    *_, (_, none) = hhat.track(CompensatedTracking(), slots)
    y = slots[-1].truth.y
    assert hhat.nmse_db(joint.info["signal"], y) < hhat.nmse_db(slots[-1].obs.y, y) - 20
    assert hhat.nmse_db(joint.belief.mean, slots[-1].truth.h) < hhat.nmse_db(none.belief.mean, slots[-1].truth.h) - 10


def follower(learning: WeightTracking | None):
    gen = generator("weights that follow")
    own = fresh(unit.start(unit.present(POOLED, (0,), (2,), 4), gen))
    return ImpairmentTracking(surrogate=_sure(own), learning=learning, drift_var=1e-3, rounds=1)


def test_weights_of_no_variance_that_do_not_walk_are_frozen_ones_bit_for_bit():
    slots = list(hhat.scenario("impaired-uplink", num_rx_ant=4).slots(3, generator("frozen"), 1))
    frozen = [est.belief.mean for _, est in hhat.track(follower(None), slots)]
    still = [est.belief.mean for _, est in hhat.track(follower(WeightTracking(0.0, 0.0)), slots)]
    moving = [est.belief.mean for _, est in hhat.track(follower(WeightTracking(0.0, 1e-2)), slots)]
    assert all(torch.equal(a, b) for a, b in zip(frozen, still, strict=True))
    assert torch.equal(frozen[0], moving[0]) and not torch.allclose(frozen[-1], moving[-1])


def test_the_step_on_weights_is_the_kalman_gain_of_the_dense_system():
    """Of a middle chain, slopes by autograd, covariances written out."""
    weights, chain, kap = networks(0.3), 2, 7.0
    mean, var = weights.flat()[None], 1e-2 * positive(1, NUM, weights.flat().shape[1])
    seen, pilots = drawn(1, PILOTS, NUM), drawn(1, PILOTS, 1)
    noise, fit_var = positive(1, PILOTS, NUM), positive(1, PILOTS, NUM)
    h = Gaussian(drawn(1, NUM), positive(1, NUM))
    rule = WeightTracking(1e-5, None, kap)
    new, new_var = rule.step(mean, var, weights, seen, h.message(), pilots, noise, fit_var)
    signal = pilots * h.mean[:, None]

    def f(w):
        flat = torch.cat([mean[0, :chain], w[None], mean[0, chain + 1 :]])[None]
        return output_of(trace_of(of_items(flat, weights), signal), signal)[0, chain]

    by_weight = torch.autograd.functional.jacobian(f, mean[0, chain])
    by_signal = jacobian(weights, signal)[0].unflatten(0, (NUM, -1))[chain].unflatten(1, (NUM, -1))
    total = torch.diag(fit_var[0, :, chain].repeat_interleave(2))
    r = pilots[0, :, 0]
    for n in range(NUM):
        law = torch.diag(noise[0, :, n]).to(DOUBLE) + kap * h.var[0, n] * torch.outer(r, r.conj())
        parts = torch.stack([torch.stack([law.real, -law.imag], -1), torch.stack([law.imag, law.real], -1)], -2)
        real = parts.transpose(1, 2).reshape(2 * PILOTS, 2 * PILOTS) / 2
        total = total + by_signal[:, n] @ real @ by_signal[:, n].mT
    prior = torch.diag(var[0, chain])
    total = total + by_weight @ prior @ by_weight.mT
    gain = prior @ by_weight.mT @ torch.linalg.inv(total)
    want = mean[0, chain] + gain @ (stacked(seen)[0, chain] - f(mean[0, chain]))
    torch.testing.assert_close(new[0, chain], want)
    torch.testing.assert_close(new_var[0, chain], torch.diagonal(prior - gain @ by_weight @ prior) + 1e-5)


def test_weights_stay_where_the_channel_says_nothing():
    weights = networks(0.3)
    mean, var = weights.flat()[None], positive(1, NUM, weights.flat().shape[1])
    flat = Message(torch.zeros(1, NUM, dtype=torch.float64), torch.zeros(1, NUM, dtype=DOUBLE))
    one = positive(1, PILOTS, NUM)
    new, new_var = WeightTracking(0.0).step(
        mean, var, weights, drawn(1, PILOTS, NUM), flat, drawn(1, PILOTS, 1), one, one
    )
    assert torch.equal(new, mean) and torch.equal(new_var, var)
    with pytest.raises(ValueError, match="walk: expected at least 0"):
        WeightTracking(-1.0)
