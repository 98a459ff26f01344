"""`sliding-joint-ml` against the Cramer-Rao bound, its gauges, and paths that come and go."""

import math

import pytest
import torch

from hhat.extrapolation.bound import channel_bound
from hhat.extrapolation.model import Offsets
from hhat.extrapolation.sliding import SlidingJointMl
from hhat.extrapolation.uncertainty import channel_variance
from hhat.ops import Identity, Kron, Select
from hhat.types import Channel, Observation, Slot
from tests.units.sounding_fakes import SCENE, Told, db, draw, errors

MODEL = SCENE.model


def tracker(told, **settings):
    return SlidingJointMl(MODEL, told, num_paths=5, **settings)


def test_on_its_own_law_it_stays_at_the_bound_and_knows_it():
    slots, told, whole = draw(8, 10)
    found, estimates, state = errors(tracker(told), slots)
    window = slice(6, 10)
    offsets = Offsets(whole.truth.phase_rad[:, window], whole.truth.timing_s[:, window])
    times = SCENE.period_s * torch.arange(6, 10).double()
    bound = channel_bound(MODEL, whole.truth.paths, offsets, SCENE.index(10)[window], SCENE.noise_var(), times)
    late = db(found[6:])
    assert abs(late - db(bound.nmse)) < 1.5
    assert db(found[8:]) < db(bound.nmse) + 2.5  # no drift
    promised = torch.stack([est.belief.var.mean((-2, -1)) for est in estimates[6:]])
    size = torch.stack([slot.truth.h.abs().square().mean((-2, -1)) for slot in slots[6:]])
    assert abs(db(promised) - db(found[6:] * size)) < 1.5
    assert (state["path.mask"].sum(-1) == 3).all()


def test_a_phase_and_a_delay_of_each_symbol_change_nothing():
    slots, told, _ = draw(2, 6)
    f = MODEL.tones_hz()
    turned = []
    for m, slot in enumerate(slots):
        angle = 1.7 * m - 2 * math.pi * f * 3e-9 * (m % 3)
        common = torch.polar(torch.ones_like(angle), angle).to(slot.truth.h.dtype)
        op, h = slot.obs.op, slot.truth.h * common
        y = slot.obs.y * common[op.right.index]
        turned.append(Slot(Channel(h), Observation(y, op, slot.obs.noise_var, slot.obs.axes)))
    phase = told.offsets.phase_rad + 1.7 * torch.arange(6)
    timing = told.offsets.timing_s + 3e-9 * (torch.arange(6) % 3)
    plain, _, _ = errors(tracker(told), slots)
    other, _, _ = errors(tracker(Told(told.paths, Offsets(phase, timing))), turned)
    assert torch.allclose(plain[3:], other[3:], rtol=0.15)


def test_paths_that_are_not_told_are_found_and_paths_that_are_not_there_go():
    slots, told, _ = draw(3, 9)
    paths = told.paths
    strongest = paths.gain.abs().argmax(-1, keepdim=True)
    fewer = paths._replace(mask=paths.mask.scatter(1, strongest, False))
    found, _, state = errors(tracker(Told(fewer, told.offsets)), slots)
    assert db(found[8].median()) < -20 and db(found[3].median()) > -5
    assert (state["path.mask"].sum(-1) >= 3).all()
    pad = lambda x, value: torch.cat([x, torch.full_like(x[:, :1], value)], 1)  # noqa: E731
    more = paths._replace(
        gain=pad(paths.gain, 0.02), delay_s=pad(paths.delay_s, 3.5e-6), doppler_hz=pad(paths.doppler_hz, 0.0),
        cosine=pad(paths.cosine, 0.9), mask=pad(paths.mask, True),
    )  # fmt: skip
    _, _, state = errors(tracker(Told(more, told.offsets)), slots[:6])
    assert (state["path.mask"].sum(-1) == 3).sum() >= 2  # noise may feed one
    _, _, state = errors(tracker(Told(fewer, told.offsets), revise=0), slots[:5])
    assert (state["path.mask"].sum(-1) == 2).all()


def test_what_covers_the_error_of_missing_paths():
    """With a path that it may not add, the variance of tones not sounded has to come from missed predictions."""
    slots, told, _ = draw(6, 10)
    weak = told.paths.gain.abs().argmin(-1, keepdim=True)
    fewer = told.paths._replace(mask=told.paths.mask.scatter(1, weak, False))
    found, estimates, state = errors(tracker(Told(fewer, told.offsets), revise=0, around=False), slots)
    promised = torch.stack([est.belief.var.mean((-2, -1)) for est in estimates[6:]])
    ratio = promised / found[6:]
    assert 0.3 < float(ratio.log().mean().exp()) < 3 and float(state["misfit"].mean()) > 0.01


def test_variance_of_the_channel_is_that_of_drawn_paths():
    slots, told, _ = draw(1, 5)
    _, _, state = errors(tracker(told, around=False), slots)
    paths = told.paths._replace(**{k: state["path." + k][:, :3] for k in told.paths._fields})
    rows = [i for i in range(30) if i % 5 < 3]  # of 5 places 3 are taken
    c = state["covariance"][:, rows][:, :, rows]
    lag = torch.tensor([0.0, 4e-3]).double()
    found = channel_variance(MODEL, paths, c, lag)[0]
    gen = torch.Generator().manual_seed(1)
    scale = c[0].diagonal().sqrt()
    root = scale[:, None] * torch.linalg.cholesky(c[0] / scale[:, None] / scale + 1e-12 * torch.eye(18))
    step = (torch.randn(2000, 18, generator=gen).double() @ root.mT).unflatten(1, (6, 3)).unbind(1)
    many = paths._replace(
        gain=paths.gain + torch.complex(step[1], step[0]), delay_s=paths.delay_s + step[2],
        cosine=paths.cosine + torch.stack(step[3:5], -1), doppler_hz=paths.doppler_hz + step[5],
        mask=paths.mask.expand(2000, -1),
    )  # fmt: skip
    still = torch.zeros(2000, 2).double()
    h = MODEL.channel(many, Offsets(still, still), lag)
    middle = MODEL.channel(paths, Offsets(still[:1], still[:1]), lag)
    drawn = (h - middle).abs().square().mean((0, 1))
    assert (drawn / found).log().abs().max() < 0.25 and bool((found[1] > found[0]).all())


def test_one_symbol_observation_is_asked_for():
    op = Kron(Identity((7,)), Select(torch.arange(4), 64))
    with pytest.raises(ValueError, match="8 antennas"):
        SlidingJointMl(MODEL).init(Observation(torch.zeros(7, 4) + 0j, op, 0.1), torch.Generator())


@pytest.mark.parametrize("setting", [{"window": 1}, {"steps": 0}, {"revise": -1}])
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match="expected"):
        SlidingJointMl(MODEL, **setting)
