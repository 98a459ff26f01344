"""`decentralised`: units estimate their own antennas, a centre puts the estimates together and refines them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hhat.decentralized.execute import Executor, Serial
from hhat.decentralized.feedback import CovarianceFeedback, FeedbackWork
from hhat.decentralized.refine import Centre, ReportedNoise
from hhat.decentralized.split import joined, pieces, split, unit_count, without_units
from hhat.decentralized.units import Job, Lost, Message, Unit, UnitsLostError
from hhat.decentralized.uploads import EstimateUpload, ExtrinsicUpload, LocalWork, PosteriorUpload, RawUpload, Upload
from hhat.methods.auto import Auto
from hhat.methods.base import Method, noise_info
from hhat.methods.solve import solve
from hhat.ops.base import LinearOp, cached
from hhat.priors.m_step import PatternCoupling
from hhat.types import Estimate, Gaussian, Observation, State, Status

DEFAULT_UNIT = Auto()
EXTRINSIC, POSTERIOR = ExtrinsicUpload(), PosteriorUpload()
DEFAULT_CENTRE = ReportedNoise(PatternCoupling())
SERIAL = Serial()


@dataclass(frozen=True, eq=False)
class Decentralised(Method):
    """Units -> upload -> centre: y = (y_1, .., y_M), y_m = A_m h_m + n_m, where h = (h_1, .., h_M) antenna by antenna.

      unit m:  x_m = unit(y_m),   sends upload(x_m);     centre:  h = centre(upload_1, .., upload_M)

    unit:     any method, in the unit's own basis; none: `auto`
    upload:   `ExtrinsicUpload`, `PosteriorUpload`, `TopUpload`, each with its quantiser; with `RawUpload` the pilots
              are sent and its own method runs at the centre, on what all units saw. None: the first that fits `unit`
    centre:   `ReportedNoise`, `Literal`, or `Concatenate`; none: `ReportedNoise(PatternCoupling())`, measured best;
              the paper's is `ReportedNoise()` or `Literal()` behind `PosteriorUpload()`. Unused with raw pilots
    feedback: `CovarianceFeedback`: the centre returns what the whole array resolved, the units estimate and upload once
              more. None: no feedback. Unused where there is nothing to feed back into: raw pilots, paths
    num_unit: none: as many as the operator has diagonal blocks over antennas, else one
    executor: `Serial` (none), `Processes`, `RayUnits`: equal to the bit
    A unit that fails, sends what is not finite or of a wrong shape, or misses the executor's deadline is lost: the
    status is DEGRADED, info says which and why, and the centre works with what is there. UnitsLostError where none is.
    One lost in a round of feedback keeps the estimate from before it.
    info: lost_units (*batch, unit; in any round), lost_why, fronthaul_bits_up and fronthaul_bits_down (per unit and
    item, all rounds), fronthaul_bits_per_sample (both, per pilot resource element, exact). A unit that ends without
    converging is not marked.
    Source: Tang et al. 2025, Fig. 2 and Algorithms 1-2.
    """

    variance: ClassVar[str] = "posterior"
    unit: Any = None
    upload: Upload | None = None
    centre: Centre | None = None
    feedback: CovarianceFeedback | None = None
    num_unit: int | None = None
    executor: Executor | None = None
    max_steps: int = 1
    tol: float | None = None

    def init(self, obs: Observation, gen: torch.Generator) -> State:
        num_unit = self._num_unit(obs)
        split(obs, num_unit)  # refuses what has no units
        mean = obs.y.new_zeros(*obs.batch_shape, *obs.op.in_shape)
        unknown = torch.ones_like(mean, dtype=torch.bool)
        lost = unknown.new_ones(*obs.batch_shape, num_unit)
        state: State = {"h": mean, "var": torch.zeros_like(mean.real), "unknown": unknown, "lost": lost, "why": ""}
        state["missed"] = torch.zeros_like(lost)
        state["change"] = mean.real.new_ones(obs.batch_shape)
        if obs.noise_var is None:
            state["noise_var"] = mean.real.new_zeros(*obs.batch_shape, *(1,) * len(obs.op.out_shape))
        return state

    def step(self, state: State, obs: Observation) -> State:
        num_unit = self._num_unit(obs)
        parts = split(obs, num_unit)
        upload = self._upload(parts[0])
        units = self._units(obs, num_unit, upload)
        answers = (self.executor or SERIAL).ask(units, [request_of(part) for part in parts])
        why = lost_words(answers)
        if isinstance(upload, RawUpload):
            found, lost, noise = self._from_pilots(upload, answers, parts, obs)
        else:
            assert isinstance(upload, EstimateUpload)
            found, lost, noise = self._from_estimates(upload, answers, parts, obs)
        missed = torch.zeros_like(lost)
        if isinstance(upload, EstimateUpload) and self._feeds_back(upload):
            found, missed, noise, words = self._fed_back(upload, units, parts, obs, found, noise)
            why = "; ".join(word for word in (why, words) if word)
        infinite = torch.isinf(found.var)
        new: State = {
            "h": found.mean,
            "var": torch.where(infinite, 0.0, found.var),
            "unknown": infinite,
            "lost": lost,
            "missed": missed,
            "why": why,
            "change": torch.zeros_like(state["change"]),
        }
        if obs.noise_var is None:
            assert noise is not None
            new["noise_var"] = noise
        return new

    def read(self, state: State, obs: Observation) -> Estimate:
        part = split(obs, self._num_unit(obs))[0]
        upload = self._upload(part)
        up, down = upload.count_bits(part, self.unit or DEFAULT_UNIT), 0
        if self.feedback is not None and self._feeds_back(upload):
            up *= 1 + self.feedback.rounds
            down = self.feedback.rounds * self.feedback.count_bits(part, tuple(obs.op.in_shape))
        info = {
            **lost_info(state),
            "lost_units": state["lost"] | state["missed"],
            "fronthaul_bits_up": up,
            "fronthaul_bits_down": down,
            "fronthaul_bits_per_sample": (up + down) / math.prod(part.op.out_shape),
            **noise_info(state, obs),
        }
        var = torch.where(state["unknown"], torch.inf, state["var"])
        status = lost_status(state).masked_fill(state["missed"].any(-1), int(Status.DEGRADED))
        return Estimate(Gaussian(state["h"], var), info, status)

    def _num_unit(self, obs: Observation) -> int:
        return unit_count(obs.op) if self.num_unit is None else self.num_unit  # type: ignore[arg-type]

    def _upload(self, part: Observation) -> Upload:
        if self.upload is not None:
            return self.upload
        shrinks = (self.centre or DEFAULT_CENTRE).shrinks
        return EXTRINSIC if shrinks and EXTRINSIC.fits(self.unit or DEFAULT_UNIT, part) else POSTERIOR

    def _units(self, obs: Observation, num_unit: int, upload: Upload) -> tuple[Unit, ...]:
        method, shape = self.unit or DEFAULT_UNIT, tuple(obs.op.in_shape)
        if self.feedback is None or not self._feeds_back(upload):
            jobs: list[LocalWork] = [LocalWork(method, upload)] * num_unit
        else:
            jobs = [FeedbackWork(method, upload, self.feedback, place, num_unit, shape) for place in range(num_unit)]
        return units_of(obs, jobs, (method, upload, self.feedback))

    def _feeds_back(self, upload: Upload) -> bool:
        return self.feedback is not None and isinstance(upload, EstimateUpload) and upload.carries

    def _fed_back(
        self,
        upload: EstimateUpload,
        units: tuple[Unit, ...],
        parts: tuple[Observation, ...],
        obs: Observation,
        found: Gaussian,
        noise: Tensor | None,
    ) -> tuple[Gaussian, Tensor, Tensor | None, str]:
        """Beliefs after the rounds of feedback, which units missed any, the noise, and why they did."""
        assert self.feedback is not None
        method, num, batch = self.unit or DEFAULT_UNIT, len(obs.op.in_shape), obs.batch_shape
        missed = torch.zeros(*batch, len(parts), dtype=torch.bool, device=obs.y.device)
        words: list[str] = []
        for _ in range(self.feedback.rounds):
            # an item that no unit solved has nothing to feed back; it ends as it was
            down = self.feedback.send(torch.nan_to_num(found.mean), obs.axes, num)
            if noise is not None:
                down["told_noise"] = noise.flatten(len(batch))[..., 0].contiguous()
            answers = (self.executor or SERIAL).ask(units, [{**request_of(part), **down} for part in parts])
            means, variances = list(pieces(found.mean, len(parts), num)), list(pieces(found.var, len(parts), num))
            told: list[Tensor] = []
            for i, answer in enumerate(answers):
                if isinstance(answer, Lost):
                    words.append(f"feedback: unit {i}: {answer.why}")
                    missed[..., i] = True
                    continue
                item = upload.receive(answer, parts[i], method)
                here = (item.ok & torch.isfinite(means[i]).flatten(len(batch)).all(-1))[(..., *(None,) * num)]
                means[i] = torch.where(here, item.mean, means[i])
                variances[i] = torch.where(here, item.var[(..., *(None,) * num)], variances[i])
                missed[..., i] |= ~item.ok
                if item.noise_var is not None:
                    told.append(item.noise_var)
            found = Gaussian(joined(means, num), joined(variances, num))
            if told:
                noise = torch.stack(told, -1).mean(-1)[(..., *(None,) * len(obs.op.out_shape))]
        return found, missed, noise, "; ".join(words)

    def _from_pilots(
        self, upload: RawUpload, answers: list[Message | Lost], parts: tuple[Observation, ...], obs: Observation
    ) -> tuple[Gaussian, Tensor, Tensor | None]:
        kept = tuple(i for i, answer in enumerate(answers) if not isinstance(answer, Lost))
        seen = [upload.received(answers[i], parts[i]) for i in kept]  # type: ignore[arg-type]
        rows, noise = len(obs.op.out_shape), obs.noise_var
        if noise is not None and any(item.noise_var is not noise for item in seen):
            noise = joined([_on_rows(item) for item in seen], rows)
        op = without_units(obs.op, len(parts), kept)  # type: ignore[arg-type]
        est = solve(upload.method or DEFAULT_UNIT, Observation(joined([s.y for s in seen], rows), op, noise, obs.axes))
        mean = est.belief.mean
        bad = (est.status == Status.NONFINITE)[(..., *(None,) * len(obs.op.in_shape))]
        lost = torch.ones(*obs.batch_shape, len(parts), dtype=torch.bool, device=mean.device)
        lost[..., list(kept)] = False
        found = Gaussian(mean.masked_fill(bad, torch.nan), est.belief.var.expand(mean.shape).masked_fill(bad, 0))
        return found, lost, None if obs.noise_var is not None else est.info["noise_var"]

    def _from_estimates(
        self, upload: EstimateUpload, answers: list[Message | Lost], parts: tuple[Observation, ...], obs: Observation
    ) -> tuple[Gaussian, Tensor, Tensor | None]:
        method, shape, batch = self.unit or DEFAULT_UNIT, tuple(obs.op.in_shape), obs.batch_shape
        there = {
            i: upload.receive(answer, parts[i], method)
            for i, answer in enumerate(answers)
            if not isinstance(answer, Lost)
        }
        lost = torch.ones(*batch, len(parts), dtype=torch.bool, device=obs.y.device)
        for i, item in there.items():
            lost[..., i] = ~item.ok
        mean = obs.y.new_full((math.prod(batch), *shape), complex(torch.nan, torch.nan))
        var = torch.zeros_like(mean.real)
        flat = lost.reshape(-1, len(parts))
        centre = self.centre or DEFAULT_CENTRE
        for pattern in flat.unique(dim=0):  # one, but for items that a unit could not solve
            kept = tuple((~pattern).nonzero()[:, 0].tolist())
            rows = (flat == pattern).all(-1).nonzero()[:, 0]
            if not kept:
                continue
            items = [there[i] for i in kept]
            h = joined([item.mean.reshape(-1, *item.mean.shape[len(batch) :])[rows] for item in items], len(shape))
            reported = torch.stack([item.var.reshape(-1)[rows] for item in items], -1)
            belief = centre(h, reported, kept, len(parts), shape, obs.axes, upload.shrunk)
            mean[rows], var[rows] = belief.mean, belief.var
        noise = None
        if obs.noise_var is None:
            told = torch.stack([item.noise_var for item in there.values()], -1).mean(-1)  # type: ignore[arg-type]
            noise = told[(..., *(None,) * len(obs.op.out_shape))]
        return Gaussian(mean.reshape(*batch, *shape), var.reshape(*batch, *shape)), lost, noise


def _on_rows(obs: Observation) -> Tensor:
    """Noise variances along the first axis of y; other axes of size 1 stay shared, which keeps the posterior fast."""
    rows, noise = len(obs.op.out_shape), obs.noise_var
    assert noise is not None
    noise = noise.reshape(*(1,) * (rows - noise.ndim), *noise.shape)
    return noise.expand(*noise.shape[: noise.ndim - rows], obs.op.out_shape[0], *noise.shape[noise.ndim - rows + 1 :])


def units_of(obs: Observation, jobs: Sequence[Job], key: tuple[Any, ...]) -> tuple[Unit, ...]:
    """The units of an observation, made once per operator and kind of job; `key`: the objects that make the jobs what
    they are."""

    def make() -> tuple[Any, tuple[Unit, ...]]:
        parts = split(obs, len(jobs))
        return key, tuple(Unit(part.op, job, obs.axes) for part, job in zip(parts, jobs, strict=True))  # type: ignore[arg-type]

    op: LinearOp = obs.op  # type: ignore[assignment]
    return cached(op, ("lpu", type(jobs[0]), len(jobs), obs.axes, *(id(part) for part in key)), make)[1]


def request_of(part: Observation) -> Message:
    return {"y": part.y} if part.noise_var is None else {"y": part.y, "noise_var": part.noise_var}


def lost_words(answers: list[Message | Lost]) -> str:
    """Which units are lost and why; UnitsLostError where all are."""
    words = [f"unit {i}: {answer.why}" for i, answer in enumerate(answers) if isinstance(answer, Lost)]
    if len(words) == len(answers):
        raise UnitsLostError(f"no unit of {len(answers)} answered: {'; '.join(words)}")
    return "; ".join(words)


def lost_info(state: State) -> dict[str, Any]:
    return {"lost_units": state["lost"], "lost_why": state["why"]}


def lost_status(state: State) -> Tensor:
    lost = state["lost"].any(-1) & ~state["lost"].all(-1)
    return torch.where(lost, int(Status.DEGRADED), int(Status.OK)).to(torch.int8)
