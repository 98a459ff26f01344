"""Sparse tracking: the filter of one coefficient against sums over all support paths, a Kalman filter and a hidden
Markov model; EM against the true parameters; the method against its own limits, and against each slot on its own."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

import hhat
from hhat.methods.oamp import Oamp
from hhat.ops import Dense, Fourier, Identity, Kron, Select, posterior
from hhat.priors import Gauss, bernoulli_gauss
from hhat.random import complex_normal, generator
from hhat.tracking import Belief, MarkovGauss, SparseTracking
from hhat.types import Gaussian, Observation, Status

DOUBLE = torch.complex128
APPEAR, VANISH, FORGETTING, POWER = 0.02, 0.1, 0.2, 3.0
FIXED = MarkovGauss(APPEAR, VANISH, FORGETTING, variance_rate=0, memory=None, least=0.0)


def sequences(slots, shape, gen, appear, vanish, forgetting, power, dtype=DOUBLE):
    """x and s, (slots, *shape), from the model's own law, started in its stationary state."""
    s = torch.rand(shape, generator=gen) < appear / (appear + vanish)
    theta = complex_normal(shape, gen, dtype, power)
    found = []
    for t in range(slots):
        if t:
            draw = torch.rand(shape, generator=gen)
            s = torch.where(s, draw >= vanish, draw < appear)
            theta = (1 - forgetting) * theta + complex_normal(shape, gen, dtype, forgetting * (2 - forgetting) * power)
        found.append((s * theta, s))
    return [torch.stack(part) for part in zip(*found, strict=True)]


def start(model, num, power=POWER):
    on = float(model.appear / (model.appear + model.vanish))
    return model.start(torch.full((num,), on * power, dtype=torch.float64), (num,))


def filtered(model, belief, rs, var):
    """Beliefs after each slot, and what was seen in the last."""
    found = [belief]
    for r in rs:
        ahead = model.predict(found[-1])
        seen = model.see(ahead, Gaussian(r, torch.as_tensor(var, dtype=torch.float64)))
        found.append(model.update(ahead, seen))
    return found[1:], seen


def over_paths(r, var):
    """P(path | r) and theta's moments at the last slot for every support path, by dense algebra: r (slots,)."""
    slots = len(r)
    lag = (torch.arange(slots)[:, None] - torch.arange(slots)).abs()
    prior = (POWER * (1 - FORGETTING) ** lag.double()).to(DOUBLE)
    on = APPEAR / (APPEAR + VANISH)
    step = torch.tensor([[1 - APPEAR, APPEAR], [VANISH, 1 - VANISH]], dtype=torch.float64)
    paths = list(itertools.product((0, 1), repeat=slots))
    logs, means, variances = [], [], []
    for path in paths:
        d = torch.tensor(path, dtype=torch.float64).to(DOUBLE)
        cov = d[:, None] * prior * d + var * torch.eye(slots, dtype=DOUBLE)
        white = torch.linalg.solve(cov, r)
        log = math.log(on if path[0] else 1 - on) - float((r.conj() @ white).real) - float(torch.logdet(cov).real)
        log += sum(math.log(step[a, b]) for a, b in itertools.pairwise(path))
        gain = torch.linalg.solve(cov, d[:, None] * prior[:, -1:])[:, 0]
        logs.append(log)
        means.append(gain.conj() @ r)
        variances.append(float(prior[-1, -1].real - (gain.conj() @ (d * prior[:, -1])).real))
    share = torch.tensor(logs, dtype=torch.float64).softmax(0)
    return paths, share, torch.stack(means), torch.tensor(variances, dtype=torch.float64)


def moments(share, mean, var):
    share = share / share.sum()
    centre = (share * mean).sum()
    return centre, (share * (var + (mean - centre).abs().square())).sum()


def test_two_slots_are_exact():
    """With theta kept apart given s, two slots involve no approximation: four paths, both moments, what EM sums."""
    gen = generator("paths")
    xs, _ = sequences(2, (40,), gen, 0.3, 0.3, FORGETTING, POWER)
    rs = xs + complex_normal(xs.shape, gen, DOUBLE, 0.5)
    model, first = replace(FIXED, memory=1), start(FIXED, 40)
    (middle, last), seen = filtered(model, first, rs, 0.5)
    prior = POWER * torch.tensor([[1, 1 - FORGETTING], [1 - FORGETTING, 1]], dtype=DOUBLE)
    gain = prior @ torch.linalg.inv(prior + 0.5 * torch.eye(2))
    cov, both = (prior - gain @ prior).real, gain @ rs
    moved = (both[1] - both[0]).abs().square() + cov.trace() - 2 * cov[0, 1]
    summed = torch.zeros(6, dtype=torch.float64)
    for n in range(40):
        paths, share, mean, var = over_paths(rs[:, n], 0.5)
        assert [p[0] * 2 + p[1] for p in paths] == [0, 1, 2, 3]
        torch.testing.assert_close(seen.pairs[n], share, rtol=1e-10, atol=1e-14)
        size = both[:, n].abs().square().sum() + cov.trace()
        summed += torch.cat([share, share[3] * torch.stack([moved[n], size]) / (2 * POWER)]) / 40
        for state in (0, 1):
            own = torch.tensor([p[1] == state for p in paths])
            want_mean, want_var = moments(share[own], mean[own], var[own])
            torch.testing.assert_close(last.mean[n, state], want_mean, rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(last.var[n, state], want_var, rtol=1e-9, atol=1e-11)
    counts = model.start_counts(torch.zeros(1, dtype=torch.float64))
    learned, counts = model.learn(middle, model.predict(middle), seen, counts, (-1,))
    torch.testing.assert_close(torch.cat(counts), summed, rtol=1e-9, atol=0)
    torch.testing.assert_close(learned.forgetting, summed[4:5] / summed[5])


def test_more_slots_stay_close_to_the_sum_over_paths():
    """Eight slots, 256 paths: the belief is a collapsed mixture, and two Gaussians are closer to it than one."""
    xs, _ = sequences(8, (60,), generator("many paths"), 0.2, 0.2, FORGETTING, POWER)
    rs = xs + complex_normal(xs.shape, generator("many noises"), DOUBLE, 1.0)
    exact = torch.empty(60, dtype=DOUBLE)
    for n in range(60):
        paths, share, mean, _ = over_paths(rs[:, n], 1.0)
        own = torch.tensor([p[-1] == 1 for p in paths])
        exact[n] = (share * mean)[own].sum()
    errors = {}
    for apart in (True, False):
        model = replace(FIXED, apart=apart)
        last = filtered(model, start(model, 60), rs, 1.0)[0][-1]
        errors[apart] = float((last.activity * last.mean[:, 1] - exact).abs().square().mean())
    assert errors[True] < 0.01 * float(exact.abs().square().mean())
    assert errors[True] < 0.5 * errors[False]


def test_one_gaussian_is_the_plain_update_written_out():
    """apart=False: p, m, v predicted, then mixed by pi = P(s = 1 | r), with the extra variance share."""
    gen = generator("plain")
    p_act, vx = torch.rand(2, 30, generator=gen, dtype=torch.float64)
    mx, power = complex_normal((30,), gen, DOUBLE), torch.full((30,), POWER, dtype=torch.float64)
    r, vr = complex_normal((30,), gen, DOUBLE, 3.0), 0.4
    before = Belief(p_act, mx[:, None].expand(30, 2), vx[:, None].expand(30, 2), power)
    found = filtered(replace(FIXED, apart=False, inflation=0.1), before, r[None], vr)[0][0]
    p = p_act * (1 - VANISH) + (1 - p_act) * APPEAR
    m = (1 - FORGETTING) * mx
    v = (1 - FORGETTING) ** 2 * vx + FORGETTING * (2 - FORGETTING) * POWER + 0.1 * m.abs().square()
    ratio = (vr / (vr + v)).log() + r.abs().square() / vr - (r - m).abs().square() / (vr + v)
    pi = torch.sigmoid(ratio + torch.logit(p))
    vp = 1 / (1 / v + 1 / vr)
    mp = vp * (m / v + r / vr)
    mean = pi * mp + (1 - pi) * m
    var = pi * (vp + mp.abs().square()) + (1 - pi) * (v + m.abs().square()) - mean.abs().square()
    torch.testing.assert_close(found.activity, pi, rtol=1e-9, atol=1e-12)
    for state in (0, 1):
        torch.testing.assert_close(found.mean[:, state], mean, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(found.var[:, state], var, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("apart", [True, False])
def test_a_known_support_is_a_kalman_filter(apart):
    model = replace(FIXED, appear=1.0, vanish=0.0, apart=apart)
    rs = complex_normal((12, 5), generator("kalman"), DOUBLE, 2.0)
    noise = torch.rand(5, generator=generator("kalman"), dtype=torch.float64) + 0.1
    found, _ = filtered(model, start(model, 5), rs, noise)
    m, v = torch.zeros(5, dtype=DOUBLE), torch.full((5,), POWER, dtype=torch.float64)
    for r, belief in zip(rs, found, strict=True):
        m, v = (1 - FORGETTING) * m, (1 - FORGETTING) ** 2 * v + FORGETTING * (2 - FORGETTING) * POWER
        gain = v / (v + noise)
        m, v = m + gain * (r - m), (1 - gain) * v
        torch.testing.assert_close(belief.mean[:, 1], m, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(belief.var[:, 1], v, rtol=1e-12, atol=1e-13)
        assert bool((belief.activity == 1).all())


@pytest.mark.parametrize("apart", [True, False])
def test_known_values_are_a_hidden_markov_model(apart):
    """forgetting 0 and no variance: the activity is the HMM's, summed over all 2^10 supports."""
    model = replace(FIXED, forgetting=0.0, apart=apart)
    gen, slots, num, var = generator("hmm"), 10, 6, 0.7
    value = complex_normal((num,), gen, DOUBLE)
    _, supports = sequences(slots, (num,), gen, 0.2, 0.2, 0.0, 1.0)
    rs = supports * value + complex_normal((slots, num), gen, DOUBLE, var)
    first = start(model, num)
    sure = replace(first, mean=value[:, None].expand(num, 2), var=torch.zeros_like(first.var))
    last = filtered(model, sure, rs, var)[0][-1]
    paths = torch.tensor(list(itertools.product((0, 1), repeat=slots)))
    on = APPEAR / (APPEAR + VANISH)
    step = torch.tensor([[1 - APPEAR, APPEAR], [VANISH, 1 - VANISH]], dtype=torch.float64)
    prior = torch.tensor([1 - on, on], dtype=torch.float64)[paths[:, 0]].log()
    prior = prior + step[paths[:, :-1], paths[:, 1:]].log().sum(1)
    for n in range(num):
        fit = -(rs[:, n] - paths.to(DOUBLE) * value[n]).abs().square().sum(1) / var
        share = (prior + fit).softmax(0)
        assert abs(float(last.activity[n] - share[paths[:, -1] == 1].sum())) < 1e-12
    torch.testing.assert_close(last.mean[:, 1], value)


def recovered(noise, slots, memory, begin, num=200, items=12, apart=True):
    """Errors of learned appear, vanish, forgetting in standard errors, from the spread over independent items."""
    truth, gen = (0.02, 0.08, 0.1), generator("em", noise)
    xs, _ = sequences(slots, (items, num), gen, *truth, POWER)
    model = MarkovGauss(*begin, variance_rate=0, memory=memory, least=1e-9, apart=apart)
    one = torch.ones(items, 1, dtype=torch.float64)
    model = replace(model, **{k: one * getattr(model, k) for k in ("appear", "vanish", "forgetting")})
    on = model.appear / (model.appear + model.vanish)
    belief, counts = model.start(on * POWER, (items, num)), model.start_counts(one)
    for t in range(slots):
        r = Gaussian(xs[t] + complex_normal((items, num), gen, DOUBLE, noise), torch.tensor(noise).double())
        ahead = model.predict(belief)
        seen = model.see(ahead, r)
        after = model.update(ahead, seen)
        if t:
            model, counts = model.learn(belief, ahead, seen, counts, (-1,))
        belief = after
    found = torch.stack([model.appear, model.vanish, model.forgetting]).squeeze(-1)
    return ((found.mean(1) - torch.tensor(truth)) / (found.std(1) / items**0.5)).tolist()


@pytest.mark.parametrize("begin", [(0.1, 0.02, 0.4), (0.005, 0.3, 0.02)])
def test_em_finds_the_transition_parameters(begin):
    """20 dB per active coefficient: within three standard errors."""
    assert max(map(abs, recovered(0.03, 300, 60, begin))) < 3


@pytest.mark.slow
def test_em_stays_at_the_truth_near_the_noise():
    """5 dB per active coefficient. One Gaussian for both states of s loses the forgetting there; two keep it."""
    assert max(map(abs, recovered(1.0, 600, 150, (0.02, 0.08, 0.1)))) < 3
    assert recovered(1.0, 600, 150, (0.02, 0.08, 0.1), apart=False)[2] < -20


def test_learned_variances_follow_what_is_active_alone():
    model = MarkovGauss(variance_rate=0.2, idle=1.0)
    belief = model.start(torch.full((2,), 0.09, dtype=torch.float64), (2,))
    first, r = belief.power, Gaussian(torch.tensor([3.0, 0.0], dtype=DOUBLE), torch.full((2,), 1e-3).double())
    for _ in range(40):
        ahead = model.predict(belief)
        belief = model.update(ahead, model.see(ahead, r))
    assert abs(float(belief.power[0]) / 9 - 1) < 0.05
    assert abs(float(belief.power[1] / first[1]) - 1) < 0.1
    assert bool((belief.var <= belief.power[:, None]).all())
    leaking = replace(model, idle=0.3)
    ahead = leaking.predict(belief)
    off = leaking.see(ahead, r)
    on, v = off.pairs[1, 1::2], belief.power[1]
    shown = (on * (off.mean[1].abs().square() + off.var[1])).sum() + 0.3 * (1 - on.sum()) * v
    torch.testing.assert_close(leaking.update(ahead, off).power[1], 0.8 * v + 0.2 * shown)
    assert float(leaking.update(ahead, off, least_power=100.0).power[1]) == 100


RX, TX = 4, 32
BASIS = Kron(Fourier(RX), Fourier(TX))
LAW = dict(appear=0.1 * 0.05 / 0.9, vanish=0.05, forgetting=0.05, power=10.0)


def channels(num, slots, gen, basis=BASIS):
    """Sparse in angle, E|h|^2 = 1 per entry: (slots, num, rx, tx) channels, and the coefficients' supports."""
    shape = (num, *basis.in_shape)
    xs, supports = sequences(slots, shape, gen, **LAW, dtype=torch.complex64)
    return torch.stack([basis.apply(x) for x in xs]), supports


def pilots(hs, num_pilots, snr_db, gen):
    """A new block of Gaussian pilots in every slot; num_pilots may be one number per slot."""
    noise_var = hs.shape[-1] * 10 ** (-snr_db / 10)
    counts = [num_pilots] * len(hs) if isinstance(num_pilots, int) else num_pilots
    found = []
    for h, count in zip(hs, counts, strict=True):
        op = Kron(Identity((hs.shape[-2],)), Dense(complex_normal((count, hs.shape[-1]), gen)))
        noise = complex_normal((*h.shape[:-1], count), gen, var=noise_var)
        found.append(Observation(op.apply(h) + noise, op, noise_var))
    return found


def errors(method, slots, hs):
    """Error energy over channel energy per sequence, over all slots."""
    found = torch.stack([est.belief.mean for _, est in hhat.track(method, slots)])
    return (found - hs).abs().square().sum((0, -1, -2)) / hs.abs().square().sum((0, -1, -2))


def tracker(**settings):
    return SparseTracking(Gauss(basis=BASIS, learnable=True), **settings)


def test_tracking_beats_each_slot_on_its_own():
    """12 pilots for 32 antennas, 10 dB: paired over sequences, 95 % interval of the gain above 3 dB."""
    gen = generator("gain")
    hs, _ = channels(10, 12, gen)
    slots = pilots(hs, 12, 10.0, gen)
    alone = errors(Oamp(bernoulli_gauss(0.1, basis=BASIS)), slots, hs)
    gain = 10 * (alone / errors(tracker(), slots, hs)).log10()
    assert float(gain.mean() - 2.26 * gain.std() / 10**0.5) > 3


def test_a_single_slot_is_oamp_with_a_bernoulli_gauss_prior():
    (obs,) = pilots(channels(5, 1, generator("single"))[0], 24, 15.0, generator("single"))
    prior = bernoulli_gauss(0.1, basis=BASIS, learnable=False)
    # E|x|^2 as y shows it: received less noise power, over the mean row energy
    energy = obs.op.squares.apply(torch.ones(RX, TX)).mean()
    power = (obs.y.abs().square().mean((-1, -2), keepdim=True) - obs.noise_var) / energy
    scaled = prior.expand((5,), (RX, TX), obs.y).scaled(power.sqrt())
    want = hhat.solve(Oamp(scaled), obs, tol=1e-10)
    got = hhat.solve(tracker(dynamics=MarkovGauss(0.01, 0.09), inner_steps=100), obs)
    assert got.status_counts() == {"OK": 5}
    torch.testing.assert_close(got.belief.mean, want.belief.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got.belief.var, want.belief.var, rtol=1e-2, atol=1e-5)


def test_everything_active_is_lmmse_and_then_a_kalman_filter():
    """Noise that differs per sample. One dense slot: the exact posterior; a diagonal operator: exact for ever."""
    gen = generator("active")
    always = MarkovGauss(1.0, 0.0, 0.1, variance_rate=0, memory=None, least=0.0)
    method = SparseTracking(Gauss(2.0), always, Oamp(average_axes=(), damping=1.0))
    a = complex_normal((6, 9), gen, DOUBLE)
    noise = torch.rand(3, 6, generator=gen, dtype=torch.float64) + 0.05
    y = complex_normal((3, 6), gen, DOUBLE, 5.0)
    est = hhat.solve(replace(method, inner_steps=60), Observation(y, Dense(a), noise))
    want = posterior(Dense(a), y, Gaussian(y.new_zeros(()), torch.tensor(2.0).double()), noise).belief
    torch.testing.assert_close(est.belief.mean, want.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(est.belief.var, want.var, rtol=1e-3, atol=0)

    ys = complex_normal((6, 3, 9), gen, DOUBLE, 2.0)
    noise = torch.rand(6, 3, 9, generator=gen, dtype=torch.float64) + 0.05
    m, v = torch.zeros(3, 9, dtype=DOUBLE), torch.full((3, 9), 2.0, dtype=torch.float64)
    slots = [Observation(y, Identity((9,)), n) for y, n in zip(ys, noise, strict=True)]
    for slot, (_, est) in zip(slots, hhat.track(method, slots), strict=True):
        m, v = 0.9 * m, 0.81 * v + 0.19 * 2.0
        gain = v / (v + slot.noise_var)
        m, v = m + gain * (slot.y - m), (1 - gain) * v
        torch.testing.assert_close(est.belief.mean, m, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(est.belief.var, v, rtol=1e-9, atol=0)


def test_noise_per_sample_is_used():
    """Half of the pilots 20 dB worse: knowing which beats knowing the mean."""
    gen = generator("uneven")
    hs, _ = channels(10, 6, gen)
    told, mean = [], []
    for slot in pilots(hs, 24, 300.0, gen):
        noise = torch.where(torch.arange(24) < 12, 0.5, 50.0)
        y = slot.y + complex_normal(tuple(slot.y.shape), gen) * noise.sqrt()
        told.append(Observation(y, slot.op, noise))
        mean.append(Observation(y, slot.op, float(noise.mean())))
    for axes in (None, ()):
        method = tracker(inner=Oamp(damping=0.4, average_axes=axes))
        assert float(errors(method, told, hs).mean()) < 0.5 * float(errors(method, mean, hs).mean())


def hopping(num=3, slots=5):
    """Pilots of another number and kind in every slot, in angle and, last, of single antennas alone."""
    gen = generator("hopping")
    hs, _ = channels(num, slots, gen)
    found = pilots(hs[:-1], (10, 16, 8, 12), 10.0, gen)
    op = Kron(Identity((RX,)), Select(torch.arange(0, TX, 2), TX))
    y = op.apply(hs[-1]) + complex_normal((num, RX, TX // 2), gen, var=0.1)
    return hs, [*found, Observation(y, op, 0.1)]


@pytest.mark.parametrize("axes", [None, ()])
def test_a_tracker_resumes_from_a_file_though_the_operator_changes(tmp_path, axes):
    _, slots = hopping()
    method = tracker(inner=Oamp(average_axes=axes), inner_steps=4)
    unbroken = list(hhat.track(method, slots))
    for state, _ in hhat.track(method, slots[:2]):
        hhat.save_state(tmp_path / "s", state)
    resumed = list(hhat.track(method, slots[2:], hhat.load_state(tmp_path / "s")))
    for (_, whole), (_, part) in zip(unbroken[2:], resumed, strict=True):
        assert torch.equal(whole.belief.mean, part.belief.mean) and torch.equal(whole.belief.var, part.belief.var)
    first, last = unbroken[0][0], unbroken[-1][0]
    for key, given in (("appear", 0.005), ("vanish", 0.05), ("forgetting", 0.05)):  # one slot shows no transition
        assert bool((first[key] == given).all()) and bool((last[key] != given).all())


def test_a_batch_is_its_items():
    _, slots = hopping()
    together = list(hhat.track(tracker(), slots))
    for n in range(3):
        alone = hhat.track(tracker(), [Observation(s.y[n], s.op, s.noise_var) for s in slots])
        for (_, all_of), (_, one) in zip(together, alone, strict=True):
            torch.testing.assert_close(all_of.belief.mean[n], one.belief.mean, rtol=1e-3, atol=1e-3)


def test_an_item_lost_in_the_first_slot_starts_in_the_next():
    _, slots = hopping()
    y = slots[0].y.clone()
    y[1, 0, 0] = float("nan")
    found = list(hhat.track(tracker(), [Observation(y, slots[0].op, slots[0].noise_var), *slots[1:]]))
    assert found[0][1].status.tolist() == [Status.OK, Status.NONFINITE, Status.OK]
    late = list(hhat.track(tracker(), slots[1:]))
    whole = list(hhat.track(tracker(), slots))
    for (_, est), (_, one), (_, other) in zip(found[1:], late, whole[1:], strict=True):
        torch.testing.assert_close(est.belief.mean[1], one.belief.mean[1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(est.belief.mean[[0, 2]], other.belief.mean[[0, 2]], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [37.0, 1e-3])
def test_scaling_what_came_scales_every_slot(size):
    _, slots = hopping()
    c = size * complex(0.6, 0.8)
    scaled = [Observation(c * s.y, s.op, s.noise_var * size**2) for s in slots]
    for (_, plain), (_, other) in zip(hhat.track(tracker(), slots), hhat.track(tracker(), scaled), strict=True):
        torch.testing.assert_close(other.belief.mean / c, plain.belief.mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(other.belief.var / size**2, plain.belief.var, rtol=1e-2, atol=1e-4)
        torch.testing.assert_close(other.info["vanish"], plain.info["vanish"], rtol=1e-3, atol=0)


def test_noise_that_is_not_given_is_learned_on_the_way():
    hs, _ = channels(8, 10, generator("unknown noise"))
    slots = [Observation(s.y, s.op) for s in pilots(hs, 24, 20.0, generator("unknown noise"))]
    *_, (_, est) = hhat.track(tracker(), slots)
    assert est.info["noise_var_source"] == "estimated"
    assert abs(float(est.info["noise_var"].mean()) / (TX / 100) - 1) < 0.2


@pytest.mark.parametrize("name", ["oamp", "gamp"])
def test_any_message_passing_method_serves_inside(name):
    hs, _ = channels(6, 8, generator("inside"))
    found = errors(tracker(inner=hhat.method(name)), pilots(hs, 20, 10.0, generator("inside")), hs)
    assert 10 * math.log10(float(found.mean())) < -13


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: MarkovGauss(vanish=1.5), "vanish: expected 0..1"),
        (lambda: MarkovGauss(appear=0.0), "appear: expected more than 0"),
        (lambda: MarkovGauss(least=0.5), "least"),
        (lambda: MarkovGauss(memory=0), "memory"),
        (lambda: SparseTracking(inner=hhat.method("ls")), "takes no prior"),
        (lambda: SparseTracking(inner_steps=0), "inner_steps"),
    ],
)
def test_wrong_calls_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def genie(hs, supports, slots, basis):
    """Kalman filter that knows law and support, its covariance in full: no estimator has a smaller error."""
    keep, power, size = 1 - LAW["forgetting"], LAW["power"], basis.right.in_shape[0]
    eye = torch.eye(size, dtype=DOUBLE)
    m, cov = torch.zeros(hs.shape[1:], dtype=DOUBLE), power * eye
    wrong = torch.zeros(hs.shape[1])
    for h, s, slot in zip(hs, supports, slots, strict=True):
        m, cov = keep * m, keep**2 * cov + (1 - keep**2) * power * eye
        a = (slot.op.right @ basis.right).dense(DOUBLE) * s[..., None, :].to(DOUBLE)
        y = (basis.left.dense(DOUBLE).mH @ slot.y.to(DOUBLE))[..., None]
        total = a @ cov @ a.mH + float(torch.as_tensor(slot.noise_var)) * torch.eye(a.shape[-2], dtype=DOUBLE)
        gain = torch.linalg.solve(total, a @ cov).mH
        m = m + (gain @ (y - a @ m[..., None]))[..., 0]
        cov = cov - gain @ a @ cov
        wrong += (basis.apply(s * m) - h).abs().square().sum((-1, -2))
    return wrong / hs.abs().square().sum((0, -1, -2))


def rays(num, slots, gen):
    """Two clusters of 20 rays, 1 degree wide, off the grid; a ray turns by up to 0.126 rad per slot (20 Hz, 1 ms)."""
    share = torch.tensor([0.6, 0.4]).repeat_interleave(20) / 20
    waves = []
    for size in (8, 32):
        centre = (torch.rand(num, 2, generator=gen) - 0.5) * 2 * math.pi / 3
        angle = centre.repeat_interleave(20, 1) + torch.randn(num, 40, generator=gen) * math.pi / 180
        waves.append(torch.exp(1j * math.pi * torch.sin(angle)[..., None] * torch.arange(size)))
    heading, phase = torch.rand(2, num, 40, generator=gen) * 2 * math.pi
    turn = 2 * math.pi * 0.02 * torch.cos(heading)
    gains = share.sqrt() * torch.exp(1j * (phase + turn * torch.arange(slots)[:, None, None]))
    return torch.einsum("tsn,snr,snc->tsrc", gains, *waves)


def case(name, num=20, slots=30):
    """A setting of docs/methods/sparse-tracking.md: basis, channels, supports (None: no such law), observations."""
    kind, *numbers = name.split()
    gen = generator("sparse-tracking", name)
    if kind in ("band", "comb"):  # a quarter of 64 tones in every slot at 20 dB, hops in the order 0, 2, 1, 3
        basis, found = Kron(Identity((4,)), Fourier(64)), []
        hs, supports = channels(num, slots, gen, basis)
        for t, h in enumerate(hs):
            hop = (0, 2, 1, 3)[t % 4]
            index = 16 * hop + torch.arange(16) if kind == "band" else hop + 4 * torch.arange(16)
            op = Kron(Identity((4,)), Select(index, 64))
            found.append(Observation(op.apply(h) + complex_normal((num, 4, 16), gen, var=0.01), op, 0.01))
        return basis, hs, supports, found
    basis, (count, snr_db) = Kron(Fourier(8), Fourier(32)), map(int, numbers)
    hs, supports = channels(num, slots, gen, basis) if kind == "law" else (rays(num, slots, gen), None)
    return basis, hs, supports, pilots(hs, count, float(snr_db), gen)


def told(found):
    mean, wide = float(found.mean()), 2.09 * float(found.std()) / len(found) ** 0.5
    return f"{10 * math.log10(mean):7.2f} ± {10 / math.log(10) * wide / mean:.2f}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["law 12 10", "law 16 10", "law 16 20", "rays 16 10", "rays 16 30", "band", "comb"])
def test_the_order_of_the_measured_page(name):
    """20 sequences of 30 slots. Per slot > tracking, and no better than the filter that knows law and support."""
    basis, hs, supports, slots = case(name)
    prior = Gauss(basis=basis, learnable=True)
    alone = errors(Oamp(bernoulli_gauss(0.1, basis=basis)), slots, hs)
    tracked = errors(SparseTracking(prior), slots, hs)
    print(f"\n{name:12s} oamp {told(alone)}  sparse-tracking {told(tracked)}", end="")
    gain = alone - tracked
    assert float(gain.mean()) > 2.09 * float(gain.std()) / len(gain) ** 0.5
    if supports is not None:
        bound = genie(hs, supports, slots, basis)
        print(f"  genie {told(bound)}")
        assert float((tracked - bound).mean()) > 0
