"""The figures on sensing: what they score, against a count by hand, and known gains as the limit of calibrated ones."""

import torch

from hhat.experiments import isac
from hhat.experiments.isac_fig2 import peaked
from hhat.random import generator
from hhat.sensing import search
from hhat.types import Status


def test_scores_are_those_counted_by_hand():
    slot = isac.Trial(snr_db=30.0).draw(300, generator("isac", "scores"))
    got = isac.scored(slot, slot.truth.kappa, 0.05)
    assert set(got) == set(isac.METRICS) and all(value.shape == (1,) for value in got.values())
    found = search(slot.obs, slot.truth.kappa, refine_steps=isac.REFINE_STEPS)
    present = slot.truth.present[:, 0]
    x, y = found.range_m * found.u, found.range_m * (1 - found.u.square()).sqrt()
    u, r = slot.truth.u[:, 0], slot.truth.range_m[:, 0]
    away = ((x - r * u).square() + (y - r * (1 - u.square()).sqrt()).square()).sqrt()
    assert float(got["e0"]) == 0
    assert float(got["detection_probability"]) > 0.95 and float(got["false_alarm_rate"]) < 0.12
    near = away[present & (away < 1)]
    assert abs(float(got["position_rmse_in_cell_m"]) / float(near.square().mean().sqrt()) - 1) < 0.15


def test_ones_lose_what_the_gains_are_away():
    slot = isac.Trial(snr_db=30.0).draw(300, generator("isac", "ones"))
    kappa = slot.truth.kappa
    got = isac.scored(slot, None, 0.05)
    torch.testing.assert_close(
        got["e0"].double(), (1 - kappa.sum().abs().square() / (64 * kappa.abs().square().sum())).reshape(1).double()
    )
    assert float(got["detection_probability"]) < float(isac.scored(slot, kappa, 0.05)["detection_probability"])


def test_each_draw_has_gains_of_its_own_and_false_alarms_do_not_change_it():
    one, other = (isac.Trial(false_alarm=rate).draw(3, generator("isac", "draw")) for rate in (0.1, 0.001))
    assert torch.equal(one.obs.y, other.obs.y)
    assert not torch.equal(one.truth.kappa, isac.Trial().draw(3, generator("isac", "another")).truth.kappa)


def test_a_measurement_scores_what_its_calibration_has_not_seen():
    slot = isac.Trial().draw(120, generator("isac", "parts"))
    lengths = []

    def gains(first):
        lengths.append(len(first.obs.y))
        assert torch.equal(first.obs.y, slot.obs.y[:80])
        return first.truth.kappa, Status.MAX_STEPS

    arrays, status = isac.sensed(gains, train=80)(isac.Trial()).measure(slot)
    assert lengths == [80] and status == {"MAX_STEPS": 1}
    want = isac.scored(isac.part(slot, slice(80, None)), slot.truth.kappa, isac.Trial().false_alarm)
    assert all(torch.equal(arrays[name], want[name]) for name in ("e0", "detection_probability", "false_alarm_rate"))


def test_the_peak_drops_without_calibration():
    slot = isac.Trial(snr_db=30.0).draw(64, generator("isac", "peak"))
    known, ones = (float(peaked(g)(isac.Trial()).measure(slot)[0]["peak_db"]) for g in (isac.known, isac.ones))
    assert known - ones > 1
