"""`wgan`: descent in latents against ridge regression; its generator's training: turns, penalty, resumption."""

import functools

import pytest
import torch

import hhat
from hhat.methods.wgan import Wgan
from hhat.nets.generator import Critic, Generator
from hhat.ops import Dense, Identity, Kron
from hhat.priors.gauss import Gauss
from hhat.priors.generated import GeneratedBins, Linear, generated_from
from hhat.priors.weights import shipped
from hhat.random import complex_normal, generator
from hhat.train.loop import Recipe, train
from hhat.train.wgan import CRITIC_TURNS, MADE, SHARP, WGAN, WganFit
from hhat.types import Observation
from tests.units.test_ldamp import Stopped, small_data

SHORT = Recipe(CRITIC_TURNS + 3, batch=4, check_every=CRITIC_TURNS + 1, held_out=1, betas=(0.5, 0.9))


def observe(num=5, rx=2, tx=6, rows=4, noise_var=0.3, dtype=torch.complex128):
    gen = generator("wgan", tx)
    op = Kron(Identity((rx,)), Dense(complex_normal((rows, tx), gen, dtype)))
    h = complex_normal((num, rx, tx), gen, dtype)
    return h, Observation(op.apply(h) + complex_normal((num, rx, rows), gen, dtype, noise_var), op, noise_var)


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_a_linear_generator_gives_the_ridge_solution(strength):
    """h = W z with real z and noise that differs between samples, against the normal equations over the reals."""
    gen = generator("ridge")
    _, obs = observe()
    noise = 0.2 + torch.rand(obs.y.shape, generator=gen, dtype=torch.float64)
    obs = Observation(obs.y, obs.op, noise)
    matrix = complex_normal((12, 5), gen, torch.complex128)
    method = Wgan(Linear(matrix), strength=strength, restarts=2, max_steps=250)
    est = hhat.solve(method, obs)
    seen = obs.op.dense(torch.complex128) @ matrix
    for i in range(5):
        weight = (1 / noise[i].flatten()).sqrt()
        a = torch.view_as_real(weight[:, None] * seen).movedim(-1, 0).reshape(-1, 5)
        y = torch.view_as_real(weight * obs.y[i].flatten()).movedim(-1, 0).reshape(-1)
        z = torch.linalg.solve(a.mT @ a + strength / 2 * torch.eye(5).double(), a.mT @ y)
        torch.testing.assert_close(est.info["latents"][i], z, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(est.belief.mean[i].flatten(), matrix @ z.to(torch.complex128), rtol=1e-3, atol=1e-3)
        value = (y - a @ z).square().sum() + strength / 2 * z.square().sum()
        torch.testing.assert_close(est.info["objective"][i].min() / noise[i].mean(), value, rtol=1e-3, atol=0)
    assert torch.isinf(est.belief.var).all() and method.variance == "none"


def test_with_all_latents_it_is_the_lmmse_estimate_of_a_white_channel():
    _, obs = observe()
    want = hhat.solve(hhat.method("lmmse", prior=Gauss(2.0)), obs).belief.mean
    got = hhat.solve(Wgan(Linear(scale=2**0.5), strength=1.0, restarts=2, max_steps=300, rate=0.2), obs).belief.mean
    torch.testing.assert_close(got, want, rtol=1e-3, atol=2e-3)


class Folded:
    """G(z) = |z - 1.5| + 0.3 z, which is 1 at z = 0.714 and at z = 1.923: two valleys that fit, and |z| decides."""

    def num_latent(self, shape):
        return 1

    def __call__(self, z, shape):
        return ((z - 1.5).abs() + 0.3 * z).to(z.dtype.to_complex()).reshape(*z.shape[:-1], *shape)

    def scaled(self, c):
        return self


def test_the_lowest_restart_is_taken():
    obs = Observation(torch.ones(1, 1, 1, dtype=torch.complex128), Identity((1, 1)), 0.01)
    est = hhat.solve(Wgan(Folded(), strength=0.1, restarts=12, max_steps=200), obs, gen=generator("restarts"))
    value = est.info["objective"][0]
    assert abs(float(est.info["latents"][0, 0]) - 0.714) < 0.02
    assert float(value.max()) > 4 * float(value.min())  # some ended in the other valley
    assert abs(float(value.min()) - 0.05 * 0.01 * 0.714**2) < 1e-5


def test_the_networks_have_the_size_they_should():
    assert sum(p.numel() for p in Generator(60, (16, 64)).parameters()) == 90218
    assert Generator(3, (8, 16))(torch.zeros(2, 3)).shape == (2, 2, 8, 16)
    assert Critic((8, 16))(torch.zeros(3, 2, 8, 16)).shape == (3,)


def test_without_arguments_it_takes_the_weights_of_the_package():
    slot = hhat.scenario("cdl", profile="D", snr_db=20.0).draw(3, generator("shipped"))
    est = hhat.solve(hhat.method("wgan", restarts=1, max_steps=40), slot.obs)
    assert est.info["latents"].shape == (3, 60) and hhat.nmse_db(est, slot.truth) < -0.5
    found = shipped("wgan")
    law = generated_from(found.card["settings"], found.weights)
    torch.testing.assert_close(law(est.info["latents"], (16, 64)), est.belief.mean)
    made = law(torch.randn(200, 60, generator=generator("made")), (16, 64))
    assert 0.3 < float(made.abs().square().mean()) < 2
    with pytest.raises(ValueError, match=r"wgan: weights: expected some for channels \(2, 6\); these are for \(16, 64"):
        hhat.solve(hhat.method("wgan"), observe()[1])


def test_a_card_of_something_else_is_refused():
    found = shipped("wgan")
    with pytest.raises(ValueError, match="expected kind generator, got 'dncnn'"):
        generated_from(shipped("ldamp").card["settings"], found.weights)
    with pytest.raises(ValueError, match=r"first.weight: expected shape \(768, 61\), got \(768, 60\)"):
        generated_from({**found.card["settings"], "num_latent": 61}, found.weights)
    with pytest.raises(ValueError, match="multiples of 8"):
        generated_from({**found.card["settings"], "shape": [16, 60]}, found.weights)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"prior": Gauss(1.0)}, "prior: expected a generator, got Gauss"),
        ({"restarts": 0}, "restarts: expected at least 1, got 0"),
        ({"strength": -1.0}, "strength"),
        ({"rate": 0.0}, "rate: expected a number > 0"),
        ({"prior": Linear(torch.zeros(3, 2))}, "for channels of 3 entries, the observation's have 12"),
    ],
)
def test_wrong_settings_are_named(settings, word):
    with pytest.raises(ValueError, match=word):
        hhat.solve(hhat.method("wgan", **settings), observe()[1])


def test_the_two_networks_move_in_turns():
    fit = WganFit(small_data(), 3, 0)
    names = list(fit.start())
    assert any(name.startswith(MADE) for name in names) and any(name.startswith(SHARP) for name in names)
    seen = [fit.turn(step) for step in range(2 * CRITIC_TURNS + 2)]
    assert [turn.prefix for turn in seen] == 2 * ([SHARP] * CRITIC_TURNS + [MADE])
    assert [turn.count for turn in seen if turn.prefix == SHARP] == list(range(2 * CRITIC_TURNS))
    assert [turn.count for turn in seen if turn.prefix == MADE] == [0, 1]
    start = fit.start()
    for steps, still in ((CRITIC_TURNS, MADE), (CRITIC_TURNS + 1, "none")):
        moved = train(fit, Recipe(steps, batch=4, check_every=steps, held_out=2)).weights
        for name, value in moved.items():
            if name != SHARP + "last.bias":  # of no consequence: it moves real and made alike
                assert torch.equal(value, start[name]) == name.startswith(still), name


def test_each_moves_down_its_own_loss():
    """The critic's step widens the distance between real and made that the generator's narrows, and the penalty is
    the slope that autograd has for a single channel."""
    fit = WganFit(small_data(), 3, 0)
    batch, start = fit.draw(32, generator("turn")), fit.start()

    def apart(weights):
        made = fit._network(weights).bins(batch.z)
        return float((fit._judged(weights, batch.x).mean() - fit._judged(weights, made).mean()).detach())

    for prefix, sign in ((SHARP, 1), (MADE, -1)):
        leaves = {n: v.clone().requires_grad_(n.startswith(prefix)) for n, v in start.items()}
        turn = fit.turn(0 if prefix == SHARP else CRITIC_TURNS)._replace(count=1)  # without the penalty
        mine = [n for n in leaves if n.startswith(prefix)]
        slopes = torch.autograd.grad(fit.turn_loss(turn, leaves, batch)[0], [leaves[n] for n in mine])
        size = sum(float(g.square().sum()) for g in slopes) ** 0.5
        moved = {**start, **{n: start[n] - 1e-3 / size * g for n, g in zip(mine, slopes, strict=True)}}
        assert sign * (apart(moved) - apart(start)) > 0.5 * 1e-3 * size
    one = batch._replace(mix=torch.ones_like(batch.mix))
    steep = fit._steepness(start, one, fit._network(start).bins(batch.z))
    planes = torch.view_as_real(batch.x[:1]).contiguous()
    slope = torch.autograd.functional.jacobian(lambda x: fit._judged(start, torch.view_as_complex(x)), planes)
    torch.testing.assert_close(steep[0].detach(), slope.square().sum().sqrt(), rtol=1e-4, atol=1e-6)


def test_a_training_that_was_stopped_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("hhat.train.wgan.Wgan", functools.partial(Wgan, max_steps=5))
    fit = WganFit(small_data(), 3, 0)

    def stop(step, valid_db):
        raise Stopped

    unbroken = train(fit, SHORT)
    with pytest.raises(Stopped):
        train(fit, SHORT, tmp_path, "wgan", stop)
    resumed = train(fit, SHORT, tmp_path, "wgan")
    assert [row["step"] for row in resumed.curve] == [CRITIC_TURNS + 1, CRITIC_TURNS + 3]
    assert all(torch.equal(value, unbroken.weights[name]) for name, value in resumed.weights.items())
    assert resumed.curve == unbroken.curve
    finished = WGAN.finished(fit, resumed.weights)
    assert not any(name.startswith((MADE, SHARP)) for name in finished.tensors)
    law = generated_from(finished.settings, finished.tensors)
    assert isinstance(law, GeneratedBins) and law(torch.zeros(2, 3), (8, 16)).shape == (2, 8, 16)


def test_a_recipe_s_betas_are_adam_s():
    with pytest.raises(ValueError, match="betas: expected 0 <= beta < 1"):
        Recipe(5, betas=(0.5, 1.0))
