"""What every registered method owes: found through the registry, set up by one small problem."""

from dataclasses import replace

import pytest
import torch

import hhat
from hhat import registry
from hhat.methods.base import Method
from hhat.ops import Dense, Identity, Kron
from hhat.priors import Experts, Gauss, bernoulli_gauss
from hhat.priors.generated import Linear
from hhat.random import complex_normal, generator
from hhat.types import Observation, Status
from tests.contracts.test_distorted import takes_observation

NAMES = [name for name in registry.METHODS if takes_observation(name)]  # others: test_sounding, test_distorted
SETTINGS = {
    "lmmse": {"prior": Gauss(1.3)},
    "covariance-mixture": {"prior": Experts((Gauss(0.3), Gauss(1.6)))},
    "experts-vb": {"prior": Experts((Gauss(0.3), bernoulli_gauss(0.3, var=2.0, learnable=False)))},
    "gamp": {"prior": bernoulli_gauss(0.3, var=2.0, learnable=False)},
    "oamp": {"prior": bernoulli_gauss(0.3, var=2.0, learnable=False)},
    "oamp-decentralised": {"prior": bernoulli_gauss(0.3, var=2.0, learnable=False)},
    "ldamp": {"prior": bernoulli_gauss(0.3, var=2.0, learnable=False)},
    "wgan": {"prior": Linear(), "strength": 1.0, "restarts": 2, "rate": 0.2, "max_steps": 70},
    "diffusion-posterior": {"prior": bernoulli_gauss(0.3, var=2.0, learnable=False)},
}
ATOMS = {"omp": 20, "polar-somp": 10}
"""All there are in the problem where all is seen: (2, 10) coefficients, 10 where the antennas of one end share them."""


def build(name: str, **more) -> Method:
    return hhat.method(name, **{**SETTINGS.get(name, {}), **more})


def observe(num=6, rows=8, columns=10, noise_var=0.05, dtype=torch.complex64, label="method"):
    gen = generator(label, rows, columns)
    a = complex_normal((rows, columns), gen, dtype) / rows**0.5
    h = bernoulli_gauss(0.3, learnable=False).sample((num, 2, columns), gen, dtype) if num else None
    op = Kron(Identity((2,)), Dense(a))
    y = op.apply(h) + complex_normal((num, 2, rows), gen, dtype, noise_var)
    return h, Observation(y, op, noise_var, ("rx_ant", "tx_ant"))


SOLVED: dict = {}


def solved(name: str, problem=observe):
    """What the method makes of the problem as it stands. Solving is pure (below): once for each setting is enough."""
    key = name, str(SETTINGS.get(name)), problem.__name__
    if key not in SOLVED:
        SOLVED[key] = hhat.solve(build(name), problem()[1])
    return SOLVED[key]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_shapes_dtypes_and_status(name, dtype):
    est = solved(name) if dtype == torch.complex64 else hhat.solve(build(name), observe(dtype=dtype)[1])
    assert est.belief.mean.shape == (6, 2, 10) and est.belief.mean.dtype == dtype
    assert est.belief.var.dtype == dtype.to_real()
    assert torch.broadcast_shapes(est.belief.var.shape, est.belief.mean.shape) == (6, 2, 10)
    assert est.status.shape == (6,) and bool((est.belief.var >= 0).all())
    assert est.info["noise_var_source"] == "given"


def test_its_example_runs(name):
    kind = registry.load("methods", name)
    if not hasattr(kind, "example"):
        pytest.skip("a name for another method's settings")
    _, obs = observe()
    assert hhat.solve(kind.example(generator("example")), obs).status_counts().keys() <= {"OK", "MAX_STEPS"}


def test_precisions_agree(name):
    _, single = observe(noise_var=0.2)
    double = Observation(single.y.to(torch.complex128), single.op, 0.2, single.axes)
    short, long = (hhat.solve(build(name), obs, max_steps=5, tol=-1.0) for obs in (single, double))
    scale = long.belief.mean.abs().max()
    assert (short.belief.mean.to(torch.complex128) - long.belief.mean).abs().max() / scale < 2e-3


def test_step_is_pure(name):
    _, obs = observe()
    method, _ = build(name).resolve(obs)
    state = method.init(obs, generator("pure"))
    before = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
    first, second = method.step(state, obs), method.step(state, obs)
    method.read(first, obs)
    for key, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, state[key]), key
    for key in first:
        if isinstance(first[key], torch.Tensor):
            assert torch.equal(first[key], second[key]), key


def test_state_leads_with_the_batch_and_survives_a_file(name, tmp_path):
    _, obs = observe()
    method, _ = build(name).resolve(obs)
    state = method.step(method.init(obs, generator("state")), obs)
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            assert value.shape[0] == 6, key
    # one that does not track solves each slot on its own: the state is a count, and two slots hold all there is
    num_slot = 4 if method.tracks else 2
    slots = [Observation(obs.y * (1 + 0.1 * i), obs.op, 0.05, obs.axes) for i in range(num_slot)]
    unbroken = []
    for count, (now, est) in enumerate(hhat.track(method, slots), 1):
        unbroken.append(est)
        if count == num_slot // 2:
            hhat.save_state(tmp_path / "s.safetensors", now)
    resumed = list(hhat.track(method, slots[num_slot // 2 :], hhat.load_state(tmp_path / "s.safetensors")))
    for whole, (_, part) in zip(unbroken[num_slot // 2 :], resumed, strict=True):
        assert torch.equal(whole.belief.mean, part.belief.mean)
        assert torch.equal(whole.belief.var, part.belief.var)


def test_batch_equals_loop(name):
    _, obs = observe()
    together = solved(name)
    for i in range(4):
        alone = hhat.solve(build(name), Observation(obs.y[i], obs.op, 0.05, obs.axes))
        assert alone.status.shape == ()
        torch.testing.assert_close(together.belief.mean[i], alone.belief.mean, rtol=1e-3, atol=1e-4)
        assert int(alone.status) == int(together.status[i])


def test_scaling_and_phase(name):
    """(y, s2, prior) -> (c y, |c|^2 s2, prior.scaled(c)) scales the estimate."""
    _, obs = observe()
    method = build(name)
    c = torch.tensor(37.0 * complex(0.6, 0.8), dtype=torch.complex64)
    prior = getattr(method, "prior", None)
    scaled = replace(method, prior=prior.scaled(c)) if prior is not None else method
    plain = solved(name)
    other = hhat.solve(scaled, Observation(c * obs.y, obs.op, 0.05 * float(c.abs()) ** 2, obs.axes))
    torch.testing.assert_close(other.belief.mean / c, plain.belief.mean, rtol=1e-3, atol=3e-4)
    var = torch.where(torch.isinf(plain.belief.var), 1.0, plain.belief.var)
    other_var = torch.where(torch.isinf(other.belief.var), 1.0, other.belief.var / float(c.abs()) ** 2)
    torch.testing.assert_close(other_var, var, rtol=2e-2, atol=1e-3)


def test_no_noise_and_all_seen_returns_the_channel(name):
    gen = generator("noiseless")
    a = torch.linalg.qr(complex_normal((10, 10), gen))[0]
    h = bernoulli_gauss(0.3, learnable=False).sample((4, 2, 10), gen, torch.complex64)
    op = Kron(Identity((2,)), Dense(a))
    settings = {"max_atoms": ATOMS[name]} if name in ATOMS else {}
    settings |= {"max_steps": 300, "restarts": 1} if name == "wgan" else {}  # by gradients alone
    est = hhat.solve(build(name, **settings), Observation(op.apply(h), op, 1e-9))
    assert hhat.nmse_db(est.belief.mean, h) < -60
    zero = hhat.solve(build(name, **settings), Observation(op.apply(h), op, 0.0))
    assert hhat.nmse_db(zero.belief.mean, h) < -60
    assert name == "lasso" or zero.status_counts() == {"OK": 4}  # without noise lambda is 0: no gap to close


def test_much_noise_returns_the_prior(name):
    if name in ("ls",):
        pytest.skip("least squares has no prior to fall back on")
    _, obs = observe()
    est = hhat.solve(build(name), Observation(obs.y, obs.op, 1e6, obs.axes))
    assert est.belief.mean.abs().max() < 0.3
    prior = getattr(build(name), "prior", None)
    if name in SETTINGS and prior is not None and build(name).variance != "none":
        want = prior.moments().var.expand(est.belief.mean.shape)
        torch.testing.assert_close(est.belief.var.expand(want.shape), want, rtol=1e-2, atol=0)


def batched(num=4, rows=8, columns=10):
    """An operator of its own per item."""
    gen = generator("batched")
    op = Kron(Identity((2,)), Dense(complex_normal((num, rows, columns), gen) / rows**0.5))
    h = bernoulli_gauss(0.3, learnable=False).sample((num, 2, columns), gen)
    return h, Observation(op.apply(h) + complex_normal((num, 2, rows), gen, var=0.05), op, 0.05, ("rx_ant", "tx_ant"))


def test_an_operator_per_item_equals_a_loop(name):
    _, obs = batched()
    together = solved(name, batched)
    for i in range(3):
        one = Kron(Identity((2,)), Dense(obs.op.right.matrix[i]))
        alone = hhat.solve(build(name), Observation(obs.y[i], one, 0.05, obs.axes))
        torch.testing.assert_close(together.belief.mean[i], alone.belief.mean, rtol=1e-3, atol=1e-3)


def test_nan_in_one_operator_marks_one_item(name):
    _, obs = batched()
    matrix = obs.op.right.matrix.clone()
    matrix[1, 0, 0] = float("nan")
    est = hhat.solve(build(name), Observation(obs.y, Kron(Identity((2,)), Dense(matrix)), 0.05, obs.axes))
    good = solved(name, batched)
    assert est.status[1] == Status.NONFINITE and torch.isfinite(est.belief.mean).all()
    torch.testing.assert_close(est.belief.mean[[0, 2, 3]], good.belief.mean[[0, 2, 3]], rtol=1e-3, atol=1e-3)
    assert (est.status[[0, 2, 3]] == good.status[[0, 2, 3]]).all()


def test_unknowns_that_are_not_seen(name):
    """Columns of zeros: finite, and nothing is claimed about them."""
    if name == "polar-somp":
        pytest.skip("its waves cross the antennas that are not seen")
    gen = generator("unseen")
    a = complex_normal((8, 12), gen)
    a[:, 6:] = 0
    op = Kron(Identity((2,)), Dense(a))
    h = complex_normal((5, 2, 12), gen)
    est = hhat.solve(build(name), Observation(op.apply(h) + complex_normal((5, 2, 8), gen, var=0.05), op, 0.05))
    assert Status.NONFINITE not in est.status.tolist() and torch.isfinite(est.belief.mean).all()
    assert est.belief.mean[..., 6:].abs().max() < 1e-3
    # these average variances over what the operator mixes: right in sum only
    averaging = ("ldamp", "oamp", "uamp", "auto", "hybrid", "sparse-tracking", "decentralised", "oamp-decentralised")
    averaging += ("autoregressive-tracking",)
    if name not in averaging:
        assert (est.belief.var.expand(h.shape)[..., 6:] > 0.1).all()


def test_equal_columns_stay_bounded(name):
    gen = generator("equal")
    a = complex_normal((8, 4), gen)
    op = Kron(Identity((2,)), Dense(torch.cat([a, a], 1)))
    h = complex_normal((50, 2, 8), gen)
    settings = {"max_atoms": 12} if name == "omp" else {}
    y = op.apply(h) + complex_normal((50, 2, 8), gen, var=1e-3)
    est = hhat.solve(build(name, **settings), Observation(y, op, 0.9e-3))
    assert est.belief.mean.abs().max() < 100


def test_a_bad_item_is_marked_and_leaves_the_others_alone(name):
    _, obs = observe()
    y = obs.y.clone()
    y[2, 0, 0] = complex(float("nan"), 0)
    y[4, 1, 3] = complex(float("inf"), 0)
    est = hhat.solve(build(name), Observation(y, obs.op, 0.05, obs.axes))
    good = solved(name)
    assert est.status[2] == est.status[4] == Status.NONFINITE
    assert torch.isfinite(est.belief.mean).all()
    assert torch.isinf(est.belief.var.expand(est.belief.mean.shape)[2]).all()
    keep = [0, 1, 3, 5]
    torch.testing.assert_close(est.belief.mean[keep], good.belief.mean[keep])
    assert (est.status[keep] == good.status[keep]).all()


def test_zero_observation_gives_a_finite_estimate(name):
    _, obs = observe()
    for noise_var in (0.05, 0.0, None):
        est = hhat.solve(build(name), Observation(torch.zeros_like(obs.y), obs.op, noise_var, obs.axes))
        assert torch.isfinite(est.belief.mean).all() and not torch.isnan(est.belief.var).any()


def test_one_antenna_one_pilot(name):
    y = torch.tensor([[[1.0 + 1j]]], dtype=torch.complex64)
    settings = {"max_atoms": 1} if name == "omp" else {}
    est = hhat.solve(build(name, **settings), Observation(y, Identity((1, 1)), 0.1, ("rx_ant", "tx_ant")))
    assert est.belief.mean.shape == (1, 1, 1) and torch.isfinite(est.belief.mean).all()


def test_unknown_noise_is_estimated_and_reported(name):
    h, obs = observe(num=20, rows=30, columns=12, noise_var=0.1)
    # spikes are no sum of few waves: all of them, then
    settings = {"max_atoms": 12} if name == "polar-somp" else {}
    est = hhat.solve(build(name, **settings), Observation(obs.y, obs.op, None, obs.axes))
    rough = name in ("omp", "polar-somp", "lasso", "wgan")  # a residual level, and said to be one
    assert est.info["noise_var_source"] == ("residual" if rough else "estimated")
    low, high = (0.03, 0.2) if rough else (0.07, 0.14)
    assert low < float(est.info["noise_var"].mean()) < high
    assert hhat.nmse_db(est.belief.mean, h) < -6


def test_variance_declaration_is_kept(name):
    method = build(name)
    var = solved(name).belief.var
    assert method.variance in ("posterior", "plug-in", "none")
    assert bool(torch.isinf(var).all()) == (method.variance == "none" or name == "ls")


def test_cuda_equals_cpu(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    _, obs = observe()
    there = Observation(obs.y.cuda(), obs.op.to("cuda"), 0.05, obs.axes)
    est = hhat.solve(build(name), there)
    assert est.belief.mean.device.type == "cuda"
    torch.testing.assert_close(est.belief.mean.cpu(), hhat.solve(build(name), obs).belief.mean, rtol=1e-3, atol=1e-3)


def test_unknown_setting_is_refused(name):
    with pytest.raises(ValueError, match="unknown setting 'no_such'"):
        hhat.method(name, no_such=1)


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match=r"unknown method 'lms'; there are: .*lmmse"):
        hhat.method("lms")
    with pytest.raises(ValueError, match="unknown prior"):
        hhat.prior("nothing")
