"""Compensators: the polynomial against least squares written out and a law it can say, pooling, calibrated errors."""

import pytest
import torch

from hhat.distortion.compensate import Compensator
from hhat.distortion.memory_polynomial import MemoryPolynomial, functions
from hhat.distortion.surrogate import fresh
from hhat.nets import residual_recurrent as unit
from hhat.random import complex_normal, generator
from hhat.train.surrogate import ends, pairs, receiver


@pytest.fixture(scope="module")
def known():
    return pairs(receiver(), 3, 1500, 5, generator("compensate"))


def test_the_count_is_the_papers():
    y = complex_normal((30, 5, 64), generator("count"))
    fit = MemoryPolynomial.fit(y, y)
    assert int((fit.coefficients != 0).any(-1).sum()) * 2 <= 15_168
    per_chain = [int((functions(y, torch.tensor([n])).abs().sum((0, 1)) > 0).sum()) * 2 for n in (0, 1, 62, 63)]
    assert per_chain == [144, 240, 240, 144] and 62 * 240 + 2 * 144 == 15_168


def written_out(y, n):
    """The functions of chain n of one sequence (pilot, rx_ant), one by one."""
    found = []
    for tap in range(4):
        for k in range(3):
            for p in range(len(y)):
                if p < tap:
                    found.append((tap, k, p, [0j] * 5))
                    continue
                s, sides = (
                    y[p - tap, n],
                    [y[p - tap, j] if 0 <= j < y.shape[1] else torch.tensor(0j) for j in (n - 1, n + 1)],
                )
                row = [s * abs(s) ** (2 * k)]
                for j in sides:
                    row += [j * abs(s) ** (2 * k), s * abs(j) ** (2 * k) if k else j * abs(j) ** 2]
                found.append((tap, k, p, row))
    out = torch.zeros(len(y), 60, dtype=torch.complex128)
    for tap, k, p, row in found:
        out[p, 15 * tap + 5 * k : 15 * tap + 5 * k + 5] = torch.tensor(
            [complex(x) for x in row], dtype=torch.complex128
        )
    return out


def test_functions_are_those_of_the_definition():
    y = complex_normal((1, 5, 3), generator("functions"), torch.complex128)
    found = functions(y, torch.arange(3))
    for n in range(3):
        wanted = written_out(y[0], n)
        assert (found[n] - torch.cat([wanted.real, wanted.imag], -1)).abs().max() < 1e-12


def test_the_fit_is_least_squares(known):
    found = MemoryPolynomial.fit(known.signal, known.distorted, ridge=1e-12)
    f = functions(known.signal.to(torch.complex128), torch.tensor([1]))[0]
    wanted = torch.linalg.lstsq(f, torch.view_as_real(known.distorted[..., 1].flatten().to(torch.complex128))).solution
    # coefficients of nearly equal columns differ; what they give does not
    assert (f @ (found.coefficients[1].double() - wanted)).norm() < 1e-4 * (f @ wanted).norm()
    assert (found(known.signal) - known.distorted)[..., 1].abs().square().mean() < 2e-3


def test_a_law_within_the_class_is_found(known):
    y = known.signal.to(torch.complex128)
    gen = generator("law")
    true = MemoryPolynomial(torch.randn(3, 120, 2, generator=gen, dtype=torch.float64) * 0.1)
    out = true(y)
    error = (MemoryPolynomial.fit(y, out, 1e-12)(y) - out).norm() / out.norm()
    assert error < 1e-6


def test_an_inverse_takes_most_of_the_distortion_away_and_says_how_much_is_left(known):
    none = Compensator.calibrate(None, known.signal, known.distorted)
    inverse = Compensator.polynomial(known.signal, known.distorted)
    apart = pairs(receiver(), 3, 1500, 5, generator("apart"))
    quiet = apart.signal.abs().square().cummax(1).values < 2.5
    for one, factor in ((none, 1.0), (inverse, 0.1)):
        found, var = one(apart.distorted)
        left = ((found - apart.signal).abs().square() * quiet).sum(0) / quiet.sum(0)
        assert (left / var - 1).abs().max() < 0.3 and bool((var < factor * none.error_var.mT * 1.01).all())
    assert torch.equal(none(apart.distorted).signal, apart.distorted)


def test_the_variance_by_amplitude_is_right_for_loud_and_quiet_samples_alike(known):
    inverse = Compensator.polynomial(known.signal, known.distorted)
    apart = pairs(receiver(), 3, 3000, 5, generator("apart"))
    found, var = inverse.loud(apart.distorted)
    error, loud = (found - apart.signal).abs().square(), apart.signal.abs().square() > 2.5
    assert 0.5 < error[loud].mean() / var[loud].mean() < 2 and 0.5 < error[~loud].mean() / var[~loud].mean() < 2
    assert torch.equal(found, inverse(apart.distorted).signal)
    with pytest.raises(ValueError, match="loudness"):
        Compensator(None, inverse.error_var).loud(apart.distorted)


def test_three_networks_serve_any_number_of_chains(known):
    inverse = Compensator.polynomial(known.signal, known.distorted)
    six = inverse.for_chains(6)
    y = complex_normal((4, 5, 6), generator("six"))
    found = six(y)
    for n in range(1, 5):
        assert (inverse(y[..., n - 1 : n + 2]).signal[..., 1] - found.signal[..., n]).abs().max() < 1e-5
    assert torch.equal(found.error_var[:, 1], found.error_var[:, 4]) and found.error_var.shape == (5, 6)
    with pytest.raises(ValueError, match="do not fit 1 receive"):
        inverse.for_chains(1)
    with pytest.raises(ValueError, match=r"\(\*batch, pilot, 3\)"):
        inverse(y)


def test_a_network_has_twice_the_variance_of_its_real_part(known):
    mask = ends(3, 4)
    surrogate = fresh(unit.start(mask, generator("net"))).calibrate(known.distorted, known.signal, known.signal)
    found = Compensator.network(surrogate)
    wanted = Compensator.calibrate(surrogate, known.signal, known.distorted)
    assert torch.allclose(found.error_var, wanted.error_var, rtol=1e-4)
    assert torch.equal(found(known.distorted).signal, surrogate(known.distorted))
