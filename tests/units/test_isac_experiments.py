"""The figures on sensing: what they score, against a count by hand, and known gains as the limit of calibrated ones."""

import math

import pytest
import torch

from hhat.bench.compare import difference
from hhat.bench.store import Cell
from hhat.bench.summary import SQUARED, Group, summarise
from hhat.experiments import isac
from hhat.experiments.isac_fig2 import peaked
from hhat.random import generator
from hhat.sensing import search
from hhat.types import Status


def test_scores_are_those_counted_by_hand():
    slot = isac.Trial(snr_db=30.0).draw(300, generator("isac", "scores"))
    got = isac.scored(slot, slot.truth.kappa, 0.05)
    assert {name.removesuffix(SQUARED) for name in got} == set(isac.METRICS)
    assert all(value.shape == (1,) for value in got.values())
    found = search(slot.obs, slot.truth.kappa, refine_steps=isac.REFINE_STEPS)
    present = slot.truth.present[:, 0]
    x, y = found.range_m * found.u, found.range_m * (1 - found.u.square()).sqrt()
    u, r = slot.truth.u[:, 0], slot.truth.range_m[:, 0]
    away = ((x - r * u).square() + (y - r * (1 - u.square()).sqrt()).square()).sqrt()
    assert float(got["e0"]) == 0
    # the threshold: of m empty snapshots the (m + 1) / 20 largest pass, rounded down
    empty = found.statistic[~present].sort(descending=True).values
    passed = present & (found.statistic > empty[int((len(empty) + 1) * 0.05 + 1e-9)])
    assert float(got["detection_probability"]) == pytest.approx(float(passed.sum() / present.sum()), abs=1e-6)
    assert float(got["position_rmse_m_squared"]) == pytest.approx(float(away[passed].square().mean()), rel=1e-3)
    near = away[passed & ((found.u - u).abs() < 0.03) & ((found.range_m - r).abs() < 1.5)]
    assert float(got["position_rmse_in_cell_m_squared"]) == pytest.approx(float(near.square().mean()), rel=1e-3)
    assert 0.01 < float(got["closed_form_false_alarm"]) < 0.12


def kept(squares, name="position_rmse_m_squared"):
    cell = Cell("", "isac/x", "m", {}, 0, 0, len(squares), {name: squares}, {"OK": 1}, 1.0, 1.0, "cpu", 1, {})
    return Group("m", {}, 0, [cell])


def test_rmse_over_arrays_is_the_root_of_the_mean_of_mean_squares():
    found = summarise("position_rmse_m", kept(torch.tensor([1.0, 9.0, 2.0, 4.0])))
    assert found.value == pytest.approx(2) and found.low < 2 < found.high and found.n == 4
    # drawn anew: the interval covers the truth as often as it says
    drawn = torch.randn(1000, 40, 8, generator=generator("isac", "rmse mean")).square().mean(-1) * 9
    ends = [summarise("position_rmse_m", kept(one)) for one in drawn]
    assert 925 <= sum(one.low < 3 < one.high for one in ends) <= 970


def test_two_rmse_are_compared_array_by_array():
    one, other = torch.tensor([1.0, 9.0, 2.0, 4.0]), torch.tensor([4.0, 36.0, 8.0, 16.0])
    found = difference("position_rmse_m", kept(other), kept(one))
    assert found.value == pytest.approx(4 - 2)
    # other = 4 x one: its root is twice as large in every draw, so that the difference is spread as the smaller root
    mean, half = float(one.mean()), (found.high - found.low) / 2
    want = 3.182 * float(one.std()) / (2 * math.sqrt(mean)) / math.sqrt(4)
    assert half == pytest.approx(want, rel=1e-3)


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

    arrays, status = isac.sensed(gains, train=80)(isac.Trial(false_alarm=0.2)).measure(slot)
    assert lengths == [80] and status == {"MAX_STEPS": 1}
    want = isac.scored(isac.part(slot, slice(80, None)), slot.truth.kappa, 0.2)
    assert all(
        torch.equal(arrays[name], want[name]) for name in ("e0", "detection_probability", "closed_form_false_alarm")
    )


def test_the_peak_drops_without_calibration():
    slot = isac.Trial(snr_db=30.0).draw(64, generator("isac", "peak"))
    known, ones = (float(peaked(g)(isac.Trial()).measure(slot)[0]["peak_db"]) for g in (isac.known, isac.ones))
    assert known - ones > 1
