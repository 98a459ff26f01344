"""`experts-vb`: which of several priors holds, and the channel under it, by turns."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hhat import registry
from hhat.methods.base import Method, noise_info, noise_of
from hhat.methods.covariance_mixture import CovarianceMixture
from hhat.methods.expert_choice import EvidenceStart, Judgement, Start, UniformStart, counted, expected_log
from hhat.methods.likelihood_steps import LikelihoodStep
from hhat.methods.rows import Rows
from hhat.methods.sampling import LIKELIHOODS, DiffusionPosterior
from hhat.methods.solve import solve
from hhat.ops.linalg import per_axis
from hhat.priors.base import Prior
from hhat.priors.blend import Blend
from hhat.priors.cdl_experts import PROFILES, cdl_experts
from hhat.priors.diffusion import Diffusion, names
from hhat.priors.expert import angles
from hhat.priors.experts import Experts, combined
from hhat.priors.gauss import Gauss
from hhat.priors.schedule import Schedule
from hhat.types import Estimate, Gaussian, Observation, State

LEAST_SHARE = 1e-3
"""q below which an expert that needs iterations is not asked (diffusion_experts section 3.3)"""
PACKAGE_SHAPE = (16, 64)
STARTS: dict[str, Start] = {"evidence": EvidenceStart(), "uniform": UniformStart()}


@dataclass(frozen=True, eq=False)
class ExpertsVb(Method):
    """q(h) q(z) q(pi) for h ~ p_z, z ~ pi, pi ~ Dirichlet(gamma_0), y = A h + n. Pass by pass:

      h    sum_k q_k mean_k, var by the law of total variance. Gaussian experts: mean_k is the exact posterior's. The
           others: each by `inner`, or together by `diffusion-posterior` with their denoisers averaged by q; those with
           q < 1e-3 are not run
      q_k  ~ exp( L_k + C_k + psi(gamma_k) - psi(sum gamma) ),   L_k + C_k: `Judgement` of the h found
      gamma = gamma_0 + q  (pool: + the sum of q over the batch)

    With the evidence start q is set once, before any network runs, and one pass is taken: with Gaussian experts alone
    that is `covariance-mixture`.
    prior:      `experts` of known priors of any kinds, or one prior. None: for 16 x 64 channels (rx, tx) the exact
                covariances of CDL-A to D, horizontal arrays facing each other. The package's networks of them
                (`package_experts(networks=True)`) are not there by default: no estimate was better with them
    start:      `EvidenceStart()`, `UniformStart()`, or "evidence", "uniform"
    inner:      prior -> method, or a method's name ("oamp"): solves each non-Gaussian expert alone. None: the sampler
    likelihood: step of the sampler, as in `diffusion-posterior`; without an `inner` alone
    judgement:  how an estimate weighs the experts from the second pass on; None: `Judgement()`
    pool:       one prevalence pi for all items of the batch: a cell
    max_steps:  passes; None is what the start says.  tol: on max |dq|
    gamma_0 is K times the weights of the experts: ones, where these are equal.
    Noise that is not given is learned first, by EM under the experts' Gaussian moments.
    info: names (K), q (*batch, K), gamma (*batch, K), passes (*batch), noise_var.
    Raises ValueError for learnable experts, and without a prior for other channels.
    Source: Jiang et al. 2026, algorithm 1, with an evidence start and any priors; diffusion_experts sections 3.3-3.6,
    10.3-10.5. Departs from it: no network with little q is run; two answers that alternate end where they are.
    """

    uses_prior: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    start: Start | str = "evidence"
    inner: Callable[[Prior], Method] | str | None = None
    likelihood: LikelihoodStep | str = "variance-map"
    judgement: Judgement | None = None
    pool: bool = False
    sampler_steps: int | None = None
    max_steps: int | None = None
    tol: float | None = 1e-3

    def __post_init__(self):
        for setting, there in (("start", STARTS), ("likelihood", LIKELIHOODS)):
            value = getattr(self, setting)
            if isinstance(value, str):
                if value not in there:
                    raise ValueError(f"experts-vb: {setting}: '{value}', expected one of {' '.join(there)}")
                object.__setattr__(self, setting, there[value])
        if isinstance(self.inner, str):
            made: Any = registry.load("methods", self.inner)
            if not getattr(made, "uses_prior", False):
                raise ValueError(f"experts-vb: inner: '{self.inner}' takes no prior; use oamp")
            object.__setattr__(self, "inner", made)
        if self.judgement is None:
            object.__setattr__(self, "judgement", Judgement())
        if self.max_steps is None:
            object.__setattr__(self, "max_steps", self.start.num_passes)  # type: ignore[union-attr]
        if self.prior is not None:
            whole = self.prior if isinstance(self.prior, Experts) else Experts((self.prior,), ndim=self.prior.ndim)
            if whole.learnable or any(expert.learnable for expert in whole.experts):
                raise ValueError("experts-vb: prior: expected known experts and weights, got learnable ones")
            object.__setattr__(self, "prior", whole)

    def resolve(self, obs: Observation) -> tuple["ExpertsVb", dict[str, str]]:
        if self.prior is not None:
            return self, {}
        if tuple(obs.op.in_shape) != PACKAGE_SHAPE:
            raise ValueError(
                f"experts-vb: prior: expected experts of channels {tuple(obs.op.in_shape)}; those of the package are "
                f"for {PACKAGE_SHAPE}"
            )
        return replace(self, prior=package_experts()), {"prior": "covariances of CDL-A to D"}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        shape, count = (*obs.batch_shape, *obs.op.in_shape), len(self._whole.experts)
        share = obs.y.real.new_full((*obs.batch_shape, count), 1 / count)
        state: State = {"mean": obs.y.new_zeros(shape), "var": obs.y.real.new_zeros(shape), "share": share}
        state |= {"gamma": share, "change": share.new_ones(obs.batch_shape), "count": 0}
        state["passes"] = torch.zeros(obs.batch_shape, dtype=torch.int32, device=obs.y.device)
        if obs.noise_var is None:
            state["noise_var"] = solve(self._gaussian, obs).info["noise_var"]
        return state

    def step(self, state: State, obs: Observation) -> State:
        noise = noise_of(state, obs)
        evidence, given = self._exact(noise, obs)
        share, gamma = state["share"], state["gamma"]
        if state["count"] == 0:
            share = self.start(evidence, self._concentration(evidence), self.pool)  # type: ignore[operator]
            gamma = counted(share, self._concentration(share), self.pool)
        belief = self._channel(share, given, noise, obs)
        fresh = share
        if self.max_steps > 1:  # type: ignore[operator]
            prior = self._whole.expand((), tuple(obs.op.in_shape), obs.y)
            said = self.judgement(belief.mean, prior, obs, noise, self._schedule)  # type: ignore[misc]
            fresh = (said + expected_log(gamma)).softmax(-1)
            gamma = counted(fresh, self._concentration(fresh), self.pool)
        change = (fresh - share).abs().amax(-1)
        if self.pool and change.numel():
            change = change.amax().expand(change.shape)
        moved = {"mean": belief.mean, "var": belief.var, "share": fresh, "gamma": gamma, "change": change}
        return {**state, **moved, "count": state["count"] + 1, "passes": state["passes"] + 1}

    def read(self, state: State, obs: Observation) -> Estimate:
        told = {"names": self._whole.names, "q": state["share"], "gamma": state["gamma"], "passes": state["passes"]}
        return Estimate(Gaussian(state["mean"], state["var"]), {**told, **noise_info(state, obs)})

    def _exact(self, noise: Tensor, obs: Observation) -> tuple[Tensor, Gaussian]:
        """log p_k(y) (*batch, K) and the posterior under each expert's Gaussian moments, K in front of the channel."""
        parts, count = self._gaussian.parts(noise, obs), len(obs.op.in_shape)
        y = obs.y.expand(*obs.batch_shape, *obs.op.out_shape)
        means, vars_, logs = [], [], []
        for part in parts:
            mean, evidence, _ = part(y)
            means.append(mean)
            logs.append(evidence.expand(mean.shape[: mean.ndim - count]))
            vars_.append(part.var.expand(*part.var.shape[: part.var.ndim - count], *obs.op.in_shape))
        order = torch.tensor([k for part in parts for k in part.group.index], device=y.device).argsort()
        place = y.ndim - len(obs.op.out_shape)
        mean, evidence = torch.cat(means, place), torch.cat(logs, place)
        var = torch.cat(vars_, -1 - count).index_select(-1 - count, order)
        return evidence.index_select(place, order), Gaussian(mean.index_select(place, order), var)

    def _channel(self, share: Tensor, given: Gaussian, noise: Tensor, obs: Observation) -> Gaussian:
        """E h and var h under q."""
        count = len(obs.op.in_shape)
        lift = (..., *(None,) * count)
        known = torch.tensor([isinstance(expert, Gauss) for expert in self._whole.experts], device=share.device)
        whole = (*obs.batch_shape, *obs.op.in_shape)
        if bool(known.all()):
            found = combined(share[lift], given.mean, given.var, -1 - count)
            return Gaussian(found.mean.expand(whole), found.var.expand(whole))
        active = (share >= LEAST_SHARE) & ~known
        share = torch.where(active | known, share, 0.0)
        share = share / share.sum(-1, keepdim=True)
        mean, var = share.new_zeros(whole, dtype=obs.y.dtype), share.new_zeros(whole)
        for pattern in active.reshape(-1, active.shape[-1]).unique(dim=0):
            if not bool(pattern.any()):
                continue
            wanted = (active == pattern).all(-1)
            rows = Rows.all(obs.op, obs.batch_shape).of(wanted)  # type: ignore[arg-type]
            part = self._sampled(rows, pattern.nonzero()[:, 0], share, noise, obs)
            where = wanted[lift]
            mean = torch.where(where, rows.put(mean, part.mean), mean)
            var = torch.where(where, rows.put(var, part.var), var)
        index = known.nonzero()[:, 0]
        pulled = given.var.index_select(-1 - count, index).expand(*obs.batch_shape, len(index), *obs.op.in_shape)
        means = torch.cat([given.mean.index_select(-1 - count, index), mean.unsqueeze(-1 - count)], -1 - count)
        vars_ = torch.cat([pulled, var.unsqueeze(-1 - count)], -1 - count)
        weights = torch.cat([share[..., index], torch.where(known, 0.0, share).sum(-1, keepdim=True)], -1)
        return combined(weights[lift], means, vars_, -1 - count)

    def _sampled(self, rows: Rows, index: Tensor, share: Tensor, noise: Tensor, obs: Observation) -> Gaussian:
        """The experts that need iterations, for some items: each by `inner`, or one reverse process together."""
        batch, out = obs.batch_shape, tuple(obs.op.out_shape)
        if noise.ndim > len(out) and noise.shape[: noise.ndim - len(out)].numel() > 1:
            noise = per_axis(noise, len(out), out)
            noise = rows.take(noise.expand(*batch, *noise.shape[noise.ndim - len(out) :]))
        there = Observation(rows.take(obs.y.expand(*batch, *out)), obs.op, noise, obs.axes)
        experts = [self._whole.experts[k] for k in index.tolist()]
        if self.inner is not None:
            each = [solve(self.inner(expert), there).belief for expert in experts]
            place = -1 - len(obs.op.in_shape)
            mean = torch.stack([x.mean for x in each], place)
            var = torch.stack([x.var.expand(x.mean.shape) for x in each], place)
            own = rows.take(share[..., index])
            own = own / own.sum(-1, keepdim=True).clamp_min(torch.finfo(own.dtype).tiny)
            return combined(own[(..., *(None,) * len(obs.op.in_shape))], mean, var, place)
        prior: Prior = experts[0]
        if len(experts) > 1:
            own = rows.take(share[..., index])
            own = own / own.sum(-1, keepdim=True).clamp_min(torch.finfo(own.dtype).tiny)
            prior = Blend(tuple(experts), own, len(obs.op.in_shape))
        schedule = self._schedule
        method = DiffusionPosterior(prior, self.likelihood, schedule, self.sampler_steps)
        state = method.init(there, torch.Generator())
        for _ in range(method.max_steps):  # type: ignore[arg-type]
            state = method.step(state, there)
        found = method.read(state, there).belief
        return Gaussian(found.mean, found.var.expand(found.mean.shape))

    @property
    def _whole(self) -> Experts:
        assert isinstance(self.prior, Experts)
        return self.prior

    def _concentration(self, like: Tensor) -> Tensor:
        return len(self._whole.experts) * self._whole.log_weights().to(like).exp()

    @property
    def _gaussian(self) -> CovarianceMixture:
        """Each expert by its mean and variance alone."""
        return CovarianceMixture(_twins(self._whole))

    @property
    def _schedule(self) -> Schedule:
        """That of the first network; the paper's where there is none."""
        for expert in self._whole.experts:
            if isinstance(expert, Diffusion) and expert.expert is not None:
                return expert.expert.schedule
        return Schedule()

    @classmethod
    def example(cls, gen: torch.Generator) -> "ExpertsVb":
        return cls(Experts.example(gen))


@functools.lru_cache(maxsize=8)
def _twins(prior: Experts) -> Experts:
    """One object per prior: factors are remembered by it."""
    if all(isinstance(expert, Gauss) for expert in prior.experts):
        return prior
    own = [expert if isinstance(expert, Gauss) else _twin(expert) for expert in prior.experts]
    return Experts(own, prior.weights, prior.names, ndim=prior.ndim)


def _twin(expert: Prior) -> Gauss:
    now = expert.moments()
    return Gauss(now.var, now.mean, expert.basis, ndim=expert.ndim)


@functools.cache
def package_experts(covariances: bool = True, networks: bool = False) -> Experts:
    """Exact covariances of CDL-A to D; behind them, or alone, the package's networks of these, as far as there are."""
    found: list[tuple[Prior, str]] = []
    if covariances:
        exact = cdl_experts(*PACKAGE_SHAPE)
        found += zip(exact.experts, exact.names, strict=True)
    bins, there = angles(PACKAGE_SHAPE), names()
    for profile in PROFILES:
        name = f"cdl-{profile.lower()}"
        if networks and name in there:
            found.append((Diffusion(name, bins), f"{name} diffusion"))
    if not found:
        raise ValueError("experts-vb: expected covariances or networks, got neither")
    return Experts([expert for expert, _ in found], names=[name for _, name in found], ndim=2)
