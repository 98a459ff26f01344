"""The bound against closed forms of one path, the dense Jacobian, and what is known of hops."""

import math

import pytest
import torch

from hhat.extrapolation.bound import channel_bound, inverse, tone_variance
from hhat.extrapolation.model import Offsets, Paths, Sounded
from hhat.extrapolation.normal import Free, Linear, Task, normal_at
from hhat.random import generator
from tests.units.extrapolation_draws import drawn, sounding


@pytest.mark.parametrize("hops, part, ratio", [(2, 0, 7), (4, 0, 43), (4, 1, 19)])
def test_one_path_has_the_closed_forms(hops, part, ratio):
    model, index, times = sounding(hops)
    one = Paths(
        torch.tensor([1 + 0.5j], dtype=torch.complex128),
        torch.tensor([7e-7]).double(),
        torch.tensor([[0.2, -0.1]]).double(),
        torch.zeros(1).double(),
        torch.ones(1, dtype=torch.bool),
    )
    zero = Offsets(torch.zeros(1).double(), torch.zeros(1).double())
    got = channel_bound(model, one, zero, index[part : part + 1], 0.125, times[:1], priors=False)  # SNR 10 dB
    count = 500 // hops
    spread = sum((n - (count - 1) / 2) ** 2 for n in range(count))
    assert float(got.delay_std) == pytest.approx((8 * math.pi**2 * 120e3**2 * 10 * 32 * spread) ** -0.5, rel=1e-6)
    mean = sum((n - (part + 0.5) * count + 0.5) ** 2 for n in range(500)) / 500 / (spread / count)
    assert mean == pytest.approx(ratio, rel=1e-3)
    assert 10 * math.log10(float(got.nmse)) == pytest.approx(10 * math.log10((2 + mean / 2) / 320 / count), abs=1e-6)
    if (hops, part) == (2, 0):
        assert float(got.delay_std) == pytest.approx(45.9444e-12, rel=1e-5)
        assert 10 * math.log10(float(got.nmse)) == pytest.approx(-41.627, abs=1e-3)


@pytest.mark.parametrize("doppler", [Linear(), Free()], ids=lambda d: type(d).__name__)
def test_the_variance_of_tones_is_that_of_the_written_out_jacobian(doppler):
    model, index, times = sounding(2, 3, tones=8, columns=3, rows=2)
    paths, offsets = drawn(2, 3, 3, generator("extrapolation-bound", "dense"))
    y = torch.zeros(2, 6, 3, 4, dtype=torch.complex128)
    task = Task.make(model, Sounded(y, index, torch.tensor(0.1)), times, doppler)
    whole = Task.make(
        model, Sounded(torch.zeros(2, 6, 3, 8).cdouble(), torch.arange(8).expand(3, 8), None), times, doppler
    )
    point = task.point(paths, offsets)
    fixed = task.fixed(point)
    root = torch.randn(2, fixed.shape[1], fixed.shape[1], generator=generator("dense", 1)).double()
    unit = normal_at(whole, point).information.diagonal(dim1=-2, dim2=-1).clamp_min(1e-30).rsqrt()
    covariance = unit[:, :, None] * (root @ root.mT) * unit[:, None]
    # sum over tones, symbols and antennas of diag(J C J^T), J complex: trace of C Re(J^H J)
    want = (covariance * normal_at(whole, point).information / 2).sum((-1, -2))
    var = tone_variance(task, point, covariance)
    torch.testing.assert_close(6 * var.sum((-1, -2)), want)
    # and entry by entry: what one antenna of a model of its own has
    single = sounding(2, 3, tones=8, columns=1, rows=1)[0]
    one = Task.make(single, Sounded(y[:, :1], index, torch.tensor(0.1)), times, doppler)
    alone = Task.make(single, Sounded(torch.zeros(2, 1, 3, 1).cdouble(), torch.full((3, 1), 5), None), times, doppler)
    info = normal_at(alone, point).information
    torch.testing.assert_close(
        tone_variance(one, point, covariance)[..., 5].sum(-1), (covariance * info / 2).sum((-1, -2))
    )


def test_without_priors_one_common_doppler_shift_is_not_known():
    model, index, times = sounding(2)
    paths, offsets = drawn(2, 4, 4, generator("extrapolation-bound", "gauge"))
    got = channel_bound(model, paths, offsets, index, 0.1, times, priors=False)
    assert (got.eigenvalues[:, 0] < 1e-14).all() and (got.eigenvalues[:, 1] > 1e-6).all()
    with_prior = channel_bound(model, paths, offsets, index, 0.1, times)
    assert (with_prior.nmse <= got.nmse).all()
    torch.testing.assert_close(with_prior.nmse, got.nmse, rtol=1e-2, atol=0)


def test_one_symbol_more_than_hops_makes_the_aperture_coherent_and_so_does_another_order():
    gen = generator("extrapolation-bound", "hops")
    paths, offsets = drawn(3, 4, 5, gen)
    noise = paths.gain.abs().square().sum(-1) / 10

    def relative(order, symbols, doppler):
        model, index, times = sounding(4, symbols, order)
        some = Offsets(offsets.phase_rad[:, :symbols], offsets.timing_s[:, :symbols])
        return channel_bound(model, paths, some, index, noise, times, doppler, priors=False).relative_delay_std[:, 1:]

    line, free = relative([0, 1, 2, 3], 4, Linear()), relative([0, 1, 2, 3], 4, Free())
    # delay and Doppler make the same ramp: as good as phases of their own, 4 digits
    torch.testing.assert_close(line, free, rtol=1e-4, atol=0)
    assert (free / relative([0, 1, 2, 3], 5, Linear()) > 2).all()
    assert (line / relative([0, 2, 1, 3], 4, Linear()) > 2).all()


def test_a_channel_that_the_pilots_leave_open_has_no_bound():
    """One tone a symbol: its own phase takes all that would tell a delay, and with it the other tone."""
    model, index, times = sounding(2, tones=2)
    paths, offsets = drawn(2, 1, 4, generator("extrapolation-bound", "open"))
    for priors in (True, False):
        got = channel_bound(model, paths, offsets, index, 0.1, times, priors=priors)
        sounded_now = torch.zeros(4, 2, dtype=torch.bool).scatter(1, index, True)
        assert torch.equal(torch.isfinite(got.var[:, 0]), sounded_now.expand(2, 4, 2)) and torch.isinf(got.nmse).all()
    told = channel_bound(model, paths, offsets, index, 0.1, times, known_offsets=True)
    assert torch.isfinite(told.nmse).all()


def test_known_offsets_and_masked_paths():
    model, index, times = sounding(2, 4, tones=100)
    paths, offsets = drawn(1, 3, 4, generator("extrapolation-bound", "mask"))
    mask = torch.tensor([[True, True, False]])
    some = channel_bound(model, paths._replace(mask=mask), offsets, index, 0.1, times)
    two = channel_bound(model, Paths(*(x[:, :2] for x in paths)), offsets, index, 0.1, times)
    torch.testing.assert_close(some.var, two.var)
    told = channel_bound(model, paths, offsets, index, 0.1, times, known_offsets=True)
    assert (told.nmse < channel_bound(model, paths, offsets, index, 0.1, times).nmse).all()
    assert told.var.shape == (1, 1, 4, 100) and told.band_nmse.shape == (1, 4, 2)


def test_a_pseudo_inverse_leaves_what_is_fixed_and_what_is_not_known_at_zero():
    info = torch.diag(torch.tensor([4.0, 1e-30, 1.0])).double()[None]
    info[0, 1, 1] = 0
    got, values = inverse(info, torch.tensor([[False, False, True]]))
    torch.testing.assert_close(got[0], torch.diag(torch.tensor([0.25, 0.0, 0.0])).double())
    assert float(values.min()) == 0
