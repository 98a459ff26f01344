"""Diffusion: network, schedule, prior, and its sampler against exact Gaussian scores, brute force and autograd."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch

import hhat
from hhat.methods.likelihood_steps import Dmps, Now, Proximal, VarianceMap
from hhat.methods.sampling import DiffusionPosterior
from hhat.nets.diffusion import FilmCnn, embedded
from hhat.nets.start import start_weights
from hhat.ops import Dense, Identity, Kron
from hhat.ops.linalg import squared
from hhat.priors.diffusion import Diffusion, basis_of
from hhat.priors.expert import PLANES, Expert, angles, expert_from, film_cnn, principal_of
from hhat.priors.gauss import Gauss
from hhat.priors.schedule import LAST_BETA, Schedule
from hhat.priors.stationary import covariance_of, lags_of, principal
from hhat.priors.weights import shipped
from hhat.random import complex_normal, generator
from hhat.train.data import Batch, cdl_data
from hhat.train.denoising import DenoisingFit
from hhat.train.loop import Recipe, train
from hhat.train.models import DIFFUSION
from hhat.types import Gaussian, Observation

SHAPE = (4, 8)


def power(label="power", shape=SHAPE):
    """Bins over 25 dB, mean 1."""
    p = 10 ** (2.5 * torch.rand(shape, generator=generator(label), dtype=torch.float64))
    return p / p.mean()


def expert(wiener=True, silent=True, width=4, p=None):
    p = power().float() if p is None else p
    quiet = ("behind.2.weight",) if silent else ()
    weights = start_weights(film_cnn(width, PLANES[wiener]), generator("expert"), quiet)
    return Expert(weights, p.log(), torch.zeros(5, *p.shape), width, wiener)


def observe(num=40, rows=6, noise_var=0.3, shape=SHAPE, dtype=torch.complex128, label="observe"):
    """Independent Gaussian angular bins through pilots."""
    gen = generator(label, rows)
    x = complex_normal((num, *shape), gen, dtype, power(shape=shape))
    pilots = complex_normal((rows, shape[1]), gen, dtype)
    op, basis = Kron(Identity((shape[0],)), Dense(pilots)), angles(shape)
    h = basis.apply(x)
    y = op.apply(h) + complex_normal((num, shape[0], rows), gen, dtype, noise_var)
    return h, Observation(y, op, noise_var, ("rx_ant", "tx_ant")), Gauss(power(shape=shape), basis=basis)


def solved(prior, obs, likelihood=None, steps=None, schedule=None):
    return hhat.solve(DiffusionPosterior(prior, likelihood or VarianceMap(), schedule, steps), obs)


def off(a, b):
    """Relative squared difference."""
    return float(squared(a - b).sum() / squared(b).sum())


@pytest.mark.parametrize(
    ("width", "planes", "count"), [(32, 2, 14779), (64, 2, 55025), (128, 2, 212683), (32, 5, 15211)]
)
def test_the_network_has_the_published_number_of_parameters(width, planes, count):
    assert sum(p.numel() for p in FilmCnn(width, planes).parameters()) == count


def test_the_network_sees_eleven_bins_and_knows_the_time():
    net = FilmCnn(8)
    net.load_state_dict(start_weights(net, generator("net")))
    x = torch.randn(1, 2, 21, 21, generator=generator("planes")).requires_grad_()
    net(x, torch.tensor([30.0]))[0, :, 10, 10].sum().backward()
    seen = x.grad.abs().sum((0, 1)) > 0
    assert seen[5:16, 5:16].all() and int(seen.sum()) == 121
    assert not torch.allclose(net(x, torch.tensor([30.0])), net(x, torch.tensor([60.0])))
    waves = embedded(torch.tensor([3.0]))
    assert waves.shape == (1, 16) and abs(float(waves[0, 7]) - math.sin(3e-4)) < 1e-7


def test_the_schedule_is_the_published_one():
    schedule = Schedule()
    assert abs(float(schedule.kept[-1]) - 0.005619) < 1e-6
    want = {1: 40.0, 2: 29.2, 5: 19.7, 10: 13.2, 20: 6.7, 50: -4.0, 100: -22.5}
    for time, snr_db in want.items():
        assert abs(-10 * float(schedule.var(torch.tensor(float(time))).log10()) - snr_db) < 0.05
    for steps in LAST_BETA:
        if steps >= 50:
            assert abs(10 * math.log10(float(Schedule(steps).kept[-1])) + 22.5) < 1
    times = torch.tensor([1.0, 1.5, 33.25, 99.9, 100.0])
    torch.testing.assert_close(schedule.time(schedule.var(times)), times, rtol=1e-4, atol=1e-4)
    assert schedule.times(25).tolist()[:2] == [100, 96] and schedule.times(25)[-1] == 1
    with pytest.raises(ValueError, match="num_steps"):
        Schedule(70)
    with pytest.raises(ValueError, match=r"expected 1\.\.100 steps, got 101"):
        schedule.times(101)


@pytest.mark.parametrize("v", [1e-5, 0.01, 1.0, 50.0, 1e4])
def test_a_silent_network_with_the_wiener_skip_is_exact_for_gaussian_bins(v):
    """Also with a variance per bin, and in units of a complex scale per item."""
    gen = generator("silent")
    r = complex_normal((3, *SHAPE), gen, var=power() + v)
    scale = torch.tensor([1.0, 2j, -0.3 + 0.4j]).reshape(3, 1, 1)
    per_bin = v * (1 + torch.rand(3, *SHAPE, generator=gen))
    for var in (torch.tensor(v), per_bin):
        prior, exact = Diffusion(expert=expert()), Gauss(power().float())
        for own, known in ((prior, exact), (prior.scaled(scale), exact.scaled(scale))):
            found, want = own.denoise(Gaussian(r, var)), known.denoise(Gaussian(r, var))
            torch.testing.assert_close(found.mean, want.mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.var, want.var.expand(r.shape), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("wiener", [True, False])
def test_the_denoiser_is_the_noise_estimate_of_the_papers(wiener):
    """x_0 = (h_t - sqrt(1 - abar) eps)/sqrt(abar), eps = e_W + sqrt(g) N([h_t, e_W, 2g - 1]) or N(h_t)."""
    own = expert(wiener, silent=False)
    time = torch.tensor([37.0])
    kept = Schedule().kept[36].float()
    h_t = complex_normal((5, *SHAPE), generator("h_t"))
    p = power().float()
    total = kept * p + 1 - kept
    g, e = kept * p / total, (1 - kept).sqrt() * h_t / total
    planes = [h_t.real, h_t.imag]
    if wiener:
        planes += [e.real, e.imag, (2 * g - 1).expand(5, *SHAPE)]
    net = FilmCnn(4, len(planes))
    net.load_state_dict(own.weights)
    eps = torch.view_as_complex(net(torch.stack(planes, 1), time).movedim(1, -1).contiguous())
    eps = e + g.sqrt() * eps if wiener else eps
    want = (h_t - (1 - kept).sqrt() * eps) / kept.sqrt()
    v = ((1 - kept) / kept).reshape(1, 1, 1)
    torch.testing.assert_close(own.mean(h_t / kept.sqrt(), v), want, rtol=1e-4, atol=1e-4)


def test_samples_have_the_powers_of_the_bins_and_oamp_takes_the_prior():
    prior = Diffusion(expert=expert(), sample_steps=20)
    x = prior.sample((2000, *SHAPE), generator("samples"))
    torch.testing.assert_close(squared(x).mean(0), power().float(), rtol=0.1, atol=1e-3)
    _, obs, exact = observe(dtype=torch.complex64)
    own = Diffusion(expert=expert(), basis=exact.basis)
    wanted = hhat.solve(hhat.method("oamp", prior=exact), obs)
    found = hhat.solve(hhat.method("oamp", prior=own), obs)
    assert off(found.belief.mean, wanted.belief.mean) < 1e-4
    torch.testing.assert_close(found.belief.var, wanted.belief.var, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("steps", [25, 100])
def test_with_the_exact_score_the_sampler_ends_at_the_lmmse_estimate(steps):
    """Oracle of diffusion_experts section 8.4; through the network (silent) as through the Gaussian prior."""
    _, obs, exact = observe()
    lmmse = hhat.solve(hhat.method("lmmse", prior=exact), obs).belief
    for prior in (exact, Diffusion(expert=expert(p=power()), basis=exact.basis)):
        for whole in (True, False, None):
            found = solved(prior, obs, VarianceMap(whole), steps).belief
            assert off(found.mean, lmmse.mean) < 2e-5
            torch.testing.assert_close(found.var, lmmse.var.expand(found.var.shape), rtol=1e-3, atol=1e-6)


def test_the_bias_of_the_paper_s_step_is_no_matter_of_discretisation():
    """Section 8.4: with the exact score a gap to LMMSE appears, the same with 100, 300 and 1000 steps."""
    scene = hhat.scenario("cdl", profile="C", pilot_ratio=0.6, snr_db=30.0)
    slot = scene.draw(10, generator("bias"))
    basis = angles((16, 64))
    dense = basis.dense(torch.complex64)
    prior = Gauss((dense.mH @ scene.covariance() @ dense).diagonal().real.clamp_min(1e-6).reshape(16, 64), basis=basis)
    lmmse = hhat.nmse_db(hhat.solve(hhat.method("lmmse", prior=prior), slot.obs), slot.truth)
    literal = [
        hhat.nmse_db(solved(prior, slot.obs, Dmps(1.0, "ht"), n, Schedule(n)), slot.truth) for n in (100, 300, 1000)
    ]
    assert max(literal) - min(literal) < 0.2 and min(literal) > lmmse + 3
    denoised = hhat.nmse_db(solved(prior, slot.obs, Dmps(None, "h0")), slot.truth)
    assert lmmse < denoised < min(literal) - 1


def test_a_white_prior_gives_regularised_least_squares():
    """Section 8.5: the exact score to 5e-4; the paper's step with rho = 1 is off by several per cent."""
    _, obs, exact = observe(rows=5, noise_var=0.5)
    white = Gauss(1.0, basis=exact.basis)
    ridge = hhat.solve(hhat.method("lmmse", prior=white), obs).belief.mean
    assert off(solved(white, obs, VarianceMap(False), 100).belief.mean, ridge) < 5e-4
    assert 0.003 < off(solved(white, obs, Dmps(1.0, "ht")).belief.mean, ridge) < 0.3


@pytest.mark.parametrize("likelihood", [VarianceMap(), Proximal(), Dmps(), Dmps(1.0, "ht")])
def test_limits_and_symmetries(likelihood):
    """Section 8.6: square pilots without noise, and nothing but noise; 8.7: phase, and a unitary turn of the pilots."""
    h, obs, exact = observe(rows=8, noise_var=1e-9)
    assert hhat.nmse_db(solved(exact, obs, likelihood).belief.mean, h) < -60
    drowned = Observation(obs.y, obs.op, 1e9, obs.axes)
    assert squared(solved(exact, drowned, likelihood).belief.mean).mean() < 1e-6
    h, obs, exact = observe()
    own = Diffusion(expert=expert(p=power()), basis=exact.basis)
    plain = solved(own, obs, likelihood).belief.mean
    phase = complex(0.6, 0.8)
    turned = solved(own, Observation(phase * obs.y, obs.op, obs.noise_var, obs.axes), likelihood).belief.mean
    assert off(turned, phase * plain) < 1e-10
    unitary = torch.linalg.qr(complex_normal((6, 6), generator("turn"), torch.complex128))[0]
    op = Kron(Identity((4,)), Dense(unitary @ obs.op.right.matrix))
    mixed = solved(own, Observation(obs.y @ unitary.mT, op, obs.noise_var, obs.axes), likelihood).belief.mean
    assert off(mixed, plain) < 1e-10


def brute(y, x, a, level, noise):
    """A^H (s2 I + v A A^H)^-1 (y - A x), all dense."""
    total = noise * torch.eye(len(a), dtype=a.dtype) + level * a @ a.mH
    return (a.mH @ torch.linalg.solve(total, (y - x @ a.mT).mT)).mT


def test_the_likelihood_score_is_that_of_brute_force_and_of_autograd():
    """Section 8.8, at 3 x 6 antennas and 4 pilots; torch's gradient is twice the conjugate Wirtinger one."""
    shape, level, noise = (3, 6), torch.tensor([[0.7]], dtype=torch.float64), 0.4
    _, obs, exact = observe(num=2, rows=4, noise_var=noise, shape=shape)
    from hhat.methods.base import problem

    task = problem(obs, exact)
    a, noise = task.op.dense(torch.complex128), float(obs.noise_var)  # 0.4 in single precision
    z = complex_normal((2, *shape), generator("z"), torch.complex128)
    x = Gaussian(complex_normal((2, *shape), generator("x0"), torch.complex128), torch.ones(1, 1))
    flat = obs.y.flatten(1)
    for residual, centre in (("ht", z), ("h0", x.mean)):
        now = Now(task, torch.as_tensor(obs.noise_var), z, level, x, 0.3, torch.ones(1, 1))
        moved, _ = Dmps(1.0, residual)(now)
        push = (moved - z - 0.3 * (x.mean - z)) / (0.3 * 0.7)
        want = brute(flat, centre.flatten(1), a, 0.7, noise).reshape(2, *shape)
        torch.testing.assert_close(push, want, rtol=1e-10, atol=1e-10)
    leaf = z.clone().requires_grad_()
    total = noise * torch.eye(12, dtype=torch.complex128) + 0.7 * a @ a.mH
    rest = flat - leaf.flatten(1) @ a.mT
    log = -(rest.conj() * torch.linalg.solve(total, rest.mT).mT).sum().real
    want = brute(flat, z.flatten(1), a, 0.7, noise).reshape(2, *shape)
    torch.testing.assert_close(torch.autograd.grad(log, leaf)[0] / 2, want, rtol=1e-10, atol=1e-10)


def test_a_large_weight_of_y_does_not_diverge():
    """Pitfall 8: rho = 16 at 40 dB, unbounded, is 60 dB off."""
    h, obs, exact = observe(noise_var=1e-3)
    for residual in ("h0", "ht"):
        assert hhat.nmse_db(solved(exact, obs, Dmps(16.0, residual)).belief.mean, h) < -3


def test_noise_that_differs_between_samples_is_weighed():
    """A pilot drowned in noise is a pilot that is not there."""
    _, obs, exact = observe()
    noise = torch.full((6,), 0.3, dtype=torch.float64)
    noise[-1] = 1e6
    fewer = Kron(Identity((4,)), Dense(obs.op.right.matrix[:-1]))
    for likelihood in (VarianceMap(), Proximal(), Dmps(2.0)):
        found = solved(exact, Observation(obs.y, obs.op, noise, obs.axes), likelihood)
        want = solved(exact, Observation(obs.y[..., :-1], fewer, 0.3, obs.axes), likelihood)
        assert off(found.belief.mean, want.belief.mean) < 1e-6, likelihood


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Dmps(residual="h1"), "residual: expected 'h0' or 'ht'"),
        (lambda: Dmps(rho=0.0), "rho"),
        (lambda: Proximal(0.0), "widen"),
        (lambda: Diffusion(), "weights: expected a file or one of"),
        (lambda: Diffusion("no such"), "no such file"),
        (lambda: Diffusion(expert=expert(), ndim=3), "one or two axes"),
        (lambda: Diffusion(expert=expert(), basis=angles((4, 9))), r"an expert for \(4, 8\) coefficients"),
        (lambda: DiffusionPosterior(likelihood="exact"), "expected one of variance-map proximal dmps dmps-printed"),
        (lambda: DiffusionPosterior(max_steps=200), r"expected 1\.\.100 steps"),
    ],
)
def test_wrong_settings_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def small(seed=0, width=16):
    """Each beam like its neighbour: what independent bins do not know."""
    gen = generator("neighbours", seed)
    w = complex_normal((1000, *SHAPE), gen)
    x = (w + w.roll(1, -1)) * 0.5**0.5
    op = Kron(Identity((SHAPE[0],)), Dense(complex_normal((6, SHAPE[1]), gen)))
    data = Neighbours(x, op, angles(SHAPE))
    return DenoisingFit(data, width, True, Schedule(), seed, half=False), x


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Training data that is no capture: coefficients, every fifth apart."""

    x: torch.Tensor
    op: Kron
    basis: Kron

    def draw(self, n, snr_db, gen, held_out=False):
        some = self.x[(torch.arange(len(self.x)) % 5 == 4) == held_out]
        h = self.basis.apply(some[torch.randint(0, len(some), (n,), generator=gen)])
        return Batch(h, Observation(self.op.apply(h), self.op, 0.1), self.basis)

    def test(self, snr_db, seed):
        yield self.draw(8, (snr_db, snr_db), generator(seed), True)


def test_the_loss_is_held_between_its_floor_and_its_start():
    """Section 8.3: the loss of independent Gaussian bins is mean p/(p + v) before training, and what a network reaches
    is below that and above the mixture's own, whose denoiser is exact."""
    scene = hhat.scenario("cdl", profile="C")
    h = scene.channels(800, generator("floor"))
    basis = angles((16, 64))
    x = basis.adjoint(h)
    p = squared(x).mean(0)
    own = Expert(expert().weights, p.log(), torch.zeros(5, 16, 64), 4)
    matrix = basis.dense(torch.complex128)
    values = torch.linalg.eigvalsh(matrix.mH @ scene.covariance(torch.complex128) @ matrix).clamp_min(0)
    full = {1: 0.488, 3: 0.399, 10: 0.304, 20: 0.238, 30: 0.190, 50: 0.113, 80: 0.028}
    bins = {1: 0.996, 3: 0.910, 10: 0.590, 20: 0.376, 30: 0.264, 50: 0.134, 80: 0.030}
    for time in full:
        v = Schedule().var(torch.tensor(float(time)))
        eps = complex_normal(tuple(x.shape), generator("eps", time))
        loss = float((squared(own.mean(x + v.sqrt() * eps, v.reshape(1, 1, 1)) - x) / v).mean())
        floor = float((values / (values + v)).mean())
        assert abs(loss - bins[time]) < 0.02 and abs(floor - full[time]) < 0.01 and loss > floor


def test_training_beats_gaussian_bins_and_its_error_table_is_right():
    fit, _ = small()
    recipe = Recipe(200, 48, 1e-2, check_every=100, held_out=200, warm_up=20, average=0.95)
    found = train(fit, recipe)
    before = fit_start(fit, recipe)
    assert found.curve[-1]["valid_db"] < before["valid_db"] - 0.1
    assert found.curve[-1]["reference_nmse_db"] < before["reference_nmse_db"] - 0.5
    own = fit.finished(found.weights)
    fresh = small(1)[1]
    for v in (0.03, 1.0, 20.0):
        r = fresh + complex_normal(tuple(fresh.shape), generator("fresh", v), var=v)
        x = Diffusion(expert=own).denoise(Gaussian(r, torch.tensor(v)))
        assert abs(float(squared(x.mean - fresh).mean() / x.var.mean()) - 1) < 0.12
    times = dict(fit.losses(own))
    assert times[100.0] < times[1.0] < 1.1


def fit_start(fit, recipe):
    held_out = fit.draw(recipe.held_out, generator("train", "held out", recipe.seed), held_out=True)
    return fit.check(fit.start(), held_out)


def test_a_training_goes_on_from_its_checkpoint_with_the_same_bits(tmp_path):
    fit, _ = small()
    recipe = Recipe(6, 16, 1e-2, check_every=2, held_out=20, average=0.9)
    whole = train(fit, recipe)
    stop = lambda step, db: (_ for _ in ()).throw(KeyboardInterrupt) if step == 4 else None  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        train(fit, recipe, tmp_path, progress=stop)
    again = train(fit, recipe, tmp_path)
    assert all(torch.equal(value, whole.weights[name]) for name, value in again.weights.items())
    assert again.curve == whole.curve


def test_the_verb_trains_an_expert_that_estimate_takes(monkeypatch, tmp_path, capsys):
    from hhat.cli import main
    from hhat.train import data, denoising, models

    monkeypatch.setitem(DIFFUSION.profiles, "quick", Recipe(2, 4, held_out=8, average=0.9))
    for module, name, value in (
        (data, "CDL_CHANNELS", 20),
        (models, "TEST_CHANNELS", 4),
        (denoising, "ERROR_CHANNELS", 4),
        (denoising, "POWER_CHANNELS", 100),
        (denoising, "REFERENCE_CHANNELS", 2),
    ):
        monkeypatch.setattr(module, name, value)
    assert main(["train", "diffusion", "--data", "cdl-cd-rotated", "-o", str(tmp_path)]) == 0
    assert "diffusion.safetensors" in capsys.readouterr().out
    path = str(tmp_path / "diffusion.safetensors")
    slot = hhat.scenario("cdl").draw(3, generator("verb"))
    hhat.write(tmp_path / "own.h5", slot)
    call = ["estimate", str(tmp_path / "own.h5"), "--method", "diffusion-posterior", "--prior", "diffusion"]
    call += ["--set", "likelihood=dmps"]
    assert main([*call, "--weights", path, "--json"]) == 0
    assert '"OK": 3' in capsys.readouterr().out
    with pytest.raises(ValueError, match="log_power"):
        from hhat.priors.weights import read_weights

        found = read_weights(path)
        expert_from({**found.card["settings"], "shape": [4, 4]}, found.weights)


def test_names_of_data():
    assert cdl_data("cdl", 0) is None and cdl_data("cdl-c.h5", 0) is None and cdl_data("cdl-sionna", 0) is None
    with pytest.raises(ValueError, match="neither a file nor a scenario"):
        from hhat.train.run import task_for

        task_for("diffusion", "cdl-x")


def test_a_scarce_profile_is_the_start_of_the_same_draw(monkeypatch):
    from hhat.train import data

    monkeypatch.setattr(data, "CDL_CHANNELS", 50)
    monkeypatch.setattr(data, "SCARCE_CHANNELS", 10)
    whole, few, pool = (
        cdl_data(name, 3).slot.truth.h
        for name in ("cdl-b-rotated", "cdl-b-scarce-rotated", "cdl-abcd-scarce-b-rotated")
    )
    assert torch.equal(few, whole[:10]) and len(pool) == 160
    mine = (pool[:, None] == few).all(-1).all(-1).any(1)
    apart = torch.arange(160) % 5 == 4  # what a capture keeps for validation
    assert (int(mine.sum()), int(mine[apart].sum())) == (10, 2)
    for name in ("cdl-abcd-scarce", "cdl-acd-scarce-b"):
        with pytest.raises(ValueError, match="one of the profiles behind -scarce"):
            cdl_data(name, 0)


def test_replaced_scale_is_a_new_prior():
    prior = Diffusion(expert=expert())
    assert torch.equal(replace(prior, scale=2.0).moments().var, prior.scaled(2.0).moments().var)


def clustered(shape=SHAPE):
    """The exact covariance of CDL-C seen by small arrays, and channels that have it."""
    scene = hhat.scenario("cdl", profile="C", num_rx_ant=shape[0], num_tx_ant=shape[1])
    return scene.covariance(torch.complex128), scene


def correlated_expert(covariance, shape=SHAPE):
    lags = lags_of(covariance, shape).to(torch.complex64)
    p = principal_of(lags)[0].reshape(shape).clamp_min(1e-6)
    quiet = start_weights(film_cnn(4, PLANES[True]), generator("expert"), ("behind.2.weight",))
    return Expert(quiet, p.log(), torch.zeros(5, *shape), 4, lags=lags)


def test_lags_hold_the_covariance_of_uniform_arrays():
    covariance, _ = clustered()
    lags = lags_of(covariance, SHAPE)
    torch.testing.assert_close(covariance_of(lags), covariance, rtol=0, atol=1e-12)
    torch.testing.assert_close(lags.flip(0, 1).conj(), lags, rtol=0, atol=1e-12)
    powers, turn = principal(lags, angles(SHAPE))
    torch.testing.assert_close(turn.mH @ turn, torch.eye(32).to(turn), rtol=0, atol=1e-12)
    root = angles(SHAPE).dense(torch.complex128) @ turn
    torch.testing.assert_close((root * powers) @ root.mH, covariance, rtol=0, atol=1e-12)


def test_a_silent_correlated_expert_is_the_covariance_s_lmmse():
    covariance, scene = clustered()
    own = correlated_expert(covariance)
    prior = Diffusion(expert=own, basis=basis_of(own, angles(SHAPE)))
    slot = scene.draw(30, generator("correlated"))
    exact = hhat.prior("covariance", matrix=covariance.to(torch.complex64), shape=SHAPE)
    wanted = hhat.solve(hhat.method("lmmse", prior=exact), slot.obs).belief
    found = solved(prior, slot.obs).belief
    assert off(found.mean, wanted.mean) < 1e-4
    torch.testing.assert_close(found.var, wanted.var.expand(found.var.shape), rtol=1e-2, atol=1e-4)
    back = expert_from(own.settings(SHAPE), own.tensors())
    r = Gaussian(complex_normal((3, *SHAPE), generator("r")), torch.tensor(0.2))
    assert torch.equal(Diffusion(expert=back).denoise(r).mean, Diffusion(expert=own).denoise(r).mean)


def test_the_network_of_a_correlated_expert_sees_bins():
    """Of a circulant covariance bins are the uncorrelated coefficients, in another order: both kinds then agree."""
    p = power("circulant")
    dense = angles(SHAPE).dense(torch.complex128)
    lags = lags_of((dense * p.flatten()) @ dense.mH, SHAPE).to(torch.complex64)
    plain = expert(silent=False, p=p.float())
    turned = replace(plain, log_power=principal_of(lags)[0].reshape(SHAPE).log(), lags=lags)
    bins = complex_normal((5, *SHAPE), generator("bins"))
    v = torch.tensor(0.3).reshape(1, 1, 1)
    found = turned.mean((bins.flatten(1) @ turned.turn.conj()).reshape(bins.shape), v)
    found = (found.flatten(1) @ turned.turn.mT).reshape(bins.shape)
    torch.testing.assert_close(found, plain.mean(bins, v), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("profile", "ahead"), [("C", 1.5), ("D", 0.5)])
def test_shipped_experts_know_more_than_their_bins_and_say_their_error(profile, ahead):
    """On channels that training did not see, at 20 dB; inside `oamp`, where they are best."""
    prior = Diffusion(f"cdl-{profile.lower()}")
    slot = hhat.scenario("cdl", profile=profile, snr_db=20.0).draw(24, generator("shipped", profile))
    bins = Gauss(prior.expert.power, basis=prior.basis)
    linear = hhat.nmse_db(hhat.solve(hhat.method("lmmse", prior=bins), slot.obs), slot.truth)
    found = hhat.solve(hhat.method("oamp", prior=prior), slot.obs)
    sampled = solved(prior, slot.obs)
    assert hhat.nmse_db(found, slot.truth) < linear - ahead
    assert hhat.nmse_db(sampled, slot.truth) < linear - ahead / 3
    ratio = float(squared(found.belief.mean - slot.truth.h).mean() / found.belief.var.mean())
    assert 0.8 < ratio < 1.35
    steps = [loss for _, loss in shipped(f"diffusion-cdl-{profile.lower()}").card["loss_per_entry"]]
    assert all(b < a for a, b in pairwise(steps))


def test_without_a_prior_it_takes_the_expert_of_all_profiles_where_that_fits():
    slot = hhat.scenario("cdl", profile="D", snr_db=10.0).draw(2, generator("default"))
    est = hhat.solve(hhat.method("diffusion-posterior", max_steps=4), slot.obs)
    assert est.info["prior"] == "diffusion cdl-abcd" and torch.isfinite(est.belief.mean).all()
    small = hhat.scenario("cdl", num_rx_ant=4).draw(2, generator("default"))
    with pytest.raises(ValueError, match=r"expected one for channels \(4, 64\)"):
        hhat.solve(hhat.method("diffusion-posterior"), small.obs)
