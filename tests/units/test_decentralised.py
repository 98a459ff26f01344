"""Units and centre: splitting and fusing, uploads and their bits, refinement between its bounds, the linear step."""

import math
from dataclasses import replace

import pytest
import torch

import hhat
from hhat.decentralized import (
    Concatenate,
    ExtrinsicUpload,
    Floats,
    Literal,
    MidRise,
    MidTread,
    PosteriorUpload,
    RawUpload,
    ReportedNoise,
    TopUpload,
)
from hhat.decentralized.quantise import with_rounding
from hhat.decentralized.split import joined, pieces, split, unit_count, unit_operators, without_units
from hhat.methods.oamp import extrinsic
from hhat.ops import Dense, Fourier, Identity, Kron, Stack, posterior
from hhat.priors import Gauss
from hhat.random import complex_normal
from hhat.scenarios.near_field import NearField
from hhat.types import Gaussian, Observation, Status
from tests.contracts import test_methods as contracts
from tests.units.decentralised_fakes import SMALL, drawn, local, pattern

PAPER = NearField()
BITS = 8


def gen(*labels):
    return hhat.generator("decentralised test", *labels)


def ratio(found, wanted):
    return (found - wanted).abs().square().sum((-2, -1)) / wanted.abs().square().sum((-2, -1))


def db(x):
    return 10 * math.log10(float(x))


@pytest.mark.parametrize("name", ["decentralised", "oamp-decentralised"])
@pytest.mark.parametrize(
    "test",
    [
        contracts.test_precisions_agree,
        contracts.test_batch_equals_loop,
        contracts.test_scaling_and_phase,
        contracts.test_no_noise_and_all_seen_returns_the_channel,
        contracts.test_an_operator_per_item_equals_a_loop,
        contracts.test_a_bad_item_is_marked_and_leaves_the_others_alone,
        contracts.test_unknown_noise_is_estimated_and_reported,
    ],
    ids=lambda test: test.__name__,
)
def test_contracts_hold_with_two_units(monkeypatch, name, test):
    settings = {**contracts.SETTINGS.get(name, {}), "num_unit": 2}
    monkeypatch.setitem(contracts.SETTINGS, name, settings)
    test(name)


def test_what_the_units_see_is_what_all_see():
    slot = drawn()
    assert unit_count(slot.obs.op) == 4
    parts = split(slot.obs, 4)
    h = pieces(slot.truth.h, 4, 2)
    clean = torch.cat([part.op.apply(x) for part, x in zip(parts, h, strict=True)], -2)
    torch.testing.assert_close(clean, slot.obs.op.apply(slot.truth.h))
    assert torch.equal(joined([part.y for part in parts], 2), slot.obs.y)
    assert torch.equal(joined(list(h), 2), slot.truth.h)
    kept = without_units(slot.obs.op, 4, (0, 2))
    rows = torch.cat([clean[..., 0:2, :], clean[..., 4:6, :]], -2)
    torch.testing.assert_close(kept.apply(slot.truth.h), rows)


def test_operators_without_units_are_refused():
    matrix = complex_normal((4, 8), gen("full"))
    with pytest.raises(ValueError, match="share an antenna"):
        unit_operators(Kron(Dense(matrix), Identity((3,))), 2)
    with pytest.raises(ValueError, match="does not divide"):
        unit_operators(Kron(Dense(matrix), Identity((3,))), 3)
    with pytest.raises(ValueError, match="got Stack"):
        unit_operators(Stack((Identity((4,)), Fourier(4))), 2)
    assert unit_count(Kron(Dense(matrix), Identity((3,)))) == 1


def test_fusion_is_unitary_and_one_unit_is_the_method_itself():
    slot = drawn()
    fused = hhat.solve(
        hhat.method("decentralised", unit=local(), upload=PosteriorUpload(), centre=Concatenate()), slot.obs
    )
    apart = hhat.solve(local(), SMALL.local(slot).obs).belief
    torch.testing.assert_close(fused.belief.mean.unflatten(-2, (4, 4)), apart.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fused.belief.var.sum((-2, -1)), apart.var.sum((-3, -2, -1)), rtol=1e-4, atol=0)
    # the energy of the error is the same in the angles and delays of the whole array
    error = fused.belief.mean - slot.truth.h
    torch.testing.assert_close(
        SMALL.basis().adjoint(error).abs().square().sum((-2, -1)), error.abs().square().sum((-2, -1))
    )
    whole = hhat.method("sbl", prior=Gauss(basis=SMALL.basis()), max_steps=5)
    one = hhat.method("decentralised", unit=whole, upload=PosteriorUpload(), centre=Concatenate(), num_unit=1)
    torch.testing.assert_close(
        hhat.solve(one, slot.obs).belief.mean, hhat.solve(whole, slot.obs).belief.mean, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("snr_db", "promised"), [(0.0, -8.5), (10.0, -13.8)])
def test_refinement_of_a_channel_in_white_noise_lies_between_raw_and_wiener(snr_db, promised):
    """The Wiener filter knows every |x_n|^2: no prior does better. The specification measured `promised`."""
    h = PAPER.draw(16, gen("awgn")).truth.h
    power = h.abs().square().mean((-2, -1))
    noise = power * 10 ** (-snr_db / 10)
    r = h + complex_normal(tuple(h.shape), gen("awgn noise")) * noise.sqrt()[:, None, None]
    x = PAPER.basis().adjoint(h).abs().square()
    wiener = (x * noise[:, None, None] / (x + noise[:, None, None])).sum((-2, -1)) / (power * 128 * 16)
    told = noise[:, None].expand(16, 4)
    for centre in (ReportedNoise(), ReportedNoise(hhat.m_step("pattern-coupled"))):
        found = centre(r, told, (0, 1, 2, 3), 4, (128, 16), ("rx_ant", "subcarrier"))
        reached = db(ratio(found.mean, h).mean())
        assert db(wiener.mean()) < reached < promised + 0.4, reached
        # no more than a factor of two: neither prior is the law of these channels (the chain is sure, the other is not)
        assert 0.5 < float(found.var.mean() / (found.mean - h).abs().square().mean()) < 2
    printed = Literal()(r, told, (0, 1, 2, 3), 4, (128, 16), ("rx_ant", "subcarrier"))
    assert db(wiener.mean()) < db(ratio(printed.mean, h).mean()) < -snr_db


def test_extrinsic_and_prior_make_the_posterior():
    """1/v_e + 1/v_prior = 1/Sigma and r/v_e = mu/Sigma, entry by entry, before the variances are averaged."""
    slot = drawn()
    part = split(slot.obs, 4)[2]
    unit = local()
    est = hhat.solve(unit, part)
    basis = SMALL.local_basis()
    x = posterior(
        part.op @ basis, part.y, Gaussian(torch.zeros((), dtype=part.y.dtype), est.info["prior_var"]), part.noise_var
    )
    sent = ExtrinsicUpload().coefficients(est, part, unit)
    v, sigma = est.info["prior_var"], x.belief.var
    v_e = 1 / (1 / sigma - 1 / v)
    r = v_e * x.belief.mean / sigma
    keep = v_e < 1e3 * sigma  # the others only hold round-off
    assert float(keep.float().mean()) > 0.5
    torch.testing.assert_close(sent.mean[keep], r[keep], rtol=2e-2, atol=1e-3)
    with pytest.raises(ValueError, match="expected sbl or oamp"):
        hhat.solve(hhat.method("decentralised", unit=hhat.method("omp"), upload=ExtrinsicUpload()), slot.obs)


def test_a_unit_without_variance_needs_the_literal_refinement():
    slot = drawn()
    unit = hhat.method("lasso", prior=Gauss(basis=SMALL.local_basis()))
    with pytest.raises(ValueError, match="report a variance"):
        hhat.solve(hhat.method("decentralised", unit=unit), slot.obs)
    assert hhat.solve(hhat.method("decentralised", unit=unit, centre=Literal()), slot.obs).status_counts() == {"OK": 3}
    fused = hhat.solve(hhat.method("decentralised", unit=unit, centre=Concatenate()), slot.obs)
    assert bool(torch.isinf(fused.belief.var).all())


def test_quantisers():
    x = complex_normal((5, 6, 7), gen("quantise"))
    x[:, :3] = 0
    for quantiser in (MidTread(4), MidTread(8), MidRise(6)):
        sent = quantiser.send(x, 2)
        back = quantiser.receive(sent)
        step = quantiser.step(sent.scale)
        assert float((torch.view_as_real(back - x).abs() / step[..., None]).max()) <= 0.5 + 1e-5
        assert sent.codes.unique().numel() <= 2**quantiser.bits
    tread, rise = MidTread(4), MidRise(4)
    assert bool((tread.receive(tread.send(x, 2))[:, :3] == 0).all())
    assert bool((rise.receive(rise.send(x, 2))[:, :3] != 0).all())
    dense = complex_normal((2000, 100), gen("dense"))
    sent = MidTread(8).send(dense, 1)
    error = (MidTread(8).receive(sent) - dense).abs().square().mean()
    assert abs(float(error / MidTread(8).noise_var(sent).mean()) - 1) < 0.02
    assert torch.equal(Floats().receive(Floats().send(x, 2)), x)
    zero = MidTread(8).send(torch.zeros(2, 3, dtype=torch.complex64), 1)
    assert torch.equal(MidTread(8).receive(zero), torch.zeros(2, 3, dtype=torch.complex64))
    for bits in (1, 25):
        with pytest.raises(ValueError, match="bits: expected 2"):
            MidTread(bits)


def test_bits_are_those_counted_by_hand():
    """Paper's sizes: 32 antennas, 16 tones and 16 slots a unit: 512 coefficients, 256 pilot resource elements."""
    slot = PAPER.draw(1, gen("bits"))
    part = split(slot.obs, 4)[0]
    unit = local(PAPER)
    rest = 32 + 1  # the variance, and whether there is one
    for upload, bits in (
        (PosteriorUpload(), 2 * 32 * 512 + rest),
        (PosteriorUpload(MidTread(8)), 2 * 8 * 512 + 32 + rest),
        (ExtrinsicUpload(MidTread(4)), 2 * 4 * 512 + 32 + rest),
        (TopUpload(MidTread(16), 32), 32 * (2 * 16 + 9) + 32 + rest),
        (RawUpload(None, MidTread(8)), 2 * 8 * 256 + 32),
    ):
        assert upload.count_bits(part, unit) == bits
    est = hhat.solve(hhat.method("decentralised", unit=unit, upload=PosteriorUpload(MidTread(8))), slot.obs)
    assert est.info["fronthaul_bits_up"] == 8192 + 65
    assert est.info["fronthaul_bits_per_sample"] == (8192 + 65) / 256
    rounds = hhat.method("oamp-decentralised", prior=pattern(PAPER), quantiser=MidTread(8), max_steps=3, tol=-1.0)
    est = hhat.solve(rounds, slot.obs)
    up, down = 8192 + 32 + 32 * (16 + 4) + 1, 8192 + 32 + 32 * (16 + 1)
    assert (est.info["fronthaul_bits_up"], est.info["fronthaul_bits_down"]) == (up, down)
    assert int(est.info["fronthaul_rounds"]) == 3
    torch.testing.assert_close(est.info["fronthaul_bits_per_sample"], torch.tensor([(3 * (up + down) + 32) / 256]))


def test_sixteen_bits_cost_nothing():
    slot = PAPER.draw(6, gen("sixteen"))
    unit = local(PAPER, 10)
    central = hhat.method("sbl", prior=Gauss(basis=PAPER.basis()), max_steps=5)
    for build in (
        lambda q: hhat.method("decentralised", unit=unit, upload=PosteriorUpload(q)),
        lambda q: hhat.method("decentralised", unit=unit, upload=ExtrinsicUpload(q)),
        lambda q: hhat.method("decentralised", upload=RawUpload(central, q)),
        lambda q: hhat.method("oamp-decentralised", prior=pattern(PAPER), quantiser=q, max_steps=8),
    ):
        plain, rounded = (hhat.nmse_db(hhat.solve(build(q), slot.obs), slot.truth) for q in (Floats(), MidTread(16)))
        assert plain != rounded and abs(plain - rounded) < 0.01


def test_few_bits_add_the_noise_they_report():
    slot = PAPER.draw(8, gen("few"))
    for upload in (ExtrinsicUpload(MidTread(6)), PosteriorUpload(MidTread(4)), TopUpload(MidTread(5), 40)):
        unit = hhat.method("oamp", prior=hhat.prior("pattern-coupled", basis=PAPER.local_basis()))
        est = hhat.solve(hhat.method("decentralised", unit=unit, upload=upload, centre=Concatenate()), slot.obs)
        error = (est.belief.mean - slot.truth.h).abs().square().mean()
        assert 0.7 < float(est.belief.var.mean() / error) < 1.4


def test_rounding_widens_the_extrinsic_and_leaves_its_mean():
    step = complex_normal((4, 5), gen("rounding"))
    v, var, error = (
        torch.tensor(2.0),
        torch.rand(4, 1, generator=gen("var")) * 1.9,
        torch.rand(4, 1, generator=gen("e")),
    )
    before = Gaussian(torch.zeros((), dtype=torch.complex64), v)
    exact, got = extrinsic(Gaussian(step, var), before), extrinsic(with_rounding(step, var, v, error), before)
    torch.testing.assert_close(got.mean, exact.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.var, exact.var + error * (v / (v - var)).square(), rtol=1e-4, atol=1e-4)
    nothing = with_rounding(step, torch.tensor(2.0), v, torch.tensor(0.3))
    assert float(nothing.mean.abs().max()) < 1e-30 and float(nothing.var) == 2.0


@pytest.mark.parametrize(("prior", "steps"), [("pattern-coupled", 10), ("cnn", 5)])
def test_six_bits_of_rounds_cost_little_and_hurt_no_channel(prior, steps):
    slot = NearField(snr_db=10.0).draw(24, gen("rounds"))
    method = hhat.method("oamp-decentralised", prior=hhat.prior(prior, basis=PAPER.basis()), max_steps=steps, tol=-1.0)
    exact, rounded = (hhat.solve(replace(method, quantiser=q), slot.obs).belief.mean for q in (None, MidTread(6)))
    loss = ratio(rounded, slot.truth.h) / ratio(exact, slot.truth.h)
    assert abs(db(loss.mean())) < 0.15 and db(loss.max()) < 0.6
    assert db(ratio(exact, slot.truth.h).mean()) < -12.3


def test_raw_pilots_are_the_central_method():
    slot = drawn()
    central = hhat.method("oamp", prior=pattern())
    raw = hhat.solve(hhat.method("decentralised", upload=RawUpload(central)), slot.obs)
    want = hhat.solve(central, slot.obs)
    torch.testing.assert_close(raw.belief.mean, want.belief.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(raw.belief.var, want.belief.var, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("axes", [None, (-2, -1)])
@pytest.mark.parametrize("noise", [True, False])
def test_oamp_over_units_is_oamp(axes, noise):
    """Same numbers as in one place, whatever the combiner: its rows need not be orthonormal."""
    for combiner in ("scrambled-hadamard", "sign"):
        slot = drawn(4, replace(SMALL, combiner=combiner))
        obs = slot.obs if noise else Observation(slot.obs.y, slot.obs.op, None, slot.obs.axes)
        central = hhat.method("oamp", prior=pattern(), average_axes=axes)
        for steps in (1, 2, 7):
            apart = hhat.solve(hhat.method("oamp-decentralised", prior=pattern(), average_axes=axes), obs, steps, -1.0)
            whole = hhat.solve(central, obs, steps, -1.0)
            torch.testing.assert_close(apart.belief.mean, whole.belief.mean, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(apart.belief.var, whole.belief.var, rtol=1e-3, atol=1e-5)
            if not noise:
                torch.testing.assert_close(apart.info["noise_var"], whole.info["noise_var"], rtol=1e-3, atol=1e-6)


def test_the_linear_step_with_orthonormal_rows_needs_no_inverse():
    """r = x + (N/Q) B^H A^H (y - A B x), v_r = v (N/Q - 1) + s2 N/Q: the closed form of the specification."""
    slot = drawn(2)
    method = hhat.method(
        "oamp-decentralised", prior=Gauss(0.7, basis=SMALL.basis()), average_axes=(-2, -1), max_steps=1
    )
    est = hhat.solve(method, slot.obs, gen=gen("one"))
    r = est.info["pseudo_observation"]
    ratio_nq = SMALL.num_unit_ant / SMALL.num_slots
    op = slot.obs.op @ SMALL.basis()
    noise = torch.maximum(slot.obs.noise_var, 0.1 * slot.obs.y.abs().square().mean((-2, -1), keepdim=True))
    torch.testing.assert_close(r.mean, ratio_nq * op.adjoint(slot.obs.y), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(r.var, 0.7 * (ratio_nq - 1) + noise * ratio_nq, rtol=1e-3, atol=1e-4)


def test_bases_that_units_cannot_share_are_refused():
    slot = drawn()
    skew = Kron(Dense(complex_normal((16, 20), gen("skew"))), Fourier(4))
    with pytest.raises(ValueError, match="unitary over antennas"):
        hhat.solve(hhat.method("oamp-decentralised", prior=Gauss(basis=skew)), slot.obs)
    with pytest.raises(ValueError, match="average_axes"):
        hhat.solve(hhat.method("oamp-decentralised", prior=pattern(), average_axes=(-1,)), slot.obs)
    delays = Kron(Fourier(16), Dense(complex_normal((4, 6), gen("delays"))))
    est = hhat.solve(hhat.method("oamp-decentralised", prior=Gauss(1.0, basis=delays), max_steps=4), slot.obs)
    assert Status.NONFINITE not in est.status.tolist()
