"""`describe`: everything a file says of itself, as JSON, and its problems in lines."""

import json

import h5py
import numpy as np
import torch

from hhat.io import write
from hhat.io.inspect import describe
from hhat.ops import Diagonal, Fourier, Identity, Kron
from hhat.random import complex_normal, generator
from hhat.types import About, Channel, Observation, Slot


def example(tmp_path, noise_var=0.1):
    gen = generator("inspect")
    op = Kron(Identity((3,)), Diagonal(complex_normal((4,), gen)))
    h = complex_normal((6, 3, 4), gen)
    about = About(
        kind="srs",
        snr_definition="per antenna",
        geometry={"rx_ant": [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [1.0, 0.0, 2.0]]},
        constants={"carrier_hz": 3.5e9},
    )
    write(tmp_path / "x.h5", Slot(Channel(h), Observation(op.apply(h), op, noise_var, ("rx_ant", "subcarrier")), about))
    return tmp_path / "x.h5"


def test_what_a_good_file_says(tmp_path):
    found = describe(example(tmp_path))
    assert json.loads(json.dumps(found)) == found
    assert found["format"] == "hhat.capture/1" and found["kind"] == "srs" and found["problems"] == []
    assert found["axes"] == {"batch": 6, "rx_ant": 3, "subcarrier": 4} and found["batch_axes"] == ["batch"]
    assert found["channel_axes"] == {"rx_ant": 3, "subcarrier": 4}
    assert found["geometry"] == {"rx_ant": {"elements": 3, "extent_wavelengths": [1.0, 0.0, 2.0]}}
    assert found["constants"] == {"carrier_hz": 3.5e9} and found["snr_definition"] == "per antenna"
    assert found["operator"] == "Kron(Identity 3 -> 3, Diagonal 4 -> 4)"
    assert found["noise_var"] == "given" and found["truth"] == ["h"] and not found["repeated"]


def test_an_absent_noise_variance_is_said(tmp_path):
    assert describe(example(tmp_path, None))["noise_var"] == "not given: estimated"


def test_a_problem_far_behind_in_a_large_file_is_found(tmp_path):
    path = example(tmp_path)
    with h5py.File(path, "a") as file:
        file["y"][5, 2, 3] = np.nan
    # so little at a time that the file is read snapshot by snapshot
    problems = describe(path, max_bytes=100)["problems"]
    assert [p.split(": ", 1)[1] for p in problems] == ["y: 1 of 12 values are NaN or infinite"]


def test_a_constant_without_unit_is_a_problem(tmp_path):
    path = example(tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["carrier"] = 3.5
    (problem,) = describe(path)["problems"]
    assert "attribute carrier: a physical constant without its unit" in problem


def test_an_operator_tree_in_words(tmp_path):
    gen = generator("inspect tree")
    op = Kron(Fourier(3), Diagonal(complex_normal((2, 4), gen)))
    h = complex_normal((2, 3, 4), gen)
    write(tmp_path / "x.h5", Slot(None, Observation(op.apply(h), op)))
    found = describe(tmp_path / "x.h5")
    assert found["operator"] == "Kron(Fourier 3 -> 3, Diagonal 4 -> 4, 2 of them)"
    assert found["channel_axes"] == [3, 4]


def test_power_is_that_of_the_file(tmp_path):
    write(tmp_path / "x.h5", Slot(None, Observation(torch.full((2, 4), 3 + 4j), Identity((4,)))))
    assert describe(tmp_path / "x.h5")["mean_power"] == 25.0
