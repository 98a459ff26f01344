"""Monte Carlo divergence against exact traces, autograd and posteriors in closed form."""

import torch

from hhat.priors.divergence import divergence, probe_for
from hhat.priors.mixture import bernoulli_gauss
from hhat.random import complex_normal, generator
from hhat.types import Gaussian

SHAPE = (3, 5)


def probes(num, shape=SHAPE):
    signs = 2 * torch.randint(0, 2, (2, num, *shape), generator=generator("probes")) - 1
    return torch.complex(*(signs.double() / 2**0.5))


def test_a_linear_denoiser_gives_the_trace_weighed_by_v():
    """Half of it also sees conj(r), which a circular probe must not count."""
    gen = generator("linear")
    first, second = (complex_normal((15, 15), gen, torch.complex128) for _ in range(2))
    v = torch.rand(SHAPE, generator=gen, dtype=torch.float64) + 0.1
    r = complex_normal(SHAPE, gen, torch.complex128)

    def denoise(r, v):
        flat = r.flatten(-2)
        return (flat @ first.mT + flat.conj() @ second.mT).unflatten(-1, SHAPE)

    found = divergence(denoise, r, v, probes(40000)).sum((-2, -1))
    want = float((v.flatten() * first.diagonal().real).sum())
    assert abs(float(found.mean()) - want) < 4 * float(found.std()) / 200
    assert float(found.std()) / 200 < 0.1 * abs(want) + 0.1


def test_a_network_gives_what_autograd_gives():
    """Convolutions with a soft nonlinearity: the exact trace, entry by entry by autograd, in double precision."""
    gen = generator("network")
    kernels = [torch.randn(shape, generator=gen).double() / 4 for shape in ((6, 2, 3, 3), (2, 6, 3, 3))]

    def denoise(r, v):
        x = torch.view_as_real(r).movedim(-1, -3)
        x = torch.tanh(torch.nn.functional.conv2d(x, kernels[0], padding=1))
        return torch.view_as_complex(torch.nn.functional.conv2d(x, kernels[1], padding=1).movedim(-3, -1).contiguous())

    r, v = complex_normal((1, *SHAPE), gen, torch.complex128), torch.tensor(0.3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: torch.view_as_real(denoise(torch.view_as_complex(x), v)), torch.view_as_real(r).contiguous()
    ).reshape(15, 2, 15, 2)
    want = 0.3 * float(torch.einsum("ncnc->", jacobian)) / 2  # Wirtinger: half of the sum over both planes
    found = divergence(denoise, r, v, probes(20000)).sum((-2, -1))
    assert abs(float(found.mean()) - want) < 4 * float(found.std()) / 20000**0.5 + 0.01 * abs(want)
    assert abs(want) > 20 * float(found.std()) / 20000**0.5


def test_one_probe_gives_the_variance_of_a_posterior():
    """Of a nonlinear prior known in closed form, in single precision, from sharp to flat noise; same for all items."""
    prior, gen = bernoulli_gauss(0.2, learnable=False), generator("posterior")
    shape = (16, 64)
    x = prior.sample((6, *shape), gen)
    for v in (1e-4, 0.03, 1.0, 30.0):
        var = torch.tensor(v)
        r = x + complex_normal(x.shape, gen, var=v)
        exact = prior.denoise(Gaussian(r, var)).var.mean((-2, -1))
        found = divergence(lambda r, v: prior.denoise(Gaussian(r, v)).mean, r, var, probe_for(shape, r)).mean((-2, -1))
        torch.testing.assert_close(found.mean(), exact.mean(), rtol=0.03, atol=0)
        assert float((found / exact - 1).abs().max()) < 0.35
    assert torch.equal(probe_for(shape, r), probe_for(shape, r)) and probe_for(shape, r).dtype == r.dtype
