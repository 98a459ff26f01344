"""Angle-delay map, search and refinement against brute force, Fourier transforms, dense grids and the bounds."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import kstest

from hhat.methods.polar import LIGHT_M_PER_S
from hhat.random import complex_normal, generator
from hhat.scenarios.echoes import EchoScene
from hhat.sensing import Found, aligned, angle_delay_map, compress, refine, search
from hhat.sensing.echoes import steering
from hhat.sensing.threshold import resolution

SMALL = {"num_rx_ant": 8, "num_subcarriers": 32, "subcarrier_spacing_hz": 1.92e6}


def doubled(obs):
    """The same record in double precision."""
    moved = {k: v.to(torch.complex128) for k, v in vars(obs).items() if isinstance(v, torch.Tensor) and v.is_complex()}
    return replace(obs, **moved)


def brute(obs, kappa, u, range_m):
    """|m^H vec(Y)|^2 / (|m|^2 noise_var) with m written out, one snapshot and one cell at a time."""
    n, s = torch.arange(obs.num_rx_ant).double(), torch.arange(obs.num_subcarriers).double()
    out = torch.empty(len(obs.y), len(u), len(range_m), dtype=torch.float64)
    for i, (y, x) in enumerate(zip(obs.y, obs.symbols, strict=True)):
        for a, one in enumerate(u.double().tolist()):
            for b, far in enumerate(range_m.double().tolist()):
                places = n / 2 if obs.positions is None else obs.positions
                lead = places * one
                if obs.spherical:
                    r = far / obs.wavelength_m
                    lead = r - (r**2 + places**2 - 2 * r * places * one).sqrt()
                gains = kappa if kappa.ndim == 1 else kappa[i]
                wave = gains * torch.exp(2j * math.pi * lead)
                tone = x * torch.exp(-4j * math.pi * s * obs.subcarrier_spacing_hz * far / LIGHT_M_PER_S)
                m = wave[:, None] * tone
                out[i, a, b] = (m.conj() * y).sum().abs() ** 2 / m.abs().square().sum() / obs.noise_var
    return out


@pytest.mark.parametrize(
    "more", [{}, {"spherical": True}, {"positions": (0.0, 0.4, 1.0, 1.3, 2.0, 2.7, 3.1, 3.3)}, {"carrier_hz": 3e9}]
)
def test_map_equals_brute_force(more):
    gen = generator("brute")
    obs = doubled(EchoScene(**SMALL, form="full", **more).draw(3, gen).obs)
    obs = replace(obs, noise_var=0.7)
    u, range_m = torch.tensor([-0.6, 0.1, 0.35], dtype=torch.float64), torch.tensor([11.0, 19.0, 40.0]).double()
    for kappa in (complex_normal((8,), gen, torch.complex128), complex_normal((3, 8), gen, torch.complex128)):
        wanted = brute(obs, kappa, u, range_m)
        torch.testing.assert_close(angle_delay_map(obs, kappa, u, range_m), wanted, rtol=1e-9, atol=1e-9)
        found = angle_delay_map(compress(obs), kappa, u, range_m)  # loses 1e-9 of an echo's energy at most
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    amplitudes = torch.rand(3, 32, generator=gen, dtype=torch.float64) + 0.2
    other = replace(obs, symbols=obs.symbols * amplitudes)
    wanted = brute(other, kappa, u, range_m)
    torch.testing.assert_close(angle_delay_map(other, kappa, u, range_m), wanted, rtol=1e-9, atol=1e-9)


def test_map_with_ranges_and_angles_per_snapshot():
    gen = generator("own ranges")
    obs = EchoScene(**SMALL, form="full").draw(4, gen).obs
    limits = torch.tensor([[10.0, 20.0], [12.0, 30.0], [5.0, 8.0], [30.0, 40.0]])
    own = replace(obs, range_limits_m=limits)
    u = torch.linspace(-0.5, 0.5, 6) + torch.rand(4, 1, generator=gen) / 5
    range_m = limits[:, :1] + (limits[:, 1:] - limits[:, :1]) * torch.linspace(0, 1, 5)
    wanted = torch.cat([angle_delay_map(obs.rows(slice(i, i + 1)), None, u[i], range_m[i]) for i in range(4)])
    for record in (own, compress(own)):
        torch.testing.assert_close(angle_delay_map(record, None, u, range_m), wanted, rtol=2e-3, atol=2e-3)
    found, alone = (
        search(compress(own), refine_steps=3),
        [search(own.rows(slice(i, i + 1)), refine_steps=3) for i in range(4)],
    )
    for values, others in zip(found, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(values, torch.cat(others), rtol=1e-3, atol=1e-4)
    assert bool(((found.range_m >= limits[:, 0]) & (found.range_m <= limits[:, 1])).all())


def test_map_on_the_fourier_grid_is_a_fourier_transform():
    obs = EchoScene(**SMALL, form="full").draw(2, generator("fourier")).obs
    bins = torch.arange(32) * LIGHT_M_PER_S / (2 * 32 * 1.92e6)  # ranges of an inverse DFT over the subcarriers
    u = 2 * torch.arange(-4, 4) / 8
    wave = torch.fft.fft(obs.y * obs.symbols.conj()[:, None], dim=-2)  # exp(-j 2 pi n k / 8)
    wanted = (torch.fft.ifft(wave, dim=-1) * 32).abs().square() / (8 * 32)
    found = angle_delay_map(obs, None, u, bins)
    torch.testing.assert_close(found, wanted.roll(4, 1), rtol=1e-3, atol=1e-3)


def test_the_peak_is_the_integrated_echo():
    scene = EchoScene(snr_db=90.0, presence=1.0)
    slot = scene.draw(8, generator("peak"))
    truth, obs = slot.truth, slot.obs
    found = angle_delay_map(obs, truth.kappa, truth.u, truth.range_m)[:, 0, 0]
    strength = truth.gain[:, 0].abs().square() * 64 * 256
    torch.testing.assert_close(found, strength, rtol=1e-3, atol=0)
    loss = 1 - float(truth.kappa.sum().abs() ** 2) / 64**2  # e0 of kappa_hat = 1
    ones = angle_delay_map(obs, None, truth.u, truth.range_m)[:, 0, 0]
    torch.testing.assert_close(ones, (1 - loss) * strength, rtol=1e-3, atol=0)
    best = search(obs, truth.kappa, refine_steps=3)
    assert float((best.u - truth.u[:, 0]).abs().max()) < 1e-4
    assert float((best.range_m - truth.range_m[:, 0]).abs().max()) < 1e-2
    z = aligned(obs, truth.u[:, 0], truth.range_m[:, 0])
    torch.testing.assert_close(z / (truth.gain * 256), truth.kappa.expand(8, -1), rtol=2e-3, atol=2e-3)


def test_cells_are_exponential():
    slot = EchoScene(**SMALL).draw(3000, generator("cells"))
    truth, z = slot.truth, aligned(slot.obs, slot.truth.u[:, 0], slot.truth.range_m[:, 0])
    for kappa in (truth.kappa, torch.ones(8, dtype=torch.complex64)):
        cell = (z @ kappa.conj()).abs().square() / (kappa.abs().square().sum() * 32)
        there = truth.present[:, 0]
        assert kstest(cell[~there], "expon").pvalue > 1e-3
        kept = float((kappa.conj() @ truth.kappa).abs() ** 2) / 64 / float(kappa.abs().square().sum()) * 8
        assert kstest(cell[there], "expon", args=(0, 1 + kept * 10**1.5)).pvalue > 1e-3
        assert kappa is truth.kappa or kept < 0.9


def grid_of(obs, size):
    ends = obs.u_limits.asin()
    theta = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * torch.linspace(0, 1, size)
    return theta.sin(), torch.linspace(10, 43.75, size)


def test_search_of_all_cells_is_the_maximum_of_the_map():
    slot = EchoScene(num_rx_ant=16, num_subcarriers=64, subcarrier_spacing_hz=960e3).draw(60, generator("search"))
    kappa, obs = slot.truth.kappa, slot.obs
    u, range_m = grid_of(obs, 40)
    values = angle_delay_map(obs, kappa, u, range_m)
    top, place = values.flatten(1).max(-1)
    found = search(obs, kappa, size=(40, 40), coarse=(1, 1))
    torch.testing.assert_close(found.statistic, top)
    torch.testing.assert_close(found.u, u.gather(-1, place[:, None] // 40)[:, 0])
    torch.testing.assert_close(found.range_m, range_m[place % 40])
    with pytest.raises(ValueError, match="search: expected size"):
        search(obs, kappa, size=(1, 40))
    with pytest.raises(ValueError, match="kappa: expected shape"):
        search(obs, kappa[:5])


def test_coarse_search_misses_only_near_ties():
    slot = EchoScene().draw(400, generator("coarse"))
    kappa, obs, there = slot.truth.kappa, slot.obs, slot.truth.present[:, 0]
    exact, coarse = (search(obs, kappa, coarse=step) for step in ((1, 1), (3, 2)))
    same = (coarse.u == exact.u) & (coarse.range_m == exact.range_m)
    assert (
        float(same[there].float().mean()) > 0.97 and float(same[~there].float().mean()) > 0.88
    )  # spec 6.4: .990, .933
    assert float(1 - coarse.statistic.mean() / exact.statistic.mean()) < 1e-3  # 2.3e-4 there
    assert bool((coarse.statistic <= exact.statistic * (1 + 1e-5)).all())


def test_spherical_search_shares_waves_without_loss():
    slot = EchoScene(spherical=True, snr_db=30.0, presence=1.0).draw(24, generator("spherical"))
    found = search(slot.obs, slot.truth.kappa, size=(50, 50), coarse=(3, 2), refine_steps=3)
    exact = search(slot.obs, slot.truth.kappa, size=(50, 50), coarse=(1, 1), refine_steps=3)
    strong = exact.statistic > 50
    torch.testing.assert_close(found.statistic[strong], exact.statistic[strong], rtol=1e-3, atol=1e-3)
    assert float((found.u - slot.truth.u[:, 0]).abs()[strong].max()) < 0.02


@pytest.mark.parametrize("more", [{}, {"spherical": True}])
def test_refined_place_is_the_maximum_of_a_dense_grid(more):
    slot = EchoScene(num_rx_ant=16, num_subcarriers=64, subcarrier_spacing_hz=960e3, **more).draw(
        40, generator("dense")
    )
    kappa, obs = slot.truth.kappa, slot.obs
    coarse, found = search(obs, kappa), search(obs, kappa, refine_steps=3)
    assert bool((found.statistic >= coarse.statistic).all())
    low, high = obs.u_limits[:, :1], obs.u_limits[:, 1:]
    step_u, step_r = (high - low) / 99, 33.75 / 99
    offset = torch.linspace(-1, 1, 81)
    u = (coarse.u[:, None] + step_u * offset).clamp(low, high)
    range_m = (coarse.range_m[:, None] + step_r * offset).clamp(10, 43.75)
    dense = angle_delay_map(obs, kappa, u, range_m)
    top, place = dense.flatten(1).max(-1)
    assert float((found.statistic / top).min()) > 1 - 1e-4
    inside = (place // 81 > 0) & (place // 81 < 80) & (place % 81 > 0) & (place % 81 < 80) & (top > 5)
    assert int(inside.sum()) > 25
    wrong_u = (found.u - u.gather(-1, place[:, None] // 81)[:, 0]).abs() / step_u[:, 0]
    wrong_r = (found.range_m - range_m.gather(-1, place[:, None] % 81)[:, 0]).abs() / step_r
    assert float(wrong_u[inside].max()) < 0.1 and float(wrong_r[inside].max()) < 0.1  # single precision


def test_the_gradient_vanishes_at_the_refined_place():
    slot = EchoScene(snr_db=25.0, presence=1.0).draw(64, generator("gradient"))
    obs, kappa = doubled(slot.obs), slot.truth.kappa.to(torch.complex128)
    found = search(obs, kappa, refine_steps=5)
    u, low, high = found.u, obs.u_limits[:, 0], obs.u_limits[:, 1]
    keep = (u > low + 1e-3) & (u < high - 1e-3) & (found.range_m > 10.1) & (found.range_m < 43.6)
    places = [value.clone().requires_grad_() for value in (u, found.range_m)]
    z = aligned(obs, *places) @ kappa.conj()
    (z.abs().square() / (64 * 256)).sum().backward()
    bounds = resolution(obs, found.statistic)  # a step of one standard deviation changes the statistic by about 1
    for place, var in zip(places, bounds, strict=True):
        assert float((place.grad * var.sqrt())[keep].abs().max()) < 2e-2


def test_refine_stays_in_the_sector_and_goes_on_from_anywhere():
    slot = EchoScene(snr_db=20.0).draw(200, generator("edge"))
    kappa, obs = slot.truth.kappa, slot.obs
    low, high = obs.u_limits.unbind(-1)
    found = search(obs, kappa, refine_steps=3)
    assert bool(((found.u >= low) & (found.u <= high)).all())
    assert bool(((found.range_m >= 10) & (found.range_m <= 43.75)).all())
    wider = search(obs, kappa, margin_u=0.012)
    assert bool(((wider.u >= low - 0.01201) & (wider.u <= high + 0.01201)).all())
    assert bool((wider.u < low).any()) and bool((wider.u > high).any())
    again = refine(obs, kappa, Found(found.u, found.range_m, found.statistic), (1e-3, 0.2))
    torch.testing.assert_close(again.statistic, found.statistic, rtol=1e-3, atol=1e-3)
    assert bool((again.statistic >= found.statistic).all())


def test_invariances():
    slot = EchoScene(**SMALL).draw(20, generator("invariant"))
    kappa, obs = slot.truth.kappa, slot.obs
    one = search(obs, kappa)
    for other in (kappa * torch.exp(torch.tensor(0.7j)), 3 * kappa):
        torch.testing.assert_close(search(obs, other).statistic, one.statistic)
    scaled = search(replace(obs, y=2j * obs.y), kappa)
    torch.testing.assert_close(scaled.statistic, 4 * one.statistic)
    torch.testing.assert_close(scaled.u, one.u)
    full = EchoScene(**SMALL, form="full").draw(20, generator("invariant")).obs
    turned = replace(full, y=full.y * full.symbols.conj()[:, None], symbols=torch.ones_like(full.symbols))
    torch.testing.assert_close(search(turned, kappa).statistic, search(full, kappa).statistic)
    deep = replace(obs, y=obs.y.unflatten(0, (4, 5)), u_limits=obs.u_limits.unflatten(0, (4, 5)), energy=None)
    torch.testing.assert_close(search(deep, kappa).statistic, one.statistic.unflatten(0, (4, 5)))
    slope = torch.exp(1j * math.pi * 0.004 * torch.arange(8)).to(torch.complex64)
    shifted = replace(obs, u_limits=obs.u_limits - 0.004)  # kappa with a slope, seen at u - 0.004
    u = obs.u_limits.mean(-1, keepdim=True)
    value, moved = (
        angle_delay_map(record, k, place, torch.tensor([20.0]))
        for record, k, place in ((obs, kappa, u), (shifted, kappa * slope, u - 0.004))
    )
    torch.testing.assert_close(value, moved, rtol=1e-3, atol=1e-4)


def test_refined_errors_meet_the_bound():
    slot = EchoScene(snr_db=20.0, presence=1.0).draw(900, generator("bound"))
    truth, found = slot.truth, search(slot.obs, slot.truth.kappa, refine_steps=3)
    var_u, var_r = resolution(slot.obs, found.statistic - 1)
    low, high = slot.obs.u_limits.unbind(-1)
    clear = (found.u > low) & (found.u < high) & (found.range_m > 10) & (found.range_m < 43.75)
    strong = (found.statistic > 40) & clear
    assert int(strong.sum()) > 450
    for error, var in ((found.u - truth.u[:, 0], var_u), (found.range_m - truth.range_m[:, 0], var_r)):
        ratio = float((error.square() / var)[strong].mean().sqrt())
        assert 0.9 < ratio < 1.14  # spec, O9: 1.02 and 1.04


def test_plane_waves_near_by_are_biased():
    settings = {"snr_db": 60.0, "presence": 1.0, "range_min_m": 10.0, "range_max_m": 10.5}
    slot = EchoScene(spherical=True, **settings).draw(40, generator("near"))
    plane = replace(slot.obs, spherical=False)
    wrong, right = (search(obs, slot.truth.kappa, refine_steps=4) for obs in (plane, slot.obs))
    inside = (right.u > slot.obs.u_limits[:, 0] + 0.03) & (right.u < slot.obs.u_limits[:, 1] - 0.03)
    assert float((right.u - slot.truth.u[:, 0]).abs()[inside].max()) < 1e-3
    shift = wrong.u - slot.truth.u[:, 0]
    # a line seen from its end: the mean slope of -x^2 (1 - u^2) / (2 R) is -x_max (1 - u^2) / (2 R) ...
    x_max = 63 / 2 * slot.obs.wavelength_m
    formula = -x_max * (1 - slot.truth.u[:, 0].square()) / (2 * slot.truth.range_m[:, 0])
    torch.testing.assert_close(shift[inside], formula[inside], rtol=0.05, atol=5e-4)
    assert float(wrong.statistic.div(right.statistic)[inside].max()) < 1
    assert steering(plane, slot.truth.u).shape == (40, 1, 64)


def test_picture_of_a_map():
    pytest.importorskip("plotly")
    from hhat.bench.report.echo_map import echo_map

    slot = EchoScene(presence=1.0, snr_db=30.0).draw(1, generator("picture"))
    u, range_m = grid_of(slot.obs, 60)
    values = angle_delay_map(slot.obs, slot.truth.kappa, u, range_m)[0]
    target = (float(slot.truth.u), float(slot.truth.range_m))
    drawing = echo_map(values, u[0], range_m, targets=[target])
    heat, mark = drawing.figure.data
    assert heat.z.shape == (60, 60) and heat.z.max() == 0 and heat.z.min() >= -15
    j, i = divmod(int(heat.z.argmax()), 60)  # ranges upwards
    assert abs(math.sin(math.radians(heat.x[i])) - target[0]) < 0.02 and abs(heat.y[j] - target[1]) < 1.5
    assert abs(mark.x[0] - math.degrees(math.asin(target[0]))) < 1e-4 and f"{heat.y[j]:.2f} m" in drawing.says
    lower = echo_map(values, u[0], range_m, strongest=10 * float(values.max()))
    assert lower.figure.data[0].z.max() == -10 and len(lower.figure.data) == 1 and "−10.0 dB" in lower.says
    with pytest.raises(ValueError, match="map: expected shape"):
        echo_map(values[:-1], u[0], range_m)
