"""`DistortedPilots` takes what fits and says what does not."""

import pytest
import torch

from hhat.distortion import DistortedPilots
from hhat.random import complex_normal, generator, qpsk


def parts(batch=(2, 3)):
    gen = generator("distorted pilots")
    return complex_normal((*batch, 4, 8), gen), qpsk((*batch, 4), gen)


def test_shapes_and_types_follow_y():
    y, pilots = parts()
    own = DistortedPilots(y, pilots.to(torch.complex128), 0.1)
    assert own.batch_shape == (2, 3) and own.num_pilots == 4 and own.num_rx_ant == 8
    assert own.pilots.dtype == y.dtype and own.noise_var.dtype == torch.float32
    shared = DistortedPilots(y, pilots[0, 0], torch.full((2, 1, 1, 1), 0.1))
    assert shared.pilots.shape == (4,)
    assert shared.to("cpu") is shared


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": torch.zeros(4, 8)}, "y: expected a complex tensor"),
        ({"y": torch.zeros(8, dtype=torch.complex64)}, "at least one item"),
        ({"y": torch.zeros(0, 4, 8, dtype=torch.complex64)}, "at least one item"),
        ({"pilots": torch.ones(4)}, "pilots: expected a complex tensor"),
        ({"pilots": torch.ones(3, dtype=torch.complex64)}, r"expected shape \(4,\) or \(2, 3, 4\)"),
        ({"pilots": torch.ones(3, 4, dtype=torch.complex64)}, "pilots: expected shape"),
        ({"pilots": torch.full((4,), torch.nan, dtype=torch.complex64)}, "finite"),
        ({"noise_var": -1.0}, "finite values >= 0"),
        ({"noise_var": float("nan")}, "finite values >= 0"),
        ({"noise_var": torch.tensor(1j)}, "real"),
        ({"noise_var": torch.ones(5, 1, 1, 1)}, "does not fit"),
        ({"noise_var": torch.ones(1, 2, 3, 4, 8)}, "does not fit"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    y, pilots = parts()
    with pytest.raises(ValueError, match=words):
        DistortedPilots(**({"y": y, "pilots": pilots, "noise_var": 0.1} | change))
