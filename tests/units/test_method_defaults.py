"""Methods by name, set up for an observation; and settings as text."""

import dataclasses

import pytest
import torch

import hhat
from hhat.methods.auto import basis_for
from hhat.methods.base import Method
from hhat.methods.defaults import choice_for, method_for
from hhat.ops import Identity
from hhat.random import complex_normal
from hhat.settings import pairs, typed
from hhat.types import About, Observation

TONES = (*range(-26, 0), *range(1, 27))


def seen(*shape, axes):
    y = complex_normal((3, *shape), hhat.generator("defaults", *shape))
    return Observation(y, Identity(shape), 0.1, axes)


OFDM = seen(8, 52, axes=("rx_ant", "subcarrier"))
ARRAYS = seen(16, 32, axes=("rx_ant", "tx_ant"))
SMALL = seen(2, 4, axes=("rx_ant", "tx_ant"))


def dictionary(method):
    return method.prior.basis.dense().reshape(method.prior.basis.out_shape + method.prior.basis.in_shape)


@pytest.mark.parametrize("name", ["lasso", "omp", "gamp", "oamp", "sbl"])
def test_tones_and_few_antennas_take_delays_at_the_tones_indices(name):
    method = method_for(name, OFDM, About(subcarriers=TONES))
    atoms = dictionary(method)
    # antenna by antenna, and each atom a tone pattern exp(-j 2 pi k tau): equal ratios but where 0 is left out
    assert atoms.shape[:2] == (8, 52) and atoms.shape[2] == 8
    atom = atoms[0, :, 0, 3]
    step = atom[1] / atom[0]
    assert torch.allclose(atom[2:26], atom[1:25] * step, atol=1e-4)
    assert torch.allclose(atom[26], atom[25] * step**2, atol=1e-4)
    assert bool((atoms[1, :, 0] == 0).all())


@pytest.mark.parametrize("name", ["lasso", "omp", "gamp", "oamp", "sbl"])
def test_arrays_take_angles(name):
    atoms = dictionary(method_for(name, ARRAYS)).reshape(16 * 32, 16 * 32)
    assert torch.allclose(atoms.mH @ atoms, torch.eye(512, dtype=atoms.dtype), atol=1e-4)
    # a plane wave along tx is one coefficient
    wave = torch.polar(torch.ones(32), 2 * torch.pi * torch.arange(32) * 5 / 32).to(torch.complex64)
    x = (atoms.mH @ torch.outer(torch.ones(16, dtype=wave.dtype), wave).flatten()).abs()
    assert int((x > 1e-3 * x.max()).sum()) == 1


def test_what_is_too_small_takes_no_basis():
    assert method_for("oamp", SMALL).prior.basis is None


def test_sbl_ties_the_antennas_over_delays_alone_unless_told_otherwise():
    assert [axis % 2 for axis in method_for("sbl", OFDM, About(subcarriers=TONES)).tied_axes] == [0]
    assert method_for("sbl", ARRAYS).tied_axes == ()
    assert method_for("sbl", ARRAYS, settings={"tied_axes": "rx_ant,tx_ant"}).tied_axes == ("rx_ant", "tx_ant")
    assert method_for("sbl", ARRAYS, settings={"tied_axes": "rx_ant"}).tied_axes == ("rx_ant",)


def test_the_defaults_beat_white_ones_where_the_channel_is_sparse():
    slot = hhat.scenario("ofdm", snr_db=10).draw(10, hhat.generator("defaults", "ofdm"))
    white = hhat.nmse_db(hhat.solve(hhat.method("rls"), slot.obs), slot.truth)
    for name in ("lasso", "omp", "gamp", "oamp", "sbl"):
        assert hhat.nmse_db(hhat.solve(method_for(name, slot.obs, slot.about), slot.obs), slot.truth) < white - 3


def test_settings_go_to_the_method_or_to_its_prior():
    method = method_for("oamp", ARRAYS, prior_name="bernoulli-gauss", settings={"damping": "0.5", "active": "0.25"})
    assert method.damping == 0.5 and method.prior.weights.tolist() == [0.75, 0.25]
    learned = method_for("oamp", ARRAYS, prior_name="gauss-mixture", settings={"tied_axes": "rx_ant"})
    assert learned.prior.tied_axes == (-2,)
    assert method_for("lasso", ARRAYS, settings={"strength": 2.0}).strength == 2


def test_a_named_gauss_prior_is_learned_and_a_covariance_known():
    assert method_for("lmmse", OFDM, prior_name="gauss").prior.learnable
    samples = complex_normal((50, 2, 4), hhat.generator("defaults", "survey"))
    known = method_for("lmmse", SMALL, prior_name="covariance", settings={"samples": samples})
    assert not known.prior.learnable and known.prior.basis.out_shape == (2, 4)


def test_linear_methods_and_auto_take_their_own():
    assert method_for("lmmse", OFDM).prior is None
    assert method_for("auto", OFDM, About(subcarriers=TONES)).subcarriers == TONES
    assert isinstance(method_for("ls", OFDM), Method)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("magic", None, {}), "unknown method 'magic'; there are: .*sbl"),
        (("oamp", "magic", {}), "unknown prior 'magic'; there are: .*gauss"),
        (("rls", "gauss", {}), "rls: takes no prior"),
        (("oamp", None, {"colour": "red"}), "oamp: unknown setting 'colour'; there are: .*damping.*coupling"),
        (("lasso", None, {"var": "2"}), "lasso: unknown setting 'var'; there are: strength"),
        (("oamp", None, {"basis": "x"}), "unknown setting 'basis'"),
        (("oamp", None, {"damping": "much"}), "oamp: damping: expected float, got 'much'"),
        (("oamp", None, {"damping": "2"}), "damping: expected 0 < damping <= 1"),
        (("oamp", "gauss-mixture", {"tied_axes": "user"}), "no axis 'user'"),
    ],
)
def test_wrong_names_and_settings_are_refused_with_the_list(arguments, words):
    name, prior, settings = arguments
    with pytest.raises(ValueError, match=words):
        choice_for(name, ARRAYS, None, prior, settings)


def target(
    number: float = 1.0,
    count: int | None = None,
    switch: bool = False,
    word: str = "",
    axes: tuple[str | int, ...] = (),
    both: float | int = 0,
):
    return number, count, switch, word, axes, both


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("number", "0.5", 0.5),
        ("number", "1e-3", 1e-3),
        ("number", "3", 3.0),
        ("count", "3", 3),
        ("count", "none", None),
        ("switch", "true", True),
        ("switch", "False", False),
        ("word", "C", "C"),
        ("word", "5", "5"),
        ("word", "802.11", "802.11"),
        ("axes", "rx_ant,tx_ant", ("rx_ant", "tx_ant")),
        ("axes", "(-1, rx_ant)", (-1, "rx_ant")),
        ("axes", "rx_ant", ("rx_ant",)),
        ("both", "10", 10),
        ("both", "-2.5", -2.5),
    ],
)
def test_text_becomes_what_the_parameter_declares(name, text, value):
    found = typed(target, {name: text})[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text"), [("number", "abc"), ("count", "1.5"), ("switch", "perhaps"), ("count", "1,2")]
)
def test_text_that_does_not_fit_is_refused(name, text):
    with pytest.raises(ValueError, match=f"{name}: expected .*, got '{text}'"):
        typed(target, {name: text})


def test_values_and_unknown_names_pass():
    assert typed(target, {"number": 2, "stranger": "x"}) == {"number": 2, "stranger": "x"}


def test_pairs_are_read_and_checked():
    assert pairs(["a=1", "b-c = x=y"]) == {"a": "1", "b_c": "x=y"}
    for wrong in (["a"], ["=1"], ["a b=1"], ["a=1", "a=2"]):
        with pytest.raises(ValueError, match="--set"):
            pairs(wrong)


def test_beside_an_array_delays_are_a_unitary_basis_of_evenly_spaced_tones():
    basis, tied, _ = basis_for((32, 16), ("rx_ant", "subcarrier"))
    assert basis is not None and basis.is_unitary and tied == ()
    uneven = (0, 1, 3, *range(4, 17))
    assert not basis_for((32, 16), ("rx_ant", "subcarrier"), uneven)[0].is_unitary
    assert not basis_for((4, 16), ("rx_ant", "subcarrier"))[0].is_unitary


def test_auto_takes_paths_where_the_file_tells_of_a_line_array_and_its_frequencies():
    scene = hhat.scenario("near-field", num_rx_ant=32, num_unit=2, num_subcarriers=8, num_slots=8)
    slot = scene.draw(2, hhat.generator("auto on a line"))
    found = choice_for("auto", slot.obs, slot.about)
    assert found.name == "hybrid" and "32 antennas in a line" in found.why
    assert hhat.nmse_db(hhat.solve(found.method, slot.obs), slot.truth) < -20  # 64 coefficients of 16: oamp is at -10


@pytest.mark.parametrize("what", ["no carrier", "no geometry", "bent", "one place", "short", "a prior"])
def test_auto_stays_with_coefficients_where_a_line_is_not_known(what):
    num = 8 if what == "short" else 32
    scene = hhat.scenario("near-field", num_rx_ant=num, num_unit=2, num_subcarriers=16, num_slots=4)
    slot = scene.draw(2, hhat.generator("auto on a line"))
    about = slot.about
    if what == "no carrier":
        about = dataclasses.replace(about, constants={})
    if what == "no geometry":
        about = dataclasses.replace(about, geometry={})
    if what == "bent":
        points = torch.tensor(about.geometry["rx_ant"])
        points[num // 2 :, 0] += 0.1
        about = dataclasses.replace(about, geometry={"rx_ant": points.tolist()})
    if what == "one place":
        about = dataclasses.replace(about, geometry={"rx_ant": [[0.0, 0.0, 0.0]] * num})
    found = choice_for("auto", slot.obs, about, "gauss-mixture" if what == "a prior" else None)
    assert found.name == "auto"
