"""Thresholds, detection, pursuit, the integrated test and scores, each against closed forms or something dense."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from hhat.random import complex_normal, generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing import (
    angle_delay_map,
    closed_form_threshold,
    detect,
    detection_probability,
    detector,
    empirical_threshold,
    gospa,
    integrated,
    search,
    snr_of,
    target_errors,
)
from hhat.sensing.detector import position_m
from hhat.sensing.echoes import EchoTruth, delay_response, matched, steering
from hhat.sensing.scores import root_mean_square
from hhat.sensing.threshold import expected_excursions, false_alarm, resolution
from hhat.types import Status

SMALL = {"num_rx_ant": 16, "num_subcarriers": 64, "subcarrier_spacing_hz": 960e3}


def test_false_alarms_follow_the_closed_form():
    obs = EchoScene(**SMALL, presence=0.0).draw(2000, generator("empty")).obs
    statistic = search(obs, refine_steps=3, coarse=(2, 2)).statistic
    for eta in (6.0, 8.0, 10.0):
        formula, measured = float(false_alarm(obs, eta).mean()), float((statistic >= eta).float().mean())
        assert measured == pytest.approx(formula, rel=0.06, abs=3 * math.sqrt(formula / 2000))
    found = detect(obs, false_alarm=0.05)
    assert float(found.detected.float().mean()) == pytest.approx(0.05, abs=0.017)
    # one cell that is only looked at: Exp(1)
    point = replace(obs, u_limits=torch.zeros(2), range_limits_m=torch.tensor([20.0, 20.0]))
    torch.testing.assert_close(false_alarm(point, 3.0), torch.full((2000,), 1 - math.exp(-math.exp(-3.0))).double())


def test_excursions_are_those_of_the_published_formula():
    obs = EchoScene(presence=0.0).draw(50, generator("formula")).obs
    low, high = obs.u_limits.double().unbind(-1)
    t1, t2 = math.pi * (high - low), 4 * math.pi * 240e3 * 33.75 / 299792458
    b1, b2, eta = math.sqrt((64**2 - 1) / 12), math.sqrt((256**2 - 1) / 12), 11.0
    wanted = math.exp(-eta) * (
        1 + (t1 * b1 + t2 * b2) * math.sqrt(eta / math.pi) + t1 * t2 * b1 * b2 * (eta - 0.5) / math.pi
    )
    torch.testing.assert_close(expected_excursions(obs, eta), wanted)
    assert t2 == pytest.approx(0.3393, rel=1e-3)  # spec, O4


def test_thresholds_undo_the_false_alarm():
    obs = EchoScene().draw(20, generator("threshold")).obs
    for wanted in (1e-6, 1e-3, 0.1, 0.5):
        eta = closed_form_threshold(obs, wanted)
        torch.testing.assert_close(
            false_alarm(obs, eta.double()), torch.full((20,), wanted).double(), rtol=1e-4, atol=0
        )
    wide = obs.u_limits.asin().diff(dim=-1)[:, 0].argsort()
    assert bool((closed_form_threshold(obs, 1e-2) > 0).all()) and len(wide) == 20
    for wrong in (0.0, 0.7):
        with pytest.raises(ValueError, match="false alarm: expected"):
            closed_form_threshold(obs, wrong)


def test_empirical_thresholds_hold_exactly():
    assert empirical_threshold(torch.arange(1.0, 100.0), 0.1) == 90.0  # 10 of the 100 gaps lie above
    assert empirical_threshold(torch.arange(1.0, 100.0), 0.01) == 99.0
    gen, n, wanted = generator("conformal"), 39, 0.1
    draws = -torch.rand(20000, n, generator=gen, dtype=torch.float64).log()
    etas = torch.tensor([empirical_threshold(row, wanted) for row in draws[:4000]])
    rate = (-etas).exp()  # of a new Exp(1), known exactly for each threshold
    assert float(rate.mean()) == pytest.approx(0.1, abs=4 * float(rate.std()) / math.sqrt(4000))
    for statistic, p in ((torch.ones(5), 0.01), (torch.tensor([1.0, math.nan] * 50), 0.1), (torch.ones(5), 0.0)):
        with pytest.raises(ValueError, match=r"threshold: "):
            empirical_threshold(statistic, p)


def test_detection_and_errors_at_known_gains():
    slot = EchoScene().draw(2000, generator("detect"))
    there, kappa = slot.truth.present[:, 0], slot.truth.kappa
    found = detect(slot.obs, kappa, false_alarm=1e-2)
    formula = float(detection_probability(found.threshold, 10**1.5, 0.0, 1e-2).mean())
    assert formula == pytest.approx(0.726, abs=0.003)  # spec 9.2
    errors = target_errors(found, slot.truth)
    assert float(errors.hit.sum() / there.sum()) == pytest.approx(formula, abs=3 * 0.45 / math.sqrt(1000))
    assert float(errors.false_alarm.sum() / (~there).sum()) == pytest.approx(0.01, abs=0.011)
    assert torch.equal(errors.hit | errors.missed, there)
    assert root_mean_square(errors.angle_deg, errors.in_cell) == pytest.approx(0.184, rel=0.1)  # refined, spec 9.2
    assert root_mean_square(errors.range_m, errors.in_cell) == pytest.approx(0.194, rel=0.1)
    assert root_mean_square(errors.position_m, errors.in_cell) == pytest.approx(0.215, rel=0.1)
    du, strong = found.u[:, 0] - slot.truth.u[:, 0], errors.in_cell & (found.statistic[:, 0] > 25)
    assert float((du.square() / found.u_var[:, 0])[strong].mean()) == pytest.approx(1, abs=0.25)
    assert bool(torch.isinf(found.u_var[~found.detected]).all()) and bool((found.gain[~found.detected] == 0).all())
    unaware = detect(slot.obs, false_alarm=1e-2)
    kept = float(kappa.sum().abs() ** 2) / 64**2
    bound = float(detection_probability(found.threshold, 10**1.5, 1 - kept, 1e-2).mean())
    assert float(unaware.detected[there].float().mean()) == pytest.approx(bound, abs=0.05)
    given = detect(slot.obs, kappa, threshold=11.6)
    assert bool((given.threshold == 11.6).all())


def test_posterior_mean_gain():
    slot = EchoScene(presence=1.0).draw(400, generator("gain"))
    found = detect(slot.obs, slot.truth.kappa)
    hit = found.detected[:, 0] & ((found.u - slot.truth.u).abs()[:, 0] < 0.01)
    ratio = (found.gain / slot.truth.gain)[hit]
    assert float((ratio.real).median()) == pytest.approx(1, abs=0.1)
    doubled = detect(slot.obs, 2 * slot.truth.kappa)
    torch.testing.assert_close(2 * doubled.gain, found.gain, rtol=1e-3, atol=1e-6)


def test_full_and_compressed_echoes_give_the_same_detections():
    from hhat.sensing import compress

    slot = EchoScene(**SMALL, form="full", max_targets=2, snr_db=25.0).draw(40, generator("full"))
    full, small = (detect(obs, slot.truth.kappa, max_targets=2) for obs in (slot.obs, compress(slot.obs)))
    assert torch.equal(full.detected, small.detected)
    for name in ("u", "range_m", "statistic"):
        one, other = getattr(full, name)[full.detected], getattr(small, name)[full.detected]
        torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-3)


def dense_log_ratio(obs, kappa, snr, u, range_m):
    """log of the mean over a grid of CN(y; 0, I + var m m^H) / CN(y; 0, I), each cell's covariance factored densely."""
    waves = (kappa * steering(obs, u))[:, None, :, None] * delay_response(obs, range_m)[None, :, None, :]
    cells = waves.reshape(-1, obs.num_rx_ant * obs.y.shape[-1]).to(torch.complex128)
    y = obs.y.reshape(len(obs.y), -1).to(torch.complex128)
    var = snr / (obs.num_rx_ant * obs.num_subcarriers)
    cov = torch.eye(y.shape[1], dtype=y.dtype) + var * cells[:, :, None] * cells[:, None, :].conj()
    solved = torch.linalg.solve(cov, y.mT.expand(len(cov), -1, -1))
    distance = (y.mT.conj() * solved).sum(-2).real - y.abs().square().sum(-1)
    return (-distance - torch.logdet(cov).real[:, None]).logsumexp(0) - math.log(len(cov))


def test_integrated_test_is_the_evidence_ratio():
    scene = EchoScene(num_rx_ant=4, num_subcarriers=8, subcarrier_spacing_hz=7.68e6, sector_center_deg=1e-3)
    obs = replace(scene.draw(6, generator("evidence")).obs, u_limits=torch.tensor([-0.3, 0.4]))
    kappa, snr, size = scene.kappa(), 20.0, (9, 7)
    ends = obs.u_limits.double().asin()
    u = (ends[0] + (ends[1] - ends[0]) * (torch.arange(9) + 0.5) / 9).sin().float()
    range_m = 10 + 33.75 * (torch.arange(7) + 0.5) / 7
    wanted = dense_log_ratio(obs, kappa, snr, u, range_m)
    torch.testing.assert_close(integrated(obs, kappa, snr, size), wanted.float(), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="integrated: expected an SNR"):
        integrated(replace(obs, snr=None), kappa)


def test_integrated_test_is_a_likelihood_ratio():
    scene = EchoScene(**SMALL, presence=1.0, snr_db=6.0)
    size = (40, 40)
    empty = integrated(replace(scene, presence=0.0).draw(3000, generator("h0")).obs, scene.kappa(), size=size)
    there = integrated(scene.draw(3000, generator("h1")).obs, scene.kappa(), size=size)
    for level in (0.0, 1.5):  # P0(L >= t) = E1[1{L >= t} / L]
        rate, weights = float((empty >= level).float().mean()), (there >= level) * (-there).exp()
        slack = 4 * math.sqrt(rate / 3000 + float(weights.var()) / 3000)
        assert float(weights.mean()) == pytest.approx(rate, abs=slack) and rate > 0.005
    faint = integrated(replace(scene, presence=0.0).draw(2000, generator("h0")).obs, snr=0.5, size=size)
    assert float(faint.exp().mean()) == pytest.approx(1, abs=4 * float(faint.exp().std()) / math.sqrt(2000))


def test_integrated_test_is_not_below_the_maximum_test():
    slot = EchoScene().draw(800, generator("compare"))
    empty = EchoScene(presence=0.0).draw(800, generator("compare empty")).obs
    there, kappa = slot.truth.present[:, 0], slot.truth.kappa
    rates = []
    for statistic in (lambda obs: integrated(obs, kappa, size=(50, 50)), lambda obs: search(obs, kappa).statistic):
        eta = empirical_threshold(statistic(empty), 0.1)
        rates.append(float((statistic(slot.obs)[there] >= eta).float().mean()))
    assert rates[0] > rates[1] - 0.01


def planted(u, range_m, gain, snr_db=90.0):
    """Snapshots of a small array with targets at given places, (n, K)."""
    scene = EchoScene(**SMALL, presence=0.0, snr_db=snr_db)
    slot = scene.draw(len(u), generator("planted"))
    obs = replace(slot.obs, u_limits=torch.tensor([-0.8, 0.8]))
    waves = slot.truth.kappa * steering(obs, u, range_m) * gain[..., None]
    return replace(obs, y=obs.y + waves.mT @ delay_response(obs, range_m)), slot.truth.kappa


def test_pursuit_finds_planted_targets():
    gen = generator("plant")
    u = torch.tensor([[-0.5, 0.1, 0.6]]) + 0.1 * torch.rand(10, 3, generator=gen)
    range_m = torch.tensor([[15.0, 30.0, 22.0]]) + 5 * torch.rand(10, 3, generator=gen)
    gain = torch.polar(torch.tensor([[100.0, 50.0, 20.0]]), 6 * torch.rand(10, 3, generator=gen))
    obs, kappa = planted(u, range_m, gain)
    found = detect(obs, kappa, false_alarm=1e-3, max_targets=5)
    assert torch.equal(found.detected, torch.tensor([True] * 3 + [False] * 2).expand(10, 5))
    torch.testing.assert_close(found.u[:, :3], u, rtol=0, atol=5e-4)
    torch.testing.assert_close(found.range_m[:, :3], range_m, rtol=0, atol=0.02)
    torch.testing.assert_close(found.gain[:, :3], gain, rtol=0, atol=0.5)
    assert not bool(detect(obs).detected[:, 1:].any())
    with pytest.raises(ValueError, match="max_targets: expected at least 1"):
        detect(obs, max_targets=0)
    with pytest.raises(ValueError, match="kappa: expected shape"):
        detect(obs, kappa[:3])


def test_pursuit_of_neighbours_refines_them_together():
    u, range_m = torch.tensor([[0.1, 0.1 + 2.6 / 16]]), torch.tensor([[20.0, 20.5]])  # 1.3 cells of 2 / 16 apart
    obs, kappa = planted(u.expand(40, 2), range_m.expand(40, 2), complex_normal((40, 2), generator("near"), var=1.0))
    found = detect(obs, kappa, max_targets=2)
    both = found.detected.all(-1)
    assert int(both.sum()) > 35
    far = position_m(u, range_m).expand(40, 2, 2)
    joint = gospa(found.position_m, found.detected, far, torch.ones(40, 2, dtype=torch.bool))
    alone = detect(obs, kappa, max_targets=2, refine_steps=0)
    greedy = gospa(alone.position_m, alone.detected, far, torch.ones(40, 2, dtype=torch.bool))
    assert float(joint[both].median()) < 0.25 * float(greedy[both].median())


def test_joint_gains_are_least_squares():
    u, range_m = torch.tensor([[0.1, 0.2, -0.4]]).expand(3, 3), torch.tensor([[20.0, 21.0, 30.0]]).expand(3, 3)
    obs, kappa = planted(u, range_m, complex_normal((3, 3), generator("joint")), snr_db=15.0)
    from hhat.sensing.pursuit import Pursuit

    atoms = (kappa * steering(obs, u))[..., None] * delay_response(obs, range_m)[..., None, :]
    m = atoms.flatten(2).mT.to(torch.complex128)
    energy = m.abs().square().sum(-2)
    for ridge in (1e-5, 0.1):
        system = m.mH @ m + torch.diag_embed(ridge * energy).to(m.dtype)
        wanted = torch.linalg.solve(system, m.mH @ matched(obs).flatten(1)[..., None].to(m.dtype))[..., 0]
        found = Pursuit(obs, kappa[None], (3, 2), 3).fit(u, range_m, torch.ones(3, 3, dtype=torch.bool), ridge)
        torch.testing.assert_close(found, wanted.to(found.dtype), rtol=1e-3, atol=1e-4)
    some = Pursuit(obs, kappa[None], (3, 2), 3).fit(u, range_m, torch.tensor([[True, False, True]] * 3))
    assert bool((some[:, 1] == 0).all()) and bool((some[:, 0] != 0).all())


def test_what_is_not_finite_is_marked():
    obs = EchoScene(**SMALL, presence=1.0, snr_db=30.0).draw(6, generator("nan")).obs
    y = obs.y.clone()
    y[2, 0, 0], y[4, 3, 1] = math.nan, complex(0, math.inf)
    found = detect(replace(obs, y=y), EchoScene(**SMALL).kappa(), max_targets=2)
    clean = detect(obs, EchoScene(**SMALL).kappa(), max_targets=2)
    assert [Status(s).name for s in found.status.tolist()] == ["OK", "OK", "NONFINITE", "OK", "NONFINITE", "OK"]
    rest = torch.tensor([0, 1, 3, 5])
    assert not bool(found.detected[[2, 4]].any()) and torch.equal(found.u[rest], clean.u[rest])
    assert all(bool(torch.isfinite(getattr(found, name)).all()) for name in ("u", "range_m", "statistic", "threshold"))
    nothing = detect(replace(obs, y=torch.full_like(y, math.nan)))
    assert not bool(nothing.detected.any()) and bool((nothing.status == int(Status.NONFINITE)).all())


def test_batches_equal_their_items(monkeypatch):
    scene = EchoScene(**SMALL, max_targets=2, snr_db=20.0)
    slot = scene.draw(6, generator("batch"))
    whole = detect(slot.obs, slot.truth.kappa, max_targets=2)
    parts = [detect(slot.obs.rows(slice(i, i + 3)), slot.truth.kappa, max_targets=2) for i in (0, 3)]
    deep = replace(
        slot.obs, y=slot.obs.y.unflatten(0, (3, 2)), u_limits=slot.obs.u_limits.unflatten(0, (3, 2)), energy=None
    )
    deep = detect(deep, slot.truth.kappa, max_targets=2)
    one = replace(slot.obs.rows(slice(0, 1)), y=slot.obs.y[0], u_limits=slot.obs.u_limits[0], energy=slot.obs.energy[0])
    alone = detect(one, slot.truth.kappa, max_targets=2)
    assert alone.u.shape == (2,) and alone.status.shape == () and torch.equal(alone.detected, whole.detected[0])
    assert angle_delay_map(one, None, torch.tensor([0.1, 0.2]), torch.tensor([20.0])).shape == (2, 1)
    assert integrated(one, size=(5, 5)).shape == ()
    monkeypatch.setattr(detector, "SNAPSHOTS", 4)
    in_parts = detect(slot.obs, slot.truth.kappa.expand(6, -1), max_targets=2)
    for name in ("detected", "u", "range_m", "statistic", "threshold", "gain", "status"):
        value = getattr(whole, name)
        torch.testing.assert_close(value, getattr(in_parts, name), rtol=1e-4, atol=1e-4)
        joined = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(value, joined, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(value, getattr(deep, name).flatten(0, 1), rtol=1e-4, atol=1e-4)


def test_snr_from_unlabelled_maxima():
    gen = generator("snr")
    strong = 1 + -torch.rand(30000, generator=gen).log() * (1 + 10**1.5)
    noise = 5 + 2 * torch.rand(30000, generator=gen)
    found, error = snr_of(torch.cat([strong, noise]))
    assert found == pytest.approx(10**1.5, abs=4 * error) and error < 0.5
    slot = EchoScene().draw(1500, generator("snr"))
    found, error = snr_of(search(slot.obs, slot.truth.kappa, refine_steps=3).statistic)
    assert found == pytest.approx(10**1.5, abs=4 * error)
    assert math.isnan(snr_of(torch.ones(4))[0]) and math.isinf(snr_of(torch.ones(4))[1])


def brute_gospa(found, truth, cutoff, order):
    """By assignment on a square matrix in which nobody need be matched."""
    a, b = len(found), len(truth)
    cost = torch.zeros(a + b, a + b)
    cost[:a, :b] = torch.cdist(found, truth).clamp_max(cutoff) ** order if a and b else 0
    cost[:a, b:] = cutoff**order / 2
    cost[a:, :b] = cutoff**order / 2
    rows, columns = linear_sum_assignment(cost.numpy())
    return float(cost[rows, columns].sum())


@pytest.mark.parametrize("order", [1.0, 2.0])
def test_gospa_equals_the_best_assignment(order):
    gen = generator("gospa")
    found, truth = (4 * torch.rand(60, k, 2, generator=gen) for k in (4, 3))
    detected, present = (torch.rand(60, k, generator=gen) < 0.6 for k in (4, 3))
    value = gospa(found, detected, truth, present, cutoff_m=2.0, order=order)
    for i in range(60):
        wanted = brute_gospa(found[i][detected[i]], truth[i][present[i]], 2.0, order)
        assert float(value[i]) == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    swapped = gospa(truth, present, found, detected, cutoff_m=2.0, order=order)
    torch.testing.assert_close(value, swapped)
    with pytest.raises(ValueError, match="at most 6 targets"):
        gospa(torch.zeros(1, 7, 2), torch.ones(1, 7) > 0, truth[:1], present[:1])


def test_gospa_of_single_targets():
    p, yes, no = torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.bool)
    for far, wanted in ((0.5, 0.25), (5.0, 25.0), (30.0, 25.0)):
        assert float(gospa(p, yes, p + torch.tensor([far, 0.0]), yes)) == pytest.approx(wanted)
    assert [float(gospa(p, a, p, b)) for a, b in itertools.product((yes, no), repeat=2)] == [0.0, 12.5, 12.5, 0.0]


def test_errors_of_single_targets():
    truth = EchoTruth(
        torch.ones(4, dtype=torch.complex64),
        torch.tensor([[True], [True], [False], [True]]),
        torch.tensor([[0.0], [0.5], [0.0], [0.1]]),
        torch.tensor([[20.0], [20.0], [20.0], [20.0]]),
        torch.ones(4, 1, dtype=torch.complex64),
    )
    obs = EchoScene(**SMALL).draw(4, generator("errors")).obs
    blank = detect(obs)
    found = replace(
        blank,
        detected=torch.tensor([[True], [True], [True], [False]]),
        u=torch.tensor([[0.01], [0.6], [0.0], [0.1]]),
        range_m=torch.tensor([[21.0], [20.0], [20.0], [20.0]]),
    )
    errors = target_errors(found, truth)
    assert errors.hit.tolist() == [True, True, False, False] and errors.in_cell.tolist() == [True, False, False, False]
    assert errors.missed.tolist() == [False, False, False, True] and errors.false_alarm.tolist() == [0, 0, 1, 0]
    assert float(errors.range_m[0]) == pytest.approx(1.0) and float(errors.angle_deg[0]) == pytest.approx(
        0.573, abs=1e-3
    )
    assert float(errors.position_m[0]) == pytest.approx(math.hypot(1.0 - 21 * 5e-5, 0.21), rel=1e-3)
    assert math.isnan(float(errors.range_m[3])) and math.isnan(root_mean_square(errors.range_m, errors.hit & False))
    with pytest.raises(ValueError, match="use gospa"):
        target_errors(found, EchoTruth(*(v if v.ndim == 1 else v.expand(4, 2) for v in truth)))


def test_detection_probability_without_a_threshold_is_one():
    assert float(detection_probability(0.0, 10.0)) == 1.0
    assert float(detection_probability(12.0, 10.0)) == pytest.approx(math.exp(-1))
    assert float(detection_probability(12.0, 20.0, 0.5)) == pytest.approx(math.exp(-1))
    lost = float(detection_probability(12.0, 10.0, 0.0, 0.1))
    assert lost == pytest.approx(1 - (1 - math.exp(-1)) * 0.9)


def test_bounds_are_those_of_a_dense_fisher_matrix():
    slot = EchoScene(num_rx_ant=7, num_subcarriers=12, subcarrier_spacing_hz=2e6, form="full", presence=1.0).draw(
        1, generator("fisher")
    )
    obs, kappa = slot.obs, torch.ones(7, dtype=torch.complex128)
    gain = torch.tensor(0.3 + 0.4j, dtype=torch.complex128)

    def mean(p):
        n, s = torch.arange(7).double(), torch.arange(12).double()
        wave = torch.exp(1j * math.pi * n * p[0])
        tone = torch.exp(-4j * math.pi * s * 2e6 * p[1] / 299792458)
        flat = torch.complex(p[2], p[3]) * ((kappa * wave)[:, None] * (tone * obs.symbols[0])).flatten()
        return torch.view_as_real(flat).flatten()

    point = torch.tensor([0.2, 17.0, gain.real, gain.imag], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(mean, point)
    bound = torch.linalg.inv(2 * jacobian.T @ jacobian).diagonal()  # noise of variance 1: 1/2 per real dimension
    strength = gain.abs().square() * 7 * 12
    u_var, range_var = resolution(obs, strength)
    assert float(u_var) == pytest.approx(float(bound[0]), rel=1e-6)
    assert float(range_var) == pytest.approx(float(bound[1]), rel=1e-6)
    assert angle_delay_map(obs, None, torch.tensor([0.2]), torch.tensor([17.0])).shape == (1, 1, 1)
