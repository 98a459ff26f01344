"""The centre's variances and the units' second estimate: against dense algebra, its limits, losses and bits."""

import dataclasses
from dataclasses import replace

import pytest
import torch

import hhat
from hhat.decentralized import (
    Concatenate,
    CovarianceFeedback,
    ExtrinsicUpload,
    MidTread,
    ParametricUpload,
    PosteriorUpload,
    RawUpload,
    Serial,
    TopUpload,
)
from hhat.decentralized.feedback import FeedbackWork
from hhat.decentralized.refine import array_basis
from hhat.decentralized.split import split
from hhat.decentralized.units import Lost
from hhat.ops import Identity
from hhat.random import complex_normal
from hhat.scenarios.near_field import NearField
from hhat.scenarios.near_field_bounds import path_model
from hhat.types import Observation
from tests.units.decentralised_fakes import Broken, BrokenMethod, drawn, local

PAPER = NearField()
BAND = NearField(num_rx_ant=16, num_unit=4, num_subcarriers=12, num_slots=3, num_paths=2)
SHAPE, AXES = (16, 12), ("rx_ant", "subcarrier")
EXACT = CovarianceFeedback(24, 200.0)
UNIT = 1


def gen(*labels):
    return hhat.generator("covariance feedback test", *labels)


def method(feedback=None, executor=None, **settings):
    settings = {"unit": local(BAND), "upload": PosteriorUpload(), **settings}
    return hhat.method("decentralised", feedback=feedback, executor=executor, **settings)


def unknown(obs):
    return Observation(obs.y, obs.op, None, obs.axes)


def matrix(op):
    size = torch.Size(op.in_shape).numel()
    eye = torch.eye(size, dtype=torch.complex128)
    return op.like(eye).apply(eye.reshape(size, *op.in_shape)).reshape(size, -1).mT


def textbook(v, place, part):
    """Of h_m ~ CN(0, C), C the unit's block of B diag(v) B^H, all matrices formed: mean, variances, E|y - A h|^2."""
    basis = matrix(array_basis(SHAPE, AXES))
    whole = (basis * v.double().flatten()) @ basis.mH
    mine = torch.arange(place * 4 * SHAPE[1], (place + 1) * 4 * SHAPE[1])
    cov, a = whole[mine][:, mine], matrix(part.op)
    y, noise = part.y.flatten().to(torch.complex128), float(part.noise_var.flatten()[0])
    gain = cov @ a.mH @ torch.linalg.inv(a @ cov @ a.mH + noise * torch.eye(len(a)))
    mean, after = gain @ y, cov - gain @ a @ cov
    left = ((y - a @ mean).abs().square().sum() + (a @ after @ a.mH).diagonal().real.sum()) / len(a)
    return mean.reshape(4, -1), after.diagonal().real.reshape(4, -1), left


def item(part, i):
    return Observation(part.y[i], part.op, part.noise_var[i], part.axes)


def double(obs):
    return Observation(obs.y.to(torch.complex128), obs.op, obs.noise_var.double(), obs.axes)


def test_a_unit_under_the_arrays_covariance_is_the_textbook_posterior():
    obs = double(drawn(2, BAND, "textbook").obs)
    v = torch.rand((2, *SHAPE), generator=gen("v"), dtype=torch.float64) ** 6
    v[:, :, ::3] = 0
    for place, part in enumerate(split(obs, 4)):
        work = FeedbackWork(local(BAND), PosteriorUpload(), EXACT, place, 4, SHAPE)
        found = work.under(v, part)
        blind = work.under(v, unknown(part), part.noise_var.flatten(1)[:, 0])
        for i in range(2):
            mean, var, left = textbook(v[i], place, item(part, i))
            torch.testing.assert_close(found.belief.mean[i], mean, rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(found.belief.var.expand(2, 4, 12)[i], var, rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(blind.info["noise_var"][i].squeeze(), left, rtol=1e-6, atol=0)
            torch.testing.assert_close(blind.belief.mean, found.belief.mean)


@pytest.mark.parametrize("upload", [ExtrinsicUpload(), PosteriorUpload(), TopUpload(count=48)])
def test_with_exact_bits_the_answer_is_that_of_the_centres_own_variances(upload):
    """`TopUpload` of all 48 coefficients of a unit is exact too."""
    obs = double(drawn(2, BAND, "exact").obs)
    before = hhat.solve(method(upload=upload), obs).belief.mean
    v = array_basis(SHAPE, AXES).adjoint(before).abs().square()
    est = hhat.solve(method(EXACT, upload=upload), obs)
    for place, part in enumerate(split(obs, 4)):
        for i in range(2):
            mean, var, _ = textbook(v[i], place, item(part, i))
            mine = slice(4 * place, 4 * place + 4)
            torch.testing.assert_close(est.belief.mean[i, mine], mean, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(est.belief.var[i, mine], var.mean().expand(4, 12), rtol=1e-3, atol=1e-6)
    rough = [hhat.solve(method(CovarianceFeedback(b, 60.0), upload=upload), obs).belief.mean for b in (3, 6, 12)]
    error = [float((mean - est.belief.mean).norm()) for mean in rough]
    assert error[0] > 2 * error[1] > 4 * error[2]


def test_a_second_round_starts_from_the_answers_of_the_first():
    obs = double(drawn(2, BAND, "rounds").obs)
    once = hhat.solve(method(EXACT), obs).belief.mean
    v = array_basis(SHAPE, AXES).adjoint(once).abs().square()
    twice = hhat.solve(method(replace(EXACT, rounds=2)), obs).belief.mean
    mean = textbook(v[0], 3, item(split(obs, 4)[3], 0))[0]
    torch.testing.assert_close(twice[0, 12:], mean, rtol=1e-3, atol=1e-4)
    assert float((twice - once).abs().max()) > 1e-2


def test_levels_are_half_a_step_off_and_the_rest_has_its_mean():
    h = complex_normal((3, 16, 12), gen("levels")) * 1e-6
    h[2] = 0
    v = array_basis(SHAPE, AXES).adjoint(h).abs().square()
    for feedback in (CovarianceFeedback(2, 20.0), CovarianceFeedback(), CovarianceFeedback(10, 90.0)):
        sent = feedback.send(h, AXES, 2)
        back = feedback.receive(sent)[:2]
        last = sent["levels"][:2] == 2**feedback.bits - 1
        assert int(sent["levels"].min()) == 0 and int(sent["levels"].max()) < 2**feedback.bits
        off = (10 * (back / v[:2]).log10()).abs()[~last]
        assert float(off.max()) <= 0.5 * feedback.range_db / (2**feedback.bits - 1) + 1e-3
        torch.testing.assert_close((back * last).sum((-2, -1)), (v[:2] * last).sum((-2, -1)), rtol=1e-4, atol=0)
        assert bool(torch.isfinite(feedback.receive(sent)).all())
    assert isinstance(array_basis((5, 3), ("rx_ant", "tx_ant")), Identity)


def test_it_gains_and_its_variance_is_the_error():
    slot = PAPER.draw(24, gen("gains"))
    plain, fed = (
        hhat.solve(hhat.method("decentralised", upload=ExtrinsicUpload(MidTread(8)), feedback=feedback), slot.obs)
        for feedback in (None, CovarianceFeedback())
    )
    assert hhat.nmse_db(fed, slot.truth) < hhat.nmse_db(plain, slot.truth) - 1
    error = (fed.belief.mean - slot.truth.h).abs().square().mean()
    assert 0.75 < float(error / fed.belief.var.mean()) < 1.3


def test_scaling_the_pilots_scales_the_estimate():
    obs = drawn(3, BAND, "scale").obs
    for c, feedback, rtol in ((8j, CovarianceFeedback(), 1e-4), (37 * complex(0.6, 0.8), EXACT, 1e-3)):
        scaled = Observation(c * obs.y, obs.op, abs(c) ** 2 * obs.noise_var, obs.axes)
        plain, other = hhat.solve(method(feedback), obs), hhat.solve(method(feedback), scaled)
        torch.testing.assert_close(other.belief.mean / c, plain.belief.mean, rtol=rtol, atol=1e-3)
        torch.testing.assert_close(other.belief.var / abs(c) ** 2, plain.belief.var, rtol=2e-2, atol=1e-4)


def test_a_batch_gives_what_its_items_give_alone():
    obs = drawn(3, BAND, "alone").obs
    together = hhat.solve(method(CovarianceFeedback()), obs).belief.mean
    one = hhat.solve(method(CovarianceFeedback()), Observation(obs.y[1:2], obs.op, obs.noise_var[1:2], obs.axes))
    torch.testing.assert_close(one.belief.mean[0], together[1], rtol=1e-3, atol=1e-4)
    silent = obs.y.clone()
    silent[2] = 0
    est = hhat.solve(method(CovarianceFeedback()), Observation(silent, obs.op, obs.noise_var, obs.axes))
    torch.testing.assert_close(est.belief.mean[:2], together[:2], rtol=1e-3, atol=1e-4)
    assert bool((est.belief.mean[2] == 0).all()) and est.status_counts() == {"OK": 3}


def test_bits_are_those_counted_by_hand():
    """32 antennas, 16 tones, 256 pilot resource elements a unit: 512 coefficients up, 2048 variances down."""
    slot = PAPER.draw(1, gen("bits"))
    unit = local(PAPER, 3)
    for rounds in (1, 2):
        feedback = CovarianceFeedback(bits=3, rounds=rounds)
        build = hhat.method("decentralised", unit=unit, upload=ExtrinsicUpload(MidTread(8)), feedback=feedback)
        up, down = (rounds + 1) * (2 * 8 * 512 + 32 + 32 + 1), rounds * (3 * 2048 + 32 + 32)
        info = hhat.solve(build, slot.obs).info
        assert (info["fronthaul_bits_up"], info["fronthaul_bits_down"]) == (up, down)
        assert info["fronthaul_bits_per_sample"] == (up + down) / 256
        info = hhat.solve(build, unknown(slot.obs)).info  # every message has the noise level as well
        assert (info["fronthaul_bits_up"], info["fronthaul_bits_down"]) == (up + 32 * (rounds + 1), down + 32 * rounds)
    nothing = hhat.solve(method(), drawn(1, BAND).obs).info
    assert nothing["fronthaul_bits_down"] == 0


@dataclasses.dataclass(frozen=True, eq=False)
class BrokenSecond(Broken):
    """Breaks where there is feedback alone."""

    def answer(self, obs, request):
        return super().answer(obs, request) if "levels" in request else self.job.answer(obs, request)


@dataclasses.dataclass(frozen=True, eq=False)
class SecondMethod(BrokenMethod):
    def _units(self, obs, num_unit, upload):
        made = super()._units(obs, num_unit, upload)
        return tuple(
            replace(unit, job=BrokenSecond(unit.job.job, self.how)) if isinstance(unit.job, Broken) else unit
            for unit in made
        )


@pytest.mark.parametrize("how", ["raise", "not finite", "wrong shape", "a part missing", "out of range: var"])
def test_a_unit_lost_in_the_second_round_keeps_the_first_estimate(how):
    obs = drawn(3, BAND, "second").obs
    est = hhat.solve(
        SecondMethod(
            unit=local(BAND), upload=PosteriorUpload(), how=how, broken=(UNIT,), feedback=CovarianceFeedback()
        ),
        obs,
    )
    first, whole = hhat.solve(method(), obs).belief, hhat.solve(method(CovarianceFeedback()), obs).belief
    assert est.status_counts() == {"DEGRADED": 3} and f"feedback: unit {UNIT}: " in est.info["lost_why"]
    assert est.info["lost_units"].tolist() == [[i == UNIT for i in range(4)]] * 3
    for part, want in ((slice(4, 8), first), (slice(0, 4), whole), (slice(8, 16), whole)):
        assert torch.equal(est.belief.mean[:, part], want.mean[:, part])
        assert torch.equal(est.belief.var[:, part], want.var.expand(3, 16, 12)[:, part])


class Fading(Serial):
    """Answers the first request; all units are gone from the second on."""

    def __init__(self):
        self.count = 0

    def _ask(self, units, requests):
        self.count += 1
        return super()._ask(units, requests) if self.count == 1 else [Lost("gone")] * len(units)


def test_all_lost_in_the_second_round_leaves_the_first_estimate():
    obs = drawn(2, BAND, "fading").obs
    est = hhat.solve(method(CovarianceFeedback(), Fading()), obs)
    assert torch.equal(est.belief.mean, hhat.solve(method(), obs).belief.mean)
    assert est.status_counts() == {"DEGRADED": 2} and bool(est.info["lost_units"].all())


def test_a_unit_lost_throughout_is_filled_by_the_centre_as_without_feedback(tmp_path):
    obs = drawn(2, BAND, "throughout").obs
    plain = hhat.solve(BrokenMethod(unit=local(BAND), upload=PosteriorUpload(), broken=(UNIT,)), obs).belief
    fed = BrokenMethod(unit=local(BAND), upload=PosteriorUpload(), broken=(UNIT,), feedback=CovarianceFeedback())
    est = hhat.solve(fed, obs)
    assert torch.equal(est.belief.mean[:, 4:8], plain.mean[:, 4:8])
    assert torch.equal(est.belief.var[:, 4:8], plain.var[:, 4:8])
    assert float((est.belief.mean - plain.mean).abs().max()) > 1e-2
    # back in time for the feedback, it is heard after all, and named all the same
    back = hhat.solve(replace(fed, fuse=str(tmp_path / "fuse")), obs)
    assert float((back.belief.mean[:, 4:8] - plain.mean[:, 4:8]).abs().max()) > 1e-2
    assert bool((back.belief.var[:, 4:8] < plain.var[:, 4:8]).all()) and back.status_counts() == {"DEGRADED": 2}


def test_lost_antennas_beside_concatenation_stay_unknown():
    obs = drawn(2, BAND, "unknown").obs
    est = hhat.solve(
        BrokenMethod(
            unit=local(BAND),
            upload=PosteriorUpload(),
            broken=(UNIT,),
            centre=Concatenate(),
            feedback=CovarianceFeedback(),
        ),
        obs,
    )
    assert bool(torch.isinf(est.belief.var[:, 4:8]).all()) and bool(torch.isfinite(est.belief.var[:, 8:]).all())


def same_bits(executor):
    """For the processes of test_decentralised_faults, and the actors below."""
    obs = drawn(3, BAND, "executors").obs
    feedback = CovarianceFeedback(rounds=2)
    for each in (obs, unknown(obs)):
        want = hhat.solve(method(feedback, upload=PosteriorUpload(MidTread(8))), each)
        for _ in range(2):
            found = hhat.solve(method(feedback, executor, upload=PosteriorUpload(MidTread(8))), each)
            assert torch.equal(found.belief.mean, want.belief.mean) and torch.equal(found.belief.var, want.belief.var)
            assert torch.equal(found.info["noise_var"], want.info["noise_var"])
            assert found.status_counts() == {"OK": 3}


@pytest.mark.slow
def test_actors_give_the_serial_numbers_to_the_bit():
    pytest.importorskip("ray")
    from hhat.decentralized.ray_units import RayUnits

    with RayUnits() as executor:
        same_bits(executor)


def test_raw_pilots_and_paths_have_nothing_to_feed_back_into():
    slot = drawn(2, BAND, "raw")
    nomp = hhat.method("nomp", model=path_model(BAND, local=True, curved=False), max_paths=2)
    for settings in ({"upload": RawUpload()}, {"unit": nomp, "upload": ParametricUpload()}):
        plain, fed = (
            hhat.solve(hhat.method("decentralised", **settings, feedback=feedback), slot.obs)
            for feedback in (None, CovarianceFeedback())
        )
        assert torch.equal(plain.belief.mean, fed.belief.mean) and fed.info["fronthaul_bits_down"] == 0


@pytest.mark.parametrize("settings", [{"bits": 0}, {"bits": 25}, {"range_db": 0.0}, {"rounds": 0}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        CovarianceFeedback(**settings)
