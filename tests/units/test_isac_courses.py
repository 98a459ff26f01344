"""The experiments on time, sets of targets and numbers of snapshots: each against what must come out."""

import math
from itertools import islice, repeat

import pytest
import torch

from hhat.experiments import isac, isac_targets
from hhat.experiments.isac_course import Stream, begun, course, errors_after, followed
from hhat.experiments.isac_drift import FROZEN_AFTER, frozen
from hhat.experiments.isac_learning import from_set
from hhat.experiments.isac_samples import Sets, measured
from hhat.random import generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing import search
from hhat.sensing.accuracy import gain_errors
from hhat.sensing.calibration import Calibration
from hhat.sensing.detector import position_m
from hhat.types import Status

SHORT = Stream(after=256, block=128, drift_deg=40.0)


def told(kappa):
    return Calibration(kappa, torch.zeros(len(kappa)), 0.0, torch.arange(len(kappa)) / 2)


def first_forever(blocks):
    """The gains of the first block, for all."""
    kappa = next(blocks).truth.kappa
    yield told(kappa)
    for _ in blocks:
        yield told(kappa)


def genie(blocks):
    return (told(slot.truth.kappa) for slot in blocks)


def test_a_course_holds_gains_against_those_of_their_own_block():
    assert all(abs(errors.e0) < 1e-6 for errors in islice(course(SHORT, genie, 5), 3))
    walked = [slot.truth.kappa for slot in islice(SHORT.blocks(5), 3)]
    for errors, kappa in zip(islice(course(SHORT, first_forever, 5), 3), walked, strict=True):
        assert errors.e0 == pytest.approx(float(gain_errors(walked[0], kappa).e0), abs=1e-12)
    # phases that walk by q rad rms: E e0 = 1 - exp(-q^2), about
    q2 = math.radians(40) ** 2 * 128 / 1000
    assert float(gain_errors(walked[0], walked[1]).e0) == pytest.approx(1 - math.exp(-q2), rel=0.5)


def test_points_go_on_where_others_ended_and_come_out_as_alone():
    begun.cache_clear()
    later, sooner = (errors_after(Stream(after, 128, 40.0), first_forever, 5) for after in (384, 256))
    begun.cache_clear()
    assert errors_after(SHORT, first_forever, 5).e0 == sooner.e0 < later.e0
    measure = followed(first_forever)(SHORT).measure
    slot = SHORT.draw(1, generator("course"))
    arrays, status = measure(slot)
    assert status == {"OK": 1} and arrays["e0"].shape == (1,)
    assert float(arrays["e0"]) == pytest.approx(errors_after(SHORT, first_forever, slot.truth.seed).e0)
    with pytest.raises(ValueError, match="multiple of 128"):
        errors_after(Stream(200, 128), genie, 5)


def test_frozen_gains_see_the_first_snapshots_and_no_more(monkeypatch):
    lengths = []

    def kept(echoes):
        lengths.append(len(echoes.y))
        return told(torch.ones(64, dtype=torch.complex64))

    monkeypatch.setattr("hhat.experiments.isac_drift.calibrate", kept)
    small = repeat(EchoScene.example(generator("frozen")).draw(2, generator("frozen")))
    found = list(islice(frozen(small), FROZEN_AFTER // 1024 + 1))
    assert lengths == [2 * FROZEN_AFTER // 1024]
    assert [one.status for one in found] == [Status.WARMING_UP] * (len(found) - 2) + [Status.OK] * 2
    assert bool(found[0].kappa.isnan().all()) and not bool(found[-2].kappa.isnan().any())


def test_sets_are_scored_as_single_targets_where_they_are_single():
    slot = isac_targets.Crowd(targets=1, snr_db=35.0).draw(64, generator("crowd", "one"))
    assert bool(slot.truth.present.all())
    got = isac_targets.scored(slot, slot.truth.kappa)
    found = search(slot.obs, slot.truth.kappa, refine_steps=3)
    away = (position_m(found.u, found.range_m) - position_m(slot.truth.u, slot.truth.range_m)[:, 0]).norm(dim=-1)
    # GOSPA of one target found: its distance up to the cut-off; others that are found cost half of its square
    extra = float(got["targets_found"]) - 1
    want = float(away.clamp_max(5.0).square().mean()) + extra * 12.5
    assert abs(extra) < 0.1 and float(got["gospa_m_squared"]) == pytest.approx(want, abs=0.25)
    worse = isac_targets.scored(isac.part(slot, slice(0, 16)), None)
    assert float(worse["gospa_m_squared"]) > 5 * float(got["gospa_m_squared"]) and float(worse["e0"]) > 0.3
    crowd = isac_targets.Crowd(targets=4).draw(5, generator("crowd", "four"))
    assert bool(crowd.truth.present.all()) and crowd.truth.present.shape == (5, 4)


def test_smaller_sets_are_part_of_larger_ones_and_the_genie_needs_no_gains():
    slot = isac.Trial(snr_db=25.0).draw(700, generator("samples"))
    seen = []

    def gains(part):
        seen.append(part.obs.y)
        return part.truth.kappa, Status.OK

    arrays, _ = measured(gains, train=300)(Sets(snr_db=25.0, false_alarm=0.1, snapshots=120)).measure(slot)
    assert torch.equal(seen[0], slot.obs.y[:120])
    rest = isac.scored(isac.part(slot, slice(300, None)), slot.truth.kappa, 0.1)
    assert torch.equal(arrays["position_rmse_in_cell_m_squared"], rest["position_rmse_in_cell_m_squared"])
    assert float(arrays["e1"]) < 1e-6
    # e1 of n known angles: (N - 1) / (n SNR)
    present = int(slot.truth.present.sum())
    e1 = float(gain_errors(isac.genie(slot)[0], slot.truth.kappa).e1)
    assert e1 == pytest.approx(63 / (present * 10**2.5), rel=0.5)


def test_sets_of_a_stream_are_its_first_snapshots(monkeypatch):
    sizes = []

    def kept(echoes, calibrator):
        sizes.append(len(echoes.y))
        return told(torch.ones(64, dtype=torch.complex64))

    monkeypatch.setattr("hhat.experiments.isac_learning.calibrate", kept)
    from_set.cache_clear()
    stream = Stream(after=512, block=256)
    errors = from_set("eigenvector", stream, 7, 512)
    truth = stream.scene(7).kappa()
    assert sizes == [512] and errors.e0 == pytest.approx(float(gain_errors(torch.ones_like(truth), truth).e0))
    from_set.cache_clear()
