"""`solve` and `track`: freezing, guards, states on disk, and what a wrong call is told."""

import pytest
import torch

import hhat
from hhat import registry
from hhat.methods.linear import LeastSquares
from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.priors import Gauss, bernoulli_gauss, covariance
from hhat.priors.generated import Linear
from hhat.random import complex_normal, generator
from hhat.types import Message, Observation, Status
from tests.contracts.test_distorted import takes_observation


def observe(noise_var=0.05, num=5):
    gen = generator("loops")
    op = Kron(Identity((2,)), Dense(complex_normal((8, 10), gen)))
    h = bernoulli_gauss(0.3, learnable=False).sample((num, 2, 10), gen)
    return h, Observation(op.apply(h) + complex_normal((num, 2, 8), gen, var=noise_var), op, noise_var)


def test_each_item_takes_the_steps_it_needs():
    _, obs = observe()
    est = hhat.solve(hhat.method("lasso"), obs)
    assert est.info["steps"].unique().numel() > 1
    worst = hhat.solve(hhat.method("lasso"), obs, max_steps=2)
    assert worst.status_counts() == {"MAX_STEPS": 5}


def test_no_convergence_is_claimed_while_the_noise_is_annealed():
    """At 60 dB the loops start at a noise level far above the given one."""
    slot = hhat.scenario("sparse-angular", num_rx_ant=4, num_tx_ant=16, num_pilots=12, snr_db=60.0).draw(
        20, generator("annealed")
    )
    prior = bernoulli_gauss(0.1, basis=Kron(Fourier(4), Fourier(16)), learnable=False)
    for name in ("oamp", "gamp"):
        short = hhat.solve(hhat.method(name, prior=prior), slot.obs)
        long = hhat.solve(hhat.method(name, prior=prior), slot.obs, tol=1e-14)
        error, best = ((e.belief.mean - slot.truth.h).abs().square().sum() for e in (short, long))
        assert error < 1.3 * best


def test_track_survives_a_lost_slot_and_says_so():
    _, obs = observe()
    lost = obs.y.clone()
    lost[1, 0, 0] = float("nan")
    slots = [obs, Observation(lost, obs.op, 0.05), obs]
    for name in ("ls", "lmmse", "oamp", "auto"):
        settings = {"prior": Gauss(1.0)} if name in ("lmmse", "diffusion-posterior", "experts-vb") else {}
        estimates = [est for _, est in hhat.track(hhat.method(name, **settings), slots)]
        assert estimates[1].status[1] == Status.NONFINITE and (estimates[1].status[[0, 2, 3, 4]] == Status.OK).all()
        assert all(torch.isfinite(est.belief.mean).all() for est in estimates)
        assert (estimates[2].status == Status.OK).all()


class Follower(LeastSquares):
    """A tracker for the tests: half of the last estimate and half of least squares."""

    tracks = True

    def step(self, state, obs):
        new = super().step(state, obs)
        return {**new, "h": 0.5 * state["h"] + 0.5 * new["h"]}


def test_a_tracker_resumes_from_a_file_bit_for_bit(tmp_path):
    _, obs = observe()
    slots = [Observation(obs.y * (1 + 0.3 * i), obs.op, 0.05) for i in range(4)]
    unbroken = list(hhat.track(Follower(), slots))
    assert not torch.allclose(unbroken[1][1].belief.mean, hhat.solve(hhat.method("ls"), slots[1]).belief.mean)
    for state, _ in hhat.track(Follower(), slots[:2]):
        hhat.save_state(tmp_path / "s", state)
    resumed = list(hhat.track(Follower(), slots[2:], hhat.load_state(tmp_path / "s")))
    for (_, whole), (_, part) in zip(unbroken[2:], resumed, strict=True):
        assert torch.equal(whole.belief.mean, part.belief.mean)


def test_a_tracker_keeps_its_state_through_a_lost_slot():
    _, obs = observe()
    lost = Observation(obs.y.clone().fill_(float("nan")), obs.op, 0.05)
    first, second, third = list(hhat.track(Follower(), [obs, lost, obs]))
    assert torch.equal(first[0]["h"], second[0]["h"]) and torch.isinf(second[1].belief.var).all()
    assert torch.isfinite(third[1].belief.mean).all()


@pytest.mark.parametrize("name", [name for name in registry.METHODS if takes_observation(name)])
def test_other_methods_solve_each_slot_on_its_own(name):
    settings = {"prior": Gauss(1.0)} if name in ("lmmse", "diffusion-posterior", "experts-vb", "ldamp") else {}
    settings = {"prior": Linear()} if name == "wgan" else settings
    if hhat.method(name, **settings).tracks:
        pytest.skip("carries knowledge from slot to slot")
    _, obs = observe()
    slots = [Observation(obs.y * (1 + i), obs.op, 0.05) for i in range(2)]
    _, (_, est) = hhat.track(hhat.method(name, **settings), slots)
    torch.testing.assert_close(est.belief.mean, hhat.solve(hhat.method(name, **settings), slots[1]).belief.mean)


def test_cached_factors_do_not_leak_shapes_or_values():
    _, obs = observe()
    prior = Gauss(torch.ones(2, 10))
    method = hhat.method("lmmse", prior=prior)
    hhat.solve(method, Observation(obs.y, obs.op, torch.full((5, 1, 1), 0.1)))
    hhat.solve(method, Observation(obs.y[:1], obs.op, torch.full((1, 1, 1), 0.1)))
    alone = hhat.solve(method, Observation(obs.y[0], obs.op, 0.1))
    assert alone.belief.mean.shape == (2, 10) and alone.info["log_evidence"].shape == ()
    other = hhat.solve(method, Observation(obs.y[0], obs.op, 0.5))
    assert not torch.allclose(alone.belief.var, other.belief.var)


def test_track_follows_the_slots():
    _, obs = observe()
    twice = Observation(2 * obs.y, obs.op, 0.2)
    first, second = (est for _, est in hhat.track(hhat.method("ls"), [obs, twice]))
    torch.testing.assert_close(second.belief.mean, 2 * first.belief.mean)


def test_generator_state_survives_a_file(tmp_path):
    gen = generator("saved")
    torch.rand(3, generator=gen)
    hhat.save_state(
        tmp_path / "s", {"gen": gen, "count": 3, "name": "x", "z": torch.ones(2, dtype=torch.complex128).conj()}
    )
    back = hhat.load_state(tmp_path / "s")
    assert torch.equal(torch.rand(4, generator=gen), torch.rand(4, generator=back["gen"]))
    assert back["count"] == 3 and back["name"] == "x" and back["z"].dtype == torch.complex128


def test_bad_state_files_are_named(tmp_path):
    (tmp_path / "text").write_text("hello")
    for path in (tmp_path / "missing", tmp_path / "text"):
        with pytest.raises(ValueError, match="state "):
            hhat.load_state(path)
    with pytest.raises(ValueError, match="no such folder"):
        hhat.save_state(tmp_path / "no" / "s", {})
    with pytest.raises(ValueError, match="'f' is a function"):
        hhat.save_state(tmp_path / "s", {"f": generator})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text"]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda y, op: Observation(y.real, op), "complex"),
        (lambda y, op: Observation(y[:0], op), "at least one item"),
        (lambda y, op: hhat.prior("gauss", var=float("inf")), "finite"),
        (lambda y, op: hhat.prior("gauss-mixture", weights=[1.0]), "as many weights"),
        (lambda y, op: hhat.prior("covariance", matrix=-torch.eye(3)), "semidefinite"),
        (lambda y, op: hhat.prior("covariance", matrix=torch.tensor([[1.0, 2], [0, 1]])), "Hermitian"),
        (lambda y, op: hhat.solve(hhat.method("oamp", average_axes=(0,)), Observation(y, op, 1.0)), "average_axes"),
        (
            lambda y, op: hhat.solve(hhat.method("oamp", prior=Gauss(tied_axes=(-9,))), Observation(y, op, 1.0)),
            "tied_axes",
        ),
        (lambda y, op: Observation(y[..., :3], op), "expected shape"),
        (lambda y, op: Observation(y, op, -1.0), "noise_var"),
        (lambda y, op: Observation(y, op, float("nan")), "noise_var"),
        (lambda y, op: Observation(y, op, torch.ones(3)), "does not fit"),
        (lambda y, op: Observation(y, op, 1j * torch.ones(())), "real"),
        (lambda y, op: Observation(y, op, 1.0, ("rx_ant",)), "axes"),
        (lambda y, op: Observation(y, op.dense()), "operator"),
        (lambda y, op: hhat.solve(hhat.method("sbl", tied_axes=("rx_ant",)), Observation(y, op)), "no named axes"),
        (lambda y, op: hhat.solve(hhat.method("sbl", tied_axes=(-3,)), Observation(y, op)), "tied_axes"),
        (
            lambda y, op: hhat.solve(hhat.method("lmmse", prior=Gauss(basis=Fourier(3))), Observation(y, op, 1.0)),
            "basis",
        ),
        (
            lambda y, op: hhat.solve(hhat.method("oamp", prior=Gauss(torch.ones(3))), Observation(y, op, 1.0)),
            "broadcasts",
        ),
        (lambda y, op: hhat.solve(hhat.method("ls"), Observation(y, op), max_steps=0), "max_steps"),
        (lambda y, op: hhat.method("omp", max_atoms=0).init(Observation(y, op), generator("x")), "max_atoms"),
        (lambda y, op: hhat.method("lasso", strength=0.0), "strength"),
        (lambda y, op: hhat.method("oamp", damping=2.0), "damping"),
    ],
)
def test_wrong_calls_are_named(make, word):
    _, obs = observe()
    with pytest.raises(ValueError, match=word):
        make(obs.y, obs.op)


def test_names_of_axes_need_a_basis_with_those_axes():
    _, obs = observe()
    named = Observation(obs.y, obs.op, 0.05, ("rx_ant", "tx_ant"))
    flat = covariance(torch.eye(20, dtype=torch.complex64), shape=(2, 10))
    with pytest.raises(ValueError, match="give numbers"):
        hhat.solve(
            hhat.method("sbl", prior=Gauss(basis=Dense(torch.eye(20) + 0j, (20,), (2, 10))), tied_axes=("rx_ant",)),
            named,
        )
    assert hhat.solve(hhat.method("lmmse", prior=flat), named).status_counts() == {"OK": 5}


def test_messages_multiply_and_divide():
    a = Message(torch.tensor([2.0, 0.0]), torch.tensor([1 + 1j, 0j]))
    b = Message(torch.tensor([1.0, 3.0]), torch.tensor([1j, 3 + 0j]))
    both = a + b
    torch.testing.assert_close(both.gaussian().mean, torch.tensor([(1 + 2j) / 3, 1 + 0j]))
    torch.testing.assert_close((both - b).precision, a.precision)
    back = both.gaussian().message()
    torch.testing.assert_close(back.shift, both.shift)
    assert torch.isfinite(a.gaussian(max_var=1e6).mean).all()


def test_statuses_say_what_to_do():
    assert all(len(status.text) > 5 for status in Status)


def test_auto_says_why():
    gen = generator("auto")
    y = complex_normal((2, 4, 64), gen)
    est = hhat.solve(hhat.method("auto"), Observation(y, Identity((4, 64)), 0.1, ("rx_ant", "subcarrier")))
    assert est.info["method"] == "sbl" and "delay" in est.info["why"]
    y = complex_normal((2, 16, 64), gen)
    est = hhat.solve(hhat.method("auto"), Observation(y, Identity((16, 64)), 0.1, ("rx_ant", "tx_ant")))
    assert est.info["method"] == "oamp" and "angle" in est.info["why"]
    est = hhat.solve(hhat.method("auto", prior=Gauss(1.0)), Observation(y, Identity((16, 64)), 0.1))
    assert est.info["method"] == "lmmse"


def test_items_that_end_early_are_set_aside_without_a_trace():
    """Noise levels 40 dB apart take very different numbers of steps; a batch of two axes keeps its shape."""
    gen = generator("aside")
    op = Dense(complex_normal((24, 40), gen) / 24**0.5)
    h = bernoulli_gauss(0.15, learnable=False).sample((8, 2, 40), gen)
    noise = torch.logspace(-4, 0, 8)[:, None, None]
    y = op.apply(h) + complex_normal((8, 2, 24), gen) * noise.sqrt()
    method = hhat.method("oamp", prior=bernoulli_gauss(0.15))
    together = hhat.solve(method, Observation(y, op, noise))
    assert together.info["steps"].unique().numel() > 3
    for i in range(8):
        alone = hhat.solve(method, Observation(y[i], op, noise[i]))
        assert torch.equal(alone.status, together.status[i])
        torch.testing.assert_close(together.belief.mean[i], alone.belief.mean, rtol=1e-3, atol=1e-3)
        assert (alone.info["steps"] - together.info["steps"][i]).abs().max() <= 2


def test_a_single_item_that_breaks_ends_with_a_status():
    matrix = complex_normal((8, 10), generator("single"))
    matrix[0, 0] = float("nan")
    est = hhat.solve(hhat.method("oamp"), Observation(torch.ones(8, dtype=torch.complex64), Dense(matrix), 0.1))
    assert int(est.status) == Status.NONFINITE and bool(torch.isfinite(est.belief.mean).all())
