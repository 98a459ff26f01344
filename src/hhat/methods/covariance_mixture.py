"""`covariance-mixture`: the exact posterior where the channel is Gaussian with one of several covariances."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hhat.methods.base import (
    Method,
    Problem,
    learned_noise,
    noise_info,
    noise_of,
    problem,
    relative_change,
    start_noise,
)
from hhat.methods.expert_spectra import (
    ITEMS,
    LARGEST,
    Spectra,
    estimates,
    flat_noise,
    log_evidence,
    noise_step,
    path_p_value,
    received,
    scale_step,
    spectra,
    start_scale,
)
from hhat.methods.linear import remembered, rls
from hhat.methods.rows import Rows
from hhat.methods.solve import solve
from hhat.ops.base import LinearOp, cached
from hhat.ops.conditional import Conditional
from hhat.ops.linalg import per_axis, squared
from hhat.ops.posterior import condition
from hhat.priors.base import Prior
from hhat.priors.experts import Experts, Group, combined
from hhat.priors.gauss import Gauss
from hhat.types import Estimate, Gaussian, Observation, State

SLICE_ENTRIES = 1 << 23
"""Entries of the experts' estimates formed at a time (64 MB)."""
PENALTY = 0.2
"""Nats that a learned prior's evidence pays per coefficient that y determines. With 0.15 to 0.2 the combination
with the pattern-coupled prior was within 0.3 dB of the better of the two everywhere; 0.1 loses 0.6 dB on CDL-B."""
NONE_OF_THESE = "none of these"


class Judged(NamedTuple):
    """What the experts make of y, item by item."""

    share: Tensor
    """q_k = P(expert k | y), (*batch, K)"""
    log_evidence: Tensor
    """log p(y) under the mixture, (*batch)"""
    p_value: Tensor
    """P(a y of the most probable expert is as far out as this one), (*batch), float64"""
    p_path: Tensor | None = None
    """P(one of its y holds a plane wave as far beyond what it gives it), at most, (*batch), float64"""


@dataclass(frozen=True, eq=False)
class CovarianceMixture(Method):
    """h ~ sum_k w_k CN(m_k, C_k), y = A h + CN(0, S): Bayes-optimal, closed form, nothing iterates.

      q_k  ~ w_k CN(y; A m_k, S_k),  S_k = A C_k A^H + S          (exact evidence)
      mean = sum_k q_k mean_k,       mean_k: `lmmse` under expert k
      var  = sum_k q_k (var_k + |mean_k - mean|^2)                  (law of total variance)

    None of these, by two statistics of the most probable expert:
      d = (y - A m)^H S_k^-1 (y - A m) is Gamma(M, 1), M samples; p_value = 2 min(P(d' <= d), P(d' >= d))
      the strongest plane wave a over the channel's axes, max |a^H A^H S_k^-1 y|^2 / (a^H A^H S_k^-1 A a), each Exp(1):
      p_path (at most: the union over directions, each allowed SLACK times its variance); where `spectra` apply, else 1
    2 min(p_value, p_path) < false_alarm: "none of these". Of Gaussian channels of the experts' own at most the share
    `false_alarm` is called so; where parameters are estimated from few channels it is another.
    With an `otherwise` whose prior is learned (as pattern-coupled) that decides instead, as one more expert whose
    evidence pays PENALTY for each coefficient that the data determine:
      q_0 ~ p(y | variances learned) exp(-PENALTY gamma) / K,   gamma = sum_n (1 - var_n / prior var_n)
    and it takes part in mean and var with q_0; above 1/2: "none of these".

    prior:       `experts` of known Gaussian priors in any bases (a single Gaussian prior is one expert). None: `rls`.
    false_alarm: share of channels of the experts' own that may be called "none of these"
    otherwise:   a method for the items that are; None: they keep the mixture's estimate
    learn_scale: experts of the shapes C_k alone: h ~ CN(0, c C_k), c > 0 the most probable one, expert by expert and
                 item by item, by Fisher scoring (and the noise by EM, where it is not given). p_value then says less.
    Noise that is not given is found by EM on the mixture's evidence; then the p-value says less, as the noise takes up
    part of the misfit.
    info: names, probability (*batch, names; given that one holds), expert (*batch; index into names, -1: none of
    these), p_value, p_path, log_evidence, noise_var; otherwise (*batch; q_0), scale (*batch), where they apply. One
    factorisation per basis, operator and noise, remembered.
    Raises ValueError for experts that are not Gaussian or are learnable; with learn_scale for what `spectra` are not.
    Source: Bayes' rule; as the rival of Jiang et al. 2026: diffusion_experts sections 4.8 and 10.3.
    """

    uses_prior: ClassVar[bool] = True
    variance: ClassVar[str] = "posterior"
    prior: Prior | None = None
    false_alarm: float = 1e-3
    otherwise: Method | None = None
    learn_scale: bool = False
    max_steps: int = 100
    tol: float | None = 1e-4

    def __post_init__(self):
        if isinstance(self.prior, Experts) and not self.prior.gaussian:
            kinds = sorted({type(expert).__name__ for expert in self.prior.experts} - {"Gauss"}) or ["a learnable one"]
            raise ValueError(f"covariance-mixture: expected known Gaussian experts, got {' '.join(kinds)}")
        if self.prior is not None and not isinstance(self.prior, Experts | Gauss):
            raise ValueError(f"covariance-mixture: expected the prior experts, got {type(self.prior).__name__}")
        if not 0 <= self.false_alarm < 1:
            raise ValueError(f"covariance-mixture: false_alarm: expected 0 <= false_alarm < 1, got {self.false_alarm}")

    def resolve(self, obs: Observation) -> tuple[Method, dict[str, str]]:
        if self.prior is None or (isinstance(self.prior, Gauss) and self.prior.learnable):
            return rls().resolve(obs)[0], {"method": "rls", "why": "no experts were given"}
        if self.learn_scale and self._spectra(obs) is None:
            raise ValueError(
                "covariance-mixture: learn_scale: expected experts without means, one operator and one noise variance "
                f"per item, at most {LARGEST[0]} samples of {LARGEST[1]} unknowns"
            )
        return self, {}

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        state = {"change": obs.y.real.new_zeros(obs.batch_shape), **start_noise(obs)}
        if not self.learn_scale:
            return state
        energy = squared(self._known(obs).rotated(_flat(obs)))
        start = start_scale(energy, self._known(obs).power, flat_noise(noise_of(state, obs), obs))
        held = {"energy": energy, "start": start, "log_scale": start}
        return {**state, **{name: x.reshape(*obs.batch_shape, *x.shape[1:]) for name, x in held.items()}}

    def step(self, state: State, obs: Observation) -> State:
        if self.learn_scale:
            return self._scaled(state, obs)
        if obs.noise_var is not None:
            return state
        noise, terms, joint = state["noise_var"], [], []
        for group in self._groups(obs):
            task, lifted = self._task(group, obs), _lifted(noise, group, obs)
            given = condition(task.op, group.var, lifted, like=obs.y)
            shift, evidence = given(task.y - task.op.apply(_full(group.mean, task.op)))
            x = Gaussian(group.mean + shift, given.var)
            terms.append(stacked(learned_noise(task, x, group.var, lifted), group, len(obs.op.out_shape)))
            joint.append(stacked(evidence, group, 0))
        share = self._share(joint, obs)
        fresh = (share[(..., *(None,) * len(obs.op.out_shape))] * torch.cat(terms, share.ndim - 1)).sum(share.ndim - 1)
        return {**state, "noise_var": fresh, "change": relative_change(fresh, noise, len(obs.op.out_shape))}

    def read(self, state: State, obs: Observation) -> Estimate:
        belief, judged = self._mixed(state, obs)
        prior = self._prior(obs)
        probability = prior.by_name(judged.share)
        told = {"names": prior.labels, "probability": probability}
        told |= {"p_value": judged.p_value, "p_path": judged.p_path, "log_evidence": judged.log_evidence}
        told |= noise_info(state, obs)
        if self.learn_scale:
            told["scale"] = _chosen(state["log_scale"].exp(), judged.share)
        unknown = 2 * torch.minimum(judged.p_value, judged.p_path) < self.false_alarm
        words = f"p < {self.false_alarm:g}"
        fitted = self._fitted(obs)
        if fitted is not None:
            belief, chance, noise = weighed(fitted, belief, judged, len(prior.experts), obs)
            unknown, words, told["otherwise"] = chance > 0.5, "evidence", chance
            if obs.noise_var is None:
                told["noise_var"] = torch.where(
                    unknown[(..., *(None,) * len(obs.op.out_shape))], noise, told["noise_var"]
                )
        elif self.otherwise is not None and bool(unknown.any()):
            belief = self._replaced(belief, unknown, state, obs)
        if count := int(unknown.sum()):
            told["why"] = f"{NONE_OF_THESE}: {count} of {unknown.numel()} items fit no expert ({words})"
        return Estimate(belief, {**told, "expert": probability.argmax(-1).masked_fill(unknown, -1)})

    def _fitted(self, obs: Observation) -> Estimate | None:
        """The estimate of `otherwise` for all items, where it has learned a prior, whose evidence can be weighed."""
        prior = getattr(self.otherwise, "prior", None)
        if self.otherwise is None or not isinstance(prior, Prior) or not prior.learnable:
            return None
        found = solve(self.otherwise, obs)
        return found if isinstance(found.info.get("prior"), Prior) else None

    def _spectra(self, obs: Observation) -> Spectra | None:
        return spectra(obs, self._prior(obs))

    def _known(self, obs: Observation) -> Spectra:
        found = self._spectra(obs)
        assert found is not None
        return found

    def _scaled(self, state: State, obs: Observation) -> State:
        """Scales by Fisher scoring; noise that is not given by EM."""
        power, weights = self._known(obs).power, self._prior(obs).log_weights().to(obs.y.real)
        energy, start, log_scale = (
            _rows(state[name], n) for name, n in (("energy", 2), ("start", 1), ("log_scale", 1))
        )
        noise = flat_noise(noise_of(state, obs), obs)
        moved = scale_step(log_scale, start, energy, power, noise)
        signal = moved.exp()[..., None] * power
        share = (log_evidence(energy, received(signal, noise[..., None])) + weights).softmax(-1)
        change = (share * (moved - log_scale).square()).sum(-1)
        new = {**state, "log_scale": moved.reshape(state["log_scale"].shape)}
        if obs.noise_var is None:
            fresh = noise_step(share, energy, signal, noise)
            change = change + (fresh / noise).log().square()[:, 0]
            new["noise_var"] = fresh.reshape(state["noise_var"].shape)
        return {**new, "change": change.reshape(obs.batch_shape)}

    def _free(self, state: State, obs: Observation) -> tuple[Gaussian, Judged]:
        """`_mixed` with the scales that were learned."""
        spectrum, batch = self._known(obs), obs.batch_shape
        weights = self._prior(obs).log_weights().to(obs.y.real)
        y, noise, scale = _flat(obs), flat_noise(noise_of(state, obs), obs), _rows(state["log_scale"], 1).exp()
        pieces = zip(y.split(ITEMS), noise.split(ITEMS), scale.split(ITEMS), strict=True)
        found = []
        for piece, white, own in pieces:
            z = spectrum.rotated(piece)
            total = received(own[..., None] * spectrum.power, white[..., None])
            joint = log_evidence(squared(z), total) + weights
            share = joint.softmax(-1)
            distance = _chosen((squared(z) / total).sum(-1), share)
            belief = estimates(spectrum, share, z, own, total)
            found.append(
                (belief.mean, belief.var, share, joint.logsumexp(-1), p_of_distance(distance, piece.shape[-1]))
            )
        mean, var, share, evidence, p_value = (torch.cat(column) for column in zip(*found, strict=True))
        shape = (*batch, *obs.op.in_shape)
        told = Judged(share.reshape(*batch, -1), evidence.reshape(batch), p_value.reshape(batch))
        return Gaussian(mean.reshape(shape), var.reshape(shape)), told

    def _path(self, judged: Judged, state: State, obs: Observation) -> Judged:
        """With p_path, where the spectra apply."""
        spectrum = self._spectra(obs)
        if spectrum is None:
            return judged
        share = _rows(judged.share, 1)
        scale = _rows(state["log_scale"], 1).exp() if self.learn_scale else torch.ones_like(share)
        op: LinearOp = obs.op.like(obs.y)  # type: ignore[attr-defined]
        noise = flat_noise(noise_of(state, obs), obs)
        found = path_p_value(spectrum, op, _flat(obs), share.argmax(-1), _chosen(scale, share), noise)
        return judged._replace(p_path=found.reshape(obs.batch_shape))

    def judged(self, state: State, obs: Observation) -> Judged:
        """The experts' probabilities, the evidence and the p-values."""
        return self._mixed(state, obs)[1]

    def parts(self, noise: Tensor, obs: Observation) -> "list[Part]":
        """The experts, factored, basis by basis."""
        found = []
        for group in self._groups(obs):
            task = self._task(group, obs)
            given = self._given(group, task, noise, obs)
            found.append(Part(group, task, given, len(obs.op.in_shape), len(obs.op.out_shape)))
        return found

    def _replaced(self, belief: Gaussian, unknown: Tensor, state: State, obs: Observation) -> Gaussian:
        assert self.otherwise is not None
        rows = Rows.all(obs.op, obs.batch_shape).of(unknown)  # type: ignore[arg-type]
        shape = tuple(obs.op.out_shape)
        noise = per_axis(noise_of(state, obs), len(shape), shape)
        noise = rows.take(noise.expand(*obs.batch_shape, *noise.shape[noise.ndim - len(shape) :]))
        there = Observation(rows.take(obs.y.expand(*obs.batch_shape, *shape)), obs.op, noise, obs.axes)
        found = solve(self.otherwise, there).belief
        where = unknown[(..., *(None,) * len(obs.op.in_shape))]
        var = belief.var.expand(belief.mean.shape)
        return Gaussian(
            torch.where(where, rows.put(belief.mean, found.mean), belief.mean),
            torch.where(where, rows.put(var, found.var.expand(found.mean.shape)), var),
        )

    def _prior(self, obs: Observation) -> Experts:
        return self._made(obs)[0]

    def _groups(self, obs: Observation) -> list[Group]:
        real, device = obs.y.real.dtype, obs.y.device
        return [g._replace(var=g.var.to(device, real), mean=g.mean.to(obs.y)) for g in self._made(obs)[1]]

    def _made(self, obs: Observation) -> tuple[Experts, tuple[Group, ...]]:
        """The experts for this many channel axes, and their groups; made once per operator."""
        prior, count = self.prior, len(obs.op.in_shape)

        def make() -> tuple:
            whole = prior if isinstance(prior, Experts) else Experts((prior,))  # type: ignore[arg-type]
            whole = Experts(whole.experts, whole.weights, whole.names, whole.learnable, count)
            return prior, whole, whole.groups()

        return cached(obs.op, ("experts", id(prior)), make)[1:]  # type: ignore[arg-type]

    def _task(self, group: Group, obs: Observation) -> Problem:
        """y in the coefficients of a group; with several experts, y has their axis in front of its event axes."""
        task = problem(obs, Gauss(basis=group.basis))
        if len(group.index) == 1:
            return task
        y = obs.y.unsqueeze(obs.y.ndim - len(obs.op.out_shape))
        return replace(task, op=task.op.lift(1), y=y)

    def _given(self, group: Group, task: Problem, noise: Tensor, obs: Observation) -> Conditional:
        basis = task.basis
        if basis is not None and len(group.index) > 1:
            basis = basis.lift(1)

        def make() -> Conditional:
            return condition(task.op, group.var, _lifted(noise, group, obs), basis, like=obs.y)

        if obs.noise_var is None:
            return make()
        return remembered(task.op, self.prior, noise, obs.y, make)

    def _share(self, joint: list[Tensor], obs: Observation) -> Tensor:
        """P(expert | y), in the order of the groups."""
        order = [k for group in self._groups(obs) for k in group.index]
        weights = self._prior(obs).log_weights().to(joint[0])[..., order]
        return (torch.cat(joint, -1) + weights).softmax(-1)

    def _mixed(self, state: State, obs: Observation) -> tuple[Gaussian, Judged]:
        belief, judged = self._free(state, obs) if self.learn_scale else self._given_scale(state, obs)
        judged = self._path(judged._replace(p_path=torch.ones_like(judged.p_value)), state, obs)
        return belief, judged

    def _given_scale(self, state: State, obs: Observation) -> tuple[Gaussian, Judged]:
        groups, noise = self._groups(obs), noise_of(state, obs)
        parts = self.parts(noise, obs)
        weights = self._prior(obs).log_weights().to(obs.y.real)
        weights = weights[..., [k for group in groups for k in group.index]]
        batch, out = obs.batch_shape, tuple(obs.op.out_shape)
        y = obs.y.expand(*batch, *out)
        items = SLICE_ENTRIES // (len(self._prior(obs).experts) * math.prod((*obs.op.in_shape, *batch[1:])))
        shared = noise.numel() == 1 and weights.ndim == 1 and not obs.op.batch_shape  # type: ignore[attr-defined]
        pieces = y.split(max(1, items)) if batch and shared else (y,)
        found = [_slice(parts, piece, weights, math.prod(out)) for piece in pieces]
        belief, judged = (list(column) for column in zip(*found, strict=True))
        if len(found) == 1:
            mean, var, told = belief[0].mean, belief[0].var, judged[0]
        else:
            mean, var = torch.cat([b.mean for b in belief]), torch.cat([b.var for b in belief])
            told = Judged(*(torch.cat(column) for column in list(zip(*judged, strict=True))[:3]))
        order = torch.tensor([k for group in groups for k in group.index], device=y.device).argsort()
        told = told._replace(share=told.share[..., order])
        return Gaussian(mean.expand(*batch, *obs.op.in_shape), var.expand(*batch, *obs.op.in_shape)), told

    @classmethod
    def example(cls, gen: torch.Generator) -> "CovarianceMixture":
        return cls(Experts.example(gen))


@dataclass(frozen=True, eq=False)
class Part:
    """The experts of one basis, factored; what it answers has their axis K."""

    group: Group
    task: Problem
    given: Conditional
    num_event: int
    num_out: int

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Estimates (*batch, K, *event), log evidence and distances (*batch, K)."""
        group, op = self.group, self.task.op
        y = y if len(group.index) == 1 else y.unsqueeze(y.ndim - self.num_out)
        mean = _full(group.mean, op)
        moved = bool((group.mean != 0).any())
        shift, evidence = self.given(y - op.apply(mean) if moved else y)
        nearest = self.given(y.new_zeros(self.task.op.out_shape))[1]  # at distance 0
        evidence = stacked(evidence, group, 0)
        shift = stacked(shift, group, self.num_event)
        if moved:
            shift = shift + stacked(self.task.channel(mean), group, self.num_event)
        return shift, evidence, stacked(nearest, group, 0) - evidence

    @property
    def var(self) -> Tensor:
        return stacked(self.given.var, self.group, self.num_event)


def _slice(parts: list[Part], y: Tensor, weights: Tensor, samples: int) -> tuple[Gaussian, Judged]:
    each = [part(y) for part in parts]
    num_event = parts[0].num_event
    shifts, evidences, distances = zip(*each, strict=True)
    mean, evidence, distance = torch.cat(shifts, -1 - num_event), torch.cat(evidences, -1), torch.cat(distances, -1)
    vars_ = [part.var.expand(*part.var.shape[:-num_event], *mean.shape[-num_event:]) for part in parts]
    var = torch.cat(vars_, -1 - num_event)
    joint = evidence + weights
    share = joint.softmax(-1)
    belief = combined(share[(..., *(None,) * num_event)], mean, var, -1 - num_event)
    return belief, Judged(share, joint.logsumexp(-1), p_of_distance(_chosen(distance, share), samples))


def p_of_distance(distance: Tensor, samples: int) -> Tensor:
    """Two-sided p-value of Gamma(samples, 1), float64."""
    best = distance.double().clamp_min(0)
    count = torch.full_like(best, samples)
    below, above = torch.special.gammainc(count, best), torch.special.gammaincc(count, best)
    return (2 * torch.minimum(below, above)).clamp_max(1)


def _chosen(x: Tensor, share: Tensor) -> Tensor:
    """x (*batch, K) of the most probable expert."""
    return x.gather(-1, share.argmax(-1, keepdim=True))[..., 0]


def _rows(x: Tensor, event: int) -> Tensor:
    """The batch axes of x as one, also where there is none."""
    return x.reshape(-1, *x.shape[x.ndim - event :])


def _flat(obs: Observation) -> Tensor:
    """y, (n, M)."""
    shape = tuple(obs.op.out_shape)
    return obs.y.expand(*obs.batch_shape, *shape).reshape(-1, math.prod(shape))


def weighed(
    found: Estimate, belief: Gaussian, judged: Judged, count: int, obs: Observation
) -> tuple[Gaussian, Tensor, Tensor]:
    """The mixture of `count` experts with an estimate whose prior is learned as one more of weight 1 / (count + 1); its
    probability (*batch), and its noise. An estimate that is not finite has probability 0."""
    prior, noise = found.info["prior"], torch.as_tensor(found.info["noise_var"])
    task, now, event = problem(obs, prior), prior.moments(), obs.op.in_shape
    given = condition(task.op, now.var, noise, like=obs.y)
    evidence = given(obs.y - task.op.apply(_full(now.mean, task.op)))[1].expand(obs.batch_shape)
    tiny = torch.finfo(now.var.dtype).tiny
    known = (1 - given.var / now.var.clamp_min(tiny)).clamp(0, 1).expand(*obs.batch_shape, *task.op.in_shape)
    known = known.flatten(len(obs.batch_shape)).sum(-1)
    chance = (evidence - PENALTY * known - math.log(count) - judged.log_evidence).sigmoid()
    lift = (..., *(None,) * len(event))
    mean, var = found.belief.mean, found.belief.var.expand(found.belief.mean.shape)
    sound = torch.isfinite(mean).flatten(len(obs.batch_shape)).all(-1) & torch.isfinite(chance)
    chance = torch.where(sound, chance, 0.0)
    weights = torch.stack([1 - chance, chance], -1)[lift].movedim(len(obs.batch_shape), 0)
    means = torch.stack([belief.mean, torch.where(sound[lift], mean, 0)])
    vars_ = torch.stack([belief.var.expand(mean.shape), torch.where(sound[lift], var, 0)])
    return combined(weights, means, vars_, 0), chance, noise


def stacked(x: Tensor, group: Group, num_event: int) -> Tensor:
    """With an axis for the experts of the group in front of the event axes, where a single one has none."""
    return x if len(group.index) > 1 else x.unsqueeze(x.ndim - num_event)


def _lifted(noise: Tensor, group: Group, obs: Observation) -> Tensor:
    """Noise with an axis of size 1 for several experts behind its batch axes."""
    shape = tuple(obs.op.out_shape)
    noise = per_axis(noise, len(shape), shape)
    return noise if len(group.index) == 1 else noise.unsqueeze(noise.ndim - len(shape))


def _full(mean: Tensor, op: LinearOp) -> Tensor:
    count = len(op.in_shape)
    return mean.expand(*mean.shape[: max(0, mean.ndim - count)], *op.in_shape)
