"""`joint-ml`: its search and its spread against brute force, the whole against the bound, and odd sizes."""

import math
from dataclasses import replace

import pytest
import torch

from hhat import solve
from hhat.extrapolation.bound import channel_bound, spread_variance
from hhat.extrapolation.columns import channel_at, residual
from hhat.extrapolation.fit import gain_power, steered
from hhat.extrapolation.joint_ml import JointMl
from hhat.extrapolation.model import Offsets, Paths, Sounded, Sounding
from hhat.extrapolation.search import noise_floor, peaks, thinned
from hhat.extrapolation.spread import WIDTH, spread, without
from hhat.extrapolation.task import Task
from hhat.ops import Hops, Identity, Kron, Select
from hhat.random import complex_normal, generator
from hhat.types import Observation, Status
from tests.units.extrapolation_draws import drawn, heard, picked, sounding


def observed(model, pilots, noise_var="given"):
    op = Kron(Identity((model.num_rx_ant,)), Hops(pilots.index, model.num_subcarriers))
    return Observation(pilots.y, op, pilots.noise_var if noise_var == "given" else noise_var)


def error(h, est):
    return (est.belief.mean - h).abs().square().flatten(1).sum(-1) / h.abs().square().flatten(1).sum(-1)


def alone(paths, k):
    """Path k with gain 1, the others with none."""
    return paths._replace(gain=torch.eye(paths.gain.shape[-1], dtype=torch.complex128)[k].expand_as(paths.gain))


def test_a_peak_is_where_one_path_explains_most_and_its_worth_is_how_much():
    gen = generator("joint-ml", "peaks")
    model, index, times = sounding(2, 3, tones=40, columns=3, rows=2)
    paths, offsets = drawn(2, 1, 3, gen)
    paths = paths._replace(doppler_hz=0 * paths.doppler_hz)
    _, pilots = heard(model, index, times, paths, offsets, 10, gen)
    task = Task.make(model, pilots, times)
    blank = task.point(paths._replace(mask=torch.zeros(2, 1, dtype=torch.bool)), offsets)
    rest = residual(task, blank)
    found = peaks(task, rest, 2)
    # every delay, column and row cosine of the grid, written out
    delay = torch.arange(128) / 128 / 120e3
    cosine = torch.cartesian_prod(torch.arange(6) / 3, torch.arange(4) / 2).double()
    grid = Paths(
        torch.ones(128 * 24, 1).cdouble(),
        delay.repeat_interleave(24)[:, None].double(),
        cosine.repeat(128, 1)[:, None],
        torch.zeros(128 * 24, 1).double(),
        torch.ones(128 * 24, 1, dtype=torch.bool),
    )
    zero = Offsets(torch.zeros(128 * 24, 3).double(), torch.zeros(128 * 24, 3).double())
    rows = picked(model.channel(grid, zero, times), index).permute(0, 2, 3, 1).flatten(1)
    worth = (rows.conj() @ rest.flatten(1).mT).abs().square() / rows.shape[1] / task.noise_var
    torch.testing.assert_close(found.worth[:, 0], worth.amax(0), rtol=1e-4, atol=1e-4)
    best = worth.argmax(0)
    turned = torch.remainder(found.delay[:, 0] - grid.delay_s[best, 0] + 4e-6, 1 / 120e3) - 4e-6
    assert turned.abs().max() < 1e-12
    assert (torch.remainder(found.cosine[:, 0] - grid.cosine[best, 0] + 1, 2) - 1).abs().max() < 1e-6
    # taking the path off leaves exactly that much less
    one = blank._replace(
        gain=found.gain[:, :1], delay=found.delay[:, :1], cosine=found.cosine[:, :1], mask=blank.mask | True
    )
    less = (rest.abs().square().sum((1, 2, 3)) - residual(task, one).abs().square().sum((1, 2, 3))) / task.noise_var
    torch.testing.assert_close(less, found.worth[:, 0], rtol=1e-4, atol=1e-4)
    assert (found.worth[:, 1] < found.worth[:, 0]).all()


def test_a_path_goes_where_the_objective_rises_by_less_than_its_price():
    gen = generator("joint-ml", "thin")
    model, index, times = sounding(2, 4, tones=60, columns=3, rows=2)
    paths, offsets = drawn(2, 4, 4, gen, apart_s=4e-7)
    weak = paths.gain.clone()
    weak[:, 3] = 1e-3
    _, pilots = heard(model, index, times, paths._replace(gain=weak), offsets, 10, gen)
    task = Task.make(model, pilots, times)
    ridge = gain_power(task)
    full = steered(task, task.point(paths, offsets), ridge)

    def objective(point):
        cost = point.gain.abs().square().sum(-1) / ridge
        return residual(task, point).abs().square().sum((1, 2, 3)) / task.noise_var + cost

    mask = torch.tensor([True, True, True, False]).expand(2, 4)
    less = steered(task, full._replace(mask=mask, gain=full.gain * mask), ridge)
    rise = objective(less) - objective(full)
    for item in range(2):
        for share, kept in ((0.99, 4), (1.01, 3)):
            assert int(thinned(task, full, ridge, share * float(rise[item]), 1).mask[item].sum()) == kept


def test_what_surrounds_the_paths_is_the_ridge_solution_of_the_written_out_derivatives():
    gen = generator("joint-ml", "spread")
    model, index, times = sounding(2, 3, tones=24, columns=3, rows=2)
    paths, offsets = drawn(2, 2, 3, gen)
    _, pilots = heard(model, index, times, paths, offsets, 5, gen)
    beside = model.channel(paths._replace(cosine=paths.cosine + 0.05), offsets, times)
    pilots = replace_y(pilots, pilots.y + 0.7j * picked(beside, index))
    task = Task.make(model, pilots, times)
    point = task.point(paths, offsets)
    found = spread(task, point)
    assert (found.excess > 4).all()
    steps = {"delay_s": 1e-13, "u": 1e-6, "v": 1e-6, "doppler_hz": 1e-4}
    whole = [model.channel(alone(paths, k), offsets, times) for k in range(2)]
    for name, width in steps.items():
        for k in range(2):
            ends = []
            for sign in (1, -1):
                moved = alone(paths, k)
                if name in "uv":
                    shift = torch.tensor([1.0, 0.0] if name == "u" else [0.0, 1.0]).double() * sign * width
                    moved = moved._replace(cosine=moved.cosine + shift)
                else:
                    moved = moved._replace(**{name: getattr(moved, name) + sign * width})
                ends.append(model.channel(moved, offsets, times))
            whole.append((ends[0] - ends[1]) / 2 / width / (1j if name == "doppler_hz" else 1))
    columns = torch.stack(whole, -1)  # (item, rx_ant, symbol, subcarrier, type path)
    seen = picked(columns.movedim(-1, 1), index).flatten(2).mT
    sd = torch.tensor([*WIDTH[:4], WIDTH[4] * model.doppler_hz]).double().repeat_interleave(2)
    prior = (sd * paths.gain.abs().repeat(1, 5)).square()
    rest = (pilots.y - picked(model.channel(paths, offsets, times), index)).flatten(1)
    inner = seen.mH @ seen / task.noise_var[:, None, None] + (1 / prior).diag_embed()
    covariance = torch.linalg.inv(inner)
    weight = (covariance @ (seen.mH @ rest[..., None]))[..., 0] / task.noise_var[:, None]
    assert ((found.weight.flatten(1) - weight).abs() / prior.sqrt()).max() < 1e-4
    around = (columns @ weight[:, None, None, :, None])[..., 0]
    h = model.channel(paths, offsets, times) + around
    torch.testing.assert_close(channel_at(task, point, found.weight), h, rtol=1e-5, atol=1e-5)
    var = torch.einsum("bamfp,bpq,bamfq->bmf", columns, covariance, columns.conj()).real / 6
    torch.testing.assert_close(spread_variance(task, point, found.covariance), var, rtol=1e-4, atol=1e-6)
    less = residual(without(task, point, found.weight), point)
    torch.testing.assert_close(less, residual(task, point, found.weight), rtol=1e-9, atol=1e-9)


def cluster(items, rays, gen):
    """Rays of one delay in a few degrees, and pilots of 15 dB."""
    model, index, times = sounding(2, 4, tones=60, columns=4, rows=2)
    real = torch.randn(items, rays, 3, generator=gen, dtype=torch.float64)
    cosine = 0.3 + 0.05 * real[..., :2]
    gain = complex_normal((items, rays), gen, torch.complex128) / rays**0.5
    delay, mask = torch.full((items, rays), 8e-7).double(), torch.ones(items, rays, dtype=torch.bool)
    paths = Paths(gain, delay, cosine, 2 * real[..., 2], mask)
    offsets = drawn(items, 1, 4, gen)[1]
    return model, *heard(model, index, times, paths, offsets, 15, gen)


def test_rays_around_paths_help_clusters_and_leave_single_paths_alone():
    gen = generator("joint-ml", "cluster")
    for rays in (1, 20):
        model, h, pilots = cluster(4, rays, gen)
        obs = observed(model, pilots)
        with_rays, without_rays = (solve(JointMl(model, num_paths=1, around=flag), obs) for flag in (True, False))
        gain = float((error(h, without_rays).log10() - error(h, with_rays).log10()).mean() * 10)
        assert (gain > 3) if rays == 20 else (abs(gain) < 1e-6)


def test_it_is_at_the_bound_where_the_channel_is_a_few_paths():
    gen = generator("joint-ml", "bound")
    model, index, times = sounding(2, 4, tones=100, columns=4, rows=2)
    paths, offsets = drawn(6, 2, 4, gen, apart_s=4e-7)
    h, pilots = heard(model, index, times, paths, offsets, 15, gen)
    est = solve(JointMl(model, num_paths=6), observed(model, pilots))
    bound = channel_bound(model, paths, offsets, index, pilots.noise_var.flatten(), times).nmse.mean(-1)
    assert abs(10 * float((error(h, est).mean() / bound.mean()).log10())) < 1.5
    assert est.info["num_paths"].tolist() == [2] * 6 and est.status_counts() == {"OK": 6}
    assert 0.5 < float((est.belief.mean - h).abs().square().mean() / est.belief.var.mean()) < 2
    assert (est.info["offsets"].timing_s - offsets.timing_s).abs().max() < 3e-9
    # unknown noise: told within a tenth, and no worse
    blind = solve(JointMl(model, num_paths=6), observed(model, pilots, None))
    assert (blind.info["noise_var"] / pilots.noise_var - 1).abs().max() < 0.15
    assert blind.info["noise_var_source"] == "estimated"
    assert abs(10 * float((error(h, blind).mean() / error(h, est).mean()).log10())) < 1


@pytest.mark.slow
@pytest.mark.parametrize("hops", [2, 4])
def test_a_hundred_channels_are_within_a_decibel_of_the_bound(hops):
    gen = generator("joint-ml", "hundred", hops)
    model, index, times = sounding(hops)
    paths, offsets = drawn(100, 5, 2 * hops, gen)
    h, pilots = heard(model, index, times, paths, offsets, 10, gen)
    est = solve(JointMl(model), observed(model, pilots))
    bound = channel_bound(model, paths, offsets, index, pilots.noise_var.flatten(), times).nmse.mean(-1)
    assert abs(10 * float((error(h, est).mean() / bound.mean()).log10())) < 0.7


def test_without_noise_the_channel_is_returned():
    gen = generator("joint-ml", "noiseless")
    model, index, times = sounding(2, 4, tones=60, columns=3, rows=2)
    paths, offsets = drawn(2, 2, 4, gen, apart_s=5e-7)
    h, pilots = heard(model, index, times, paths, offsets, 60, gen)
    assert 10 * error(h, solve(JointMl(model, num_paths=4), observed(model, pilots))).max().log10() < -70
    clean = replace_y(pilots, picked(h, index))
    est = solve(JointMl(model, num_paths=4), observed(model, clean, 0.0))
    assert 10 * error(h, est).max().log10() < -90 and est.status_counts() == {"OK": 2}


def replace_y(pilots: Sounded, y):
    return pilots._replace(y=y)


def test_phases_of_symbols_turn_the_estimate_and_nothing_else():
    gen = generator("joint-ml", "gauge")
    model, index, times = sounding(2, 4, tones=60, columns=3, rows=2)
    paths, offsets = drawn(2, 2, 4, gen, apart_s=5e-7)
    _, pilots = heard(model, index, times, paths, offsets, 20, gen)
    turn = torch.polar(torch.ones(4).double(), torch.tensor([0.0, 1.0, -2.0, 3.0]).double())[:, None]
    one = solve(JointMl(model, num_paths=3), observed(model, pilots)).belief.mean
    two = solve(JointMl(model, num_paths=3), observed(model, replace_y(pilots, pilots.y * turn))).belief.mean
    assert (one * turn - two).abs().square().sum() / one.abs().square().sum() < 1e-6


@pytest.mark.parametrize(
    "columns, rows, tones, hops, symbols",
    [(1, 1, 40, 2, 4), (3, 2, 4, 2, 3), (2, 1, 2, 2, 3), (4, 2, 60, 2, 1), (1, 1, 1, 1, 1)],
)
def test_few_antennas_tones_and_symbols_give_an_estimate(columns, rows, tones, hops, symbols):
    gen = generator("joint-ml", "few", columns * rows, tones)
    model, index, times = sounding(hops, symbols, tones=tones, columns=columns, rows=rows)
    paths, offsets = drawn(2, 1, symbols, gen)
    h, pilots = heard(model, index, times, paths, offsets, 20, gen)
    method = JointMl(model, num_paths=2, rounds=1)
    if symbols > 1:
        est = solve(method, observed(model, pilots))
    else:
        op = Kron(Identity((model.num_rx_ant,)), Select(index[0], tones))
        h = h[:, :, 0]
        est = solve(method, Observation(pilots.y[:, :, 0], op, pilots.noise_var[..., 0]))
    assert est.belief.mean.shape == h.shape and set(est.status_counts()) <= {"OK", "MAX_STEPS"}
    assert torch.broadcast_shapes(est.belief.var.shape, h.shape) == h.shape
    assert torch.isfinite(est.belief.var).all()
    if tones >= 40:
        assert 10 * error(h, est).max().log10() < -20


def test_unknown_noise_and_too_few_paths_are_told_apart_by_the_status():
    gen = generator("joint-ml", "status")
    model, index, times = sounding(2, 4, tones=60, columns=3, rows=2)
    paths, offsets = drawn(2, 3, 4, gen, apart_s=5e-7)
    _, pilots = heard(model, index, times, paths, offsets, 20, gen)
    est = solve(JointMl(model, num_paths=1, rounds=1), observed(model, pilots, None))
    assert (est.status == Status.MAX_STEPS).all()
    assert solve(JointMl(model, num_paths=1, rounds=1), observed(model, pilots)).status_counts() == {"OK": 2}
    bad = pilots.y.clone()
    bad[1, 0, 0, 0] = math.nan
    est = solve(JointMl(model, num_paths=1, rounds=1), observed(model, replace_y(pilots, bad)))
    assert est.status.tolist() == [Status.OK, Status.NONFINITE] and torch.isfinite(est.belief.mean).all()


def test_the_noise_floor_is_that_of_the_quiet_delays():
    gen = generator("joint-ml", "floor")
    model, index, times = sounding(2, 4, tones=200, columns=4, rows=2)
    paths, offsets = drawn(3, 3, 4, gen)
    _, pilots = heard(model, index, times, paths, offsets, 20, gen)
    assert (noise_floor(Task.make(model, pilots, times)) / pilots.noise_var.flatten() - 1).abs().max() < 0.3


def test_tones_may_be_missing_but_lie_on_an_even_grid():
    gen = generator("joint-ml", "grid")
    model, index, times = sounding(2, 3, tones=60, columns=2, rows=2)
    paths, offsets = drawn(1, 1, 3, gen)
    gaps = replace(model, frequency_hz=tuple(120e3 * n for n in range(64) if n not in (7, 8, 30, 50)))
    h, pilots = heard(gaps, index, times, paths, offsets, 30, gen)
    assert 10 * error(h, solve(JointMl(gaps, num_paths=2, rounds=1), observed(gaps, pilots))).log10() < -25
    uneven = Sounding(2, 2, tuple(120e3 * (n + 0.3 * (n % 2)) for n in range(60)))
    with pytest.raises(ValueError, match="evenly spaced"):
        solve(JointMl(uneven, num_paths=2), observed(uneven, pilots))
    with pytest.raises(ValueError, match="Sounding"):
        solve(JointMl(), observed(model, pilots))
    with pytest.raises(ValueError, match="num_paths"):
        JointMl(model, num_paths=0)
