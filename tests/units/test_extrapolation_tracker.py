"""`srs-extrapolation`: the whole system slot by slot, its state on disk, lost slots, jumps, and the time in between."""

from dataclasses import replace

import pytest
import torch

import hhat
from hhat.extrapolation.joint_ml import JointMl
from hhat.extrapolation.model import Offsets
from hhat.extrapolation.predict import predict
from hhat.extrapolation.tracker import SrsExtrapolation
from hhat.random import generator
from hhat.types import Observation, Slot, Status
from tests.units.sounding_fakes import SCENE, db, draw, errors

MODEL = SCENE.model


def tracker(told, **settings):
    return SrsExtrapolation(MODEL, told, num_paths=5, **settings)


def whole_system(**settings):
    """With its own first stage."""
    first = JointMl(MODEL, num_paths=5, rounds=1, refine_steps=6)
    return hhat.method("srs-extrapolation", model=MODEL, stage1=first, num_paths=5, **settings)


def test_it_warms_up_and_then_gives_the_whole_band():
    slots, _, _ = draw(3, 5)
    found, estimates, _ = errors(whole_system(), slots)
    for est in estimates[:3]:
        assert (est.status == Status.WARMING_UP).all() and torch.isinf(est.belief.var).all()
        assert bool((est.belief.mean == 0).all())
    for est in estimates[3:]:
        assert (est.status == Status.OK).all() and torch.isfinite(est.belief.var).all()
    assert db(found[3:].median(1).values) < -22


def test_a_saved_state_resumes_bit_for_bit(tmp_path):
    slots, told, _ = draw(2, 6)
    unbroken = list(hhat.track(tracker(told), slots))
    for cut in (2, 5):
        for state, _ in hhat.track(tracker(told), slots[:cut]):
            hhat.save_state(tmp_path / "s", state)
        resumed = list(hhat.track(tracker(told), slots[cut:], hhat.load_state(tmp_path / "s")))
        for (_, whole), (_, part) in zip(unbroken[cut:], resumed, strict=True):
            assert torch.equal(whole.belief.mean, part.belief.mean) and torch.equal(whole.belief.var, part.belief.var)


def test_a_lost_slot_is_bridged_and_one_in_the_warm_up_starts_it_again():
    slots, told, _ = draw(2, 6)

    def without(item, symbol):
        y = slots[symbol].obs.y.clone()
        y[item] = float("nan")
        obs = slots[symbol].obs
        lost = Slot(slots[symbol].truth, Observation(y, obs.op, obs.noise_var, obs.axes))
        return [*slots[:symbol], lost, *slots[symbol + 1 :]]

    plain, _, _ = errors(tracker(told), slots)
    late, estimates, _ = errors(tracker(told), without(1, 4))
    assert (
        estimates[4].status.tolist() == [Status.OK, Status.NONFINITE] and torch.isinf(estimates[4].belief.var[1]).all()
    )
    assert torch.allclose(plain[:, 0], late[:, 0], rtol=1e-4)
    assert db(late[5:, 1]) < -22
    _, early, _ = errors(whole_system(), without(1, 1))
    status = torch.stack([est.status for est in early])
    assert (status[3:, 0] == Status.OK).all()
    assert (status[2:5, 1] == Status.WARMING_UP).all() and status[5, 1] == Status.OK


def test_after_a_jump_it_finds_the_channel_again():
    before, _, _ = draw(1, 4)
    after, _, _ = draw(1, 6, label="elsewhere")
    found, _, state = errors(whole_system(revise=0), [*before, *after])
    assert db(found[4]) > -10 and db(found[9]) < -14
    assert int(state["since"]) < 6  # stage 1 ran again


def test_no_lag_is_the_estimate_and_a_lag_is_the_channel_up_to_its_phase_and_timing():
    scene = replace(SCENE, speed_kmh=20)
    slots, told, whole = draw(5, 6, scene=scene)
    state, est = list(hhat.track(SrsExtrapolation(scene.model, told, num_paths=5), slots))[-1]
    lags = torch.tensor([0.0, 1e-3, 3e-3, 5e-3]).double()
    found = predict(scene.model, state, lags)
    assert torch.allclose(found.mean[:, :, 0], est.belief.mean.to(torch.complex128), atol=1e-5)
    time = 5 * scene.period_s + lags
    last = Offsets(*(x[:, -1:].expand(-1, 4) for x in whole.truth.offsets))
    h = scene.model.channel(whole.truth.paths, last, time)
    turn = (found.mean.conj() * h).sum((1, 3), keepdim=True)  # up to a common phase
    error = (found.mean * turn / turn.abs() - h).abs().square().mean((1, 3))
    middle = error.median(0).values
    assert db(middle[3]) < -20 and (found.var.mean((1, 3)).diff(dim=1) > 0).all()
    assert abs(db(middle[3]) - db(found.var[:, 0, 3].mean(-1).median())) < 3
    turn = (found.mean[:, :, :1].conj() * h).sum((1, 3), keepdim=True)
    still = (found.mean[:, :, :1] * turn / turn.abs() - h).abs().square().mean((1, 3)).median(0).values
    assert db(still[3]) > db(middle[3]) + 6  # holding the symbol's channel instead
    one = predict(scene.model, state, 3e-3)
    assert torch.allclose(one.mean, found.mean[:, :, 2]) and one.var.shape == (5, 1, 64)


def test_before_the_first_estimate_there_is_nothing_to_predict():
    slots, told, _ = draw(1, 1)
    state, _ = next(iter(hhat.track(tracker(told), slots)))
    with pytest.raises(ValueError, match="after its first estimate"):
        predict(MODEL, state, 1e-3)


def test_unbatched_symbols_are_tracked_too():
    slots, _, _ = draw(1, 5)
    single = [Observation(slot.obs.y[0], slot.obs.op, slot.obs.noise_var, slot.obs.axes) for slot in slots]
    method = whole_system()
    for (_, a), (_, b) in zip(hhat.track(method, single), hhat.track(method, slots), strict=True):
        assert a.status.shape == () and torch.allclose(a.belief.mean, b.belief.mean[0], atol=1e-4)


def test_settings_and_slots_are_checked():
    with pytest.raises(ValueError, match="lost: expected more than 0"):
        SrsExtrapolation(MODEL, lost=0)
    slots, _, _ = draw(1, 1)
    with pytest.raises(ValueError, match="model: expected a Sounding"):
        SrsExtrapolation().init(slots[0].obs, generator("none"))
    state = SrsExtrapolation(MODEL).init(slots[0].obs, generator("none"))
    op = replace(slots[0].obs.op, right=replace(slots[0].obs.op.right, index=torch.arange(8)))
    with pytest.raises(ValueError, match="expected 32 tones in every slot, got 8"):
        SrsExtrapolation(MODEL).step(state, Observation(slots[0].obs.y[..., :8], op, 0.1))
