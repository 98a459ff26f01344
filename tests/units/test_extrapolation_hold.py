"""`hold` against holding by hand, and what uniform phases leave of it."""

from dataclasses import replace

import pytest
import torch

import hhat
from hhat.extrapolation.hold import Hold, genie_hold
from hhat.methods.linear import LeastSquares
from hhat.ops import Identity
from hhat.random import complex_normal, generator
from hhat.types import Observation
from tests.units.sounding_fakes import SCENE, db, draw, errors


def test_least_squares_holds_the_pilots_of_the_last_visit():
    slots, _, _ = draw(2, 3)
    found = [est for _, est in hhat.track(Hold(SCENE.model, LeastSquares()), slots)]
    first, second = slots[1].obs.op.right.index, slots[2].obs.op.right.index
    mean = found[2].belief.mean
    assert torch.equal(mean[..., first], slots[1].obs.y) and torch.equal(mean[..., second], slots[2].obs.y)
    var = found[0].belief.var[..., 0, :]
    assert torch.allclose(var[..., second], slots[0].obs.noise_var) and torch.isinf(var[..., first]).all()


def test_where_a_symbol_sounds_oamp_is_better_than_its_pilots_and_knows_how_much():
    slots, _, _ = draw(8, 2)
    tones = slots[1].obs.op.right.index
    h, found = slots[1].truth.h, {}
    for name, method in (("oamp", Hold(SCENE.model)), ("ls", Hold(SCENE.model, LeastSquares()))):
        _, estimates, _ = errors(method, slots)
        error = (estimates[1].belief.mean - h)[..., tones].abs().square()
        found[name] = db(error)
        assert abs(found[name] - db(estimates[1].belief.var[..., tones])) < 2
    assert found["oamp"] < found["ls"] - 2


def test_the_genie_holds_nothing_of_use_unless_phases_stay():
    index = SCENE.index(6)
    _, _, whole = draw(40, 6)
    held = genie_hold(whole.truth.h, index)
    for symbol in (2, 5):
        other = index[symbol - 1]
        now, old = whole.truth.h[:, :, symbol][..., other], whole.truth.h[:, :, symbol - 1][..., other]
        assert torch.equal(held[:, :, symbol][..., other], old)
        assert torch.equal(held[:, :, symbol][..., index[symbol]], whole.truth.h[:, :, symbol][..., index[symbol]])
        assert abs(db((old - now).abs().square()) - db(2 * now.abs().square())) < 2.5
    still = replace(SCENE, random_phase=False, timing_spread_s=0, speed_kmh=1e-6)
    _, _, whole = draw(3, 6, scene=still)
    held = genie_hold(whole.truth.h, index)
    assert torch.allclose(held[:, :, 1:], whole.truth.h[:, :, 1:], atol=1e-5) and (held[:, :, 0] == 0).any()


def test_held_tones_claim_twice_the_power():
    slots, _, _ = draw(2, 2)
    _, estimates, _ = errors(Hold(SCENE.model, LeastSquares()), slots)
    other = slots[0].obs.op.right.index
    power = slots[1].obs.y.abs().square().mean((-2, -1))
    assert torch.allclose(estimates[1].belief.var[:, 0, other], 2 * power[:, None].expand(-1, len(other)))


def test_it_needs_its_model():
    y = complex_normal((2, 3), generator("hold"))
    with pytest.raises(ValueError, match="model: expected a Sounding"):
        Hold().init(Observation(y, Identity((2, 3)), 0.1), generator("hold"))
