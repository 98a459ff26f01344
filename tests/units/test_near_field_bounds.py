"""Bounds of the near-field scenario: against automatic differentiation, dense algebra, their own expectation, printed
numbers, and the estimates that they bound."""

import math
from dataclasses import replace

import pytest
import torch

import hhat
from hhat.scenarios.near_field import NearField
from hhat.scenarios.near_field_bounds import (
    CHUNK_ENTRIES,
    cramer_rao,
    genie_nmse,
    geometry,
    path_lmmse,
    path_model,
    unit_geometry,
)
from hhat.types import Channel, Observation, Slot

SMALL = {"num_rx_ant": 8, "num_unit": 2, "num_subcarriers": 4, "num_slots": 3, "num_paths": 2}


def gen(*labels):
    return hhat.generator("bounds", *labels)


def db(x):
    return 10 * math.log10(float(x))


def energy(x):
    return x.abs().square().sum((-2, -1))


@pytest.mark.parametrize("local", [False, True])
def test_cramer_rao_is_that_of_automatic_differentiation(local):
    """F = 2 Re(D^H D) / s2 over all ten real unknowns of the printed model, inverted as it stands."""
    scene = NearField(**{**SMALL, "num_slots": 4, "num_unit": 2})
    slot = scene.draw(3, gen("autograd"))
    bound = cramer_rao(scene, slot, local)
    paths = slot.truth.paths
    j = torch.arange(8.0, dtype=torch.float64)[:, None]
    f = scene.offset_hz()
    unit = torch.tensor([1 / 8, 1 / 64, 1 / scene.bandwidth_hz], dtype=torch.float64)

    def channel(x):
        psi, phi, delay = (x[:3] * unit[:, None])[:, :, None, None]
        cycles = (psi * j - phi * j**2) * (1 + f / scene.carrier_hz) - delay * f
        return (torch.complex(x[3], x[4])[:, None, None] * torch.exp(2j * math.pi * cycles)).sum(0)

    w = slot.obs.op.left.matrix.to(torch.complex128)
    for i in range(3):
        g = paths.gain[i].to(torch.complex128)
        x = torch.stack([paths.psi[i] / unit[0], paths.phi[i] / unit[1], paths.delay_s[i] / unit[2], g.real, g.imag])
        j_h = torch.autograd.functional.jacobian(lambda x: torch.view_as_real(channel(x)), x)
        j_h = torch.view_as_complex(j_h.flatten(3).movedim(2, -1).contiguous())  # antenna, tone, unknown
        s2 = float(slot.obs.noise_var[i])
        for u in range(2) if local else (None,):
            rows, ants = (slice(4 * u, 4 * u + 4),) * 2 if local else (slice(None),) * 2
            here = j_h[ants].flatten(0, 1)
            d = torch.einsum("mj,jkp->mkp", w[rows, ants], j_h[ants]).flatten(0, 1)
            fisher = 2 * (d.mH @ d).real / s2
            scale = fisher.diagonal().rsqrt()
            inverse = torch.linalg.inv(fisher * scale * scale[:, None]) * scale * scale[:, None]
            wanted = torch.einsum("np,pq,nq->", here, inverse.to(here.dtype), here.conj()).real
            got = bound[i] if u is None else bound[i, u]
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=0)


def test_chunks_change_nothing(monkeypatch):
    scene = NearField(**SMALL)
    slot = scene.draw(5, gen("chunks"))
    whole = cramer_rao(scene, slot), path_lmmse(scene, slot, local=True)
    assert CHUNK_ENTRIES > 5 * 4 * 2 * 8 * 4
    monkeypatch.setattr("hhat.scenarios.near_field_bounds.CHUNK_ENTRIES", 2 * 4 * 2 * 8 * 4)
    torch.testing.assert_close(cramer_rao(scene, slot), whole[0])
    again = path_lmmse(scene, slot, local=True)
    torch.testing.assert_close(again.mean, whole[1].mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again.var, whole[1].var, rtol=1e-5, atol=1e-6)


def test_path_lmmse_is_the_dense_one():
    scene = NearField(**SMALL)
    slot = scene.draw(2, gen("dense"))
    for local in (False, True):
        found, paths = path_lmmse(scene, slot, local), slot.truth.paths
        for i in range(2):
            s = scene.responses(paths)[i].to(torch.complex128)
            for u in (0, 1) if local else (None,):
                rows, ants = (slice(3 * u, 3 * u + 3), slice(4 * u, 4 * u + 4)) if local else (slice(None),) * 2
                w = slot.obs.op.left.matrix[rows, ants].to(torch.complex128)
                here = s[:, ants].flatten(1).mT
                a = torch.kron(w, torch.eye(4, dtype=w.dtype)) @ here
                c = a @ a.mH / 2 + float(slot.obs.noise_var[i]) * torch.eye(len(a), dtype=w.dtype)
                gain = torch.linalg.solve(c, a).mH / 2
                mean = here @ gain @ slot.obs.y[i][rows].flatten().to(torch.complex128)
                cov = here @ (torch.eye(2, dtype=w.dtype) / 2 - gain @ a / 2) @ here.mH
                got = (found.mean[i], found.var[i]) if u is None else (found.mean[i, u], found.var[i, u])
                torch.testing.assert_close(got[0].flatten().to(mean.dtype), mean, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(got[1].flatten().double(), cov.diagonal().real, rtol=1e-3, atol=1e-6)


def test_units_see_the_same_paths():
    scene = NearField(**SMALL)
    paths = scene.paths(3, gen("units"))
    here, gain = unit_geometry(scene, paths)
    h = (gain[..., None, None] * path_model(scene, local=True).responses(here)).sum(2).flatten(1, 2)
    torch.testing.assert_close(h, scene.channels(paths).to(h.dtype), rtol=0, atol=1e-5)
    theta, alpha = geometry(paths)
    s = path_model(scene).responses(theta)
    torch.testing.assert_close((alpha[..., None, None] * s).sum(1), h, rtol=0, atol=1e-9)


def test_printed_numbers_and_order():
    """Specification at 10 dB: Cramer-Rao -30.0 central; genie geometry -33.5 and -27.7. Counting unknowns in white
    noise: 10 of 1024 complex ones, hence -30.1; 4 of 1024 and of 256, hence -34.1 and -28.1."""
    scene = NearField()
    slot = scene.draw(32, gen("printed"))
    h, here = slot.truth.h, scene.local(slot).truth.h
    central, local = (cramer_rao(scene, slot) / energy(h)).mean(), (cramer_rao(scene, slot, True) / energy(here)).mean()
    genie, unit = genie_nmse(scene, slot).mean(), genie_nmse(scene, slot, local=True).mean()
    assert abs(db(central) + 30.0) < 0.3 and abs(db(genie) + 33.9) < 0.6 and abs(db(unit) + 27.7) < 0.6
    assert genie < central < unit < local
    claimed = path_lmmse(scene, slot).var.sum((-2, -1)) / energy(h)
    assert abs(db(claimed.mean()) - db(genie)) < 0.5


def test_ten_times_the_noise_is_ten_times_the_bound():
    scene, loud = NearField(**SMALL, snr_db=20.0), NearField(**SMALL, snr_db=10.0)
    first, second = (cramer_rao(s, s.draw(4, gen("noise"))) for s in (scene, loud))
    torch.testing.assert_close(second / first, torch.full((4,), 10.0, dtype=torch.float64), rtol=1e-4, atol=0)


def test_wrong_calls_are_named():
    scene = NearField(**SMALL)
    slot = scene.draw(2, gen("wrong"))
    with pytest.raises(ValueError, match="NearFieldChannel"):
        cramer_rao(scene, Slot(Channel(slot.truth.h), slot.obs))
    with pytest.raises(ValueError, match="known noise_var"):
        path_lmmse(scene, Slot(slot.truth, Observation(slot.obs.y, slot.obs.op, None, slot.obs.axes)))
    with pytest.raises(ValueError, match="fresnel"):
        cramer_rao(replace(scene, wavefront="spherical"), slot)
