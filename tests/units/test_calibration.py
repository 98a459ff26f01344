"""The parts of gain-phase calibration: losses, eigenvector and its covariance, the common shift, the start."""

import math
from dataclasses import replace

import pytest
import torch

import hhat
from hhat.ops.linalg import squared
from hhat.random import complex_normal, generator, qpsk
from hhat.scenarios.echoes import EchoScene
from hhat.sensing import Echoes, angle_delay_map, search
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.beam import climbed
from hhat.sensing.echoes import delay_response, steering
from hhat.sensing.eigenvector import Eigenvector, pull, shift_evidence
from hhat.sensing.losses import Aligned, PeakLoss, ResidualLoss, tangent
from hhat.sensing.scatter import Scatter, covariance, dominant, normalised, scatter, second_moment, shifted
from hhat.sensing.shift import Angles, log_likelihood, most_likely, shifts
from hhat.sensing.soft import OFFSETS, spread
from hhat.sensing.start import sector_start
from hhat.sensing.threshold import resolution
from hhat.sensing.views import aligned_views, line_of, peaks, recentred, turned

SMALL = {"num_rx_ant": 16, "num_subcarriers": 32, "subcarrier_spacing_hz": 1.92e6}


def gains(num=8, spread=1.0, *labels):
    gen = generator("gains", num, *labels)
    return normalised(torch.polar(0.9 + 0.2 * torch.rand(num, generator=gen), spread * torch.randn(num, generator=gen)))


def full_echoes(num=8, tones=16, count=5, dtype=torch.complex128):
    """Echoes per subcarrier in double precision, noise of a level that is not 1."""
    gen = generator("full", num, tones)
    y = complex_normal((count, num, tones), gen, dtype, 0.7)
    x = qpsk((count, tones), gen, dtype)
    limits = torch.tensor([[-0.3, 0.4]]).repeat(count, 1).double()
    return Echoes(y, limits, torch.tensor([10.0, 40.0]).double(), 1e6, 60e9, 0.7, x, snr=20.0)


@pytest.mark.parametrize("loss", [PeakLoss(), PeakLoss(1e-9), ResidualLoss(), ResidualLoss(3.0)])
def test_gradients_are_those_of_autograd_through_the_whole_reconstruction(loss):
    echoes, n, s = full_echoes(), 8, 16
    k = 1.3 * gains(n).to(torch.complex128)
    seen = peaks(echoes, k)
    variable = k.clone().requires_grad_(True)
    found = search(echoes, k, coarse=(4, 3))
    a, b = steering(echoes, found.u), delay_response(echoes, found.range_m)
    beam = variable * a
    atom = beam[:, :, None] * (b * echoes.symbols)[:, None, :]
    c = (atom.conj() * echoes.y).sum((1, 2))
    if isinstance(loss, PeakLoss):
        value = -squared(c) / (n * s * 0.7) * loss.scale
    else:
        rest = echoes.y - (c / (n * s + n * s / 20.0))[:, None, None] * atom
        value = loss.scale * squared(rest).sum((1, 2)).sqrt() / math.sqrt(0.7)
    value.mean().backward()
    energy = squared(echoes.y).sum((1, 2)) / 0.7
    aligned = Aligned(seen.z, energy, 20.0)
    torch.testing.assert_close(loss.value(k, aligned), value.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(loss.gradient(k, aligned), variable.grad, rtol=1e-8, atol=1e-12 * loss.scale)


def test_losses_refuse_what_they_cannot_know():
    z = complex_normal((3, 4), generator("refuse"))
    with pytest.raises(ValueError, match="energy"):
        ResidualLoss().value(gains(4), Aligned(z, None, 1.0))
    with pytest.raises(ValueError, match="SNR"):
        ResidualLoss().value(gains(4), Aligned(z, torch.ones(3), None))


def test_the_square_of_loss_15_is_affine_in_loss_14_and_both_point_the_same_way():
    """Spec 3.3: |k|^2 = N; and what is assumed of the SNR hardly turns the gradient."""
    slot = EchoScene(kappa_seed=3).draw(96, generator("affine"))
    k = gains(64, 0.3)
    views = peaks(slot.obs, k)
    cosines = []
    for snr in (3.16, 31.6, 316.0):
        seen = Aligned(views.z.to(torch.complex128), views.energy.double(), snr)
        kk = k.to(torch.complex128)
        d = 64 * (1 + 1 / snr)
        alpha = (2 / d - 64 / d**2) * 64
        want = seen.energy + alpha * PeakLoss().value(kk, seen)
        torch.testing.assert_close(ResidualLoss().value(kk, seen).square(), want, rtol=1e-6, atol=0)
        one, two = (tangent(loss.gradient(kk, seen), kk) for loss in (PeakLoss(), ResidualLoss()))
        cosines.append(float((one.conj() * two).sum().real / one.norm() / two.norm()))
    assert min(cosines) > 0.99999
    one = PeakLoss().gradient(kk, seen)
    # degree 2 in k: Euler
    assert float((kk.conj() * one).sum().real) == pytest.approx(2 * float(PeakLoss().value(kk, seen).mean()), rel=1e-9)
    assert abs(float((kk.conj() * tangent(one, kk)).sum().real)) < 1e-9 * float(one.norm())
    radial = [
        float((kk.conj() * g).sum().real / kk.norm() / g.norm()) for g in (one, ResidualLoss().gradient(kk, seen))
    ]
    assert radial[0] < -0.8 and abs(radial[1]) < 0.1  # (14) wants larger k, (15) hardly does


def test_a_common_phase_and_a_common_shift_change_nothing_that_is_seen():
    slot = EchoScene(**SMALL, presence=1.0).draw(4, generator("invariant"))
    echoes, kappa = slot.obs, slot.truth.kappa
    u, r = torch.linspace(-0.2, 0.2, 5), torch.linspace(12.0, 40.0, 4)
    there = angle_delay_map(echoes, kappa, u, r)
    phase = torch.polar(torch.ones(()), torch.tensor(1.1))
    torch.testing.assert_close(angle_delay_map(echoes, phase * kappa, u, r), there, rtol=1e-4, atol=1e-4)
    wave = torch.polar(torch.ones(16), 2 * math.pi * line_of(echoes) * 0.03)
    torch.testing.assert_close(angle_delay_map(echoes, kappa * wave, u - 0.03, r), there, rtol=1e-3, atol=1e-3)
    twice = replace(echoes, y=3j * echoes.y)
    torch.testing.assert_close(angle_delay_map(twice, kappa, u, r), 9 * there, rtol=1e-4, atol=1e-4)


def test_errors_of_gains_against_a_fine_fourier_transform():
    kappa, k = gains(32, 2.0, "a").to(torch.complex128), gains(32, 2.0, "b").to(torch.complex128)
    near = kappa * (1 + 0.1 * complex_normal((32,), generator("near"), torch.complex128))
    tilted = near * torch.polar(torch.ones(32).double(), math.pi * torch.arange(32).double() * 0.0123)
    found = gain_errors(torch.stack([k, near, tilted]), kappa)
    for number, one in enumerate((k, near, tilted)):
        beams = torch.fft.fft(one * kappa.conj(), 1 << 18).abs().square() / (32 * float(squared(one).sum()))
        # bin b is exp(-j 2 pi b n / size) = exp(-j pi n d), d = 2 b / size
        shift = 2 * int(beams.argmax()) / (1 << 18)
        assert float(found.e1[number]) == pytest.approx(1 - float(beams.max()), abs=2e-6)
        assert math.remainder(float(found.shift_u[number]) - shift, 2.0) == pytest.approx(0, abs=1e-5)
        assert float(found.e0[number]) == pytest.approx(1 - float(beams[0]), abs=1e-6)
    assert float(found.shift_u[2] - found.shift_u[1]) == pytest.approx(0.0123, abs=1e-9)
    with pytest.raises(ValueError, match="expected 32 antennas"):
        gain_errors(k[:5], kappa)


def test_the_climb_ends_at_the_top_of_the_beam():
    gen = generator("climb")
    p = torch.cat([torch.zeros(1), torch.rand(11, generator=gen).cumsum(0)]).double()
    weights = torch.polar(0.5 + torch.rand(40, 12, generator=gen).double(), 2 * math.pi * p * 0.02 * torch.randn(40, 1))
    d = climbed(weights, p, torch.zeros(40).double(), 0.08, 6)
    grid = torch.linspace(-0.08, 0.08, 16001).double()
    best = grid[
        squared(weights @ torch.polar(torch.ones(12, 16001).double(), -2 * math.pi * p[:, None] * grid)).argmax(-1)
    ]
    torch.testing.assert_close(d, best, rtol=0, atol=1.1e-5)


def test_the_eigenvector_is_the_maximiser_and_its_value_the_singular_value():
    gen = generator("maximiser")
    z, weight = complex_normal((20, 8), gen, torch.complex128), torch.rand(20, generator=gen).double()
    k = dominant(second_moment(z, weight))
    assert float(squared(k).sum()) == pytest.approx(8) and float(k.sum().imag) == pytest.approx(0, abs=1e-9)

    def value(g):
        return (weight * squared(z @ g.conj())).sum()

    top = torch.linalg.svdvals(weight.sqrt()[:, None] * z)[0] ** 2
    assert float(value(k)) == pytest.approx(8 * float(top), rel=1e-9)
    others = complex_normal((3000, 8), gen, torch.complex128)
    near = k + 1e-3 * others
    for pool in (others, near):
        pool = pool * math.sqrt(8) / pool.norm(dim=1, keepdim=True)
        assert float((weight[:, None] * squared(z @ pool.mH)).sum(0).max()) <= float(value(k)) * (1 + 1e-12)


def test_the_covariance_is_that_of_the_eigenvector_over_repeated_draws():
    """Spiked model: over 300 repeats of 100 snapshots, and the first-order formula (N - 1)(1 + 1 / SNR) / (n SNR)."""
    gen, n, count, snr, repeats = generator("sandwich"), 8, 100, 12.0, 300
    kappa = gains(n, 1.0).to(torch.complex128)
    g = complex_normal((repeats, count, 1), gen, torch.complex128, snr / n)
    z = g * kappa + complex_normal((repeats, count, n), gen, torch.complex128)
    actual, claimed = [], []
    for one in z:
        k = dominant(second_moment(one, torch.ones(count).double()))
        k = k * (k.conj() @ kappa) / (k.conj() @ kappa).abs()
        actual.append(squared(k - kappa))
        c, _ = covariance(scatter(one, torch.ones(count).double(), k))
        claimed.append(c.diagonal().real)
    actual, claimed = torch.stack(actual).mean(0), torch.stack(claimed).mean(0)
    assert float(actual.mean() / claimed.mean()) == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(actual, claimed, rtol=0.4, atol=0)
    assert float(actual.mean()) == pytest.approx((n - 1) / (count * snr) * (1 + 1 / snr), rel=0.1)


def test_sums_decay_add_and_turn():
    gen = generator("sums")
    z, more = complex_normal((9, 4), gen), complex_normal((5, 4), gen)
    k, one, two = gains(4), torch.ones(9), torch.ones(5)
    both = scatter(z, 0.5 * one, k).plus(scatter(more, two, k))
    joint = scatter(torch.cat([z, more]), torch.cat([0.5 * one, two]), k)
    part = scatter(z, one, k).decayed(0.5).plus(scatter(more, two, k))
    wave = torch.polar(torch.ones(4), torch.arange(4.0))
    for a, b, c in zip(both, joint, part, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)
    for a, b in zip(joint.turned(wave), scatter(torch.cat([z, more]) * wave, joint_weight(), k * wave), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert isinstance(joint, Scatter)


def joint_weight():
    return torch.cat([torch.full((9,), 0.5), torch.ones(5)])


def test_fitted_angles_bend_the_gains_and_the_factor_unbends_them():
    """Without the factor the error stays at its bias, var(1.5 (p / p_max)^2 / 2 SNR) over antennas, however many
    snapshots; with it the error is that of known angles."""
    scene = EchoScene(**SMALL, presence=1.0, snr_db=12.0, kappa_seed=2)
    slot = scene.draw(12000, generator("bend"))
    truth, kappa = slot.truth, slot.truth.kappa
    views, at = aligned_views(slot.obs, truth.u[:, 0], truth.range_m[:, 0]), line_of(slot.obs)
    genie = gain_errors(dominant(second_moment(views.z, views.weight)), kappa)
    views = turned(views, torch.zeros_like(views.u), kappa, at)
    views = recentred(views.at(views.statistic > 8), kappa, at, 0.03, 0.05)
    bent = gain_errors(dominant(second_moment(views.z, views.weight)), kappa)
    straight = dominant(second_moment(views.z, views.weight, resolution(slot.obs, views.statistic - 1)[0], at))
    assert float(bent.e1) > 1.7 * float(genie.e1)
    assert float(gain_errors(straight, kappa).e1) < 1.25 * float(genie.e1)


def test_the_density_of_angles_integrates_to_one_over_the_window():
    """Near broadside, where uniform in angle is uniform in u; up to the rim, which needs P(window | d)."""
    width, margin, s = 0.03, 0.012, 0.003
    low, high = torch.tensor([-width / 2]), torch.tensor([width / 2])
    u = torch.linspace(-width / 2 - margin, width / 2 + margin, 401, dtype=torch.float64)
    d = torch.tensor([-0.014, -0.010, -0.003, 0.0, 0.007, 0.0135], dtype=torch.float64)
    rows = torch.stack(
        [log_likelihood(Angles(x[None], torch.tensor([s**2]), torch.tensor([0.05]), low, high), d, margin) for x in u]
    )
    mass = torch.trapezoid(rows.exp(), u, dim=0)
    torch.testing.assert_close(mass, torch.ones(6, dtype=torch.float64), rtol=0, atol=2e-3)


def test_the_shift_is_found_with_its_variance_up_to_the_rim():
    gen, scores = generator("shift"), []
    for trial in range(18):
        true = (-0.0095, -0.004, 0.0, 0.002, 0.006, 0.0095)[trial % 6]
        count, margin = 700, 0.012
        mid, half = 0.8 * (2 * torch.rand(count, generator=gen) - 1), 0.05 + 0.05 * torch.rand(count, generator=gen)
        u = mid + half * (2 * torch.rand(count, generator=gen) - 1)
        s = 0.001 + 0.002 * torch.rand(count, generator=gen)
        seen = u - true + s * torch.randn(count, generator=gen)
        keep = (seen - mid).abs() < half + margin
        seen = Angles(seen, s.square(), torch.full_like(u, 0.01), mid - half, mid + half)
        seen = Angles(*(getattr(seen, name)[keep] for name in ("u", "var", "stray", "low", "high")))
        found = most_likely(log_likelihood(seen, d := shifts(step=2e-4), margin), d)
        assert found.inside or abs(true) > 0.009
        scores.append((found.u - true) / math.sqrt(found.var))
    rms = math.sqrt(sum(x * x for x in scores) / len(scores))
    assert 0.7 < rms < 1.35
    with pytest.raises(ValueError, match="at least 3"):
        most_likely(torch.zeros(2), torch.zeros(2))


def test_the_shift_repairs_gains_in_the_sign_in_which_it_is_found():
    slot = EchoScene(kappa_seed=5, presence=1.0).draw(700, generator("sign"))
    echoes, kappa, at = slot.obs, slot.truth.kappa, line_of(slot.obs)
    wrong = shifted(kappa, at, -0.004)  # an extra exp(+j 2 pi p 0.004)
    assert float(gain_errors(wrong, kappa).shift_u) == pytest.approx(0.004, abs=1e-5)
    views = recentred(peaks(echoes, wrong, 12.0, 0.012), wrong, at, 0.008, 0.012)
    found = most_likely(shift_evidence(views, echoes, 12.0, 0.012, d := shifts()), d)
    assert found.u == pytest.approx(0.004, abs=4 * math.sqrt(found.var)) and math.sqrt(found.var) < 1e-3
    assert float(gain_errors(shifted(wrong, at, found.u), kappa).e0) < float(gain_errors(wrong, kappa).e0) / 5


def test_the_start_needs_no_search_and_no_small_phases():
    for seed in (1, 2):
        slot = EchoScene(kappa_seed=seed, phase_spread_deg=180.0).draw(2048, generator("start", seed))
        errors = gain_errors(sector_start(slot.obs), slot.truth.kappa)
        before = gain_errors(torch.ones(64, dtype=torch.complex64), slot.truth.kappa)
        assert float(before.e1) > 0.8 and float(errors.e1) < 0.1 and abs(float(errors.shift_u)) < 0.01


def test_soft_weights_are_the_posterior_of_presence_over_the_whole_sector():
    """Against the integral of exp(g / (1 + g) L) over a dense map of the sector, for peaks of all heights."""
    scene = EchoScene(**SMALL, snr_db=14.0)
    slot = scene.draw(300, generator("posterior"))
    echoes, kappa, snr = slot.obs, slot.truth.kappa, scene.noise_var() * 10**1.4
    views = recentred(peaks(echoes, kappa), kappa, line_of(echoes), 0.03, 0.0)
    soft = spread(views, kappa, echoes, snr, 0.5, 0.0)
    assert soft.z.shape == (300 * len(OFFSETS), 16)
    mine = soft.weight.reshape(len(OFFSETS), -1).sum(0)
    low, high = echoes.u_limits.unbind(-1)
    u = low[:, None] + (high - low)[:, None] * (torch.arange(60) + 0.5) / 60
    r = torch.linspace(10.0, 43.75, 120)
    evidence = (snr / (1 + snr) * angle_delay_map(echoes, kappa, u, r)).double().exp().mean((1, 2)) / (1 + snr)
    true = (evidence / (1 + evidence)).float()
    strong = views.statistic > 9
    torch.testing.assert_close(mine[strong], true[strong], rtol=0, atol=0.12)
    assert float((mine - true)[strong].abs().mean()) < 0.02 and float((mine - true).abs().mean()) < 0.2


def test_the_snr_is_read_off_the_maps():
    slot = EchoScene(kappa_seed=4, snr_db=17.0, presence=0.3).draw(3000, generator("levels"))
    found = hhat.calibrate(
        replace(slot.obs, snr=None), hhat.calibrator("eigenvector", first=3000, max_steps=2, tol=1.0)
    )
    assert 10 * math.log10(found.info["snr"]) == pytest.approx(17.0, abs=0.7)
    assert found.info["presence"] == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("snr_db", [4.0, 7.0])
def test_pull_is_what_a_step_takes_of_an_error(snr_db):
    """Two starts that differ, and nothing else: what is left of the difference after a step."""
    slot = EchoScene(**SMALL, snr_db=snr_db).draw(3000, generator("pull"))
    kappa, p = normalised(slot.truth.kappa), torch.arange(16) / 2
    kept, state = [], {}
    for number in range(2):
        move = complex_normal((16,), generator("move", number))
        basis = torch.linalg.qr(torch.stack([kappa, p * kappa], 1)).Q  # phase, norm and shift are not errors of k
        move = move - basis @ (basis.mH @ move)
        move, ends = move / move.norm() * 4, []
        for sign in (0.1, -0.1):
            start = normalised(kappa + sign * move)
            calibrator = Eigenvector(start=lambda _, k=start: k, find_shift=False, first=1 << 20)
            state = calibrator.step(calibrator.init(slot.obs, generator("none")), slot.obs)
            turn = (state["kappa"].conj() * kappa).sum()
            ends.append(state["kappa"] * turn / turn.abs())
        kept.append(float((move.conj() * (ends[0] - ends[1])).sum().real / (0.2 * 16)))
    wanted = 1 - pull(state["strength"])
    assert wanted > 0.1 and sum(kept) / 2 == pytest.approx(wanted, abs=0.06)


def test_noise_alone_pulls_nowhere_and_blocks_add_up():
    echoes = EchoScene(**SMALL, presence=0.0).draw(2000, generator("noise alone")).obs
    state = Eigenvector().step(Eigenvector().init(echoes, generator("none")), echoes)
    assert pull(state["strength"]) < 0.25
    assert pull(torch.zeros(4)) == 0 and pull(torch.tensor([900.0, 1000.0, 90.0, 10.0])) == pytest.approx(0.9 * 8 / 9)


@pytest.mark.parametrize("seed", [1, 3])
def test_the_start_holds_on_long_arrays(seed):
    """256 antennas see each other over a few lags only: the eigenvector alone has e1 of 0.21 and 0.10 here."""
    short = {"num_subcarriers": 8, "subcarrier_spacing_hz": 1.92e6, "range_max_m": 14.0}
    scene = EchoScene(num_rx_ant=256, **short, snr_db=30.0, presence=1.0, kappa_seed=seed)
    slot = scene.draw(800, generator("long", seed))
    assert float(gain_errors(sector_start(slot.obs), slot.truth.kappa).e1) < 0.01
