"""`ldamp`: its network, the prior `dncnn` and the AMP loop around it, against closed forms and autograd."""

from dataclasses import replace

import pytest
import torch

import hhat
from hhat.methods.ldamp import Ldamp
from hhat.nets.dncnn import DnCnn
from hhat.nets.start import start_weights
from hhat.ops import Dense, Identity, Kron
from hhat.ops.linalg import squared
from hhat.priors.dncnn import Dncnn, Residual, dn_cnn, residual_from
from hhat.priors.expert import angles
from hhat.priors.gauss import Gauss
from hhat.priors.weights import shipped
from hhat.random import complex_normal, generator
from hhat.train.data import CaptureData
from hhat.train.dncnn import LDAMP, DncnnFit
from hhat.train.loop import Recipe, train
from hhat.types import Gaussian, Observation

SHAPE = (4, 8)
SHORT = Recipe(4, batch=4, check_every=2, held_out=2)


def silent(power=1.4):
    return Residual(start_weights(dn_cnn(4, 3), generator("silent"), ("layers.2.weight",)), 4, 3, power)


def trained():
    """The weights of the package; convolutions fit any shape."""
    found = shipped("ldamp")
    return residual_from(found.card["settings"], found.weights)[0]


def observe(num=6, shape=SHAPE, rows=6, noise_var=0.2, dtype=torch.complex128, power=1.4):
    gen = generator("observe", *shape)
    op = Kron(Identity((shape[0],)), Dense(complex_normal((rows, shape[1]), gen, dtype)))
    h = complex_normal((num, *shape), gen, dtype, power)
    return h, Observation(op.apply(h) + complex_normal((num, shape[0], rows), gen, dtype, noise_var), op, noise_var)


def test_the_network_is_a_homogeneous_chain_that_sees_seventeen_bins():
    net = dn_cnn(32, 8)
    assert sum(p.numel() for p in net.parameters()) == 56736
    net = DnCnn(2, 8)
    net.load_state_dict({n: 3 * w for n, w in start_weights(net, generator("net")).items()})
    planes = torch.randn(1, 3, 21, 21, generator=generator("planes")).requires_grad_()
    found = net(planes)
    torch.testing.assert_close(net(7 * planes), 7 * found, rtol=1e-4, atol=1e-5)
    seen = torch.autograd.grad(found[0, :, 10, 10].square().sum(), planes)[0].abs().sum((0, 1)) > 0
    assert seen[2:19, 2:19].any(0).all() and seen[2:19, 2:19].any(1).all() and int(seen.sum()) <= 289
    assert not seen[:2].any() and not seen[:, 19:].any()


@pytest.mark.parametrize("v", [1e-6, 0.3, 1e3])
def test_a_silent_network_is_exact_for_white_coefficients(v):
    r = complex_normal((3, *SHAPE), generator("r"), var=1.4 + v)
    var = torch.tensor(v) * torch.rand(3, *SHAPE, generator=generator("v"))
    for noise in (torch.tensor(v), var):
        found = Dncnn(network=silent()).denoise(Gaussian(r, noise))
        want = Gauss(1.4).denoise(Gaussian(r, noise))
        torch.testing.assert_close(found.mean, want.mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            found.var.mean((-2, -1)), want.var.expand(r.shape).mean((-2, -1)), rtol=2e-3, atol=1e-7
        )


def test_with_a_silent_network_the_loop_ends_at_the_ridge_estimate():
    h, obs = observe()
    prior = Dncnn(network=silent(), basis=angles(SHAPE))
    want = hhat.solve(hhat.method("lmmse", prior=Gauss(1.4)), obs).belief
    got = hhat.solve(Ldamp(prior), obs, max_steps=250, tol=1e-14).belief
    assert float((got.mean - want.mean).abs().max() / want.mean.abs().max()) < 1e-4
    assert float(squared(want.mean - h).mean() / squared(h).mean()) < 0.6  # and that says something


def test_the_variance_is_the_trace_of_the_network_s_slope():
    """The trained network: one fixed probe against the whole Jacobian by autograd."""
    network = trained()
    gen = generator("trace")
    x = complex_normal((1, *SHAPE), gen) * (torch.rand(SHAPE, generator=gen) < 0.3) * 2
    for v in (0.01, 0.5):
        var = torch.tensor(v)
        r = x + complex_normal(x.shape, gen, var=v)

        def mean(planes, var=var):
            return torch.view_as_real(network.mean(torch.view_as_complex(planes)[None], var.reshape(1, 1, 1))[0])

        slope = torch.autograd.functional.jacobian(mean, torch.view_as_real(r[0]).contiguous()).reshape(32, 2, 32, 2)
        want = v * float(torch.einsum("ncnc->", slope)) / 2 / 32
        found = Dncnn(network=network).denoise(Gaussian(r, var)).var
        assert found.shape == r.shape and float(found.std()) < 1e-6
        assert abs(float(found[0, 0, 0]) / want - 1) < 0.15
        assert 0 < want < v / (1 + v)  # less than the linear estimate leaves


def test_the_loop_stands_still_where_amp_s_equations_hold():
    """x = D(r), r = x + v_r A^H s, s (v_p + s2) = y - A x + v_p s: the Onsager term is that of the divergence."""
    gen, shape = generator("fixed point"), (4, 16)
    op = Kron(Identity((4,)), Dense(complex_normal((12, 16), gen)))
    x = complex_normal((2, *shape), gen) * (torch.rand(2, *shape, generator=gen) < 0.2) * 2
    basis = angles(shape)
    h = basis.apply(x)
    obs = Observation(op.apply(h) + complex_normal((2, 4, 12), gen, var=0.5), op, 0.5)
    est = hhat.solve(Ldamp(Dncnn(network=trained(), basis=basis)), obs, max_steps=150, tol=1e-10)
    r, found = est.info["pseudo_observation"], est.info["coefficients"]
    assert r.var.shape[1:] == (1, 1)

    def off(got, want):
        return float(squared(got - want).sum() / squared(want).sum()) ** 0.5

    again = Dncnn(network=trained()).denoise(r)
    v = found.var.mean((-2, -1), keepdim=True)
    assert off(again.mean, found.mean) < 3e-2 and off(again.var.mean((-2, -1), keepdim=True), v) < 3e-2  # ReLU: it hums
    squares = op.right.matrix.abs().square()
    v_p = v * squares.sum(1)
    s = (obs.y - op.apply(basis.apply(found.mean))) / 0.5  # from s (v_p + s2) = y - A x + v_p s
    want = 16 / (1 / (v_p + 0.5) * squares.sum(1)).sum(-1, keepdim=True)
    assert off(r.var, want) < 3e-2
    assert off(r.mean, found.mean + r.var * basis.adjoint(op.adjoint(s))) < 5e-2
    assert off(r.mean, found.mean) > 0.1  # and the denoiser does something


def test_without_arguments_it_takes_the_weights_of_the_package():
    slot = hhat.scenario("cdl", profile="C", snr_db=20.0).draw(3, generator("shipped"))
    est = hhat.solve(hhat.method("ldamp"), slot.obs, max_steps=12)
    assert est.info["prior"] == "dncnn"
    white = hhat.solve(hhat.method("rls"), slot.obs)
    assert hhat.nmse_db(est, slot.truth) < hhat.nmse_db(white, slot.truth) - 2
    with pytest.raises(
        ValueError, match=r"ldamp: weights: expected some for channels \(4, 8\); these are for \(16, 64"
    ):
        hhat.solve(hhat.method("ldamp"), observe()[1])


def test_weights_of_something_else_are_refused():
    found = shipped("ldamp")
    with pytest.raises(ValueError, match="expected kind dncnn, got 'diffusion'"):
        residual_from(shipped("diffusion-cdl-c").card["settings"], found.weights)
    with pytest.raises(ValueError, match=r"layers.0.weight: expected shape \(16, 3, 3, 3\), got \(32, 3, 3, 3\)"):
        residual_from({**found.card["settings"], "width": 16}, found.weights)
    with pytest.raises(ValueError, match="setting or tensor missing"):
        residual_from({"kind": "dncnn"}, found.weights)
    with pytest.raises(ValueError, match=r"dncnn: weights for \(16, 64\) coefficients, but the basis has \(4, 8\)"):
        Dncnn(basis=angles(SHAPE))
    with pytest.raises(ValueError, match="one or two axes, got 3"):
        Dncnn(network=silent(), ndim=3)


def small_data(profile="C"):
    scene = hhat.scenario("cdl", profile=profile, num_rx_ant=8, num_tx_ant=16)
    return CaptureData(scene.draw(40, generator("small")))


class Stopped(Exception):
    pass


def test_a_training_that_was_stopped_ends_with_the_same_bits(tmp_path):
    fit = DncnnFit(small_data(), 4, 3, 0)

    def stop(step, valid_db):
        raise Stopped

    unbroken = train(fit, SHORT)
    with pytest.raises(Stopped):
        train(fit, SHORT, tmp_path, "dncnn", stop)
    resumed = train(fit, SHORT, tmp_path, "dncnn")
    assert all(torch.equal(value, unbroken.weights[name]) for name, value in resumed.weights.items())
    assert resumed.curve == unbroken.curve and set(resumed.curve[-1]) >= {"valid_db", "reference_nmse_db"}


def test_training_learns_and_its_loss_is_one_before():
    data = small_data("D")
    fit = DncnnFit(data, 8, 3, 0)
    batch = fit.draw(40, generator("loss"), held_out=True)
    before = float(fit.loss(fit.start(), batch)[0])
    assert abs(before - 1) < 0.15  # the linear denoiser of white coefficients, whose error that of this power has
    found = train(fit, replace(SHORT, steps=60, check_every=60, batch=16, rate=1e-2))
    with torch.no_grad():
        assert float(fit.loss(found.weights, batch)[0]) < 0.93 * before
    finished = LDAMP.finished(fit, found.weights)
    network, shape = residual_from(finished.settings, finished.tensors)
    assert shape == (8, 16) and abs(network.power - 1) < 0.5
    method = LDAMP.method(finished.settings, finished.tensors, next(iter(LDAMP.tests(data, 20.0, 0))))
    assert isinstance(method, Ldamp)
