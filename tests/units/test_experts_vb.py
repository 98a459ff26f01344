"""`experts-vb` against the closed form, a dense density, its own loop, and limits; what `Judgement` weighs, by hand."""

import dataclasses
import math

import pytest
import torch

import hhat
from hhat.methods.expert_choice import EvidenceStart, Judgement, UniformStart
from hhat.methods.experts_vb import LEAST_SHARE, package_experts
from hhat.methods.likelihood_steps import Dmps
from hhat.methods.oamp import Oamp
from hhat.ops import Dense, Fourier, Identity, Kron
from hhat.priors import Experts, Gauss, bernoulli_gauss, covariance
from hhat.priors.blend import Blend, alike
from hhat.priors.schedule import Schedule
from hhat.random import complex_normal, generator
from hhat.types import Gaussian, Observation

SHAPE, PILOTS = (3, 5), 4
SPARSE, DENSE = (bernoulli_gauss(share, var=2.0, learnable=False) for share in (0.1, 0.7))


def observe(h, noise_var=0.05, label="observe"):
    gen = generator("experts-vb", label)
    op = Kron(Identity((SHAPE[0],)), Dense(complex_normal((PILOTS, SHAPE[1]), gen, h.dtype)))
    y = op.apply(h)
    return Observation(y + complex_normal(tuple(y.shape), gen, h.dtype, noise_var), op, noise_var, ("rx_ant", "tx_ant"))


def gaussian():
    gen = generator("experts-vb", "gaussian")
    size, bins = math.prod(SHAPE), Kron(Fourier(SHAPE[0]), Fourier(SHAPE[1]))
    root = complex_normal((size, 6), gen, torch.complex128)
    powers = [(k + 0.2) * torch.rand(SHAPE, generator=gen, dtype=torch.float64) for k in range(2)]
    own = [covariance(root @ root.mH / 6, shape=SHAPE), Gauss(powers[0], basis=bins), Gauss(powers[1], 0.3, bins)]
    return Experts(own, (0.2, 0.5, 0.3), ("full", "weak", "shifted"))


def draw(prior, num=12, dtype=torch.complex64, label="draw"):
    return prior.sample((num, *SHAPE), generator("experts-vb", label), dtype)


def vb(*experts, weights=None, **settings):
    return hhat.method("experts-vb", prior=Experts(experts, weights, ndim=2), **settings)


def test_gaussian_experts_alone_are_the_closed_form_mixture():
    prior = gaussian()
    obs = observe(draw(prior, 40, torch.complex128), 3.0)
    want = hhat.solve(hhat.method("covariance-mixture", prior=prior), obs)
    found = hhat.solve(hhat.method("experts-vb", prior=prior), obs)
    assert 0.05 < want.info["probability"].min(-1).values.max()  # q matters
    torch.testing.assert_close(found.info["q"], want.info["probability"], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.belief.mean, want.belief.mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.belief.var, want.belief.var, rtol=1e-12, atol=1e-14)
    assert found.info["names"] == prior.names and bool((found.info["passes"] == 1).all())
    torch.testing.assert_close(found.info["gamma"], 3 * prior.weights.double() + found.info["q"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("start", ["evidence", "uniform"])
@pytest.mark.parametrize("likelihood", ["variance-map", "dmps"])
def test_equal_experts_share_q_and_give_what_one_gives(start, likelihood):
    obs = observe(draw(SPARSE, dtype=torch.complex128))
    alone = hhat.solve(hhat.method("diffusion-posterior", prior=SPARSE, likelihood=likelihood), obs)
    for count in (1, 3):
        est = hhat.solve(vb(*[SPARSE] * count, start=start, likelihood=likelihood), obs)
        torch.testing.assert_close(est.info["q"], torch.full((12, count), 1 / count, dtype=torch.float64))
        torch.testing.assert_close(est.belief.mean, alone.belief.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(est.belief.var, alone.belief.var.expand(12, *SHAPE), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("start", ["evidence", "uniform"])
def test_permuted_experts_permute_q(start):
    own = (SPARSE, Gauss(0.7), DENSE)
    obs, turn = observe(draw(DENSE)), [2, 0, 1]
    one = hhat.solve(vb(*own, start=start), obs)
    two = hhat.solve(vb(*[own[k] for k in turn], start=start), obs)
    torch.testing.assert_close(two.info["q"], one.info["q"][:, turn], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(two.belief.mean, one.belief.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(two.belief.var, one.belief.var, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", ["evidence", "uniform"])
def test_a_batch_gives_what_its_items_give_alone(start):
    method = vb(SPARSE, Gauss(1.2), DENSE, start=start)
    obs = observe(draw(Experts((SPARSE, DENSE), ndim=2)))
    together = hhat.solve(method, obs)
    assert len({tuple(row) for row in (together.info["q"] >= LEAST_SHARE).tolist()}) > 1 or start == "uniform"
    for i in range(12):
        alone = hhat.solve(method, dataclasses.replace(obs, y=obs.y[i]))
        torch.testing.assert_close(alone.info["q"], together.info["q"][i], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(alone.belief.mean, together.belief.mean[i], rtol=1e-3, atol=1e-4)
        assert int(alone.info["passes"]) == int(together.info["passes"][i])


def test_a_gaussian_beside_another_is_mixed_by_the_law_of_total_variance():
    obs, own = observe(draw(SPARSE), 1.0), (Gauss(0.2), SPARSE)
    est = hhat.solve(vb(*own), obs)
    q = est.info["q"][..., None, None]
    assert 0.01 < float(est.info["q"].min(-1).values.max())
    each = [
        hhat.solve(hhat.method("lmmse", prior=own[0]), obs).belief,
        hhat.solve(hhat.method("diffusion-posterior", prior=SPARSE), obs).belief,
    ]
    mean = sum(q[:, k] * x.mean for k, x in enumerate(each))
    second = sum(q[:, k] * (x.var + x.mean.abs().square()) for k, x in enumerate(each))
    torch.testing.assert_close(est.belief.mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(est.belief.var, second - mean.abs().square(), rtol=1e-3, atol=1e-5)


def test_another_inner_method_solves_each_expert_alone():
    obs, own = observe(draw(SPARSE), 1.0), (Gauss(0.2), SPARSE, DENSE)
    est = hhat.solve(vb(*own, inner="oamp"), obs)
    q = est.info["q"]
    assert 0.01 < float(q.sort(-1).values[:, 1].max())
    q = torch.where((q < LEAST_SHARE) & torch.tensor([False, True, True]), 0.0, q)  # not asked
    q = (q / q.sum(-1, keepdim=True))[..., None, None]
    each = [
        hhat.solve(hhat.method("lmmse", prior=own[0]), obs).belief,
        *(hhat.solve(Oamp(prior), obs).belief for prior in own[1:]),
    ]
    mean = sum(q[:, k] * x.mean for k, x in enumerate(each))
    second = sum(q[:, k] * (x.var + x.mean.abs().square()) for k, x in enumerate(each))
    torch.testing.assert_close(est.belief.mean, mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(est.belief.var, second - mean.abs().square(), rtol=1e-3, atol=1e-4)


class Counting(Gauss):
    """CN(0, var) that is not known to be Gaussian, and counts what it is asked."""

    def denoise(self, r):
        ASKED.append(r.mean.shape[0])
        return super().denoise(r)


ASKED: list[int] = []


def test_what_has_no_share_costs_nothing(monkeypatch):
    from hhat.methods import experts_vb

    monkeypatch.setattr(experts_vb, "Gauss", type("Nothing", (), {}))  # none counts as closed form
    monkeypatch.setattr(experts_vb, "_twin", lambda expert: Gauss(expert.var, expert.mean))
    ASKED.clear()
    obs = observe(torch.cat([draw(Gauss(100.0), 3), draw(Gauss(0.01), 2)]), 1e-3)
    method = vb(Gauss(0.01), Counting(100.0))
    est = hhat.solve(method, obs)
    assert bool((est.info["q"][:3, 1] > 1 - LEAST_SHARE).all()) and bool((est.info["q"][3:, 1] < LEAST_SHARE).all())
    assert ASKED and set(ASKED) == {3}


def test_the_bound_tracks_the_exact_density():
    """Oracle 8.9: bound of CN(0, 2) over CN(0, 0.5) against its exact log ratio, all t = 2..T."""
    prior = Experts((Gauss(2.0), Gauss(0.5)), ndim=2)
    h = Experts((Gauss(2.0), Gauss(0.5)), ndim=2).sample((400, *SHAPE), generator("bound"), torch.complex128)
    judge = Judgement(nodes=tuple(range(2, 101)), consistency=0)
    found = judge.bound(h, prior, Schedule())
    exact = [-math.prod(SHAPE) * math.log(v) - h.abs().square().sum((-2, -1)) / v for v in (2.0, 0.5)]
    one, two = found[:, 0] - found[:, 1], exact[0] - exact[1]
    assert float(torch.corrcoef(torch.stack([one, two]))[0, 1]) > 0.9
    slope = float(((one - one.mean()) * (two - two.mean())).sum() / (two - two.mean()).square().sum())
    assert 0.85 < slope < 1.2


def test_few_nodes_by_bins_keep_the_weight_of_all_steps():
    schedule = Schedule()
    whole = dict(Judgement(tuple(range(2, 101)), "printed").weighed(schedule))
    kept = schedule.kept
    for t in (2, 20, 100):  # the formula, by hand
        alpha = float(kept[t - 1] / kept[t - 2])
        assert whole[t] == pytest.approx((1 - alpha) / (alpha * (1 - float(kept[t - 2]))))
    bins, even, printed = (dict(Judgement(weights=w).weighed(schedule)) for w in ("bins", "even", "printed"))
    assert sum(bins.values()) == pytest.approx(sum(whole.values()))
    assert printed == {t: whole[t] for t in printed} and set(bins) == set(even) == set(printed)
    assert all(even[t] == pytest.approx(100 / 8 * printed[t]) for t in even)
    # steps 2..7 are nearest to node 5
    assert bins[5] == pytest.approx(sum(whole[t] for t in range(2, 8)))


def test_the_prevalence_of_a_cell_counts_every_channel_once():
    own = (Gauss(1.0), Gauss(1.6))
    obs = observe(draw(own[0], 200), 1.0)
    apart, pooled = (hhat.solve(vb(*own, pool=pool), obs) for pool in (False, True))
    torch.testing.assert_close(pooled.info["gamma"][0], 1 + pooled.info["q"].sum(0), rtol=1e-3, atol=1e-2)
    assert float(pooled.info["gamma"].sum(-1)[0]) == pytest.approx(202, rel=1e-3)
    assert float(apart.info["gamma"].sum(-1)[0]) == pytest.approx(3)
    # all came from the first: the cell learns that
    assert float(pooled.info["q"][:, 0].mean()) > float(apart.info["q"][:, 0].mean()) + 0.1


def test_passes_from_a_uniform_start_do_not_count_a_channel_twice():
    est = hhat.solve(vb(SPARSE, DENSE, start=UniformStart()), observe(draw(SPARSE)))
    assert 1 < int(est.info["passes"].max()) <= 5
    torch.testing.assert_close(est.info["gamma"], 1 + est.info["q"], rtol=1e-5, atol=1e-5)


def test_a_blend_averages_and_follows_another_basis():
    gen = generator("blend")
    bins, r = Kron(Fourier(3), Fourier(5)), Gaussian(complex_normal((4, *SHAPE), gen), torch.tensor(0.3))
    share = torch.rand(4, 1, generator=gen)
    share = torch.cat([share, 1 - share], -1)
    one, two = Gauss(0.5, ndim=2), Gauss(3.0, basis=bins)
    found = Blend((one, two), share, 2).denoise(r)
    want = [one.denoise(r).mean, Gauss(3.0, ndim=2).denoise(r).mean]  # white: the same in any unitary basis
    torch.testing.assert_close(found.mean, sum(share[:, k, None, None] * want[k] for k in range(2)))
    assert alike(bins, Kron(Fourier(3), Fourier(5))) and not alike(bins, None) and alike(None, Identity(SHAPE))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prior": bernoulli_gauss(0.3)}, "expected known experts"),
        ({"prior": Gauss(1.0), "start": "guess"}, "start: 'guess', expected one of evidence uniform"),
        ({"prior": Gauss(1.0), "likelihood": "none"}, "likelihood: 'none'"),
        ({"prior": Gauss(1.0), "inner": "ls"}, "inner: 'ls' takes no prior"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        hhat.method("experts-vb", **settings)
    with pytest.raises(ValueError, match="weights: expected one of"):
        Judgement(weights="all")
    with pytest.raises(ValueError, match=r"steps in 2\.\.100"):
        Judgement(nodes=(1,))


def test_without_a_prior_it_says_for_which_channels_it_has_one():
    with pytest.raises(ValueError, match=r"expected experts of channels \(3, 5\)"):
        hhat.solve(hhat.method("experts-vb"), observe(draw(SPARSE)))


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["A", "B", "C", "D"])
@pytest.mark.parametrize("alpha", [0.3, 0.6])
def test_evidence_finds_the_profile_with_and_without_networks(profile, alpha):
    """Oracle 8.10, at its lowest SNR; without networks the default is the closed form."""
    scene = hhat.scenario("cdl", profile=profile, pilot_ratio=alpha, snr_db=0.0)
    slot = scene.draw(25, generator("experts-vb", "profiles", profile))
    for own in (package_experts(), package_experts(networks=True), package_experts(False, True)):
        if f"cdl-{profile.lower()}" not in {name.split()[0] for name in own.names}:
            continue  # its network is not trained yet
        est = hhat.solve(hhat.method("experts-vb", prior=own), slot.obs)
        assert {own.names[k].split()[0] for k in est.info["q"].argmax(-1).tolist()} == {f"cdl-{profile.lower()}"}
    closed = hhat.solve(hhat.method("covariance-mixture", prior=package_experts()), slot.obs)
    default = hhat.solve(hhat.method("experts-vb"), slot.obs)
    torch.testing.assert_close(default.belief.mean, closed.belief.mean, rtol=1e-4, atol=1e-5)


def test_starts_and_steps_are_objects():
    method = vb(SPARSE, start=EvidenceStart(), likelihood=Dmps(residual="ht"), max_steps=3)
    assert method.max_steps == 3 and vb(SPARSE).max_steps == 1 and vb(SPARSE, start="uniform").max_steps == 5
