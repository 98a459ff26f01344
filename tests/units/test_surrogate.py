"""The surrogate as a belief: pooling, calibration, files; and its variance against draws of a known law."""

from dataclasses import replace

import pytest
import torch

from hhat.distortion.fit_variance import LOUDEST, Loudness, calibrated
from hhat.distortion.surrogate import START_VAR, fresh, load, nmse, surrogate_from
from hhat.nets import residual_recurrent as unit
from hhat.random import complex_normal, generator
from hhat.train.files import write_weights

HIDDEN = 4


def pooled(seed="surrogate"):
    mask = unit.present(3, (0,), (2,), HIDDEN)
    gen = generator(seed)
    mean = unit.RecurrentWeights(*(torch.randn(m.shape, generator=gen) * 0.4 * m for m in mask))
    return fresh(mean, 4)


def test_a_pooled_surrogate_gives_every_inner_chain_the_same_network():
    three = pooled()
    seven = three.for_chains(7)
    assert seven.num_net == 7 and seven.for_chains(7) is seven
    y = complex_normal((5, 4, 7), generator("seven"))
    found = seven(y)
    # chain n of the seven alone among its neighbours is the middle of three
    for n in range(1, 6):
        assert (three(y[..., n - 1 : n + 2])[..., 1] - found[..., n]).abs().max() < 1e-6
    assert (three(y[..., [0, 1, 2]])[..., 0] - found[..., 0]).abs().max() < 1e-6
    assert (three(y[..., [4, 5, 6]])[..., 2] - found[..., 6]).abs().max() < 1e-6


def test_batch_axes_are_kept_and_sequences_do_not_meet():
    surrogate = pooled()
    y = complex_normal((2, 3, 4, 3), generator("axes"))
    assert (surrogate(y)[1, 2] - surrogate(y[1, 2])).abs().max() < 1e-6
    far = y.clone()
    far[..., 2, :] = 9
    assert torch.equal(surrogate(far)[..., :2, :], surrogate(y)[..., :2, :])


def test_the_fit_variance_is_that_of_quiet_sequences():
    gen = generator("quiet")
    y = complex_normal((4000, 3, 2), gen)
    error = torch.where(y.abs().square().cummax(-2).values < LOUDEST, 0.25, 100.0)
    error[:, 2] *= 2
    found = calibrated(y, error)
    assert torch.allclose(found, torch.tensor([0.25, 0.25, 0.5]).expand(2, 3))
    with pytest.raises(ValueError, match="expected a sequence"):
        calibrated(torch.full((3, 2, 2), 5 + 0j), torch.ones(3, 2, 2))


def test_loudness_finds_the_law_that_residuals_were_drawn_from():
    gen = generator("loud")
    y = complex_normal((4000, 5, 3), gen)
    true = Loudness(torch.tensor([[-3.0, -2, -2, -1, 2, 0.5, 0, 0.7]]).repeat(3, 1))
    error = true(y) * torch.randn(2, *y.shape, generator=gen).square().mean(0)
    found = Loudness.fit(y, error)
    assert (found.coefficients - true.coefficients).abs().max() < 0.15
    ratio = error / found(y)
    assert (ratio.mean((0, 1)) - 1).abs().max() < 0.03


def test_calibration_sets_both_and_the_last_symbol_stands_for_later_ones():
    surrogate = pooled()
    y = complex_normal((500, 4, 3), generator("calibrate"))
    known = surrogate.calibrate(y, surrogate(y) + complex_normal(tuple(y.shape), generator("noise"), y.dtype, 0.02))
    assert (known.fit_var / 0.01 - 1).abs().max() < 0.3
    assert (known.loud_fit_var(y) / 0.01 - 1).abs().mean() < 0.2
    assert torch.equal(known.fit_var_at(6)[:, 3:], known.fit_var[:, 3:].expand(-1, 3))
    with pytest.raises(ValueError, match="loudness"):
        surrogate.loud_fit_var(y)


def test_a_file_gives_the_same_surrogate_back(tmp_path):
    surrogate = pooled()
    y = complex_normal((400, 4, 3), generator("file"))
    known = surrogate.calibrate(y, 1.01 * surrogate(y))
    path = write_weights(tmp_path, "a-surrogate", known.tensors(), {"settings": known.settings()})
    back = load(path)
    assert torch.equal(back(y), known(y)) and torch.allclose(back.fit_var, known.fit_var)
    assert torch.equal(back.loud_fit_var(y), known.loud_fit_var(y))
    assert float(back.var.out[0, 0, 0]) == pytest.approx(START_VAR) and "var/out" not in known.tensors()
    assert all(torch.equal(a, b) for a, b in zip(back.var, known.var, strict=True))
    wider = replace(known, var=unit.RecurrentWeights(*(2 * part for part in known.var)))
    assert torch.equal(surrogate_from(wider.settings(), wider.tensors()).var.gates, wider.var.gates)
    with pytest.raises(ValueError, match="kind"):
        surrogate_from({"kind": "covariance"}, {})
    with pytest.raises(ValueError, match="missing"):
        surrogate_from(known.settings(), {})


def test_what_does_not_fit_is_told():
    surrogate = pooled()
    with pytest.raises(ValueError, match="do not fit 1 receive"):
        surrogate.for_chains(1)
    with pytest.raises(ValueError, match=r"complex \(\*batch, pilot, 3\)"):
        surrogate(torch.zeros(2, 4, dtype=torch.complex64))
    y = complex_normal((2, 4, 3), generator("x"))
    assert torch.allclose(nmse(surrogate, y, 2 * surrogate(y)), torch.full((3,), 0.25))
