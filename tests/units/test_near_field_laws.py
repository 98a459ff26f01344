"""Near field beyond single paths: clusters, CDL profiles, visibility, units out of step, several RF chains."""

import math
from dataclasses import replace

import pytest
import torch

import hhat
from hhat.impairments.unit_sync import UnitSync
from hhat.io import read, write
from hhat.ops import posterior
from hhat.scenarios import cdl_law
from hhat.scenarios.cdl_tables import PROFILES
from hhat.scenarios.near_field import NearField
from hhat.scenarios.near_field_laws import visibility
from hhat.scenarios.near_field_parts import LIGHT_M_PER_S, whitened
from hhat.types import Gaussian

SMALL = {"num_rx_ant": 16, "num_unit": 2, "num_subcarriers": 4, "num_slots": 3, "num_paths": 2}
OPTIONS = {
    "diffuse": {"num_rays": 5, "angle_spread_deg": 1.0, "range_spread_m": 0.3},
    "cdl-c": {"cdl_profile": "C", "range_spread_m": 0.1},
    "cdl-d": {"cdl_profile": "D"},
    "visibility": {"min_visible_share": 0.2},
    "sharp visibility": {"min_visible_share": 0.2, "visible_edge_ant": 0},
    "sync": {"phase_error_rad": math.pi, "timing_error_s": 1e-9},
    "all": {"num_rays": 3, "angle_spread_deg": 1.0, "min_visible_share": 0.3, "phase_error_rad": 1.0},
}


def gen(*labels):
    return hhat.generator("near field laws", *labels)


def test_defaults_draw_what_they_drew_before_there_were_options():
    """Values of the scenario when single paths were all it had; bits may differ between processors."""
    for more, y, h, noise_var in (
        ({}, -1.3019690 + 9.8511391j, -0.0185261 + 0.5356296j, 0.04318033),
        (
            {"combiner": "sign", "angle_law": "full", "wavefront": "spherical"},
            -3.2172318 + 6.7284098j,
            -1.1630422 + 3.6220126j,
            0.06733379,
        ),
    ):
        scene = NearField(num_rx_ant=16, num_unit=2, num_subcarriers=4, num_slots=3, num_paths=2, **more)
        slot = scene.draw(2, hhat.generator("near field", "pinned"))
        assert complex(slot.obs.y.sum()) == pytest.approx(y, abs=1e-4)
        assert complex(slot.truth.h.sum()) == pytest.approx(h, abs=1e-4)
        assert float(slot.obs.noise_var[1]) == pytest.approx(noise_var, rel=1e-5)
        assert slot.truth.range_m.flatten().tolist() == pytest.approx([45.701042, 27.106815, 16.179098, 28.202156])


@pytest.mark.parametrize("option", OPTIONS)
def test_an_entry_has_energy_one_on_average(option):
    scene = replace(NearField(**SMALL), **OPTIONS[option])
    n = 300 if "cdl" in option else 3000
    h = scene.draw(n, gen("energy", option)).truth.h
    power = h.abs().square().mean((1, 2))
    assert float(power.mean()) == pytest.approx(1, abs=5 * float(power.std()) / math.sqrt(n))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_goes_to_a_file_and_back_with_its_truth(option, tmp_path):
    scene = replace(NearField(**SMALL), **OPTIONS[option])
    slot = scene.draw(3, gen("file", option))
    write(tmp_path / "x.h5", slot)
    back = read(tmp_path / "x.h5")
    for name, value in slot.truth._asdict().items():
        assert torch.equal(getattr(back.truth, name), value), name
    again = scene.sync(slot.truth)(scene.channels(slot.truth.paths))
    torch.testing.assert_close(again, slot.truth.h)  # the truth makes the channel
    noise = slot.obs.y - slot.obs.op.apply(slot.truth.h)
    torch.testing.assert_close(noise.abs().square().mean((1, 2)), slot.obs.noise_var[:, 0, 0], rtol=1e-4, atol=0)
    assert scene.local(slot).truth.h.shape == (3, 2, 8, 4)


def test_rays_without_spread_are_their_path():
    plain = NearField(num_paths=3)
    diffuse = replace(plain, num_rays=7)
    single, many = plain.paths(4, gen("rays")), diffuse.paths(4, gen("rays"))
    assert many.gain.shape == (4, 21)
    torch.testing.assert_close(many.gain.unflatten(1, (3, 7)).sum(-1), single.gain)
    torch.testing.assert_close(diffuse.channels(many), plain.channels(single), atol=2e-6, rtol=1e-5)
    assert torch.equal(many.range_m[:, ::7], single.range_m)


def test_rays_have_the_law_of_independent_ones():
    scene = NearField(num_paths=1, num_rays=4, angle_spread_deg=0.5, range_spread_m=0.2)
    n = 8000
    paths = scene.paths(n, gen("law"))
    gram = paths.gain.mT @ paths.gain.conj() / n
    torch.testing.assert_close(gram, torch.eye(4, dtype=gram.dtype) / 4, atol=5 / math.sqrt(n) / 4, rtol=0)
    for value, spread in ((paths.angle_rad, math.radians(0.5)), (paths.range_m, 0.2)):
        inside = value.var(-1).mean().sqrt()  # unbiased: the cluster's centre is unknown
        assert float(inside) == pytest.approx(spread, rel=0.05)
    torch.testing.assert_close(paths.delay_s, paths.range_m / LIGHT_M_PER_S)


def test_power_of_a_cluster_does_not_depend_on_its_rays():
    for rays in (2, 20):
        scene = NearField(num_paths=2, num_rays=rays, angle_spread_deg=2.0)
        gain = scene.paths(4000, gen("cluster", rays)).gain.unflatten(1, (2, rays))
        power = gain.abs().square().sum(-1).mean(0)
        torch.testing.assert_close(power, torch.full((2,), 0.5), rtol=0.08, atol=0)


@pytest.mark.parametrize("profile", ["B", "D"])
def test_cdl_clusters_have_the_tables_powers_delays_and_angles(profile):
    scene = NearField(cdl_profile=profile, delay_spread_s=50e-9, range_spread_m=0.1)
    table = PROFILES[profile]
    n, clusters, los = 40, len(table.clusters), int(table.los is not None)
    paths = scene.paths(n, gen("cdl", profile))
    assert paths.gain.shape == (n, 20 * clusters + los)
    power = paths.gain.abs().square()
    torch.testing.assert_close(power.sum(-1), torch.ones(n))
    of_cluster = power[:, : 20 * clusters].unflatten(1, (clusters, 20)).sum(-1)
    torch.testing.assert_close(of_cluster[0].double(), cdl_law.powers(profile)[0], rtol=1e-5, atol=0)
    delay = paths.delay_s[:, : 20 * clusters].unflatten(1, (clusters, 20))
    assert bool((delay == delay[..., :1]).all())
    wanted = torch.tensor([row.delay for row in table.clusters], dtype=torch.float64) * 50e-9
    torch.testing.assert_close(delay[:, :, 0] - delay[:, :1, 0], (wanted - wanted[0]).expand(n, -1))
    # rays from no farther than they travelled, nor outside the given ranges (but for the spread)
    assert bool((paths.range_m <= paths.delay_s * LIGHT_M_PER_S + 0.6).all())
    assert 9.4 < float(paths.range_m.min()) and float(paths.range_m.max()) < 50.6
    # the angles are those of the departing end at some turn within 60 degrees
    _, tx = cdl_law.ends(profile, "horizontal", "rotated")
    mean = paths.angle_rad[:, : 20 * clusters].cos().unflatten(1, (clusters, 20)).mean(-1)
    yaw = torch.linspace(-math.pi / 3, math.pi / 3, 2000, dtype=torch.float64)[:, None, None]
    grid = cdl_law.direction_cosine(tx.azimuth, tx.zenith, yaw, "horizontal").mean(-1)
    assert float((grid[:, None] - mean).abs().amax(-1).amin(0).max()) < 0.02
    if los:
        torch.testing.assert_close(paths.range_m[:, -1], paths.delay_s[:, -1] * LIGHT_M_PER_S)


def test_paths_that_all_see_are_as_without_regions():
    plain = NearField(**SMALL)
    paths = plain.paths(3, gen("full"))
    assert bool((visibility(paths, 16, 4.0, 20.0) == 1).all())
    wide = replace(plain, min_visible_share=0.5)
    assert torch.equal(wide.channels(paths), plain.channels(paths))
    some = wide.paths(3, gen("full"))
    assert torch.equal(some.gain, paths.gain) and not torch.equal(wide.channels(some), plain.channels(paths))
    full = some._replace(first_ant=paths.first_ant, last_ant=paths.last_ant)
    assert torch.equal(wide.channels(full), plain.channels(paths))
    assert torch.equal(wide.channels(some._replace(first_ant=None, last_ant=None)), plain.channels(paths))


def test_a_path_is_seen_by_a_run_with_a_soft_edge():
    scene = NearField(num_paths=1, min_visible_share=0.25, visible_edge_ant=6.0)
    paths = scene.paths(500, gen("run"))
    share = (paths.last_ant - paths.first_ant) / 128
    assert 0.25 <= float(share.min()) < 0.27 and 0.98 < float(share.max()) <= 1
    assert float(share.mean()) == pytest.approx(0.625, abs=0.05)
    assert float(paths.first_ant.min()) >= 0 and float(paths.last_ant.max()) <= 128
    amplitude = scene.channels(paths).abs()[..., 0] / paths.gain.abs()
    torch.testing.assert_close(amplitude.square().mean(-1), torch.ones(500), rtol=1e-4, atol=0)
    j = torch.arange(128) + 0.5
    inside = (j >= paths.first_ant) & (j <= paths.last_ant)
    outside = (j < paths.first_ant - 6) | (j > paths.last_ant + 6)
    top = amplitude.amax(-1, keepdim=True)
    assert float(((amplitude - top).abs() * inside).max()) < 1e-4
    assert float(((amplitude / top - 0.1).abs() * outside).max()) < 1e-4  # 20 dB
    assert float((amplitude.diff(dim=-1).abs() / top).max()) < math.pi / 2 / 6 + 1e-3  # slope of the raised cosine
    sharp = replace(scene, visible_edge_ant=0, hidden_loss_db=100.0).channels(paths).abs()[..., 0]
    assert bool(((sharp / sharp.amax(-1, keepdim=True) > 1e-4) == inside).all())


def test_units_out_of_step_are_turned_as_wholes():
    plain = NearField(**SMALL)
    off = replace(plain, phase_error_rad=0.5, timing_error_s=2e-9)
    slot, clean = off.draw(200, gen("sync")), plain.draw(200, gen("sync"))
    truth = slot.truth
    assert float(truth.phase_rad.abs().max()) <= 0.5 and float(truth.timing_s.abs().max()) <= 2e-9
    assert float(truth.phase_rad.abs().max()) > 0.45 and float(truth.timing_s.abs().max()) > 1.8e-9
    turn = truth.phase_rad[..., None] - 2 * math.pi * truth.timing_s[..., None] * off.offset_hz()
    wanted = clean.truth.h.unflatten(1, (2, 8)) * torch.polar(torch.ones_like(turn), turn)[:, :, None].to(
        torch.complex64
    )
    torch.testing.assert_close(truth.h, wanted.flatten(1, 2), atol=1e-5, rtol=1e-5)
    back = off.sync(truth).op().H @ truth.h
    torch.testing.assert_close(back, clean.truth.h, atol=1e-5, rtol=1e-5)
    assert torch.equal(clean.truth.phase_rad, torch.zeros(200, 2, dtype=torch.float64))


def test_sync_errors_before_or_behind_the_combiner_are_the_same():
    scene = NearField(**SMALL, phase_error_rad=3.0, timing_error_s=1e-9)
    slot = scene.draw(3, gen("commute"))
    behind = UnitSync(slot.truth.phase_rad, slot.truth.timing_s, scene.offset_hz(), scene.num_beams)
    ahead = slot.obs.op.apply(slot.truth.h)
    clean = scene.sync(slot.truth).op().H @ slot.truth.h
    torch.testing.assert_close(behind(slot.obs.op.apply(clean)), ahead, atol=1e-5, rtol=1e-5)


def test_sync_refuses_what_does_not_fit():
    two = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="one shape"):
        UnitSync(two, torch.zeros(3, dtype=torch.float64), two)
    with pytest.raises(ValueError, match=r"expected \(\*batch, 2, 2\), got \(3, 2\)"):
        UnitSync(two, two, two)(torch.zeros(3, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="timing_error_s: expected a finite number >= 0, got -1"):
        UnitSync.draw(gen("bad"), timing_error_s=-1.0)


@pytest.mark.parametrize("kind", ["given", "sign"])
def test_noise_is_white_behind_rows_that_are_not_orthogonal(kind):
    """Of noise at the antennas, new in every slot, that the chains of a slot share."""
    rows = _rows() if kind == "given" else None
    chains = {"num_rf_chains": 3, "num_slots": 2, "num_rx_ant": 16, "num_unit": 2, "num_subcarriers": 4}
    scene = NearField(combiner="sign" if rows is None else rows, **chains)
    matrix = scene.draw(1, gen("white")).obs.op.left.matrix
    slots = torch.stack([matrix[6 * m : 6 * m + 6, 8 * m : 8 * m + 8].unflatten(0, (2, 3)) for m in range(2)])
    noise = hhat.random.complex_normal((20000, 2, 2, 8), gen("antennas"))
    seen = torch.einsum("mpra,nmpa->nmpr", slots, noise).flatten(1)
    covariance = seen.mT @ seen.conj() / len(seen)
    torch.testing.assert_close(covariance, torch.eye(12, dtype=seen.dtype), atol=6 / math.sqrt(20000), rtol=0)
    if rows is not None:  # and it sees what the given rows see
        given = rows.unflatten(1, (2, 3))
        both = torch.cat([slots.to(given.dtype), given], -2)
        assert bool((torch.linalg.matrix_rank(both, rtol=1e-5) == 3).all())
        assert not torch.allclose(slots[:, 0] @ slots[:, 1].mH, torch.zeros(2, 3, 3, dtype=slots.dtype), atol=1e-3)


def _rows():
    rows = hhat.random.complex_normal((2, 6, 8), gen("rows"))
    return rows + rows.roll(1, -2)  # neighbours resemble each other


def test_posterior_of_whitened_rows_is_that_of_coloured_noise():
    rows, s2 = _rows(), 0.3
    scene = NearField(num_rx_ant=16, num_unit=2, num_subcarriers=1, num_slots=2, num_rf_chains=3, combiner=rows)
    op = scene.draw(1, gen("op")).obs.op
    h = hhat.random.complex_normal((16, 1), gen("h"))
    given = torch.block_diag(*rows).to(torch.complex128)
    # noise of each slot at the antennas: coloured behind the given rows
    slots = rows.to(torch.complex128).unflatten(1, (2, 3))
    colour = s2 * torch.block_diag(*(slots @ slots.mH).flatten(0, 1))
    root = torch.linalg.cholesky(colour)
    y = given @ h[:, 0].to(given.dtype) + root @ hhat.random.complex_normal((12,), gen("n"), torch.complex128)
    var = 0.2 + torch.rand(16, generator=gen("var"), dtype=torch.float64)
    seen = given @ torch.diag(var).to(given.dtype) @ given.mH + colour
    gain = torch.diag(var).to(given.dtype) @ given.mH @ torch.linalg.inv(seen)
    mean, left = gain @ y, torch.diag(var) - (gain @ given @ torch.diag(var).to(given.dtype)).real
    # y whitened as the rows were: L^-1 y, L of the slot's Gram matrix
    white = torch.linalg.solve_triangular(root / math.sqrt(s2), y[:, None], upper=False)
    found = posterior(op.to(torch.complex128), white, Gaussian(torch.zeros((), dtype=given.dtype), var[:, None]), s2)
    torch.testing.assert_close(found.belief.mean[:, 0], mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.belief.var[:, 0], left.diagonal(), rtol=1e-5, atol=1e-6)
    evidence = -(torch.logdet(math.pi * seen).real + (y.conj() @ torch.linalg.solve(seen, y)).real)
    jacobian = 2 * (root / math.sqrt(s2)).diagonal().real.log().sum()
    assert float(found.log_evidence) == pytest.approx(float(evidence + jacobian), rel=1e-5)


def test_orthonormal_rows_stay_as_they_are():
    rows = torch.linalg.qr(hhat.random.complex_normal((2, 8, 6), gen("qr")))[0].mH.contiguous()
    torch.testing.assert_close(whitened(rows, 3), rows)
    plain = NearField(num_rx_ant=16, num_unit=2, num_subcarriers=4, num_slots=6)
    chains = replace(plain, num_slots=2, num_rf_chains=3)
    first, second = plain.draw(2, gen("chains")), chains.draw(2, gen("chains"))
    assert torch.equal(first.obs.y, second.obs.y)  # orthonormal rows: slots or chains, the noise is white
    assert chains.local(second).obs.y.shape == (2, 2, 6, 4)


def test_one_row_per_slot_is_brought_to_norm_one():
    rows = 3 * hhat.random.complex_normal((2, 3, 8), gen("norm"))
    scene = NearField(**SMALL, combiner=rows)
    matrix = scene.draw(2, gen("norm")).obs.op.left.matrix
    torch.testing.assert_close(matrix.abs().square().sum(-1), torch.ones(6))
    assert torch.equal(matrix, scene.draw(2, gen("another")).obs.op.left.matrix)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_rays": 0}, "num_rays is an integer of at least 1"),
        ({"angle_spread_deg": 1.0}, "num_rays of at least 2, got 1"),
        ({"num_rays": 3, "range_spread_m": -1.0}, "range_spread_m is a number above 0 and at most 10, got -1"),
        ({"cdl_profile": "F"}, "cdl_profile is one of A, B, C, D, E; got 'F'"),
        ({"cdl_profile": "B", "num_rays": 5}, "cdl_profile sets the rays"),
        ({"delay_spread_s": 0.0}, "delay_spread_s is a number above 0"),
        ({"min_visible_share": 0.0}, "min_visible_share is a number above 0 and at most 1"),
        ({"hidden_loss_db": 0.0}, "hidden_loss_db is a number above 0"),
        ({"visible_edge_ant": math.nan}, "visible_edge_ant is a number"),
        ({"phase_error_rad": 4.0}, "phase_error_rad is a number above 0 and at most 3.14"),
        ({"timing_error_s": math.inf}, "timing_error_s is a number"),
        ({"num_rf_chains": 3}, "has 32 rows, got num_slots 16 times num_rf_chains 3"),
        ({"combiner": "sign", "num_rf_chains": 33}, "at most 32 num_rf_chains for 32 antennas, got 33"),
        ({"combiner": torch.zeros(4, 16, 31)}, r"finite rows \(4, 16, 32\), got \(4, 16, 31\)"),
        ({"combiner": torch.full((4, 16, 32), math.nan)}, "finite rows"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NearField(**settings)


def test_dependent_rows_of_a_slot_are_refused():
    rows = hhat.random.complex_normal((2, 4, 8), gen("dependent"))
    rows[1, 3] = 2 * rows[1, 2]
    scene = NearField(num_rx_ant=16, num_unit=2, num_slots=2, num_rf_chains=2, combiner=rows)
    with pytest.raises(ValueError, match="linearly independent"):
        scene.draw(1, gen("draw"))
    swapped = rows[:, [0, 2, 1, 3]]  # the same rows in different slots are two looks at one beam
    assert replace(scene, combiner=swapped).draw(1, gen("draw")).obs.y.shape == (1, 8, 16)
