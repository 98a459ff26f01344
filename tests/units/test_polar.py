"""Shared supports and the polar dictionary: against brute force, loops, exact distances and far-field OMP."""

import math
from dataclasses import replace

import pytest
import torch

import hhat
from hhat.methods.polar import LIGHT_M_PER_S, PolarSomp
from hhat.methods.sparse import Omp
from hhat.ops import BlockDiag, Dense, Diagonal, Fourier, Identity, Kron, Polar, Steering, Tones
from hhat.ops.tones import lane_axes
from hhat.priors import Gauss
from hhat.random import complex_normal
from hhat.scenarios.near_field import NearField
from hhat.scenarios.near_field_parts import paths_at
from hhat.types import Observation


def gen(*labels):
    return hhat.generator("polar", *labels)


def crowd(num=5, rows=8, columns=20, lanes=6, atoms=2, noise=0.01, label="crowd"):
    """Rows of x that are not zero are the same for all lanes."""
    a = complex_normal((rows, columns), gen(label, "a")) / rows**0.5
    x = torch.zeros(num, columns, lanes, dtype=torch.complex64)
    for i in range(num):
        where = torch.randperm(columns, generator=gen(label, i))[:atoms]
        x[i, where] = complex_normal((atoms, lanes), gen(label, "x", i))
    op = Kron(Dense(a), Identity((lanes,)))
    return x, Observation(op.apply(x) + complex_normal((num, rows, lanes), gen(label, "n"), var=noise), op, noise)


def plain_somp(a, y, count):
    """Textbook, one item: numpy-like, least squares anew at every step."""
    chosen, residual = [], y
    for _ in range(count):
        score = (a.mH @ residual).abs().square().sum(-1) / a.abs().square().sum(0)
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        part = a[:, chosen]
        residual = y - part @ torch.linalg.lstsq(part, y).solution
    x = torch.zeros(a.shape[1], y.shape[1], dtype=y.dtype)
    x[chosen] = torch.linalg.lstsq(a[:, chosen], y).solution
    return x


def test_shared_support_is_the_textbooks():
    _, obs = crowd(noise=0.1)
    est = hhat.solve(Omp(max_atoms=3, shared_axes=(-1,)), replace(obs, noise_var=torch.tensor(1e-9)))
    for i in range(5):
        wanted = plain_somp(obs.op.left.matrix, obs.y[i], 3)
        torch.testing.assert_close(est.belief.mean[i], wanted, rtol=1e-3, atol=1e-4)


def test_one_lane_is_no_sharing():
    _, obs = crowd(lanes=1)
    shared = hhat.solve(Omp(max_atoms=4, shared_axes=(-1,)), obs)
    alone = hhat.solve(Omp(max_atoms=4), obs)
    torch.testing.assert_close(shared.belief.mean, alone.belief.mean)
    assert torch.equal(shared.info["num_atoms"], alone.info["num_atoms"])


def test_sharing_finds_supports_that_no_lane_finds_alone():
    x, obs = crowd(num=40, noise=0.15)
    shared = hhat.solve(Omp(max_atoms=2, shared_axes=(-1,)), obs)
    apart = hhat.solve(Omp(max_atoms=12), obs)
    support = (x.abs().sum(-1) > 0).flatten()
    found = (shared.info["coefficients"].abs().sum(-1) > 0).flatten()
    assert float((support == found).float().mean()) > 0.95
    assert hhat.nmse_db(shared.belief.mean, x) < hhat.nmse_db(apart.belief.mean, x) - 1.5


def test_a_batch_is_its_loop_and_takes_the_atoms_that_each_needs():
    x, obs = crowd(num=4, label="few")
    more_x, more = crowd(num=4, atoms=1, label="few")
    both = Observation(torch.cat([obs.y, more.y]), obs.op, 0.01)
    together = hhat.solve(Omp(max_atoms=5, shared_axes=(-1,)), both)
    assert together.info["num_atoms"].tolist()[4:] == [1, 1, 1, 1] and min(together.info["num_atoms"].tolist()[:4]) >= 2
    for i in range(8):
        alone = hhat.solve(Omp(max_atoms=5, shared_axes=(-1,)), Observation(both.y[i], both.op, 0.01))
        torch.testing.assert_close(together.belief.mean[i], alone.belief.mean, rtol=1e-4, atol=1e-5)
    assert hhat.nmse_db(together.belief.mean, torch.cat([x, more_x])) < -10


def test_a_unitary_factor_on_the_shared_axis_moves_onto_y():
    _, obs = crowd()
    turned = Kron(obs.op.left, Fourier(6))
    same = Observation(Kron(Identity((8,)), Fourier(6)).apply(obs.y), turned, 0.01)
    wanted = hhat.solve(Omp(max_atoms=3, shared_axes=(-1,)), obs)
    found = hhat.solve(Omp(max_atoms=3, shared_axes=(-1,)), same)
    torch.testing.assert_close(found.belief.mean, wanted.belief.mean, rtol=1e-3, atol=1e-4)
    assert torch.equal(found.info["num_atoms"], wanted.info["num_atoms"])


def test_an_axis_that_the_operator_mixes_is_refused():
    _, obs = crowd()
    with pytest.raises(ValueError, match=r"keeps axes \(-1,\) of x apart, got \(-2,\)"):
        hhat.solve(Omp(shared_axes=(-2,)), obs)
    mixed = Observation(obs.y, Kron(obs.op.left, Dense(complex_normal((6, 6), gen("mix")))), 0.01)
    with pytest.raises(ValueError, match="shared_axes: the operator keeps axes"):
        hhat.solve(Omp(shared_axes=(-1,)), mixed)


def test_an_atom_that_some_lane_does_not_see_is_taken_for_the_others():
    matrix = complex_normal((3, 6, 9), gen("holes"))
    matrix[1, :, 4] = 0
    x = torch.zeros(9, 3, dtype=torch.complex64)
    x[4], x[7] = 1.0, torch.tensor([0.5, 1.0, -0.5])
    op = Tones(matrix)
    est = hhat.solve(Omp(max_atoms=3, shared_axes=(-1,)), Observation(op.apply(x), op, 1e-9))
    wanted = x.clone()
    wanted[4, 1] = 0
    torch.testing.assert_close(est.belief.mean, wanted, atol=1e-4, rtol=0)
    assert int(est.info["num_atoms"]) == 2 and bool(est.info["reached_noise"])


def test_lanes_are_those_of_the_dense_matrix():
    """Entry k of x reaches entry k of y alone: read off the dense twin."""
    a, tones = Dense(complex_normal((3, 4), gen("a"))), Tones(complex_normal((2, 3, 4), gen("t")))
    block = BlockDiag(Dense(complex_normal((2, 3, 4), gen("b"))))
    square = Diagonal(complex_normal((4, 2), gen("d")), 2)
    for op in (
        Kron(a, Identity((2,))),
        Kron(Identity((2,)), a),
        Kron(Identity((2,)), Kron(a, Identity((3,)))),
        Kron(a, Fourier(2)),
        tones,
        block,
        tones @ square,
        tones.H,
        Kron(Dense(complex_normal((5, 3), gen("w"))), Identity((2,))) @ tones,
        Dense(complex_normal((6, 8), gen("full")), (4, 2), (3, 2)),
    ):
        twin = op.dense().reshape(*op.out_shape, *op.in_shape)
        count = len(op.in_shape)
        kept = []
        for axis in range(count):
            if op.out_shape[axis] == op.in_shape[axis]:
                pair = twin.movedim((axis, count + axis), (0, 1)).abs().flatten(2).amax(-1)
                if float((pair * (1 - torch.eye(len(pair)))).max()) < 1e-6:
                    kept.append(axis - count)
        assert sorted(lane_axes(op)) == kept, op


def test_tones_behind_a_combiner_are_one_matrix_per_tone():
    tones, combiner = Tones(complex_normal((3, 4, 5), gen("t"))), Dense(complex_normal((2, 6, 4), gen("w")))
    both = Kron(combiner, Identity((3,))) @ tones
    assert isinstance(both, Tones) and both.batch_shape == (2,)
    x = complex_normal((7, 2, 5, 3), gen("x"))
    torch.testing.assert_close(both.apply(x), Kron(combiner, Identity((3,))).apply(tones.apply(x)))
    with pytest.raises(ValueError, match="expected matrices"):
        Tones(complex_normal((3, 4), gen("flat")))


def test_waves_are_those_of_exact_distances():
    u, r = torch.tensor([0.3, -0.9, 0.0, 1.0], dtype=torch.float64), torch.tensor([40.0, 300.0, 90.0, 70.0])
    x = torch.arange(16, dtype=torch.float64) / 2 - 3.75
    have = Polar(x, u, 1 / r.double()).matrix
    source = torch.stack([r * u, r * (1 - u.square()).sqrt()], -1).double()
    place = torch.stack([x, torch.zeros_like(x)], -1)
    metres = (source[None] - place[:, None]).norm(dim=-1)
    torch.testing.assert_close(have, torch.exp(2j * math.pi * (r - metres)).to(have.dtype), atol=1e-9, rtol=0)
    flat = Polar(x, u, torch.zeros(4, dtype=torch.float64)).matrix
    torch.testing.assert_close(flat, Steering(x, u).matrix, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="expected positions"):
        Polar(x, u, u[:2])


def test_grid_is_uniform_in_curvature_and_ends_at_the_nearest_range():
    method = PolarSomp(min_range_m=3.0, beta=1.2, oversampling=2)
    u, q = method.grid(128)
    assert u.shape == q.shape and bool((q[:256] == 0).all()) and torch.equal(u[:256].unique(), u[:256])
    assert float(q.max()) <= 1 / 3.0
    wavelength = LIGHT_M_PER_S / 30e9
    phi = wavelength * (1 - u.square()) * q / 8  # cycles per antenna squared, as `Paths.phi`
    step = 1.2**2 / 128**2
    torch.testing.assert_close(phi / step, (phi / step).round(), atol=1e-9, rtol=0)
    # neighbours in distance: coherence |int_0^1 exp(j pi/2 beta^2 t^2) dt|, the same at every angle
    op = Polar((torch.arange(128, dtype=torch.float64) - 63.5) / 2, u, q * wavelength, 128**-0.5)
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    fresnel = abs(complex(torch.trapezoid(torch.exp(0.5j * math.pi * 1.2**2 * t.square()), t)))
    for angle in (60, 128, 200):
        rings = (u == u[angle]).nonzero().flatten()
        assert len(rings) > 2
        together = (op.matrix[:, rings[0]].conj() * op.matrix[:, rings[1]]).sum().abs()
        assert float(together) == pytest.approx(fresnel, abs=0.02)


def on_grid(scene, point, count):
    """`count` channels of one path each from a point of the grid around the array's middle, at exact distances."""
    u, q = PolarSomp(min_range_m=3.0).grid(scene.num_rx_ant)
    half = LIGHT_M_PER_S / scene.carrier_hz / 2 * (scene.num_rx_ant - 1) / 2
    along, away = u[point] / q[point] + half, (1 - u[point].square()).sqrt() / q[point]
    r, angle = torch.hypot(along, away), torch.atan2(away, along)
    gain = complex_normal((count, 1), gen("gain"))
    return paths_at(angle.expand(count, 1), r.expand(count, 1), gain, scene.carrier_hz)


@pytest.mark.parametrize("squint", [False, True])
def test_a_path_on_the_grid_is_recovered_exactly(squint):
    """A near source: 5th ring of the grid, 3 m. Without squint in the channel the carrier's dictionary will do."""
    bandwidth = 1.6e9 if squint else 1.0
    scene = NearField(wavefront="spherical", bandwidth_hz=bandwidth)
    method = PolarSomp(subcarrier_spacing_hz=bandwidth / 16 if squint else 0.0)
    grid = method.grid(128)
    point = int((grid.nearness_per_m - 0.28).abs().argmin())
    assert 3 < 1 / float(grid.nearness_per_m[point]) < 4
    h = scene.channels(on_grid(scene, point, 3))
    op = scene.draw(1, gen("op")).obs.op
    est = hhat.solve(method, Observation(op.apply(h), op, 1e-7, ("rx_ant", "subcarrier")))
    assert est.info["num_atoms"].tolist() == [1, 1, 1]
    assert (est.info["coefficients"].abs().sum(-1) > 0).nonzero()[:, 1].tolist() == [point] * 3
    assert hhat.nmse_db(est.belief.mean, h) < -60


def test_one_atom_is_the_best_of_all_by_brute_force():
    scene = NearField(num_rx_ant=32, num_unit=1, num_slots=12, num_paths=1, min_range_m=3.0, max_range_m=8.0)
    slot = scene.draw(6, gen("brute"))
    method = PolarSomp(max_atoms=1, subcarrier_spacing_hz=1e8, oversampling=2, min_range_m=0.3)
    est = hhat.solve(method, slot.obs)
    u, q = method.grid(32)
    best = torch.full((6,), math.inf)
    chosen = torch.zeros(6, dtype=torch.int64)
    x = (torch.arange(32, dtype=torch.float64) - 15.5) / 2
    wavelength = LIGHT_M_PER_S / 30e9
    for i in range(len(u)):
        left = torch.zeros(6)
        for k in range(16):
            ratio = 1 + k * 1e8 / 30e9
            wave = Polar(x * ratio, u[i : i + 1], q[i : i + 1] * wavelength / ratio).matrix.to(torch.complex64)
            seen = (slot.obs.op.left.matrix @ wave)[:, 0]
            y = slot.obs.y[..., k]
            fit = (y @ seen.conj()) / seen.abs().square().sum()
            left += (y - fit[:, None] * seen).abs().square().sum(-1)
        chosen = torch.where(left < best, i, chosen)
        best = torch.minimum(left, best)
    assert (est.info["coefficients"].abs().sum(-1) > 0).nonzero()[:, 1].tolist() == chosen.tolist()


def test_near_sources_are_found_where_plane_waves_are_not_enough():
    scene = NearField(min_range_m=5.0, max_range_m=5.0, num_paths=2, snr_db=15.0)
    slot = scene.draw(20, gen("near"))
    far = hhat.solve(hhat.method("omp", prior=Gauss(basis=scene.basis()), shared_axes=("subcarrier",)), slot.obs)
    polar = hhat.solve(PolarSomp(), slot.obs)
    squint = hhat.solve(PolarSomp(subcarrier_spacing_hz=1e8), slot.obs)
    dft, near, wide = (hhat.nmse_db(est.belief.mean, slot.truth.h) for est in (far, polar, squint))
    assert near < dft - 3 and wide < near - 2
    # the same grid without its rings is no better than plane waves
    plane = hhat.solve(PolarSomp(subcarrier_spacing_hz=1e8, min_range_m=1e4), slot.obs)
    assert wide < hhat.nmse_db(plane.belief.mean, slot.truth.h) - 2


def test_units_have_their_own_problems():
    scene = NearField(num_rx_ant=32, num_unit=2, num_slots=8, num_paths=2)
    local = scene.local(scene.draw(3, gen("units")))
    for spacing in (0.0, 1e8):
        method = PolarSomp(subcarrier_spacing_hz=spacing)
        together = hhat.solve(method, local.obs)
        for unit in range(2):
            op = Kron(Dense(local.obs.op.left.matrix[unit]), Identity((16,)))
            one = Observation(local.obs.y[:, unit], op, local.obs.noise_var[:, 0], local.obs.axes)
            alone = hhat.solve(method, one)
            torch.testing.assert_close(together.belief.mean[:, unit], alone.belief.mean, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta: expected a number > 0, got 0.0"),
        ({"min_range_m": math.inf}, "min_range_m: expected a number > 0"),
        ({"spacing_m": -1.0}, "spacing_m: expected a number > 0 or None"),
        ({"subcarrier_spacing_hz": -1.0}, "subcarrier_spacing_hz: expected >= 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PolarSomp(**settings)


def test_axes_that_do_not_fit_are_refused():
    obs = Observation(complex_normal((4, 8, 6), gen("y")), Identity((8, 6)), 0.1, ("tone", "subcarrier"))
    with pytest.raises(ValueError, match="no axis of antennas"):
        hhat.solve(PolarSomp(), obs)
    with pytest.raises(ValueError, match=r"expected axes \(.., antenna, subcarrier\)"):
        hhat.solve(PolarSomp(axis=-1, subcarrier_spacing_hz=1e5), obs)
    with pytest.raises(ValueError, match="no axis 'rx'"):
        hhat.solve(PolarSomp(axis="rx"), obs)
