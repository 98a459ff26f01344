"""Messages through the unit against autograd, draws and the exact linearised inversion."""

import math

import pytest
import torch

from hhat.distortion import messages
from hhat.distortion.damp import Damp
from hhat.distortion.linearised import Factors, invert, stacked
from hhat.distortion.messages import Gaussian, Score, WeightBelief
from hhat.distortion.probit import narrow_moments, probit_moments
from hhat.nets import residual_recurrent as unit
from hhat.nets.residual_recurrent import RecurrentWeights, Slopes
from hhat.random import complex_normal, generator

F64 = torch.float64
CHAINS, PILOTS, BATCH, HIDDEN = 4, 3, 2, 5
NOISE = torch.tensor(1e-3, dtype=F64)


def network(chains: int = CHAINS, scale: float = 0.4, seed: str = "network") -> RecurrentWeights:
    gen = generator("messages", seed)
    mask = unit.present(chains, (0,), (chains - 1,), HIDDEN).to(F64)
    return RecurrentWeights(*(scale * torch.randn(m.shape, generator=gen, dtype=F64) * m for m in mask))


def linear(chains: int, crosstalk: float) -> RecurrentWeights:
    """y_n + crosstalk (y_{n-1} + y_{n+1}): the probit at so small numbers that it is a line."""
    small, mask = 1e-5, unit.present(chains, (0,), (chains - 1,), 2).to(F64)
    gates, update, out = (torch.zeros_like(m) for m in mask)
    gates[:, :2, -1] = 40
    for part in (0, 1):
        update[:, part, [2 + unit.LEFT[part], 2 + unit.RIGHT[part]]] = small
        out[:, part, part] = crosstalk / (2 * unit.PEAK * small)
    return RecurrentWeights(gates, update * mask.update, out)


def signals(chains: int = CHAINS, pilots: int = PILOTS, batch: int = BATCH, seed: str = "signal") -> torch.Tensor:
    return complex_normal((batch, pilots, chains), generator("messages", seed), torch.complex128)


def forwards(weights: RecurrentWeights, signal: torch.Tensor) -> torch.Tensor:
    return unit.signal_of(unit.forward(weights, unit.neighbour_inputs(signal)).output)


def prior(mean: torch.Tensor, var: float) -> Factors:
    """Every real part N(mean, var)."""
    parts = stacked(mean)
    return Factors(torch.diag_embed(torch.full_like(parts, 1 / var)), parts / var)


def no_prior(signal: torch.Tensor) -> Factors:
    parts = torch.zeros_like(stacked(signal))
    return Factors(torch.diag_embed(parts), parts)


def variances(covariance: torch.Tensor) -> torch.Tensor:
    return torch.diagonal(covariance, dim1=-2, dim2=-1)


@pytest.mark.parametrize("moments", [probit_moments, narrow_moments])
def test_without_uncertainty_delta_is_the_gradient(moments):
    weights, y = network(), signals()
    seen = signals(seed="seen")
    parts = unit.own_parts(y).requires_grad_()
    leaves = RecurrentWeights(*(part.clone().requires_grad_() for part in weights))
    error = unit.own_parts(seen) - unit.forward(leaves, unit.neighbour_inputs(unit.signal_of(parts))).output
    wanted = torch.autograd.grad(-error.square().sum() / (2 * NOISE), [parts, *leaves])
    known = WeightBelief.of(weights)
    inputs = unit.neighbour_inputs(y)
    passed = messages.forward(known, Gaussian(inputs, torch.zeros_like(inputs)), moments)
    assert bool((passed.output_var == 0).all())
    out = Score.of_observation(passed.output, unit.own_parts(seen), NOISE)
    back = messages.backward(known, passed.slope, out)
    found = messages.signal_score(messages.input_score(known, back, out)).delta
    assert (found - wanted[0]).abs().max() < 1e-10 * wanted[0].abs().max()
    for part, right in zip(messages.weight_score(passed, back, out)[0], wanted[1:], strict=True):
        assert (part - right)[right != 0].abs().max() < 1e-10 * right.abs().max()


def test_lam_of_one_weight_is_the_squared_gradient_over_the_noise():
    """Weights of the output meet one output each: lam_W = sum of (slope)^2 / noise, exactly."""
    weights, y = network(), signals()
    inputs = unit.neighbour_inputs(y)
    known = WeightBelief.of(weights)
    passed = messages.forward(known, Gaussian(inputs, torch.zeros_like(inputs)))
    out = Score.of_observation(passed.output, unit.own_parts(signals(seed="seen")), NOISE)
    found = messages.weight_score(passed, messages.backward(known, passed.slope, out), out)[1].out
    jacobian = unit.weight_jacobian(weights, passed.trace).out
    assert (found - jacobian.square().sum((1, 2)) / NOISE).abs().max() < 1e-9 * found.max()


def test_moments_under_uncertain_weights_are_those_of_draws():
    """One symbol, signal known: all that meets in a product is independent, and every moment is exact."""
    mean, count = network(2, 0.6), 15_000
    mask = unit.present(2, (0,), (1,), HIDDEN).to(F64)
    var = RecurrentWeights(*(0.3 * m for m in mask))
    y = signals(2, 1, 1)
    inputs = unit.neighbour_inputs(y)
    found = messages.forward(WeightBelief.of(mean, var), Gaussian(inputs, torch.zeros_like(inputs)))
    gen = generator("weights")

    def drawn(m, v):
        return m[1] + v[1].sqrt() * torch.randn((count, *m.shape[1:]), generator=gen, dtype=F64)

    draws = RecurrentWeights(*(drawn(m, v) for m, v in zip(mean, var, strict=True)))
    output = unit.forward(draws, inputs[1:].expand(count, -1, -1, -1)).output[:, 0, 0]
    wanted = found.output_var[1, 0, 0]
    assert ((output.mean(0) - found.output.mean[1, 0, 0]) / (wanted / count).sqrt()).abs().max() < 4
    assert (output.var(0) / wanted - 1).abs().max() < 0.06
    # without the weights' variance nothing is left
    assert wanted.min() > 0.1


@pytest.mark.parametrize("moments", [probit_moments, narrow_moments])
def test_a_signals_own_share_of_its_outputs_variance_never_exceeds_it(moments):
    weights = WeightBelief.of(network(scale=1.5))
    inputs = Gaussian(
        unit.neighbour_inputs(signals()), unit.neighbour_inputs(torch.complex(*[torch.ones(2, 3, 4, dtype=F64)] * 2))
    )
    passed = messages.forward(weights, inputs, moments)
    counted = messages.own_slopes(weights.square, Slopes(*(part.square() for part in passed.slope)))
    assert (passed.output_var - counted * inputs.var[..., list(unit.OWN)]).min() >= 0


def test_own_slopes_stand_on_the_jacobians_diagonal():
    weights = network()
    trace = unit.forward(weights, unit.neighbour_inputs(signals()))
    whole = unit.input_jacobian(weights, trace).unflatten(-1, (PILOTS, 6)).unflatten(2, (PILOTS, 2))
    found = messages.own_slopes(weights, unit.slopes(trace))
    for p in range(PILOTS):
        for part, place in enumerate(unit.OWN):
            assert (found[:, p, :, part] - whole[:, :, p, part, p, place]).abs().max() < 1e-12


def test_scores_of_six_inputs_go_to_the_chains_they_came_from():
    """The adjoint of `neighbour_inputs`."""
    y, score = signals(), torch.randn(CHAINS, PILOTS, BATCH, 6, generator=generator("adjoint"), dtype=F64)
    found = messages.signal_score(Score(score, score)).delta
    assert abs((found * unit.own_parts(y)).sum() - (score * unit.neighbour_inputs(y)).sum()) < 1e-10


def test_chains_that_do_nothing_say_exactly_what_they_hear():
    y, mean = signals(), signals(seed="prior")
    nothing = RecurrentWeights(*(0 * part for part in network()))
    for known in (no_prior(y), prior(mean, 0.3)):
        found = Damp().run(nothing, y, NOISE, known, y + 0.1)
        assert (found.message.mean - stacked(y)).abs().max() < 1e-12
        assert (found.message.var - NOISE).abs().max() < 1e-15
    exact = invert(nothing, y, NOISE, prior(mean, 0.3), y)
    assert (found.inverted.covariance - exact.covariance).abs().max() < 1e-15
    assert (found.inverted.mean - exact.mean).abs().max() < 1e-2 * NOISE.sqrt()


def test_with_infinite_error_nothing_is_said_and_the_prior_stays():
    y, mean = signals(), signals(seed="prior")
    found = Damp().run(network(), y, torch.tensor(math.inf, dtype=F64), prior(mean, 0.3), mean)
    assert bool(torch.isinf(found.message.var).all()) and not bool(torch.isnan(found.message.mean).any())
    assert (found.inverted.mean - stacked(mean)).abs().max() < 1e-12
    assert (variances(found.inverted.covariance) - 0.3).abs().max() < 1e-12


def test_one_output_each_is_gaussian_conditioning():
    """A chain alone, one symbol, an output per part: distorted = 0.8 y + error, with a prior that ties both parts."""
    weights = linear(1, 0.0)
    weights.update[:, [0, 1], [2 + unit.OWN[0], 2 + unit.OWN[1]]] = 1e-5
    weights.out[:, [0, 1], [0, 1]] = -0.2 / (2 * unit.PEAK * 1e-5)
    y = signals(1, 1, 3)
    assert (forwards(weights, y) - 0.8 * y).abs().max() < 1e-8
    tied = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=F64).expand(3, 1, 2, 2)
    known = Factors(tied, torch.tensor([0.3, -0.5], dtype=F64).expand(3, 1, 2))
    found = Damp(damping=1.0).run(weights, y, NOISE, known, 0 * y)
    wanted = torch.linalg.inv(tied + torch.eye(2, dtype=F64) * 0.64 / NOISE)
    assert (found.inverted.covariance - wanted).abs().max() < 1e-9
    mean = (wanted @ (known.shift + 0.8 * stacked(y) / NOISE)[..., None])[..., 0]
    assert (found.inverted.mean - mean).abs().max() < 1e-6
    assert (found.message.var - NOISE / 0.64).abs().max() < 1e-9


def test_loops_make_the_variance_too_small_by_five_crosstalk_squared():
    """Inner chains, nothing known before: exact 1 + 6 c^2, messages 1 + c^2, both up to c^4."""
    chains, inner = 12, slice(4, 8)
    for crosstalk in (0.05, 0.1):
        weights, y = linear(chains, crosstalk), signals(12, 1, 1)
        z = forwards(weights, y)
        exact = variances(invert(weights, z, NOISE, no_prior(z), z).covariance)[:, inner] / NOISE
        found = Damp(iterations=20, tol=0.0).run(weights, z, NOISE, no_prior(z), z)
        said = variances(found.inverted.covariance)[:, inner] / NOISE
        assert (exact - 1 - 6 * crosstalk**2).abs().max() < 35 * crosstalk**4
        assert (said - 1 - crosstalk**2).abs().max() < 35 * crosstalk**4
        # and the mean is that of the signal itself, as nothing was added to it
        assert (found.inverted.signal - y).abs().max() < 1e-5


@pytest.mark.parametrize("var", [None, 4e-3])
def test_through_curved_chains_the_belief_is_nearly_the_exact_one(var):
    """The prior tells about as much as the chains do; measured over five networks: the mean within 0.002 of
    the variance, the variance 0.97 to 1 of it."""
    weights, y = network(6, 0.3), signals(6, 4, 3)
    z = forwards(weights, y) + NOISE.sqrt() * complex_normal(y.shape, generator("error"), torch.complex128)
    around = y + complex_normal(y.shape, generator("around"), torch.complex128, var=8e-3)
    known = no_prior(y) if var is None else prior(around, var)
    exact = invert(weights, z, NOISE, known, z, 4)
    found = Damp(iterations=30, tol=0.0).run(weights, z, NOISE, known, z, 1)
    spread = variances(exact.covariance)
    assert ((found.inverted.mean - exact.mean).square() / spread).mean() < 0.01
    assert 0.95 < (variances(found.inverted.covariance) / spread).log().mean().exp() < 1.0
    # belief and message agree: precision of the one is that of the other and of the prior
    told = 1 / found.message.var + (0 if var is None else 1 / var)
    assert (told * variances(found.inverted.covariance) - 1).abs().max() < 1e-6
    assert var is None or bool((variances(found.inverted.covariance) < var).all())


def test_the_true_chains_without_error_give_the_signal_back():
    weights, y = network(6, 0.15), signals(6, 4, 1)
    z = forwards(weights, y)
    found = Damp(iterations=60, tol=0.0)(weights, z, torch.tensor(1e-10, dtype=F64), no_prior(z), z, 1)
    assert (found.signal - y).abs().max() < 1e-6 < (z - y).abs().max()


def test_every_item_may_have_networks_of_its_own():
    y, known = signals(), prior(signals(seed="prior"), 0.3)
    one, other = network(), network(seed="other")
    both = RecurrentWeights(*(torch.stack(pair, 1).flatten(0, 1) for pair in zip(one, other, strict=True)))
    found = Damp(tol=0.0)(both, y, NOISE, known, y)
    for item, weights in enumerate((one, other)):
        part = Factors(known.precision[item : item + 1], known.shift[item : item + 1])
        alone = Damp(tol=0.0)(weights, y[item : item + 1], NOISE, part, y[item : item + 1])
        assert (found.mean[item] - alone.mean[0]).abs().max() < 1e-10
        assert (found.covariance[item] - alone.covariance[0]).abs().max() < 1e-10


def test_uncertain_weights_make_the_message_wider():
    weights, y = network(scale=0.15), signals()
    var = RecurrentWeights(*(1e-3 * (part != 0).to(F64) for part in weights))
    known = prior(0 * y, 0.5)
    sure = Damp(narrow=False).run(weights, y, NOISE, known, y)
    unsure = Damp(narrow=False).run(weights, y, NOISE, known, y, weight_var=var)
    assert (unsure.message.var / sure.message.var).min() > 1.5
    nothing = RecurrentWeights(*(0 * part for part in var))
    same = Damp(narrow=False).run(weights, y, NOISE, known, y, weight_var=nothing)
    assert torch.equal(same.message.var, sure.message.var)


def test_networks_in_single_precision_give_nearly_the_same():
    weights, y = network(scale=0.15), signals()
    for error_var in (NOISE, NOISE * 1e-3):
        whole = Damp(tol=0.0).run(weights, y, error_var, no_prior(y), y)
        half = Damp(tol=0.0).run(weights.to(torch.float32), y, error_var, no_prior(y), y)
        assert half.inverted.mean.dtype == F64
        assert (half.inverted.mean - whole.inverted.mean).abs().max() < 0.01 * error_var.sqrt()
        assert (half.message.var / whole.message.var - 1).abs().max() < 1e-2


def test_wrong_settings_are_named():
    y = signals()
    with pytest.raises(ValueError, match="iterations"):
        Damp(iterations=0)
    with pytest.raises(ValueError, match="damping"):
        Damp(damping=0.0)
    with pytest.raises(ValueError, match="expected 4 or 8, got 3"):
        Damp()(network(3), y, NOISE, no_prior(y), y)
