"""`oamp`: where a residual contradicts the promised variance, block by block against the blocks on their own."""

import pytest
import torch

from hhat.methods import base, oamp
from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.random import complex_normal, generator
from hhat.types import Observation


@pytest.mark.parametrize("beams", [Identity((3,)), Fourier(3)])
def test_each_independent_block_is_surprised_on_its_own(beams):
    gen = generator("amp", "surprise")
    part, noise_var = Dense(complex_normal((10, 20), gen, torch.complex128)), torch.tensor(0.1, dtype=torch.float64)
    x_pri = complex_normal((4, 3, 20), gen, torch.complex128)
    spread = torch.tensor([0.1, 5.0, 0.1], dtype=torch.float64)[:, None]  # the second block's error is no 0.1
    x = x_pri + spread.sqrt() * complex_normal((4, 3, 20), gen, torch.complex128)
    y = Kron(beams, part).apply(x) + complex_normal((4, 3, 10), gen, torch.complex128, noise_var)
    state = {"x_pri": x_pri, "v_pri": 0.1 * torch.ones(4, 3, 1, dtype=torch.float64), "count": torch.ones(4)}
    found = oamp._surprise(base.problem(Observation(y, Kron(beams, part), noise_var), None), state, noise_var)
    seen = Observation(beams.H.apply(y.mT).mT if isinstance(beams, Fourier) else y, part, noise_var)
    alone = {**state, "count": torch.ones(4, 3)}
    want = oamp._surprise(base.problem(seen, None), alone, noise_var)
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-12)
    assert bool((found[:, 1] > 10).all()) and bool((found[:, ::2] == 1).all())
    # one variance for all: one factor for all
    shared = oamp._surprise(
        base.problem(Observation(y, Kron(beams, part), noise_var), None),
        {**state, "v_pri": state["v_pri"][:, :1]},
        noise_var,
    )
    assert shared.shape == (4, 1, 1)
